# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the collection's playbooks as a user does, and reads the resulting state of Azure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness import Run
from reports import DIAGNOSIS, STEPS, report
from service import DAY, Service

if TYPE_CHECKING:
    from one_process import RolesRunner

VARS = {
    "cmk_resource_group": "rg-sandbox",
    "cmk_account_name": "account1",
    "cmk_vault_name": "vault-one",
    "cmk_key_name": "key1",
    "cmk_wait_timeout": 30,
}
QUARTER = 91 * DAY
# Fields that differ in each run, that no test needs, or that are compared elsewhere.
_MOMENTS = re.compile(r"^(systemData|created|updated|etag|lastModified.*|createdOn|updatedOn|nodeManagementEndpoint)$")


def run_role(roles: RolesRunner, role: str, *, check: bool = False, diff: bool = False, **variables: Any) -> Run:
    """Run the playbook of the role, which may fail."""
    wanted = {**VARS, **variables}
    return roles.playbook(f"azbatch.cmk.{role}", extra_vars=wanted, check=check, diff=diff)


def play_role(roles: RolesRunner, role: str, **options: Any) -> Run:
    """Run the playbook of the role, which has to succeed."""
    run = run_role(roles, role, **options)
    assert run.rc == 0, run.output
    return run


def result(run: Run) -> dict[str, Any]:
    """The role's report. Its values of `changed` must agree with those of the role's tasks."""
    (found,) = results(run).values()
    assert found["changed"] == any(found["changed_steps"].values()) == bool(run.changed), (found, run.changed)
    return found


def results(run: Run) -> dict[str, dict[str, Any]]:
    """The role's report for each host."""
    return dict(reports(run))


def reports(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """The report of every role in the run, with the host."""
    tasks: dict[str, dict[str, Mapping[str, Any]]] = {}
    items: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in run.tasks:
        if not one.result.get("skipped"):
            task = tasks.setdefault(one.host, {})
            if one.item:
                # A play may run a role a second time. Only the items since the last result of the loop belong to it.
                items.setdefault((one.host, one.full_name), []).append(one.result)
            else:
                task[one.full_name] = {**one.result, "results": items.pop((one.host, one.full_name), [])}
    for host, results in tasks.items():
        for role, names in STEPS.items():
            mine = {name.partition(" : ")[2]: result for name, result in results.items() if f"{role} : " in name}
            # The role recover skips all other tasks if the account uses a Microsoft-managed key.
            if mine.keys() & {*names} or mine.get(DIAGNOSIS, {}).get("exists"):
                yield host, report(role, mine)


def second_account(service: Service, identifier: str) -> str:
    """Create account2, which uses a key of vault-one. Returns its resource ID."""
    account = service.make_account("account2")
    service.grant(account["identity"]["principalId"])
    service.point(identifier, "account2")
    return str(account["id"])


def steps(run: Run) -> list[str]:
    """The names of the steps that the role's report has as changed."""
    return [step for step, changed in result(run)["changed_steps"].items() if changed]


def wrote(run: Run) -> list[str]:
    """The write requests of the run, in order: the method and the resource."""
    return things(run.writes)


def warnings(run: Run) -> list[str]:
    return [warning for task in run.tasks for warning in task.warnings]


def things(requests: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"{one['method']} {_thing(one['url'])}" for one in requests]


def _thing(url: str) -> str:
    path = url.partition("?")[0]
    for pattern, name in (
        (r"/batchAccounts/(\w+)$", r"account \1"),
        (r"/vaults/([\w-]+)$", r"vault \1"),
        (r"/vaults/([\w-]+)/accessPolicies/(\w+)$", r"policies \1 \2"),
        (r"/vaults/([\w-]+)/providers/Microsoft.Authorization/roleAssignments/[\w-]+$", r"role \1"),
        (r"//([\w-]+)\.vault\.azure\.net/keys/([\w-]+)(?:/[0-9a-f]{32})?(?:/(?:create|rotate))?$", r"key \1 \2"),
    ):
        if found := re.search(pattern, path):
            return found.expand(name)
    return path


def unchanged(run: Run) -> Run:
    """Check that the run succeeded, reported no change and sent no write request."""
    assert run.rc == 0, run.output
    assert wrote(run) == []
    assert result(run)["changed"] is False
    return run


def refused(run: Run, task: str, *words: str) -> None:
    """Check that the run failed at that task, with these words in the message, and sent no write request."""
    assert run.rc != 0, run.output
    assert not wrote(run), (wrote(run), run.output)
    assert [one.name for one in run.failed] == [task], run.output
    message = str(run[task].get("msg"))
    assert all(word in message for word in words), message


def holdings(service: Service) -> dict[str, Any]:
    """The JSON of all accounts, vaults, keys and role assignments, without times and other fields of `_MOMENTS`."""
    vaults = [vault.name for vault in service.vaults.vaults.list_by_subscription()]
    return _steady(
        {
            "accounts": {name: service.account(name) for name in service.accounts()},
            "vaults": {name: service.vault(name) for name in vaults},
            "keys": {vault: _keys(service, vault) for vault in vaults},
            "roles": sorted(
                (one.principal_id, one.scope, one.role_definition_id)
                for one in service.authorization.role_assignments.list_for_subscription()
            ),
        }
    )


def _keys(service: Service, vault: str) -> dict[str, Any]:
    client = service.keys(vault)
    return {
        **{
            one.name: [
                {
                    "version": version.version,
                    "enabled": version.enabled,
                    "tags": version.tags and _steady(version.tags),
                    "lasts": version.expires_on and (version.expires_on - version.created_on).days,
                }
                for version in _in_order(service, one.name, vault)
            ]
            for one in client.list_properties_of_keys()
        },
        "deleted": sorted(one.name for one in client.list_deleted_keys()),
    }


def _in_order(service: Service, key: str, vault: str) -> list[Any]:
    """The key's versions, the newest last, even if several were created in the same second."""
    newest = service.key(key, vault=vault).properties.version
    return sorted(service.versions(key, vault), key=lambda one: (one.created_on, one.version == newest))


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _steady(one) for name, one in value.items() if not _MOMENTS.match(name)}
    if isinstance(value, list | tuple):
        return [_steady(one) for one in value]
    return value


def named(holdings: Any, names: Iterable[tuple[str, str]]) -> Any:
    """Replace IDs that Azure assigned by fixed names, so that the resources of two runs can be compared."""
    if isinstance(holdings, dict):
        return {name: named(one, names) for name, one in holdings.items()}
    if isinstance(holdings, list):
        return sorted((named(one, names) for one in holdings), key=str)
    if isinstance(holdings, str):
        for identifier, name in names:
            holdings = holdings.replace(identifier, name)
    return holdings


def end_state(service: Service) -> Any:
    """`holdings` with fixed names instead of the principals of identities and the IDs of key versions."""
    found = holdings(service)
    names = []
    for account, document in found["accounts"].items():
        identity = document.get("identity", {})
        names += [(one, f"<identity of {account}>") for one in (identity.get("principalId"),) if one]
        for user_assigned in identity.get("userAssignedIdentities", {}).values():
            names += [(user_assigned["principalId"], "<user-assigned>"), (user_assigned["clientId"], "<client>")]
    for vault, keys in found["keys"].items():
        for key, versions in keys.items():
            if key != "deleted":
                names += [(one["version"], f"<{vault} {key} {n}>") for n, one in enumerate(versions, 1)]
    return named(found, names)
