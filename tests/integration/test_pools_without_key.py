# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch may list the pools of an account that has lost its key, or refuse the list with one of several statuses. In
each case, the account is never reported as available, no run changes its key, and recover repairs the key."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from meddling import REALISTIC
from one_process import OneProcess
from operators import done
from role_runs import VARS
from service import GROUP, Service
from test_recover_combinations import FAULTS

from azure_sandbox.shared.behavior import POSITIONS

ON_ACCOUNT = {"resource_group": GROUP, "account_name": "account1"}


@pytest.fixture(params=POSITIONS["pools_without_key"])
def position(request: pytest.FixtureRequest, service: Service) -> str:
    service.sandbox.control.behavior(pools_without_key=request.param)
    return str(request.param)


LOST: dict[str, Callable[[Service], None]] = {
    name: FAULTS[name].make
    for name in (
        *("disabled", "expired", "may not unwrap", "key deleted", "access revoked", "firewall closed"),
        *("firewall closed to the caller", "vault deleted"),
    )
}


def lose_identities(service: Service) -> None:
    """One identity of the account is deleted, but its access policy remains. The other identity loses its access."""
    for name in ("access of one identity revoked", "one identity deleted"):
        FAULTS[name].make(service)


LOST["no identity with access"] = lose_identities


def lose(service: Service, fault: str) -> None:
    names = ("identity1", "identity2") if fault == "no identity with access" else ("identity1",)
    identity = {
        "type": "UserAssigned",
        "userAssignedIdentities": {service.identity_id(name): {} for name in names},
    }
    service.make_vault()
    for name in names:
        service.grant(service.make_identity(name)["properties"]["principalId"])
    service.make_account(identity=identity)
    service.point(service.make_key().id)
    LOST[fault](service)
    assert not service.is_available()


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.slow(every=12)
def test_an_account_without_its_key(runner: OneProcess, service: Service, position: str, fault: str) -> None:
    """Until the role recover repairs the key, each run fails or reports that the availability is unknown."""
    lose(service, fault)
    used = service.encryption()

    info = done(runner.module("batch_encryption_info", ON_ACCOUNT))
    audit = done(runner.module("batch_encryption_audit", {"return_accounts": True, "pools": True}))
    [audited] = audit["accounts"]
    for available in (info["available"], audited["available"]):
        assert available is False, (info, audited)
    for role, more in (("revert", {}), ("rotate", {"cmk_key_new_version": True, "cmk_wait_timeout": 1})):
        for check in (True, False):
            report = runner.another().role(role, {**VARS, **more}, check=check)
            assert report.get("failed"), (check, report)
        assert service.encryption() == used

    # If Batch does not show whether the account is available, only a caller who can read the key can confirm a repair.
    is_refused = position == "200" and fault == "firewall closed to the caller"
    check = runner.another().role("recover", VARS, check=True)
    report = runner.another().role("recover", VARS)
    for played in (check, report):
        assert bool(played.get("failed")) is is_refused, played
        assert is_refused or played["changed"] is True
    # If Batch lists the pools without the key, nothing shows when the account is available again. An error of the
    # service before the repair is no proof.
    expected = {"200": (None,), "500": (None, True)}.get(position, (True,))
    assert is_refused or report["available"] in expected, report
    assert service.is_available()
    again = runner.another().role("recover", VARS)
    # The caller cannot read the key.
    assert bool(again.get("failed")) is (fault == "firewall closed to the caller"), again
    assert again["changed"] is False


@pytest.mark.parametrize("fault", ["disabled", "key deleted", "access revoked", "firewall closed"])
@pytest.mark.slow(every=12)
def test_an_account_with_a_slow_recovery(runner: OneProcess, service: Service, position: str, fault: str) -> None:
    """The role recover waits if Batch shows when the account is available. Otherwise it reports that the availability
    is unknown."""
    service.sandbox.control.timing(**REALISTIC)
    lose_slowly(service, fault)
    # Times of changes are whole seconds.
    service.sandbox.control.advance(2)

    report = done(runner.role("recover", {**VARS, "cmk_wait_timeout": 900}))

    assert report["available"] is (None if position == "200" else True), report
    assert position == "200" or service.is_available()
    if position == "200":
        assert any("is available is not known" in warning for warning in report["warnings"])
    # Another run reads when the version, the access and the vault were changed.
    info = done(runner.another().module("batch_encryption_info", ON_ACCOUNT))
    assert info["available"] in (None, service.is_available())
    [audited] = done(runner.another().module("batch_encryption_audit", {"return_accounts": True, "pools": True}))[
        "accounts"
    ]
    assert audited["available"] == info["available"]
    assert audited["available"] is not None or audited["state"] == "unknown"
    service.sandbox.control.advance(REALISTIC["batch_recovery"] + 600)
    assert done(runner.another().module("batch_encryption_info", ON_ACCOUNT))["available"] is True


def lose_slowly(service: Service, fault: str) -> None:
    control = service.sandbox.control
    control.timing(policy_propagation=0, role_propagation=0, batch_create=0)
    lose(service, fault)
