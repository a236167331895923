# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The access to a key is read again after an account was switched to the key. Since when accounts have access."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest
from azure_table import Table, Task, place, task_of
from documents import (
    CALLER,
    CRYPTO_OFFICER,
    DAY,
    DEFINITIONS,
    ENCRYPTION_USER,
    GROUP_OF_PEOPLE,
    KEY,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
    VAULT_ID,
    account,
    assignment,
    definition,
    key,
    listed,
    policy,
    system_assigned,
    vault,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import preflight
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.preflight import Evidence
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, NotFound
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import access, evidence

CUSTOM = "aaaaaaaa-0000-0000-0000-000000000001"
ACTIONS = [f"Microsoft.KeyVault/vaults/keys/{name}" for name in ("read", "wrap/action", "unwrap/action")]
IDENTIFIER = parse_key_identifier(KEY, "key_identifier")
SCOPE = f"{VAULT_ID}/keys/batch"
VAULT, VAULTS = refs.vault(VAULT_ID), refs.vaults_of(SUBSCRIPTION)
VERSIONS = refs.versions_of(IDENTIFIER)
# The assignments of all principals, and of one principal.
EVERYONE, OF_ONE = refs.assignments_at(SCOPE), refs.assignments_of(SCOPE, PRINCIPAL)
CUSTOM_ROLE = refs.role(VAULT_ID, CUSTOM)


class Azure(Table):
    """A vault with one key and role assignments, for all of which there are setters."""

    def __init__(self, *policies: dict[str, Any], roles: Sequence[dict[str, Any]] = (), rbac: bool = False) -> None:
        super().__init__(now=NOW)
        self.has_vault({**vault(*policies, rbac=rbac), "systemData": {"lastModifiedAt": "2020-01-01T00:00:00Z"}})
        self.has_roles(*roles)
        self.has_key(key())
        for guid, role in {**DEFINITIONS, CUSTOM: definition((ACTIONS, []))}.items():
            self[refs.role(VAULT_ID, guid)] = {"name": guid, "properties": role}

    def has_vault(self, now: Any) -> None:
        """The vault; None if it was deleted."""
        self.update({VAULT: now, VAULTS: now if isinstance(now, CmkError) else [now] if now else []})

    def has_key(self, *bundles: dict[str, Any]) -> None:
        """The versions of the key, the newest last; none if it was deleted."""
        self.update(
            {refs.key(IDENTIFIER): bundles[-1] if bundles else None, VERSIONS: [listed(one) for one in bundles]}
        )

    def has_roles(self, *assigned: dict[str, Any]) -> None:
        """The list of all assignments does not show the roles that a principal has as a member of a group."""
        whose = {PRINCIPAL, GROUP_OF_PEOPLE}
        of_one = [one for one in assigned if one["properties"]["principalId"].lower() in whose]
        self.update({EVERYONE: list(assigned), OF_ONE: of_one})


def before(task: Task, owner: Any = None) -> Evidence:
    mine: Any = owner or account(identity=system_assigned())
    wanted = evidence.of_account(mine, IDENTIFIER, Facts(task.session))
    return task.driver.check(partial(evidence.certain, wanted=wanted))


def now(task: Task, first: Evidence, since: float | None = None) -> Evidence:
    """The evidence after a switch at the time `since`, by default now."""
    at = time.monotonic() if since is None else since
    return task.driver.since(partial(evidence.with_access_now, evidence=first), at)


def read_again(azure: Azure, change: Callable[[], None] = lambda: None) -> list[str]:
    """The checks that fail after the switch. Before the switch, none fails."""
    task = task_of(azure)
    first = before(task)
    assert preflight.failed_checks(first) == []
    change()
    azure.asked.clear()
    return preflight.failed_checks(now(task, first))


def by_policy() -> Azure:
    return Azure(policy(), policy(OTHER))


def role_of(principal: str, role: str = ENCRYPTION_USER, **fields: Any) -> dict[str, Any]:
    assigned = assignment(role, VAULT_ID, principal=principal, **fields)
    if principal == GROUP_OF_PEOPLE:
        assigned["properties"]["principalType"] = "Group"
    return assigned


def by_role(role: str = ENCRYPTION_USER, principal: str = PRINCIPAL) -> Azure:
    return Azure(roles=(role_of(principal, role),), rbac=True)


BOTH_MODELS = pytest.mark.parametrize("make", [by_policy, by_role], ids=["policy", "role"])


@pytest.mark.parametrize(
    ("azure", "access"),
    [
        pytest.param(by_policy(), [VAULT], id="policy"),
        # One list for all tasks of the run.
        pytest.param(by_role(), [EVERYONE], id="role"),
        pytest.param(by_role(principal=PRINCIPAL.upper()), [EVERYONE], id="in another letter case"),
        pytest.param(by_role(CRYPTO_OFFICER), [EVERYONE, OF_ONE], id="other role"),
        pytest.param(by_role(principal=GROUP_OF_PEOPLE), [EVERYONE, OF_ONE], id="role of a group"),
    ],
)
def test_unchanged_access_passes(azure: Azure, access: list[Any]) -> None:
    assert read_again(azure) == []
    assert sorted(azure.asked) == sorted(map(place, [VERSIONS, *access]))


@pytest.mark.parametrize("hides_key", [False, True])
def test_a_policy_that_was_removed_meanwhile(hides_key: bool) -> None:
    azure = by_policy()
    if hides_key:
        azure[refs.key(IDENTIFIER)] = Denied("You may not read it.")
    task = task_of(azure)
    first = before(task)
    task.driver.get(VAULT)
    azure.has_vault(vault(policy(OTHER)))

    assert preflight.failed_checks(now(task, first)) == ["access_granted"]


@pytest.mark.parametrize("role", [ENCRYPTION_USER, CRYPTO_OFFICER])
@pytest.mark.parametrize("principal", [PRINCIPAL, GROUP_OF_PEOPLE])
def test_a_role_that_was_removed_meanwhile(role: str, principal: str) -> None:
    azure = by_role(role, principal)

    assert read_again(azure, azure.has_roles) == ["access_granted"]


def test_another_role_that_cannot_be_read_grants_nothing() -> None:
    azure = by_role()
    azure[CUSTOM_ROLE] = Denied("You may not read the role.")

    assert read_again(azure, lambda: azure.has_roles(role_of(PRINCIPAL, CUSTOM))) == ["access_granted"]


def test_an_additional_role_does_not_reduce_access() -> None:
    azure = by_role()
    azure[CUSTOM_ROLE] = Denied("You may not read the role.")
    both = role_of(PRINCIPAL), role_of(PRINCIPAL, CUSTOM, name="another")

    assert read_again(azure, lambda: azure.has_roles(*both)) == []


@pytest.mark.parametrize(("azure", "denied"), [(by_policy(), VAULT), (by_role(), EVERYONE)], ids=["policy", "role"])
def test_access_that_cannot_be_read_any_more_is_an_error(azure: Azure, denied: Any) -> None:
    with pytest.raises(Denied):
        read_again(azure, lambda: azure.update({denied: Denied("You may not read it.")}))


def test_a_vault_that_was_deleted_meanwhile_is_an_error() -> None:
    azure = by_policy()

    with pytest.raises(NotFound) as failed:
        read_again(azure, lambda: azure.has_vault(None))
    assert failed.value.code == "vault_not_found"


@pytest.mark.parametrize(("azure", "denied"), [(by_policy(), VAULTS), (by_role(), OF_ONE)], ids=["vault", "roles"])
def test_access_that_could_not_be_read_before_is_not_read_again(azure: Azure, denied: Any) -> None:
    azure[denied] = Denied("You may not read it.")
    task = task_of(azure)
    first = before(task)
    assert isinstance(first.vault, CmkError) or isinstance(first.assignments, CmkError)
    azure.asked.clear()

    assert now(task, first) == first
    assert azure.asked == [place(VERSIONS)]


def test_if_versions_cannot_be_listed_the_key_is_read_again() -> None:
    azure = by_policy()
    azure[VERSIONS] = Denied("You may not list them.")
    task = task_of(azure)
    first = before(task)
    azure[refs.key(IDENTIFIER)] = key(enabled=False)

    assert preflight.failed_checks(now(task, first)) == ["key_enabled"]


def test_a_vault_that_was_not_found_before_is_not_read_again() -> None:
    azure = by_policy()
    azure.has_vault(None)
    azure[refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}")] = [{"actions": ["*/read"]}]
    task = task_of(azure)
    first = before(task)
    assert first.vault is None
    azure.has_vault(vault())
    azure.asked.clear()

    assert now(task, first) == first
    assert azure.asked == [place(VERSIONS)]


@BOTH_MODELS
def test_no_task_uses_a_read_that_began_before_its_switch(make: Callable[[], Azure], tmp_path: Path) -> None:
    azure = make()
    one, other = task_of(azure, tmp_path), task_of(azure, tmp_path)
    first, second = before(one), before(other)
    now(one, first)

    azure.has_vault(vault(rbac=make is by_role))
    azure.has_roles()

    assert preflight.failed_checks(now(other, second)) == ["access_granted"]


@BOTH_MODELS
@pytest.mark.parametrize(
    ("changed", "fails"),
    [
        pytest.param([key(exp=NOW + 1800)], "key_not_expired", id="expires soon"),
        pytest.param([key(nbf=NOW + 1800)], "key_not_expired", id="not valid yet"),
        pytest.param([key(updated=NOW, key_ops=["sign"])], "key_ops_wrap_unwrap", id="other operations"),
        pytest.param([key(enabled=False)], "key_enabled", id="disabled"),
        pytest.param([key(), key(OLD, created=NOW, enabled=False)], "key_enabled", id="new disabled version"),
        pytest.param([key(OLD, enabled=False)], "key_enabled", id="other version only"),
        pytest.param([], "key_exists", id="deleted"),
    ],
)
def test_a_key_that_changed_meanwhile(make: Callable[[], Azure], changed: list[dict[str, Any]], fails: str) -> None:
    """Batch accepts a key that expires soon, and another task of the run may have read the key before its expiry
    was set."""
    azure = make()
    task = task_of(azure)
    first = before(task)
    azure.has_key(*changed)

    assert fails in preflight.failed_checks(preflight.lasting(now(task, first)))


def test_access_by_roles_counts_in_a_vault_that_changed_to_them() -> None:
    azure = by_policy()
    task = task_of(azure)
    first = before(task)
    azure.has_vault(vault(rbac=True))
    assert preflight.failed_checks(now(task, first)) == ["access_granted"]
    azure.has_roles(role_of(PRINCIPAL))
    assert preflight.failed_checks(now(task, first)) == []


@BOTH_MODELS
def test_after_batch_refuses_the_key_the_evidence_is_read_again_where_it_was_found(
    make: Callable[[], Azure], tmp_path: Path
) -> None:
    azure = make()
    first = before(task_of(azure, tmp_path))
    azure.has_key(key(enabled=False))
    task = task_of(azure, tmp_path)
    # What another task has read serves.
    assert before(task) == first
    azure.asked.clear()

    found = task.driver.now(partial(evidence.again, evidence=first, facts=Facts(task.session)))

    assert preflight.failed_checks(found) == ["key_enabled"]
    assert (found.vault, found.principals, found.account) == (first.vault, first.principals, first.account)
    assert (azure.reads_of(VAULT), azure.reads_of(VAULTS)) == (1, 0)


# Accounts that have access to a key, with the time since when


def since_when(azure: Azure, **principals: str | None) -> dict[str, float]:
    """By the name of an account, its seconds of access; -inf if they are not known. `principals` are the principals of
    accounts that use other keys, by account. The account `user` uses the key."""
    users: dict[str, Any] = {name: (one and [one], False) for name, one in principals.items()}
    found = _since_when(task_of(azure), {**users, "user": ([OTHER], True)})
    return {name: NOW - since for name, since in found.items()}


def _since_when(task: Task, users: dict[str, Any]) -> dict[str, float]:
    question = partial(access.since_when, key=IDENTIFIER, vaults_in=SUBSCRIPTION, users=users, now=NOW)
    return task.driver.solve(question)


def test_role_assignments_are_read_for_each_check_although_the_vault_is_not() -> None:
    azure = by_role()
    task = task_of(azure)
    users = {"one": ([PRINCIPAL], False)}

    assert _since_when(task, users) == {"one": NOW - 30 * DAY}
    azure.has_roles()
    for _check in range(2):
        assert _since_when(task, users) == {}
    # The vault was found by a search, and is then read once where it is.
    assert azure.asked == [*map(place, [VAULTS, EVERYONE, VAULT, EVERYONE, EVERYONE])]


def test_access_by_a_policy_began_with_the_last_change_of_the_vault() -> None:
    found = since_when(by_policy(), one=PRINCIPAL, none=CALLER["object_id"])

    assert found.keys() == {"one", "user"}
    assert found["one"] == found["user"] > 365 * DAY


@pytest.mark.parametrize(
    ("azure", "names"),
    [
        pytest.param(by_role(principal=GROUP_OF_PEOPLE), {"one", "none", "user"}, id="each may be in the group"),
        pytest.param(by_role(CUSTOM), {"one", "user"}, id="custom role"),
    ],
)
def test_access_that_has_no_time(azure: Azure, names: set[str]) -> None:
    assert since_when(azure, one=PRINCIPAL, none=CALLER["object_id"]) == dict.fromkeys(names, -inf)


@pytest.mark.parametrize(("azure", "rbac"), [(by_policy(), False), (by_role(), True)], ids=["policy", "role"])
def test_access_in_a_vault_whose_last_change_has_no_time(azure: Azure, rbac: bool) -> None:
    azure.has_vault(vault(policy(), rbac=rbac))

    assert since_when(azure, one=PRINCIPAL) == dict.fromkeys(("one", "user"), -inf)


def test_an_account_whose_principals_are_not_known_may_have_access_at_any_time() -> None:
    assert since_when(by_role(), one=PRINCIPAL, unknown=None) == {"one": 30 * DAY, "unknown": -inf, "user": -inf}


@pytest.mark.parametrize(
    "hidden",
    [pytest.param(VAULTS, id="vault"), pytest.param(EVERYONE, id="assignments"), pytest.param(CUSTOM_ROLE, id="role")],
)
@pytest.mark.parametrize("reason", [Denied("403"), NotFound("404")])
def test_if_access_cannot_be_read_each_account_counts(hidden: Any, reason: CmkError) -> None:
    azure = by_role(CUSTOM)
    azure[hidden] = reason

    assert since_when(azure, one=PRINCIPAL, none=CALLER["object_id"]) == dict.fromkeys(("one", "none", "user"), -inf)
