# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of the roles behind the options of a task, which the messages of the task show.

This plugin util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import PLACE_NOT_FOUND
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import Names
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import is_blank

COLLECTION = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\bcmk_\w+")
# A template that passes on the value of a variable unchanged, or omits the option, or passes on a value of the role.
# The variable may be a variable of the role (vars/main.yml) that passes on another variable.
_PASSED_ON = re.compile(
    r"\{\{ *(?:(?:omit|__\w+) if [^{}]* else +)?"
    r"(?P<name>(?:cmk|__[a-z]+)_\w+)(?: *\| *(?:default\([^{}|]*\)|bool|int|float|trim))* *\}\}"
)
# The role that does what these modules do.
_MODULES = dict.fromkeys(
    [
        f"azbatch.cmk.{module}"
        for module in ("batch_account_identity", "keyvault_cmk_access", "keyvault_cmk_key", "keyvault_cmk_vault")
    ],
    "azbatch.cmk.provision",
)
# In the role switch, the example that creates the new key. The role provision would also move the account to the key.
_OF_NEW_KEY = dict.fromkeys(["azbatch.cmk.keyvault_cmk_key", "azbatch.cmk.keyvault_cmk_vault"], "examples/switch.yml")


def passed_on(task: Any, action: str) -> dict[str, str]:
    """By option, the variable whose value the task passes on. `task` is the parsed YAML of the task."""
    variables = {str(option): _variable(value) for option, value in options_of(task, action).items()}
    return {option: variable for option, variable in variables.items() if variable}


def options_of(task: Any, action: str) -> Mapping[str, Any]:
    """By option, the template of its value. `task` is the parsed YAML of the task."""
    names = (action, action.rpartition(".")[2])
    options = next((task[name] for name in names if name in task), None) if isinstance(task, Mapping) else None
    return options if isinstance(options, Mapping) else {}


def _variable(template: Any) -> str | None:
    match = _PASSED_ON.fullmatch(template.strip()) if isinstance(template, str) else None
    if match is None or match["name"].startswith("cmk_"):
        return match and match["name"]
    return _variable(_of_the_roles().get(match["name"]))


@cache
def _of_the_roles() -> dict[str, Any]:
    """The templates of the variables in vars/main.yml of the roles. Their names begin with the role."""
    files = COLLECTION.glob("roles/*/vars/main.yml")
    return {name: value for file in files for name, value in yaml_load(file.read_text(encoding="utf-8")).items()}


def _made_of(template: Any) -> str | None:
    """The variables of which the template makes a value, such as `cmk_vault_name/cmk_key_name`, or its only
    variable."""
    return "/".join(dict.fromkeys(VARIABLE.findall(template))) or None if isinstance(template, str) else None


@dataclass(frozen=True)
class TaskNames:
    """The names in the messages of a task. `variables` has the variable that the message names, by option."""

    variables: Mapping[str, str]
    shown: Names

    def in_result(self, result: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The result with variables in its messages, and with `variable` beside each `option`."""
        result, shown = dict(result), self.shown
        if (right := _right_option(result, options)) is not None:
            name, place = (names.get(right, default) for names, default in ((shown.options, right), (shown.places, "")))
            wrong, result["option"] = result["option"], right
            shown = Names({**shown.options, wrong: name}, {**shown.places, wrong: place}, shown.modules)
        for problem in (result, *result.get("problems", ())):
            variable = self.variables.get(re.split(r"[.[]", str(problem.get("option")))[0])
            if variable is not None:
                problem["variable"] = variable
        return shown.in_result(result)


def names(
    task: Any,
    action: str,
    *,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    role: str = "",
    arguments: Collection[str] = (),
) -> TaskNames:
    """The names of a task, of which `task` is the parsed YAML. `given` are the values of all variables, and `defaults`
    the defaults of the role. If a variable has its default, and that is made of other variables, or if the task makes
    the value of several variables, the message names those.

    In a role of this collection, `role` is its name. For an option of the module (`arguments`) that the task does not
    set, the message names the variable of another role, or the module."""
    variables = passed_on(task, action)
    inherited = {
        option: other
        for option, variable in variables.items()
        if (other := _made_of(defaults.get(variable)))
        and (is_blank(given.get(variable)) or given[variable] == defaults[variable])
    }
    options = options_of(task, action)
    joined = {option: name for option, value in options.items() if "}}/{{" in str(value) and (name := _made_of(value))}
    used = {**joined, **variables, **inherited}
    places = {option: f" (used as {variables[option]})" for option in inherited}
    if not role:
        return TaskNames(used, Names(used, places))
    shown, others = dict(used), _of_other_roles(role, action)
    for option in set(arguments) - options.keys():
        shown[option], place = others.get(option, (option, action))
        places[option] = f" in {place}"
    modules = {**_MODULES, **_OF_NEW_KEY} if role == "azbatch.cmk.switch" else _MODULES
    return TaskNames(used, Names(shown, places, modules))


@cache
def _of_other_roles(role: str, action: str) -> dict[str, tuple[str, str]]:
    """By option of a module that the role never sets: the variable that the only other role passes on to the option,
    and that role."""
    variables: dict[str, dict[str, str]] = {}
    for file in sorted(COLLECTION.glob("roles/*/tasks/*.yml")):
        for task in yaml_load(file.read_text(encoding="utf-8")):
            for option, variable in passed_on(task, action).items():
                variables.setdefault(option, {}).setdefault(f"azbatch.cmk.{file.parts[-3]}", variable)
    only = {option: list(roles.items()) for option, roles in variables.items() if role not in roles and len(roles) == 1}
    return {option: (variable, other) for option, [(other, variable)] in only.items()}


def _right_option(result: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    """The option of the resource group or the subscription that Azure has not found, if that is not the option that
    the error names: Azure reports only the value. `options` are those of the task."""
    if result.get("code") not in PLACE_NOT_FOUND:
        return None
    missing = result["azure"]["message"].casefold()
    named = [
        option
        for option, value in options.items()
        if option.endswith(("resource_group", "subscription_id")) and f"'{value}'".casefold() in missing
    ]
    return named[0] if named and result["option"] not in named else None
