# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documents of Azure, with the fields that this collection reads.

A document has more fields than these. A field that Azure may leave out is read with `get`.

The types are only for mypy: no document is checked at run time. A response of Azure is `Any` until the client
method that reads the document declares its type.

This module util is private to the collection.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

# Batch accounts


class AssignedIdentity(TypedDict, total=False):
    """A user-assigned identity of an account; without fields in a request."""

    principalId: str
    clientId: str


class Identity(TypedDict, total=False):
    """The identities of an account. It has a principal and a tenant only if one identity is system-assigned."""

    type: str
    principalId: str
    tenantId: str
    # By their resource ids.
    userAssignedIdentities: dict[str, AssignedIdentity]


class KeyVaultProperties(TypedDict, total=False):
    keyIdentifier: str


class Encryption(TypedDict, total=False):
    keySource: str
    keyVaultProperties: KeyVaultProperties


class KeyVaultReference(TypedDict):
    """The vault of an account whose pools are in the user's subscription."""

    id: str


class AccountProperties(TypedDict, total=False):
    provisioningState: str
    encryption: Encryption
    keyVaultReference: KeyVaultReference


class Account(TypedDict):
    """A Batch account."""

    id: str
    name: str
    location: str
    properties: AccountProperties
    identity: NotRequired[Identity]
    tags: NotRequired[dict[str, str] | None]


class IdentityReference(TypedDict, total=False):
    resourceId: str


class CustomerManagedKey(TypedDict, total=False):
    keyUrl: str
    identityReference: IdentityReference
    rotationToLatestKeyVersionEnabled: bool | None


class DiskEncryption(TypedDict, total=False):
    targets: list[str] | None
    customerManagedKey: CustomerManagedKey | None


class DiskEncryptionSet(TypedDict, total=False):
    id: str


class DiskSecurity(TypedDict, total=False):
    securityEncryptionType: str | None
    diskEncryptionSet: DiskEncryptionSet | None


class ManagedDisk(TypedDict, total=False):
    diskEncryptionSet: DiskEncryptionSet | None
    securityProfile: DiskSecurity | None


class Disk(TypedDict, total=False):
    managedDisk: ManagedDisk | None


class MachineSecurity(TypedDict, total=False):
    encryptionAtHost: bool | None


class VirtualMachineConfiguration(TypedDict, total=False):
    diskEncryptionConfiguration: DiskEncryption | None
    securityProfile: MachineSecurity | None
    osDisk: Disk | None
    dataDisks: list[Disk] | None


class DeploymentConfiguration(TypedDict, total=False):
    virtualMachineConfiguration: VirtualMachineConfiguration


class PoolProperties(TypedDict, total=False):
    lastModified: str
    deploymentConfiguration: DeploymentConfiguration


class Pool(TypedDict):
    """A pool of a Batch account."""

    id: str
    name: str
    properties: PoolProperties
    identity: NotRequired[Identity]


# Key vaults


class PolicyPermissions(TypedDict, total=False):
    keys: list[str] | None
    secrets: list[str] | None
    certificates: list[str] | None
    storage: list[str] | None


class AccessPolicy(TypedDict, total=False):
    """The entry of a principal in a vault's access policies. It always has the first two fields."""

    tenantId: str
    objectId: str
    # Of an application that acts on behalf of the principal.
    applicationId: str | None
    permissions: PolicyPermissions


class NetworkAcls(TypedDict, total=False):
    bypass: str
    defaultAction: str


class Sku(TypedDict):
    family: str
    name: str


class VaultProperties(TypedDict):
    tenantId: str
    sku: Sku
    vaultUri: str
    accessPolicies: NotRequired[list[AccessPolicy]]
    enableRbacAuthorization: NotRequired[bool | None]
    enableSoftDelete: NotRequired[bool]
    enablePurgeProtection: NotRequired[bool]
    softDeleteRetentionInDays: NotRequired[int]
    networkAcls: NotRequired[NetworkAcls]
    publicNetworkAccess: NotRequired[str]


class SystemData(TypedDict, total=False):
    createdAt: str
    lastModifiedAt: str


class Vault(TypedDict):
    """A key vault."""

    id: str
    name: str
    location: str
    properties: VaultProperties
    tags: NotRequired[dict[str, str]]
    systemData: NotRequired[SystemData]


class DeletedVaultProperties(TypedDict):
    vaultId: str
    location: str
    scheduledPurgeDate: NotRequired[str]
    purgeProtectionEnabled: NotRequired[bool]
    tags: NotRequired[dict[str, str]]


class DeletedVault(TypedDict):
    """A deleted vault that can be recovered."""

    name: str
    properties: DeletedVaultProperties


# Keys


class KeyAttributes(TypedDict, total=False):
    """The attributes of a version of a key. The first two fields always exist. Times are seconds since 1970."""

    enabled: bool
    created: int
    updated: int
    nbf: int
    exp: int
    recoveryLevel: str


class JsonWebKey(TypedDict):
    kid: str
    kty: str
    key_ops: NotRequired[list[str]]
    # The modulus, in base64 without padding.
    n: NotRequired[str]


class KeyBundle(TypedDict):
    """A version of a key. A deleted key has the same fields, and the times of its deletion and of its purge in seconds
    since 1970."""

    key: JsonWebKey
    attributes: KeyAttributes
    tags: NotRequired[dict[str, str]]
    deletedDate: NotRequired[int]
    scheduledPurgeDate: NotRequired[int]


class KeyItem(TypedDict):
    """A version in a list of versions."""

    kid: str
    attributes: KeyAttributes
    tags: NotRequired[dict[str, str]]


class LifetimeTrigger(TypedDict, total=False):
    timeAfterCreate: str
    timeBeforeExpiry: str


class LifetimeActionType(TypedDict):
    type: str


class LifetimeAction(TypedDict):
    trigger: LifetimeTrigger
    action: LifetimeActionType


class RotationPolicyAttributes(TypedDict, total=False):
    expiryTime: str


class RotationPolicy(TypedDict, total=False):
    """When Key Vault rotates a key by itself."""

    lifetimeActions: list[LifetimeAction]
    attributes: RotationPolicyAttributes


# Authorization


class Permission(TypedDict, total=False):
    """The permissions of a role definition, or of the caller at a scope."""

    actions: list[str] | None
    notActions: list[str] | None
    dataActions: list[str] | None
    notDataActions: list[str] | None


class RoleAssignmentProperties(TypedDict):
    scope: str
    roleDefinitionId: str
    principalId: str
    principalType: NotRequired[str]
    createdOn: NotRequired[str]


class RoleAssignment(TypedDict):
    id: str
    properties: RoleAssignmentProperties


class RoleDefinitionProperties(TypedDict, total=False):
    permissions: list[Permission]


class RoleDefinition(TypedDict):
    # A GUID.
    name: str
    properties: RoleDefinitionProperties


# Managed identities


class ManagedIdentityProperties(TypedDict):
    principalId: str
    tenantId: str


class ManagedIdentity(TypedDict):
    """A user-assigned identity as a resource."""

    id: str
    properties: ManagedIdentityProperties


# Azure Resource Graph


class GraphRow(TypedDict):
    """A resource of any service."""

    id: str
    name: str
    # In lower case.
    type: str
    subscriptionId: str
    properties: dict[str, Any]
    identity: NotRequired[Identity | None]
