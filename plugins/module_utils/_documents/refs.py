# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be read of Azure: its ref, its list, and the words for errors. What a write makes out of date.

The types of the documents, beside what reads and writes them, are only for mypy: no document is checked at run time. A
document has more fields than its type, which has those that this collection reads. A field that Azure may leave out is
read with `get`.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from .._core.docs import Member, Ref
from .._core.ids import KeyIdentifier, UserAssignedId, place_of, read_key_identifier, type_of
from .._core.summary import scope_text
from .access import Permission, RoleAssignment, RoleDefinition, encryption_users
from .account import UNDER_WAY, Account
from .identity import ManagedIdentity
from .key import KeyBundle, KeyItem
from .key_references import GraphRow
from .pool import Pool
from .rotation_policy import RotationPolicy
from .vault import DeletedVault, Vault

_ACCOUNTS = "providers/Microsoft.Batch/batchAccounts"
_VAULTS = "providers/Microsoft.KeyVault/vaults"
_IDENTITIES = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
_ASSIGNMENTS = "providers/Microsoft.Authorization/roleAssignments"
_GRAPH = "/providers/Microsoft.ResourceGraph/resources"
# The types that a query for the users of a vault leaves out, by their first characters.
_NO_USERS = ("microsoft.batch/", "microsoft.resources/deploymentstacks", "microsoft.resources/templatespecs")
# From this number of accounts or principals on, a run reads their list. A page of a list has about a hundred.
LISTED_FROM = 5
ANY_KIND = "any"


def is_in_account(ref: str) -> bool:
    """Whether it is the ref of a Batch account, or of a part of one."""
    return "/batchaccounts/" in ref.lower()


def kinds_changed(method: str, ref: str) -> tuple[str, ...]:
    """What a write makes out of date."""
    at = ref.lower()
    if at.startswith("https://"):
        return ("key",)
    if "/roleassignments/" in at:
        return ("access",)
    if is_in_account(ref):
        return "listed", account_kind(ref)
    if "/accesspolicies/" in at:
        return ("vault",)
    # A vault that is recovered has keys, and assigned roles. A change of its rules may let the caller read them.
    return ("vault", "key", "access", "role") if method == "PUT" else (ANY_KIND,)


def vault_made(name: str) -> str:
    """The name under which a run notes that it has created or recovered the vault: its host name may not resolve yet,
    and lists may not show its users yet."""
    return f"made vault {name.lower()}"


def noted(method: str, ref: str) -> str:
    """The name under which a run notes when a write may have taken effect; empty if it does not note that."""
    return vault_made(place_of(ref)[2]) if method == "PUT" and type_of(ref) == "microsoft.keyvault/vaults" else ""


def _id_of(resource: Any) -> str:
    return str(resource["id"]).lower()


def _holder_of(assignment: RoleAssignment) -> str:
    return assignment["properties"]["principalId"].lower()


# Subscriptions, resource groups and resource providers

Document: TypeAlias = dict[str, Any]
SUBSCRIPTIONS: Ref[list[Document]] = Ref("subscriptions", "/subscriptions", "list the subscriptions", is_list=True)


def groups_of(subscription: str) -> Ref[list[Document]]:
    what = f"list the resource groups of the subscription {subscription}"
    return Ref("groups", f"/subscriptions/{subscription}/resourceGroups", what, is_list=True)


def group(subscription: str, name: str) -> Ref[Document]:
    path = f"/subscriptions/{subscription}/resourceGroups/{name}"
    return Ref("group", path, f"read the resource group {name}", must_exist=True)


def provider(subscription: str, namespace: str) -> Ref[Document]:
    path = f"/subscriptions/{subscription}/providers/{namespace}"
    return Ref("provider", path, f"read the regions of {namespace}", must_exist=True)


NameCheck: TypeAlias = Ref[Document]


def is_free(said: Mapping[str, Any]) -> bool:
    """Whether a name is available. An invalid name counts as available, because the creation refuses it."""
    return bool(said["nameAvailable"]) or said.get("reason") != "AlreadyExists"


def name_check(scope: str, resource_type: str, name: str) -> NameCheck:
    """Whether the name is available. `scope` is a resource provider, in a subscription or a location."""
    what = f"check whether the name {name} is available"
    return Ref("name", f"{scope}/checkNameAvailability", what, body={"name": name, "type": resource_type})


# Batch accounts


def account_id(subscription: str, group: str, name: str) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}/{_ACCOUNTS}/{name}"


def account_kind(ref: str) -> str:
    """A change of another account does not make an account out of date."""
    return f"account {ref.lower()}"


def account(ref: str) -> Ref[Account]:
    """A list does not show whether the account is missing. It may be older than an operation that is running."""

    def pick(items: list[Account]) -> Account | None:
        return next((one for one in items if one["properties"].get("provisioningState") not in UNDER_WAY), None)

    subscription, _group, name = place_of(ref)
    member = Member(accounts_of(subscription), ref.lower(), LISTED_FROM, pick)
    what = f"read the Batch account {name}"
    return Ref(account_kind(ref), ref, what, member=member, also=lambda _account: dated_account(ref))


def dated_account(ref: str) -> Ref[Account]:
    """The account, with the time of its last change."""
    what = f"read the Batch account {place_of(ref)[2]}"
    return Ref(account_kind(ref), ref, what, is_dated=True, also=lambda _account: account(ref))


def accounts_of(subscription: str, group: str | None = None) -> Ref[list[Account]]:
    """The accounts of a subscription or resource group."""
    place = f"/subscriptions/{subscription}" + (f"/resourceGroups/{group}" if group else "")
    words = f"resource group {group}" if group else f"subscription {subscription}"
    kind = "listed" if group else "accounts"
    what = f"list the Batch accounts of the {words}"
    # A run reads the accounts of a group only to look for one.
    return Ref(kind, f"{place}/{_ACCOUNTS}", what, is_list=True, keyed=None if group else _id_of)


def pools_of(account_id: str) -> Ref[list[Pool]]:
    what = f"list the pools of the Batch account {place_of(account_id)[2]}"
    return Ref(account_kind(account_id), f"{account_id}/pools", what, is_list=True)


def first_pools_of(account_id: str) -> Ref[Document]:
    """The first page of the list, which shows whether the account is available."""
    what = pools_of(account_id).what
    return Ref(account_kind(account_id), f"{account_id}/pools", what, must_exist=True, is_momentary=True)


def is_of_account(ref: Ref[Any]) -> bool:
    """Whether it is an account, a list of accounts, or the pools of an account."""
    return ref.kind.startswith("account") or ref.kind == "listed"


# Vaults and their keys


def vault_id(subscription: str, group: str | None = None, name: str | None = None) -> str:
    """The id of a vault, or of the list of the vaults of a resource group or a subscription."""
    place = f"/subscriptions/{subscription}" + (f"/resourceGroups/{group}" if group else "")
    return f"{place}/{_VAULTS}" + (f"/{name}" if name else "")


def vault(ref: str) -> Ref[Vault]:
    name = place_of(ref)[2]
    return Ref("vault", ref, f"read the key vault {name}", also=lambda _vault: seen_vault(name))


def seen_vault(name: str) -> Ref[Vault]:
    """What the run has read of the vault, wherever it is. Only `Docs.earlier` has it."""
    return Ref("vault", name, f"find the key vault {name}")


def vaults_of(subscription: str, group: str | None = None) -> Ref[list[Vault]]:
    words = f"resource group {group}" if group else f"subscription {subscription}"
    what = f"list the key vaults of the {words}"
    return Ref("vault", vault_id(subscription, group), what, is_list=True)


def referring_to(*vaults: str, subscriptions: Sequence[str] = ()) -> Ref[list[GraphRow]]:
    """The resources of other services that refer to one of the vaults, whose names are in lower case. In these
    subscriptions, by default in all that the caller can read, without those resources that the caller may not read. The
    properties of services differ, so all of them are searched.

    Batch is left out, because it lists its accounts and pools itself, and templates, because they use nothing. Source:
    the reference of the operation Resources, and the article "Working with large Azure resource data sets"."""
    searched = " or ".join(
        f"text contains '/providers/microsoft.keyvault/vaults/{vault}' or text contains '{vault}.vault' "
        f"or text contains '{vault}.privatelink.' or (text contains '{vault}.' and text contains '/keys/')"
        for vault in vaults
    )
    left_out = " or ".join(f"type startswith '{one}'" for one in _NO_USERS)
    query = f"""resources
| where not({left_out}) and type != 'microsoft.keyvault/vaults'
| extend text = tostring(properties)
| where {searched}
| project id, name, type, subscriptionId, identity, properties
| order by id asc"""
    # A response of more than 16 MiB is refused.
    body: dict[str, Any] = {"query": query, "options": {"resultFormat": "objectArray", "$top": 100}}
    if subscriptions:
        body["subscriptions"] = list(subscriptions)
    named = f"the key vault {vaults[0]}" if len(vaults) == 1 else f"{len(vaults)} key vaults"
    return Ref("graph", _GRAPH, f"find the resources that use {named}", body=body, is_list=True, lags=True)


def deleted_vaults_of(subscription: str) -> Ref[list[DeletedVault]]:
    path = f"/subscriptions/{subscription}/providers/Microsoft.KeyVault/deletedVaults"
    return Ref("vault", path, f"list the deleted key vaults of the subscription {subscription}", is_list=True)


def key(identifier: KeyIdentifier) -> Ref[KeyBundle]:
    """The version or, if the identifier has no version, the newest version. The next read may name its version."""
    what = f"read the key {identifier.name} in {identifier.vault}"
    return Ref("key", str(identifier), what, also=None if identifier.version else _own_version)


def _own_version(bundle: KeyBundle) -> Ref[KeyBundle]:
    return key(read_key_identifier(bundle["key"]["kid"]))


def keys_of(vault_url: str) -> Ref[list[KeyItem]]:
    """The keys of a vault, each without its versions."""
    return Ref("key", f"{vault_url}/keys", f"list the keys in {vault_url}", is_list=True)


def versions_of(key: KeyIdentifier) -> Ref[list[KeyItem]]:
    what = f"list the versions of the key {key.name} in {key.vault}"
    return Ref("key", f"{key.versionless}/versions", what, is_list=True)


def rotation_policy_of(key: KeyIdentifier) -> Ref[RotationPolicy]:
    what = f"read the rotation policy of the key {key.name} in {key.vault}"
    return Ref("key", f"{key.versionless}/rotationpolicy", what, must_exist=True)


def deleted_key(key: KeyIdentifier) -> Ref[KeyBundle]:
    what = f"look for a deleted key {key.name} in {key.vault}"
    return Ref("key", f"{key.vault_url}/deletedkeys/{key.name}", what)


# Access


def permissions_at(scope: str) -> Ref[list[Permission]]:
    """The permissions of the caller at the scope.

    Source: the REST reference for resource groups and resources; for subscriptions, the article "Authorize with
    Resource Manager's API"."""
    path = f"{scope}/providers/Microsoft.Authorization/permissions"
    return Ref("permissions", path, f"read the caller's permissions at {scope_text(scope)}", is_list=True)


def assignments_at(scope: str) -> Ref[list[RoleAssignment]]:
    """The role assignments of all principals that apply to the scope. Assignments of a group are listed only for the
    group."""
    what, keyed = f"list the role assignments on {scope_text(scope)}", _holder_of
    return Ref("access", f"{scope}/{_ASSIGNMENTS}", what, "atScope()", is_list=True, keyed=keyed)


def assignments_of(scope: str, principal: str) -> Ref[list[RoleAssignment]]:
    """The role assignments of a principal that apply to the scope, including those of its groups. From the list of all
    principals only if ENCRYPTION_USER is assigned to it there, because it may have a role as a member of a group."""

    def pick(found: Iterable[RoleAssignment]) -> list[RoleAssignment] | None:
        return encryption_users(found) or None

    member = Member(assignments_at(scope), principal.lower(), LISTED_FROM, pick)
    what = f"list the role assignments of {principal} on {scope_text(scope)}"
    filter = f"atScope() and assignedTo('{principal}')"
    return Ref("access", f"{scope}/{_ASSIGNMENTS}", what, filter, is_list=True, member=member)


def role(scope: str, guid: str) -> Ref[RoleDefinition]:
    """The definition of the role with this GUID, at the scope, because the caller may not be allowed to read the
    subscription in the id of a role."""
    path = f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{guid}"
    return Ref("role", path, "read the definitions of the assigned roles", must_exist=True)


# Identities


def identity(identity_id: UserAssignedId) -> Ref[ManagedIdentity]:
    return Ref("identity", str(identity_id), f"read the user-assigned identity {identity_id.name}")


def identities_of(subscription: str) -> Ref[list[ManagedIdentity]]:
    what = f"list the user-assigned identities of the subscription {subscription}"
    return Ref("identity", f"/subscriptions/{subscription}/{_IDENTITIES}", what, is_list=True)
