# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables that set the keywords of the playbooks, and those that control how tasks run.

AWX passes a list as text. If a survey question was left blank, AWX passes an empty string, which counts as not set.

This plugin util is private to the collection.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Code, value_text

# Whether the accounts that were left alone fail the run.
LEFT_ALONE_FAILS = "cmk_left_alone_fails"
# What is accepted of accounts until a date, as in the audit.
EXCEPTIONS = "cmk_exceptions"
# The file of the report for programs.
REPORT_FILE = "cmk_report_file"
VARIABLES = (
    *("cmk_hosts", "cmk_hosts_required", "cmk_serial", "cmk_max_fail_percentage"),
    *("cmk_set_stats", "cmk_in_process", LEFT_ALONE_FAILS, EXCEPTIONS, REPORT_FILE, "cmk_drill_folder"),
)
# A variable of the collection's playbooks with the name of the variable for the next node of a workflow.
STATS = "__stats"
# A variable of each play of a playbook that continues the play before it.
CONTINUES = "__continues"
# AWX gives these variables to each job.
_OF_AWX = ("awx_job_id", "tower_job_id")
# What the callback plugin has counted so far, for the next node of a workflow.
REPORT = "report"
# The variable of the playbooks whose value the hosts share that need one clean-up together, and the name of the run's
# list of one host for each value.
CLEAN_UP = "__clean_up"
# What the callback plugin notes about the playbook that runs: its `number`, because a playbook may be imported twice,
# and `is_followed`, whether another playbook reports the accounts that were left alone.
PLAYBOOK = "playbook"
# By inventory source of this collection, why its accounts could not be listed; empty if they were listed.
INVENTORIES = "inventories"
_SIZE = re.compile(r"[1-9][0-9]*%?")
_PERCENTAGE = re.compile(r"[0-9]+(\.[0-9]+)?")


class WrongVariable(CmkError):
    code: Code = "invalid_option"

    def __init__(self, name: str, value: Any, problem: str, remedy: str) -> None:
        message = f"{name} is {value_text(str(value))}, which {problem}. {remedy}"
        super().__init__(message, variable=name, value=value, remedy=remedy)


def flag(name: str, value: Any, *, default: bool) -> bool:
    if is_blank(value):
        return default
    try:
        return bool(boolean(value.strip() if isinstance(value, str) else value))
    except TypeError:
        raise WrongVariable(name, value, "is neither true nor false", f"Set {name} to true or false.") from None


def hosts(value: Any, limit: Any, *, required: bool, matching: Callable[[str], list[str]]) -> str:
    """The pattern. If `required`, it must match a host within the limit, because Ansible skips a play without hosts
    and succeeds. `matching` returns the hosts that match a pattern."""
    pattern = pattern_of(value)
    if required and not _limited(pattern, limit, matching):
        raise WrongVariable(
            "cmk_hosts",
            pattern,
            "matches no host of the inventory" + (f" within the limit '{limit}'" if limit else ""),
            "Correct cmk_hosts or the limit, or set cmk_hosts_required: false.",
        )
    return pattern


def pattern_of(value: Any) -> str:
    if is_blank(value):
        return "localhost"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _limited(pattern: str, limit: Any, matching: Callable[[str], list[str]]) -> set[str]:
    """The hosts of the pattern within the limit."""
    hosts = set(matching(pattern))
    # A limit may be a file with the hosts that failed in an earlier run.
    return hosts & set(matching("all" if str(limit).startswith("@") else str(limit))) if limit else hosts


def require_inventory(listed: Mapping[str, str], *, is_empty: bool) -> None:
    """Raise an error if an inventory source could not be read: Ansible runs the play on the hosts of the others, or on
    none. `listed` is the value of INVENTORIES. `is_empty` is whether the inventory has neither hosts nor groups, which
    is right only if this collection has listed no account."""
    for path, failure in listed.items():
        if failure:
            raise CmkError(f"The inventory {path} could not be read. {failure}", code="invalid_option")
    if is_empty and not listed:
        raise CmkError(
            "The inventory has neither hosts nor groups, so Ansible could not read it. Correct the inventory (-i).",
            code="invalid_option",
        )


def in_awx(variables: Mapping[str, Any]) -> bool:
    return any(name in variables for name in _OF_AWX)


def sets_stats(value: Any, variables: Mapping[str, Any]) -> bool:
    """Whether the run passes on its result to the next node of a workflow. A check has no result."""
    return flag("cmk_set_stats", value, default=in_awx(variables)) and not variables.get("ansible_check_mode")


def left_alone_fails(value: Any) -> bool:
    return flag(LEFT_ALONE_FAILS, value, default=True)


def require_report_folder(value: Any) -> None:
    """Raise an error if the report of the run cannot be written to this file at the end of the run."""
    if is_blank(value):
        return
    file = Path(str(value))
    folder = file.parent
    if file.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        problem = "is a folder" if file.is_dir() else "cannot be written"
        raise WrongVariable(REPORT_FILE, value, problem, f"Set {REPORT_FILE} to a file in an existing folder.")


def require_own_account(name: Any, pattern: str, limit: Any, matching: Callable[[str], list[str]]) -> None:
    """Raise an error if an extra variable names one account (`name`) for several hosts of the pattern. A template may
    have another value for each host."""
    if is_blank(name) or "{{" in str(name):
        return
    hosts = _limited(pattern, limit, matching)
    if len(hosts) > 1:
        raise WrongVariable(
            "cmk_account_name",
            name,
            f"is an extra variable, so it is the account of each of the {len(hosts)} hosts of cmk_hosts",
            "Remove cmk_account_name or, to change only this account, cmk_hosts.",
        )


def serial(value: Any, default: list[int | str]) -> list[int | str]:
    """The sizes of the waves."""
    if is_blank(value):
        return default
    try:
        given = yaml_load(str(value)) if isinstance(value, str) else value
    except Exception:  # The exception depends on the parser, which is in C or in Python
        given = value
    sizes = given if isinstance(given, list) else [given]
    if not sizes or not all(_SIZE.fullmatch(str(size)) for size in sizes):
        raise WrongVariable(
            "cmk_serial",
            value,
            "is not a list of numbers and percentages",
            "Write it as [1, 10, '25%'], or as one number or percentage.",
        )
    return sizes


def max_fail_percentage(value: Any, default: float) -> float:
    if is_blank(value):
        return default
    text = str(value).strip().removesuffix("%")
    if not _PERCENTAGE.fullmatch(text) or float(text) > 100:
        problem = "is not a number from 0 to 100"
        raise WrongVariable("cmk_max_fail_percentage", value, problem, "Write how many percent of a wave may fail.")
    return float(text)


def is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
