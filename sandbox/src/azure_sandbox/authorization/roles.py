# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role definitions with their permissions, and Azure's built-in roles."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Permission:
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()

    def allows(self, action: str) -> bool:
        return _among(action, self.actions) and not _among(action, self.not_actions)

    def allows_data(self, action: str) -> bool:
        return _among(action, self.data_actions) and not _among(action, self.not_data_actions)


@dataclass
class RoleDefinition:
    guid: str
    name: str
    description: str
    permissions: tuple[Permission, ...]
    kind: str = "BuiltInRole"
    assignable_scopes: tuple[str, ...] = ("/",)
    created_on: str = "2015-02-02T21:55:09.8806423Z"
    updated_on: str = "2023-11-21T16:34:07.6532146Z"
    created_by: str | None = None
    updated_by: str | None = None

    def allows(self, action: str) -> bool:
        return any(permission.allows(action) for permission in self.permissions)

    def allows_data(self, action: str) -> bool:
        return any(permission.allows_data(action) for permission in self.permissions)


@cache
def _pattern(wildcard: str) -> re.Pattern[str]:
    """The pattern of an action with wildcards. `vaults/*/read` includes `vaults/read`: Key Vault Reader has only
    `vaults/*/read`, and can read vaults."""
    text = ".*".join(re.escape(part) for part in wildcard.split("*"))
    return re.compile(text.replace("/.*/", "/(?:.*/)?"), re.IGNORECASE)


def _among(action: str, wildcards: Iterable[str]) -> bool:
    """Whether one of the wildcards matches the action. A `*` matches any text, including slashes."""
    return any(_pattern(wildcard).fullmatch(action) for wildcard in wildcards)


_VAULTS = "Microsoft.KeyVault/vaults/"
_KEYS = _VAULTS + "keys/"
_VAULT_READER_ACTIONS = (
    "Microsoft.Authorization/*/read",
    "Microsoft.Insights/alertRules/*",
    "Microsoft.Resources/deployments/*",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
    "Microsoft.Support/*",
    "Microsoft.KeyVault/checkNameAvailability/read",
    "Microsoft.KeyVault/deletedVaults/read",
    "Microsoft.KeyVault/locations/*/read",
    "Microsoft.KeyVault/vaults/*/read",
    "Microsoft.KeyVault/operations/read",
)


def _role(guid: str, name: str, description: str, permission: Permission) -> RoleDefinition:
    return RoleDefinition(guid, name, description, (permission,))


BUILT_IN = (
    _role(
        "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
        "Owner",
        "Grants full access to manage all resources, including the ability to assign roles in Azure RBAC.",
        Permission(actions=("*",)),
    ),
    _role(
        "b24988ac-6180-42a0-ab88-20f7382dd24c",
        "Contributor",
        "Grants full access to manage all resources, but does not allow you to assign roles in Azure RBAC, manage"
        " assignments in Azure Blueprints, or share image galleries.",
        Permission(
            actions=("*",),
            not_actions=(
                "Microsoft.Authorization/*/Delete",
                "Microsoft.Authorization/*/Write",
                "Microsoft.Authorization/elevateAccess/Action",
                "Microsoft.Blueprint/blueprintAssignments/write",
                "Microsoft.Blueprint/blueprintAssignments/delete",
                "Microsoft.Compute/galleries/share/action",
            ),
        ),
    ),
    _role(
        "acdd72a7-3385-48ef-bd42-f606fba81ae7",
        "Reader",
        "View all resources, but does not allow you to make any changes.",
        Permission(actions=("*/read",)),
    ),
    _role(
        "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
        "User Access Administrator",
        "Lets you manage user access to Azure resources.",
        Permission(actions=("*/read", "Microsoft.Authorization/*", "Microsoft.Support/*")),
    ),
    _role(
        "f58310d9-a9f6-439a-9e8d-f62e7b41a168",
        "Role Based Access Control Administrator",
        "Manage access to Azure resources by assigning roles using Azure RBAC. This role does not allow you to manage"
        " access using other ways, such as Azure Policy.",
        Permission(
            actions=(
                "Microsoft.Authorization/roleAssignments/write",
                "Microsoft.Authorization/roleAssignments/delete",
                "*/read",
                "Microsoft.Support/*",
            )
        ),
    ),
    _role(
        "29fe4964-1e60-436b-bd3a-77fd4c178b3c",
        "Azure Batch Account Contributor",
        "Grants full access to manage all Batch resources, including Batch accounts, pools and jobs.",
        Permission(
            actions=(
                "Microsoft.Authorization/*/read",
                "Microsoft.Batch/*",
                "Microsoft.Insights/alertRules/*",
                "Microsoft.Resources/deployments/*",
                "Microsoft.Resources/subscriptions/resourceGroups/read",
            ),
            data_actions=("Microsoft.Batch/*",),
        ),
    ),
    _role(
        "f1a07417-d97a-45cb-824c-7a7467783830",
        "Managed Identity Operator",
        "Read and Assign User Assigned Identity",
        Permission(
            actions=(
                "Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
                "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
                "Microsoft.Authorization/*/read",
                "Microsoft.Insights/alertRules/*",
                "Microsoft.Resources/subscriptions/resourceGroups/read",
                "Microsoft.Resources/deployments/*",
                "Microsoft.Support/*",
            )
        ),
    ),
    _role(
        "f25e0fa2-a7c8-4377-a976-54943a77a395",
        "Key Vault Contributor",
        "Lets you manage key vaults, but not access to them.",
        Permission(
            actions=(
                "Microsoft.Authorization/*/read",
                "Microsoft.Insights/alertRules/*",
                "Microsoft.KeyVault/*",
                "Microsoft.Resources/deployments/*",
                "Microsoft.Resources/subscriptions/resourceGroups/read",
                "Microsoft.Support/*",
            ),
            not_actions=(
                "Microsoft.KeyVault/locations/deletedVaults/purge/action",
                "Microsoft.KeyVault/hsmPools/*",
                "Microsoft.KeyVault/managedHsms/*",
            ),
        ),
    ),
    _role(
        "00482a5a-887f-4fb3-b363-3b7fe8e74483",
        "Key Vault Administrator",
        "Perform all data plane operations on a key vault and all objects in it, including certificates, keys, and"
        " secrets. Cannot manage key vault resources or manage role assignments. Only works for key vaults that use the"
        " 'Azure role-based access control' permission model.",
        Permission(actions=_VAULT_READER_ACTIONS, data_actions=(_VAULTS + "*",)),
    ),
    _role(
        "14b46e9e-c2b7-41b4-b07b-48a6ebf60603",
        "Key Vault Crypto Officer",
        "Perform any action on the keys of a key vault, except manage permissions. Only works for key vaults that use"
        " the 'Azure role-based access control' permission model.",
        Permission(actions=_VAULT_READER_ACTIONS, data_actions=(_KEYS + "*", _VAULTS + "keyrotationpolicies/*")),
    ),
    _role(
        "e147488a-f6f5-4113-8e2d-b22465e65bf6",
        "Key Vault Crypto Service Encryption User",
        "Read metadata of keys and perform wrap/unwrap operations. Only works for key vaults that use the 'Azure"
        " role-based access control' permission model.",
        Permission(
            actions=(
                "Microsoft.EventGrid/eventSubscriptions/write",
                "Microsoft.EventGrid/eventSubscriptions/read",
                "Microsoft.EventGrid/eventSubscriptions/delete",
            ),
            data_actions=(_KEYS + "read", _KEYS + "wrap/action", _KEYS + "unwrap/action"),
        ),
    ),
    _role(
        "12338af0-0e69-4776-bea7-57ae8d297424",
        "Key Vault Crypto User",
        "Perform cryptographic operations using keys. Only works for key vaults that use the 'Azure role-based access"
        " control' permission model.",
        Permission(
            data_actions=(
                _KEYS + "read",
                _KEYS + "update/action",
                _KEYS + "backup/action",
                _KEYS + "encrypt/action",
                _KEYS + "decrypt/action",
                _KEYS + "wrap/action",
                _KEYS + "unwrap/action",
                _KEYS + "sign/action",
                _KEYS + "verify/action",
            )
        ),
    ),
    _role(
        "08bbd89e-9f13-488c-ac41-acfcb10c90ab",
        "Key Vault Crypto Service Release User",
        "Release keys. Only works for key vaults that use the 'Azure role-based access control' permission model.",
        Permission(data_actions=(_KEYS + "release/action",)),
    ),
    _role(
        "21090545-7ca7-4776-b22c-e363652d74d2",
        "Key Vault Reader",
        "Read metadata of key vaults and its certificates, keys, and secrets. Cannot read sensitive values such as"
        " secret contents or key material. Only works for key vaults that use the 'Azure role-based access control'"
        " permission model.",
        Permission(
            actions=_VAULT_READER_ACTIONS, data_actions=(_VAULTS + "*/read", _VAULTS + "secrets/readMetadata/action")
        ),
    ),
    _role(
        "a4417e6f-fecd-4de8-b567-7b0420556985",
        "Key Vault Certificates Officer",
        "Perform any action on the certificates of a key vault, except manage permissions. Only works for key vaults"
        " that use the 'Azure role-based access control' permission model.",
        Permission(
            actions=_VAULT_READER_ACTIONS, data_actions=(_VAULTS + "certificatecas/*", _VAULTS + "certificates/*")
        ),
    ),
    _role(
        "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
        "Key Vault Secrets Officer",
        "Perform any action on the secrets of a key vault, except manage permissions. Only works for key vaults that"
        " use the 'Azure role-based access control' permission model.",
        Permission(actions=_VAULT_READER_ACTIONS, data_actions=(_VAULTS + "secrets/*",)),
    ),
    _role(
        "4633458b-17de-408a-b874-0445c86b69e6",
        "Key Vault Secrets User",
        "Read secret contents. Only works for key vaults that use the 'Azure role-based access control' permission"
        " model.",
        Permission(data_actions=(_VAULTS + "secrets/getSecret/action", _VAULTS + "secrets/readMetadata/action")),
    ),
)
