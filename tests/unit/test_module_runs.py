# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How modules run their plans: with a lock, for an account, once in a run or in each task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from documents import (
    DAY,
    DEFINITIONS,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    account,
    account_id,
    deleted_key,
    evidence,
    key,
    listed_users,
    observed_key,
    policy,
    system_assigned,
    user_assigned,
    vault,
)
from goals import options_of
from plain_service import plain

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, NotFound, Refused, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome, Removed, SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._core.reconcile import Removal
from ansible_collections.azbatch.cmk.plugins.modules import (
    keyvault_cmk_access,
    keyvault_cmk_key,
    keyvault_cmk_key_state,
    keyvault_cmk_unused_versions,
)

PINNED_OLD, PINNED_NEW = f"{KEY}/{OLD}", f"{KEY}/{NEW}"
CREATE_KEY = "Microsoft.KeyVault/vaults/keys/create/action"
MOVE = ["Microsoft.Batch/batchAccounts/write", "Microsoft.Batch/batchAccounts/pools/read"]


@dataclass
class Cloud:
    """The services in memory. `did` has the writes, each with the lock that was held."""

    predicts = False
    account: dict[str, Any] | None = None
    vault: dict[str, Any] = field(default_factory=vault)
    versions: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            OLD: key(OLD, created=NOW - 200 * DAY),
            MIDDLE: key(MIDDLE, created=NOW - 100 * DAY),
            NEW: key(NEW, created=NOW - 50 * DAY),
        }
    )
    unavailable: bool = False
    did: list[tuple[str, ...]] = field(default_factory=list)
    lock: str | None = None
    shared: list[str] = field(default_factory=list)
    newest_of: list[str | None] = field(default_factory=list)
    # The account in the run's list.
    listed: Any = None
    # The seconds since the account was changed.
    age: float = 30 * DAY
    # What an earlier run has disabled or deleted.
    earlier: Any = None
    # The removals that were confirmed, and whether a later task has to confirm them.
    confirmations: list[tuple[Removal, bool]] = field(default_factory=list)
    earlier_confirmed: list[Any] = field(default_factory=list)
    are_notes_kept = True
    # The actions whose rights were checked.
    checked: list[str] = field(default_factory=list)
    sent: SentWrites = field(default_factory=SentWrites)

    # The run

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        assert self.lock is None
        self.lock = name.lower()
        try:
            yield
        finally:
            self.lock = None

    def run_once(self, make: Callable[[], Outcome], *name: str) -> Outcome:
        assert self.lock
        self.shared += name
        return make()

    def confirmed(
        self, outcome: Outcome, removal: Removal, *, later: bool, earlier: Any = None, is_noted: bool = True
    ) -> Outcome:
        """Another task must be able to change the vault while this task waits."""
        assert not self.lock
        self.confirmations.append((removal, later))
        self.earlier_confirmed.append(earlier)
        return replace(outcome, removed=None, report={**outcome.report, "confirmed": not later})

    @property
    def newest(self) -> Any:
        def version(goal: Any, used: Any, make: Callable[[Any], Outcome]) -> Outcome:
            self.newest_of.append(used)
            return make(goal)

        return SimpleNamespace(version=version)

    @property
    def rights(self) -> Any:
        def require(needed: Any) -> tuple[str, ...]:
            self.checked += [right.action for right in needed]
            return ()

        return SimpleNamespace(require=require, of=lambda needed: lambda steps: require(needed.by(steps)))

    # Services

    @property
    def accounts(self) -> Any:
        def listed(_group: str, _name: str) -> Any:
            return self.listed

        def existing(_group: str, _name: str) -> Any:
            return self.account

        return SimpleNamespace(
            existing=existing,
            get=existing,
            listed=listed,
            recent=lambda _group, _name: None,
            expect_change=lambda _group: None,
        )

    @property
    def encryption(self) -> Any:
        def require_available(group: str, name: str) -> None:
            assert (group, name) == ("rg-batch", "mybatch")
            if self.unavailable:
                raise Unavailable("No.", code="account_unavailable")

        def read(_goal: Any) -> dict[str, Any]:
            return {"account": self.account, "unavailable_reason": None, "evidence": evidence()}

        def set_encryption(*, body: dict[str, Any], **_more: Any) -> None:
            self.did.append(("set_encryption",))
            identifier = body["properties"]["encryption"].get("keyVaultProperties", {}).get("keyIdentifier")
            self.account = account(key=identifier, identity=system_assigned())

        return plain(require_available=require_available, read=read, set_encryption=set_encryption)

    @property
    def keys(self) -> Any:
        def read(_goal: Any) -> dict[str, Any]:
            deleted = None if self.versions else deleted_key()
            return observed_key(*self.versions.values(), deleted=deleted, **self._users())

        def delete(vault: str, name: str) -> None:
            self.did.append(("delete", str(self.lock)))
            self.versions = {}

        def update(vault: str, name: str, version: str, body: dict[str, Any]) -> None:
            self.did.append(("update", version, str(self.lock)))
            attributes = self.versions[version]["attributes"]
            self.versions[version] = {**self.versions[version], "attributes": {**attributes, **body["attributes"]}}

        def create(**_arguments: Any) -> None:
            self.did.append(("create", str(self.lock)))
            self.versions["f" * 32] = key("f" * 32, created=NOW)

        return plain(
            read=read,
            update=update,
            create=create,
            delete=delete,
            restorations=lambda _vault, _name: 0,
            removed_earlier=lambda _goal: self.earlier,
            confirm=lambda _removed: None,
        )

    def _users(self) -> dict[str, Any]:
        return listed_users(*([self.account] if self.account else []), mybatch=self.age)

    @property
    def access(self) -> Any:
        def read(goal: Any) -> dict[str, Any]:
            found = {"vault": self.vault, "principal_id": goal.principal_id, "assignments": []}
            return {**found, "definitions": DEFINITIONS, **self._users()}

        def set_policy(vault_id: str, operation: str, entry: dict[str, Any]) -> None:
            self.did.append((operation, entry["objectId"], str(self.lock)))
            properties = self.vault["properties"]
            others = [one for one in properties["accessPolicies"] if one["objectId"] != entry["objectId"]]
            properties["accessPolicies"] = others if operation == "remove" else [*others, dict(entry)]

        return plain(read=read, set_policy=set_policy, expect=lambda _goal, _principals: None)


def on(used: str | None, identity: dict[str, Any] | None = None) -> dict[str, Any]:
    return account(key=used, identity=identity or system_assigned())


# A key


def run_key(cloud: Any, **options: Any) -> Outcome:
    module = keyvault_cmk_key_state if "state" in options else keyvault_cmk_key
    return module.run(options_of(module, **options), cloud)


BY_NAME = {"vault_name": "MyVault", "name": "batch"}
FOR_ACCOUNT = {**BY_NAME, "used_by_account": "mybatch", "account_resource_group": "rg-batch"}


def test_a_key_is_changed_under_the_lock_of_its_vault() -> None:
    cloud = Cloud()

    assert run_key(cloud, **BY_NAME, new_version=True).changed
    assert cloud.did == [("create", "myvault")]
    assert (cloud.checked, cloud.shared, cloud.newest_of) == ([CREATE_KEY], [], [])


def test_a_version_of_a_key_is_disabled_under_its_lock() -> None:
    cloud = Cloud()

    assert run_key(cloud, key_identifier=PINNED_OLD, state="disabled").changed
    assert cloud.did == [("update", OLD, "myvault")]


@pytest.mark.parametrize("options", [{}, {"new_version": True}, {"max_version_age": "P1D"}], ids=str)
@pytest.mark.parametrize(("used", "version"), [(PINNED_OLD, OLD), (KEY, None)])
def test_the_newest_version_for_an_account_is_that_of_the_run(
    options: dict[str, Any], used: str, version: str | None
) -> None:
    cloud = Cloud(on(used))
    run_key(cloud, **FOR_ACCOUNT, **options)

    assert cloud.newest_of == [version]
    # An account that follows the key is not moved to the new version.
    move = [*MOVE, "Microsoft.Authorization/roleAssignments/read"] if version else []
    assert cloud.checked == ([CREATE_KEY, *move] if options else [])


@pytest.mark.parametrize("listed", [on(f"{KEY}2"), on(None), None])
def test_an_account_that_is_listed_on_another_key_is_read(listed: Any) -> None:
    """The list of the run may be some seconds old."""
    cloud = Cloud(on(PINNED_OLD))
    cloud.listed = listed

    run_key(cloud, **FOR_ACCOUNT)

    assert cloud.newest_of == [OLD]


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (on(None), "account_not_on_cmk"),
        (on(f"{KEY}2"), "account_on_another_key"),
        (on("https://vault2.vault.azure.net/keys/batch"), "account_on_another_key"),
        (None, "account_not_found"),
    ],
)
def test_no_version_is_made_for_an_account_that_is_not_on_the_key(found: Any, code: str) -> None:
    cloud = Cloud(found)
    with pytest.raises(CmkError) as failed:
        run_key(cloud, **FOR_ACCOUNT, new_version=True)

    assert failed.value.code == code
    assert (cloud.did, cloud.newest_of) == ([], [])


def test_key_of_an_unavailable_account_gets_no_version() -> None:
    cloud = Cloud(on(PINNED_NEW), unavailable=True)
    with pytest.raises(Unavailable):
        run_key(cloud, **FOR_ACCOUNT, new_version=True)
    assert cloud.did == []
    # The availability is not checked if there is nothing to change, or if no account is named.
    assert not run_key(cloud, **FOR_ACCOUNT).changed
    assert run_key(cloud, **BY_NAME, new_version=True).changed


def test_a_version_that_is_kept_is_checked_once_in_a_run() -> None:
    options = {"key_identifier": PINNED_OLD, "state": "disabled", "in_use": "keep"}
    cloud = Cloud(on(PINNED_OLD))
    outcome = run_key(cloud, **options)

    assert (outcome.changed, outcome.report["in_use_by"]) == (False, [account_id()])
    assert len(cloud.shared) == 1
    # The name contains all options, so that a task with other options does not use the result.
    other = Cloud(on(PINNED_OLD))
    run_key(other, **options, unused_for="P1D")
    assert other.shared != cloud.shared
    # By default, each task fails.
    with pytest.raises(Refused):
        run_key(other, **{**options, "in_use": "fail"})
    assert len(other.shared) == 1


# What is disabled, deleted or revoked is confirmed


@pytest.mark.parametrize("confirm", ["now", "later"])
@pytest.mark.parametrize(
    ("options", "name"),
    [
        pytest.param({"key_identifier": PINNED_OLD, "state": "disabled"}, ("disabled", OLD), id="version"),
        pytest.param({**BY_NAME, "state": "disabled"}, ("disabled", ""), id="key"),
        pytest.param({**BY_NAME, "state": "absent"}, ("absent", ""), id="deleted key"),
    ],
)
def test_a_removal_of_a_key_is_confirmed_without_the_lock(
    options: dict[str, Any], name: tuple[str, str], confirm: str
) -> None:
    cloud = Cloud()

    outcome = run_key(cloud, **options, confirm=confirm)

    assert outcome.changed
    assert outcome.report["confirmed"] is (confirm == "now")
    [(removal, later)] = cloud.confirmations
    assert (removal.name, removal.vault.lower(), later) == (
        ("key", "myvault/batch", *name),
        "myvault",
        confirm == "later",
    )
    assert removal.keeps_used is False


@pytest.mark.parametrize("force", [False, True])
def test_a_removal_of_an_earlier_run_is_confirmed_without_force(force: bool) -> None:
    """The earlier run may have ended before it has asked again."""
    earlier = Removed("goal", "back", 5.0)
    cloud = Cloud(earlier=earlier)

    run_key(cloud, **BY_NAME, state="disabled", force=force)

    assert cloud.earlier_confirmed == [None if force else earlier]


@pytest.mark.parametrize("options", [{"new_version": True}, {"state": "enabled"}], ids=str)
def test_nothing_is_confirmed_if_nothing_may_be_removed(options: dict[str, Any]) -> None:
    cloud = Cloud()

    outcome = run_key(cloud, **BY_NAME, **options)

    assert ("confirmed" in outcome.report, cloud.confirmations) == (False, [])


# Unused versions


def run_unused(cloud: Any, **options: Any) -> Outcome:
    return keyvault_cmk_unused_versions.run(options_of(keyvault_cmk_unused_versions, **{**BY_NAME, **options}), cloud)


def test_unused_versions_are_disabled_under_the_lock_and_confirmed_without_it() -> None:
    cloud = Cloud(on(PINNED_NEW))
    outcome = run_unused(cloud)

    assert cloud.did == [("update", MIDDLE, "myvault"), ("update", OLD, "myvault")]
    assert (outcome.changed, outcome.report["disabled_versions"]) == (True, [MIDDLE, OLD])
    assert outcome.before["enabled_versions"] == sorted([OLD, MIDDLE, NEW])
    assert outcome.after["enabled_versions"] == [NEW]
    assert outcome.report["summary"].startswith("Disabled version ")
    [(removal, later)] = cloud.confirmations
    assert (removal.name, later, removal.keeps_used) == (("key", "myvault/batch", "retired", ""), False, True)


def test_unused_versions_are_disabled_once_for_a_key_and_a_run() -> None:
    first, second, third = Cloud(on(PINNED_NEW)), Cloud(on(PINNED_NEW)), Cloud(on(PINNED_NEW))
    run_unused(first)
    run_unused(second)
    run_unused(third, unused_for="P1D")

    assert len(first.shared) == 1
    assert first.shared == second.shared
    # A task with another margin does not use the outcome.
    assert first.shared != third.shared


def test_versions_that_stay_enabled_are_in_the_summary() -> None:
    outcome = run_unused(Cloud(on(PINNED_NEW), age=DAY))

    assert (outcome.changed, outcome.report["kept_versions"]) == (False, [MIDDLE, OLD])
    assert "stay enabled until 2026-06-03T20:26:40Z" in outcome.report["summary"]


def test_the_summary_of_a_key_without_unused_versions() -> None:
    cloud = Cloud()
    run_unused(cloud)
    outcome = run_unused(cloud)

    assert (outcome.changed, len(cloud.did)) == (False, 2)
    assert outcome.report["summary"] == "No unused version of the key batch in vault MyVault is enabled."


# Access


def run_access(cloud: Any, **options: Any) -> Outcome:
    return keyvault_cmk_access.run(options_of(keyvault_cmk_access, **options), cloud)


OF_ACCOUNT = {"key_identifier": KEY, "account_name": "mybatch", "account_resource_group": "rg-batch"}
TWO = user_assigned(one=PRINCIPAL, two=OTHER)


def test_access_is_granted_to_all_identities_of_an_account_under_one_lock() -> None:
    cloud = Cloud(on(None, TWO))
    outcome = run_access(cloud, **OF_ACCOUNT)

    assert cloud.did == [("add", PRINCIPAL, "myvault"), ("add", OTHER, "myvault")]
    assert [one["principal_id"] for one in outcome.after["principals"]] == [PRINCIPAL, OTHER]
    assert cloud.checked == ["Microsoft.KeyVault/vaults/accessPolicies/write"] * 2
    assert "in_use_by" not in outcome.report
    assert not run_access(cloud, **OF_ACCOUNT).changed


def test_one_principal_returns_a_flat_result() -> None:
    cloud = Cloud()
    outcome = run_access(cloud, vault_name="MyVault", principal_id=OTHER)

    assert cloud.did == [("add", OTHER, "myvault")]
    assert "principals" not in outcome.after


def test_access_of_each_identity_is_revoked_or_kept() -> None:
    cloud = Cloud(on(f"{KEY}/{NEW}", system_assigned()), vault=vault(policy(), policy(OTHER)))
    kept = run_access(cloud, **OF_ACCOUNT, state="absent", in_use="keep")
    assert (kept.changed, kept.report["in_use_by"], cloud.did) == (False, [account_id()], [])
    with pytest.raises(Refused):
        run_access(cloud, **OF_ACCOUNT, state="absent")

    cloud.account = on(None, TWO)
    cloud.confirmations.clear()
    outcome = run_access(cloud, **OF_ACCOUNT, state="absent", in_use="keep", confirm="later")
    assert (outcome.changed, outcome.report["confirmed"]) == (True, False)
    assert cloud.did == [("remove", PRINCIPAL, "myvault"), ("remove", OTHER, "myvault")]
    assert [(removal.name, later) for removal, later in cloud.confirmations] == [
        (("access", "myvault", principal, ""), True) for principal in (PRINCIPAL, OTHER)
    ]


@pytest.mark.parametrize(
    ("options", "confirms"),
    [
        pytest.param({"state": "absent"}, True, id="revoked"),
        pytest.param({"state": "absent", "force": True}, False, id="revoked by force"),
        pytest.param({"state": "present"}, False, id="granted"),
    ],
)
def test_a_revocation_is_confirmed(options: dict[str, Any], confirms: bool) -> None:
    cloud = Cloud(vault=vault(policy(OTHER)))

    outcome = run_access(cloud, vault_name="MyVault", principal_id=OTHER, **options)

    assert len(cloud.confirmations) == confirms
    assert ("confirmed" in outcome.report) is confirms


def test_access_of_a_missing_account_is_an_error() -> None:
    with pytest.raises(NotFound):
        run_access(Cloud(), **OF_ACCOUNT)
    without = Cloud(account())
    with pytest.raises(Refused):
        run_access(without, **OF_ACCOUNT)
    assert run_access(without, **OF_ACCOUNT, state="absent").after == {"principals": []}
