# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The goal of azbatch.cmk.keyvault_cmk_access.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..._checks.usage import ANY
from ..._core.duration import seconds
from ..._core.errors import InvalidOption, Problems, Refused
from ..._core.ids import (
    KeyIdentifier,
    UserAssignedId,
    check_account_name,
    check_guid,
    check_key_name,
    check_subscriptions,
    check_vault_name,
    parse_key_identifier,
    parse_previous_key,
    parse_user_assigned_id,
)
from ..._documents.account import Account, key_of
from ..._documents.encryption import on_another_key
from ..._documents.identity import principals_of

T = TypeVar("T")


@dataclass(frozen=True)
class AccessGoal:
    group: str | None
    vault: str
    present: bool
    principal_id: str | None
    identity_id: UserAssignedId | None
    key_name: str | None
    force: bool
    # The option `key_identifier`.
    identifier: str | None = None
    # Leave the access as it is if Batch accounts use it.
    keeps_used: bool = False
    # The key that is set on the account afterwards, and the vault and the name of the only other key that it may use.
    key: KeyIdentifier | None = None
    previous: tuple[str, str] | str | None = None
    # The services that use the vault (usage.py).
    vault_used_by: str = ANY
    # The time for which access stays granted after an account was changed that may have used it, in seconds.
    unused_for: int = 0
    # The id of the account that may lose its key. All other users count.
    canary: str | None = None
    # The id of the account that uses the key, or is about to use it.
    account: str | None = None


def desired(params: Mapping[str, Any]) -> AccessGoal:
    problems = Problems()

    def checked(check: Callable[[str, str], T], option: str) -> T | None:
        return None if params[option] is None else problems.of(check, params[option], option)

    problems.of(_require_one, params, "principal_id", "identity_id", "account_name")
    problems.of(_require_one, params, "vault_name", "key_identifier")
    key, vault_name = checked(parse_key_identifier, "key_identifier"), checked(check_vault_name, "vault_name")
    principal, key_name = checked(check_guid, "principal_id"), checked(check_key_name, "key_name")
    identity = checked(parse_user_assigned_id, "identity_id")
    account = checked(check_account_name, "account_name")
    unused_for = problems.of(seconds, params["unused_for"], "unused_for", or_none=True)
    checked(check_subscriptions, "users_in")
    if account and not params["account_resource_group"]:
        problems.add(
            "account_resource_group",
            None,
            "O(account_name) requires it.",
            "Set it to the resource group of the account.",
        )
    previous = checked(parse_previous_key, "previous_key")
    if previous and not (params["key_identifier"] and params["account_name"] and params["state"] == "present"):
        problems.add(
            "previous_key",
            params["previous_key"],
            "it has a meaning only with O(key_identifier), O(account_name) and O(state=present).",
            "Leave it out.",
        )
    problems.refuse()
    return AccessGoal(
        group=params["vault_resource_group"],
        vault=key.vault if key else str(vault_name),
        present=params["state"] == "present",
        principal_id=principal,
        identity_id=identity,
        key_name=key_name,
        force=params["force"],
        identifier=params["key_identifier"],
        keeps_used=params["in_use"] == "keep",
        key=key,
        previous=previous,
        vault_used_by=params["vault_used_by"],
        unused_for=unused_for or 0,
    )


def allows(goal: AccessGoal, account: Account) -> bool:
    """Whether the account uses the key, or one from which it may be moved to the key."""
    if not isinstance(goal.previous, tuple):
        return True
    has = key_of(account)
    return has is not None and (has.is_named(*goal.previous) or has.same_key(goal.key))


def of_account(goal: AccessGoal, account: Account) -> list[AccessGoal]:
    """A goal for each identity of a Batch account, because it is not known which identity Batch uses for the key."""
    if isinstance(goal.previous, tuple) and not allows(goal, account):
        raise on_another_key(account["name"], key_of(account), goal.previous)
    principals = principals_of(account.get("identity", {}))
    if not principals and goal.present:
        raise Refused(
            f"The Batch account {account['name']} has no identity to grant access to. Give the account an identity "
            "with M(azbatch.cmk.batch_account_identity).",
            code="account_without_identity",
            option="account_name",
            value=account["name"],
            remedy="Give the account an identity with M(azbatch.cmk.batch_account_identity).",
        )
    return [replace(goal, principal_id=principal, account=account["id"]) for principal in principals]


def _require_one(params: Mapping[str, Any], *options: str) -> None:
    given = [option for option in options if params[option] is not None]
    if len(given) != 1:
        option = given[-1] if given else options[0]
        *most, last = (f"O({one})" for one in options)
        listed = f"{', '.join(most)} and {last}"
        remedy = "Leave out the others." if given else "Set one of them."
        raise InvalidOption(option, params[option], f"exactly one of {listed} is required.", remedy)
