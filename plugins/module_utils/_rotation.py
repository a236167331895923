# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Batch account that moves to a new version of its key, or to a different key, stage by stage.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import _access, _encryption, _key, _key_goal
from ._duration import seconds
from ._errors import CmkError, Refused
from ._ids import (
    KeyIdentifier,
    check_account_name,
    check_key_name,
    key_of,
    parse_key_identifier,
    principals_of,
    read_key_identifier,
)
from ._plan import Step
from ._stages import Done, Newest, Stage, Stages, all_users_listed, key_that_keeps_its_expiry, of_account

STEPS = ("key", "access", "encryption", "former_disabled")


@dataclass(frozen=True)
class Goal:
    group: str
    account: str
    # What the account is on already, or was before a switch that was begun.
    key: _key_goal.Goal
    vault_group: str | None
    # None: as it is.
    follow: bool | None
    # In place of a new version of that one.
    other_key: KeyIdentifier | None
    disable_former: bool
    # What the account used before, where somebody knows and the account does not tell any more.
    previous_key: KeyIdentifier | None
    # Seconds for which that stays enabled after accounts were moved.
    grace: int
    may_be_missing: bool
    counted_as: tuple[str, str]

    def names_key_of(self, account: Mapping[str, Any]) -> bool:
        """The account is on the key that is named or, already, on the one that it is to be on."""
        former = key_of(account)
        if former is None:
            return False
        is_named = former.vault == self.key.vault.lower() and former.name.casefold() == self.key.name.casefold()
        return is_named or former.same(self.other_key)


def desired(params: Mapping[str, Any]) -> Goal:
    other, previous = params["new_key_identifier"], params["previous_key_identifier"]
    return Goal(
        group=params["resource_group"],
        account=check_account_name(params["account_name"], "account_name"),
        key=_key.desired(
            {
                **{name: params[name] for name in ("vault_name", "key_size", "expires_in", "max_version_age")},
                **{name: params[name] for name in ("new_version", "rotation_policy", "enable_key")},
                "name": check_key_name(params["key_name"], "key_name"),
                **{"state": "present", "version": None, "key_type": None, "extend_expired_by": None},
                **{"remove_rotation_policy": False, "force": False},
            }
        ),
        vault_group=params["vault_resource_group"],
        follow=params["follow_latest"],
        other_key=parse_key_identifier(other, "new_key_identifier") if other else None,
        disable_former=params["previous_version"] == "disable",
        previous_key=parse_key_identifier(previous, "previous_key_identifier") if previous else None,
        grace=seconds(params["previous_version_grace"], "previous_version_grace", or_none=True) or 0,
        may_be_missing=params["missing"] == "skip",
        counted_as=counted_as(params),
    )


def counted_as(params: Mapping[str, Any]) -> tuple[str, str]:
    """What a run counts the key's forced versions by, and the account's forced rotations."""
    key = f"{params['vault_name']}/{params['key_name']}"
    # Subscriptions may have groups and accounts of the same names.
    account = f"{params.get('subscription_id') or ''}/{params['resource_group']}/{params['account_name']}"
    return key.casefold(), account.casefold()


def stages(goal: Goal, account: Mapping[str, Any] | None) -> Stages:
    """The stages of the whole, one after the other; what it returns is reported."""
    return of_account(goal, account, STEPS, _each, report)


def _each(goal: Goal, account: Mapping[str, Any], done: Done) -> Stages:
    former = _former_key(goal, account)
    if goal.disable_former:
        yield all_users_listed("the previous version would be disabled", "set previous_version: keep", former.vault)
    try:
        yield from _moved(goal, former, account, done)
    except CmkError as failure:
        now = failure.facts.get("key_identifier") if failure.code == "account_moved" else None
        # Somebody else has moved it to another version meanwhile, which may be newer than the one chosen here.
        if failure.facts.get("applied") or not now or not former.same_key(read_key_identifier(now)):
            raise
        yield from _moved(goal, read_key_identifier(now), account, done)


def _moved(goal: Goal, former: KeyIdentifier, account: Mapping[str, Any], done: Done) -> Stages:
    newest: Mapping[str, Any] = {}
    if goal.other_key:
        key = goal.other_key
        yield from _grant(goal, key, account, done)
    else:
        newest = yield from _newest_version(goal, former, done)
        follows = former.version is None if goal.follow is None else goal.follow
        key = replace(former, version=None if follows else newest["version"])
    # In check mode there is no version yet to point the account to, or no grant.
    if not done.foretold:
        switch = replace(_switch(goal, key), instead_of=former)
        done.add("encryption", (yield Stage("encryption", _encryption, switch, later=_later(goal))))
    if goal.disable_former and not done.foretold:
        yield from _disable_former(goal, former, key, newest, done)


def _former_key(goal: Goal, account: Mapping[str, Any]) -> KeyIdentifier:
    """The key that the account is on."""
    former = key_of(account)
    if former is None:
        raise Refused(
            f"The Batch account {goal.account} in {goal.group} is on a Microsoft-managed key. Put it on a "
            "customer-managed key first, with azbatch.cmk.provision.",
            code="account_not_on_cmk",
            remedy="Put the account on a customer-managed key first, with azbatch.cmk.provision.",
        )
    if not goal.names_key_of(account):
        raise Refused(
            f"The Batch account {goal.account} is on {former}, not on the key {goal.key.name} in {goal.key.vault}. "
            "Correct vault_name and key_name; to switch the account to another key, set new_key_identifier to it.",
            code="account_on_another_key",
            option="key_name",
            value=goal.key.name,
            remedy="Correct vault_name and key_name, or set new_key_identifier.",
        )
    return former


def _newest_version(goal: Goal, former: KeyIdentifier, done: Done) -> Stages:
    """Accounts may share a key, so the run makes one new version of it, and not for an account that is lost anyway."""
    newest = Newest(*goal.counted_as, former.version)
    wanted = Stage("keys", _key, goal.key, newest=newest, requires=_available(goal), later=_later(goal, moves=True))
    return done.add("key", (yield from key_that_keeps_its_expiry(wanted, done))).after


def _available(goal: Goal) -> tuple[str, Step]:
    return "encryption", Step("require_answer", {"group": goal.group, "name": goal.account})


def _later(goal: Goal, *, moves: bool = False) -> tuple[tuple[str, Step], ...]:
    """What is written after the first stages: the account, if it `moves` then, and the previous version or key."""
    place = {"vault": goal.key.vault, "vault_group": goal.vault_group}
    account = Step("set_encryption", {"group": goal.group, "name": goal.account, **place})
    # By the list of its versions, others than the newest are found to be there.
    disabled = [("keys", Step(action, {"vault": goal.key.vault})) for action in ("list", "update")]
    return (*((("encryption", account),) if moves else ()), *(disabled if goal.disable_former else ()))


def _switch(goal: Goal, key: KeyIdentifier) -> _encryption.Goal:
    is_other = goal.other_key is not None
    vault_group = None if is_other else goal.vault_group
    return _encryption.Goal(goal.group, goal.account, key, vault_group, replaces=is_other)


def _grant(goal: Goal, key: KeyIdentifier, account: Mapping[str, Any], done: Done) -> Stages:
    try:
        yield Stage("encryption", _encryption, _switch(goal, key), foresee=True, later=_later(goal))
    except CmkError as failure:
        # The one thing that may be amiss is what comes next.
        if failure.facts.get("failed_checks") != ["access_granted"]:
            raise
    for principal in principals_of(account.get("identity", {})):
        access = _access.Goal(None, key.vault, True, principal, None, None, force=False)
        done.add("access", (yield Stage("access", _access, access, later=_later(goal, moves=True))))


def _disable_former(
    goal: Goal, former: KeyIdentifier, key: KeyIdentifier, newest: Mapping[str, Any], done: Done
) -> Stages:
    """Unless accounts use it, or were moved off it within the grace time."""
    grace = _key_goal.Grace(goal.grace, done.outcomes["encryption"][-1].changed, key.versionless)
    for previous in _previous(goal, former, newest, done):
        wanted = replace(
            _withdrawal_of(goal, previous),
            not_after=(key.version or newest.get("version")) if previous.same_key(key) else None,
            grace=grace,
        )
        try:
            outcome = yield Stage(
                "keys",
                _key,
                wanted,
                once=("disable", previous.folded),
                alone=previous.vault,
                requires=_available(goal),
            )
        except CmkError as failure:
            done.keep("former", failure)
        else:
            done.add("former_disabled", outcome)


def _withdrawal_of(goal: Goal, previous: KeyIdentifier) -> _key_goal.Goal:
    wish = replace(goal.key, vault=previous.vault, name=previous.name, state="disabled", version=previous.version)
    return replace(wish, expires_in=None, rotation_policy=None, max_version_age=None, new_version=False)


def _previous(goal: Goal, former: KeyIdentifier, newest: Mapping[str, Any], done: Done) -> Iterable[KeyIdentifier]:
    """What the account used before, by its own document or because it is named; nothing else is ever disabled.

    Of its key, the version that the account was on, and the one before the newest: an account that follows, or that
    was moved already, was on that one. After a switch to a different key, the whole former one.
    """
    named, other = goal.previous_key, goal.other_key
    if other is None:
        versions = (former.version, newest["previous_version"])
        found = [replace(former, version=version) for version in versions if version]
        found += [named] if named else []
        is_used = replace(former, version=newest["version"])
    else:
        found = [] if former.same(other) else [former if former.same_key(other) else former.versionless]
        found = [named] if named else found
        is_used = other
        if not found:
            done.warnings.append(
                f"The account was on {former} already, so Azure does not show which key it used before, and none was "
                "disabled. Name that key with previous_key_identifier."
            )
    found = [one for one in found if not one.same_key(is_used) or one.version not in (None, is_used.version)]
    return {one.folded: one for one in found}.values()


def report(goal: Goal, account: Mapping[str, Any], done: Done) -> dict[str, Any]:
    """What is told beside the steps that were changed."""
    former = key_of(account)
    switched = done.last("encryption")
    stands = switched.after if switched and not switched.foretold else _encryption.describe(account)
    return {
        "account": goal.account,
        "exists": True,
        **{name: stands[name] for name in ("key_source", "key_identifier", "key_version", "follows_latest")},
        "answers": stands.get("answers"),
        "former_key_identifier": str(former) if former else None,
        "expiry_kept_for": done.kept_for.get("expiry", []),
        "former_kept_for": list(dict.fromkeys(done.kept_for.get("former", []))),
        "previous_kept_until": done.kept_until.get("former"),
    }
