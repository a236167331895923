# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the commands of docs/quickstart.md against the sandbox, from the first playbook to the last.

    python scripts/quick_start.py

Runs in the current folder. The environment must be one in which Ansible finds the collection. The script ends at the
first command that fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "quickstart.md"
# Sections whose steps `azure-sandbox run` replaces.
BY_HAND = ("1. Install", "2. Sign in", "9. Clean up")


def main() -> int:
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    page = "".join(section for section in sections if not section.startswith(BY_HAND))
    [variables] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    Path("vars.yml").write_text(variables, encoding="utf-8")
    commands = re.findall(r"^```shell\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    script = "\n".join(["set -euxo pipefail", *commands])
    return subprocess.call(["azure-sandbox", "run", "--", "bash", "-c", script])


if __name__ == "__main__":
    sys.exit(main())
