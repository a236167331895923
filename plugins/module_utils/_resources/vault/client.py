# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key vaults as resources of Azure Resource Manager.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from ..._azure.creation import is_name_free, require_missing, until_shown
from ..._azure.driver import Driver
from ..._azure.gateway import Gateway
from ..._azure.polled import Polled
from ..._azure.session import Session
from ..._checks import usage
from ..._core import interrupts
from ..._core.concurrent import in_background
from ..._core.docs import Docs, Freshness, Rule
from ..._core.documents import Vault
from ..._core.errors import CmkError, NotFound, PlanOutdated, Rejected, Unavailable
from ..._core.ids import key_of, principals_of
from ..._core.plan import Step
from ..._documents import refs
from ..._documents.vault import is_unchanged_since_creation, name_taken
from ..._questions import vaults
from ..._questions.regions import of_type
from ..access.client import Access
from ..visible import VisibleAccounts
from .goal import Observed


class Vaults(Polled):
    def __init__(
        self,
        session: Session,
        driver: Driver,
        gateway: Gateway,
        visible: VisibleAccounts,
        access: Access,
    ) -> None:
        self._session = session
        self._driver = driver
        self._gateway = gateway
        self._visible = visible
        self._access = access
        # By name of a vault that this task has created, the ids of the accounts whose access had to be granted again.
        self._restored: dict[str, list[str]] = {}

    def read(self, goal: Any) -> Observed:
        vault = self.get(goal.group, goal.name)
        observed: Observed = {"vault": vault, "deleted": None}
        if not goal.present:
            return {**observed, "visible": self._visible.read()} if vault or goal.taken_away else observed
        if vault is not None:
            if goal.created:
                observed["restored"], observed["without_access"] = self._after_creation(goal)
            return observed
        own = self._session.subscription_id
        observed["caller"] = self._session.caller
        is_free, found = self._driver.solve(partial(_for_creation, goal=goal, subscription=own))
        observed.update(found)
        if not is_free:
            question = partial(vaults.deleted_here, name=goal.name, subscription=own)
            deleted = in_background(self._driver.solve, question)
            if goal.name.lower() in self._names_in(goal.group, Rule.OWN):
                observed["vault"] = self._await(goal.group, goal.name)
            observed["deleted"] = deleted.result()
        return observed

    def get(self, group: str, name: str) -> Vault | None:
        """The vault in the task's own subscription."""
        return self._driver.get(refs.vault(self._ref(group, name)))

    def _ref(self, group: str, name: str) -> str:
        return refs.vault_id(self._session.subscription_id, group, name)

    def _names_in(self, group: str, fresh: Freshness) -> list[str]:
        """The names of the vaults that are listed. Azure is eventually consistent: a listed vault exists even if a read
        does not find it."""
        listed = self._driver.get(refs.vaults_of(self._session.subscription_id, group), fresh)
        return [vault["name"].lower() for vault in listed or ()]

    def _await(self, group: str, name: str) -> Vault | None:
        """Wait until a read finds the vault, or until the vault is no longer listed. Returns the vault or None."""
        until_shown(
            self._session,
            self._driver,
            f"key vault {name}",
            is_shown=lambda: self.get(group, name) is not None,
            is_listed=lambda: name.lower() in self._names_in(group, time.monotonic()),
        )
        return self.get(group, name)

    def create(self, group: str, name: str, body: Mapping[str, Any]) -> None:
        """Create a vault or, according to the body, recover a deleted vault.

        A PUT replaces the access policies and tags of a vault that exists. Therefore nothing is written if the
        vault exists now (PlanOutdated). If the vault may have been created between the check and the PUT, the access of
        Batch accounts to its keys is granted again.
        """
        if body["properties"].get("createMode") == "recover":
            self._put(group, name, body)
            return

        provider = f"/subscriptions/{self._session.subscription_id}/providers/Microsoft.KeyVault"

        def require_still_missing() -> None:
            require_missing(
                self._session,
                f"key vault {name}",
                name_taken(name),
                is_free=lambda: is_name_free(self._driver, provider, "Microsoft.KeyVault/vaults", name),
                is_shown=lambda: self.get(group, name) is not None,
            )

        require_still_missing()
        try:
            is_new = self._put(group, name, body, if_late=require_still_missing)
        except BaseException:
            # The request may have reached Azure, whatever the error is.
            with suppress(CmkError):
                self.restore_access(group, name)
            raise
        if not is_new:
            self.restore_access(group, name)

    def _put(self, group: str, name: str, body: Mapping[str, Any], if_late: Callable[[], None] | None = None) -> bool:
        """Returns whether the response shows that the request has created the vault, and has not replaced a vault."""
        what, ref = f"create the key vault {name}", self._ref(group, name)
        try:
            creation = self._gateway.begin(what, "PUT", ref, body, if_late=if_late)
        except (PlanOutdated, Rejected):
            if self._session.journal.is_in_doubt(ref) and self.get(group, name):
                # An earlier try of the request has created the vault.
                self._session.journal.note_vault(name)
                return False
            raise
        if not self._gateway.finish(what, creation):
            is_shown = partial(self._is_created, group, name)
            until_shown(self._session, self._driver, f"key vault {name}", is_shown=is_shown, so_far="was created")
        self._session.journal.note_vault(name)
        if creation.polled is not None:
            # The poll has read the vault after the write.
            self._driver.keep(refs.vault(ref), creation.polled)
        return is_unchanged_since_creation(creation.document)

    def _is_created(self, group: str, name: str) -> bool:
        """Whether a read shows the vault, and its creation has ended."""
        vault = self.get(group, name)
        return vault is not None and vault["properties"].get("provisioningState", "Succeeded") == "Succeeded"

    def _restore_access_once(self, group: str, name: str) -> None:
        """Grant access to the Batch accounts whose key is in the vault, if the creation of the vault has removed it."""
        restored = self._restored.setdefault(name.lower(), [])
        for account_id, steps in self._without_access(group, name):
            for step in steps:
                step.apply(self._access)
            restored.append(account_id)

    def restore_access(self, group: str, name: str) -> None:
        """The same, repeated while Azure does not respond, because the next run finds an existing vault and does
        not restore access."""

        def obstacle() -> CmkError | None:
            try:
                self._restore_access_once(group, name)
            except (NotFound, Unavailable) as failure:
                if failure.code == "throttled":
                    raise
                self._driver.forget()
                return failure
            return None

        deadline = time.monotonic() + self._session.wait_timeout
        with interrupts.deferred():
            failure = self._session.poll_until(
                obstacle, deadline, f"access to the keys of the key vault {name} to be restored"
            )
        if failure is not None:
            raise failure

    def _after_creation(self, goal: Any) -> tuple[list[str], list[str]]:
        """The accounts whose access was restored, and those that still lack it."""
        restored = self._restored.get(goal.name.lower(), [])
        lacking = [account_id for account_id, _steps in self._without_access(goal.group, goal.name)] if restored else []
        return list(dict.fromkeys(restored)), lacking

    def _without_access(self, group: str, name: str) -> Iterator[tuple[str, tuple[Step[Any], ...]]]:
        """The accounts whose key is in the vault and that lack access to the key, with the steps that grant it."""
        visible = self._visible.everywhere()
        for account in visible["accounts"]:
            key = key_of(account)
            if key is None or key.vault != name.lower():
                continue
            for principal in principals_of(account.get("identity", {})):
                steps = self._access.steps_to_grant(group, name, principal, key.name)
                if steps:
                    yield account["id"], steps
        for unlisted in visible["unlisted"]:
            # The reason is not a missing right, so a retry may succeed.
            if unlisted["action"] is None:
                raise Unavailable(usage.not_listed(unlisted))

    def update(self, group: str, name: str, body: Mapping[str, Any]) -> None:
        """Change the vault. Network rules in the body replace the rules of the vault. If another task or user has
        changed the rules since they were read, nothing is written (PlanOutdated)."""
        rules = body["properties"].get("networkAcls")

        def require_same_rules() -> None:
            self._driver.forget("vault")
            vault = self.get(group, name) if rules else None
            if vault and {**vault["properties"].get("networkAcls", {}), "bypass": rules["bypass"]} != rules:
                raise PlanOutdated(
                    f"The network rules of the key vault {name} were changed by somebody else just before this task "
                    "would have changed them. This task changed nothing. Run the task again."
                )

        require_same_rules()
        ref = self._ref(group, name)
        self._gateway.write(f"change the key vault {name}", "PATCH", ref, body, if_late=require_same_rules)

    def delete(self, group: str, name: str) -> None:
        self._gateway.write(f"delete the key vault {name}", "DELETE", self._ref(group, name))


def _for_creation(docs: Docs, goal: Any, subscription: str) -> tuple[bool, Observed]:
    """Whether the name of the vault is available, and what a creation depends on. The permissions are read too, because
    they are checked next."""
    regions, place = refs.provider(subscription, "Microsoft.KeyVault"), refs.group(subscription, goal.group)
    name = vaults.name_check(subscription, goal.name)
    docs.want(name, refs.permissions_at(place.id), regions, *(() if goal.location else (place,)))
    found: Observed = {"regions": of_type(docs, regions, "vaults")}
    if not goal.location:
        found["group"] = docs.get(place) or {}
    said = docs.known(name)
    return isinstance(said, Mapping) and refs.is_free(said), found
