# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads that do not depend on each other are sent at the same time, because each is a round trip to Azure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from one_process import OneProcess
from service import GROUP, LOCATION, Service

# The slow response takes so long that all reads that can begin meanwhile have begun.
SLOW = 2
ACCOUNT = {"resource_group": GROUP, "account_name": "account1"}
VAULT = {"resource_group": GROUP, "name": "vault-one"}


@pytest.mark.parametrize(
    ("module", "options", "slow", "early"),
    [
        pytest.param(
            "keyvault_cmk_vault",
            VAULT,
            ("POST", "Microsoft.KeyVault/checkNameAvailability"),
            ["/permissions", "/resourceGroups/rg-sandbox?", "/providers/Microsoft.KeyVault?"],
            id="a new vault",
        ),
        pytest.param(
            "batch_encryption",
            {**ACCOUNT, "key_source": "microsoft_keyvault"},
            ("GET", "/keys/key1/"),
            ["/vaults/vault-one"],
            id="a key and its vault",
        ),
    ],
)
def test_reads_begin_while_another_response_is_slow(
    runner: OneProcess, service: Service, module: str, options: dict[str, Any], slow: tuple[str, str], early: list[str]
) -> None:
    control = service.sandbox.control
    if module != "keyvault_cmk_vault":
        service.make_vault(rbac=True)
        key = service.make_key()
        created = {"resource_group": GROUP, "name": "account1", "location": LOCATION}
        account = runner.module("batch_account_identity", created)
        if module == "batch_encryption":
            service.assign(account["identity"]["principal_id"], service.vault_id())
            options = {**options, "key_identifier": key.id}
    method, path = slow
    since = control.last
    control.fault(match={"method": method, "path": path}, delay=SLOW, times=1)

    report = runner.module(module, options)
    assert report["changed"], report

    before = _responded_before(path, control.requests(since))
    for part in early:
        assert any(part in url for url in before), (part, before)


def test_the_time_of_an_account_is_read_with_its_document(runner: OneProcess, service: Service) -> None:
    """After a recent change of the key, the time of the account's last change shows whether Batch has used the key."""
    service.on_key()
    since = service.sandbox.control.last
    forced = {
        "used_by_account": "account1",
        "account_resource_group": GROUP,
        "vault_name": "vault-one",
        "name": "key1",
        "new_version": True,
    }

    report = runner.module("keyvault_cmk_key", forced)
    assert report["changed"], report

    reads = [one["url"] for one in service.sandbox.control.requests(since) if "batchAccounts/account1?" in one["url"]]
    assert len(reads) == 1, reads


def _responded_before(slow: str, sent: Sequence[dict[str, Any]]) -> list[str]:
    """The URLs of the requests whose responses were sent before that of the slow request. The log is in this order."""
    urls = [one["url"] for one in sent]
    return urls[: next(place for place, url in enumerate(urls) if re.search(slow, url))]
