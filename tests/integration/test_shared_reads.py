# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of a playbook's task share what they read to find out that there is nothing to do. No task uses what an
earlier task of the play has read for that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import pytest
from one_process import OneProcess
from operators import done
from sandbox_client import LOGIN
from service import DAY, GROUP, Service

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.executor import Executor
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs

VAULT = {"resource_group": GROUP, "name": "vault-one"}
KEY = {"vault_name": "vault-one", "name": "key1"}

NOBODY = "00000000-0000-4000-8000-000000000000"


def access(principal: str) -> dict[str, Any]:
    return {"vault_resource_group": GROUP, "vault_name": "vault-one", "principal_id": principal}


def requested(service: Service, since: int) -> list[dict[str, Any]]:
    """The requests since then, except for sign-ins: the first sign-in of a run requests Key Vault's token in the
    background, and the token is lost if the task ends first."""
    return [one for one in service.sandbox.control.requests(since) if not one["url"].startswith(LOGIN)]


def move(service: Service, key: str, account: str = "account1") -> dict[str, Any]:
    where = {"resource_group": GROUP, "account_name": account}
    return {**where, "key_source": "microsoft_keyvault", "key_identifier": key, "previous_key": "any"}


@pytest.fixture
def principal(service: Service) -> str:
    found, _version = service.on_key()
    return found


def by_hand(service: Service, principal: str) -> dict[str, tuple[str, dict[str, Any], Callable[[], Any]]]:
    """A module and its options for a state that exists, and how somebody changes that state."""
    identifier = str(service.encryption())
    return {
        "vault": ("keyvault_cmk_vault", VAULT, service.delete_vault),
        "key": ("keyvault_cmk_key_state", {**KEY, "state": "enabled"}, service.disable),
        "access": ("keyvault_cmk_access", access(principal), lambda: service.revoke(principal)),
        "account": ("batch_encryption", move(service, identifier), lambda: service.point(None)),
    }


@pytest.mark.parametrize("what", ["vault", "key", "access", "account"])
def test_the_second_task_reads_a_change_after_the_first_task(
    runner: OneProcess, service: Service, principal: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """An earlier task of the play may have changed the resource with another tool."""
    monkeypatch.setattr(refs, "LISTED_FROM", 1)
    module, options, change = by_hand(service, principal)[what]
    for _host in range(2):
        assert runner.module(module, options, task="first")["changed"] is False
    change()

    found = runner.module(module, options, task="second")

    assert found["changed"] or found["code"] == "vault_soft_deleted", found


@pytest.mark.parametrize("what", ["vault", "key", "access", "account"])
def test_hosts_of_a_task_share_reads(
    runner: OneProcess, service: Service, principal: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(refs, "LISTED_FROM", 1)
    module, options, _change = by_hand(service, principal)[what]
    # In the first minutes after a change of the key, the time of the account matters too.
    service.sandbox.control.advance(DAY)
    runner.module(module, options, task="one")
    since = service.sandbox.control.last

    assert runner.module(module, options, task="one")["changed"] is False

    # The versions of a key are listed by each host.
    assert [one["url"] for one in requested(service, since) if "/versions?" not in one["url"]] == []


@pytest.mark.parametrize("what", ["key", "access", "account"])
def test_a_host_sees_the_change_of_another_host(
    runner: OneProcess, service: Service, principal: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Also if it was made for the same task."""
    monkeypatch.setattr(refs, "LISTED_FROM", 1)
    module, options, change = by_hand(service, principal)[what]
    change()

    changed = [runner.module(module, options, task="one")["changed"] for _host in range(3)]

    assert changed == [True, False, False]


def test_a_lost_account_is_found_although_the_list_shows_the_wanted_key(
    runner: OneProcess, service: Service, principal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refs, "LISTED_FROM", 1)
    _module, options, _change = by_hand(service, principal)["account"]
    assert runner.module("batch_encryption", options, task="first")["available"] is True
    service.disable()

    found = runner.module("batch_encryption", options, task="second")

    assert found["code"] == "account_unavailable", found


def test_a_change_is_decided_by_the_accounts_own_read(
    runner: OneProcess, service: Service, principal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody moves the account to a newer version after the run has listed the accounts."""
    monkeypatch.setattr(refs, "LISTED_FROM", 1)
    first = str(service.encryption())
    wanted = service.make_key("key2").id
    options = {**move(service, wanted), "previous_key": "vault-one/key1"}
    service.make_account("account2")
    runner.module("batch_encryption", {**options, "account_name": "account2"}, task="one")
    service.point(service.make_key("key3").id)

    found = runner.module("batch_encryption", options, task="one")

    assert found["code"] == "account_on_another_key", (first, found)


def test_a_change_is_not_planned_from_what_another_host_has_read(
    runner: OneProcess, service: Service, principal: str
) -> None:
    other = service.make_account("account2")["identity"]["principalId"]
    assert runner.module("keyvault_cmk_access", access(principal), task="one")["changed"] is False
    # The vault that the first host has read does not have this policy.
    service.grant(other)

    assert runner.module("keyvault_cmk_access", access(other), task="one")["changed"] is False


def test_a_refusal_is_not_decided_by_what_another_host_has_read(runner: OneProcess, service: Service) -> None:
    """Somebody enables the key after the first host has read it."""
    service.make_vault()
    service.make_key()
    service.disable()
    assert runner.module("keyvault_cmk_key", KEY, task="one")["code"] == "key_disabled"
    service.keys().update_key_properties("key1", enabled=True)

    assert done(runner.module("keyvault_cmk_key", KEY, task="one"))["enabled"] is True


@pytest.mark.parametrize(
    ("module", "options", "code"),
    [
        ("keyvault_cmk_key_state", {**KEY, "state": "enabled"}, "key_not_found"),
        ("keyvault_cmk_access", {**access(NOBODY), "vault_name": "vault-two"}, "vault_not_found"),
    ],
)
def test_a_refusal_by_what_the_task_has_read_itself_is_not_read_again(
    runner: OneProcess, service: Service, module: str, options: dict[str, Any], code: str
) -> None:
    """A second read of the same could not change the decision."""
    service.make_vault()
    since = service.sandbox.control.last

    assert runner.module(module, options, task="one")["code"] == code

    read = [f"{one['method']} {one['url']}" for one in requested(service, since)]
    assert read
    assert len(read) == len(set(read)), read


# A role with the permissions that Batch needs, other than the role that the collection assigns.
CRYPTO_OFFICER = "14b46e9e-c2b7-41b4-b07b-48a6ebf60603"


@pytest.mark.parametrize("is_by_role", [False, True], ids=["access policy", "role"])
def test_hosts_that_move_accounts_to_a_key_share_reads(runner: OneProcess, service: Service, is_by_role: bool) -> None:
    """The second host reads only its account, and the roles of the account's principal, before its change."""
    service.make_vault(rbac=is_by_role)
    wanted = str(service.make_key().id)
    principals = [service.make_account(name)["identity"]["principalId"] for name in ("account1", "account2")]
    for principal in principals:
        if is_by_role:
            service.assign(principal, service.vault_id(), CRYPTO_OFFICER)
        else:
            service.grant(principal)
    assert runner.module("batch_encryption", move(service, wanted), task="one")["changed"]
    time.sleep(10)
    since = service.sandbox.control.last

    assert runner.module("batch_encryption", move(service, wanted, "account2"), task="one")["changed"]

    before = [one["url"] for one in takewhile(lambda one: one["method"] == "GET", requested(service, since))]
    assert [url for url in before if "account2" not in url and principals[1] not in url] == []
    assert len(before) == (2 if is_by_role else 1)


@pytest.fixture
def while_it_waits(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Sets what happens after the next task has begun, while it waits for the lock of its vault."""
    locked = Executor.locked

    def set_(act: Callable[[], None]) -> None:
        @contextmanager
        def wait(executor: Executor, vault: str) -> Iterator[bool]:
            monkeypatch.setattr(Executor, "locked", locked)
            act()
            with locked(executor, vault):
                yield True

        monkeypatch.setattr(Executor, "locked", wait)

    return set_


def test_a_permission_that_somebody_grants_while_a_task_waits_stays(
    runner: OneProcess, service: Service, principal: str, while_it_waits: Callable[[Callable[[], None]], None]
) -> None:
    """Another host has read the vault meanwhile, before the permission was granted."""
    other = service.make_account("account2")["identity"]["principalId"]
    service.set_policy("add", service.policy(other, "get", "wrapKey", "unwrapKey", "list"))

    def act() -> None:
        assert runner.module("keyvault_cmk_access", access(principal), task="one")["changed"] is False
        service.set_policy("add", service.policy(other, "sign"))

    while_it_waits(act)
    revoked = runner.module("keyvault_cmk_access", {**access(other), "state": "absent", "force": True}, task="one")

    assert revoked["changed"] is True
    assert sorted((service.permissions(other) or {})["keys"]) == ["list", "sign"]


def test_a_grant_that_somebody_makes_while_a_task_waits_is_not_reported(
    runner: OneProcess, service: Service, principal: str, while_it_waits: Callable[[Callable[[], None]], None]
) -> None:
    other = service.make_account("account2")["identity"]["principalId"]

    def act() -> None:
        assert runner.module("keyvault_cmk_access", access(principal), task="one")["changed"] is False
        service.grant(other)

    while_it_waits(act)
    assert runner.module("keyvault_cmk_access", access(other), task="one")["changed"] is False
