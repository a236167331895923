# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of the project that have to agree."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def lines(file: str) -> list[str]:
    text = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in text if line.strip() and not line.startswith("#")]


def document(file: str) -> dict:
    return yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_build_excludes_the_files_that_git_ignores() -> None:
    ignored = {line.strip("/") for line in lines(".gitignore")}

    assert ignored - set(document("galaxy.yml")["build_ignore"]) == set()


def test_execution_environment_names_files_that_ship() -> None:
    named = document("meta/execution-environment.yml")["dependencies"].values()

    assert all((ROOT / file).is_file() for file in named)
    assert set(named).isdisjoint(document("galaxy.yml")["build_ignore"])


def test_oldest_sdks_that_are_tested_are_allowed() -> None:
    floors = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in lines("requirements.txt"))
    tested = dict(line.split("==") for line in lines("tests/floor.txt"))

    assert floors.keys() == tested.keys()
    assert [name for name in floors if version(tested[name]) < version(floors[name])] == []


def test_supported_sdks_are_listed() -> None:
    page = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
    required = [re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<(\d+))?", line).groups() for line in lines("requirements.txt")]
    rows = [
        f"| {name} | {floor} or newer{f', below {ceiling}' if ceiling else ''} |" for name, floor, ceiling in required
    ]

    assert [row for row in rows if row not in page] == []


def test_releases_of_azcollection_that_are_tested_are_allowed() -> None:
    """With these, requests must state a version of the Key Vault management API that does not retire."""
    ranges = dict(re.split("(?=[<>])", line, maxsplit=1) for line in lines("requirements.txt"))
    for line in lines("tests/azcollection.txt"):
        name, pinned = line.split("==")
        lowest, _comma, below = ranges[name].removeprefix(">=").partition(",<")
        assert version(lowest) <= version(pinned)
        assert not below or version(pinned) < version(below)
    matrix = (ROOT / "scripts/matrix").read_text(encoding="utf-8")
    (row,) = (block for block in matrix.split("\ntests=") if "-c tests/azcollection.txt" in block)
    assert "tests/integration/test_retired_versions.py" in row


def test_readme_lists_the_releases_of_ansible_core_that_are_tested() -> None:
    matrix = (ROOT / "scripts/matrix").read_text(encoding="utf-8")
    (named,) = re.findall(r"for release in ([\d. ]+);", matrix)
    releases = {*named.split(), *re.findall(r"ansible-core==([\d.]+)\.\*", matrix)}
    for file in ("README.md", "docs/support.md"):
        table = [line for line in lines(file) if re.match(r"\| 2\.", line)]
        assert releases <= {one for line in table for one in re.findall(r"\d+\.\d+", line.split("|")[1])}, file


def test_every_make_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {name for line in re.findall(r"^\.PHONY: (.+)$", makefile, re.M) for name in line.split()}

    assert targets == set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
