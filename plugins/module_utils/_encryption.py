# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key that a Batch account is on.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import _account, _diagnosis, _preflight
from ._errors import CmkError, Denied, InvalidOption, Refused, Unavailable
from ._ids import (
    KeyIdentifier,
    check_account_name,
    key_of,
    parse_key_identifier,
    principals_of,
    read_key_identifier,
)
from ._plan import Plan, Step
from ._summary import key_text, version_text

KEY_VAULT = "microsoft_keyvault"
BATCH = "microsoft_batch"


@dataclass(frozen=True)
class Goal:
    group: str
    account: str
    # None: a Microsoft-managed key.
    key: KeyIdentifier | None
    vault_group: str | None
    # Wait for an account that uses the key and is not available.
    patient: bool = False
    # An account that uses a different customer-managed key may be moved away from it.
    replaces: bool = False
    # Whether the account is to follow the key's newest version. None: as it does now, if it uses this key already;
    # otherwise, as the key identifier says.
    follow: bool | None = None
    # An account that is pinned to another version of the key is moved to this one.
    updates_version: bool = True
    # The way back from a switch that failed: what that was to reach. It is tried although the account is not available,
    # and leaves the account where somebody else has put it meanwhile.
    undoes: Goal | None = None
    # The key that the account used when this one was chosen for it.
    expected: KeyIdentifier | None = None
    # Nothing is changed, and that is no failure, if there is no such account.
    may_be_missing: bool = False

    @property
    def target(self) -> KeyIdentifier | None:
        """What an account is set to that does not meet the goal."""
        return self.key.versionless if self.key and self.follow else self.key

    def is_met_by(self, account: Mapping[str, Any]) -> bool:
        has = key_of(account)
        if self.key is None or has is None:
            return self.key is has
        if not self.key.same_key(has):
            return False
        if has.version is None:
            return self.follow is not False
        return not self.follow and (self.key.same(has) or not self.updates_version)

    def leaves_alone(self, account: Mapping[str, Any]) -> bool:
        """It uses the key; or on the way back, somebody else has put it where it is."""
        return self.is_met_by(account) or (self.undoes is not None and not self.undoes.has_set(account))

    def has_set(self, account: Mapping[str, Any]) -> bool:
        """Whether the account uses just what it is set to by this goal, and nothing else that meets the goal."""
        has, target = key_of(account), self.target
        return has.same(target) if has else target is None

    def was_moved(self, account: Mapping[str, Any]) -> bool:
        """Since this key was chosen for it, by somebody else."""
        return self.expected is not None and not self.expected.same(key_of(account))

    def standing(self, stands: Mapping[str, Any]) -> str:
        """How the account stands once it has been led back, in words."""
        on = stands["key_identifier"] or "a Microsoft-managed key"
        state = {True: "answers", False: "does not answer", None: "may or may not answer, which the caller may not ask"}
        return f"The account stands on {on} now and {state[stands['answers']]}."


def desired(params: Mapping[str, Any]) -> Goal:
    source, key = params["key_source"], params["key_identifier"]
    if source == KEY_VAULT and not key:
        raise InvalidOption("key_identifier", key, f"key_source: {source} needs it.", "Set it to the key to use.")
    if source == BATCH and key:
        raise InvalidOption(
            "key_identifier", key, f"it has no meaning with key_source: {source}.", "Leave out one of the two."
        )
    identifier, expected = (
        parse_key_identifier(key, "key_identifier") if key else None,
        params["expected_key_identifier"],
    )
    follow = params["follow_latest"]
    if identifier and identifier.version is None:
        if follow is False:
            raise InvalidOption(
                "follow_latest", follow, "key_identifier names no version.", "Add the version, or leave it out."
            )
        follow = True
    return Goal(
        group=params["resource_group"],
        account=check_account_name(params["account_name"], "account_name"),
        key=identifier,
        vault_group=params["vault_resource_group"],
        patient=params["await_answer"],
        replaces=params["replace_key"],
        follow=follow,
        updates_version=params["update_version"],
        expected=parse_key_identifier(expected, "expected_key_identifier") if expected else None,
        may_be_missing=params["missing"] == "skip",
    )


def plan(goal: Goal, observed: Mapping[str, Any]) -> Plan:
    if observed["account"] is None and goal.may_be_missing:
        missing = {"exists": False}
        return Plan(goal, missing, missing, warnings=(_account.missing(goal.group, goal.account),))
    account = _account.required(observed["account"], goal.group, goal.account)
    silence = observed["silence"]
    available = _account.availability(silence)
    before = {**describe(account), "answers": available}
    place = {"group": goal.group, "name": goal.account}
    if available is None and not goal.undoes and (goal.patient or not goal.leaves_alone(account)):
        raise _account.availability_unknown(goal.account, silence)
    if available is False and goal.patient and goal.is_met_by(account):
        wait = Step("await_answer", place)
        return Plan(goal, before, {**before, "answers": True}, (wait,))
    if available is False and goal.undoes is None:
        raise not_answering(goal.account, key_of(account), silence)
    if goal.leaves_alone(account) and not (observed.get("may_be_stale") and goal.is_met_by(account)):
        if observed.get("evidence"):
            _preflight.require(observed["evidence"], "and could when the account was pointed at it")
        return _unchanged(goal, before)
    if goal.was_moved(account):
        if observed["is_newer"]:
            return _unchanged(goal, before)
        raise Refused(
            f"The Batch account {goal.account} was moved from {goal.expected} to "
            f"{key_of(account) or 'a Microsoft-managed key'} by somebody else while this task chose a key for it. "
            "Run the task again.",
            code="account_moved",
            key_identifier=str(key_of(account) or "") or None,
            remedy="Run the task again.",
        )
    if goal.key and not goal.replaces:
        refuse_other_key(goal.account, key_of(account), goal.key)
    checks: tuple[_preflight.Check, ...] = ()
    if goal.key:
        evidence = observed["evidence"]
        checks = _preflight.require(evidence) if goal.undoes else _preflight.require_for_change(evidence)
    body = {"properties": {"encryption": _account.encryption_body(goal.target)}}
    sent = {**place, "body": body, "evidence": observed.get("evidence"), "despite_silence": goal.undoes is not None}
    has = key_of(account)
    follow = has.version is None if has else None
    former = replace(goal, key=has, vault_group=None, undoes=goal, follow=follow, updates_version=True, expected=None)
    return Plan(
        goal,
        before,
        {**before, **describe_key(goal.target), "answers": True},
        (Step("set_encryption", sent),),
        warnings=_preflight.warnings(checks),
        former=former,
        # A key to which the access is gone is lost in a moment, and the account with it; Microsoft's never is.
        if_refused=replace(former, key=None) if former.key else None,
        report={"preflight": _preflight.describe(checks), "previous_key_identifier": str(has) if has else None},
    )


def _unchanged(goal: Goal, before: Mapping[str, Any]) -> Plan:
    warnings = (_account.availability_warning(goal.account),) if before["answers"] is None else ()
    return Plan(goal, before, before, warnings=warnings, report={"previous_key_identifier": None})


def required_key(
    account: Mapping[str, Any], vault: str, name: str, or_already: KeyIdentifier | None = None
) -> KeyIdentifier:
    """The customer-managed key that the account uses: the named one, or already the one that it is to be moved to."""
    key = key_of(account)
    if key is None:
        raise Refused(
            f"The Batch account {account['name']} uses a Microsoft-managed key. Move it to a customer-managed key "
            "first, with azbatch.cmk.provision.",
            code="account_not_on_cmk",
            remedy="Move the account to a customer-managed key first, with azbatch.cmk.provision.",
        )
    if not key.is_named(vault, name) and not key.same(or_already):
        raise Refused(
            f"The Batch account {account['name']} uses {key}, not the key {name} in {vault}. Correct vault_name and "
            "key_name; to move the account to another key, set new_key_identifier to it.",
            code="account_on_another_key",
            option="key_name",
            value=name,
            remedy="Correct vault_name and key_name, or set new_key_identifier.",
        )
    return key


def refuse_other_key(name: str, has: KeyIdentifier | None, wanted: KeyIdentifier) -> None:
    """Another version of the same key is the ordinary case; a different key may be a typing error."""
    if has is None or has.versionless.same(wanted.versionless):
        return
    raise Refused(
        f"The Batch account {name} is on {has}, a different key than {wanted.versionless}. Correct the names of the "
        "vault and the key, or set replace_key: true to move the account.",
        code="account_on_another_key",
        option="replace_key",
        value=False,
        key_identifier=str(has),
        remedy="Correct the names of the vault and the key, or set replace_key: true.",
    )


def describe(account: Mapping[str, Any]) -> dict[str, Any]:
    """The module's return value."""
    return {"exists": True, "id": account["id"], "name": account["name"], **describe_key(key_of(account))}


def described(account: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the account's own document says of its key and identity."""
    if account is None:
        return {"exists": False}
    key = key_of(account)
    identity = account.get("identity", {})
    return {
        **describe(account),
        "vault_name": key.vault if key else None,
        "key_name": key.name if key else None,
        "identity": _account.describe_identity(identity),
        "principal_ids": list(principals_of(identity)),
    }


def summary(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """One line for a person. `before` and `after` are return values of the module."""
    if not after["exists"]:
        return f"There is no Batch account {name}."
    used, uses = before["key_identifier"], after["key_identifier"]
    previous = "" if used == uses else f" (before: {_previous(used, uses)})"
    available = {
        True: " The account is available again." if before["answers"] is False else "",
        False: " The account is not available.",
        None: " Whether the account is available is not known.",
    }
    return f"{after['name']} uses {key_text(uses)}{previous}.{available[after['answers']]}"


def _previous(used: str | None, uses: str | None) -> str:
    """Of the same key, the version is enough."""
    if used and uses:
        key = read_key_identifier(used)
        if key.same_key(read_key_identifier(uses)):
            return version_text(key.version) if key.version else "the latest version"
    return key_text(used)


def survey_summary(name: str, found: Mapping[str, Any]) -> str:
    """One line for a person, of the return value of the module that only looks."""
    if not found["exists"]:
        return f"There is no Batch account {name}."
    uses = f"{name} uses {key_text(found['key_identifier'])}"
    if "answers" not in found:
        return f"{uses}."
    state = {True: "is available", False: "is not available", None: "may or may not be available"}[found["answers"]]
    causes = ", ".join(cause["name"] for cause in (found["diagnosis"] or {}).get("causes", ()))
    return f"{uses} and {state}{f': {causes}' if causes else ''}."


def survey(observed: Mapping[str, Any]) -> dict[str, Any]:
    """The return value of the module that only looks."""
    account, silence, diagnosis = observed["account"], observed["silence"], observed["diagnosis"]
    if account is None:
        return {"exists": False}
    available = _account.availability(silence)
    return {
        **described(account),
        "answers": available,
        "silence": silence.msg if available is False else None,
        "diagnosis": _diagnosis.describe(diagnosis) if diagnosis else None,
    }


def survey_warnings(observed: Mapping[str, Any]) -> tuple[str, ...]:
    """What the module that only looks could not tell."""
    account = observed["account"]
    if account is None:
        return ()
    available = _account.availability(observed["silence"])
    if available is None:
        return (_account.availability_warning(account["name"]),)
    if available or not observed["diagnosis"]:
        return ()
    diagnosis = observed["diagnosis"]
    read = [diagnosis["evidence"][name] for name in ("vault", "bundle", "assignments")]
    hidden = [one for one in (*read, diagnosis["deleted_vault"]) if isinstance(one, Denied)]
    return tuple(f"Not all that may ail the account could be seen. {one.msg}" for one in hidden)


def describe_key(key: KeyIdentifier | None) -> dict[str, Any]:
    return {
        "key_source": KEY_VAULT if key else BATCH,
        "key_identifier": str(key) if key else None,
        "key_version": key.version if key else None,
        "follows_latest": key is not None and key.version is None,
    }


def not_answering(name: str, key: KeyIdentifier | None, silence: CmkError) -> Unavailable:
    return Unavailable(
        f"The Batch account {name} does not answer: {silence.msg} It stands on {key or 'a Microsoft-managed key'}. "
        "Bring it back with the role azbatch.cmk.recover, or find out why with azbatch.cmk.batch_encryption_info "
        "(diagnose: true). It answers within ten minutes after its identity can use the key again.",
        code="account_not_answering",
        key_identifier=str(key or "") or None,
        remedy="Bring the account back with the role azbatch.cmk.recover.",
    )
