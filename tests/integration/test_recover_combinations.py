# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role recover with two faults at once, and some with three: one run recovers the account, or fails with all
reasons. Check mode predicts the run."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from callers import give, sign_in
from cases import CLOSED, PROOF_OF_ALL
from one_process import OneProcess
from predictions import Played, assert_came_true, played, written
from role_runs import VARS
from service import DAY, Service

KEYS = "Microsoft.KeyVault/vaults/keys"
DELETED = "Microsoft.KeyVault/deletedVaults/read"
ACTIONS = (
    "Microsoft.Authorization/permissions/read",
    "Microsoft.Authorization/roleAssignments/read",
    "Microsoft.Authorization/roleAssignments/write",
    "Microsoft.Authorization/roleDefinitions/read",
    "Microsoft.Batch/batchAccounts/pools/read",
    "Microsoft.Batch/batchAccounts/read",
    "Microsoft.KeyVault/vaults/accessPolicies/write",
    "Microsoft.KeyVault/vaults/read",
    "Microsoft.KeyVault/vaults/write",
    "Microsoft.ManagedIdentity/userAssignedIdentities/read",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
)
DATA_ACTIONS = (f"{KEYS}/read", f"{KEYS}/recover/action", f"{KEYS}/update/action")
EVERY_RIGHT = frozenset({*ACTIONS, *DATA_ACTIONS, DELETED})


def now(service: Service) -> datetime:
    return datetime.fromtimestamp(service.sandbox.control.call("GET", "/clock")["time"], UTC)


def expire(service: Service) -> None:
    service.keys().update_key_properties("key1", expires_on=now(service) + timedelta(seconds=1))
    # More than the possible difference between the clocks of Azure and of this machine.
    service.sandbox.control.advance(60)


def postpone(service: Service) -> None:
    service.keys().update_key_properties("key1", not_before=now(service) + timedelta(days=1))


def forbid(service: Service) -> None:
    service.keys().update_key_properties("key1", key_operations=["sign"])


def delete_key(service: Service) -> None:
    service.keys().begin_delete_key("key1").wait()


def purge_key(service: Service) -> None:
    delete_key(service)
    service.sandbox.control.advance(91 * DAY)


def replace_key(service: Service) -> None:
    """Another key has the name of the purged key."""
    purge_key(service)
    service.make_key()


def revoke(service: Service) -> None:
    for identity in service.account()["identity"]["userAssignedIdentities"].values():
        service.revoke(identity["principalId"])


def revoke_one(service: Service) -> None:
    service.revoke(
        service.account()["identity"]["userAssignedIdentities"][service.identity_id("identity2")]["principalId"]
    )


def close(service: Service, **rules: Any) -> None:
    service.change_vault(properties={"networkAcls": {**CLOSED, **rules}})


def close_to_caller(service: Service) -> None:
    close(service, ipRules=[])


def secure_by_perimeter(service: Service) -> None:
    service.change_vault(properties={"publicNetworkAccess": "SecuredByPerimeter"})


def move_to_other_tenant(service: Service) -> None:
    service.change_vault(properties={"tenantId": str(uuid.uuid4())})


def delete_one_identity(service: Service) -> None:
    service.identities.user_assigned_identities.delete("rg-sandbox", "identity1")


def delete_identity(service: Service) -> None:
    for identity in service.account()["identity"]["userAssignedIdentities"]:
        service.identities.user_assigned_identities.delete("rg-sandbox", identity.rpartition("/")[2])


def purge_vault(service: Service) -> None:
    service.delete_vault()
    service.sandbox.control.advance(91 * DAY)


@dataclass(frozen=True)
class Fault:
    # Part of the cause's evidence, or the missing permission.
    message: str
    make: Callable[[Service], None] = lambda _service: None
    # A combination has at most one fault of each kind.
    kind: str = ""
    lacks: str = ""


# In the order in which the faults can be caused.
FAULTS = {
    "disabled": Fault("is disabled", Service.disable),
    "expired": Fault("has expired", expire, "validity"),
    "not valid yet": Fault("not valid yet", postpone, "validity"),
    "may not unwrap": Fault("The key allows sign", forbid),
    "key deleted": Fault("was deleted", delete_key, "key"),
    "key purged": Fault("it was purged", purge_key, "key"),
    "key replaced": Fault("was purged", replace_key, "key"),
    "access revoked": Fault("lacks get, unwrapKey, wrapKey", revoke, "access"),
    "access of one identity revoked": Fault("lacks get, unwrapKey, wrapKey", revoke_one, "access"),
    "firewall closed": Fault("blocks trusted Microsoft services", close, "firewall"),
    "firewall closed to the caller": Fault("blocks trusted Microsoft services", close_to_caller, "firewall"),
    "secured by a perimeter": Fault("perimeter", secure_by_perimeter, "firewall"),
    "in another tenant": Fault("tenant", move_to_other_tenant),
    "identity deleted": Fault("Identities of the account were deleted", delete_identity, "identity"),
    "one identity deleted": Fault("", delete_one_identity, "identity"),
    "vault deleted": Fault("it can be recovered until", Service.delete_vault, "vault"),
    "vault purged": Fault("there is neither a vault nor", purge_vault, "vault"),
    **{
        f"without {right}": Fault(right, kind="rights", lacks=right)
        for right in (
            "Microsoft.KeyVault/vaults/read",
            f"{KEYS}/read",
            f"{KEYS}/update/action",
            f"{KEYS}/recover/action",
            "Microsoft.KeyVault/vaults/write",
            "Microsoft.Authorization/roleAssignments/write",
            DELETED,
        )
    },
}
ON_KEY = {"disabled", "expired", "not valid yet", "may not unwrap"}
GONE = {"key purged", "key replaced"}
CLOSED_TO_CALLER = "firewall closed to the caller"
PERIMETER, TENANT = "secured by a perimeter", "in another tenant"
# Batch detects this fault only if the firewall allows Batch.
LAST_SAID = "may not unwrap"
# No run recovers from these faults.
LOST = {"identity deleted", "vault purged", TENANT, PERIMETER, *GONE}
# With one of these faults, the account is available.
HARMLESS = {"access of one identity revoked", "one identity deleted"}
# With these faults, check mode cannot predict all causes that the run will find, and warns.
HIDING = {"vault deleted", "key deleted", CLOSED_TO_CALLER, PERIMETER}
Case = tuple[str, ...]


def combinations() -> list[Case]:
    """The pairs of faults of different kinds with which the account is not available."""
    found = []
    for case in itertools.combinations(FAULTS, 2):
        kinds = [FAULTS[name].kind for name in case if FAULTS[name].kind]
        faults = {name for name in case if not FAULTS[name].lacks}
        is_lost = bool(faults - HARMLESS) or faults == HARMLESS
        if is_lost and len(kinds) == len(set(kinds)):
            found.append(case)
    return found


FAST: list[Case] = [
    ("disabled", "firewall closed", "vault deleted"),
    ("disabled", "access revoked", "vault deleted"),
    ("expired", "firewall closed to the caller"),
    ("may not unwrap", "firewall closed to the caller"),
    ("disabled", "firewall closed to the caller", "vault deleted"),
    ("access revoked", "identity deleted"),
    ("disabled", "without Microsoft.KeyVault/vaults/read"),
    ("disabled", "vault deleted", f"without {KEYS}/update/action"),
    ("key replaced", "vault deleted"),
    ("access of one identity revoked", "in another tenant"),
    ("access of one identity revoked", "one identity deleted"),
    ("access revoked", "firewall closed", "without Microsoft.KeyVault/vaults/write"),
]


def lacking(case: Case) -> set[str]:
    return {FAULTS[name].lacks for name in case} - {""}


def make(service: Service, case: Case, monkeypatch: pytest.MonkeyPatch, *, rbac: bool) -> None:
    kind = kind_of(case)
    service.make_vault(rbac=rbac)
    names = ["identity1", "identity2"] if kind == "two identities" else ["identity1"]
    for name in names:
        service.grant(service.make_identity(name)["properties"]["principalId"])
    assigned = {service.identity_id(name): {} for name in names}
    service.make_account(identity={"type": "UserAssigned", "userAssignedIdentities": assigned})
    identifier = service.make_key().id
    service.point(identifier.rpartition("/")[0] if kind == "follows" else identifier)
    if lacking(case):
        has, sandbox = EVERY_RIGHT - lacking(case), service.sandbox
        at_group = give(service, sandbox.group, has & {*ACTIONS}, has & {*DATA_ACTIONS})
        sign_in(service, monkeypatch, [at_group, give(service, sandbox.subscription, has & {DELETED})])
    for name in case:
        FAULTS[name].make(service)


def blockers(case: Case) -> set[str]:
    """A part of the error message for each reason why a run cannot recover the account."""
    faults, rbac = set(case), has_roles(case)
    lost = {FAULTS[name].message for name in faults & LOST - hidden(case)}
    if "vault purged" in faults and lacking(case):
        # A caller with permissions only on the resource group cannot know whether another group has the vault.
        lost = lost - {FAULTS["vault purged"].message} | {"Microsoft.KeyVault/vaults/read"}
    if lost:
        return lost
    needed = {"Microsoft.KeyVault/vaults/read"}
    if CLOSED_TO_CALLER in faults:
        if faults & {*ON_KEY, *GONE, "key deleted"} - {LAST_SAID}:
            return {"Run the task from a network"}
    elif not faults & {PERIMETER, TENANT}:
        needed.add(f"{KEYS}/read")
    if faults & ON_KEY and CLOSED_TO_CALLER not in faults:
        needed.add(f"{KEYS}/update/action")
    needed |= {f"{KEYS}/recover/action", f"{KEYS}/update/action"} if "key deleted" in faults else set()
    needed |= {DELETED} if "vault deleted" in faults else set()
    if faults & {"vault deleted", "firewall closed", CLOSED_TO_CALLER}:
        needed.add("Microsoft.KeyVault/vaults/write")
    if rbac and faults & {"vault deleted", "access revoked", "access of one identity revoked"}:
        needed.add("Microsoft.Authorization/roleAssignments/write")
    still_hidden = hidden(tuple(name for name in case if name != "vault deleted"))
    if TENANT not in faults:
        still_hidden.discard(PERIMETER)
    reasons = needed & lacking(case) or {FAULTS[name].message for name in faults & LOST - still_hidden}
    return reasons or ({"Run the task from a network"} if {CLOSED_TO_CALLER, LAST_SAID} <= faults else set())


def hidden(case: Case) -> set[str]:
    """The faults that a run does not report before a repair."""
    faults = {*case}
    if faults & {"vault deleted", "vault purged"} or "Microsoft.KeyVault/vaults/read" in lacking(case):
        return {*GONE, TENANT, PERIMETER}
    found: set[str] = set()
    if faults & {CLOSED_TO_CALLER, TENANT, PERIMETER} or f"{KEYS}/read" in lacking(case):
        found |= GONE
    # Only Batch shows that the account follows another key, and Batch reports one reason.
    if kind_of(case) == "follows" and "identity deleted" in faults:
        found.add("key replaced")
    # A perimeter is a reason if nothing else explains the loss.
    if faults & {TENANT, "access revoked", "access of one identity revoked"}:
        found.add(PERIMETER)
    return found


def has_roles(case: Case) -> bool:
    """Whether the vault uses Azure RBAC. Only a role can lack a single permission on keys. For other combinations, the
    length of the names decides, so that both permission models occur."""
    return bool(lacking(case)) or len(" ".join(case)) % 2 == 0


def kind_of(case: Case) -> str:
    """The kind of the account: pinned to a version, following the key, or with two identities."""
    if HARMLESS & {*case}:
        return "two identities"
    return ("pinned", "follows", "two identities")[len(" ".join(case)) // 2 % 3]


def is_shown_last(case: Case) -> bool:
    """Whether the caller can see a cause only in Batch's errors, and only after a repair: after the run has granted
    access, or with a perimeter also after it has recovered the vault."""
    faults = {*case}
    is_granted = faults & {"access revoked", "access of one identity revoked"} or (
        "vault deleted" in faults and has_roles(case)
    )
    if PERIMETER in faults:
        return bool(is_granted) or "vault deleted" in faults
    return bool(is_granted) and {CLOSED_TO_CALLER, LAST_SAID} <= faults


@pytest.mark.parametrize("case", [*dict.fromkeys([*FAST, *combinations()])] if PROOF_OF_ALL else FAST, ids=", ".join)
def test_one_run_recovers_the_account_or_names_the_cause(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    make(service, case, monkeypatch, rbac=has_roles(case))
    assert not service.is_available()
    since = service.sandbox.control.last

    def play(*, check: bool) -> Played:
        return played(lambda record: runner.another().role("recover", VARS, check=check, record=record))

    check = play(check=True)
    assert written(service, since) == []
    run = play(check=False)

    refused_for = blockers(case)
    if refused_for:
        assert run.failure is not None
        task, message = run.failure[0], run.report["msg"]
        if task.startswith("Wait"):
            assert is_shown_last(case), "nothing was done about what it waited for"
            message = play(check=False).report["msg"]
        assert all(reason in message for reason in refused_for), message
    else:
        assert run.failure is None, run.report
        assert run.report["available"] is service.is_available() is True
        assert play(check=False).report["changed"] is False
    if check.failure or not HIDING & {*case}:
        assert check.failure == run.failure
    elif "vault deleted" not in case and not run.failure:
        assert_came_true(check, run)
    if HIDING & {*case} and check.failure is None:
        warnings = " ".join(check.report["warnings"])
        assert "Azure does not show" in warnings or "Not all possible causes could be checked" in warnings
