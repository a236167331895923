# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The output of the demo: the table at its end, its commands, and the same table in the README."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from harness import as_user

ROOT = Path(__file__).resolve().parents[2]
TITLE = re.compile(r"^step +key source +key version +changed$", re.MULTILINE)


def rows(text: str) -> list[list[str]]:
    """The rows of the demo's table in the text, without the title."""
    title = TITLE.search(text)
    assert title, text
    table = text[title.end() :].strip().partition("\n\n")[0].partition("\n```")[0]
    return [re.split(r" {2,}", line) for line in table.splitlines()]


def shape(text: str) -> list[list[str]]:
    return [[re.sub("[0-9a-f]{32}", "<version>", cell) for cell in row] for row in rows(text)]


def test_the_demo_shows_its_commands_and_the_table_of_the_readme(tmp_path: Path) -> None:
    """One command for each row of the table, and no warnings or errors."""
    output = as_user(tmp_path, sys.executable, str(ROOT / "demo" / "run.py"))

    commands = re.findall(r"^\$ ansible-playbook azbatch\.cmk\.(\w+) -e @demo/vars\.yml", output, re.MULTILINE)
    assert commands == ["provision", "provision", "rotate", "rotate", "revert"]
    assert re.findall(r"(?i)warning|error|traceback|deprecat", output) == []
    assert shape(output) == shape((ROOT / "README.md").read_text(encoding="utf-8"))
    first, first_again, second, second_again, _last = (version for _, _, version, _ in rows(output))
    assert first == first_again != second == second_again
