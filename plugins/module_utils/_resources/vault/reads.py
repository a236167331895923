# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads of key vaults, and of deleted key vaults.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from functools import partial

from ..._azure.cache import JUST_NOW, RECENTLY, NotBefore
from ..._azure.creation import is_name_free
from ..._azure.gateway import Gateway
from ..._azure.resources import Resources
from ..._azure.session import Session
from ..._azure.visible import not_listed
from ..._checks import usage
from ..._checks.rights import READ_ACCOUNTS, READ_DELETED_VAULTS, VAULTS
from ..._core.concurrent import map_concurrent, value_or_error
from ..._core.documents import DeletedVault, Vault
from ..._core.errors import CmkError, Denied, Unavailable
from ..._core.ids import place_of
from ..access.document import allows

_SEE_VAULTS = (
    f"Grant the caller a role that allows {VAULTS}/read and {READ_DELETED_VAULTS} on the vault's subscription, such as "
    "Key Vault Reader."
)


class VaultReads:
    def __init__(self, session: Session, gateway: Gateway, resources: Resources) -> None:
        self._session = session
        self._gateway = gateway
        self._resources = resources

    def get(self, group: str, name: str, not_before: NotBefore = JUST_NOW) -> Vault | None:
        """The vault in the task's own subscription."""
        return self.at(vault_ref(self._session.subscription_id, group, name), not_before)

    def at(self, vault_id: str, not_before: NotBefore = JUST_NOW) -> Vault | None:
        name = place_of(vault_id)[2]

        def read() -> Vault | None:
            at = time.monotonic()
            vault: Vault | None = self._gateway.find(f"read the key vault {name}", vault_id)
            if vault is not None:
                self.keep(vault, at)
            return vault

        return self._session.cache.get(read, "vault", vault_id.lower(), not_before=not_before)

    def keep(self, vault: Vault, at: float) -> None:
        """Cache a vault that was read at the time `at` (time.monotonic()). The names of vaults are unique in Azure."""
        for name in (vault["id"], vault["name"]):
            self._session.cache.keep(vault, at, "vault", name.lower())

    def note_creation(self, name: str) -> None:
        """Note for the tasks of the run that this task has created the vault now."""
        self._session.files.store(time.monotonic(), "created vault", name.lower())

    def probably_has_no_keys(self, name: str) -> bool:
        """Whether a task of the run has created the vault, and none has changed a key since. Other tools may have."""
        created_at = self._session.files.load("created vault", name.lower())
        return created_at is not None and not self._session.cache.is_written_since(created_at, "key")

    def find(self, name: str, group: str | None, not_before: NotBefore = JUST_NOW) -> Vault | None:
        """The vault of that name in the resource group or in any subscription that the caller can read.

        The names of vaults are unique in Azure, so the group, or the place in which a task of the run has found the
        vault before, only avoids the search. None if there is no such vault. Raises an error if the vault may be in a
        scope that the caller may not read.
        """
        return self._session.cache.get(
            lambda: self._found(name, group, not_before), "vault", name.lower(), not_before=not_before
        )

    def _found(self, name: str, group: str | None, not_before: NotBefore) -> Vault | None:
        before: Vault | None = self._session.cache.earlier("vault", name.lower())
        subscription = self._session.vault_subscription_id
        here = vault_ref(subscription, group, name) if group is not None else None
        place = before["id"] if before else here
        if place and (there := self.at(place, not_before)) is not None:
            return there
        found = self.named({name.lower()}, [subscription.lower()])[name.lower()]
        if isinstance(found, CmkError):
            raise found
        return found

    def _hidden(self, subscriptions: Sequence[str]) -> CmkError | None:
        """Why the lists of these subscriptions may not have all vaults.

        Azure may return 200 with only what the caller may read: Microsoft does not document this. The permissions are
        read after the lists: a role of the caller may end during the run.
        """
        listed_at = time.monotonic()
        gaps = map_concurrent(lambda one: self._gap(one, listed_at), subscriptions)
        return next((gap for gap in gaps.values() if gap), None)

    def _gap(self, subscription: str, listed_at: float) -> CmkError | None:
        scope, action = f"/subscriptions/{subscription}", f"{VAULTS}/read"
        permissions = value_or_error(lambda: self._resources.permissions(scope, listed_at), CmkError)
        if not isinstance(permissions, CmkError) and allows(permissions, action):
            return None
        why = str(permissions) if isinstance(permissions, CmkError) else f"The caller lacks {action} at this scope."
        message = f"The list of the key vaults of {scope} may be incomplete. {why} {_SEE_VAULTS}"
        if isinstance(permissions, Unavailable):
            return Unavailable(message, remedy="Try again.")
        return Denied(message, action=action, remedy=_SEE_VAULTS)

    def unseen(self, name: str) -> list[usage.Unlisted]:
        """For `usage.guard`: the unlisted scope if the vault is in no subscription that the caller can read. The
        caller may still use the keys of the vault, and so may accounts in that subscription."""
        found = value_or_error(lambda: self.find(name, None, RECENTLY), CmkError)
        if isinstance(found, Mapping):
            return []
        scope = f"the subscription of the key vault {name}"
        why = str(found) if isinstance(found, CmkError) else "The role Reader at the subscription is sufficient."
        reason = f"The caller cannot read the subscription of the key vault {name}. {why}"
        return [not_listed(scope, reason, READ_ACCOUNTS)]

    def named(self, names: Set[str], subscriptions: Sequence[str]) -> dict[str, Vault | CmkError | None]:
        """The vaults of these names, which are in lower case. They are searched for in these subscriptions and, if
        some are not found, in all other subscriptions that the caller can read.

        The value is None if there is no such vault, and an error if it may be in a scope that the caller may not read.
        """
        found, refused = self._in(subscriptions)
        if names - found.keys():
            others = [one for one in self._resources.listed_subscription_ids() if one.lower() not in subscriptions]
            more, refused_there = self._in(others)
            found, refused = {**more, **found}, refused or refused_there
            if names - found.keys():
                refused = refused or self._hidden([*subscriptions, *others])
        return {name: found.get(name, refused) for name in names}

    def _in(self, subscriptions: Sequence[str]) -> tuple[dict[str, Vault], CmkError | None]:
        """The vaults of the subscriptions by their names, and the error if a subscription could not be read."""
        found: dict[str, Vault] = {}
        refused = None
        for vaults, refused_there in map_concurrent(self._seen_in, subscriptions).values():
            found.update(vaults)
            refused = refused or refused_there
        return found, refused

    def _seen_in(self, subscription: str) -> tuple[dict[str, Vault], CmkError | None]:
        """The vaults of a subscription by their names, and the error if there may be more. If the subscription's
        list is refused, the lists of its resource groups are read."""
        listed = value_or_error(lambda: self.listed(subscription))
        if not isinstance(listed, CmkError):
            return listed, None
        groups = value_or_error(lambda: self._resources.groups(subscription)) if isinstance(listed, Denied) else []
        if isinstance(groups, CmkError):
            return {}, listed
        if isinstance(listed, Denied) and not groups:
            listed.add(
                "The caller can read no resource group either (Microsoft.Resources/subscriptions/resourceGroups/read)."
            )
        in_groups = map_concurrent(lambda group: value_or_error(lambda: self.listed(subscription, group)), groups)
        found: dict[str, Vault] = {}
        for vaults in in_groups.values():
            found.update({} if isinstance(vaults, CmkError) else vaults)
        return found, listed

    def listed(self, subscription: str, group: str | None = None) -> dict[str, Vault]:
        """The vaults of a subscription, or of one group, by their names in lower case."""
        what = f"resource group {group}" if group else f"subscription {subscription}"
        vaults = self._gateway.list(f"list the key vaults of the {what}", vault_ref(subscription, group))
        return {vault["name"].lower(): vault for vault in vaults}

    def deleted(self, names: Set[str], unreachable: Set[str]) -> dict[str, DeletedVault | CmkError | None]:
        """By these names, in lower case, the deleted vaults that can be recovered, in all subscriptions of the caller.

        `unreachable` are the names whose host does not respond. For these, the value is None only if the name is
        available. It is an error if the vault may exist, or may be deleted, in a scope that the caller cannot read.
        """
        subscriptions = self._resources.listed_subscription_ids() if names else []
        return self._deleted_among(names, unreachable, subscriptions)

    def find_deleted(self, name: str, *, is_unreachable: bool) -> DeletedVault | CmkError | None:
        """The same for one name, also in the task's own subscription."""
        names = {name.lower()}
        unreachable = names if is_unreachable else set()
        return self._deleted_among(names, unreachable, self._resources.subscription_ids())[name.lower()]

    def _deleted_among(
        self, names: Set[str], unreachable: Set[str], subscriptions: Sequence[str]
    ) -> dict[str, DeletedVault | CmkError | None]:
        listed = map_concurrent(lambda one: value_or_error(lambda: self._all_deleted(one), CmkError), subscriptions)
        refused, found = None, {}
        for vaults in listed.values():
            if isinstance(vaults, CmkError):
                refused = vaults
            else:
                found.update({vault["name"].lower(): vault for vault in vaults})
        hidden = map_concurrent(lambda name: self._may_exist(name, refused, subscriptions), unreachable - found.keys())
        return {name: found.get(name) or hidden.get(name) for name in names}

    def _may_exist(self, name: str, refused: CmkError | None, subscriptions: Sequence[str]) -> CmkError | None:
        """The error that the vault may exist or be recoverable although no list shows it; None if its name is
        available.

        The name of a vault is not available until the vault is purged, in any subscription. `refused` is the error
        of a list that could not be read.
        """
        free: bool | CmkError = False
        for subscription in subscriptions:
            free = value_or_error(partial(self.is_name_free, name, subscription), CmkError)
            if not isinstance(free, Denied):
                break
        if free is True:
            return None
        reasons = [one for one in (refused, free) if isinstance(one, CmkError)]
        text = f"The key vault {name} may exist or be recoverable in a subscription that the caller cannot read."
        if not reasons:
            text = f"The key vault {name} is in no subscription that the caller can read, and its name is taken."
        message = " ".join([text, *(one.msg for one in reasons)])
        if all(isinstance(one, Denied) for one in reasons):
            return Denied(f"{message} {_SEE_VAULTS}", action=READ_DELETED_VAULTS, remedy=_SEE_VAULTS)
        return Unavailable(f"{message} Try again.", remedy="Try again.")

    def is_name_free(self, name: str, subscription: str | None = None) -> bool:
        provider = f"/subscriptions/{subscription or self._session.subscription_id}/providers/Microsoft.KeyVault"
        return is_name_free(self._gateway, provider, "Microsoft.KeyVault/vaults", name)

    def deleted_here(self, name: str, subscription: str) -> DeletedVault | None:
        """The deleted vault. None also if the caller may not list deleted vaults. That is safe: the name of a
        deleted vault is not available, so no vault can be created with it."""
        try:
            deleted = self._all_deleted(subscription)
        except Denied:
            return None
        return next((vault for vault in deleted if vault["name"].lower() == name.lower()), None)

    def _all_deleted(self, subscription: str) -> list[DeletedVault]:
        def read() -> list[DeletedVault]:
            what = f"list the deleted key vaults of the subscription {subscription}"
            return self._gateway.list(what, f"/subscriptions/{subscription}/providers/Microsoft.KeyVault/deletedVaults")

        found: list[DeletedVault] = self._session.cache.get(read, "vault", "deleted", subscription)
        return found


def vault_ref(subscription: str, group: str | None = None, name: str | None = None) -> str:
    """The id of a vault, or of the list of the vaults of a resource group or a subscription."""
    place = f"/subscriptions/{subscription}" + (f"/resourceGroups/{group}" if group else "")
    return f"{place}/providers/Microsoft.KeyVault/vaults" + (f"/{name}" if name else "")
