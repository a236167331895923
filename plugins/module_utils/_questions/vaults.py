# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a vault, or a deleted vault, is. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from .._checks import usage
from .._checks.rights import READ_ACCOUNTS, READ_DELETED_VAULTS, VAULTS
from .._core.docs import Docs, Ref
from .._core.errors import CmkError, Denied, Unavailable
from .._core.ids import place_of
from .._core.summary import scope_text
from .._documents import refs
from .._documents.access import allows
from .._documents.vault import DeletedVault, Vault
from .users import not_listed

_SEE_VAULTS = "Assign Key Vault Reader on the vault's subscription."


def find(docs: Docs, name: str, subscription: str, group: str | None) -> Vault | None:
    """The vault of that name in the resource group of the subscription, or in any subscription that the caller can
    read.

    The names of vaults are unique in Azure, so the group only avoids the search. None if there is no such vault. Raises
    an error if the vault may be in a scope that the caller may not read.
    """
    place = likely(docs, name, subscription, group)
    if place and (there := docs.get(place)) is not None:
        return there
    found = named(docs, {name.lower()}, [subscription.lower()])[name.lower()]
    if isinstance(found, CmkError):
        raise found
    return found


def likely(docs: Docs, name: str, subscription: str, group: str | None) -> Ref[Vault] | None:
    """Where the run has found the vault, or else in the resource group."""
    seen = _seen_at(docs, name, subscription)
    place = seen or (None if group is None else refs.vault_id(subscription, group, name))
    return None if place is None else refs.vault(place)


def group_of(account_id: str, subscription: str) -> str | None:
    """The resource group of an account, which often has the vault too; None if the vaults of the task are in another
    subscription."""
    own, group, _name = place_of(account_id)
    return group if own.lower() == subscription.lower() else None


def _seen_at(docs: Docs, name: str, subscription: str) -> str | None:
    """The id of the vault, if the run has read it, or has found it by a search."""
    if (seen := docs.earlier(refs.seen_vault(name))) is not None:
        return seen["id"]
    others = [one["subscriptionId"] for one in docs.earlier(refs.SUBSCRIPTIONS) or ()]
    for one in dict.fromkeys(map(str.lower, (subscription, *others))):
        groups = [group["name"] for group in docs.earlier(refs.groups_of(one)) or ()]
        for listed in map(docs.earlier, (refs.vaults_of(one), *(refs.vaults_of(one, group) for group in groups))):
            if (vault := _by_name(listed or ()).get(name.lower())) is not None:
                return vault["id"]
    return None


def named(docs: Docs, names: Set[str], subscriptions: Sequence[str]) -> dict[str, Vault | CmkError | None]:
    """The vaults of these names, which are in lower case. They are searched for in these subscriptions and, if some are
    not found, in all other subscriptions that the caller can read.

    The value is None if there is no such vault, and an error if it may be in a scope that the caller may not read.
    """
    found, refused = _in(docs, subscriptions)
    if names - found.keys():
        others = [one for one in _listed_subscriptions(docs) if one.lower() not in subscriptions]
        more, refused_there = _in(docs, others)
        found, refused = {**more, **found}, refused or refused_there
        if names - found.keys():
            refused = refused or _hidden(docs, [*subscriptions, *others])
    return {name: found.get(name, refused) for name in names}


def _listed_subscriptions(docs: Docs) -> list[str]:
    return [one["subscriptionId"] for one in docs.items(refs.SUBSCRIPTIONS)]


def subscriptions_of_caller(docs: Docs, own: str) -> list[str]:
    """All subscriptions that the caller can read, the task's own first. Azure may not list that one."""
    return [own, *(one for one in _listed_subscriptions(docs) if one.lower() != own.lower())]


def _in(docs: Docs, subscriptions: Sequence[str]) -> tuple[dict[str, Vault], CmkError | None]:
    """The vaults of the subscriptions by their names, and the error if a subscription could not be read."""
    found: dict[str, Vault] = {}
    refused = None
    docs.want(*map(refs.vaults_of, subscriptions))
    for subscription in subscriptions:
        vaults, refused_there = _seen_in(docs, subscription)
        found.update(vaults)
        refused = refused or refused_there
    return found, refused


def _seen_in(docs: Docs, subscription: str) -> tuple[dict[str, Vault], CmkError | None]:
    """The vaults of a subscription by their names, and the error if there may be more. If the subscription's list is
    refused, the lists of its resource groups are read."""
    listed = docs.known(refs.vaults_of(subscription))
    if not isinstance(listed, CmkError):
        return _by_name(listed or ()), None
    groups = docs.known(refs.groups_of(subscription)) if isinstance(listed, Denied) else []
    if isinstance(groups, CmkError):
        return {}, listed
    if isinstance(listed, Denied) and not groups:
        listed = listed.extended(
            "The caller can read no resource group either (Microsoft.Resources/subscriptions/resourceGroups/read)."
        )
    lists = [refs.vaults_of(subscription, one["name"]) for one in groups or ()]
    docs.want(*lists)
    found: dict[str, Vault] = {}
    for vaults in map(docs.known, lists):
        found.update({} if isinstance(vaults, CmkError) else _by_name(vaults or ()))
    return found, listed


def _by_name(vaults: Sequence[Vault]) -> dict[str, Vault]:
    return {vault["name"].lower(): vault for vault in vaults}


def _hidden(docs: Docs, subscriptions: Sequence[str]) -> CmkError | None:
    """Why the lists of these subscriptions may not have all vaults.

    Azure may return 200 with only what the caller may read: Microsoft does not document this. The permissions are
    read after the lists: a role of the caller may end during the run.
    """
    after = max((docs.of(refs.vaults_of(one)).ended for one in subscriptions), default=0.0)
    docs.after(after).want(*(refs.permissions_at(f"/subscriptions/{one}") for one in subscriptions))
    return next((gap for one in subscriptions if (gap := _gap(docs, one, after))), None)


def _gap(docs: Docs, subscription: str, after: float) -> CmkError | None:
    scope, action = f"/subscriptions/{subscription}", f"{VAULTS}/read"
    permissions = docs.after(after).known(refs.permissions_at(scope))
    if not isinstance(permissions, CmkError) and allows(permissions or (), action):
        return None
    said = permissions.texts if isinstance(permissions, CmkError) else {}
    message = f"The list of the key vaults of {scope_text(scope)} may be incomplete"
    if isinstance(permissions, Unavailable):
        return Unavailable(f"{message}. Run the task again.", remedy="Run the task again.", **said)
    message = f"{message}: the caller lacks {action}. Assign Key Vault Reader there."
    return Denied(message, action=action, remedy=_SEE_VAULTS, **said)


def unseen(found: Vault | CmkError | None, name: str) -> list[usage.Unlisted]:
    """For `usage.guard`: the unlisted scope if the vault is in no subscription that the caller can read. The caller may
    still use the keys of the vault, and so may accounts in that subscription."""
    if isinstance(found, Mapping):
        return []
    scope = f"the subscription of the key vault {name}"
    why = found.reported if isinstance(found, CmkError) else "The role Reader at the subscription is sufficient."
    reason = f"The caller cannot read the subscription of the key vault {name}. {why}"
    return [not_listed(scope, reason, READ_ACCOUNTS)]


# Deleted vaults


def deleted(
    docs: Docs, names: Set[str], unreachable: Set[str], own: str | None = None
) -> dict[str, DeletedVault | CmkError | None]:
    """By these names, in lower case, the deleted vaults that can be recovered, in all subscriptions of the caller and
    in the subscription `own`.

    `unreachable` are the names whose host does not respond. For these, the value is None only if the name is
    available. It is an error if the vault may exist, or may be deleted, in a scope that the caller cannot read.
    """
    if not names:
        return {}
    subscriptions = _listed_subscriptions(docs) if own is None else subscriptions_of_caller(docs, own)
    docs.want(*map(refs.deleted_vaults_of, subscriptions))
    refused, found = None, dict[str, DeletedVault]()
    for subscription in subscriptions:
        listed = docs.known(refs.deleted_vaults_of(subscription))
        if isinstance(listed, CmkError):
            refused = listed
        else:
            found.update({vault["name"].lower(): vault for vault in listed or ()})
    hidden = {name: _may_exist(docs, name, refused, subscriptions) for name in unreachable - found.keys()}
    return {name: found.get(name) or hidden.get(name) for name in names}


def _may_exist(docs: Docs, name: str, refused: CmkError | None, subscriptions: Sequence[str]) -> CmkError | None:
    """The error that the vault may exist or be recoverable although no list shows it; None if its name is available.

    The name of a vault is not available until the vault is purged, in any subscription. `refused` is the error of a
    list that could not be read.
    """
    said: Mapping[str, object] | CmkError | None = None
    for subscription in subscriptions:
        said = docs.known(name_check(subscription, name))
        if not isinstance(said, Denied):
            break
    if isinstance(said, Mapping) and refs.is_free(said):
        return None
    reasons = [one for one in (refused, said) if isinstance(one, CmkError)]
    said = reasons[0].texts if reasons else {}
    if not all(isinstance(one, Denied) for one in reasons):
        remedy = "Run the task again."
        text = f"It is not known whether the key vault {name} exists or was deleted. {remedy}"
        return Unavailable(text, remedy=remedy, **said)
    rights, where = f"{VAULTS}/read or {READ_DELETED_VAULTS}", "may exist, or was deleted, where the caller lacks"
    if not reasons:
        rights, where = f"{VAULTS}/read", "is not found, but its name is taken, so it is where the caller lacks"
    text = f"The key vault {name} {where} {rights}. Assign Key Vault Reader."
    return Denied(text, action=READ_DELETED_VAULTS, remedy=_SEE_VAULTS, **said)


def name_check(subscription: str, name: str) -> refs.NameCheck:
    """Whether the name of a vault is available."""
    scope = f"/subscriptions/{subscription}/providers/Microsoft.KeyVault"
    return refs.name_check(scope, "Microsoft.KeyVault/vaults", name)


def deleted_here(docs: Docs, name: str, subscription: str) -> DeletedVault | None:
    """The deleted vault. None also if the caller may not list deleted vaults. That is safe: the name of a deleted vault
    is not available, so no vault can be created with it."""
    listed = docs.known(refs.deleted_vaults_of(subscription))
    if isinstance(listed, Denied):
        return None
    if isinstance(listed, CmkError):
        raise listed
    return next((vault for vault in listed or () if vault["name"].lower() == name.lower()), None)
