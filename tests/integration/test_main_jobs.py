# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main jobs by their playbooks, in the sandbox and, with `make live-test`, in Azure. A test uses only what is
possible in both, and takes less than half an hour in Azure."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from cases import DISABLE
from live.azure import BATCH
from live.lab import KEY, RETENTION_DAYS, random_name
from role_runs import result, steps
from worlds import World, wrote

pytestmark = pytest.mark.on_azure


def assert_unchanged(world: World, role: str, **variables: Any) -> None:
    """Check that the playbook changes nothing, neither with --check nor without."""
    for check in (True, False):
        run = world.play(role, check=check, **variables)
        assert (wrote(run), result(run)["changed"]) == ([], False)


@pytest.mark.parametrize("authorization", ["access_policy", "rbac"])
@pytest.mark.parametrize("identity", ["system_assigned", "user_assigned"])
def test_provision(world: World, identity: str, authorization: str) -> None:
    name, vault = random_name("ba"), random_name("kv")
    wanted = {
        **world.account(name, vault),
        "cmk_location": world.lab.place.location,
        "cmk_vault_authorization": authorization,
        "cmk_vault_retention_days": RETENTION_DAYS,
    }
    if identity == "user_assigned":
        wanted["cmk_identity_id"] = world.lab.identity()["id"]
    if authorization == "rbac":
        world.let_caller_create_keys()

    predicted = world.play("provision", check=True, **wanted)
    assert wrote(predicted) == []
    run = world.play("provision", **wanted)

    assert steps(predicted) == steps(run)
    grant = f"PUT role {vault}" if authorization == "rbac" else f"PUT policies {vault} add"
    created = f"PUT account {name}"
    accounts = [grant, created] if identity == "user_assigned" else [created, grant, f"PATCH account {name}"]
    # Until the access takes effect, the creation of the account can fail. Then it is repeated.
    assert [*dict.fromkeys(wrote(run))] == [f"PUT vault {vault}", f"POST key {vault} {KEY}", *accounts]
    assert result(run)["available"] is True
    assert world.uses(name) == result(run)["key_identifier"]
    world.assert_available(name)
    assert_unchanged(world, "provision", **wanted)


def test_rotate(world: World) -> None:
    account = world.on_key()
    name, vault = account["cmk_account_name"], account["cmk_vault_name"]
    first = world.uses(name)
    forced = {**account, "cmk_key_new_version": True}

    predicted = world.play("rotate", check=True, **forced)
    assert (wrote(predicted), world.uses(name)) == ([], first)
    run = world.play("rotate", **forced)

    assert steps(predicted) == steps(run) == ["key", "encryption"]
    assert wrote(run) == [f"POST key {vault} {KEY}", f"PATCH account {name}"]
    assert result(run)["previous_key_identifier"] == first
    assert world.uses(name) == result(run)["key_identifier"] != first
    world.assert_available(name)
    assert_unchanged(world, "rotate", **account)


def test_unused_versions(world: World) -> None:
    """Batch has never used the first version. Nobody knows how long Batch needs a version that an account has left."""
    account = world.on_key(versions=2)
    name, vault = account["cmk_account_name"], account["cmk_vault_name"]
    wanted = {**account, **DISABLE}

    predicted = world.play("rotate", check=True, **wanted)
    assert (wrote(predicted), world.enabled(vault)) == ([], [True, True])
    run = world.play("rotate", **wanted)

    assert steps(predicted) == steps(run) == ["unused_disabled"]
    assert wrote(run) == [f"PATCH key {vault} {KEY}"]
    assert world.enabled(vault) == [False, True]
    world.assert_available(name)
    assert_unchanged(world, "rotate", **wanted)


def test_switch(world: World) -> None:
    """The other vault uses Azure RBAC."""
    account = world.on_key()
    name = account["cmk_account_name"]
    world.let_caller_create_keys()
    vault = world.lab.vault(roles=True)
    other = world.lab.key(vault, "other")
    wanted = {**account, "cmk_new_key_identifier": other}

    predicted = world.play("switch", check=True, **wanted)
    assert wrote(predicted) == []
    run = world.play("switch", **wanted)

    assert steps(predicted) == steps(run) == ["access", "encryption"]
    assert wrote(run) == [f"PUT role {vault}", f"PATCH account {name}"]
    assert world.uses(name) == other
    world.assert_available(name)
    assert_unchanged(world, "switch", **wanted)


def test_recover(world: World) -> None:
    """Somebody has disabled the key. Batch may not have noticed that yet."""
    account = world.on_key()
    name, vault = account["cmk_account_name"], account["cmk_vault_name"]
    key = world.uses(name)
    assert key is not None
    world.lab.enable(key, enabled=False)

    predicted = world.play("recover", check=True, **account)
    assert (wrote(predicted), world.enabled(vault)) == ([], [False])
    run = world.play("recover", **account)

    assert [cause["name"] for cause in result(run)["causes"]] == ["version_unusable"]
    assert steps(predicted) == steps(run) == ["version"]
    assert wrote(run) == [f"PATCH key {vault} {KEY}"]
    assert (world.uses(name), world.enabled(vault)) == (key, [True])
    world.assert_available(name)
    assert_unchanged(world, "recover", **account)


def test_revert(world: World) -> None:
    account = world.on_key()
    name, vault = account["cmk_account_name"], account["cmk_vault_name"]
    first = world.uses(name)

    predicted = world.play("revert", check=True, **account)
    assert (wrote(predicted), world.uses(name)) == ([], first)
    run = world.play("revert", **account)

    assert steps(predicted) == steps(run) == ["encryption"]
    assert wrote(run) == [f"PATCH account {name}"]
    assert (world.uses(name), world.enabled(vault)) == (None, [True])
    world.assert_available(name)
    assert_unchanged(world, "revert", **account)


def test_audit(world: World) -> None:
    account = world.on_key()
    name = account["cmk_account_name"]
    accounts = partial(world.lab.azure.arm, "GET", world.lab.accounts_path, BATCH)
    # An audit lists the accounts, and a list may show a new account late.
    world.lab.until(lambda: name in str(accounts().required()), f"A list shows {name}")
    wanted = {
        "cmk_audit_resource_group": account["cmk_resource_group"],
        "cmk_audit_account_name": name,
        "cmk_audit_pools": True,
        "cmk_audit_allowed_vaults": [account["cmk_vault_name"]],
        "cmk_audit_formats": ["json"],
        "cmk_audit_folder": str(world.lab.folder),
    }
    run = world.play("audit", **wanted)

    assert wrote(run) == []
    report = json.loads((world.lab.folder / "cmk-audit.json").read_text())
    [found] = report["accounts"]
    assert (found["name"], found["state"], found["findings"]) == (name, "ok", [])
    assert found["key_identifier"] == world.uses(name)
