# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Formats the results of a benchmark as Markdown, and writes them into the document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wanted:
    what: str
    found: str
    reached: bool

    def __str__(self) -> str:
        return f"- {'Reached.' if self.reached else '**Not reached.**'} Target: {self.what}. Result: {self.found}."


@dataclass(frozen=True)
class Result:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    wanted: Sequence[Wanted]

    @property
    def reached(self) -> bool:
        return all(one.reached for one in self.wanted)

    def __str__(self) -> str:
        # Figures are aligned to the right.
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return "\n".join([table, "", *map(str, self.wanted)])


def with_section(document: str, name: str, text: str) -> str:
    """The document with the text between the two comments that mark the section `name`. Raises ValueError if the
    document does not have the comments."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    before, begun, rest = document.partition(begin)
    _old, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"The document has no place for {name}. Add these lines to it:\n{begin}{end}")
    return f"{before}{begin}\n{text}\n\n{end}{after}"


def times(value: float, base: float) -> str:
    return f"{value / base:.2f}" if value < 10 * base else f"{value / base:.1f}"


def mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f}"
