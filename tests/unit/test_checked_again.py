# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a key, a version, access or a vault is removed, the accounts are checked again. If an account uses it then,
the change is undone.

Each test runs `converge` with the real plans and a small Azure in memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from documents import (
    CALLER,
    DAY,
    DEFINITIONS,
    ENCRYPTION_USER,
    KEY,
    MIDDLE,
    NEEDED,
    NEW,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    VAULT_ID,
    account,
    account_id,
    assignment,
    deleted_vault,
    key,
    listed_users,
    observed_key,
    policy,
    system_assigned,
    vault,
    visible,
)
from goals import access_goal, key_goal
from plain_service import Plain

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Refused, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.reconcile import converge, predicted, unless_used
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import plan as access_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import plan as key_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import goal as vault_goal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import plan as vault_plan

CREATED = {OLD: NOW - 300 * DAY, MIDDLE: NOW - 200 * DAY, NEW: NOW - 100 * DAY}


def versions(*, disabled: str | None = None) -> dict[str, dict[str, Any]]:
    return {name: key(name, created=created, enabled=name != disabled) for name, created in CREATED.items()}


@dataclass
class World:
    """A vault with one key, and accounts. `newcomers` are accounts that begin to use the key right after the first
    write."""

    accounts: list[dict[str, Any]] = field(default_factory=list)
    newcomers: list[dict[str, Any]] = field(default_factory=list)
    vault: dict[str, Any] | None = field(default_factory=vault)
    deleted_vault: dict[str, Any] | None = None
    versions: dict[str, dict[str, Any]] = field(default_factory=versions)
    key_exists: bool = True
    assignments: list[dict[str, Any]] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    # The name of a write whose second and later calls fail.
    refuses_to_undo: str | None = None

    def write(self, action: str) -> None:
        if self.refuses_to_undo == action and self.writes:
            raise Unavailable(f"{action} is refused.")
        self.writes.append(action)
        self.accounts, self.newcomers = [*self.accounts, *self.newcomers], []

    def state(self) -> dict[str, Any]:
        """Everything but the accounts."""
        stored = (self.vault, self.deleted_vault, self.versions, self.key_exists, self.assignments)
        return copy.deepcopy(dict(enumerate(stored)))


@dataclass
class Keys(Plain):
    world: World

    def read(self, goal: Any) -> dict[str, Any]:
        newest = self.world.versions[NEW]
        read = observed_key(*self.world.versions.values()) if self.world.key_exists else observed_key(deleted=newest)
        # The accounts are listed only if they may lose the key because of the goal.
        listed = goal.taken_away is not None or (self.world.key_exists and goal.may_cut_off(None))
        return copy.deepcopy({**read, **(listed_users(*self.world.accounts) if listed else {"visible": None})})

    def update(self, vault: str, name: str, version: str, body: Mapping[str, Any]) -> None:
        enabled = body["attributes"]["enabled"]
        self.world.write("enable" if enabled else "disable")
        self.world.versions[version]["attributes"]["enabled"] = enabled

    def delete(self, vault: str, name: str) -> None:
        self.world.write("delete")
        self.world.key_exists = False

    def recover(self, vault: str, name: str) -> None:
        self.world.write("recover")
        self.world.key_exists = True


@dataclass
class Access(Plain):
    world: World

    def read(self, goal: Any) -> dict[str, Any]:
        observed = {
            "vault": self.world.vault,
            "principal_id": goal.principal_id,
            "assignments": self.world.assignments,
            "definitions": DEFINITIONS,
            **({} if goal.present else listed_users(*self.world.accounts)),
        }
        return copy.deepcopy(observed)

    def set_policy(self, vault_id: str, operation: str, entry: Mapping[str, Any]) -> None:
        self.world.write(f"policy {operation}")
        assert self.world.vault is not None
        properties = self.world.vault["properties"]
        others = [one for one in properties["accessPolicies"] if one["objectId"] != entry["objectId"]]
        properties["accessPolicies"] = others if operation == "remove" else [*others, dict(entry)]

    def unassign(self, assignment_id: str) -> None:
        self.world.write("unassign")
        self.world.assignments = [one for one in self.world.assignments if one["id"] != assignment_id]

    def assign(self, scope: str, name: str, role: str, principal: str) -> None:
        self.world.write("assign")
        self.world.assignments.append(assignment(role, scope, principal=principal, name=name))


@dataclass
class Vaults(Plain):
    world: World

    def read(self, goal: Any) -> dict[str, Any]:
        observed = {"vault": self.world.vault, "deleted": self.world.deleted_vault, "caller": CALLER}
        listed = not goal.present and (self.world.vault or goal.taken_away)
        return copy.deepcopy({**observed, "visible": visible(*self.world.accounts) if listed else None})

    def delete(self, group: str, name: str) -> None:
        self.world.write("delete")
        self._kept, self.world.vault, self.world.deleted_vault = self.world.vault, None, deleted_vault()

    def create(self, group: str, name: str, body: Mapping[str, Any]) -> None:
        assert body["properties"]["createMode"] == "recover"
        self.world.write("recover")
        self.world.vault, self.world.deleted_vault = self._kept, None

    def restore_access(self, group: str, name: str) -> None:
        assert self.world.vault is not None


def vault_goal(**options: Any) -> vault_goal_module.Goal:
    params = {
        "resource_group": "rg-keys",
        "name": "myvault",
        "state": "absent",
        "location": None,
        "authorization": None,
        "sku": None,
        "key_type": None,
        "public_network_access": "enabled",
        "retention_days": 90,
        "recover": False,
        "trusted_services": False,
        "force": False,
        "tags": None,
        **options,
    }
    return vault_goal_module.desired(params)


@dataclass(frozen=True)
class Case:
    """A resource that is removed, and accounts that use it or do not use it."""

    take: Callable[..., tuple[Any, Any, Any]]
    world: Callable[[], World]
    # The writes of the removal, and the writes that undo it.
    away: list[str]
    back: list[str]
    users: list[str]
    # Accounts on other keys, versions or vaults, or with other identities.
    others: list[dict[str, Any]]

    def __post_init__(self) -> None:
        for number, one in enumerate(self.others):
            one["id"] = account_id(f"other{number}")

    def run(self, world: World, *, force: bool = False) -> Outcome:
        goal, service, planner = self.take(world, force)
        return converge(goal, service, planner)

    def run_with_keep(self, world: World) -> Outcome:
        """Run like the modules with `in_use: keep`."""
        goal, service, planner = self.take(world, False)
        make = partial(converge, replace(goal, keeps_used=True), service, planner)
        return unless_used(make, keeps_used=True)


def on(used: str | None, name: str = "newcomer", principal: str = PRINCIPAL) -> dict[str, Any]:
    return account(name, key=used, identity=system_assigned(principal))


def by_key(**options: Any) -> Callable[..., tuple[Any, Any, Any]]:
    return lambda world, force: (key_goal(force=force, **options), Keys(world), key_plan)


def by_access(**options: Any) -> Callable[..., tuple[Any, Any, Any]]:
    return lambda world, force: (access_goal(state="absent", force=force, **options), Access(world), access_plan)


def by_vault(**options: Any) -> Callable[..., tuple[Any, Any, Any]]:
    return lambda world, force: (vault_goal(force=force, **options), Vaults(world), vault_plan)


def with_roles(*scopes: str) -> World:
    owned = [assignment(ENCRYPTION_USER, scope, name=f"assignment-{n}") for n, scope in enumerate(scopes)]
    return World(vault=vault(rbac=True), assignments=owned)


ELSEWHERE = "https://vault2.vault.azure.net/keys/batch"
ANOTHER = "https://myvault.vault.azure.net/keys/another"
# The policy of another principal, which must not be changed.
THEIRS = policy(OTHER, ["get", "list"])

CASES = {
    "version disabled": Case(
        by_key(state="disabled", version=OLD),
        World,
        away=["disable"],
        back=["enable"],
        users=[f"{KEY}/{OLD}", f"{KEY}/{OLD.upper()}"],
        others=[on(KEY), on(f"{KEY}/{NEW}"), on(f"{ANOTHER}/{OLD}"), on(f"{ELSEWHERE}/{OLD}"), on(None)],
    ),
    "newest version disabled": Case(
        by_key(state="disabled", version=NEW),
        World,
        away=["disable"],
        back=["enable"],
        users=[f"{KEY}/{NEW}", KEY],
        others=[on(f"{KEY}/{OLD}"), on(ANOTHER)],
    ),
    "key disabled": Case(
        by_key(state="disabled"),
        World,
        away=["disable"] * 3,
        back=["enable"] * 3,
        users=[KEY, f"{KEY}/{OLD}", f"{KEY}/{NEW}"],
        others=[on(ANOTHER), on(ELSEWHERE), on(None)],
    ),
    "key disabled, one version is already": Case(
        by_key(state="disabled"),
        lambda: World(versions=versions(disabled=MIDDLE)),
        away=["disable"] * 2,
        back=["enable"] * 2,
        users=[KEY],
        others=[on(ANOTHER)],
    ),
    "key deleted": Case(
        by_key(state="absent"),
        World,
        away=["delete"],
        back=["recover"],
        users=[KEY, f"{KEY}/{OLD}", f"{KEY}/{NEW}"],
        others=[on(ANOTHER), on(ELSEWHERE), on(None)],
    ),
    "access revoked, policy": Case(
        by_access(),
        lambda: World(vault=vault(policy(), THEIRS)),
        away=["policy remove"],
        back=["policy add"],
        users=[KEY, f"{ANOTHER}/{OLD}"],
        others=[on(KEY, principal=OTHER), on(ELSEWHERE), on(None)],
    ),
    "access revoked, policy with other permissions": Case(
        by_access(),
        lambda: World(vault=vault(policy(keys=["sign", *NEEDED]), THEIRS)),
        away=["policy replace"],
        back=["policy add"],
        users=[KEY, f"{ANOTHER}/{OLD}"],
        others=[on(KEY, principal=OTHER), on(ELSEWHERE)],
    ),
    "access revoked, role on the vault": Case(
        by_access(),
        lambda: with_roles(VAULT_ID),
        away=["unassign"],
        back=["assign"],
        users=[KEY, f"{ANOTHER}/{OLD}"],
        others=[on(KEY, principal=OTHER), on(ELSEWHERE), on(None)],
    ),
    "access revoked, role on the key": Case(
        by_access(key_name="batch"),
        lambda: with_roles(f"{VAULT_ID}/keys/batch"),
        away=["unassign"],
        back=["assign"],
        users=[KEY, f"{KEY}/{OLD}"],
        others=[on(ANOTHER), on(KEY, principal=OTHER)],
    ),
    "vault deleted": Case(
        by_vault(),
        World,
        away=["delete"],
        back=["recover"],
        users=[KEY, f"{ANOTHER}/{OLD}"],
        others=[on(ELSEWHERE), on(None)],
    ),
    "vault deleted, name in capitals": Case(
        by_vault(name="MyVault"),
        World,
        away=["delete"],
        back=["recover"],
        users=[KEY],
        others=[on(ELSEWHERE)],
    ),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
EACH_USER = pytest.mark.parametrize(
    ("case", "used"),
    [pytest.param(case, used, id=f"{name}: {used}") for name, case in CASES.items() for used in case.users],
)


def same(one: World, state: dict[str, Any]) -> bool:
    """Whether the state is equal, except for the names of assignments and the order of permissions."""

    def essence(stored: Any) -> Any:
        if isinstance(stored, dict):
            return {name: essence(value) for name, value in stored.items() if name not in ("id", "name")}
        return sorted(map(essence, stored), key=str) if isinstance(stored, list) else stored

    return bool(essence(one.state()) == essence(state))


@EACH_USER
def test_a_removal_is_undone_if_an_account_uses_the_resource(case: Case, used: str) -> None:
    world = case.world()
    world.newcomers = [on(used)]
    before = world.state()

    with pytest.raises(Refused) as refused:
        case.run(world)

    assert refused.value.code == "in_use"
    assert refused.value.facts["accounts"] == [account_id("newcomer")]
    assert len(refused.value.facts["applied"]) == len(case.away)
    assert refused.value.facts["restored"] is True
    assert world.writes == [*case.away, *case.back]
    assert same(world, before)


@EACH_USER
def test_resource_in_use_from_the_start_is_not_written(case: Case, used: str) -> None:
    world = case.world()
    world.accounts = [on(used)]

    with pytest.raises(Refused) as refused:
        case.run(world)

    assert refused.value.code == "in_use"
    assert refused.value.facts["accounts"] == [account_id("newcomer")]
    assert world.writes == []


@EACH
def test_removed_resource_is_not_restored_if_no_account_uses_it(case: Case) -> None:
    world = case.world()
    before = world.state()

    assert case.run(world).changed
    assert world.writes == case.away
    assert not same(world, before)
    # A second run changes nothing.
    assert not case.run(world).changed
    assert world.writes == case.away


@EACH
def test_users_of_other_resources_are_ignored(case: Case) -> None:
    world = case.world()
    world.accounts = world.newcomers = case.others

    assert case.run(world).changed
    assert world.writes == case.away


@EACH
def test_with_force_it_stays_removed_although_it_is_in_use(case: Case) -> None:
    world = case.world()
    world.accounts, world.newcomers = [on(case.users[0], "user")], [on(case.users[0])]

    outcome = case.run(world, force=True)

    assert outcome.changed
    assert any(account_id("user") in warning for warning in outcome.warnings)
    assert world.writes == case.away


@EACH
def test_a_prediction_refuses_as_the_task_does(case: Case) -> None:
    world = case.world()
    goal, service, planner = case.take(world, False)
    assert predicted(goal, service, planner).changed
    world.accounts = [on(case.users[0])]

    with pytest.raises(Refused):
        predicted(goal, service, planner)

    assert world.writes == []


@EACH
def test_a_failure_to_restore_is_reported(case: Case) -> None:
    world = case.world()
    world.newcomers, world.refuses_to_undo = [on(case.users[0])], case.back[0]

    with pytest.raises(CmkError) as refused:
        case.run(world)

    assert refused.value.code == "in_use"
    assert refused.value.facts["restored"] is False
    assert refused.value.facts["restore_failure"]["code"] == "service_unavailable"
    assert world.writes == case.away


KEEPS = {name: case for name, case in CASES.items() if not name.startswith("vault")}


@pytest.mark.parametrize("case", KEEPS.values(), ids=KEEPS)
@pytest.mark.parametrize("newcomer", [True, False], ids=["newcomer", "from the start"])
def test_kept_resource_is_reported_as_in_use(case: Case, newcomer: bool) -> None:
    """Also if the change was made, and then undone because an account uses the resource."""
    world = case.world()
    if newcomer:
        world.newcomers = [on(case.users[0])]
    else:
        world.accounts = [on(case.users[0])]
    before = world.state()

    outcome = case.run_with_keep(world)

    assert not outcome.changed
    assert outcome.report["in_use_by"] == [account_id("newcomer")]
    # An undone change has a warning.
    assert [account_id("newcomer") in warning for warning in outcome.warnings] == [True] * newcomer
    assert world.writes == ([*case.away, *case.back] if newcomer else [])
    assert same(world, before)


@pytest.mark.parametrize("case", KEEPS.values(), ids=KEEPS)
def test_a_failed_restore_is_a_failure_also_with_keep(case: Case) -> None:
    world = case.world()
    world.newcomers, world.refuses_to_undo = [on(case.users[0])], case.back[0]

    with pytest.raises(CmkError) as refused:
        case.run_with_keep(world)

    assert (refused.value.code, refused.value.facts["restored"]) == ("in_use", False)


@dataclass
class FailsOnce:
    """A service whose second read, the one that confirms the change, fails."""

    service: Any
    reads: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.service, name)

    def read(self, goal: Any) -> Any:
        self.reads += 1
        if self.reads == 2:
            raise Unavailable("Azure does not respond.")
        return self.service.read(goal)


@EACH
@pytest.mark.parametrize("used", [True, False])
def test_users_are_checked_again_after_a_failure(case: Case, used: bool) -> None:
    """If a change fails halfway, its removals are undone only if an account uses the resource."""
    world = case.world()
    world.newcomers = [on(case.users[0])] if used else case.others
    goal, service, planner = case.take(world, False)

    with pytest.raises(Unavailable) as failure:
        converge(goal, FailsOnce(service), planner)

    assert world.writes == [*case.away, *(case.back if used else [])]
    assert failure.value.facts.get("restored", False) is used
    assert (account_id("newcomer") in str(failure.value)) is used


def test_after_all_permissions_are_restored_none_is_missing() -> None:
    """`all` is replaced by all permissions except those that Batch needs; then these are added again."""
    world = World(vault=vault(policy(keys=["all"]), THEIRS), newcomers=[on(KEY)])

    with pytest.raises(Refused) as refused:
        CASES["access revoked, policy"].run(world)

    assert refused.value.facts["restored"] is True
    assert world.writes == ["policy replace", "policy add"]
    assert world.vault is not None
    theirs, mine = world.vault["properties"]["accessPolicies"]
    assert theirs == THEIRS
    assert {*NEEDED, "decrypt", "sign", "encrypt", "verify", "delete", "rotate"} <= set(mine["permissions"]["keys"])
