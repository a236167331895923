# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A creation or a deletion takes effect, and the task does not get its response. The SDK sends the request again, and
the task reports its own change (invariant I4)."""

from __future__ import annotations

from typing import Any

import pytest
from one_process import OneProcess
from operators import done
from service import GROUP, LOCATION, Service

LOST: dict[str, dict[str, Any]] = {
    "503": {"handled": True, "answer": {"status": 503}},
    "503, later": {"handled": True, "answer": {"status": 503, "headers": {"Retry-After": "15"}}},
    "dropped": {"drop": "after"},
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("key", [False, True], ids=["without a key", "with a key"])
@pytest.mark.parametrize("takes", [0, 30])
@pytest.mark.slow(every=3)
def test_an_account_is_created(runner: OneProcess, service: Service, lost: str, key: bool, takes: int) -> None:
    principal = service.make_identity()["properties"]["principalId"]
    service.make_vault()
    identifier = str(service.make_key().id)
    service.grant(principal)
    service.sandbox.control.timing(batch_create=takes)
    service.sandbox.control.fault(match={"method": "PUT", "path": "/batchAccounts/"}, times=1, **LOST[lost])
    wanted = {"resource_group": GROUP, "name": "account1", "location": LOCATION, "identity_id": service.identity_id()}
    since = service.sandbox.control.last

    made = done(runner.module("batch_account_identity", wanted | ({"key_identifier": identifier} if key else {})))

    assert made["changed"] is True
    listed = [one for one in service.sandbox.control.requests(since) if one["url"].partition("?")[0].endswith("/pools")]
    assert bool(listed) is key, "the list of pools confirms that the account can use its key"


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.slow(every=2)
def test_a_vault_is_created(runner: OneProcess, service: Service, lost: str) -> None:
    service.sandbox.control.fault(match={"method": "PUT", "path": "/vaults/vault-one"}, times=1, **LOST[lost])

    made = done(runner.module("keyvault_cmk_vault", {"resource_group": GROUP, "name": "vault-one"}))

    assert made["changed"] is True


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.slow(every=2)
def test_a_key_is_deleted(runner: OneProcess, service: Service, lost: str) -> None:
    service.make_vault()
    service.make_key("spare")
    service.sandbox.control.fault(match={"method": "DELETE", "path": "/keys/spare"}, times=1, **LOST[lost])

    wanted = {"vault_name": "vault-one", "name": "spare", "state": "absent", "unused_for": "P0D"}
    made = done(runner.module("keyvault_cmk_key", wanted))

    assert made["changed"] is True
