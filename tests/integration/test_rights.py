# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role definitions in examples/roles, and the built-in roles and key permissions that docs/credentials.md lists for
each playbook, are sufficient. If the caller lacks permissions that the writes of a task need, the task fails before its
first write request, with an error that names all of them. Check mode names the missing permissions of all tasks in one
run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from callers import give, sign_in
from cases import AT_ONCE, DISABLE
from harness import writes
from one_process import OneProcess
from role_runs import QUARTER, VARS
from service import OFFICER, Service

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.usage import not_listed
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "credentials.md").read_text(encoding="utf-8")
DEFINITIONS = {
    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in (ROOT / "examples" / "roles").glob("*.json")
}
KEYS = "Microsoft.KeyVault/vaults/keys"
SEES = (
    "Microsoft.Authorization/permissions/read",
    "Microsoft.Authorization/roleAssignments/read",
    "Microsoft.Authorization/roleDefinitions/read",
    "Microsoft.Batch/batchAccounts/pools/read",
    "Microsoft.Batch/batchAccounts/read",
    "Microsoft.KeyVault/vaults/read",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
)
MOVES = (*SEES, "Microsoft.Batch/batchAccounts/write")
ASSIGNS = "Microsoft.Authorization/roleAssignments/write"
ALLOWS = "Microsoft.KeyVault/vaults/accessPolicies/write"
MAKES_VAULT = "Microsoft.KeyVault/vaults/write"
MAKES_ACCOUNT = (*MOVES, "Microsoft.Batch/batchAccounts/operationResults/read")
OWN_IDENTITY = (
    "Microsoft.ManagedIdentity/userAssignedIdentities/read",
    "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
)
USERS = (
    "Microsoft.Authorization/permissions/read",
    "Microsoft.Batch/batchAccounts/read",
    "Microsoft.Batch/batchAccounts/pools/read",
    # For the resources of other services.
    "*/read",
)
DELETED = "Microsoft.KeyVault/deletedVaults/read"
POLICIES = "Microsoft.KeyVault/vaults/keyrotationpolicies"
READ_KEY = f"{KEYS}/read"


@dataclass(frozen=True)
class Playbook:
    role: str
    begin: Callable[[Service], dict[str, Any]]
    # Actions on the resource group.
    actions: tuple[str, ...]
    data_actions: tuple[str, ...] = ()
    # Actions on the subscription.
    above: tuple[str, ...] = ()
    # Key permissions of the caller's access policy.
    permissions: tuple[str, ...] = ()
    # A change that is made after the caller has these permissions.
    then: Callable[[Service], None] = lambda _service: None

    def uses_rbac(self) -> bool:
        return not self.permissions and ALLOWS not in self.actions

    def rights(self) -> list[str]:
        return [
            *(*self.actions, *self.data_actions),
            *(f"above {one}" for one in self.above),
            *(f"the key permission {one}" for one in self.permissions),
        ]


def an_identity(service: Service) -> dict[str, Any]:
    service.make_identity()
    return {"cmk_vault_authorization": "rbac", "cmk_identity_id": service.identity_id()}


def an_old_version(service: Service) -> dict[str, Any]:
    service.on_key(rbac=True)
    service.sandbox.control.advance(QUARTER)
    return {"cmk_key_max_version_age": "P90D"}


def an_unused_version(service: Service, *, rbac: bool = True) -> dict[str, Any]:
    """The account uses the second version. Nothing uses the first version any more. The run disables both."""
    service.on_key(rbac=rbac)
    service.point(service.make_key().id)
    service.sandbox.control.advance(QUARTER)
    return {"cmk_key_max_version_age": "P90D", **DISABLE}


def an_unused_version_by_policy(service: Service) -> dict[str, Any]:
    return an_unused_version(service, rbac=False)


def another_vault(service: Service) -> dict[str, Any]:
    _, first = service.on_key(rbac=True)
    service.make_vault("vault-two", rbac=True)
    other = service.make_key("other", "vault-two").id
    return {
        "cmk_new_key_identifier": other,
        "cmk_previous_key": first.rpartition("/")[0],
        "cmk_unused_key": "disable",
        **AT_ONCE,
    }


def a_lost_version(service: Service) -> dict[str, Any]:
    principal, _ = service.on_key(rbac=True)
    service.disable()
    service.revoke(principal)
    return {}


def a_policy(_service: Service) -> dict[str, Any]:
    policy = {"time_after_create": "P90D", "expiry_time": "P1Y"}
    return {"cmk_vault_authorization": "rbac", "cmk_key_rotation_policy": policy}


def a_vault(service: Service) -> dict[str, Any]:
    service.make_vault()
    return {}


def kept(service: Service) -> dict[str, Any]:
    service.on_key(rbac=True)
    return {}


def left(service: Service, *, rbac: bool = True) -> dict[str, Any]:
    service.on_key(rbac=rbac)
    return {"cmk_unused_key": "disable", "cmk_unused_access": "revoke", **AT_ONCE}


def left_by_policy(service: Service) -> dict[str, Any]:
    return left(service, rbac=False)


def left_for_deletion(service: Service) -> dict[str, Any]:
    service.on_key(rbac=True)
    return {"cmk_unused_key": "delete", **AT_ONCE}


def another_key(service: Service) -> dict[str, Any]:
    return {"cmk_new_key_identifier": another_vault(service)["cmk_new_key_identifier"]}


def a_deleted_key(service: Service, *, rbac: bool = True) -> dict[str, Any]:
    service.on_key(rbac=rbac)
    service.keys().begin_delete_key("key1").wait()
    return {}


def a_deleted_key_by_policy(service: Service) -> dict[str, Any]:
    return a_deleted_key(service, rbac=False)


READS = re.compile(r"/read$|permission (get|list)$")
PLAYBOOKS = {
    "provision, `cmk_identity_id`": Playbook(
        "provision",
        an_identity,
        (*MAKES_ACCOUNT, ASSIGNS, MAKES_VAULT, *OWN_IDENTITY),
        (READ_KEY, f"{KEYS}/create/action"),
    ),
    "provision, `cmk_key_rotation_policy`": Playbook(
        "provision",
        a_policy,
        (*MAKES_ACCOUNT, ASSIGNS, MAKES_VAULT),
        (READ_KEY, f"{KEYS}/create/action", f"{POLICIES}/read", f"{POLICIES}/write"),
    ),
    "provision, a vault with access policies": Playbook(
        "provision", a_vault, (*MAKES_ACCOUNT, ALLOWS), permissions=("get", "list", "create")
    ),
    "rotate": Playbook("rotate", an_old_version, MOVES, (READ_KEY, f"{KEYS}/create/action")),
    "rotate, `cmk_unused_versions: disable`": Playbook(
        "rotate", an_unused_version, MOVES, (READ_KEY, f"{KEYS}/create/action", f"{KEYS}/update/action"), USERS
    ),
    "rotate, a vault with access policies, `cmk_unused_versions: disable`": Playbook(
        "rotate", an_unused_version_by_policy, MOVES, (), USERS, ("get", "list", "create", "update")
    ),
    "switch": Playbook("switch", another_key, (*MOVES, ASSIGNS), (READ_KEY,)),
    "switch, `cmk_unused_key: disable`": Playbook(
        "switch", another_vault, (*MOVES, ASSIGNS), (READ_KEY, f"{KEYS}/update/action"), USERS
    ),
    "revert": Playbook("revert", kept, MOVES),
    "revert, `cmk_unused_key: disable`, `cmk_unused_access: revoke`": Playbook(
        "revert",
        left,
        (*MOVES, "Microsoft.Authorization/roleAssignments/delete", ASSIGNS),
        (READ_KEY, f"{KEYS}/update/action"),
        USERS,
    ),
    "revert, a vault with access policies, `cmk_unused_key: disable`, `cmk_unused_access: revoke`": Playbook(
        "revert", left_by_policy, (*MOVES, ALLOWS), (), USERS, ("get", "list", "update")
    ),
    "revert, `cmk_unused_key: delete`": Playbook(
        "revert", left_for_deletion, MOVES, (READ_KEY, f"{KEYS}/delete", f"{KEYS}/recover/action"), USERS
    ),
    "recover": Playbook("recover", a_lost_version, (*SEES, ASSIGNS), (READ_KEY, f"{KEYS}/update/action")),
    "recover, a deleted key": Playbook(
        "recover", a_deleted_key, SEES, (READ_KEY, f"{KEYS}/recover/action", f"{KEYS}/update/action")
    ),
    "recover, a deleted key in a vault with access policies": Playbook(
        "recover", a_deleted_key_by_policy, SEES, permissions=("get", "list", "recover", "update")
    ),
    "recover, a deleted vault": Playbook(
        "recover", kept, (*SEES, MAKES_VAULT, ASSIGNS), (READ_KEY,), (DELETED,), then=Service.delete_vault
    ),
}

# The role -> the last of its playbooks for vaults with Azure RBAC.
LAST = {one.role: name for name, one in PLAYBOOKS.items() if one.uses_rbac()}


def begun(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    playbook: Playbook,
    roles: list[dict[str, str]],
    permissions: Iterable[str],
) -> dict[str, Any]:
    """Create the resources that the playbook begins with, and sign in as a caller with these roles and key permissions.
    Returns the variables of the run."""
    wanted = {**playbook.begin(service), "cmk_wait_timeout": 30}
    who = sign_in(service, monkeypatch, roles)
    if playbook.permissions:
        service.set_policy("add", service.policy(who, *permissions))
        service.set_policy("remove", service.policy(service.operator, *OFFICER))
    playbook.then(service)
    return {**VARS, **wanted}


def run(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, playbook: Playbook, without: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """Run the playbook as a caller that lacks the permission `without`. Returns the report and the write requests of
    its last task."""
    sandbox = service.sandbox
    actions = [one for one in playbook.actions if one != without]
    roles = [give(service, sandbox.group, actions, [one for one in playbook.data_actions if one != without])]
    if playbook.above:
        roles.append(give(service, sandbox.subscription, [one for one in playbook.above if f"above {one}" != without]))
    permissions = [one for one in playbook.permissions if f"the key permission {one}" != without]
    wanted = begun(service, monkeypatch, playbook, roles, permissions)
    answered = answering(service)
    since = sandbox.control.last
    # The last request before each task.
    begins = [since]
    report = runner.another().role(
        playbook.role, wanted, record=lambda _task, _result: begins.append(sandbox.control.last)
    )
    assert answered <= answering(service)
    return report, [f"{one['method']} {one['url']}" for one in writes(sandbox.control.requests(begins[-2]))]


def answering(service: Service) -> set[str]:
    return {account for account in service.accounts() if service.is_available(account)}


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_the_documented_rights_are_enough(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    report, _ = run(runner, service, monkeypatch, PLAYBOOKS[name])

    assert not report.get("failed"), report
    assert report["changed"] is True
    assert service.is_available()


def built_in_roles(playbook: str) -> list[str]:
    """The built-in roles on the resource group that the documentation names for the playbook."""
    (row,) = re.findall(rf"^\| `{playbook}` \| (.+?) \| Reader \|$", DOCS, re.MULTILINE)
    return [re.sub(r" \(.*\)", "", role) for role in row.split(", ")]


@pytest.mark.parametrize("name", LAST.values())
def test_the_documented_built_in_roles_are_enough(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    playbook, sandbox = PLAYBOOKS[name], service.sandbox
    roles = [{"role": role, "scope": sandbox.group} for role in built_in_roles(playbook.role)]
    wanted = begun(service, monkeypatch, playbook, [*roles, {"role": "Reader", "scope": sandbox.subscription}], ())

    report = runner.another().role(playbook.role, wanted)

    assert not report.get("failed"), report
    assert report["changed"] is True
    assert service.is_available()


# Each permission to write -> a playbook that needs it.
WRITES = {right: name for name, playbook in PLAYBOOKS.items() for right in playbook.rights() if not READS.search(right)}


@pytest.mark.parametrize(("right", "name"), WRITES.items())
def test_without_a_right_to_write(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, name: str, right: str
) -> None:
    report, written = run(runner, service, monkeypatch, PLAYBOOKS[name], without=right)

    assert report.get("code") == "permission_denied", report
    assert report["action"] == right
    assert right in report["msg"]
    assert written == []


# Read-only tasks

SUBSCRIPTIONS = "Microsoft.Resources/subscriptions/read"
LISTS = DEFINITIONS["inventory"]["Actions"]


@pytest.mark.parametrize("lost", [False, True], ids=["there", "vault deleted"])
def test_the_role_definition_of_an_audit_is_enough(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    service.on_key(rbac=True)
    if lost:
        service.delete_vault()
    rights = DEFINITIONS["audit"]["Actions"], DEFINITIONS["audit"]["DataActions"]
    sign_in(service, monkeypatch, [give(service, service.sandbox.subscription, *rights)])

    found = runner.module("batch_encryption_audit", {"pools": True, "return_accounts": True})

    [account] = found["accounts"]
    assert (account["unknown"], found["unlisted"]) == ({}, [])
    assert account["state"] == ("at_risk" if lost else "ok")


@pytest.mark.parametrize("right", ["", *(one for one in LISTS if one != SUBSCRIPTIONS)])
def test_an_inventory_reports_failed_lists(
    sandbox: Any, runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, right: str
) -> None:
    service.make_account()
    actions = [one for one in LISTS if one != right]
    sign_in(service, monkeypatch, [give(service, sandbox.subscription, actions)])
    connection = ArgumentSpecValidator(CONNECTION).validate({}).validated_parameters

    seen = Cloud(connection, str(runner.tokens)).listed([])

    messages = [not_listed(one) for one in seen["unlisted"]]
    assert all(right in one for one in messages), messages
    assert len(messages) == bool(right)
    if right != "Microsoft.Batch/batchAccounts/read":
        assert [one["name"] for one in seen["accounts"]] == ["account1"]


# Permissions without which a playbook does not fail, and those of options that have no playbook here.
MORE = {
    "provision": {f"{KEYS}/update/action"},
    "rotate": {f"{POLICIES}/read", f"{POLICIES}/write"},
    "subscription": {
        "Microsoft.Batch/locations/checkNameAvailability/action",
        "Microsoft.KeyVault/checkNameAvailability/read",
        "Microsoft.Resources/providers/read",
    },
}


def defined(name: str) -> set[str]:
    return {*DEFINITIONS[name]["Actions"], *DEFINITIONS[name]["DataActions"]}


def test_every_role_definition_can_be_created(service: Service) -> None:
    # The rights for the drill are tested with the drill.
    assert {"audit", "drill", "inventory", "subscription", *(one.role for one in PLAYBOOKS.values())} == set(
        DEFINITIONS
    )
    for name, definition in DEFINITIONS.items():
        give(service, service.sandbox.subscription, definition["Actions"], definition["DataActions"])
        assert definition["Name"] == f"azbatch.cmk {name}"
        assert definition["AssignableScopes"] == ["/subscriptions/11111111-2222-3333-4444-555555555555"]
        assert f"(../examples/roles/{name}.json)" in DOCS


@pytest.mark.parametrize("role", sorted({one.role for one in PLAYBOOKS.values()}))
def test_a_role_definition_has_the_permissions_of_all_options(role: str) -> None:
    """The page names each permission that only some options need."""
    own = [{*one.actions, *one.data_actions} for one in PLAYBOOKS.values() if one.role == role and one.uses_rbac()]

    assert defined(role) - set.union(*own) == MORE.get(role, set())
    assert set.union(*own) <= defined(role)
    assert [right for right in defined(role) - set.intersection(*own) if f"`{right}`" not in DOCS] == []


@pytest.mark.parametrize("name", [name for name, one in PLAYBOOKS.items() if not one.uses_rbac()])
def test_a_role_definition_can_be_changed_for_a_vault_with_access_policies(name: str) -> None:
    """As the page describes."""
    playbook = PLAYBOOKS[name]
    [permissions] = re.findall(rf"^\| {playbook.role} \| .+ \| (.+) \|$", DOCS, re.MULTILINE)

    assert set(playbook.actions) <= {*DEFINITIONS[playbook.role]["Actions"], ALLOWS}
    assert set(playbook.permissions) <= set(permissions.split(", "))


def test_the_role_definition_of_a_subscription_lists_the_users_of_a_key() -> None:
    needed = {right for one in PLAYBOOKS.values() for right in one.above}

    assert defined("subscription") == needed | MORE["subscription"]
