# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A creation or a deletion takes effect, and the task does not get its response. The SDK sends the request again, and
the task reports its own change."""

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

# How Azure refuses the second try, and the code of the error if that is the result of the task.
REFUSALS: dict[str, tuple[int, str, str]] = {
    "forbidden": (403, "RequestDisallowedByPolicy", "permission_denied"),
    "not found": (404, "ResourceGroupNotFound", "resource_group_not_found"),
    "conflict": (409, "Conflict", "rejected_by_service"),
}


def refuse_second_try(service: Service, path: str, refusal: str, *, is_first_handled: bool) -> None:
    """The response to the first try of the creation is lost. `is_first_handled`: the first try takes effect."""
    match = {"method": "PUT", "path": path}
    status, code, _result = REFUSALS[refusal]
    answer = {"status": status, "body": {"error": {"code": code, "message": "No, says the test."}}}
    service.sandbox.control.fault(match=match, times=1, answer={"status": 503}, handled=is_first_handled)
    service.sandbox.control.fault(match=match, skip=1, times=1, answer=answer)


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


ACCOUNT = {"resource_group": GROUP, "name": "account1", "location": LOCATION}


@pytest.mark.parametrize("is_created", [True, False], ids=["created", "not created"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_second_try_to_create_an_account_is_refused(
    runner: OneProcess, service: Service, refusal: str, is_created: bool
) -> None:
    refuse_second_try(service, "/batchAccounts/account1", refusal, is_first_handled=is_created)

    report = runner.module("batch_account_identity", ACCOUNT)

    code = None if is_created else REFUSALS[refusal][2]
    assert (report["changed"], report.get("code")) == (is_created, code), report
    assert service.accounts() == ["account1"] * is_created


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.slow(every=2)
def test_a_key_is_deleted(runner: OneProcess, service: Service, lost: str) -> None:
    service.make_vault()
    service.make_key("spare")
    service.sandbox.control.fault(match={"method": "DELETE", "path": "/keys/spare"}, times=1, **LOST[lost])

    wanted = {"vault_name": "vault-one", "name": "spare", "state": "absent", "unused_for": "P0D"}
    made = done(runner.module("keyvault_cmk_key_state", wanted))

    assert made["changed"] is True
