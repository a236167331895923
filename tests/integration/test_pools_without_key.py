# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch may list the pools of an account that has lost its key, or refuse the list with one of several statuses. In
each case, the account is never reported as available, no run changes its key, and recover repairs the key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from callers import give, sign_in
from meddling import REALISTIC
from one_process import OneProcess
from operators import done
from role_runs import VARS
from service import DAY, GROUP, Service
from test_recover_combinations import ACTIONS, DATA_ACTIONS, DELETED, FAULTS, KEYS

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


@pytest.mark.parametrize("fault", ["key", "vault", "access"])
@pytest.mark.slow(every=3)
def test_other_accounts_are_rotated(runner: OneProcess, service: Service, position: str, fault: str) -> None:
    """An account that has lost its key may use any key for its pools. So versions of other keys stay enabled, and a
    warning names the account, but other accounts are rotated."""
    service.on_key()
    service.point(service.make_key().id)
    service.make_vault("vault-two")
    principal = service.make_account("account2")["identity"]["principalId"]
    service.grant(principal, "vault-two")
    service.point(service.make_key("other", "vault-two").id, "account2")
    service.sandbox.control.advance(30 * DAY)
    if fault == "key":
        service.disable("other", vault="vault-two")
    elif fault == "vault":
        service.delete_vault("vault-two")
    else:
        service.revoke(principal, "vault-two")
    service.sandbox.control.advance(7200)
    assert not service.is_available("account2")

    unused = {"cmk_unused_versions": "disable"}
    report = done(runner.another().role("rotate", {**VARS, **unused, "cmk_key_new_version": True}))
    assert report["changed"] is report["available"] is True
    service.sandbox.control.advance(8 * DAY)
    report = done(runner.another().role("rotate", {**VARS, **unused}))
    if position == "200":
        # Batch lists the pools, and none has a key.
        assert service.enabled() == [False, False, True]
    else:
        assert service.enabled() == [True, True, True]
        (warning,) = report["warnings"]
        assert ": account2." in warning


def without_access(service: Service) -> str:
    """An account that follows its key loses its access, and with it the next version of the key. The version that it
    needs is disabled days later, and then the access is granted again. Returns that version."""
    principal, used = service.on_key(rbac=True, follow=True)
    version = used.rpartition("/")[2]
    service.revoke(principal)
    service.make_key()
    service.sandbox.control.advance(3 * DAY)
    service.disable(version=version)
    service.sandbox.control.advance(5 * DAY)
    service.grant(principal)
    service.sandbox.control.advance(3600)
    return version


def recovered(runner: OneProcess, version: str, *, is_refused: bool) -> dict[str, Any]:
    """The report of the role recover. Unless Batch refuses the account, it names the version. The user enables it."""
    report = runner.another().role("recover", VARS)
    if not is_refused:
        said = " ".join((report.get("msg", ""), *report.get("warnings", ())))
        assert not report["changed"]
        assert f"/{version}, state: enabled)" in said
        vault_and_key = {"vault_name": VARS["cmk_vault_name"], "name": VARS["cmk_key_name"]}
        done(
            runner.another().module("keyvault_cmk_key_state", {**vault_and_key, "version": version, "state": "enabled"})
        )
    return report


@pytest.mark.slow(every=4)
def test_a_follower_that_had_no_access_when_a_version_was_created(
    runner: OneProcess, service: Service, position: str
) -> None:
    """No run reports that the account is available until the version that it needs is enabled. The role recover enables
    it only if Batch refuses the account."""
    version, is_named = without_access(service), position in ("409", "403")
    assert not service.is_available()
    assert shown(runner) == ([False, False] if is_named else [None, None])

    move = {**VARS, "cmk_key_version_mode": "pin", "cmk_wait_timeout": 1}
    moved = runner.another().role("rotate", move)
    assert moved.get("failed"), moved
    assert "and is available" not in moved["msg"]
    report = recovered(runner, version, is_refused=is_named)
    assert service.key(version=version).properties.enabled is service.is_available() is True
    # Only a refusal of Batch that names the key shows later that the account is available again.
    assert report.get("available") is (True if is_named else None)

    assert is_named or shown(runner) == [None, None]
    service.sandbox.control.advance(600)
    assert service.is_available()
    assert shown(runner) == [True, True]
    # The version stays enabled until Batch has moved the account to the newest version.
    retire = {**VARS, "cmk_unused_versions": "disable"}
    done(runner.another().role("rotate", retire))
    service.sandbox.control.advance(7 * DAY)
    assert (service.is_available(), service.key(version=version).properties.enabled) == (True, True)
    done(runner.another().role("rotate", retire))
    service.sandbox.control.advance(2 * DAY)
    assert (service.is_available(), service.key(version=version).properties.enabled) == (True, False)


def test_an_accepted_change_shows_that_a_follower_has_not_lost_its_version(
    runner: OneProcess, service: Service, position: str
) -> None:
    """The access was granted again after the previous version had been disabled. Batch accepts a change of the account
    seven days after the version was disabled. A list of pools is no proof, because it
    is not documented whether Batch lists the pools of an account that has lost its key."""
    principal, used = service.on_key(rbac=True, follow=True)
    service.make_key()
    service.sandbox.control.advance(3 * DAY)
    service.disable(version=used.rpartition("/")[2])
    service.sandbox.control.advance(6 * DAY)
    service.revoke(principal)
    service.grant(principal)
    service.sandbox.control.advance(3600)
    assert service.is_available()
    assert shown(runner) == [None, None]

    service.sandbox.control.advance(DAY)
    assert shown(runner) == [None, None]
    service.batch.batch_account.update(GROUP, "account1", {"tags": {"team": "one"}})

    assert shown(runner) == [True, True]


def shown(runner: OneProcess) -> list[bool | None]:
    """Whether the account is available, according to the module batch_encryption_info and to an audit."""
    info = done(runner.another().module("batch_encryption_info", ON_ACCOUNT))
    audit = done(runner.another().module("batch_encryption_audit", {"return_accounts": True, "pools": True}))
    return [info["available"], audit["accounts"][0]["available"]]


def test_check_mode_of_a_move_that_batch_would_refuse(runner: OneProcess, service: Service, position: str) -> None:
    """Batch refuses to change an account that has lost its key, even if Batch lists the pools of the account."""
    lose(service, "disabled")
    service.make_key("other")
    wanted = {**VARS, "cmk_new_key_identifier": service.key("other").id}

    check, run = (runner.role("switch", wanted, check=check) for check in (True, False))

    assert (check["task"], check["code"]) == (run["task"], run["code"]), (check, run)
    assert run["code"] == "account_unavailable"
    assert "is available" not in run["msg"].replace("It is available within ten minutes", "")


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


def test_availability_is_unknown_if_the_caller_cannot_read_the_key(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, position: str
) -> None:
    """If Batch lists the pools and the caller cannot read the key, the availability of the account is unknown."""
    lose(service, "disabled")
    at_group = give(service, service.sandbox.group, {*ACTIONS}, {*DATA_ACTIONS} - {f"{KEYS}/read"})
    sign_in(service, monkeypatch, [at_group, give(service, service.sandbox.subscription, {DELETED}, set())])

    info = done(runner.module("batch_encryption_info", ON_ACCOUNT))
    assert info["available"] is (False if position in ("409", "403") else None), info
    assert bool(info.get("warnings")) is (info["available"] is None)
    report = runner.role("recover", VARS)
    assert report.get("failed"), report


@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "follows"])
@pytest.mark.slow(every=3)
def test_availability_is_unknown_if_the_caller_cannot_list_versions(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, position: str, follow: bool
) -> None:
    """The account has lost its previous version, which only the list of versions shows."""
    _principal, first = service.on_key(follow=follow)
    service.sandbox.control.advance(90 * DAY)
    service.sandbox.control.behavior(follower_delay="86400", previous_version_needed="86400")
    second = service.make_key().id
    if not follow:
        service.point(second)
    service.sandbox.control.advance(2 * 3600)
    service.disable(version=first.rpartition("/")[2])
    service.sandbox.control.advance(3600)
    assert not service.is_available()
    at_group = give(service, service.sandbox.group, {*ACTIONS}, set())
    who = sign_in(service, monkeypatch, [at_group, give(service, service.sandbox.subscription, {DELETED}, set())])
    service.set_policy("add", service.policy(who, "get", "update"))

    assert shown(runner) == [False if position in ("409", "403") else None] * 2
    report = runner.another().role("recover", {**VARS, "cmk_wait_timeout": 1})
    assert report.get("failed"), report
    assert "list" in report["msg"]
    assert (report["code"], report["changed"]) == ("permission_denied", False)

    service.set_policy("add", service.policy(who, "list"))
    recovered(runner, first.rpartition("/")[2], is_refused=position in ("409", "403"))
    assert service.is_available()
