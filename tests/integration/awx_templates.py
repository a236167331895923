# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The job templates that the playbook awx creates, and the variables of their jobs."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import BIN
from sandbox_client import plain_environment

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
SLICES = 3
SETTINGS = {"cmk_awx_organization": "Default", "cmk_awx_slices": SLICES}


@functools.cache
def defined(name: str, settings: str = json.dumps(SETTINGS)) -> list[Any]:
    """A list of the variables of the playbook awx. The settings are JSON, or the name of a file with an @."""
    done = subprocess.run(
        [
            *(BIN / "ansible", "localhost", "-m", "ansible.builtin.debug", "-a", f"var={name}"),
            *("--playbook-dir", PLAYBOOKS, "-e", f"@{PLAYBOOKS / 'vars' / 'awx.yml'}", "-e", settings),
        ],
        env={**plain_environment(), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: list[Any] = json.loads(done.stdout.partition("=>")[2])[name]
    return found


def job_template(name: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = (one for one in defined("__job_templates") if one["name"] == name)
    return found


def job_variables(template: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The extra variables of a job: those of the template, the defaults of its survey, and the given ones.

    AWX does not use a default that its own check refuses. This applies to a default for several choices, which is a
    string and not a list.
    """
    defaults = {
        one["variable"]: one["default"]
        for one in template.get("survey", ())
        if "default" in one and one["type"] != "multiselect"
    }
    return {**template["extra_vars"], **defaults, **given}
