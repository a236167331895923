# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Without a private endpoint, a controller cannot read the keys of a vault. docs/private-vault.md lists the results."""

from __future__ import annotations

from typing import Any

import pytest
from one_process import OneProcess
from role_runs import VARS
from service import GROUP, Service

ACCOUNT = {"resource_group": GROUP, "account_name": "account1"}
KEPT = "could not be updated without a change"


def close(service: Service, vault: str = "vault-one", *, bypass: str = "AzureServices") -> None:
    acls = {"bypass": bypass, "defaultAction": "Deny"}
    service.change_vault(vault, properties={"publicNetworkAccess": "Disabled", "networkAcls": acls})


@pytest.fixture
def first(service: Service) -> str:
    """The key version that account1 uses, in a vault without public network access."""
    _principal, identifier = service.on_key()
    close(service)
    return identifier


def role(runner: OneProcess, name: str, **variables: Any) -> dict[str, Any]:
    report: dict[str, Any] = runner.role(name, {**VARS, "cmk_wait_timeout": 10, **variables})
    return report


@pytest.mark.parametrize("name", ["provision", "rotate", "recover"])
def test_roles_that_need_the_key_fail(runner: OneProcess, service: Service, first: str, name: str) -> None:
    report = role(runner, name)

    assert report["code"] == "network_denied", report
    assert service.encryption() == first
    assert service.is_available()


def test_a_switch_and_a_revert_move_the_account(runner: OneProcess, service: Service, first: str) -> None:
    service.make_vault("vault-two")
    other = service.make_key(vault="vault-two").id
    service.grant(service.account()["identity"]["principalId"], "vault-two")
    close(service, "vault-two")

    switched = role(runner, "switch", cmk_new_key_identifier=other)
    assert service.encryption() == other, switched
    assert service.is_available()
    reverted = role(runner, "revert", cmk_vault_name="vault-two")

    assert service.encryption() is None, reverted
    assert any("Could not check key_enabled" in one for one in switched["warnings"])
    for report in (switched, reverted):
        assert any(KEPT in one for one in report["warnings"]), report


@pytest.mark.parametrize("required", [False, True])
def test_whether_the_account_is_available_is_not_known(
    runner: OneProcess, service: Service, first: str, required: bool
) -> None:
    key = {"key_source": "microsoft_keyvault", "key_identifier": first, "require_readable": required}

    info = runner.module("batch_encryption_info", ACCOUNT)
    unchanged = runner.module("batch_encryption", {**ACCOUNT, **key})
    audit = runner.module("batch_encryption_audit", {"return_accounts": True})

    assert info["available"] is None
    assert any("vault-one" in one for one in info["warnings"])
    assert unchanged.get("code") == ("availability_unknown" if required else None), unchanged
    assert required or unchanged["available"] is None
    [found] = audit["accounts"]
    assert (found["state"], [one["id"] for one in found["findings"]]) == ("unknown", ["not_read"])


def test_recover_restores_the_exception_for_batch(runner: OneProcess, service: Service, first: str) -> None:
    close(service, bypass="None")
    assert not service.is_available()
    info = runner.module("batch_encryption_diagnosis", ACCOUNT)
    rotated = role(runner, "rotate")

    role(runner, "recover")

    assert rotated["code"] == "account_unavailable", rotated
    assert "recover from a network that it allows" in rotated["msg"]
    assert [cause["name"] for cause in info["causes"]] == ["network_closed"]
    assert service.vault()["properties"]["networkAcls"]["bypass"] == "AzureServices"
    assert service.vault()["properties"]["publicNetworkAccess"] == "Disabled"
    assert service.is_available()
    assert service.encryption() == first
