# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors, with codes that a playbook can branch on.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


class CmkError(Exception):
    """A failure with a human-readable message and a stable code for playbooks.

    Facts are further values of the task's result: the option and its value, the remedy, the steps that were applied.
    """

    code = "failed"
    # Whether the failure concerns only an account, with its key, its vault and the caller's rights there. Otherwise it
    # concerns the run, such as a missing credential, throttling, or a network without a connection.
    is_of_account = False

    def __init__(self, msg: str, *, code: str | None = None, is_of_account: bool | None = None, **facts: Any) -> None:
        super().__init__(msg)
        self.msg = msg
        self.code = code or self.code
        self.is_of_account = self.is_of_account if is_of_account is None else is_of_account
        self.facts = facts

    def add(self, sentence: str) -> None:
        """Add a sentence to the message, such as the outcome of a rollback."""
        end = "" if self.msg.endswith((".", "!", "?")) else "."
        self.msg = f"{self.msg}{end} {sentence}"

    def result(self) -> dict[str, Any]:
        scope = {"scope": "account"} if self.is_of_account else {}
        return {"msg": self.msg, "code": self.code, **scope, **self.facts}


class InvalidOption(CmkError):
    """An option's value that is never valid; refused before anything is read or written."""

    code = "invalid_option"

    def __init__(self, option: str, value: Any, problem: str, remedy: str, *, code: str | None = None) -> None:
        given = "not set" if value is None else repr(value)
        super().__init__(
            f"{option} is {given}: {problem} {remedy}", code=code, option=option, value=value, remedy=remedy
        )


class Problems:
    """Collects invalid values of options, so that all of them are reported at once."""

    def __init__(self) -> None:
        self.found: list[InvalidOption] = []

    def of(self, parse: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `parse`. If `parse` raises InvalidOption, the error is collected, and the result must not be
        used before `refuse` is called."""
        try:
            return parse(*args, **kwargs)
        except InvalidOption as wrong:
            self.found.append(wrong)
            return cast(T, None)

    def add(self, option: str, value: Any, problem: str, remedy: str, *, code: str | None = None) -> None:
        self.found.append(InvalidOption(option, value, problem, remedy, code=code))

    def refuse(self) -> None:
        """Raise the collected errors as one error, if there are any."""
        if len(self.found) > 1:
            raise several([one.result() for one in self.found])
        if self.found:
            raise self.found[0]


def several(problems: Sequence[dict[str, Any]]) -> CmkError:
    """One error for several problems, each the result of an error. Its option is that of the first problem."""
    first = {name: value for name, value in problems[0].items() if name not in ("msg", "code", "scope", "remedy")}
    is_of_account = all(one.get("scope") == "account" for one in problems)
    message = f"{len(problems)} values are missing or wrong:{numbered([one['msg'] for one in problems])}"
    remedy = numbered([one["remedy"] for one in problems]).lstrip()
    return CmkError(
        message, code="invalid_option", is_of_account=is_of_account, **first, remedy=remedy, problems=list(problems)
    )


def numbered(sentences: Sequence[str]) -> str:
    """The end of a message: one sentence, or several as a numbered list with a line for each."""
    if len(sentences) == 1:
        return f" {sentences[0]}"
    return "".join(f"\n{number}. {sentence}" for number, sentence in enumerate(sentences, 1))


class Refused(CmkError):
    """This collection refuses the change because an account may lose its key (invariants I1 and I2)."""

    is_of_account = True


class NotFound(CmkError):
    code = "not_found"
    is_of_account = True


class Denied(CmkError):
    """The caller's own permissions do not allow it."""

    code = "permission_denied"
    is_of_account = True


class Rejected(CmkError):
    """The service has refused the request."""

    code = "rejected_by_service"
    is_of_account = True


class Unavailable(CmkError):
    """The service could not be reached or did not respond properly."""

    code = "service_unavailable"


class AccountUnavailable(Unavailable):
    code = "account_unavailable"
    is_of_account = True


class TimedOut(CmkError):
    code = "timed_out"


class NotConverged(CmkError):
    """The service has accepted the change, but a later read does not show it (invariant I4)."""

    code = "not_confirmed"


class PlanOutdated(CmkError):
    """Another task or user has created the resource, or moved the account, since the change was planned. Nothing
    was written, so the change can be planned again."""

    code = "plan_outdated"
    is_of_account = True


class MissingSdk(CmkError):
    code = "missing_sdk"
