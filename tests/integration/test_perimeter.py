# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vault in a network security perimeter ignores the firewall's exception for trusted services. The collection cannot
read whether an access rule of the perimeter allows Batch, so Batch accepts or refuses the key. In both cases, the
account stays available."""

from __future__ import annotations

from typing import Any

import pytest
from one_process import OneProcess
from role_runs import VARS
from service import GROUP, Service

POSITIONS = ["closed", "open_to_batch"]
ACCOUNT = {"resource_group": GROUP, "account_name": "account1"}


@pytest.fixture(params=POSITIONS)
def is_open(request: pytest.FixtureRequest, service: Service) -> bool:
    service.sandbox.control.behavior(perimeter=request.param)
    return bool(request.param == "open_to_batch")


def secure(service: Service, vault: str = "vault-one") -> None:
    acls = {"bypass": "AzureServices", "defaultAction": "Deny"}
    service.change_vault(vault, properties={"publicNetworkAccess": "SecuredByPerimeter", "networkAcls": acls})


def network(report: dict[str, Any]) -> dict[str, Any]:
    [check] = [one for one in report["preflight"] if one["name"] == "network_open_to_batch"]
    return check


def test_an_account_is_put_on_a_key(runner: OneProcess, service: Service, is_open: bool) -> None:
    """Batch accepts or refuses the key. The caller is outside the perimeter and cannot read the key."""
    _principal, first = service.on_key()
    service.make_vault("vault-two", rbac=True)
    other = service.make_key(vault="vault-two").id
    service.grant(service.account()["identity"]["principalId"], "vault-two")
    secure(service, "vault-two")

    report = runner.module(
        "batch_encryption",
        {
            **ACCOUNT,
            "key_source": "microsoft_keyvault",
            "key_identifier": other,
            "previous_key": "any",
            "wait_timeout": 30,
        },
    )

    assert service.is_available()
    assert service.encryption() == (other if is_open else first), report
    assert bool(report.get("failed")) is not is_open
    if is_open:
        assert network(report)["status"] == "unknown"
        assert any("network security perimeter" in warning for warning in report["warnings"])


def test_an_account_whose_vault_is_moved_into_a_perimeter(runner: OneProcess, service: Service, is_open: bool) -> None:
    service.on_key()
    secure(service)
    assert service.is_available() is is_open

    info = runner.module("batch_encryption_diagnosis", ACCOUNT)
    audit = runner.module("batch_encryption_audit", {"pools": True, "return_accounts": True})
    unasked = runner.module("batch_encryption_audit", {"return_accounts": True})
    recovery = runner.role("recover", {**VARS, "cmk_wait_timeout": 10})

    causes = [cause["name"] for cause in info["causes"]]
    # The caller is outside the perimeter and cannot read the key, and a list of pools alone proves nothing.
    assert (info["available"], causes) == ((None, []) if is_open else (False, ["network_closed"])), info
    [found] = audit["accounts"]
    findings = [one["id"] for one in found["findings"]]
    assert ("network_closed" in findings) is not is_open, found
    [unknown] = unasked["accounts"]
    assert "network security perimeter" in unknown["unknown"]["network"]
    assert "Allow Batch there" in unknown["unknown"]["network"]
    assert "network_closed" not in [one["id"] for one in unknown["findings"]]
    assert recovery["failed"]
    if not is_open:
        assert "Allow Batch there" in recovery["msg"]
