# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of the roles: finds the variable of each option of a task, and reports unknown variables.

This plugin util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Refused
from ansible_collections.azbatch.cmk.plugins.plugin_utils._inventory import Record
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import VARIABLES

_COLLECTION = Path(__file__).resolve().parents[2]
# A template that passes on the value of a variable unchanged, or omits the option.
_PASSED_ON = re.compile(
    r"\{\{ *(?:omit if [^{}]* else +)?(?P<name>cmk_\w+)(?: *\| *(?:default\([^{}|]*\)|bool|int|float|trim))* *\}\}"
)
_VARIABLE = re.compile(r"\bcmk_\w+")
_PREFIX = "cmk_"
_WITH_DEFAULT = ("cmk_key_force_new_version", "cmk_unused_versions")
# If one of these variables is set, the role rotate does more than move an account to the newest version.
RULES = frozenset({*_WITH_DEFAULT, "cmk_key_max_age", "cmk_key_rotation_policy"})
NO_RULE = (
    "No variable requests a rotation, so the role rotate creates a new version only if the newest version expires within "
    "nine days. To rotate, set cmk_key_max_age (for example P90D), cmk_key_force_new_version or "
    "cmk_key_rotation_policy. To disable unused versions, set cmk_unused_versions: disable."
)


RESULT = "cmk_result"
PRESET_RESULT = Refused(
    f"The variable {RESULT} is an extra variable of this run. An extra variable has precedence over the result that "
    "the role registers under this name, so an old result would be shown as that of this run. The role changed "
    f"nothing. Remove {RESULT} from the extra variables. In a workflow of AWX, pass it on under another name.",
    code="result_preset",
    remedy=f"Remove {RESULT} from the extra variables, and from set_stats of earlier nodes of the workflow.",
)


def _known_variables() -> frozenset[str]:
    """The variables of all roles and playbooks, the result variable, and the variables that the inventory plugin
    sets."""
    specifications = [
        yaml_load(file.read_text(encoding="utf-8"))["argument_specs"]
        for file in _COLLECTION.glob("roles/*/meta/argument_specs.yml")
    ]
    of_roles = {name for one in specifications for entry in one.values() for name in entry.get("options", {})}
    playbooks = "".join(file.read_text(encoding="utf-8") for file in _COLLECTION.glob("playbooks/**/*.yml"))
    of_inventory = Record.__required_keys__ | Record.__optional_keys__
    return frozenset({*of_roles, *_VARIABLE.findall(playbooks), *of_inventory, *VARIABLES, RESULT})


# Read when the plugin is loaded, once in a run. In a worker, each task of each host would read the files again.
KNOWN_VARIABLES = _known_variables()


class RoleVariables(ActionBase):  # type: ignore[misc]
    """Names the role's variables in the failures and warnings of a task, and reports unknown variables. Blank
    variables count as not set. A result variable that is set before the role is refused."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        variables = passed_on(self._task.get_ds(), str(self._task.action))
        role = self._task._role.get_name() if self._task._role else ""
        is_ours = role.startswith("azbatch.cmk.")
        if is_ours:
            if RESULT in self._task.get_variable_manager().extra_vars:
                return {"failed": True, **PRESET_RESULT.result()}
            defaults = self._task._role.get_default_vars()
            self._task.args = without_blanks(self._task.args, variables, defaults, self._templar.template)
        result: dict[str, Any] = super().run(tmp, task_vars)
        if variables:
            name_variables(result, variables)
        if is_ours:
            warnings = self._warnings_of(role, task_vars or {})
            if warnings:
                result["warnings"] = [*result.get("warnings", []), *warnings]
        return result

    def _warnings_of(self, role: str, task_vars: Mapping[str, Any]) -> list[str]:
        """The warnings about variables. Each warning is returned once in a run."""
        names = {name for name in task_vars if name.startswith(_PREFIX)}
        warnings = [unknown_variable(name) for name in sorted(names - KNOWN_VARIABLES)]
        if role == "azbatch.cmk.rotate" and not rotates(
            {name: self._templar.template(task_vars[name]) for name in names & RULES}
        ):
            warnings.append(NO_RULE)
        return _not_reported_yet(warnings)


def rotates(variables: Mapping[str, Any]) -> bool:
    """Whether the role rotate has a rule. `variables` are the variables of `RULES` that are set."""
    unused, forced = variables.get("cmk_unused_versions"), variables.get("cmk_key_force_new_version")
    others = {name: value for name, value in variables.items() if name not in _WITH_DEFAULT}
    return any(others.values()) or boolean(forced or False, strict=False) or unused not in (None, "", "keep")


def without_blanks(
    options: Mapping[str, Any],
    variables: Mapping[str, str],
    defaults: Mapping[str, Any],
    template: Callable[[Any], Any],
) -> dict[str, Any]:
    """The options of a task. If a variable is an empty string, it counts as not set: the role's default applies,
    and an option without a default is omitted. AWX passes an empty string for each survey question that was left
    blank. `variables` are the variables of the options, by option."""
    blank = {option for option in variables if _is_text(options.get(option)) and not options[option].strip()}
    chosen = {option: template(defaults[variables[option]]) for option in blank if variables[option] in defaults}
    return {option: value for option, value in {**options, **chosen}.items() if option not in blank - chosen.keys()}


def passed_on(task: Any, action: str) -> dict[str, str]:
    """By option, the variable whose value the task passes on. `task` is the parsed YAML of the task."""
    if not isinstance(task, Mapping):
        return {}
    options = next((task[name] for name in (action, action.rpartition(".")[2]) if name in task), None)
    if not isinstance(options, Mapping):
        return {}
    found = {str(option): _PASSED_ON.fullmatch(value.strip()) for option, value in options.items() if _is_text(value)}
    return {option: match["name"] for option, match in found.items() if match}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def name_variables(result: dict[str, Any], variables: Mapping[str, str]) -> None:
    """Add the names of variables after the options in the messages of a result."""
    if result.get("warnings"):
        result["warnings"] = [with_variables(one, variables) for one in result["warnings"]]
    if result.get("failed"):
        for text in ("msg", "remedy"):
            if text in result:
                result[text] = with_variables(result[text], variables)
        if result.get("option") in variables:
            result["variable"] = variables[result["option"]]


def with_variables(text: Any, variables: Mapping[str, str]) -> Any:
    """`Set enable_key: true` becomes `Set enable_key: true (cmk_key_enable: true)`, once for each option."""
    if not isinstance(text, str):
        return text
    for option, variable in variables.items():
        found = _pattern(option).search(text)
        if found:
            named = f"{found[0]} ({variable}{found['value'] or ''})"
            text = f"{text[: found.start()]}{named}{text[found.end() :]}"
    return text


@cache
def _pattern(option: str) -> re.Pattern[str]:
    """The pattern of an option in a message. If its name is a common word, the pattern requires a context in which
    the word can only be the option."""
    value = r"(?P<value>: (?:[a-z][a-z_]*|\d+)\b)"
    if "_" in option:
        return re.compile(rf"(?<![\w./]){option}(?:{value}|\b(?!: ))")
    advice = "|".join(rf"(?<={verb} )" for verb in ("Correct", "correct", "Set", "set"))
    of_ansible = rf"(?<=argument '){option}'|(?<=value of ){option}(?= must)"
    return re.compile(rf"(?<![\w./]){option}{value}|^{option}(?= is )|(?:{advice}){option}\b(?!: )|{of_ansible}")


def unknown_variable(name: str) -> str:
    # Result variables are not suggested, because they are no input.
    inputs = [one[len(_PREFIX) :] for one in KNOWN_VARIABLES if not one.endswith("_result")]
    near = get_close_matches(name[len(_PREFIX) :], inputs, n=1)
    advice = f"Did you mean {_PREFIX}{near[0]}?" if near else "The argument specifications of the roles list them all."
    return (
        f"The variable {name} has no effect: no role or playbook of azbatch.cmk has a variable of that name. {advice}"
    )


def _not_reported_yet(warnings: Sequence[str]) -> list[str]:
    """The warnings that no task of the run has returned yet."""
    if not warnings:
        return []
    files = RunFiles(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
    with files.locked("warnings"):
        given = files.load("warnings") or []
        new = [warning for warning in warnings if warning not in given]
        if new:
            files.store([*given, *new], "warnings")
    return new
