# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The output of `make demo-events`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from harness import as_user

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_moves_the_account_to_the_new_version(tmp_path: Path) -> None:
    output = as_user(tmp_path, sys.executable, str(ROOT / "demo" / "events.py"))

    [first] = re.findall(r"demobatch uses version ([0-9a-f]{32}) of key batch-cmk", output)
    [newest] = re.findall(r"the newest version of key batch-cmk is ([0-9a-f]{32})", output)
    assert re.search(rf"after \d+ s, demobatch uses version {newest}$", output, re.MULTILINE)
    assert first != newest
    assert "the key has 2 versions, the rulebook has run 1 playbook" in output
    assert re.findall(r"(?i)warning|error|traceback", output) == []
