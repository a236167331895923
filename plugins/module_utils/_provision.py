# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Batch account that is put on a customer-managed key, from nothing or from any half-done state, stage by stage.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import _access, _account, _encryption, _key, _key_goal, _vault
from ._ids import (
    KeyIdentifier,
    check_account_name,
    check_key_name,
    check_vault_name,
    parse_key_identifier,
    read_key_identifier,
)
from ._plan import Step
from ._stages import Done, Stage, Stages, key_that_keeps_its_expiry, succeeded, whole

STEPS = ("vault", "account", "born_on_key", "access", "key", "encryption")
Known = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    vault: _vault.Goal
    # Without a key: on that it is put later, or born.
    account: _account.Goal
    key: _key_goal.Goal
    # None: an account that is on the key stays as it is, and a new one is pinned.
    follow: bool | None
    replaces: bool

    @property
    def is_system_assigned(self) -> bool:
        return self.account.identity_id is None


def desired(params: Mapping[str, Any]) -> Goal:
    check_vault_name(params["vault_name"], "vault_name")
    check_account_name(params["account_name"], "account_name")
    check_key_name(params["key_name"], "key_name")
    vault_group = params["vault_resource_group"] or params["resource_group"]
    return Goal(
        vault=_vault.Goal(
            group=vault_group,
            name=params["vault_name"],
            location=params["location"],
            authorization=params["authorization"],
            sku="standard",
            retention_days=90,
            recover=params["recover"],
            trusted_services=False,
            present=True,
            force=False,
        ),
        account=_account.desired(
            {
                **{name: params[name] for name in ("resource_group", "location", "identity_id", "adopt_existing")},
                "name": params["account_name"],
                "vault_resource_group": vault_group,
                **{"state": "present", "key_identifier": None, "force": False},
            }
        ),
        key=_key.desired(
            {
                **{name: params[name] for name in ("vault_name", "key_type", "key_size", "expires_in", "enable_key")},
                "name": params["key_name"],
                "rotation_policy": params["rotation_policy"],
                **{"state": "present", "version": None, "extend_expired_by": None, "max_version_age": None},
                **{"new_version": False, "remove_rotation_policy": False, "force": False},
            }
        ),
        follow=params["follow_latest"],
        replaces=params["replace_key"],
    )


def stages(goal: Goal) -> Stages:
    """The stages of the whole; what it returns is reported."""
    done = Done(STEPS)
    return (yield from whole(_each(goal, done), done, lambda: report(goal, done)))


def _each(goal: Goal, done: Done) -> Stages:
    """A vault, an account with an identity, its access, the key, and the account on it.

    A system-assigned identity exists, and can be granted access, only once its account does; others before.
    """
    yield from _foresee(goal, done)
    done.add("vault", (yield _of_vault(goal, "vaults", _vault, goal.vault)))
    # Azure takes its time for an account, and meanwhile there can be a key.
    parts = dict(_parts(goal, done))
    done.add_each(parts, (yield tuple(parts.values())))
    if goal.is_system_assigned:
        yield from _grant(goal, done)
    yield from _encrypt(goal, _identifier(goal, done.before["account"], done.outcomes["key"][-1].after), done)


def _parts(goal: Goal, done: Done) -> Iterator[tuple[str, Stage]]:
    """What needs no more than the vault."""
    if goal.is_system_assigned:
        yield "account", Stage("accounts", _account, goal.account)
    else:
        yield "access", _of_vault(goal, "access", _access, _access_for(goal, None))
    yield "key", _of_vault(goal, "keys", _key, _key_without(goal, done))


def _grant(goal: Goal, done: Done) -> Stages:
    principal = done.outcomes["account"][-1].after["identity"]["principal_id"]
    done.add("access", (yield _of_vault(goal, "access", _access, _access_for(goal, principal))))


def _foresee(goal: Goal, done: Done) -> Stages:
    """Whatever is refused is told before the first write."""
    vault, account = succeeded(
        (
            yield (
                Stage(
                    "vaults",
                    _vault,
                    goal.vault,
                    foresee=True,
                    requires=_known_availability(goal),
                    later=_later(goal),
                ),
                Stage(
                    "accounts",
                    _account,
                    goal.account,
                    foresee=True,
                    requires=_known_availability(goal),
                    later=_account_later(goal),
                ),
            )
        )
    )
    done.before["account"] = account.before
    _refuse_other_key(goal, account.before)
    # A vault that is yet to be made or recovered does not answer.
    if "id" in vault.after:
        key = Stage("keys", _key, goal.key, foresee=True, requires=_known_availability(goal))
        yield from key_that_keeps_its_expiry(key, done)
        principal = account.before.get("identity", {}).get("principal_id") if goal.is_system_assigned else None
        if principal or not goal.is_system_assigned:
            yield Stage("access", _access, _access_for(goal, principal), foresee=True)


def _refuse_other_key(goal: Goal, account: Known) -> None:
    """Before there is a vault: with a typing error in its name, one would be made."""
    has = _key_of(account)
    if has and not goal.replaces:
        wanted = KeyIdentifier(goal.vault.name.lower(), has.suffix, goal.key.name, None)
        _encryption.refuse_other_key(goal.account.name, has, wanted)


def _key_of(account: Known) -> KeyIdentifier | None:
    identifier = account.get("key_identifier")
    return read_key_identifier(identifier) if identifier else None


def _later(goal: Goal) -> tuple[tuple[str, Step], ...]:
    """What is written once there is a vault."""
    vault = _vault_later(goal)
    policy = (("keys", Step("set_rotation_policy", vault)),) if goal.key.rotation_policy else ()
    return ("access", Step("grant", vault)), ("keys", Step("create", vault)), *policy, *_switch_later(goal)


def _account_later(goal: Goal) -> tuple[tuple[str, Step], ...]:
    """What is written once the account is made, or has another identity. A new identity has no access yet."""
    grant = (("access", Step("grant", _vault_later(goal))),) if goal.is_system_assigned else ()
    return *grant, *_switch_later(goal)


def _vault_later(goal: Goal) -> dict[str, Any]:
    by_role = goal.vault.authorization != _vault.ACCESS_POLICY
    return {"vault": goal.vault.name, "group": goal.vault.group, "by_role": by_role}


def _switch_later(goal: Goal) -> tuple[tuple[str, Step], ...]:
    return (("encryption", Step("set_encryption", {"group": goal.account.group, "name": goal.account.name})),)


def _of_vault(goal: Goal, service: str, noun: Any, wanted: Any) -> Stage:
    """Accounts may share a vault and a key."""
    return Stage(service, noun, wanted, alone=goal.vault.name.lower(), requires=_known_availability(goal))


def _known_availability(goal: Goal) -> tuple[str, Step]:
    """Nothing is made for an account whose change could not be confirmed in the end."""
    return "encryption", Step("require_known_availability", {"group": goal.account.group, "name": goal.account.name})


def _access_for(goal: Goal, principal: str | None) -> _access.Goal:
    identity = goal.account.identity_id
    return _access.Goal(goal.vault.group, goal.vault.name, True, principal, identity, None, force=False)


def _key_without(goal: Goal, done: Done) -> _key_goal.Goal:
    """Without an expiry that was refused when it was foreseen."""
    return replace(goal.key, expires_in=None) if "expiry" in done.kept_for else goal.key


def _identifier(goal: Goal, account: Known, key: Known) -> KeyIdentifier:
    """An account that is pinned to a version of this key stays on it: moving it on is what rotation is for. So does one
    that follows the key, unless it is to be pinned."""
    newest, former = parse_key_identifier(key["key_identifier"], "key_identifier"), _key_of(account)
    if former is None or not former.same_key(newest):
        return newest.versionless if goal.follow else newest
    follows = former.version is None if goal.follow is None else goal.follow
    return newest.versionless if follows else former if former.version else newest


def _encrypt(goal: Goal, identifier: KeyIdentifier, done: Done) -> Stages:
    if not goal.is_system_assigned:
        born_on = None if done.before["account"]["exists"] else identifier
        account = replace(goal.account, key=born_on)
        done.add("born_on_key", (yield Stage("accounts", _account, account)))
    switch = _encryption.Goal(
        goal.account.group,
        goal.account.name,
        identifier,
        goal.vault.group,
        replaces=goal.replaces,
        # Somebody may have moved the account to a newer version since it was read.
        tolerates={None: "any", False: "pinned", True: None}[goal.follow],
    )
    done.add("encryption", (yield Stage("encryption", _encryption, switch)))


def report(goal: Goal, done: Done) -> dict[str, Any]:
    """What is told beside the steps that were changed."""
    account = done.before["account"]
    former = account.get("key_identifier")
    switched = done.last("encryption")
    if switched:
        stands = {"exists": True, **switched.after}
    else:
        key = parse_key_identifier(former, "key_identifier") if former else None
        stands = {"exists": account["exists"], **_encryption.describe_key(key)}
    return {
        "account": goal.account.name,
        **{name: stands[name] for name in ("exists", "key_source", "key_identifier", "key_version", "follows_latest")},
        "answers": stands.get("answers"),
        "former_key_identifier": former,
        "expiry_kept_for": done.kept_for.get("expiry", []),
    }
