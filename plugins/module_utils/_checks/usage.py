# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which Batch accounts use a key (invariant I2).

Azure cannot be told to withdraw a key only if nobody uses it, and between our look and the withdrawal an account may
come. So we look once more after it, and give back what was withdrawn if one has.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from .._core.documents import Account
from .._core.errors import CmkError, Refused
from .._core.ids import KeyIdentifier, key_of, place_of, principals_of
from .._core.plan import Plan, Service, W
from .rights import READ_ACCOUNTS, READ_PERMISSIONS

_FORCE = "set force: true if such accounts may lose their key"


class Unlisted(TypedDict):
    """A scope that may have more accounts than could be listed."""

    scope: str
    reason: str
    # The action that the caller lacks there; None if no right is missing.
    action: str | None


class Visible(TypedDict):
    """The Batch accounts that the caller can see, and where there may be more of them."""

    accounts: list[Account]
    unlisted: list[Unlisted]


def on_key(visible: Visible, key: KeyIdentifier, followers_on: Iterable[str] | None = None) -> list[str]:
    """The ids of the accounts on this key, or on this version of it where the identifier has one.

    `followers_on` are the versions that an account which follows the key may be on.
    """
    return [account["id"] for account in visible["accounts"] if _is_on(key_of(account), key, followers_on)]


def _is_on(used: KeyIdentifier | None, key: KeyIdentifier, followers_on: Iterable[str] | None) -> bool:
    if used is None or not used.versionless.same(key.versionless):
        return False
    if key.version is None:
        return True
    return key.version in (followers_on or ()) if used.version is None else used.same(key)


def following(visible: Visible, key: KeyIdentifier) -> list[str]:
    """The ids of the accounts that follow this key, whichever its newest version is."""
    return [account["id"] for account in visible["accounts"] if key.versionless.same(key_of(account))]


def in_vault(visible: Visible, vault: str) -> list[str]:
    """The ids of the accounts whose key lies in this vault, or that refer to the vault because their pools are in the
    user's subscription (`keyVaultReference`)."""
    return [account["id"] for account in visible["accounts"] if vault.lower() in _vaults_of(account)]


def _vaults_of(account: Account) -> set[str]:
    key, reference = key_of(account), account["properties"].get("keyVaultReference")
    return {*([key.vault] if key else []), *([place_of(reference["id"])[2].lower()] if reference else [])}


def through_principal(visible: Visible, vault: str, principal: str, key_name: str | None) -> list[str]:
    """The ids of the accounts that reach a key of this vault as this principal."""

    def reaches(account: Account) -> bool:
        key = key_of(account)
        in_vault = key is not None and key.vault == vault.lower()
        named = key is not None and (key_name is None or key.name.casefold() == key_name.casefold())
        own = {one.lower() for one in principals_of(account.get("identity", {}))}
        return in_vault and named and principal.lower() in own

    return [account["id"] for account in visible["accounts"] if reaches(account)]


def guard(users: list[str], visible: Visible, what: str, *, force: bool) -> tuple[str, ...]:
    """Refuse what would cut off an account, or may cut off one that could not be listed. With `force`, return warnings
    that name the accounts and the scopes."""
    if users and not force:
        raise _in_use(what, users, visible)
    if not force:
        require_whole(visible, f"{what} while accounts that use it may exist there", _FORCE)
    names = ", ".join(users)
    warnings = (f"{what} although these Batch accounts use it and may lose their key: {names}.",) if users else ()
    return (*warnings, *map(not_listed, visible["unlisted"]))


def require_whole(visible: Visible, what: str, otherwise: str) -> None:
    """Refuse `what` if accounts may exist that could not be listed. `otherwise` is what a person can do instead of
    granting the right."""
    unlisted = visible["unlisted"]
    if not unlisted:
        return
    missing = [one["scope"] for one in unlisted if one["action"]]
    grant = f"grant the caller {READ_ACCOUNTS} and {READ_PERMISSIONS} at {', '.join(missing)}" if missing else ""
    remedy = f"{grant or 'Run the task again once they can be listed'}, or {otherwise}."
    remedy = remedy[0].upper() + remedy[1:]
    raise Refused(
        f"Refused: {what}. {' '.join(map(not_listed, unlisted))} {remedy}",
        code="users_unknown",
        unlisted=list(unlisted),
        remedy=remedy,
    )


def not_listed(unlisted: Unlisted) -> str:
    """A sentence on one of the `unlisted`."""
    return f"Not all Batch accounts of {unlisted['scope']} could be listed: {unlisted['reason']}"


@dataclass(frozen=True)
class AllListed:
    """The goal that the accounts of all subscriptions can be listed, that of the `vault` among them. For `what` and
    `otherwise` see `require_whole`."""

    what: str
    otherwise: str
    vault: str | None


def plan(goal: AllListed, visible: Visible) -> Plan[Service]:
    """No steps; the refusal if something could not be listed."""
    require_whole(visible, goal.what, goal.otherwise)
    return Plan(goal, {}, {})


def withdrawal(plan: Plan[W], back: Any, withdrawn: Any = True) -> Plan[W]:
    """A plan that takes something away, with a second look, unless what the look is for was allowed by force.

    `back` is the goal that gives it back. `withdrawn` marks the goal of the second look: what nobody may use by then.
    """
    if plan.goal.force:
        return plan
    return replace(plan, goal=replace(plan.goal, withdrawn=withdrawn), if_refused=back)


def _in_use(what: str, users: list[str], visible: Visible) -> CmkError:
    names, unlisted = ", ".join(users), visible["unlisted"]
    more = "".join(f" {not_listed(one)}" for one in unlisted)
    return Refused(
        f"Refused: {what} while Batch accounts use it: {names}. Switch them to another key first "
        f"(azbatch.cmk.batch_encryption), or set force: true if they may lose their key.{more}",
        code="in_use",
        accounts=users,
        unlisted=list(unlisted),
        remedy="Switch the accounts to another key, or set force: true.",
    )
