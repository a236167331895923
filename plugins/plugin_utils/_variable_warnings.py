# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Warnings about the variables of the roles: unknown ones, and those that do not fit together.

This plugin util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ansible import constants
from ansible.module_utils.common.validation import check_type_dict
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import BOOLEANS_FALSE

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import UNUSED
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._core.duration import seconds
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import rotation_policy
from ansible_collections.azbatch.cmk.plugins.plugin_utils import _argument_spec
from ansible_collections.azbatch.cmk.plugins.plugin_utils._inventory import HostVariables
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import VARIABLES, is_blank
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_names import COLLECTION, VARIABLE
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_relations import without_effect

_PREFIX = "cmk_"
# The variable with the result of a role.
RESULT = "cmk_result"
# Variables that are set, and may request nothing.
_MAY_BE_OFF = ("cmk_key_new_version", "cmk_unused_versions")
_INTERVALS = frozenset({"cmk_unused_versions", "cmk_unused_for", "cmk_key_max_version_age", "cmk_key_rotation_policy"})
# If one of these variables is set, the role rotate does more than move an account to the newest version.
RULES = frozenset({*_MAY_BE_OFF, "cmk_key_max_version_age", "cmk_key_rotation_policy"})
NO_RULE = (
    "No variable requests a rotation, so the role rotate creates a new version only if the newest version expires "
    "within nine days. To rotate, set cmk_key_max_version_age (for example P90D), cmk_key_new_version or "
    "cmk_key_rotation_policy. To disable unused versions, set cmk_unused_versions: disable."
)


def _specifications() -> dict[str, Mapping[str, Any]]:
    """The variables of each role, by the name of the role."""
    entries: dict[str, Any] = {}
    for file in COLLECTION.glob("roles/*/meta/argument_specs.yml"):
        entries |= yaml_load(file.read_text(encoding="utf-8"))["argument_specs"]
    return {f"azbatch.cmk.{role}": entry["options"] for role, entry in entries.items()}


def _known_variables() -> frozenset[str]:
    """The variables of all roles and playbooks, the result variable, and the variables that the inventory plugin
    sets."""
    of_roles = {name for options in SPECIFICATIONS.values() for name in options}
    playbooks = "".join(file.read_text(encoding="utf-8") for file in COLLECTION.glob("playbooks/**/*.yml"))
    of_inventory = HostVariables.__required_keys__ | HostVariables.__optional_keys__
    return frozenset({*of_roles, *VARIABLE.findall(playbooks), *of_inventory, *VARIABLES, RESULT})


# Read when the plugin is loaded, once in a run. In a worker, each task of each host would read the files again.
SPECIFICATIONS = _specifications()
KNOWN_VARIABLES = _known_variables()
_OF_ROLES = {name: option for options in SPECIFICATIONS.values() for name, option in options.items()}
# The similarity from which on a name is suggested, of 1. All names begin with the same prefix.
_SIMILAR = 0.66


def about(
    variables: Mapping[str, Any],
    role: str,
    defaults: Mapping[str, Any],
    template: Callable[[Any], Any],
    *,
    failed: bool,
) -> list[str]:
    """The warnings about the variables of a task of the role. Each warning is returned once in a run."""
    names = {name for name in variables if name.startswith(_PREFIX)}
    warnings = [unknown_variable(name, variables[name]) for name in sorted(names - KNOWN_VARIABLES)]
    if not failed:
        warnings += [
            f"{name} is {value!r}, which has no effect in {role} without {others}."
            for name, value, others in without_effect(variables, SPECIFICATIONS[role], defaults, template)
        ]
    if role == "azbatch.cmk.rotate" and not failed:
        given = {name: template(variables[name]) for name in names & (RULES | _INTERVALS)}
        if not rotates({name: value for name, value in given.items() if name in RULES}):
            warnings.append(NO_RULE)
        warnings += _too_often(given)
    return _not_reported_yet(warnings)


def _too_often(values: Mapping[str, Any]) -> Iterator[str]:
    """The warning that no version is ever unused for the requested time. `values` are those of _INTERVALS."""
    if values.get("cmk_unused_versions") != "disable":
        return
    after, age = values["cmk_unused_for"], values.get("cmk_key_max_version_age")
    after = UNUSED["unused_for"]["default"] if is_blank(after) else after
    unused_for = seconds(after, "cmk_unused_for", or_none=True) or 0
    policy = values.get("cmk_key_rotation_policy")
    # Key Vault creates the next version before the nightly run.
    intervals = {
        "cmk_key_max_version_age": None if is_blank(age) else seconds(age, "cmk_key_max_version_age"),
        "cmk_key_rotation_policy": rotation_policy.interval(check_type_dict(policy)) - 1 if policy else None,
    }
    name = next((name for name, interval in intervals.items() if interval is not None and interval < unused_for), None)
    if name:
        yield (
            f"With this {name}, new versions of the key are created so often that their previous versions are never "
            "unused for the time in cmk_unused_for. Therefore no version is disabled until rotation pauses "
            f"for that time, and the number of enabled versions grows. Use a longer time in {name} or a shorter "
            "cmk_unused_for."
        )


def rotates(variables: Mapping[str, Any]) -> bool:
    """Whether the role rotate has a rule. `variables` are the variables of `RULES` that are set."""
    unused, forced = variables.get("cmk_unused_versions"), variables.get("cmk_key_new_version")
    others = {name: value for name, value in variables.items() if name not in _MAY_BE_OFF}
    return (
        any(others.values()) or str(forced or False).lower() not in BOOLEANS_FALSE or unused not in (None, "", "keep")
    )


def unknown_variable(name: str, value: Any = "") -> str:
    # Variables that are no input, those of AWX's playbook, and those that do not accept the value are not suggested.
    inputs = [variable for variable in (*_OF_ROLES, *VARIABLES) if _accepts(variable, value)]
    of_word = [variable for variable in inputs if variable.split("_")[1] == name.split("_")[1]]
    near = next(filter(None, (get_close_matches(name, names, n=1, cutoff=_SIMILAR) for names in (of_word, inputs))), ())
    advice = f"Did you mean {near[0]}?" if near else "The argument specifications of the roles list them all."
    return (
        f"The variable {name} has no effect: no role or playbook of azbatch.cmk has a variable of that name. {advice}"
    )


def _accepts(name: str, value: Any) -> bool:
    """Whether the type and the choices of the variable allow the value. A template may have any value."""
    if name not in _OF_ROLES or is_blank(value) or "{{" in str(value):
        return True
    return not _argument_spec.errors({name: _OF_ROLES[name]}, {name: value})


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
