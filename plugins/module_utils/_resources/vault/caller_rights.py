# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks that the caller has the rights for the steps of a plan, before the first step.

If permissions cannot be read, the change is not refused here. Azure refuses the request if a right is missing.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from ..._azure.cache import RECENTLY
from ..._azure.resources import Resources
from ..._azure.session import Session
from ..._checks.rights import VAULTS, Needed, NeededRights, Right, VaultRight, in_group, is_in_no_policy, lacking
from ..._core.concurrent import value_or_error
from ..._core.errors import CmkError, Denied
from ..._core.plan import Step
from ..._core.rbac import allows
from ..vault.document import uses_rbac
from ..vault.reads import VaultReads


class CallerRights:
    def __init__(self, session: Session, resources: Resources, vaults: VaultReads) -> None:
        self._session = session
        self._resources = resources
        self._vaults = vaults

    def of(self, needed: NeededRights) -> Callable[[Iterable[Step[Any]]], tuple[str, ...]]:
        """A function that calls `require` with the rights for the steps of a plan."""
        return lambda steps: self.require(needed.by(steps))

    def require(self, needed: Iterable[Needed]) -> tuple[str, ...]:
        """Raise Denied if the permissions show that the caller lacks one of the rights.

        In check mode, return the missing rights as warnings, because another caller may make the change.
        """
        # Without this cache, each right at a vault that does not exist would search for the vault again.
        vaults: dict[tuple[str, str | None], Any] = {}
        rights = dict.fromkeys(map(self._in_subscription, needed))
        missing = self._all_missing(rights, vaults)
        if missing:
            # The rights may have been granted since another task of the run read the permissions.
            self._session.cache.forget("permissions", "vault")
            vaults.clear()
            missing = self._all_missing(rights, vaults)
        if missing and not self._session.predicts:
            action, scope = missing[0]
            # The error of a vault that was not found also names the right that would show the vault.
            hidden = [f" {vault.msg}" for vault in vaults.values() if isinstance(vault, Denied)]
            remedy = f"Grant the caller a role (or access policy) that allows {action} at {scope}."
            raise Denied(
                f"The change was not started. {' '.join(lacking(*one) for one in missing)}{''.join(hidden)} {remedy}",
                action=action,
                missing_rights=[{"action": action, "scope": scope} for action, scope in missing],
                remedy=remedy,
            )
        return tuple(f"{lacking(*one)} A run by this caller would be refused." for one in missing)

    def _all_missing(
        self, rights: Iterable[Needed], vaults: dict[tuple[str, str | None], Any]
    ) -> list[tuple[str, str]]:
        return [one for right in rights if (one := self._missing(right, vaults)) is not None]

    def _in_subscription(self, right: Needed) -> Needed:
        """The right. If its scope names no subscription, the scope is in the task's own subscription."""
        if isinstance(right, VaultRight) or not right.scope.startswith(in_group("")):
            return right
        return replace(right, scope=self._own(right.scope))

    def _own(self, scope: str) -> str:
        return f"/subscriptions/{self._session.subscription_id}{scope}"

    def _missing(self, right: Needed, vaults: dict[tuple[str, str | None], Any]) -> tuple[str, str] | None:
        """The action and the scope, if the permissions show that the caller lacks the right."""
        if isinstance(right, Right):
            return self._unless_allowed(right.action, right.scope, data=False)
        place = (right.vault.lower(), right.looked_for_in)
        if place not in vaults:
            vaults[place] = value_or_error(
                lambda: self._vaults.find(right.vault, right.looked_for_in, RECENTLY), CmkError
            )
        vault = vaults[place]
        if right.reads_vault and isinstance(vault, Denied):
            return f"{VAULTS}/read", f"the key vault {right.vault}"
        if vault is None or isinstance(vault, CmkError):
            return None
        if uses_rbac(vault):
            return self._unless_allowed(right.action, vault["id"], data=right.permission is not None)
        if right.policy_action:
            return self._unless_allowed(right.policy_action, vault["id"], data=False)
        if right.permission and is_in_no_policy(vault, right.permission):
            return f"the key permission {right.permission}", vault["id"]
        return None

    def _unless_allowed(self, action: str, scope: str, *, data: bool) -> tuple[str, str] | None:
        """The permissions at the resource group are read first, because the tasks of a run share them."""
        permissions: Any = None
        for place in dict.fromkeys(("/".join(scope.split("/")[:5]), scope)):
            permissions = value_or_error(partial(self._resources.permissions, place), CmkError)
            if not isinstance(permissions, CmkError) and allows(permissions, action, data=data):
                return None
        return None if isinstance(permissions, CmkError) else (action, scope)
