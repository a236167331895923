# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Access to a vault's data plane: firewall, access policies and role assignments."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Protocol

from ..authorization.rules import Authorization, RoleAssignment
from ..shared import clouds
from ..shared import world as shared
from ..shared.web import AzureError
from ..shared.world import Principal
from .vault import Vault

# Every client is on this machine.
CLIENT_ADDRESS = "127.0.0.1"
# The address of Azure's services, which is one of the addresses reserved for documentation (RFC 5737).
SERVICE_ADDRESS = "203.0.113.1"

_KEYS = "Microsoft.KeyVault/vaults/keys/"
_POLICIES = "Microsoft.KeyVault/vaults/keyrotationpolicies/"
_NAMED_ALIKE = "create import update recover restore backup purge encrypt decrypt sign verify release rotate".split()
# The data actions, by the names of the permissions in access policies.
DATA_ACTIONS = {
    "get": _KEYS + "read",
    "list": _KEYS + "read",
    "delete": _KEYS + "delete",
    "wrapKey": _KEYS + "wrap/action",
    "unwrapKey": _KEYS + "unwrap/action",
    "getrotationpolicy": _POLICIES + "read",
    "setrotationpolicy": _POLICIES + "write",
    **{name: f"{_KEYS}{name}/action" for name in _NAMED_ALIKE},
}


class KeyVaultDenied(AzureError):
    """The data plane denies access with 403. `reason` is the code of Azure's inner error."""

    def __init__(self, reason: str, message: str) -> None:
        error = {"code": "Forbidden", "message": message, "innererror": {"code": reason}}
        super().__init__(403, {"error": error})
        self.reason = reason


class World(shared.World, Protocol):
    """The parts of other services that the access to vaults needs."""

    authorization: Authorization


@dataclass(frozen=True)
class VaultAccess:
    world: World

    def admit(self, vault: Vault, principal: Principal, *, trusted_service: bool = False) -> None:
        """Check that the vault's network rules admit the caller. Raises KeyVaultDenied."""
        if vault.public_network_access == "SecuredByPerimeter":
            if trusted_service and self.world.behavior.perimeter == "open_to_batch":
                return
            raise _by_connection(vault, principal)
        if trusted_service and vault.network.bypass == "AzureServices":
            return
        if vault.public_network_access != "Enabled":
            raise _by_connection(vault, principal)
        address = ipaddress.IPv4Address(SERVICE_ADDRESS if trusted_service else CLIENT_ADDRESS)
        inside = any(address in ipaddress.IPv4Network(rule) for rule in vault.network.ip_rules)
        if vault.network.default_action == "Deny" and not inside:
            raise _by_firewall(vault, principal)

    def permit(self, vault: Vault, principal: Principal, permission: str, key_name: str) -> RoleAssignment | None:
        """Check that the caller has the permission. Returns the role assignment that allows the operation, or None if
        the vault uses access policies. Raises KeyVaultDenied."""
        if not vault.rbac_at(self.world.clock.time()):
            self._permit_by_policy(vault, principal, permission)
            return None
        action = DATA_ACTIONS[permission]
        scope = f"{vault.id}/keys/{key_name}" if key_name else vault.id
        assignment = self.world.authorization.data_assignment(principal, action, scope)
        if assignment is None:
            raise _by_role(vault, principal, action, scope)
        return assignment

    def _permit_by_policy(self, vault: Vault, principal: Principal, permission: str) -> None:
        # An access policy with an application id is for users of this application. The sandbox has no users.
        for policy in vault.policies_at(self.world.clock.time()):
            if policy.holder == (principal.object_id.lower(), "") and policy.allows_keys(permission):
                return
        raise _by_policy(vault, principal, permission)


def _place(vault: Vault) -> str:
    return f"{vault.name};location={vault.location}"


def _caller(vault: Vault, principal: Principal) -> str:
    cloud = clouds.by_vault_host(vault.host) or clouds.PUBLIC
    who = f"appid={principal.app_id};oid={principal.object_id};iss={cloud.issuer(principal.tenant_id)}"
    if principal.resource_id:
        who += f";xms_mirid={principal.resource_id};xms_az_rid={principal.resource_id}"
    return who


def _by_role(vault: Vault, principal: Principal, action: str, scope: str) -> KeyVaultDenied:
    return KeyVaultDenied(
        "ForbiddenByRbac",
        "Caller is not authorized to perform action on resource.\r\n"
        "If role assignments, deny assignments or role definitions were changed recently, please observe propagation"
        f" time.\r\nCaller: {_caller(vault, principal)}\r\nAction: '{action}'\r\nResource: '{scope.lower()}'\r\n"
        "Assignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\n"
        f"Vault: {_place(vault)}\r\n",
    )


def _by_policy(vault: Vault, principal: Principal, permission: str) -> KeyVaultDenied:
    who = _caller(vault, principal).replace(";iss=", ";numgroups=0;iss=", 1)
    return KeyVaultDenied(
        "ForbiddenByPolicy" if permission == "purge" else "AccessDenied",
        f"The user, group or application '{who}' does not have keys {permission} permission on key vault"
        f" '{_place(vault)}'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287",
    )


def _by_firewall(vault: Vault, principal: Principal) -> KeyVaultDenied:
    return KeyVaultDenied(
        "ForbiddenByFirewall",
        "Client address is not authorized and caller is not a trusted service.\r\n"
        f"Client address: {CLIENT_ADDRESS}\r\nCaller: {_caller(vault, principal)}\r\nVault: {_place(vault)}",
    )


def _by_connection(vault: Vault, principal: Principal) -> KeyVaultDenied:
    return KeyVaultDenied(
        "ForbiddenByConnection",
        "Public network access is disabled and request is not from a trusted service nor via an approved private"
        f" link.\r\nCaller: {_caller(vault, principal)}\r\nVault: {_place(vault)}",
    )
