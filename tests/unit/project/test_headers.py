# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every source file names its license. ansible-test wants empty files in packages of module utils."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LICENCE = "SPDX-License-Identifier: GPL-3.0-or-later"
KINDS = {".py", ".yml", ".yaml", ".toml", ".sh"}
# antsibull-changelog writes this file without a header.
GENERATED = {"changelogs/changelog.yaml"}


def is_source(file: Path) -> bool:
    """Whether the file is source code, according to its name or its first line."""
    if file.suffix in KINDS or file.name == "Makefile":
        return True
    with file.open("rb") as start:
        return start.read(2) == b"#!"


def files() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.split("\0") if name and name not in GENERATED and (ROOT / name).is_file()]


def test_every_source_file_names_its_license() -> None:
    sources = [file for file in files() if is_source(file) and file.stat().st_size > 0]
    assert ROOT / "Makefile" in sources

    without = [file for file in sources if LICENCE not in file.read_text(encoding="utf-8")[:1000]]

    assert [str(file.relative_to(ROOT)) for file in without] == []
