# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options in messages, and the variables of the roles that the messages show instead."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_names import TaskNames, names, passed_on

ROOT = Path(__file__).resolve().parents[3]
ACTION = "azbatch.cmk.keyvault_cmk_key"


# The variable behind an option


@pytest.mark.parametrize(
    ("template", "variable"),
    [
        ("{{ cmk_key_name }}", "cmk_key_name"),
        ("{{ cmk_previous_key | default(omit, true) }}", "cmk_previous_key"),
        ("{{ cmk_require_readable | bool }}", "cmk_require_readable"),
        ("{{ cmk_key_size | default(2048) | int }}", "cmk_key_size"),
        ("{{ omit if cmk_identity_id == 'system_assigned' else cmk_identity_id }}", "cmk_identity_id"),
        ("{{ __of_role if __is_set | bool else cmk_key_name | default(omit) }}", "cmk_key_name"),
        # A variable of the role rotate.
        ("{{ __rotate_new_version | default(omit) }}", "cmk_key_new_version"),
        ("{{ __rotate_purpose }}", None),
        # The value of the option is not the value of the variable.
        ("{{ cmk_key_name == 'batch' }}", None),
        ("{{ 'a' if cmk_require_readable else 'b' }}", None),
        ("{{ cmk_key_name }}-{{ cmk_vault_name }}", None),
        ("{{ __recover_vault.name }}", None),
        ("batch", None),
        (True, None),
    ],
)
def test_variable_behind_an_option(template: Any, variable: str | None) -> None:
    expected = {"name": variable} if variable else {}

    assert passed_on({"name": "Ensure", ACTION: {"name": template}}, ACTION) == expected
    assert passed_on({"name": "Ensure", "keyvault_cmk_key": {"name": template}}, ACTION) == expected


@pytest.mark.parametrize("task", [None, {}, {"name": "{{ cmk_key_name }}"}, {ACTION: "name={{ cmk_key_name }}"}])
def test_task_without_options_passes_nothing_on(task: Any) -> None:
    assert passed_on(task, ACTION) == {}


# The names of a task

TASK = {
    "vault_name": "{{ cmk_vault_name }}",
    "name": "{{ cmk_key_name }}",
    "vault_resource_group": "{{ cmk_vault_resource_group }}",
    "rotation_policy": "{{ cmk_key_rotation_policy | default(omit) }}",
    "previous_key": "{{ cmk_vault_name }}/{{ cmk_key_name }}",
    "state": "present",
}
DEFAULTS = {"cmk_vault_resource_group": "{{ cmk_resource_group }}"}


def of_task(role: str = "azbatch.cmk.rotate", given: Mapping[str, Any] | None = None) -> TaskNames:
    given = given or {"cmk_vault_resource_group": "rg-vault"}
    arguments = {*TASK, "allowed_repairs", "force"}
    return names({ACTION: TASK}, ACTION, given=given, defaults=DEFAULTS, role=role, arguments=arguments)


@pytest.mark.parametrize(
    ("marked", "in_role", "in_task"),
    [
        ("Set O(name=batch).", "Set cmk_key_name: batch.", "Set name: batch."),
        (
            "O(rotation_policy.expiry_time) is 'x'.",
            "cmk_key_rotation_policy.expiry_time is 'x'.",
            "rotation_policy.expiry_time is 'x'.",
        ),
        # The value is made of two variables.
        ("O(previous_key) is 'x/y'.", "cmk_vault_name/cmk_key_name is 'x/y'.", "previous_key is 'x/y'."),
        # The task of the role has this option, but no variable.
        ("Set O(state=recovered).", "Set state: recovered.", "Set state: recovered."),
        # Another role has a variable for it, or no role has one.
        (
            "Add key to O(allowed_repairs).",
            "Add key to cmk_allowed_repairs in azbatch.cmk.provision.",
            "Add key to allowed_repairs.",
        ),
        ("Set O(force=true).", f"Set force: true in {ACTION}.", "Set force: true."),
        # Connection options are set by environment variables.
        ("Set O(tenant).", "Set tenant.", "Set tenant."),
        (
            "Create it with M(azbatch.cmk.keyvault_cmk_key).",
            "Create it with azbatch.cmk.provision.",
            f"Create it with {ACTION}.",
        ),
    ],
)
def test_a_message_of_a_role_shows_variables(marked: str, in_role: str, in_task: str) -> None:
    assert of_task().in_result({"msg": marked}, {}) == {"msg": in_role}
    assert plain(marked) == in_task


@pytest.mark.parametrize(
    ("group", "shown"),
    [
        ("rg-vault", "cmk_vault_resource_group"),
        ("{{ cmk_resource_group }}", "cmk_resource_group (used as cmk_vault_resource_group)"),
        ("", "cmk_resource_group (used as cmk_vault_resource_group)"),
    ],
)
def test_a_variable_that_has_its_default_shows_the_other_variable(group: str, shown: str) -> None:
    failure = {"msg": "Correct O(vault_resource_group).", "option": "vault_resource_group"}
    result = of_task(given={"cmk_vault_resource_group": group}).in_result(failure, {})

    assert (result["msg"], result["variable"]) == (f"Correct {shown}.", shown.partition(" ")[0])


def test_a_task_of_a_user_shows_the_variables_that_it_passes_on() -> None:
    assert of_task("").in_result({"msg": "Correct O(name), or set O(force=true)."}, {}) == {
        "msg": "Correct cmk_key_name, or set force: true."
    }


def test_all_messages_of_a_result_show_variables_and_no_other_value_does() -> None:
    marked, shown = "Correct O(name).", "Correct cmk_key_name."
    texts = {"msg": marked, "remedy": marked, "evidence": marked}
    result = {
        **texts,
        "warnings": [marked],
        "option": "name",
        "problems": [{**texts, "option": "rotation_policy.expiry_time"}],
        "preflight": [texts],
        "causes": [texts],
        "restore_failure": texts,
        "diagnosis": {"causes": [texts]},
        "tags": {"msg": marked},
        "findings": [marked],
        "value": marked,
    }

    named = dict.fromkeys(texts, shown)
    assert of_task().in_result(result, {}) == {
        **named,
        "warnings": [shown],
        "option": "name",
        "variable": "cmk_key_name",
        "problems": [{**named, "option": "rotation_policy.expiry_time", "variable": "cmk_key_rotation_policy"}],
        "preflight": [named],
        "causes": [named],
        "restore_failure": named,
        "diagnosis": {"causes": [named]},
        "tags": {"msg": marked},
        "findings": [marked],
        "value": marked,
    }


@pytest.mark.parametrize(("missing", "option"), [("rg-vault", "vault_resource_group"), ("rg-other", "resource_group")])
def test_azure_names_a_resource_group_by_its_value(missing: str, option: str) -> None:
    failure = {
        "msg": "Correct O(resource_group).",
        "code": "resource_group_not_found",
        "option": "resource_group",
        "azure": {"message": f"Resource group '{missing.upper()}' could not be found."},
    }
    options = {"resource_group": "rg-batch", "vault_resource_group": "rg-vault", "name": "rg-vault"}
    result = of_task("").in_result(failure, options)

    assert result["option"] == option
    assert result["msg"] == f"Correct {'cmk_vault_resource_group' if option in TASK else option}."


# The errors


def test_an_error_marks_its_option() -> None:
    error = InvalidOption("key_size", 1024, "Batch does not support this size.", "Set O(key_size=2048).")

    assert error.result()["msg"].startswith("O(key_size) is 1024: ")
    assert str(error) == "key_size is 1024: Batch does not support this size. Set key_size: 2048."


# All messages of the modules

UTILS = ROOT / "plugins" / "module_utils"
MODULES = [
    importlib.import_module(f"ansible_collections.azbatch.cmk.plugins.modules.{file.stem}")
    for file in (ROOT / "plugins" / "modules").glob("*_*.py")
    if file.stem != "__init__"
]
OPTIONS = {*CONNECTION, *(option for module in MODULES for option in module.ARGUMENTS)}
# Words that are also values of a result, or of an environment variable.
WORDS = {option for option in OPTIONS if "_" not in option}
UNMARKED = re.compile(
    rf"(?<![\w./(={{]){'(?:' + '|'.join(sorted(OPTIONS - WORDS)) + ')'}\b(?!=)"
    rf"|(?<![\w./(]){'(?:' + '|'.join(sorted(WORDS)) + ')'}: (?:true|false|P0D|[a-z]+ed)\b"
)


def texts(file: Path) -> Iterator[str]:
    """The texts of a module with several words. A value in a text is replaced by `_`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    left_out = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}
    left_out |= {
        id(part)
        for one in ast.walk(tree)
        if isinstance(one, ast.JoinedStr)
        for part in ast.walk(one)
        if part is not one
    }
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "_" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            text = node.value
        if " " in text.strip():
            yield text


FILES = [
    file for file in UTILS.rglob("*.py") if file.parent.name != "_audit" or file.name in ("audit.py", "options.py")
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(UTILS)))
def test_messages_mark_each_option(file: Path) -> None:
    # Advice to run another module has its name and its options in brackets.
    own = [re.sub(r"\(azbatch\.cmk\.\w+[^()]*\)|azbatch\.cmk\.\w+ \([^()]*\)", "", text) for text in texts(file)]

    assert [text for text in own if UNMARKED.search(text)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(UTILS)))
def test_marked_names_are_options_and_modules(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    modules = {module.__name__.rpartition(".")[2] for module in MODULES}

    assert set(re.findall(r"(?<!`)\bO\((\w+)[^`]*?\)", source)) <= OPTIONS
    assert set(re.findall(r"(?<!`)\bM\(azbatch\.cmk\.(\w+)\)", source)) <= modules
