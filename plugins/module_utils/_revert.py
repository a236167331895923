# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Batch account that goes back to a Microsoft-managed key, and what it leaves behind, stage by stage.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import _access, _encryption, _key, _key_goal
from ._errors import CmkError, InvalidOption, Refused
from ._ids import (
    KeyIdentifier,
    check_account_name,
    check_key_name,
    check_vault_name,
    key_of,
    parse_key_identifier,
    principals_of,
)
from ._plan import Step
from ._stages import Done, Stage, Stages, all_users_listed, of_account

STEPS = ("encryption", "key", "access")
_STATES = {"keep": None, "disable": "disabled", "delete": "absent"}


@dataclass(frozen=True)
class Goal:
    group: str
    account: str
    # What becomes of it; None if it stays as it is.
    key: _key_goal.Goal | None
    key_name: str
    vault: str
    vault_group: str
    withdraws_access: bool
    may_be_missing: bool
    # Whether somebody says that the account used this key before, which it does not tell any more itself.
    key_is_confirmed: bool

    def leaves_behind_key_of(self, account: Mapping[str, Any]) -> bool:
        has = key_of(account)
        return has is None or _is_key(has, self.vault, self.key_name)


def desired(params: Mapping[str, Any]) -> Goal:
    state, name = _STATES[params["key"]], check_key_name(params["key_name"], "key_name")
    vault = check_vault_name(params["vault_name"], "vault_name")
    wish = {
        **{"vault_name": params["vault_name"], "name": name, "state": state, "version": None},
        **dict.fromkeys(("key_type", "key_size", "expires_in", "extend_expired_by", "rotation_policy")),
        **{"max_version_age": None, "remove_rotation_policy": False, "new_version": False, "force": False},
        "enable_key": False,
    }
    return Goal(
        group=params["resource_group"],
        account=check_account_name(params["account_name"], "account_name"),
        key=_key.desired(wish) if state else None,
        key_name=name,
        vault=vault,
        vault_group=params["vault_resource_group"] or params["resource_group"],
        withdraws_access=params["access"] == "withdraw",
        may_be_missing=params["missing"] == "skip",
        key_is_confirmed=_confirmed(params["previous_key_identifier"], vault, name),
    )


def _confirmed(previous: str | None, vault: str, key_name: str) -> bool:
    if previous is None:
        return False
    if not _is_key(parse_key_identifier(previous, "previous_key_identifier"), vault, key_name):
        raise InvalidOption(
            "previous_key_identifier",
            previous,
            f"this is not the key {key_name} in {vault}, which vault_name and key_name name.",
            "Correct one of them.",
        )
    return True


def _is_key(key: KeyIdentifier, vault: str, name: str) -> bool:
    return key.vault == vault.lower() and key.name.casefold() == name.casefold()


def stages(goal: Goal, account: Mapping[str, Any] | None) -> Stages:
    """The stages of the whole, one after the other; what it returns is reported."""
    return of_account(goal, account, STEPS, _each, report)


def _each(goal: Goal, account: Mapping[str, Any], done: Done) -> Stages:
    _refuse_another_key(goal, account)
    if goal.key or goal.withdraws_access:
        what = "the key or the access to it would be taken away"
        # Of a vault that the account does not use, nothing but its name is known yet, and that may be wrong.
        vault = goal.vault if goal.key and key_of(account) else None
        yield all_users_listed(what, "set key and access to keep", vault)
    back = Stage("encryption", _encryption, _encryption.Goal(goal.group, goal.account, None, None), later=_later(goal))
    left_behind = list(_left_behind(goal, account))
    if left_behind and key_of(account) is None and not goal.key_is_confirmed:
        left_behind = []
        done.warnings.append(
            f"The Batch account {goal.account} is on a Microsoft-managed key already, so Azure does not show which key "
            "it used before. The key and the access to it were left as they are. Name that key with "
            "previous_key_identifier."
        )
    yield replace(back, foresee=True)
    for _step, stage in left_behind:
        yield from _foresee(stage)
    encryption = done.add("encryption", (yield back))
    # Only now is the key without its user, and in check mode it is not.
    for step, stage in () if encryption.foretold else left_behind:
        try:
            done.add(step, (yield stage))
        except CmkError as failure:
            done.keep(step, failure)


def _later(goal: Goal) -> tuple[tuple[str, Step], ...]:
    """What is written once the account is back: it cannot be foreseen while the account uses the key."""
    key = Step("delete" if goal.key and goal.key.state == "absent" else "update", {"vault": goal.vault})
    access = Step("revoke", {"vault": goal.vault})
    return (
        *((("keys", key),) if goal.key else ()),
        *((("access", access),) if goal.withdraws_access else ()),
    )


def _refuse_another_key(goal: Goal, account: Mapping[str, Any]) -> None:
    if (goal.key or goal.withdraws_access) and not goal.leaves_behind_key_of(account):
        raise Refused(
            f"The Batch account {goal.account} is on {key_of(account)}, not on the key {goal.key_name} in "
            f"{goal.vault}, so neither that key is put away nor access to that vault withdrawn. Correct vault_name and "
            "key_name, or set key and access to keep.",
            code="account_on_another_key",
            option="key_name",
            value=goal.key_name,
            remedy="Correct vault_name and key_name, or set key and access to keep.",
        )


def _left_behind(goal: Goal, account: Mapping[str, Any]) -> Iterator[tuple[str, Stage]]:
    """Accounts may share a vault and a key, so tasks take turns at these."""
    if goal.key:
        yield "key", Stage("keys", _key, goal.key, alone=goal.vault.lower())
    for principal in principals_of(account.get("identity", {})) if goal.withdraws_access else ():
        access = _access.Goal(goal.vault_group, goal.vault, False, principal, None, None, force=False)
        yield "access", Stage("access", _access, access, alone=goal.vault.lower())


def _foresee(stage: Stage) -> Stages:
    try:
        yield replace(stage, foresee=True)
    except CmkError as failure:
        # That the account still uses it is what the way back changes.
        if failure.code != "in_use":
            raise


def report(goal: Goal, account: Mapping[str, Any], done: Done) -> dict[str, Any]:
    """What is told beside the steps that were changed."""
    former = key_of(account)
    back = done.last("encryption")
    stands = back.after if back and not back.foretold else _encryption.describe(account)
    return {
        "account": goal.account,
        "exists": True,
        **{name: stands[name] for name in ("key_source", "key_identifier", "key_version", "follows_latest")},
        "answers": stands.get("answers"),
        "former_key_identifier": str(former) if former else None,
        "key_kept_for": done.kept_for.get("key", []),
        "access_kept_for": done.kept_for.get("access", []),
    }
