# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors, with codes that a playbook can branch on.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, ParamSpec, TypeVar, cast

from .markup import plain

P = ParamSpec("P")
T = TypeVar("T")


# The codes of failures, in the order of docs/errors.md, which describes each of them.
Code = Literal[
    # Options
    "invalid_option",
    "location_not_available",
    # Signing in
    "credentials_missing",
    "secret_expired",
    "authentication_failed",
    "mfa_required",
    "missing_sdk",
    # Resource not found
    "subscription_not_found",
    "resource_group_not_found",
    "account_not_found",
    "identity_not_found",
    "vault_not_found",
    "version_not_found",
    "key_not_found",
    "not_found",
    # Service unavailable
    "unreachable",
    "vault_deleted",
    "vault_unreachable",
    "service_unavailable",
    "throttled",
    "account_failed",
    "account_under_way",
    "account_unavailable",
    "timed_out",
    # Rights
    "permission_denied",
    "denied_by_policy",
    "quota_exceeded",
    "resource_locked",
    "availability_unknown",
    "access_unknown",
    "network_denied",
    "vault_in_other_tenant",
    # Refused to protect an account
    "not_recoverable",
    "repair_not_allowed",
    "drill_refused",
    "drill_under_way",
    "preflight_failed",
    "in_use",
    "users_unknown",
    "account_not_on_cmk",
    "account_on_another_key",
    "recently_used",
    "identity_in_use",
    "account_without_identity",
    "identity_differs",
    "account_name_taken",
    "vault_not_premium",
    "vault_name_taken",
    "vault_authorization_differs",
    "vault_soft_deleted",
    "key_disabled",
    "key_soft_deleted",
    "key_type_differs",
    "rotation_policy_differs",
    "key_size_differs",
    # Audit
    "audit_failed",
    "audit_incomplete",
    "report_not_written",
    # Refused or not confirmed by Azure
    "rejected_by_service",
    "not_confirmed",
    "plan_outdated",
    # Interruptions and bugs
    "account_of_other_host",
    "canary_failed",
    "temporary_folder_unusable",
    "interrupted",
    "internal_error",
]
# The most characters of an error, or of each line of an error that reports several problems.
LONGEST = 200
# The most characters of a value in an error. The result has the value.
_LONGEST_VALUE = 60
# GUIDs, and versions of keys. Their first characters are enough to distinguish them.
_ID = re.compile(r"\b[0-9a-f]{8}(?:[0-9a-f]{24}|(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b", re.IGNORECASE)
_SHORT_ID = 8
# Azure names only the value of the subscription or the resource group that it has not found.
PLACE_NOT_FOUND: tuple[Code, ...] = ("subscription_not_found", "resource_group_not_found")
# The page of the installed version that describes each code.
MANUAL = "https://github.com/azbatch/azbatch.cmk/blob/1.0.0/docs/errors.md"


class CmkError(Exception):
    """A failure with a human-readable message and a stable code for playbooks.

    The message says what failed, why, and what to do, in at most `LONGEST` characters. The text of Azure is never in
    it, but is a fact (`azure`), and so are long evidence and the text of a library or a program (`details`). Facts are
    further values of the task's result, such as the option and its value, the remedy, and the steps that were applied.

    `msg` and the remedy mark options and modules (markup.py). `str(error)` is the message without marks.
    """

    code: Code | Literal["failed"] = "failed"
    # Whether the failure concerns only an account, with its key, its vault and the caller's rights there. Otherwise it
    # concerns the run, such as a missing credential, throttling, or a network without a connection.
    is_of_account = False

    def __init__(self, msg: str, *, code: Code | None = None, is_of_account: bool | None = None, **facts: Any) -> None:
        super().__init__(msg)
        self.msg = msg
        self.code = code or self.code
        self.is_of_account = self.is_of_account if is_of_account is None else is_of_account
        self.facts = facts

    def __str__(self) -> str:
        return plain(self.msg)

    def extended(
        self, *sentences: str, msg: str | None = None, is_of_account: bool | None = None, **facts: Any
    ) -> CmkError:
        """The error with another message, or with more sentences, such as the outcome of a rollback, and with more
        facts. A sentence begins another line if the line would be too long."""
        more = type(self).__new__(type(self))
        more.__dict__.update(self.__dict__)
        more.msg, more.facts = self.msg if msg is None else msg, {**self.facts, **facts}
        for sentence in sentences:
            joined = f"{more.msg}{'' if more.msg.endswith(('.', '!', '?')) else '.'} {sentence}"
            is_long = len(shortened(joined.rpartition("\n")[2], more.facts)) > LONGEST
            more.msg = f"{more.msg}\n{sentence}" if is_long else joined
        more.args = (more.msg,)
        more.is_of_account = self.is_of_account if is_of_account is None else is_of_account
        more.__cause__, more.__traceback__ = self.__cause__, self.__traceback__
        return more

    def result(self) -> dict[str, Any]:
        scope = {"scope": "account"} if self.is_of_account else {}
        return {"msg": shortened(self.msg, self.facts), "code": self.code, **scope, **self.facts}

    @property
    def problem(self) -> str:
        """The message without the remedy at its end, for an error that has another remedy."""
        return str(self).removesuffix(plain(self.facts.get("remedy", ""))).rstrip()

    @property
    def texts(self) -> dict[str, Any]:
        """The facts with the texts of others, for an error whose reason this error is."""
        return {name: self.facts[name] for name in ("azure", "details") if name in self.facts}

    @property
    def reported(self) -> str:
        """The message with the text of Azure, for a report, which has no other place for that text."""
        return " ".join([str(self), *reports(self.facts)])


def shortened(text: str, facts: Mapping[str, Any]) -> str:
    """The message with the first characters of the ids that the facts have in full. The value of an option is shown as
    the person wrote it."""
    beside = str({name: value for name, value in facts.items() if name not in ("remedy", "value", "problems")}).lower()
    return _ID.sub(lambda one: f"{one[0][:_SHORT_ID]}…" if one[0].lower() in beside else one[0], text)


def reports(facts: Mapping[str, Any]) -> list[str]:
    """What Azure, a library or a program has reported about a failure, as sentences."""
    azure, details = facts.get("azure"), facts.get("details")
    said = []
    if azure and azure.get("message"):
        code = f"({azure['code']}) " if azure.get("code") else ""
        said = [f"Azure reports: {code}{azure['message']}"]
    return [f"{one.rstrip('.')}." for one in [*said, *([details] if details else [])]]


def link_to(code: str) -> str:
    return f"{MANUAL}#{code}"


def documented(result: dict[str, Any]) -> dict[str, Any]:
    """The result of a task. That of a failure has the link to its code."""
    is_failure = "code" in result and "msg" in result
    return {**result, "documentation": link_to(result["code"])} if is_failure else result


class InvalidOption(CmkError):
    """An option's value that is never valid; refused before anything is read or written."""

    code: Code = "invalid_option"

    def __init__(self, option: str, value: Any, problem: str, remedy: str, *, code: Code | None = None) -> None:
        given = "not set" if value is None else value_text(value)
        super().__init__(
            f"O({option}) is {given}: {problem} {remedy}", code=code, option=option, value=value, remedy=remedy
        )


def value_text(value: Any) -> str:
    """The begin of a value. The result of the error has all of it."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


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

    def add(self, option: str, value: Any, problem: str, remedy: str, *, code: Code | None = None) -> None:
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
    """This collection refuses the change because an account may lose its key."""

    is_of_account = True


class NotFound(CmkError):
    code: Code = "not_found"
    is_of_account = True


class Denied(CmkError):
    """The caller's own permissions do not allow it."""

    code: Code = "permission_denied"
    is_of_account = True


class Rejected(CmkError):
    """The service has refused the request."""

    code: Code = "rejected_by_service"
    is_of_account = True


class Unavailable(CmkError):
    """The service could not be reached or did not respond properly."""

    code: Code = "service_unavailable"


class AccountUnavailable(Unavailable):
    code: Code = "account_unavailable"
    is_of_account = True


class TimedOut(CmkError):
    code: Code = "timed_out"


class NotConverged(CmkError):
    """The service has accepted the change, but a later read does not show it."""

    code: Code = "not_confirmed"


class PlanOutdated(CmkError):
    """Another task or user has created the resource, or moved the account, since the change was planned. Nothing
    was written, so the change can be planned again."""

    code: Code = "plan_outdated"
    is_of_account = True


def created_by_others(resource: str) -> PlanOutdated:
    """`resource` is its kind and name."""
    return PlanOutdated(
        f"Somebody else has just created the {resource}, so this task changed nothing. Run the task again."
    )


class MissingSdk(CmkError):
    code: Code = "missing_sdk"
