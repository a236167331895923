# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of the project that have to agree."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


def lines(file: str) -> list[str]:
    text = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in text if line.strip() and not line.startswith("#")]


def document(file: str) -> dict:
    return yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def is_built(path: str) -> bool:
    """Whether `ansible-galaxy collection build` includes the path, as far as galaxy.yml decides. Ansible itself leaves
    out Python's caches and the results of ansible-test."""
    return not any(fnmatch.fnmatch(path, pattern) for pattern in document("galaxy.yml")["build_ignore"])


def test_build_excludes_the_files_that_git_ignores() -> None:
    ignored = {line.strip("/") for line in lines(".gitignore")} - {"__pycache__", "*.pyc", "tests/output"}

    assert [path for path in ignored if is_built(path)] == []


def test_execution_environment_names_files_that_ship() -> None:
    named = document("meta/execution-environment.yml")["dependencies"].values()

    assert all((ROOT / file).is_file() and is_built(file) for file in named)


def test_oldest_sdks_that_are_tested_are_allowed() -> None:
    floors = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in lines("requirements.txt"))
    tested = dict(line.split("==") for line in lines("tests/floor.txt"))

    assert floors.keys() == tested.keys()
    assert [name for name in floors if version(tested[name]) < version(floors[name])] == []


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


# By row, its Python and its ansible-core.
MATRIX = {
    row: (python, core)
    for row, python, core in re.findall(
        r"^row (\S+) (\S+) .*'ansible-core\S*==([\d.]+)\.\*'",
        (ROOT / "scripts/matrix").read_text(encoding="utf-8"),
        re.M,
    )
}
MAIN = MATRIX["oldest-sdk"]
WORKFLOWS = sorted(file.name for file in (ROOT / ".github/workflows").glob("*.yml"))


def workflow(name: str) -> dict[str, Any]:
    return document(f".github/workflows/{name}")


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in workflow(name)["jobs"].values() for step in job.get("steps", [])]


def test_readme_lists_the_releases_of_ansible_core_that_are_tested() -> None:
    """With the Python of each row."""
    for file in ("README.md", "docs/support.md"):
        table = [line.split("|") for line in lines(file) if re.match(r"\| 2\.", line)]
        listed = {(one, columns[1].split()[0]) for columns in table for one in columns[2].strip().split(", ")}
        assert listed == set(MATRIX.values()), file
    assert all(
        row in (f"core-{core}", f"core-{core}-python-{python}", "oldest-sdk") for row, (python, core) in MATRIX.items()
    )


def test_make_setup_installs_the_main_row() -> None:
    """`make setup` looks for its Python."""
    python, core = MAIN
    assert f'ansible-core=={core}.*; python_version >= "3.12"' in lines("requirements-dev.txt")
    assert f"\nPYTHON ?= $(shell scripts/python {python} || echo python3)\n" in (ROOT / "Makefile").read_text(
        encoding="utf-8"
    )


def test_workflow_runs_each_row_of_the_matrix() -> None:
    """With the Python of the row."""
    rows = workflow("matrix.yml")["jobs"]["matrix"]["strategy"]["matrix"]["include"]

    assert {row["row"]: row["python"] for row in rows} == {row: python for row, (python, _core) in MATRIX.items()}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs_existing_targets(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = "\n".join(step.get("run", "") for step in steps(name))
    targets = re.findall(r"^ *make ([\w-]+)", commands, re.M)

    assert targets or all("uses" in job for job in workflow(name)["jobs"].values())
    assert [target for target in targets if f"\n{target}: " not in makefile] == []


def test_the_tests_that_the_manual_names_exist() -> None:
    named = set(re.findall(r"`(test_[a-z_]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))

    assert named
    assert sorted(named - {path.name for path in (ROOT / "tests").rglob("test_*.py")}) == []


@pytest.mark.parametrize("target", ["ways", "proof"])
def test_the_tests_that_a_target_runs_exist(target: str) -> None:
    command = ["make", "--dry-run", "--always-make", target]
    planned = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    named = set(re.findall(r"tests/integration/test_\w+\.py", planned))

    assert named
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
