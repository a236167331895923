# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The output of the demo: its commands, and the table at its end."""

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
    return [re.split(r" {2,}", line) for line in text[title.end() :].strip().splitlines()]


def test_the_demo_shows_its_commands_and_a_row_for_each(tmp_path: Path) -> None:
    """There are no warnings or errors."""
    output = as_user(tmp_path, sys.executable, str(ROOT / "demo" / "run.py"))

    commands = re.findall(r"^\$ ansible-playbook azbatch\.cmk\.(\w+) -e @demo/vars\.yml", output, re.MULTILINE)
    assert commands == ["provision", "provision", "rotate", "rotate", "revert"]
    assert re.findall(r"(?i)warning|error|traceback|deprecat", output) == []
    customer, microsoft = "Microsoft.KeyVault", "Microsoft.Batch"
    assert [(step, source, changed) for step, source, _version, changed in rows(output)] == [
        ("provision", customer, "yes"),
        ("provision again", customer, "no"),
        ("rotate", customer, "yes"),
        ("rotate again", customer, "no"),
        ("revert", microsoft, "yes"),
    ]
    first, first_again, second, second_again, last = (version for _, _, version, _ in rows(output))
    assert first == first_again != second == second_again
    assert last == "-"
