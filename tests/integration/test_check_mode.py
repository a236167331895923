# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode sends no write requests and predicts the changes of the run: the same tasks with the same diffs, except
values that only Azure can assign. A check after the run predicts no change. If the run fails, the check fails too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cases import DISABLE, PROOF_OF_ALL
from harness import Ansible, assert_predicted, change, task
from one_process import OneProcess
from predictions import Played, Result, assert_came_true, played, written
from role_runs import QUARTER, VARS, wrote
from service import DAY, GROUP, LOCATION, Service

KEY = "https://vault-one.vault.azure.net/keys/key1"
Variables = dict[str, Any]


@dataclass(frozen=True)
class World:
    """Creates the resources of a state, with one permission model for vaults and one kind of identity for accounts."""

    service: Service
    rbac: bool
    user_assigned: bool

    def vault(self, name: str = "vault-one") -> None:
        self.service.make_vault(name, rbac=self.rbac)

    def account(self) -> str:
        """Create account1. Returns the principal of its identity."""
        if not self.user_assigned:
            return str(self.service.make_account()["identity"]["principalId"])
        principal = self.identity()
        assigned = {"type": "UserAssigned", "userAssignedIdentities": {self.service.identity_id(): {}}}
        self.service.make_account(identity=assigned)
        return principal

    def principal(self) -> str:
        identity = self.service.account()["identity"]
        assigned = identity.get("userAssignedIdentities", {}).values()
        return str(identity.get("principalId") or next(iter(assigned))["principalId"])

    def identity(self) -> str:
        return str(self.service.make_identity()["properties"]["principalId"])

    def on_key(self, *, follow: bool = False, **settings: Any) -> str:
        """Create account1, which uses key1 of vault-one. Returns the identifier of the key's version."""
        self.vault()
        self.service.grant(self.account())
        identifier = str(self.service.make_key(**settings).id)
        self.service.point(identifier.rpartition("/")[0] if follow else identifier)
        return identifier


# States that a run begins with. Each function returns the variables that the state needs.


def nothing(world: World) -> Variables:
    if world.user_assigned:
        world.identity()
    return {}


def a_vault(world: World) -> Variables:
    world.vault()
    return nothing(world)


def a_key(world: World) -> Variables:
    world.vault()
    world.service.make_key()
    return nothing(world)


def a_disabled_key(world: World) -> Variables:
    a_key(world)
    world.service.disable()
    return {}


def a_deleted_key(world: World) -> Variables:
    a_key(world)
    world.service.keys().begin_delete_key("key1").wait()
    return {}


def a_deleted_vault(world: World) -> Variables:
    a_key(world)
    world.service.delete_vault()
    return {}


def an_account_without_identity(world: World) -> Variables:
    a_vault(world)
    world.service.make_account(identity={"type": "None"})
    return {}


def an_account_to_adopt(world: World) -> Variables:
    an_account_without_identity(world)
    return {"cmk_allowed_repairs": ["identity"]}


def an_account(world: World) -> Variables:
    world.account()
    return {}


def half_done(world: World) -> Variables:
    """A run was killed before the key was created."""
    world.vault()
    world.service.grant(world.account())
    return {}


def nearly_done(world: World) -> Variables:
    """A run was killed before the account was moved to the key."""
    half_done(world)
    world.service.make_key()
    return {}


def done(world: World) -> Variables:
    return {"cmk_previous_key": world.on_key(), "cmk_unused_key": "disable"}


def following(world: World) -> Variables:
    world.on_key(follow=True)
    return {}


def an_older_version(world: World) -> Variables:
    """A rotation was killed before the account was moved to the new version."""
    world.on_key()
    world.service.make_key()
    return {}


def due(world: World) -> Variables:
    world.on_key()
    world.service.sandbox.control.advance(QUARTER)
    return {}


def expired(world: World) -> Variables:
    now = world.service.sandbox.control.call("GET", "/clock")["time"]
    world.on_key(expires_on=datetime.fromtimestamp(now + DAY, UTC))
    world.service.sandbox.control.advance(2 * DAY)
    return {}


def on_a_disabled_key(world: World) -> Variables:
    world.on_key()
    world.service.disable()
    return {}


def on_a_deleted_key(world: World) -> Variables:
    world.on_key()
    world.service.keys().begin_delete_key("key1").wait()
    return {}


def on_a_key_of_a_deleted_vault(world: World) -> Variables:
    world.on_key()
    world.service.delete_vault()
    return {}


def without_access(world: World) -> Variables:
    world.on_key()
    world.service.revoke(world.principal())
    return {}


def on_another_key(world: World) -> Variables:
    world.on_key()
    world.service.make_key("key2")
    world.service.point(str(world.service.key("key2").id))
    return {}


def shared(world: World) -> Variables:
    """Another account uses the same version."""
    identifier = world.on_key()
    principal = str(world.service.make_account("account2")["identity"]["principalId"])
    world.service.grant(principal)
    world.service.point(identifier, "account2")
    return {}


STATES: dict[str, Callable[[World], Variables]] = {
    one.__name__: one
    for one in (
        *(nothing, a_vault, a_key, a_disabled_key, a_deleted_key, a_deleted_vault, an_account_without_identity),
        *(an_account_to_adopt, an_account, half_done, nearly_done, done, following, an_older_version, due, expired),
        *(on_a_disabled_key, on_a_deleted_key, on_a_key_of_a_deleted_vault, without_access, on_another_key, shared),
    )
}


def to_another_key(world: World) -> Variables:
    world.vault("vault-two")
    return {"cmk_new_key_identifier": str(world.service.make_key("other", "vault-two").id)}


@dataclass(frozen=True)
class Operation:
    role: str
    variables: Mapping[str, Any]
    # Creates further resources for the operation, and returns their variables.
    begin: Callable[[World], Variables] = lambda _world: {}


OPERATIONS = {
    "provision": Operation("provision", {}),
    "provision, following": Operation("provision", {"cmk_key_version_mode": "follow", "cmk_key_expires_in": "P1Y"}),
    "rotate": Operation("rotate", {}),
    "rotate by age": Operation("rotate", {"cmk_key_max_version_age": "P90D", "cmk_key_expires_in": "P1Y"}),
    "rotate, forced": Operation("rotate", {"cmk_key_new_version": True}),
    "rotate, forced, disabling": Operation("rotate", {"cmk_key_new_version": True, **DISABLE}),
    "rotate by age, disabling": Operation("rotate", {"cmk_key_max_version_age": "P90D", **DISABLE}),
    "rotate to another key": Operation("rotate", {}, to_another_key),
    "rotate to another key, disabling": Operation("rotate", DISABLE, to_another_key),
    "revert": Operation("revert", {}),
    "revert, disabling": Operation("revert", {"cmk_unused_key": "disable"}),
    "revert, deleting": Operation("revert", {"cmk_unused_key": "delete"}),
    "revert, revoking": Operation("revert", {"cmk_unused_access": "revoke"}),
    "revert, disabling, revoking": Operation("revert", {"cmk_unused_key": "disable", "cmk_unused_access": "revoke"}),
    "recover": Operation("recover", {}),
}
MODES = list(itertools.product((False, True), (False, True)))
ALL = [(state, operation, mode) for state in STATES for operation in OPERATIONS for mode in MODES]


def slice_of_all() -> list[tuple[str, str, tuple[bool, bool]]]:
    """Some of all cases: each state with two operations, each operation several times, and each mode equally often."""
    names, found = list(OPERATIONS), []
    for number, state in enumerate(STATES):
        # If no account uses a key, rotate and revert have little to change.
        operation = "provision" if number < list(STATES).index("done") else names[(number * 2) % len(names)]
        other = names[(number * 4 + 3) % len(names)]
        found += [(state, operation, MODES[number % 4]), (state, other, MODES[(number + 1) % 4])]
    return found


def named(case: tuple[str, str, tuple[bool, bool]]) -> str:
    state, operation, (rbac, user_assigned) = case
    return f"{state}-{operation}-{'roles' if rbac else 'policies'}-{'user' if user_assigned else 'system'}"


def role_played(runner: OneProcess, role: str, variables: Variables, *, check: bool) -> Played:
    """Play the role by another controller, because a check and the run after it are separate runs."""
    return played(lambda record: runner.another().role(role, variables, check=check, record=record))


@pytest.mark.parametrize("case", ALL if PROOF_OF_ALL else slice_of_all(), ids=named)
@pytest.mark.slow(every=2)
def test_check_mode_predicts_the_run(
    runner: OneProcess, service: Service, case: tuple[str, str, tuple[bool, bool]]
) -> None:
    state, of, (rbac, user_assigned) = case
    operation, world = OPERATIONS[of], World(service, rbac, user_assigned)
    identity = {"cmk_identity_id": service.identity_id()} if user_assigned else {}
    authorization = "rbac" if rbac else "access_policy"
    variables = {
        **VARS,
        **identity,
        **STATES[state](world),
        **operation.variables,
        **operation.begin(world),
        "cmk_vault_authorization": authorization,
    }
    # After an hour, Batch's responses show whether an account has lost its key.
    service.sandbox.control.advance(3600)
    since = service.sandbox.control.last

    check = role_played(runner, operation.role, variables, check=True)

    assert written(service, since) == []
    run = role_played(runner, operation.role, variables, check=False)
    if "deleted_vault" in state and operation.role == "recover":
        # Azure shows neither the keys nor the permission model of a deleted vault.
        assert check.failure == run.failure
        assert run.failure or vault_and_answer(check) == vault_and_answer(run)
    else:
        assert_came_true(check, run)
    if run.failure:
        return

    service.sandbox.control.advance(3600)
    since = service.sandbox.control.last
    # Without the forced version, because each run with that variable creates a version.
    again = {name: value for name, value in variables.items() if name != "cmk_key_new_version"}
    if operation.role == "rotate" and operation.variables.items() >= DISABLE.items():
        # The next run disables the version that this run has replaced.
        role_played(runner, operation.role, again, check=False)
        since = service.sandbox.control.last
    after = role_played(runner, operation.role, again, check=True).report
    assert written(service, since) == []
    assert after.get("changed") is False, after


def vault_and_answer(play: Played) -> list[bool]:
    """Whether the role recover recovered the vault, and whether it waited for the account to become available."""
    return [play.report["changed_steps"][step] for step in ("vault", "answer")]


def test_a_module_in_a_separate_process_predicts_from_its_own_changes(runner: OneProcess, service: Service) -> None:
    check = role_played(replace(runner, as_module=True), "provision", {**VARS}, check=True)

    assert [name for name, one in check.tasks.items() if one.get("changed")] == ["Ensure the vault 0"]
    assert check.failure == ("Ensure the key 0", "vault_unreachable")
    assert written(service, 0) == []


def test_check_mode_predicts_a_recovered_account_as_available(runner: OneProcess, service: Service) -> None:
    """Azure does not show how long Batch needs to use the repaired key, so the check predicts no wait."""
    on_a_disabled_key(World(service, rbac=False, user_assigned=False))
    service.sandbox.control.advance(3600)
    service.sandbox.control.timing(batch_recovery=600)
    variables = {**VARS, "cmk_wait_timeout": 900}

    check = role_played(runner, "recover", variables, check=True)
    run = role_played(runner, "recover", variables, check=False)

    assert check.report["changed_steps"] == {**run.report["changed_steps"], "answer": False}
    assert run.report["changed_steps"]["answer"]
    assert_came_true(check, run)


def test_later_hosts_of_the_run_read_the_planned_changes(runner: OneProcess, service: Service) -> None:
    """The planned changes are shared until a task that is not in check mode changes something."""

    def predicted(account: str) -> list[str]:
        report = runner.role("provision", {**VARS, "cmk_account_name": account}, check=True)
        return [name for name, changed in report["changed_steps"].items() if changed]

    assert predicted("account1") == ["vault", "key", "access", "account", "encryption"]
    assert predicted("account1") == []
    assert predicted("account2") == ["access", "account", "encryption"]
    assert written(service, 0) == []

    vault = {"resource_group": GROUP, "name": "vault-three", "location": LOCATION}
    assert runner.module("keyvault_cmk_vault", vault)["changed"]

    assert predicted("account2") == ["vault", "key", "access", "account", "encryption"]


def test_hosts_share_a_forced_version_in_check_mode(runner: OneProcess, service: Service) -> None:
    """The run after the check does not use the planned version, but creates a version."""
    shared(World(service, rbac=False, user_assigned=False))
    service.sandbox.control.advance(3600)

    def forced(account: str, *, check: bool) -> list[str]:
        wanted = {**VARS, "cmk_account_name": account, "cmk_key_new_version": True}
        report = runner.role("rotate", wanted, check=check)
        return [name for name, changed in report["changed_steps"].items() if changed]

    for check in (True, False):
        assert forced("account1", check=check) == ["key", "encryption"]
        assert forced("account2", check=check) == ["encryption"]
        assert len(service.versions()) == (1 if check else 2)


@pytest.mark.parametrize("rbac", [False, True])
def test_registered_results_can_be_passed_on(runner: OneProcess, service: Service, rbac: bool) -> None:
    """Modules create all resources for two accounts, with arguments from the results of previous modules."""
    authorization = "rbac" if rbac else "access_policy"

    def made(*, check: bool) -> list[Result]:
        def run(module: str, **arguments: Any) -> Result:
            result = runner.module(module, {"wait_timeout": 900, **arguments}, check=check)
            assert not result.get("failed"), result
            return result

        vault = run("keyvault_cmk_vault", resource_group=GROUP, name="vault-one", authorization=authorization)
        key = run("keyvault_cmk_key", vault_name="vault-one", name="key1")
        accounts = [run("batch_account_identity", resource_group=GROUP, name=name) for name in ("one1", "two2")]
        granted = [
            run("keyvault_cmk_access", vault_name="vault-one", principal_id=account["identity"]["principal_id"])
            for account in accounts
        ]
        moved = [
            run(
                "batch_encryption",
                resource_group=GROUP,
                account_name=account["name"],
                key_source="microsoft_keyvault",
                key_identifier=key["key_identifier"],
            )
            for account in accounts
        ]
        disabled = run(
            "keyvault_cmk_key_state", vault_name="vault-one", name="key1", state="enabled", version=key["version"]
        )
        return [vault, key, *accounts, *granted, *moved, disabled]

    predicted = made(check=True)
    assert written(service, 0) == []
    assert predicted[1]["version"] == "(known after apply: new version 1 of key1 in vault-one)"
    principals = [one["identity"]["principal_id"] for one in predicted[2:4]]
    assert principals == [f"(known after apply: principal 1 of {one['name']} in {GROUP})" for one in predicted[2:4]]
    came = made(check=False)

    assert [one["changed"] for one in predicted] == [one["changed"] for one in came] == [True] * 8 + [False]
    for one, other in zip(predicted, came, strict=True):
        assert_predicted(change(one), change(other), "change")


def test_the_identifier_of_a_predicted_key_as_a_variable_of_a_role(ansible: Ansible, service: Service) -> None:
    service.on_key()
    key = {**task("key", "keyvault_cmk_key", vault_name="vault-one", name="key2"), "register": "key"}
    account = {"cmk_resource_group": GROUP, "cmk_account_name": "account1"}
    to = {**account, "cmk_new_key_identifier": "{{ key.key_identifier }}"}
    switch = {"name": "switch", "ansible.builtin.include_role": {"name": "azbatch.cmk.switch"}, "vars": to}

    play = {"hosts": "localhost", "gather_facts": False, "tasks": [key, switch]}

    predicted = ansible.playbook([play], check=True)

    assert predicted.rc == 0, predicted.output
    assert wrote(predicted) == []
    assert ansible.playbook([play]).rc == 0
    assert service.encryption() == service.key("key2").id
