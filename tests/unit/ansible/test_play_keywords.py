# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables that set the keywords of the playbooks: valid values, and errors of invalid values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.plugin_utils import _play_keywords as keywords

BLANK = [None, "", "  "]
GROUPS = {"all": ["a", "b", "localhost"], "canary": ["a"], "none": [], "a,b": ["a", "b"], "localhost": ["localhost"]}


def hosts(value: Any, limit: Any = None, *, required: bool = True) -> str:
    return keywords.hosts(value, limit, required=required, matching=lambda pattern: GROUPS.get(pattern, []))


@pytest.mark.parametrize(
    ("value", "limit", "pattern"),
    [
        *((blank, None, "localhost") for blank in BLANK),
        ("canary", None, "canary"),
        ("canary", "@site.retry", "canary"),
        (["a", "b"], None, "a,b"),
    ],
)
def test_hosts(value: Any, limit: str | None, pattern: str) -> None:
    assert hosts(value, limit) == pattern


@pytest.mark.parametrize(("value", "limit"), [("none", None), ("canary", "localhost"), (0, None), ("nobody", "@x")])
def test_hosts_that_match_nothing(value: Any, limit: str | None) -> None:
    with pytest.raises(keywords.WrongVariable) as wrong:
        hosts(value, limit)

    within = f" within the limit '{limit}'" if limit else ""
    assert str(wrong.value).startswith(f"cmk_hosts is '{value}', which matches no host of the inventory{within}. ")
    assert hosts(value, limit, required=False) == str(value)


@pytest.mark.parametrize(
    ("name", "pattern", "limit", "is_wrong"),
    [
        pytest.param("account1", "all", None, True, id="one account for several hosts"),
        pytest.param("account1", "all", "@site.retry", True, id="the limit is a file"),
        pytest.param("account1", "all", "canary", False, id="the limit leaves one host"),
        pytest.param("{{ inventory_hostname }}", "all", None, False, id="another value for each host"),
        *(pytest.param(blank, "all", None, False, id=f"blank: {blank!r}") for blank in BLANK),
    ],
)
def test_an_extra_variable_for_one_account(name: Any, pattern: str, limit: str | None, is_wrong: bool) -> None:
    def check() -> None:
        keywords.require_own_account(name, pattern, limit, lambda asked: GROUPS.get(asked, []))

    if not is_wrong:
        check()
        return
    with pytest.raises(keywords.WrongVariable) as wrong:
        check()
    assert str(wrong.value).startswith(
        "cmk_account_name is 'account1', which is an extra variable, so it is the account of"
    )
    assert "Remove cmk_account_name" in str(wrong.value)


@pytest.mark.parametrize(
    ("value", "sizes"),
    [
        *((blank, [1, "25%"]) for blank in BLANK),
        ("3", [3]),
        ("50%", ["50%"]),
        ("[1, 10, '25%']", [1, 10, "25%"]),
    ],
)
def test_waves(value: Any, sizes: list[Any]) -> None:
    assert keywords.serial(value, [1, "25%"]) == sizes


@pytest.mark.parametrize(
    "value", [0, "0", -1, "ten", [1, "ten"], "[1, ten]", "[1, 10", [], "[]", True, {"a": 1}, "1.5"]
)
def test_invalid_serial(value: Any) -> None:
    with pytest.raises(keywords.WrongVariable, match="which is not a list of numbers and percentages") as wrong:
        keywords.serial(value, [1])

    assert wrong.value.facts["variable"] == "cmk_serial"


@pytest.mark.parametrize(
    ("value", "percentage"), [*((blank, 7) for blank in BLANK), (0, 0), ("50", 50), (" 12.5% ", 12.5), (100, 100)]
)
def test_max_fail_percentage(value: Any, percentage: float) -> None:
    assert keywords.max_fail_percentage(value, 7) == percentage


@pytest.mark.parametrize("value", [-1, "-1", "ten", 101, "1e2", [50]])
def test_invalid_percentage(value: Any) -> None:
    with pytest.raises(
        keywords.WrongVariable, match=r"cmk_max_fail_percentage is '.*', which is not a number from 0 to"
    ):
        keywords.max_fail_percentage(value, 0)


@pytest.mark.parametrize("default", [True, False])
def test_flags(default: bool) -> None:
    assert [keywords.flag("cmk_x", blank, default=default) for blank in BLANK] == [default] * 3
    assert all(keywords.flag("cmk_x", yes, default=default) for yes in (True, "yes", " True ", 1, "on"))
    assert not any(keywords.flag("cmk_x", no, default=default) for no in (False, "no", "false ", 0))
    with pytest.raises(
        keywords.WrongVariable, match=r"cmk_x is 'perhaps', which is neither true nor false. Set cmk_x to"
    ):
        keywords.flag("cmk_x", "perhaps", default=default)


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("report.json", None),
        ("", None),
        ("nowhere/report.json", "cannot be written"),
        (".", "is a folder"),
    ],
)
def test_the_report_can_be_written(tmp_path: Path, file: str, problem: str | None) -> None:
    wanted = file and str(tmp_path / file)
    if problem is None:
        keywords.require_report_folder(wanted)
        return
    with pytest.raises(keywords.WrongVariable, match=f"^cmk_report_file is '/.*, which {problem}") as wrong:
        keywords.require_report_folder(wanted)
    assert wrong.value.facts["value"] == wanted
