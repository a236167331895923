# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of roles and modules in this process, for accounts that share keys, and checks of the state after the runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from azure.core.exceptions import AzureError
from one_process import ROLE_NAMES, OneProcess
from service import DAY, GROUP, LOCATION, OFFICER, Service

# The account with a user-assigned identity. Other accounts have a system-assigned identity.
USER_ASSIGNED = "account3"
# The vault that uses Azure RBAC. The other vault uses access policies.
RBAC_VAULT = "vault-two"
FIRST_KEY = ("vault-one", "key1")
VAULTS = ("vault-one", RBAC_VAULT)
ACCOUNTS = ["account1", "account2", USER_ASSIGNED]
WAIT = 900

OWNER = "owner"
_POOLS_READ = "Microsoft.Batch/batchAccounts/pools/read"
_KEY_OFFICER = "Key Vault Crypto Officer"
# Permissions of a run's principal: the scope, the roles at that scope, and the key permissions of its access policy.
CALLERS: dict[str, tuple[str, list[str], list[str]]] = {
    OWNER: ("subscription", ["Owner", _KEY_OFFICER], OFFICER),
    "resource group only": ("group", ["Owner", _KEY_OFFICER], OFFICER),
    "reader": ("subscription", ["Reader"], ["get", "list"]),
    "without pools": ("subscription", ["without pools", _KEY_OFFICER], OFFICER),
    "other": ("subscription", ["Owner", _KEY_OFFICER], OFFICER),
    "without lists": ("resources", ["Owner", _KEY_OFFICER], [one for one in OFFICER if one != "list"]),
}
Report = dict[str, Any]


def done(report: Report) -> Report:
    """The report of a run or a module that has to succeed."""
    assert not report.get("failed"), report
    return report


@dataclass(frozen=True)
class Run:
    """A role with values of its variables, or a module with options. If `key` is None, the run uses the account's
    current key."""

    what: str
    account: str
    key: tuple[str, str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    check: bool = False


class World:
    def __init__(self, service: Service, runner: OneProcess) -> None:
        self.service = service
        self._runner = runner
        self._own_user = service.make_identity()["properties"]["principalId"]
        service.make_identity("identity2")
        for vault in VAULTS:
            service.make_vault(vault, rbac=vault == RBAC_VAULT)
        self._connections: dict[str, Mapping[str, str]] = {OWNER: {}}

    def prepared(self, run: Run, *, beside: bool = False) -> Callable[[], Report]:
        """A function that runs the role or module with arguments from the current state of the accounts, and returns
        its report.

        `beside`: the run is from another controller, which shares no files with the previous runs.
        """
        runner = self._runner.another() if beside else self._runner
        vault, key = run.key or self.key_of(run.account) or FIRST_KEY
        settings = dict(run.settings)
        if run.what not in ROLE_NAMES:
            arguments = {"wait_timeout": WAIT, **self._named(run, vault, key), **settings}
            return lambda: runner.module(run.what, arguments, check=run.check)
        if "to" in settings:
            settings["cmk_new_key_identifier"] = self.newest(*settings.pop("to"))
        if run.account == USER_ASSIGNED:
            settings["cmk_identity_id"] = self.service.identity_id()
        variables = {
            "cmk_resource_group": GROUP,
            "cmk_location": LOCATION,
            "cmk_account_name": run.account,
            "cmk_vault_name": vault,
            "cmk_vault_authorization": "rbac" if vault == RBAC_VAULT else "access_policy",
            "cmk_key_name": key,
            "cmk_wait_timeout": WAIT,
            **settings,
        }
        return lambda: runner.role(run.what, variables, check=run.check)

    def connection(self, caller: str) -> Mapping[str, str]:
        """Connection options by which a task signs in as a principal with the permissions of that caller."""
        if caller not in self._connections:
            where, roles, permissions = CALLERS[caller]
            service, sandbox = self.service, self.service.sandbox
            scopes = {
                "subscription": [sandbox.subscription],
                "group": [sandbox.group],
                "resources": [*map(service.vault_id, VAULTS), *map(service.account_id, ACCOUNTS)],
            }[where]
            known = {"without pools": self._role_without(_POOLS_READ)} if "without pools" in roles else {}
            grants = [{"scope": scope, "role": known.get(role, role)} for scope in scopes for role in roles]
            made = sandbox.control.principal(caller, roles=grants, secret_lifetime=365 * DAY)
            # The vault may have been deleted.
            with suppress(AssertionError):
                service.set_policy("add", service.policy(made["object_id"], *permissions))
            self._connections[caller] = {"client_id": made["client_id"], "secret": made["secret"]}
        return self._connections[caller]

    def _role_without(self, action: str) -> str:
        guid = str(uuid.uuid4())
        properties = {
            "roleName": f"Everything but {action}",
            "assignableScopes": [self.service.sandbox.subscription],
            "permissions": [{"actions": ["*"], "notActions": [action]}],
        }
        path = f"{self.service.sandbox.subscription}/providers/Microsoft.Authorization/roleDefinitions/{guid}"
        response = self.service.sandbox.arm("PUT", path, "2022-04-01", {"properties": properties})
        assert response.ok, response.text
        return guid

    def usable(self) -> set[str]:
        """The accounts that are available and whose key Batch can use, whether or not it has noticed a loss."""
        return {name for name in self.service.accounts() if self.service.is_safe(name)}

    def key_of(self, account: str) -> tuple[str, str] | None:
        identifier = self.service.encryption(account) if account in self.service.accounts() else None
        if identifier is None:
            return None
        host, _, name = identifier.removeprefix("https://").partition("/keys/")
        return host.partition(".")[0], name.partition("/")[0]

    def newest(self, vault: str, key: str) -> str:
        """The identifier of the newest version of the key, or the key's identifier if the key cannot be read."""
        try:
            found: str = self.service.key(key, vault=vault).id
        except AzureError:
            return f"https://{vault}.vault.azure.net/keys/{key}"
        return found

    def principal(self, account: str) -> str:
        if account not in self.service.accounts():
            return self._own_user
        identity = self.service.account(account).get("identity", {})
        users = identity.get("userAssignedIdentities", {}).values()
        found: str = identity.get("principalId") or next((one["principalId"] for one in users), self._own_user)
        return found

    def _named(self, run: Run, vault: str, key: str) -> dict[str, Any]:
        """The options that name the resource of a module's run."""
        named = {
            "keyvault_cmk_key_state": {"vault_name": vault, "name": key},
            "keyvault_cmk_vault": {"resource_group": GROUP, "name": vault},
            "batch_encryption_info": {"resource_group": GROUP, "account_name": run.account},
            "batch_account_identity": {
                "resource_group": GROUP,
                "name": run.account,
                "identity_id": self.service.identity_id("identity2"),
            },
        }
        return named[run.what]


# By whether an account is to follow its key.
MODES = {True: "follow", False: "pin"}
