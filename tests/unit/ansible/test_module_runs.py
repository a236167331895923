# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How modules make their changes: under a lock, for an account, and with a confirmation of what they remove."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import encryption_table
import pytest
from azure_table import cloud_of, listing
from clocks import Clock, clock_of_all
from documents import (
    DAY,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
    account,
    account_id,
    key,
    listed,
    policy,
    system_assigned,
    user_assigned,
)
from encryption_table import ACCOUNT, ELSEWHERE, NO_KEY, PERMISSIONS, PINNED_NEW, PINNED_OLD, POOLS
from goals import encryption_options, options_of

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.executor import Executor
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    Refused,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.modules import (
    batch_encryption,
    keyvault_cmk_access,
    keyvault_cmk_key,
    keyvault_cmk_key_state,
    keyvault_cmk_unused_versions,
)

OTHER_KEY = f"{KEY}2"
# The permissions of the caller as an access policy.
OFFICER = policy("abcdef05-7777-8888-9999-000000000000", ["create", "delete", "update"])
# The lock that is held.
_lock: list[str] = []


class Azure(encryption_table.Azure):
    """The accounts of the caller are one account, which was changed long ago, or none. Writes of the key and of its
    vault take effect. `did` has them, each with the lock that was held."""

    def __init__(self, found: dict[str, Any] | None = None) -> None:
        self.did: list[tuple[str, ...]] = []
        super().__init__(None)
        self.grant(policy())
        self.use(found)
        self.update(
            {
                refs.permissions_at(refs.group(SUBSCRIPTION, "rg-keys").id): [{"actions": ["*"]}],
                OTHER_KEY: key(name="batch2"),
                f"{OTHER_KEY}/versions": [listed(key(name="batch2"))],
            }
        )

    def use(self, found: dict[str, Any] | None) -> None:
        self.update({ACCOUNT: None, **listing(*([found] if found else []), mybatch=30 * DAY)})

    def move(self, used: str | None) -> None:
        super().move(used)
        self.use(on(used))

    def grant(self, *policies: dict[str, Any]) -> None:
        super().grant(OFFICER, *policies)
        # When the vault was last changed.
        for one in (self[encryption_table.VAULT], self[encryption_table.VAULTS][0]):
            one["systemData"] = {"lastModifiedAt": "2020-01-01T00:00:00Z"}

    def _apply(self, ref: str, body: Any) -> None:
        match urlsplit(ref).path.split("/")[-2:]:
            case ["batch", "create"]:
                self._did("create")
                made = key(f"{len(self.did):032x}", created=NOW)
                versions = [*self[f"{KEY}/versions"], listed(made)]
                self.update({KEY: made, made["key"]["kid"]: made, f"{KEY}/versions": versions})
            case ["batch", version] if "attributes" in body:
                self._did("update", version)
                self.change(version, **body["attributes"], updated=NOW, tags=body.get("tags"))
            case ["accessPolicies", "add"]:
                [entry] = body["properties"]["accessPolicies"]
                self._did("add", entry["objectId"])
                self.grant(*self[encryption_table.VAULT]["properties"]["accessPolicies"][1:], entry)
            case _:
                super()._apply(ref, body)

    def _did(self, *what: str) -> None:
        self.did.append((*what, *_lock))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Other tasks wait for the lock of a vault that a task holds."""
    clock = clock_of_all(monkeypatch)

    @contextmanager
    def locked(_executor: Executor, vault: str) -> Iterator[None]:
        assert not _lock
        _lock.append(vault.lower())
        try:
            yield
        finally:
            _lock.clear()

    monkeypatch.setattr(Executor, "_locked", locked)
    return clock


def on(used: str | None, identity: dict[str, Any] | None = None) -> dict[str, Any]:
    return account(key=used, identity=identity or system_assigned())


# A key


def run_key(azure: Azure, folder: Path | None = None, *, task: str | None = None, **options: Any) -> Outcome:
    module = keyvault_cmk_key_state if "state" in options else keyvault_cmk_key
    return module.run(options_of(module, **options), cloud_of(azure, folder, task=task))


BY_NAME = {"vault_name": "MyVault", "name": "batch"}
FOR_ACCOUNT = {**BY_NAME, "used_by_account": "mybatch", "account_resource_group": "rg-batch"}
CREATED = [("create", "myvault")]


def test_each_task_without_an_account_makes_a_forced_version(tmp_path: Path) -> None:
    """Under the lock of the vault."""
    azure = Azure()

    assert [run_key(azure, tmp_path, **BY_NAME, new_version=True).changed for _task in range(2)] == [True, True]
    assert azure.did == CREATED * 2


@pytest.mark.parametrize("lacks", ["write", "pools/read"])
@pytest.mark.parametrize(("used", "is_refused"), [(PINNED_OLD, True), (KEY, False)])
def test_a_version_is_created_only_if_the_account_can_be_moved_to_it(lacks: str, used: str, is_refused: bool) -> None:
    """An account that follows the key is not moved to the new version."""
    azure = Azure(on(used))
    azure[PERMISSIONS] = [{"actions": ["*"], "notActions": [f"Microsoft.Batch/batchAccounts/{lacks}"]}]

    if not is_refused:
        assert run_key(azure, **FOR_ACCOUNT, new_version=True).changed
        return
    with pytest.raises(Denied) as refused:
        run_key(azure, **FOR_ACCOUNT, new_version=True)
    assert refused.value.facts["action"] == f"Microsoft.Batch/batchAccounts/{lacks}"
    assert azure.did == []


@pytest.mark.parametrize("shown", [on(OTHER_KEY), on(None)])
def test_an_account_that_another_host_has_read_on_another_key_is_read(tmp_path: Path, shown: Any) -> None:
    """That read may be some seconds old."""
    azure = Azure(shown)
    with pytest.raises(Refused):
        run_key(azure, tmp_path, task="a task", **FOR_ACCOUNT)
    azure.use(on(PINNED_OLD))

    assert not run_key(azure, tmp_path, task="a task", **FOR_ACCOUNT).changed


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (on(None), "account_not_on_cmk"),
        (on(OTHER_KEY), "account_on_another_key"),
        (None, "account_not_found"),
    ],
)
def test_no_version_is_made_for_an_account_that_is_not_on_the_key(found: Any, code: str) -> None:
    azure = Azure(found)
    with pytest.raises(CmkError) as failed:
        run_key(azure, **FOR_ACCOUNT, new_version=True)

    assert failed.value.code == code
    assert azure.did == []


def test_key_of_an_unavailable_account_gets_no_version() -> None:
    azure = Azure(on(PINNED_NEW))
    azure[POOLS] = NO_KEY
    with pytest.raises(Unavailable):
        run_key(azure, **FOR_ACCOUNT, new_version=True)
    assert azure.did == []
    azure[POOLS] = Denied("You may not.", azure={"code": "AuthorizationFailed"})
    with pytest.raises(Denied) as refused:
        run_key(azure, **FOR_ACCOUNT, new_version=True)
    assert (refused.value.code, azure.did) == ("availability_unknown", [])
    # The availability is not checked if there is nothing to change, or if no account is named.
    assert not run_key(azure, **FOR_ACCOUNT).changed
    assert run_key(azure, **BY_NAME, new_version=True).changed


# A refusal that an account explains


@pytest.mark.parametrize(
    ("state", "pools", "code"),
    [
        pytest.param("Succeeded", NO_KEY, "account_unavailable", id="not available"),
        pytest.param("Failed", [], "account_failed", id="failed"),
        pytest.param("Succeeded", [], "key_type_differs", id="available"),
        pytest.param(
            "Succeeded",
            Denied("You may not.", azure={"code": "AuthorizationFailed"}),
            "key_type_differs",
            id="its availability is not known",
        ),
    ],
)
def test_a_refusal_of_the_key_names_the_state_of_the_account(state: str, pools: Any, code: str) -> None:
    found = on(PINNED_OLD)
    found["properties"]["provisioningState"] = state
    azure = Azure(found)
    azure[POOLS] = pools

    with pytest.raises(CmkError) as failed:
        run_key(azure, **FOR_ACCOUNT, key_type="RSA-HSM")
    assert failed.value.code == code
    assert azure.did == []


def test_an_error_that_does_not_concern_the_account_is_not_explained() -> None:
    azure = Azure(on(PINNED_OLD))
    azure.update({POOLS: NO_KEY, KEY: Unavailable("Too many requests.", code="throttled")})

    with pytest.raises(Unavailable) as failed:
        run_key(azure, **FOR_ACCOUNT)
    assert failed.value.code == "throttled"


def test_a_failure_after_a_write_is_not_explained() -> None:
    """The change is the reason why the account is not available."""
    azure = Azure(on(PINNED_OLD))

    def lose(used: str | None) -> None:
        azure.grant()
        azure.use(on(used))
        azure[POOLS] = NO_KEY

    azure.on_write = lose
    with pytest.raises(CmkError) as failed:
        batch_encryption.run(encryption_options(PINNED_NEW), cloud_of(azure))
    assert failed.value.code == "preflight_failed"
    assert azure.written_keys == [PINNED_NEW, None]


# The versions that an account leaves


@pytest.mark.parametrize(
    "failure", [None, Denied("You may not."), Unavailable("The host is unknown.", code="vault_unreachable")]
)
def test_an_account_is_moved_whether_or_not_its_version_can_be_updated_first(failure: CmkError | None) -> None:
    azure = Azure(on(PINNED_OLD))
    azure[f"PATCH {PINNED_OLD}"] = failure
    cloud = cloud_of(azure)

    outcome = batch_encryption.run(encryption_options(ELSEWHERE, previous_key="any", version_mode="follow"), cloud)

    assert [ref for _method, ref, _body in azure.written] == [PINNED_OLD, account_id()]
    assert azure.did == ([] if isinstance(failure, Denied) else [("update", OLD, "myvault")])
    assert outcome.after["key_identifier"] == ELSEWHERE
    warnings = [one for one in outcome.warnings if "could not be updated without a change" in one]
    # After a lost response, the versions are read again.
    assert len(warnings) == isinstance(failure, Denied)


def test_an_account_is_not_moved_if_key_vault_fails() -> None:
    azure = Azure(on(PINNED_OLD))
    azure[f"PATCH {PINNED_OLD}"] = Unavailable("HTTP status 500.")

    with pytest.raises(Unavailable):
        batch_encryption.run(encryption_options(ELSEWHERE, previous_key="any"), cloud_of(azure))
    assert azure.written_keys == []


# Unused versions


def run_unused(azure: Azure, **options: Any) -> Outcome:
    given = options_of(keyvault_cmk_unused_versions, **{**BY_NAME, **options})
    return keyvault_cmk_unused_versions.run(given, cloud_of(azure))


def test_unused_versions_are_disabled_under_the_lock() -> None:
    azure = Azure(on(PINNED_NEW))
    outcome = run_unused(azure)

    assert azure.did[:2] == [("update", MIDDLE, "myvault"), ("update", OLD, "myvault")]
    assert (outcome.changed, outcome.report["disabled_versions"]) == (True, [MIDDLE, OLD])
    assert outcome.before["enabled_versions"] == sorted([OLD, MIDDLE, NEW])
    assert outcome.after["enabled_versions"] == [NEW]
    assert outcome.report["summary"].startswith("Disabled version ")


# Access


def test_access_is_granted_to_all_identities_of_an_account_under_one_lock() -> None:
    azure = Azure(on(None, user_assigned(one=PRINCIPAL, two=OTHER)))
    azure.grant()
    given = {"key_identifier": KEY, "account_name": "mybatch", "account_resource_group": "rg-batch"}
    outcome = keyvault_cmk_access.run(options_of(keyvault_cmk_access, **given), cloud_of(azure))

    assert azure.did == [("add", PRINCIPAL, "myvault"), ("add", OTHER, "myvault")]
    assert [one["principal_id"] for one in outcome.after["principals"]] == [PRINCIPAL, OTHER]
    assert "in_use_by" not in outcome.report
