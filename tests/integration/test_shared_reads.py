# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of a playbook's task share what they read to find out that there is nothing to do. No task uses what an
earlier task of the play has read for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from one_process import OneProcess
from sandbox_client import LOGIN
from service import DAY, GROUP, Service

from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs

VAULT = {"resource_group": GROUP, "name": "vault-one"}
KEY = {"vault_name": "vault-one", "name": "key1"}


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
