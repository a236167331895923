# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rights that docs/credentials.md lists for each playbook are enough. Without one that a write needs, the run fails
with its name before the first write."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cases import DISABLE, a_lost_version, another_vault
from harness import writes
from one_process import OneProcess
from role_runs import QUARTER, VARS
from service import Service

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "credentials.md").read_text()
PROOF_OF_ALL = os.environ.get("PROOF") == "all"
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
GRANTS = (*MOVES, "Microsoft.Authorization/roleAssignments/write")
LISTS = ("Microsoft.Authorization/permissions/read", "Microsoft.Batch/batchAccounts/read")


@dataclass(frozen=True)
class Playbook:
    role: str
    begin: Callable[[Service], dict[str, Any]]
    # On the resource group.
    actions: tuple[str, ...]
    data_actions: tuple[str, ...]
    # On the subscription.
    above: tuple[str, ...] = ()
    wish: dict[str, Any] = field(default_factory=dict)


def an_old_version_by_role(service: Service) -> dict[str, Any]:
    service.on_key(rbac=True)
    service.sandbox.control.advance(QUARTER)
    return {"cmk_key_max_age": "P90D"}


def nothing_with_roles(_service: Service) -> dict[str, Any]:
    return {"cmk_vault_authorization": "rbac"}


def old_and_disabled(service: Service) -> dict[str, Any]:
    return {**an_old_version_by_role(service), **DISABLE}


def kept(service: Service) -> dict[str, Any]:
    service.on_key(rbac=True)
    return {}


def left(service: Service) -> dict[str, Any]:
    service.on_key(rbac=True)
    return {"cmk_revert_key": "disable", "cmk_revert_access": "withdraw"}


def left_for_deletion(service: Service) -> dict[str, Any]:
    service.on_key(rbac=True)
    return {"cmk_revert_key": "delete"}


def another_key(service: Service) -> dict[str, Any]:
    wish = another_vault(service)
    return {name: value for name, value in wish.items() if name not in DISABLE}


READ_KEY = f"{KEYS}/read"
PLAYBOOKS = {
    "rotate": Playbook("rotate", an_old_version_by_role, MOVES, (READ_KEY, f"{KEYS}/create/action")),
    "rotate, `cmk_previous_version: disable`": Playbook(
        "rotate", old_and_disabled, MOVES, (READ_KEY, f"{KEYS}/create/action", f"{KEYS}/update/action"), LISTS
    ),
    "rotate, `cmk_new_key_identifier`": Playbook("rotate", another_key, GRANTS, (READ_KEY,)),
    "revert": Playbook("revert", kept, MOVES, ()),
    "revert, `cmk_revert_key: disable`, `cmk_revert_access: withdraw`": Playbook(
        "revert",
        left,
        (*MOVES, "Microsoft.Authorization/roleAssignments/delete"),
        (READ_KEY, f"{KEYS}/update/action"),
        LISTS,
    ),
    "revert, `cmk_revert_key: delete`": Playbook(
        "revert", left_for_deletion, MOVES, (READ_KEY, f"{KEYS}/delete"), LISTS
    ),
    "recover": Playbook(
        "recover",
        a_lost_version,
        (*SEES, "Microsoft.Authorization/roleAssignments/write"),
        (READ_KEY, f"{KEYS}/update/action"),
    ),
    "provision": Playbook(
        "provision",
        nothing_with_roles,
        (*GRANTS, "Microsoft.Batch/batchAccounts/operationResults/read", "Microsoft.KeyVault/vaults/write"),
        (READ_KEY, f"{KEYS}/create/action"),
    ),
}


def give(service: Service, scope: str, actions: Iterable[str], data_actions: Iterable[str] = ()) -> dict[str, str]:
    """A custom role with these, for use at the scope."""
    sandbox, guid = service.sandbox, str(uuid.uuid4())
    permission = {"actions": list(actions), "dataActions": list(data_actions)}
    properties = {"roleName": f"Role {guid}", "assignableScopes": [sandbox.subscription], "permissions": [permission]}
    path = f"{sandbox.subscription}/providers/Microsoft.Authorization/roleDefinitions/{guid}"
    assert sandbox.arm("PUT", path, "2022-04-01", {"properties": properties}).ok
    return {"role": guid, "scope": scope}


def run(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, playbook: Playbook, without: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """What a caller with the rights of the playbook but one gets, and what was written."""
    wish = {**playbook.begin(service), "cmk_wait_timeout": 30}
    sandbox = service.sandbox
    actions = [one for one in playbook.actions if one != without]
    roles = [give(service, sandbox.group, actions, [one for one in playbook.data_actions if one != without])]
    if playbook.above:
        roles.append(give(service, sandbox.subscription, [one for one in playbook.above if f"above {one}" != without]))
    who = sandbox.control.principal("documented", roles=roles, secret_lifetime=1e9)
    monkeypatch.setenv("AZURE_CLIENT_ID", who["client_id"])
    for name in ("AZURE_SECRET", "AZURE_CLIENT_SECRET"):
        monkeypatch.setenv(name, who["secret"])
    since = sandbox.control.last
    report = runner.another().role(playbook.role, {**VARS, **wish})
    return report, [f"{one['method']} {one['url']}" for one in writes(sandbox.control.requests(since))]


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_the_documented_rights_are_enough(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    report, written = run(runner, service, monkeypatch, PLAYBOOKS[name])

    assert not report.get("failed"), report
    assert report["changed"] is True
    assert written
    assert service.answers()


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_readers_are_told_what_a_run_would_do(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Check mode, and what the caller would lack."""
    playbook, sandbox = PLAYBOOKS[name], service.sandbox
    wish = playbook.begin(service)
    readers = [{"role": role, "scope": sandbox.subscription} for role in ("Reader", "Key Vault Reader")]
    who = sandbox.control.principal("reader", roles=readers, secret_lifetime=1e9)
    monkeypatch.setenv("AZURE_CLIENT_ID", who["client_id"])
    for variable in ("AZURE_SECRET", "AZURE_CLIENT_SECRET"):
        monkeypatch.setenv(variable, who["secret"])
    since = sandbox.control.last

    report = runner.another().role(playbook.role, {**VARS, **wish}, check=True)

    assert not report.get("failed"), report
    assert report["changed"] is True
    assert writes(sandbox.control.requests(since)) == []


EACH = [
    (name, action)
    for name, playbook in PLAYBOOKS.items()
    for action in (*playbook.actions, *playbook.data_actions, *(f"above {one}" for one in playbook.above))
]
WRITES = re.compile(r"/(write|delete|action)$")


@pytest.mark.parametrize(("name", "action"), EACH if PROOF_OF_ALL else [one for one in EACH if WRITES.search(one[1])])
def test_without_one_of_them(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, name: str, action: str
) -> None:
    report, written = run(runner, service, monkeypatch, PLAYBOOKS[name], without=action)

    lost_before = PLAYBOOKS[name].role == "recover"
    if WRITES.search(action):
        assert report.get("code") == "permission_denied", report
        assert report["action"] == action
        # Each task of recover asks before its own first write.
        assert written == [] or lost_before
    elif report.get("failed") and not lost_before:
        assert report["code"] in ("permission_denied", "users_unknown"), report
        assert written == []
        assert action.removeprefix("above ") in report["msg"] or "resourceGroups/read" in action
    if not lost_before:
        assert all(service.answers(account) for account in service.accounts())


def test_the_table_tells_all_of_them() -> None:
    for name, playbook in PLAYBOOKS.items():
        [row] = [line for line in DOCS.splitlines() if line.startswith(f"| {name} |")]
        for action in (*playbook.actions, *playbook.data_actions):
            assert f"`{action}`" in row or (action in SEES and "all of *reads*" in row), action
        assert ("subscription" in row) == bool(playbook.above)
    for action in SEES:
        assert f"`{action}`" in DOCS
