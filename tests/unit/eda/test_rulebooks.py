# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rulebooks of the collection. tests/events runs them in ansible-rulebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

RULEBOOKS = Path(__file__).resolve().parents[3] / "extensions" / "eda" / "rulebooks"


def ruleset(name: str) -> dict[str, Any]:
    [found] = yaml.safe_load((RULEBOOKS / f"{name}.yml").read_text(encoding="utf-8"))
    return dict(found)


@pytest.mark.parametrize("part", ["hosts", "sources"])
def test_playbooks_and_jobs_have_the_same_source(part: str) -> None:
    assert ruleset("key_rotation")[part] == ruleset("key_rotation_jobs")[part]


def test_playbooks_and_jobs_have_the_same_rules() -> None:
    """Only the action differs, and what a survey requires."""
    pairs = list(zip(ruleset("key_rotation")["rules"], ruleset("key_rotation_jobs")["rules"], strict=True))
    assert pairs
    for playbook, job in pairs:
        runs, launches = playbook.pop("action")["run_playbook"], job.pop("action")["run_job_template"]
        assert playbook == job
        assert runs["name"].removeprefix("azbatch.cmk.") == launches["name"].partition(": ")[2]
        variables, given = runs["extra_vars"], launches["job_args"]["extra_vars"]
        assert variables["cmk_hosts"] == given["cmk_hosts"]
        for name in variables.keys() & given.keys():
            assert str(variables[name]).lower() == str(given[name]).lower()
