# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares a play in check mode with the same play that then runs without check mode."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness import assert_predicted, change, short, writes
from service import Service

Result = dict[str, Any]
# The warning in check mode about a permission that the caller lacks. It is not an error, because another caller may run
# the play later.
WOULD_BE_REFUSED = "A run by this caller would be refused."
# The warning in check mode about a right that is needed to find out whether a name is taken.
UNKNOWN_NAME = "It is not known whether the name "
# The task of the role recover after which Azure shows the versions of a deleted key.
KEY_RECOVERED = "Recover the key 0"
# The task of the role recover after which Azure shows the permission model of a deleted vault.
VAULT_RECOVERED = "Recover the vault 0"
_GRANT = re.compile(r"Grant .* access to the key 0$")
# Takes the name and the result of each task.
Record = Callable[[str, Result], None]


def unrecorded(_task: str, _result: Result) -> None:
    pass


@dataclass(frozen=True)
class Played:
    """The report of a play, and the results of its tasks that have a diff or failed, by name and number in the loop."""

    report: Result
    tasks: dict[str, Result]

    @property
    def failure(self) -> tuple[str, str] | None:
        """The first task that failed, or for which a check warns that the run would be refused, and the error's code or
        message."""
        for name, one in self.tasks.items():
            is_warned = any(warning.endswith(WOULD_BE_REFUSED) for warning in one.get("warnings", ()))
            if is_warned or WOULD_BE_REFUSED in one.get("msg", ""):
                return name, "permission_denied"
            if one.get("failed"):
                return name, one["code"] if "code" in one else one["msg"]
        return None

    def before_failure(self) -> dict[str, Result]:
        """The tasks before the task that failed."""
        return dict(
            itertools.takewhile(lambda one: self.failure is None or one[0] != self.failure[0], self.tasks.items())
        )

    @property
    def first_changed(self) -> str | None:
        """The first task that changed something."""
        return next((name for name, one in self.tasks.items() if one.get("changed")), None)


def played(play: Callable[[Record], Result]) -> Played:
    tasks: dict[str, Result] = {}

    def record(name: str, result: Result) -> None:
        for number, one in enumerate(result.get("results", [result])):
            if "diff" in one or one.get("failed"):
                tasks[f"{name} {number}"] = one

    return Played(play(record), tasks)


def written(service: Service, since: int) -> list[str]:
    """The write requests after that request of the sandbox's log, including those that Azure rejected."""
    return short(writes(service.sandbox.control.requests(since)))


def assert_came_true(check: Played, run: Played, until: str | None = None, *, may_succeed: bool = False) -> None:
    """Check that the run failed as the check did, or changed the same tasks with the same diffs, except values that
    only Azure can assign. `until` is the last task whose result a check can predict; by default, the last task.
    `may_succeed` is whether Batch may accept a change of an account that the check refuses as not available."""
    predicted, came = check.before_failure(), run.before_failure()
    unneeded = _unneeded_grants(predicted, came)
    predicted, came = ({name: one[name] for name in one if name not in unneeded} for one in (predicted, came))
    # The run may fail in a later task.
    is_accepted = check.failure is not None and check.failure[1] == "account_unavailable" and check.failure[0] in came
    if until is None and predicted.get(KEY_RECOVERED, {}).get("changed"):
        until = KEY_RECOVERED
    ways = _is_not_shown(run.report), _is_unknown_name(check, run.report), _is_not_available_yet(run.report)
    if (check.failure is None and any(ways)) or _is_denied_by_policy(run.report):
        assert list(came) == list(predicted)[: len(came)], (list(predicted), run.report)
        predicted = {name: predicted[name] for name in came}
    elif until not in predicted and not (may_succeed and is_accepted):
        # A check names the missing rights beside another reason.
        also = (check.failure[0], check.report.get("code")) if check.failure and check.report.get("failed") else None
        assert run.failure in (check.failure, also), (check.report, run.report)
        assert list(predicted) == list(came), (check.report, run.report)
    is_repaired = False
    for name, one in predicted.items():
        assert name in came, f"{name} was not run: {run.report}"
        if _had_to_wait(one, came[name]) or _was_undone(one, came[name]):
            continue
        assert one["changed"] is came[name]["changed"], (name, one, came[name])
        # After a predicted repair, the role recover may name the cause that Azure shows, or the predicted cause.
        if "repairs" not in one:
            was_predicted, was_made = change(one), change(came[name])
            before = was_predicted["before"]
            if before.get("soft_deleted") or _is_unread(before) or name.endswith(VAULT_RECOVERED):
                was_predicted, was_made = _without_hidden(was_predicted), _without_hidden(was_made)
            assert_predicted(was_predicted, _shown(was_predicted, was_made, is_repaired), name)
        is_repaired = is_repaired or came[name]["changed"]
        if name == until:
            return


def _is_denied_by_policy(failure: Result) -> bool:
    """Whether the caller is in none of the groups of a vault's access policies. Azure shows that only if it refuses a
    change."""
    by_policy = failure.get("code") == "permission_denied" and failure.get("action", "").startswith("keys ")
    return bool(failure.get("failed") and by_policy)


def _is_not_shown(failure: Result) -> bool:
    """Whether a previous version that the account needs was disabled. Azure shows that only if it refuses a change."""
    return bool(failure.get("failed")) and failure.get("current_state", {}).get("available", False) is None


def _is_not_available_yet(failure: Result) -> bool:
    """Whether the run has repaired the key, and Batch has refused a later change of the account. Azure does not show
    how long Batch needs, so a check predicts that the account is available at once. Only the role recover waits."""
    is_unavailable = failure.get("code") == "account_unavailable"
    return is_unavailable and "the account has not recovered yet" in str(failure.get("azure"))


def _is_unknown_name(check: Played, failure: Result) -> bool:
    """Whether a check has warned that the name of a vault or an account may be taken, and it was."""
    warnings = [warning for one in check.tasks.values() for warning in one.get("warnings", ())]
    is_taken = failure.get("azure", {}).get("code") in ("ConflictError", "AccountAlreadyExists")
    return is_taken and any(warning.startswith(UNKNOWN_NAME) for warning in warnings)


def _unneeded_grants(predicted: dict[str, Result], came: dict[str, Result]) -> set[str]:
    """The tasks with a grant that the run has not needed. A recovered vault has its access policies, and no role
    assignments. Azure does not show either of a deleted vault, and a check assumes that access has to be granted."""
    is_recovered = any(
        (name.endswith(VAULT_RECOVERED) and one.get("changed")) or ("diff" in one and _is_unread(change(one)["before"]))
        for name, one in predicted.items()
    )
    grants = filter(_GRANT.search, predicted)
    return {name for name in grants if is_recovered and not came.get(name, {}).get("changed")}


def _had_to_wait(predicted: Result, came: Result) -> bool:
    """Whether the task waited for Batch to use a repaired key. Azure does not show how long Batch needs, so a check
    predicts that the account is available at once."""
    shown, found = change(predicted), change(came)
    is_wait = shown["before"] == shown["after"] == found["after"] and shown["before"].get("available") is True
    # If Batch responds with server errors meanwhile, it is not known whether the account is available.
    return is_wait and came["changed"] and {**found["before"], "available": True} == shown["before"]


def _was_undone(predicted: Result, came: Result) -> bool:
    """Whether the check has warned that accounts may lose their key within the margin, and they did. Azure shows that
    only after the change, which is undone then."""
    is_warned = any("may lose their key" in warning for warning in predicted.get("warnings", ()))
    return is_warned and any("The change was rolled back." in warning for warning in came.get("warnings", ()))


def _is_unread(key: Result) -> bool:
    """Whether the key is in a deleted vault, which has to be recovered before the key can be read."""
    return str(key.get("version")).startswith("(known after apply")


def _without_hidden(change: Result) -> Result:
    """The change of a key or vault that is recovered, without what Azure does not show of a deleted one: the older
    versions of the key, and the permission model of the vault."""
    hidden = ("previous_version", "previous_key_identifier", "enabled_versions", "authorization")
    return {side: {name: one for name, one in change[side].items() if name not in hidden} for side in change}


def _shown(predicted: Result, came: Result, is_repaired: bool) -> Result:
    """The change of the run. For ten minutes after a repair, Azure does not show whether the account is available, and
    a check predicts that it is."""

    def shown(side: str) -> Result:
        values: Result = came[side]
        hidden = is_repaired and values.get("available", False) is None and predicted[side].get("available") is True
        return {**values, "available": True} if hidden else values

    return {**came, "before": shown("before"), "after": shown("after")} if is_repaired else came
