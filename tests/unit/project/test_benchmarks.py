# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmarks write their figures to the right place in docs/developers/benchmarks.md. `make bench` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tables import with_section

ROOT = Path(__file__).resolve().parents[3]
BENCHMARKS = [
    file.stem for file in (ROOT / "tests" / "benchmarks").glob("*.py") if "\ndef main(bench" in file.read_text()
]


def test_each_has_a_place_in_the_document_and_touches_no_other() -> None:
    document = (ROOT / "docs" / "developers" / "benchmarks.md").read_text(encoding="utf-8")
    assert len(BENCHMARKS) == 7
    for name in BENCHMARKS:
        once = with_section(document, name, "a table")
        before, _found, after = once.partition("\na table\n")
        assert document.startswith(before)
        assert document.endswith(after.lstrip("\n"))
        assert with_section(with_section(document, name, "another"), name, "a table") == once


def test_a_place_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="<!-- begin life -->"):
        with_section("<!-- begin other -->\n<!-- end other -->\n", "life", "a table")
