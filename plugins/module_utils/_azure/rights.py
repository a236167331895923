# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the caller has the rights that the steps of a plan need, before the first of them.

Steps of each service -> what they need. What cannot be read is no reason to refuse: Azure will, if it has to.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from .._checks.rights import KEY_ACTIONS, Right, VaultRight, is_in_no_policy, lacking
from .._core.concurrent import value_or_error
from .._core.errors import CmkError, Denied
from .._core.plan import Step
from .._core.rbac import allows
from .._resources.account.document import POOLS_READ
from .resources import Resources
from .session import Session

if TYPE_CHECKING:
    from .._resources.vault.client import Vaults


Needed = Right | VaultRight
_ACCOUNTS = "Microsoft.Batch/batchAccounts"
_VAULTS = "Microsoft.KeyVault/vaults"
_ASSIGNMENTS = "Microsoft.Authorization/roleAssignments"
_ASSIGNED = "Microsoft.ManagedIdentity/userAssignedIdentities"
_KEY_PERMISSIONS = {"set_rotation_policy": "setrotationpolicy"}
# Steps, each with its service's name.
Steps = Iterable[tuple[str, Step]]


class Rights:
    def __init__(self, session: Session, resources: Resources, vaults: Vaults) -> None:
        self._session = session
        self._resources = resources
        self._vaults = vaults

    def of(self, service: str) -> Callable[[Iterable[Step]], tuple[str, ...]]:
        """`require` for the steps of one service."""
        return lambda steps: self.require((service, step) for step in steps)

    def read_ahead(self, group: str) -> None:
        """The caller's permissions at a resource group, which `require` asks for."""
        self._resources.permissions(self._at(group, None))

    def require(self, steps: Steps) -> tuple[str, ...]:
        """Refuse all of the steps if the caller is seen to lack a right for one of them.

        In check mode, return the missing rights as warnings: another caller may run it.
        """
        needed = chain.from_iterable(self._needed(service, step) for service, step in steps)
        # A vault that does not exist would be looked for by each of the rights that are needed in it.
        vaults: dict[tuple[str, str | None], Any] = {}
        missing = [one for right in dict.fromkeys(needed) if (one := self._missing(right, vaults)) is not None]
        if missing and self._session.rehearsal is None:
            action, scope = missing[0]
            remedy = f"Grant the caller a role (or access policy) that allows {action} at {scope}."
            raise Denied(
                f"The change was not begun. {' '.join(lacking(*one) for one in missing)} {remedy}",
                action=action,
                missing_rights=[{"action": action, "scope": scope} for action, scope in missing],
                remedy=remedy,
            )
        return tuple(f"{lacking(*one)} A run by this caller would be refused." for one in missing)

    def _needed(self, service: str, step: Step) -> Iterator[Needed]:
        of_service: dict[str, Callable[[Step], Iterator[Needed]]] = {
            "accounts": self._for_account,
            "encryption": self._for_encryption,
            "vaults": self._for_vault,
            "access": _for_access,
            "keys": _for_key,
        }
        return of_service[service](step)

    def _for_account(self, step: Step) -> Iterator[Needed]:
        group, name = step.arguments["group"], step.arguments["name"]
        action = "delete" if step.action == "delete" else "write"
        yield Right(
            f"{_ACCOUNTS}/{action}", self._at(group, None if step.action == "create" else f"{_ACCOUNTS}/{name}")
        )
        if step.action == "create":
            # Azure is asked until the account is made.
            yield Right(f"{_ACCOUNTS}/operationResults/read", self._at(group, None))
        for identity in step.arguments.get("body", {}).get("identity", {}).get("userAssignedIdentities", {}):
            yield Right(f"{_ASSIGNED}/assign/action", identity)
            # Access is granted to its principal.
            yield Right(f"{_ASSIGNED}/read", identity)

    def _for_encryption(self, step: Step) -> Iterator[Needed]:
        if step.action == "set_encryption":
            place = {name: step.arguments[name] for name in ("group", "name")}
            yield from self._for_account(Step("update", place))
            # By its pools a change is confirmed.
            yield Right(POOLS_READ, self._at(place["group"], f"{_ACCOUNTS}/{place['name']}"))
            if vault := step.arguments.get("vault"):
                # And by who may use the key.
                where = {"looked_for_in": step.arguments["vault_group"], "seen": True}
                yield VaultRight(f"{_ASSIGNMENTS}/read", vault, policy_action=f"{_VAULTS}/read", **where)

    def _for_vault(self, step: Step) -> Iterator[Needed]:
        group, name = step.arguments["group"], step.arguments["name"]
        action = "delete" if step.action == "delete" else "write"
        resource = None if step.action == "create" else f"{_VAULTS}/{name}"
        yield Right(f"{_VAULTS}/{action}", self._at(group, resource, step.arguments.get("subscription")))

    def _at(self, group: str, resource: str | None, subscription: str | None = None) -> str:
        place = f"/subscriptions/{subscription or self._session.subscription_id}/resourceGroups/{group}"
        return f"{place}/providers/{resource}" if resource else place

    def _missing(self, right: Needed, vaults: dict[tuple[str, str | None], Any]) -> tuple[str, str] | None:
        """The action and the scope, if the caller is seen to lack it."""
        if isinstance(right, Right):
            return self._unless_allowed(right.action, right.scope, data=False)
        place = (right.vault.lower(), right.group or right.looked_for_in)
        if place not in vaults:
            vaults[place] = value_or_error(lambda: self._vault(right), CmkError)
        vault = vaults[place]
        if vault is None and right.group:
            # The creator of a vault with access policies is granted what is needed for its keys.
            action = right.action if right.by_role else right.policy_action
            is_data = right.permission is not None
            return self._unless_allowed(action, self._at(right.group, None), data=is_data) if action else None
        if right.seen and isinstance(vault, Denied):
            return f"{_VAULTS}/read", f"the key vault {right.vault}"
        if vault is None or isinstance(vault, CmkError):
            return None
        if vault["properties"].get("enableRbacAuthorization"):
            return self._unless_allowed(right.action, vault["id"], data=right.permission is not None)
        if right.policy_action:
            return self._unless_allowed(right.policy_action, vault["id"], data=False)
        if right.permission and is_in_no_policy(vault, right.permission):
            return f"the key permission {right.permission}", vault["id"]
        return None

    def _vault(self, right: VaultRight) -> dict[str, Any] | None:
        if right.group:
            return self._vaults.get(right.group, right.vault)
        return self._vaults.recent(right.vault, right.looked_for_in)

    def _unless_allowed(self, action: str, scope: str, *, data: bool) -> tuple[str, str] | None:
        """The resource group is asked for first: the tasks of a run share what it says."""
        permissions: Any = None
        for place in dict.fromkeys(("/".join(scope.split("/")[:5]), scope)):
            permissions = value_or_error(partial(self._resources.permissions, place), CmkError)
            if not isinstance(permissions, CmkError) and allows(permissions, action, data=data):
                return None
        return None if isinstance(permissions, CmkError) else (action, scope)


def _for_access(step: Step) -> Iterator[Needed]:
    arguments = step.arguments
    if step.action == "set_policy":
        yield Right(f"{_VAULTS}/accessPolicies/write", arguments["vault_id"])
    elif step.action == "assign":
        yield Right(f"{_ASSIGNMENTS}/write", arguments["scope"])
    elif step.action == "unassign":
        yield Right(f"{_ASSIGNMENTS}/delete", arguments["assignment_id"].rpartition(f"/providers/{_ASSIGNMENTS}/")[0])
    else:
        # `grant` and `revoke` of a later stage, whichever way the vault has.
        action = "write" if step.action == "grant" else "delete"
        place = {name: value for name, value in arguments.items() if name in ("group", "by_role")}
        policy_action = f"{_VAULTS}/accessPolicies/write"
        yield VaultRight(f"{_ASSIGNMENTS}/{action}", arguments["vault"], policy_action=policy_action, **place)
        if place:
            # In a vault that is yet to be made, nobody could look before.
            yield VaultRight(f"{_ASSIGNMENTS}/read", arguments["vault"], policy_action=f"{_VAULTS}/read", **place)


def _for_key(step: Step) -> Iterator[Needed]:
    place = {name: value for name, value in step.arguments.items() if name in ("group", "by_role")}
    permission = _KEY_PERMISSIONS.get(step.action, step.action)
    yield VaultRight(KEY_ACTIONS[permission], step.arguments["vault"], permission, **place)
    if place:
        looks = "getrotationpolicy" if permission == "setrotationpolicy" else "get"
        yield VaultRight(KEY_ACTIONS[looks], step.arguments["vault"], looks, **place)
