# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a key, a version or access is removed, the accounts are checked again. If an account uses it then,
the change is undone.

Each test carries out the decisions against a small Azure in memory.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import pytest
from azure_table import Table, TableGateway, task_of
from clocks import clock_of_all
from documents import (
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
    SUBSCRIPTION,
    VAULT_ID,
    account,
    account_id,
    assignment,
    key,
    listed,
    policy,
    system_assigned,
    vault,
)
from goals import access_goal, key_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.driver import Driver
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.executor import Executor
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer, Gateway
from ansible_collections.azbatch.cmk.plugins.module_utils._core.changes import Change, Decide, Missing, Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.docs import Docs
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Refused, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import decide as access_decide
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import decide as key_decide

CREATED = {OLD: NOW - 300 * DAY, MIDDLE: NOW - 200 * DAY, NEW: NOW - 100 * DAY}
READER = [{"actions": ["*/read"], "notActions": []}]
BATCH = parse_key_identifier(KEY, "key_identifier")


def versions(*, disabled: str | None = None) -> dict[str, dict[str, Any]]:
    made = {name: {"created": at, "updated": at} for name, at in CREATED.items()}
    return {name: key(name, enabled=name != disabled, **times) for name, times in made.items()}


class World(Table):
    """A vault with one key, and accounts. `newcomers` are accounts that begin to use the key right after the first
    write. `refuses_to_undo` is the name of a write whose second and later calls fail."""

    def __init__(
        self,
        *policies: dict[str, Any],
        rbac: bool = False,
        versions: dict[str, dict[str, Any]] | None = None,
        assignments: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(now=NOW)
        self.accounts: list[dict[str, Any]] = []
        self.newcomers: list[dict[str, Any]] = []
        # The accounts have had access for a long time.
        given = policies or (() if rbac else (policy(),))
        long_ago = {"createdAt": "2020-01-01T00:00:00Z", "lastModifiedAt": "2020-01-01T00:00:00Z"}
        self.vault: dict[str, Any] = {**vault(*given, rbac=rbac), "systemData": long_ago}
        self.versions = versions or globals()["versions"]()
        self.assignments = assignments or []
        self.has_key = True
        self.writes: list[str] = []
        self.refuses_to_undo: str | None = None

    def state(self) -> dict[str, Any]:
        """Everything but the accounts."""
        stored = (self.vault, self.versions, self.has_key, self.assignments)
        return copy.deepcopy(dict(enumerate(stored)))

    def read(self, where: str, otherwise: Any) -> Any:
        self._documents.clear()
        self.update(
            {
                refs.SUBSCRIPTIONS: [{"subscriptionId": SUBSCRIPTION}],
                refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}"): READER,
                refs.accounts_of(SUBSCRIPTION): self.accounts,
                # The accounts were changed long ago.
                **{refs.account(one["id"]): Answer(one, NOW, NOW - 300 * DAY) for one in self.accounts},
                refs.vault(VAULT_ID): self.vault,
                refs.vaults_of(SUBSCRIPTION): [self.vault],
                refs.key(BATCH): self.versions[NEW] if self.has_key else None,
                **{refs.key(replace(BATCH, version=name)): one for name, one in self.versions.items()},
                refs.versions_of(BATCH): [*map(listed, self.versions.values())],
                refs.deleted_key(BATCH): None if self.has_key else self.versions[NEW],
                **{refs.role(VAULT_ID, guid): {"name": guid, "properties": one} for guid, one in DEFINITIONS.items()},
            }
        )
        if "/roleassignments?" in where:
            return self._assigned_at(where)
        return super().read(where, otherwise)

    def _assigned_at(self, where: str) -> list[dict[str, Any]]:
        scope = where.partition("/providers/microsoft.authorization")[0]
        reaching = [one for one in self.assignments if scope.startswith(one["properties"]["scope"].lower())]
        named = re.search(r"assignedto\('(.*)'\)", where)
        return [one for one in reaching if named is None or one["properties"]["principalId"] == named[1]]

    def changed(self, method: str, ref: str, body: Any) -> None:
        name = self._name(method, ref, body)
        if self.refuses_to_undo == name and self.writes:
            raise Unavailable(f"{name} is refused.")
        self.writes.append(name)
        self._change(name, ref, body)
        self.accounts, self.newcomers = [*self.accounts, *self.newcomers], []

    def _name(self, method: str, ref: str, body: Any) -> str:
        if "/accessPolicies/" in ref:
            return f"policy {ref.rpartition('/')[2]}"
        if "/roleAssignments/" in ref:
            return {"PUT": "assign", "DELETE": "unassign"}[method]
        if method == "PATCH":
            return "enable" if body["attributes"]["enabled"] else "disable"
        return "delete" if method == "DELETE" else "recover"

    def _change(self, name: str, ref: str, body: Any) -> None:
        properties, last = self.vault["properties"], ref.rpartition("/")[2]
        if name.startswith("policy"):
            [entry] = body["properties"]["accessPolicies"]
            others = [one for one in properties["accessPolicies"] if one["objectId"] != entry["objectId"]]
            properties["accessPolicies"] = others if name.endswith("remove") else [*others, dict(entry)]
        elif name == "assign":
            scope = ref.partition("/providers/Microsoft.Authorization")[0]
            principal = body["properties"]["principalId"]
            self.assignments.append(assignment(ENCRYPTION_USER, scope, principal=principal, name=last))
        elif name == "unassign":
            self.assignments = [one for one in self.assignments if one["id"] != ref]
        elif "/keys/" in ref and name in ("enable", "disable"):
            self.versions[last]["attributes"]["enabled"] = name == "enable"
        else:
            self.has_key = name == "recover"


class WorldGateway(TableGateway):
    def __init__(self, world: World, session: Any) -> None:
        super().__init__(world, session)
        self._world = world

    def write(self, _what: str, method: str, ref: str, body: Any = None, *, undoes: bool = False, **_more: Any) -> None:
        with self._session.journal.writing(method, ref, body, undoes=undoes):
            self._world.changed(method, ref, body)


class Task(Executor):
    """A task that polls twice, without a pause, and to whom no right is missing."""

    def __init__(self, world: World) -> None:
        session = task_of(world).session
        session.poll_until = self._poll  # type: ignore[method-assign]
        gateway = cast(Gateway, WorldGateway(world, session))
        super().__init__(session, Driver(session, gateway), gateway, lambda *_asked: Missing([], []))
        self.facts = Facts(session)

    def _poll(self, ask: Callable[[], CmkError | None], _deadline: float, _waiting_for: str) -> CmkError | None:
        return ask() and ask()


@dataclass(frozen=True)
class Case:
    """A resource that is removed, and accounts that use it or do not use it."""

    decided: Callable[..., Decide]
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

    def run(self, world: World, *, force: bool = False, keeps: bool = False, fails: CmkError | None = None) -> Outcome:
        """`fails` is the error of the first decision after the removal."""
        task = Task(world)
        decide = self.decided(task.facts, force=force, keeps=keeps)
        failures = [] if fails is None else [fails]

        def failing(docs: Docs) -> Change:
            if failures and world.writes:
                raise failures.pop()
            change = decide(docs)
            confirm = change.confirm

            def confirmed(docs: Docs) -> Change:
                if failures:
                    raise failures.pop()
                return (confirm or decide)(docs)

            return replace(change, confirm=confirmed)

        return task.remove(failing, "myvault", keeps_used=keeps)


def on(used: str | None, name: str = "newcomer", principal: str = PRINCIPAL) -> dict[str, Any]:
    return account(name, key=used, identity=system_assigned(principal))


def by_key(**options: Any) -> Callable[..., Decide]:
    def decided(facts: Facts, *, force: bool, keeps: bool) -> Decide:
        goal = replace(key_goal(force=force, **options), keeps_used=keeps)
        return partial(key_decide.decide, goal=goal, facts=facts)

    return decided


def by_access(**options: Any) -> Callable[..., Decide]:
    def decided(facts: Facts, *, force: bool, keeps: bool) -> Decide:
        goal = replace(access_goal(state="absent", force=force, **options), keeps_used=keeps)
        return partial(access_decide.decide, goal=goal, facts=facts)

    return decided


def with_roles(*scopes: str) -> World:
    owned = [assignment(ENCRYPTION_USER, scope, name=f"assignment-{n}") for n, scope in enumerate(scopes)]
    return World(rbac=True, assignments=owned)


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
    "key disabled": Case(
        by_key(state="disabled"),
        World,
        away=["disable"] * 3,
        back=["enable"] * 3,
        users=[KEY, f"{KEY}/{OLD}", f"{KEY}/{NEW}"],
        others=[on(ANOTHER), on(ELSEWHERE), on(None)],
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
        lambda: World(policy(), THEIRS),
        away=["policy remove"],
        back=["policy add"],
        users=[KEY, f"{ANOTHER}/{OLD}"],
        others=[on(KEY, principal=OTHER), on(ELSEWHERE), on(None)],
    ),
    "access revoked, policy with other permissions": Case(
        by_access(),
        lambda: World(policy(keys=["sign", *NEEDED]), THEIRS),
        away=["policy replace"],
        back=["policy add"],
        users=[KEY, f"{ANOTHER}/{OLD}"],
        others=[on(KEY, principal=OTHER), on(ELSEWHERE)],
    ),
    "access revoked, role on the key": Case(
        by_access(key_name="batch"),
        lambda: with_roles(f"{VAULT_ID}/keys/batch"),
        away=["unassign"],
        back=["assign"],
        users=[KEY, f"{KEY}/{OLD}"],
        others=[on(ANOTHER), on(KEY, principal=OTHER)],
    ),
}


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal asks again at once, and not after 40 seconds."""
    clock_of_all(monkeypatch)


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
def test_a_failure_to_restore_is_reported(case: Case) -> None:
    world = case.world()
    world.newcomers, world.refuses_to_undo = [on(case.users[0])], case.back[0]

    with pytest.raises(CmkError) as refused:
        case.run(world)

    assert refused.value.code == "in_use"
    assert refused.value.facts["restored"] is False
    assert refused.value.facts["restore_failure"]["code"] == "service_unavailable"
    assert world.writes == case.away


@EACH
@pytest.mark.parametrize("newcomer", [True, False], ids=["newcomer", "from the start"])
def test_kept_resource_is_reported_as_in_use(case: Case, newcomer: bool) -> None:
    """Also if the change was made, and then undone because an account uses the resource."""
    world = case.world()
    if newcomer:
        world.newcomers = [on(case.users[0])]
    else:
        world.accounts = [on(case.users[0])]
    before = world.state()

    outcome = case.run(world, keeps=True)

    assert not outcome.changed
    assert outcome.report["in_use_by"] == [account_id("newcomer")]
    # An undone change has a warning.
    assert ["newcomer" in warning for warning in outcome.warnings] == [True] * newcomer
    assert world.writes == ([*case.away, *case.back] if newcomer else [])
    assert same(world, before)


@EACH
def test_a_failed_restore_is_a_failure_also_with_keep(case: Case) -> None:
    world = case.world()
    world.newcomers, world.refuses_to_undo = [on(case.users[0])], case.back[0]

    with pytest.raises(CmkError) as refused:
        case.run(world, keeps=True)

    assert (refused.value.code, refused.value.facts["restored"]) == ("in_use", False)


@EACH
@pytest.mark.parametrize("used", [True, False])
def test_users_are_checked_again_after_a_failure(case: Case, used: bool) -> None:
    """If a change fails halfway, its removals are undone only if an account uses the resource."""
    world = case.world()
    world.newcomers = [on(case.users[0])] if used else case.others

    with pytest.raises(Unavailable) as failure:
        case.run(world, fails=Unavailable("Azure does not respond."))

    assert world.writes == [*case.away, *(case.back if used else [])]
    assert failure.value.facts.get("restored", False) is used
    assert ("newcomer" in str(failure.value)) is used


def test_after_all_permissions_are_restored_none_is_missing() -> None:
    """`all` is replaced by all permissions except those that Batch needs; then these are added again."""
    world = World(policy(keys=["all"]), THEIRS)
    world.newcomers = [on(KEY)]

    with pytest.raises(Refused) as refused:
        CASES["access revoked, policy"].run(world)

    assert refused.value.facts["restored"] is True
    assert world.writes == ["policy replace", "policy add"]
    theirs, mine = world.vault["properties"]["accessPolicies"]
    assert theirs == THEIRS
    assert {*NEEDED, "decrypt", "sign", "encrypt", "verify", "delete", "rotate"} <= set(mine["permissions"]["keys"])
