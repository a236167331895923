# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmarks write their figures to the right place in docs/developers/benchmarks.md. `make bench` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from growth import STEEPER, linear
from tables import Result, Wanted, with_section

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = [
    file.stem for file in (ROOT / "tests" / "benchmarks").glob("*.py") if "\ndef main(bench" in file.read_text()
]


def test_each_has_a_place_in_the_document_and_touches_no_other() -> None:
    document = (ROOT / "docs" / "developers" / "benchmarks.md").read_text(encoding="utf-8")
    assert len(BENCHMARKS) == 8
    for name in BENCHMARKS:
        once = with_section(document, name, "a table")
        before, _found, after = once.partition("\na table\n")
        assert document.startswith(before)
        assert document.endswith(after.lstrip("\n"))
        assert with_section(with_section(document, name, "another"), name, "a table") == once


def test_a_place_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="<!-- begin life -->"):
        with_section("<!-- begin other -->\n<!-- end other -->\n", "life", "a table")


@pytest.mark.parametrize(("reached", "word"), [(True, "- Reached."), (False, "- **Not reached.**")])
def test_a_missed_target_is_reported(reached: bool, word: str) -> None:
    result = Result(("", "times"), [("az", "8.1")], [Wanted("fast", "slow", True), Wanted("small", "8 MiB", reached)])
    assert result.reached is reached
    assert str(result).splitlines() == [
        "|  | times |",
        "| --- | ---: |",
        "| az | 8.1 |",
        "",
        "- Reached. Target: fast. Result: slow.",
        f"{word} Target: small. Result: 8 MiB.",
    ]


@pytest.mark.parametrize(("power", "reached"), [(1.0, True), (1.05, True), (1.2, False), (2.0, False)])
def test_growth_faster_than_the_accounts_is_not_linear(power: float, reached: bool) -> None:
    """A run also has a fixed cost, so the average time for an account is lower in a large run."""
    sizes = (10, 100, 1000, 10000)
    messages = [(accounts, 1 + 0.01 * accounts) for accounts in sizes]
    found = linear([(accounts, 60 + 0.1 * accounts**power) for accounts in sizes], messages)
    assert found.reached is reached
    assert f"takes at most {STEEPER} times as long as from 100 to 1,000" in found.what
