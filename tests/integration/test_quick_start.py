# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of docs/quickstart.md do what the page says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from harness import as_user

ROOT = Path(__file__).resolve().parents[2]


def test_the_quick_start_from_its_first_playbook_to_its_last(tmp_path: Path) -> None:
    output = as_user(tmp_path, sys.executable, str(ROOT / "scripts" / "quick_start.py"))

    # The response of the sandbox to `curl` does not end its line.
    ran = re.findall(r"\+ ansible-playbook azbatch\.cmk\.(\w+)", output)
    changed = [int(number) for number in re.findall(r"^localhost .*\bchanged=(\d+)", output, re.MULTILINE)]
    assert ran == ["provision", "provision", "rotate", "rotate", "audit", "recover", "recover", "revert"]
    # Check mode predicts the run; no rotation is due; an audit changes nothing; the second recovery finds an available
    # account; the revert keeps the key for a week.
    assert changed == [5, 5, 0, 2, 0, 1, 0, 1]
    assert re.search(r"quickstart uses version \S+ of key batch-cmk in vault kv-quickstart and is available\.", output)
    assert re.search("quickstart uses a Microsoft-managed key", output)
    assert {"cmk-audit.html", "cmk-audit.json"} <= {file.name for file in (tmp_path / "cmk-audit").iterdir()}
    # The audit runs while the key is disabled.
    [account] = json.loads((tmp_path / "cmk-audit" / "cmk-audit.json").read_text(encoding="utf-8"))["accounts"]
    assert "version_unusable" in [finding["id"] for finding in account["findings"]]
