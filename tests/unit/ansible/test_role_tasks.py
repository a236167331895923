# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A role is a short list of tasks without logic. The integration tests of the roles run the tasks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[3] / "roles"
ROLE_NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())
INCLUDE, IMPORT = "ansible.builtin.include_tasks", "ansible.builtin.import_tasks"


def load(role: str, folder: str, file: str = "main.yml") -> Any:
    return yaml.safe_load((ROLES / role / folder / file).read_text(encoding="utf-8"))


def flat(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks, with those of blocks, and without roles that are included."""
    parts = [[*task["block"], *task["always"]] if "block" in task else [task] for task in tasks]
    return [task for part in parts for task in part if "ansible.builtin.include_role" not in task]


def tasks_of(role: str) -> list[dict[str, Any]]:
    """The tasks of the role. An included or imported file, or a block, is replaced by its tasks. Another role of the
    collection that it includes is left out."""
    tasks: list[dict[str, Any]] = []
    for task in flat(load(role, "tasks")):
        file = task.get(INCLUDE, task.get(IMPORT))
        tasks += load(role, "tasks", file) if file else [task]
    return tasks


@pytest.mark.parametrize("role", [name for name in ROLE_NAMES if name not in ("audit", "drill", "users")])
def test_each_role_that_returns_the_availability_can_require_that_it_is_readable(role: str) -> None:
    [move] = [task["azbatch.cmk.batch_encryption"] for task in tasks_of(role) if "azbatch.cmk.batch_encryption" in task]

    assert move["require_readable"] in ("{{ cmk_require_readable }}", "{{ cmk_require_readable | default(omit) }}")
    assert load(role, "defaults")["cmk_require_readable"] is False


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_a_role_is_a_short_list_of_tasks_of_modules(role: str) -> None:
    tasks = tasks_of(role)

    assert 1 <= len(tasks) <= 10
    for task in tasks:
        modules = [name for name in task if "." in name]
        assert [name.startswith("azbatch.cmk.") for name in modules] == [True], task["name"]
        assert set(task) <= {"name", *modules, "register", "when", "loop", "loop_control"}, task["name"]


# A template that passes on a variable or a result, or the default of a variable. The exceptions choose between two
# values of an option.
PASSED_ON = re.compile(r"\{\{ [\w.]+( \| default\((omit|'')\))? \}\}(/\{\{ \w+( \| default\(''\))? \}\})?")
CHOICES = {
    "{{ __provision_key.key_identifier if cmk_identity_id | default('', true) else omit }}",
    "{{ 'absent' if cmk_unused_key == 'delete' else 'disabled' }}",
}


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_options_pass_on_variables_and_results(role: str) -> None:
    templates = [
        value
        for task in tasks_of(role)
        for name, options in task.items()
        if name.startswith("azbatch.cmk.")
        for value in options.values()
        if isinstance(value, str) and "{{" in value
    ]

    assert [value for value in templates if not PASSED_ON.fullmatch(value) and value not in CHOICES] == []


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_options_that_no_role_sets(role: str) -> None:
    given = {option for task in tasks_of(role) for one in task.values() if isinstance(one, dict) for option in one}

    assert not given & {"force", "remove_rotation_policy"}
