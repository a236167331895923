# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys in vaults: Key Vault's data plane.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ..._azure.driver import Driver
from ..._azure.gateway import Gateway
from ..._azure.polled import Polled
from ..._azure.session import Session
from ..._checks import usage
from ..._core.concurrent import in_background, value_or_error
from ..._core.docs import Freshness, Ref, Rule
from ..._core.documents import Account, KeyBundle, KeyItem, RotationPolicy, Vault
from ..._core.errors import CmkError, Denied, NotFound, TimedOut, Unavailable
from ..._core.ids import KeyIdentifier, key_in_vault, key_of, read_key_identifier
from ..._core.plan import Removed
from ..._documents import refs
from ..._documents.key import (
    CONFIRMED,
    newest_known,
    newest_usable,
    tags_of_change,
    version_for,
    version_of,
    was_disabled_as_unused,
)
from ..._documents.vault import HSM
from ..._questions import vaults
from ..._questions.evidence import deleted_key
from ..access.client import Access
from ..visible import VisibleAccounts
from . import disabled
from .goal import Observed


class Keys(Polled):
    def __init__(
        self, session: Session, driver: Driver, gateway: Gateway, visible: VisibleAccounts, access: Access
    ) -> None:
        self._session = session
        self._driver = driver
        self._gateway = gateway
        self._visible = visible
        self._access = access
        # The time by Key Vault's clock, because the times of keys are by that clock. Until the first response, the
        # local time.
        self.now = time.time()

    def read(self, goal: Any) -> Observed:
        named = self.identifier(goal.vault, goal.name)
        listed = in_background(self._versions, named)
        try:
            key = self.bundle(named)
        except Unavailable as unreachable:
            self._require_not_deleted(goal.vault, unreachable)
            raise
        versions: list[KeyItem] | None = listed.result() if key else []
        read = partial(self._version, named)
        if key and goal.state in ("present", "retired"):
            key = newest_usable(key, versions, self.now, read, counts_disabled=goal.enable)
        agreed = version_for(goal.new_version_for, key, versions, self.now) if key else None
        for known in (goal.at_least, agreed):
            if key and known:
                key = newest_known(key, versions, known, read)
        policy = self._driver.get(refs.rotation_policy_of(named)) if key and goal.looks_at_policy else None
        observed: Observed = {
            "identifier": named,
            "key": key,
            "named": read(goal.version) if key and goal.version else None,
            "versions": versions,
            "policy": policy,
            "deleted": None if key else self.deleted(named),
            "vault": self._of_hsm_key(goal) if not key else None,
            "times": usage.Times(),
            "now": self.now,
        }
        if goal.taken_away is not None or (key and goal.may_cut_off(policy)):
            observed = self._with_users(goal, observed)
        return observed

    def identifier(self, vault: str, name: str) -> KeyIdentifier:
        return KeyIdentifier(vault.lower(), self._session.environment.vault_suffix, name)

    def removed_earlier(self, goal: Any) -> Removed | None:
        """What was disabled or deleted, but not confirmed: by this task, or by a run that has ended before it has asked
        again."""
        named = self.identifier(goal.vault, goal.name)
        key = self.bundle(named)
        observed: Observed = {
            "key": key,
            "versions": self._versions(named) if key else None,
            "deleted": None if key or goal.state != "absent" else self.deleted(named),
            "now": self.now,
        }
        found = disabled.unconfirmed(goal, observed)
        return found and disabled.removed(goal, found[0], time.monotonic() - found[1])

    def confirm(self, removed: Removed) -> None:
        """Set the tag of the disabled versions, so that no later run asks again. If that fails, a later run asks."""
        goal = removed.goal
        for item in (goal.taken_away and self._versions(self.identifier(goal.vault, goal.name))) or ():
            if version_of(item) in goal.taken_away and was_disabled_as_unused(item):
                tags = tags_of_change(item["tags"], CONFIRMED)
                with suppress(CmkError):
                    self.update(goal.vault, goal.name, version_of(item), {"tags": tags})

    def _require_not_deleted(self, vault: str, unreachable: Unavailable) -> None:
        """The host of a deleted vault does not respond. If the vault was deleted, that is the error."""
        if unreachable.code != "vault_unreachable":
            return
        name, own = vault.lower(), self._session.subscription_id
        deleted = self._driver.solve(partial(vaults.deleted, names={name}, unreachable={name}, own=own))[name]
        if isinstance(deleted, Mapping):
            until = deleted["properties"].get("scheduledPurgeDate")
            remedy = (
                "Recover the accounts that use its keys with the role azbatch.cmk.recover, or the vault with "
                "azbatch.cmk.keyvault_cmk_vault (recover: true)."
            )
            text = f"The key vault {vault} was deleted, and can be recovered until {until}. {remedy}"
            raise NotFound(text, code="vault_deleted", remedy=remedy) from unreachable

    def takes_away(self, goal: Any) -> bool:
        return bool(goal.disables_or_deletes)

    def _of_hsm_key(self, goal: Any) -> Vault | None:
        """The vault in which a key of an HSM is to be created, if the caller can read it."""
        if goal.key_type != HSM:
            return None
        found = self._vault(goal.vault)
        return None if isinstance(found, CmkError) else found

    def _vault(self, name: str) -> Vault | CmkError | None:
        question = partial(vaults.find, name=name, subscription=self._session.vault_subscription_id, group=None)
        found: Vault | CmkError | None = value_or_error(partial(self._driver.solve, question, Rule.RECENT), CmkError)
        return found

    def _with_users(self, goal: Any, observed: Observed) -> Observed:
        """Add the accounts and pools that may use the key, and the times that show which versions they may use.

        The accounts are listed first. Their times, which need a request for each account, are read only if no account
        certainly uses what is to be disabled or deleted, and the pools only if no account may use it. After the change,
        the same is read again.
        """
        found = self._visible.everywhere()
        accounts, unseen = found["accounts"], vaults.unseen(self._vault(goal.vault), goal.vault)
        settled = usage.Times(changed_at={account["id"]: 0.0 for account in accounts})
        visible: usage.Visible = {"accounts": accounts, "disks": [], "unlisted": [*found["unlisted"], *unseen]}
        observed = {**observed, "visible": visible, "times": settled}
        may_be_free = not goal.disables_or_deletes or disabled.has_unused(goal, observed)
        depends_on_times = (goal.taken_away is not None or goal.disables_or_deletes) and not goal.force
        if may_be_free and depends_on_times:
            observed["times"] = self._times(observed["identifier"], accounts, may_have_left=goal.state != "retired")
            may_be_free = disabled.has_unused(goal, observed)
        if may_be_free:
            disks, unlisted = self._visible.disks(accounts)
            if depends_on_times:
                observed["times"] = self._with_pools(observed["times"], observed["identifier"], disks)
            observed["visible"] = {**visible, "disks": disks, "unlisted": [*visible["unlisted"], *unlisted]}
        if may_be_free and depends_on_times and goal.state != "absent":
            # An account that is not listed with the key any more has updated its version before it has left.
            observed["versions"] = self._versions(observed["identifier"], time.monotonic())
        return observed

    def _times(self, key: KeyIdentifier, accounts: Sequence[Account], *, may_have_left: bool) -> usage.Times:
        """When the accounts were changed that use the key and, with `may_have_left`, those that have access to it; and
        since when they have access."""
        uses = {one["id"] for one in accounts if key.same_key(key_of(one))}
        # The access that the run has granted may not be shown yet.
        lately = self._session.journal.written_lately()
        left = {one["id"] for one in accounts if any(map(key.same_key, lately.get(one["id"].lower(), ())))}
        counted = accounts if may_have_left else [one for one in accounts if one["id"] in uses | left]
        users = {one["id"]: (usage.principals(one), one["id"] in uses | left) for one in counted}
        access = self._access.since_when(key, users, self.now)
        asked = [account for account in accounts if account["id"] in access]
        changed_at, _now = self._visible.changed_at(asked)
        left_key = [name for name in changed_at if name not in uses and may_have_left]
        return usage.Times(changed_at, access, left_key)

    def _with_pools(self, times: usage.Times, key: KeyIdentifier, disks: Sequence[usage.DiskKey]) -> usage.Times:
        """The times, with those since when the pools have access that use the key."""
        used = ((disk, disk["key"]) for disk in disks)
        pools = {
            disk["id"]: (disk["principals"], True)
            for disk, identifier in used
            if identifier and read_key_identifier(identifier).same_key(key)
        }
        since = self._access.since_when(key, pools, self.now) if pools else {}
        return replace(times, access_since={**times.access_since, **since})

    def bundle(self, key: KeyIdentifier, fresh: Freshness = Rule.OWN) -> KeyBundle | None:
        """The key version or, if the identifier has no version, the newest version; None if it does not exist."""
        read = self._driver.read(refs.key(key), fresh)
        self.now = read.now or time.time()
        bundle: KeyBundle | None = read.value
        return bundle

    def _version(self, key: KeyIdentifier, version: str) -> KeyBundle | None:
        return self.bundle(replace(key, version=version))

    def newest_usable(self, key: KeyIdentifier) -> KeyBundle | None:
        """The newest version of the key that is enabled and valid now, or the newest version if there is none; None if
        the key does not exist."""
        newest = self.bundle(key.versionless)
        if newest is None:
            return None
        return newest_usable(newest, self.versions(key), self.now, partial(self._version, key), counts_disabled=False)

    def versions(self, key: KeyIdentifier, fresh: Freshness = Rule.OWN) -> list[KeyItem]:
        """All versions of the key."""
        return self._driver.get(refs.versions_of(key), fresh) or []

    def _versions(self, key: KeyIdentifier, fresh: Freshness = Rule.OWN) -> list[KeyItem] | None:
        """All versions; None if the caller may read the key but not list its versions."""
        try:
            return self.versions(key, fresh)
        except Denied:
            return None

    def deleted(self, key: KeyIdentifier) -> KeyBundle | None:
        found: KeyBundle | None = self._driver.solve(partial(deleted_key, key=key), time.monotonic())
        return found

    def restorations(self, vault: str, name: str) -> int:
        """How often tasks of the run have created, enabled or recovered the key or a version of it."""
        return int(self._session.files.load("restorations", key_in_vault(vault, name)) or 0)

    def _count_restoration(self, vault: str, name: str) -> None:
        counted = ("restorations", key_in_vault(vault, name))
        with self._session.files.locked(*counted):
            self._session.files.store(self.restorations(vault, name) + 1, *counted)

    def create(self, vault: str, name: str, body: Mapping[str, Any]) -> None:
        """Create a key, or a new version of an existing key."""
        self._count_restoration(vault, name)
        self._gateway.write(
            f"create a version of the key {name} in {vault}", "POST", f"{self._ref(vault, name)}/create", body
        )

    def update(self, vault: str, name: str, version: str, body: Mapping[str, Any]) -> None:
        if body.get("attributes", {}).get("enabled"):
            self._count_restoration(vault, name)
        self._gateway.write(f"change the key {name} in {vault}", "PATCH", f"{self._ref(vault, name)}/{version}", body)

    def touch(self, key: KeyIdentifier) -> None:
        """Update an enabled version without a change."""
        body = {"attributes": {"enabled": True}}
        what = f"update version {key.version} of the key {key.name} in {key.vault} without a change"
        self._gateway.write(what, "PATCH", f"{self._ref(key.vault, key.name)}/{key.version}", body)

    def set_rotation_policy(self, vault: str, name: str, policy: RotationPolicy) -> None:
        what = f"set the rotation policy of the key {name} in {vault}"
        self._gateway.write(what, "PUT", f"{self._ref(vault, name)}/rotationpolicy", policy)

    def delete(self, vault: str, name: str) -> None:
        self._gateway.write(f"delete the key {name} in {vault}", "DELETE", self._ref(vault, name))
        self._await("deletion", name, refs.deleted_key(self.identifier(vault, name)))

    def recover(self, vault: str, name: str) -> None:
        self._count_restoration(vault, name)
        key = self.identifier(vault, name)
        self._gateway.write(f"recover the key {name} in {vault}", "POST", f"{refs.deleted_key(key).id}/recover")
        self._await("recovery", name, refs.key(key))

    def _await(self, what: str, name: str, ref: Ref[KeyBundle]) -> None:
        """Wait until a read shows the result of the operation. If the caller may not read it, the operation has ended:
        until then, Key Vault reports that it is missing."""

        def not_shown() -> TimedOut | None:
            with suppress(Denied):
                if self._driver.get(ref, time.monotonic()) is None:
                    return TimedOut(
                        f"The {what} of the key {name} was not finished in {wait} s. Run the task again.",
                        option="wait_timeout",
                        value=wait,
                    )
            return None

        wait = self._session.wait_timeout
        failure = self._session.poll_until(
            not_shown, time.monotonic() + wait, f"the {what} of the key {name} to finish"
        )
        if failure is not None:
            raise failure

    def _ref(self, vault: str, name: str) -> str:
        return str(self.identifier(vault, name))
