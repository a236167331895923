# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs every Molecule scenario, each with a separate sandbox."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(file.parent.name for file in (ROOT / "extensions" / "molecule").glob("*/molecule.yml"))


def test_at_least_one_scenario_exists() -> None:
    assert SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.slow
def test_scenario(scenario: str, tmp_path: Path) -> None:
    environment = {**os.environ, "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path / "molecule")}
    command = ["molecule", "test", "--scenario-name", scenario]

    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )

    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    # Ansible takes a missing inventory for an empty inventory, on which every play succeeds.
    assert "no hosts matched" not in output, output
    assert "Could not match supplied host pattern" not in output, output
