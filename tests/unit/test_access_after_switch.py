# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The access to a key is read again after an account was switched to the key."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from documents import (
    CALLER,
    CRYPTO_OFFICER,
    DAY,
    DEFINITIONS,
    ENCRYPTION_USER,
    GROUP_OF_PEOPLE,
    KEY,
    NOW,
    OTHER,
    PRINCIPAL,
    TENANT,
    VAULT_ID,
    account,
    assignment,
    definition,
    key,
    policy,
    system_assigned,
    user_assigned,
    vault,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cache import JUST_NOW, RECENTLY, Cache, NotBefore
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import preflight
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.preflight import Evidence
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, NotFound
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier, role_guid
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.client import Access
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.document import item_of
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.evidence import EvidenceReader

CUSTOM = "aaaaaaaa-0000-0000-0000-000000000001"
ACTIONS = [f"Microsoft.KeyVault/vaults/keys/{name}" for name in ("read", "wrap/action", "unwrap/action")]


class Azure:
    """A vault with one key, role assignments, and the reads that are refused (`denied`). `asked` has the reads."""

    def __init__(self, *policies: dict[str, Any], roles: tuple[dict[str, Any], ...] = (), rbac: bool = False) -> None:
        self.vault: dict[str, Any] | None = vault(*policies, rbac=rbac)
        self.assigned = list(roles)
        self.definitions_of = {**DEFINITIONS, CUSTOM: definition((ACTIONS, []))}
        self.denied: set[str] = set()
        self.asked: list[str] = []
        self.key = key()
        self.cache = Cache(RunFiles(None), lambda: "me")
        self.now = NOW

    def _read(self, what: str, value: Any) -> Any:
        self.asked.append(what)
        if what in self.denied:
            raise Denied(f"You may not read the {what}.")
        return copy.deepcopy(value)

    def _get(self, kind: str, what: str, value: Any, not_before: NotBefore) -> Any:
        return self.cache.get(lambda: self._read(what, value), kind, what, not_before=not_before)

    def at(self, _vault: str, not_before: NotBefore) -> Any:
        return self._get("vault", "vault", self.vault, not_before)

    def find(self, name: str, _group: str | None, not_before: NotBefore) -> Any:
        return self.at(name, not_before)

    def bundle(self, _key: Any, not_before: NotBefore) -> Any:
        return self._get("key", "key", self.key, not_before)

    def versions(self, _key: Any, not_before: NotBefore) -> Any:
        return self._get("key", "versions", [item_of(self.key)] if self.key else [], not_before)

    def assignments(self, _scope: str, principal: str, not_before: NotBefore = JUST_NOW) -> Any:
        """The assignments of a principal, including those of its groups."""
        whose = {principal.lower(), GROUP_OF_PEOPLE}
        found = [one for one in self.assigned if one["properties"]["principalId"].lower() in whose]
        return self._get("access", f"assignments of {principal}", found, not_before)

    def recent_assignments(self, scope: str, principal: str) -> Any:
        return self.assignments(scope, principal, RECENTLY)

    def assignments_of_role(self, _scope: str, not_before: NotBefore) -> Any:
        found: dict[str, list[Any]] = {}
        for one in self.assigned:
            if role_guid(one["properties"]["roleDefinitionId"]) == ENCRYPTION_USER:
                found.setdefault(one["properties"]["principalId"].lower(), []).append(one)
        return self._get("access", "assignments", found, not_before)

    def all_assignments(self, _scope: str) -> Any:
        return self._read("all assignments", self.assigned)

    def definitions(self, _scope: str, guids: list[str], _not_before: NotBefore = JUST_NOW) -> Any:
        return self._read("definitions", {guid: self.definitions_of[guid] for guid in guids}) if guids else {}


def task(azure: Azure, folder: Path | None = None) -> EvidenceReader:
    azure.cache = Cache(RunFiles(str(folder) if folder else None), lambda: "me")
    session: Any = SimpleNamespace(
        cache=azure.cache, vault_subscription_id="subscription", caller={"tenant_id": TENANT}
    )
    service: Any = azure
    return EvidenceReader(session, service, service, service)


def before(evidence: EvidenceReader) -> Evidence:
    return evidence.of_account(account(identity=system_assigned()), parse_key_identifier(KEY, "key_identifier"))


def read_again(azure: Azure, change: Callable[[], None] = lambda: None) -> list[str]:
    """The checks that fail after the switch. Before the switch, none fails."""
    evidence = task(azure)
    first = before(evidence)
    assert preflight.failed_checks(first) == []
    change()
    azure.asked.clear()
    return preflight.failed_checks(evidence.with_access_now(first, time.monotonic()))


def by_policy() -> Azure:
    return Azure(policy(), policy(OTHER))


def by_role(role: str = ENCRYPTION_USER, principal: str = PRINCIPAL) -> Azure:
    assigned = assignment(role, VAULT_ID, principal=principal)
    if principal == GROUP_OF_PEOPLE:
        assigned["properties"]["principalType"] = "Group"
    return Azure(roles=(assigned,), rbac=True)


@pytest.mark.parametrize(
    "azure", [by_policy(), by_role(), by_role(CRYPTO_OFFICER)], ids=["policy", "role", "other role"]
)
def test_unchanged_access_passes(azure: Azure) -> None:
    assert read_again(azure) == []
    assert azure.asked, "it was read again"


def test_a_policy_that_was_removed_meanwhile() -> None:
    azure = by_policy()

    def remove() -> None:
        azure.vault = vault(policy(OTHER))

    assert read_again(azure, remove) == ["access_granted"]


@pytest.mark.parametrize("role", [ENCRYPTION_USER, CRYPTO_OFFICER])
@pytest.mark.parametrize("principal", [PRINCIPAL, GROUP_OF_PEOPLE])
def test_a_role_that_was_removed_meanwhile(role: str, principal: str) -> None:
    azure = by_role(role, principal)

    assert read_again(azure, azure.assigned.clear) == ["access_granted"]


def test_a_role_of_a_group_counts() -> None:
    assert read_again(by_role(principal=GROUP_OF_PEOPLE)) == []


@pytest.mark.parametrize("role", [CUSTOM, CRYPTO_OFFICER])
def test_another_role_in_place_of_the_first(role: str) -> None:
    azure = by_role()

    def replace() -> None:
        azure.assigned[:] = [assignment(role, VAULT_ID)]

    assert read_again(azure, replace) == []


def test_another_role_that_cannot_be_read_grants_nothing() -> None:
    azure = by_role()

    def replace() -> None:
        azure.assigned[:] = [assignment(CUSTOM, VAULT_ID)]
        azure.denied.add("definitions")

    assert read_again(azure, replace) == ["access_granted"]


def test_an_additional_role_does_not_reduce_access() -> None:
    azure = by_role()

    def add() -> None:
        azure.assigned.append(assignment(CUSTOM, VAULT_ID, name="another"))
        azure.denied.add("definitions")

    assert read_again(azure, add) == []


@pytest.mark.parametrize(("azure", "denied"), [(by_policy(), "vault"), (by_role(), "assignments")])
def test_access_that_cannot_be_read_any_more_is_an_error(azure: Azure, denied: str) -> None:
    with pytest.raises(Denied):
        read_again(azure, lambda: azure.denied.add(denied))


def test_a_vault_that_was_deleted_meanwhile_is_an_error() -> None:
    azure = by_policy()

    def delete() -> None:
        azure.vault = None

    with pytest.raises(NotFound):
        read_again(azure, delete)


@pytest.mark.parametrize(
    ("azure", "denied"), [(by_policy(), "vault"), (by_role(), f"assignments of {PRINCIPAL}")], ids=["vault", "roles"]
)
def test_access_that_could_not_be_read_before_is_not_read_again(azure: Azure, denied: str) -> None:
    azure.denied.add(denied)
    evidence = task(azure)
    first = before(evidence)
    azure.asked.clear()

    assert evidence.with_access_now(first, time.monotonic()) == first
    assert {*azure.asked} <= {"versions", "vault"} - {denied}
    assert isinstance(first.vault, CmkError) or isinstance(first.assignments, CmkError)


@pytest.mark.parametrize("azure", [by_policy(), by_role()], ids=["policy", "role"])
def test_tasks_share_a_read_that_began_after_their_switches(azure: Azure, tmp_path: Path) -> None:
    one, other = task(azure, tmp_path), task(azure, tmp_path)
    first, second = before(one), before(other)
    azure.asked.clear()

    switched = time.monotonic()
    one.with_access_now(first, switched)
    other.with_access_now(second, switched)

    assert len(azure.asked) == len({*azure.asked})


@pytest.mark.parametrize("azure", [by_policy(), by_role()], ids=["policy", "role"])
def test_no_task_uses_a_read_that_began_before_its_switch(azure: Azure, tmp_path: Path) -> None:
    one, other = task(azure, tmp_path), task(azure, tmp_path)
    first, second = before(one), before(other)
    one.with_access_now(first, time.monotonic())

    azure.vault = vault(rbac=bool(azure.assigned))
    azure.assigned.clear()

    again = other.with_access_now(second, time.monotonic())
    assert preflight.failed_checks(again) == ["access_granted"]


def test_a_revocation_that_was_noticed_is_noticed_by_the_next_tasks_too(tmp_path: Path) -> None:
    azure = by_policy()
    evidence = task(azure, tmp_path)
    first = before(evidence)
    azure.vault = vault()
    evidence.with_access_now(first, time.monotonic())

    assert preflight.failed_checks(before(task(azure, tmp_path))) == ["access_granted"]


@pytest.mark.parametrize("azure", [by_policy(), by_role()], ids=["policy", "role"])
@pytest.mark.parametrize(
    ("changed", "fails"),
    [(key(exp=NOW + 1800), "key_not_expired"), (key(enabled=False), "key_enabled"), (None, "key_exists")],
)
def test_a_key_that_changed_meanwhile(azure: Azure, changed: dict[str, Any] | None, fails: str) -> None:
    """Batch accepts a key that expires soon, and another task of the run may have read the key before its expiry
    was set."""
    evidence = task(azure)
    first = before(evidence)
    azure.key = changed

    now = evidence.with_access_now(first, time.monotonic())
    assert fails in preflight.failed_checks(preflight.lasting(now))


def test_access_by_roles_counts_in_a_vault_that_changed_to_them() -> None:
    azure = by_policy()
    evidence = task(azure)
    first = before(evidence)
    azure.vault = vault(rbac=True)
    assert preflight.failed_checks(evidence.with_access_now(first, time.monotonic())) == ["access_granted"]
    azure.assigned = by_role().assigned
    assert preflight.failed_checks(evidence.with_access_now(first, time.monotonic())) == []


def test_a_vault_that_was_not_found_before_is_not_read_again() -> None:
    azure = by_policy()
    azure.vault = None
    evidence = task(azure)
    first = before(evidence)

    assert evidence.with_access_now(first, time.monotonic()) == first


def test_an_unreadable_key_is_returned_as_an_error() -> None:
    azure = by_policy()
    azure.denied.add("key")

    first = before(task(azure))

    assert isinstance(first.bundle, Denied)
    assert first.now == NOW


@pytest.mark.parametrize(
    ("identity", "tenant"),
    [
        (system_assigned(), TENANT),
        ({**system_assigned(), "tenantId": OTHER}, OTHER),
        (user_assigned(one=OTHER), TENANT),
    ],
    ids=["its own", "another", "not returned"],
)
def test_the_tenant_of_an_account(identity: dict[str, Any], tenant: str) -> None:
    key_identifier = parse_key_identifier(KEY, "key_identifier")

    assert task(by_policy()).of_account(account(identity=identity), key_identifier).tenant_id == tenant


def test_cached_data_is_read_again_after_batch_refuses_the_key(tmp_path: Path) -> None:
    azure = Azure(policy())
    evidence = task(azure, tmp_path)
    first = before(evidence)
    azure.key = key(enabled=False)

    assert before(evidence) == first
    assert preflight.failed_checks(evidence.refreshed(first)) == ["key_enabled"]


# Accounts that have access to a key, with the time since when


def since_when(azure: Azure, **principals: str) -> dict[str, float]:
    """By the name of an account, its seconds of access; -inf if they are not known. `principals` are the principals of
    accounts that use other keys, by account. The account `user` uses the key."""
    azure.vault = {**(azure.vault or {}), "systemData": {"lastModifiedAt": "2020-01-01T00:00:00Z"}}
    users = {**{name: ([one], False) for name, one in principals.items()}, "user": ([OTHER], True)}
    service: Any = azure
    access = Access(service, service, service, service, service, service)
    access.all_assignments = azure.all_assignments  # type: ignore[method-assign]
    access.definitions = azure.definitions  # type: ignore[method-assign, assignment]
    found = access.since_when(parse_key_identifier(KEY, "key_identifier"), users, NOW)
    return {name: NOW - since for name, since in found.items()}


def test_accounts_that_have_access_by_a_role() -> None:
    azure = by_role(principal=PRINCIPAL.upper())

    # An account that uses the key counts also without access.
    assert since_when(azure, one=PRINCIPAL, none=CALLER["object_id"]) == {"one": 30 * DAY, "user": -inf}
    # One list for all accounts.
    assert azure.asked == ["vault", "all assignments"]


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


@pytest.mark.parametrize("hidden", ["vault", "all assignments", "definitions"])
def test_if_access_cannot_be_read_each_account_counts(hidden: str) -> None:
    azure = by_role(CUSTOM)
    azure.denied.add(hidden)

    assert since_when(azure, one=PRINCIPAL, none=CALLER["object_id"]) == dict.fromkeys(("one", "none", "user"), -inf)
