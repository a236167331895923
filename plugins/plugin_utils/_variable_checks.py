# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks all variables of a role before its first task.

This plugin util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleUndefinedVariable
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.validation import check_type_dict, check_type_list
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._core import placeholders
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import check_places
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import goal as access_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import goal as account_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.drill import goal as drill_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import goal as encryption_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import goal as key_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import goal as vault_goal
from ansible_collections.azbatch.cmk.plugins.modules import (
    batch_account_identity,
    batch_encryption,
    batch_encryption_drill,
    keyvault_cmk_access,
    keyvault_cmk_key,
    keyvault_cmk_key_state,
    keyvault_cmk_unused_versions,
    keyvault_cmk_vault,
)
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import STATS, is_blank
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_names import (
    VARIABLE,
    TaskNames,
    names,
    options_of,
    passed_on,
)
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_relations import contradictions
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_warnings import SPECIFICATIONS

# A template that uses the result of an earlier task. Its value is not known before that task.
_RESULT = re.compile(r"\b__\w+")
_OMITTED, _NOT_KNOWN = object(), object()
# The types of variables in words.
_TYPES = {
    **{"int": "an integer", "bool": "true or false", "str": "a text", "path": "a path"},
    **{"list": "a list", "dict": "a dictionary"},
}
# Valid values for some options whose values are not known yet.
_PLACEHOLDERS = {"key_identifier": f"https://unknown.vault.azure.net/keys/unknown/{'0' * 32}"}
# The options of the modules that the roles use, and the functions that check their values.
_CHECKED: dict[str, tuple[Mapping[str, Any], Callable[[Mapping[str, Any]], Any]]] = {
    "azbatch.cmk.batch_account_identity": (batch_account_identity.ARGUMENTS, account_goal.desired),
    "azbatch.cmk.batch_encryption": (batch_encryption.ARGUMENTS, encryption_goal.desired),
    "azbatch.cmk.batch_encryption_drill": (batch_encryption_drill.ARGUMENTS, drill_goal.desired),
    "azbatch.cmk.keyvault_cmk_access": (keyvault_cmk_access.ARGUMENTS, access_goal.desired),
    "azbatch.cmk.keyvault_cmk_key": (keyvault_cmk_key.ARGUMENTS, key_goal.present),
    "azbatch.cmk.keyvault_cmk_key_state": (keyvault_cmk_key_state.ARGUMENTS, key_goal.in_state),
    "azbatch.cmk.keyvault_cmk_unused_versions": (keyvault_cmk_unused_versions.ARGUMENTS, key_goal.unused),
    "azbatch.cmk.keyvault_cmk_vault": (keyvault_cmk_vault.ARGUMENTS, vault_goal.desired),
}
# The roles that a role includes, after it has changed something.
_INCLUDED = {"azbatch.cmk.drill": ("recover",)}
_KNOWS_TRUST = "trusted_as_template" in signature(DataLoader.load_from_file).parameters


class VariableChecks(ActionBase):  # type: ignore[misc]
    """Has the checks of a task of a role. `run` is that of other classes."""

    def _names(self, task: Any, arguments: Collection[str]) -> TaskNames:
        """The names in the messages of a task of the role, or of this task. `arguments` are those of its module."""
        own = self._task._role
        is_ours = own is not None and own.get_name().startswith("azbatch.cmk.")
        return names(
            task.get_ds(),
            str(task.action),
            given=self._templar.available_variables,
            defaults=own.get_default_vars() if own else {},
            role=own.get_name() if is_ours else "",
            arguments=arguments,
        )

    def _elsewhere(self, tasks: Sequence[Any]) -> list[Any]:
        """The last tasks of the role, if a later play runs them, and the tasks of a role that the role includes."""
        own = Path(self._task._role._role_path)
        included = [own.parent / one / "tasks" / "main.yml" for one in _INCLUDED.get(self._task._role.get_name(), ())]
        # Since ansible-core 2.19, only trusted texts are templates.
        trusted: dict[str, Any] = {"trusted_as_template": True} if _KNOWS_TRUST else {}
        loaded = [
            one
            for file in (own / "tasks" / "clean_up.yml", *included)
            if file.exists()
            for one in self._loader.load_from_file(str(file), **trusted)
        ]
        ours = [one for one in loaded if any(str(name).startswith("azbatch.cmk.") for name in one)]
        last = [Task.load(one, role=self._task._role, loader=self._loader) for one in ours]
        names = {task.name for task in tasks}
        return [task for task in last if task.name not in names]

    def _problems(self, role: str, later_tasks: Sequence[Any], defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Before the first task of a role: the results of the errors of all invalid variables, if a variable has a
        wrong type, or if a later task would refuse it. Otherwise the first task reports its own options."""
        # The tasks of a role have many options in common, and each template takes time.
        # In check mode, a value may contain the text of a placeholder, from the result of an earlier task.
        own = {option: placeholders.resolved(value) for option, value in self._task.args.items()}
        own_templates = options_of(self._task.get_ds(), str(self._task.action))
        known: dict[tuple[str, str], Any] = {
            (option, str(template)): own.get(option, _OMITTED) for option, template in own_templates.items()
        }
        later = []
        for task in filter(self._may_run, later_tasks):
            values = {}
            for option, template in task.args.items():
                if (option, str(template)) not in known:
                    known[option, str(template)] = self._value(option, template)
                values[option] = known[option, str(template)]
            later.append((task, values))
        # By variable, its first problem.
        specification = dict(SPECIFICATIONS[role])
        for included in _INCLUDED.get(role, ()):
            specification = {**SPECIFICATIONS[f"azbatch.cmk.{included}"], **specification}
        found = self._wrong_variables(role, specification, [(self._task, own), *later])
        wrong = frozenset(found)
        problems: list[dict[str, Any]] = []
        for task, values in later:
            given = {
                option: _placeholder(option) if value is _NOT_KNOWN else value
                for option, value in values.items()
                if value is not _OMITTED
            }
            problems += self._problems_of(task, given, defaults, wrong)
        if not found and not problems:
            return []
        first = self._problems_of(self._task, own, defaults, wrong)
        for one in (*first, *problems):
            found.setdefault(one.get("variable", one["msg"]), one)
        # A value that is made of two variables is wrong because one of them is.
        found = {name: one for name, one in found.items() if found.keys().isdisjoint({*name.split("/")} - {name})}
        missing = [name for name, one in found.items() if "value" not in one]
        if not missing or not self._has_hosts_not_used():
            return list(found.values())
        others = [one for name, one in found.items() if name not in missing]
        return [_without_hosts(missing).result(), *others]

    def _has_hosts_not_used(self) -> bool:
        """Whether the inventory has hosts that the playbook does not use, because `cmk_hosts` is not set. False in a
        user's play."""
        given = self._templar.available_variables
        if STATS not in given or not is_blank(given.get("cmk_hosts")):
            return False
        return bool(set(given["groups"]["all"]) - {"localhost"})

    def _problems_of(
        self, task: Any, options: Mapping[str, Any], defaults: Mapping[str, Any], wrong: frozenset[str]
    ) -> list[dict[str, Any]]:
        """The results of the errors of a task's options, with the names of the role's variables. The values of the
        variables that are already known to be `wrong` count as not known yet."""
        action = str(task.action)
        if action not in _CHECKED:
            return []
        arguments, desired = _CHECKED[action]
        variables = passed_on(task.get_ds(), action)
        given = without_blanks(options, variables, defaults, self._templar.template)
        specification = {**CONNECTION, **arguments}
        is_wrong = {
            option: not wrong.isdisjoint(VARIABLE.findall(str(template)))
            for option, template in options_of(task.get_ds(), action).items()
        }
        right = {option: value for option, value in given.items() if not is_wrong.get(option)}
        optional = {option: {**one, "required": False} for option, one in specification.items()}
        params = ArgumentSpecValidator(optional).validate(right).validated_parameters
        unknown = [
            option
            for option, one in specification.items()
            if option not in right and one["type"] == "str" and (one.get("required") or is_wrong.get(option))
        ]
        found = [error.result() for error in check_places(right).found]
        try:
            desired({**params, **{option: _placeholder(option) for option in unknown}})
        except CmkError as error:
            found += error.facts.get("problems", [error.result()])
        # A value that is not known yet is not wrong, and nothing is wrong because it differs from such a value.
        not_known = [*{_placeholder(option) for option in specification}]
        problems = [
            one
            for one in found
            if one.get("value") not in not_known and not any(repr(text) in one["msg"] for text in not_known)
        ]
        shown = self._names(task, arguments)
        return [shown.in_result(problem, options) for problem in problems]

    def _wrong_variables(
        self, role: str, specification: Mapping[str, Mapping[str, Any]], tasks: Sequence[tuple[Any, Mapping[str, Any]]]
    ) -> dict[str, dict[str, Any]]:
        """The results of the errors of the variables that are required and not set, that use an undefined variable,
        that have a wrong type or a value that is not one of the choices, or that contradict each other. `tasks` are
        tasks of the role with the values of their options, which are not read a second time."""
        passed: dict[str, Any] = {}
        for task, options in tasks:
            for option, variable in passed_on(task.get_ds(), str(task.action)).items():
                passed.setdefault(variable, options.get(option, _OMITTED))
        values, found = {}, dict[str, CmkError | None]()
        for name, one in specification.items():
            value = passed[name] if name in passed else self._value(name, self._templar.available_variables.get(name))
            if value is not _NOT_KNOWN and value is not _OMITTED and not is_blank(value):
                values[name] = value
            elif value is not _NOT_KNOWN and one.get("required"):
                found[name] = _missing(name, one)
        found |= self._undefined(specification)
        types = {name: {**specification[name], "required": False} for name in values}
        if ArgumentSpecValidator(types).validate(values).error_messages:
            found |= {name: type_error(name, value, types[name]) for name, value in values.items()}
        for error in contradictions(role, values):
            found.setdefault(error.facts["variable"], error)
        return {name: error.result() for name, error in found.items() if error}

    def _undefined(self, names: Iterable[str]) -> dict[str, CmkError]:
        """The errors of variables that use undefined variables. Without them, such a variable would count as not set,
        or a later task would fail after the first change."""
        given, defaults, found = self._templar.available_variables, self._task._role.get_default_vars(), {}
        for name in names:
            template = given.get(name)
            if not isinstance(template, str) or "{{" not in template or template == defaults.get(name):
                continue
            try:
                self._templar.template({name: template})
            except AnsibleUndefinedVariable as undefined:
                reason = str(undefined).rpartition(": ")[2].partition(". ")[0].rstrip(".")
                remedy = f"Define that variable, or correct {name}."
                text = f"{name} is {template!r}: {reason}. {remedy}"
                found[name] = CmkError(text, code="invalid_option", variable=name, remedy=remedy)
        return found

    def _may_run(self, task: Any) -> bool:
        """Whether the conditions of a task are true, as far as they do not use the results of other tasks."""
        known = [condition for condition in task.when if not _RESULT.search(str(condition))]
        try:
            if hasattr(self._templar, "evaluate_conditional"):
                return all(map(self._templar.evaluate_conditional, known))
            # ansible-core before 2.19.
            copy = task.copy()
            copy.when = known
            return bool(copy.evaluate_conditional(self._templar, self._templar.available_variables))
        except AnsibleUndefinedVariable:
            return False

    def _value(self, name: str, template: Any) -> Any:
        """The value of an option or a variable. `_NOT_KNOWN` if it uses the result of a task, or a variable that is not
        defined: Ansible refuses the task that uses such a variable."""
        if _RESULT.search(str(template)):
            return _NOT_KNOWN
        try:
            # In a dictionary, because ansible-core refuses the value of `omit` elsewhere.
            value = self._templar.template({name: template}).get(name, _OMITTED)
        except AnsibleUndefinedVariable:
            return _NOT_KNOWN
        return _OMITTED if value == self._templar.available_variables.get("omit") else placeholders.resolved(value)


def tasks_in(block: Any) -> Iterator[Any]:
    """The tasks of the block, and of blocks in it (`import_tasks`), that use a module of this collection."""
    for one in block.block:
        if hasattr(one, "block"):
            yield from tasks_in(one)
        elif str(one.action).startswith("azbatch.cmk."):
            yield one


def _placeholder(option: str) -> str:
    """A value for an option whose value is not known yet."""
    return _PLACEHOLDERS.get(option, "unknown")


def _missing(name: str, option: Mapping[str, Any]) -> CmkError:
    """The error of a required variable that is not set. It concerns only the account: the inventory names no key for an
    account that somebody has moved to a Microsoft-managed key."""
    # The first sentence of the description, such as `Name of the key.`.
    what = option["description"][0].partition(". ")[0].rstrip(".")
    remedy = f"Set {name}: {what[0].lower()}{what[1:]}."
    message = f"{name} is not set. {remedy}"
    return CmkError(message, code="invalid_option", is_of_account=True, variable=name, remedy=remedy)


def _without_hosts(missing: Sequence[str]) -> CmkError:
    """The error of a playbook that was meant for the hosts of the inventory, but runs on localhost."""
    remedy = "Set cmk_hosts to a group or a pattern of the inventory, such as pinned or all."
    return CmkError(
        f"cmk_hosts is not set, so the playbook runs only on localhost, which lacks {', '.join(missing)}. {remedy} If "
        "the run is for one account, set the missing variables instead.",
        code="invalid_option",
        variable="cmk_hosts",
        remedy=remedy,
    )


def type_error(name: str, value: Any, option: Mapping[str, Any]) -> CmkError | None:
    """The error of a variable, or of a key in a variable, that has the wrong type, or a value that is not one of the
    choices."""
    if not ArgumentSpecValidator({name: option}).validate({name: value}).error_messages:
        return None
    is_list = option["type"] == "list"
    if "options" in option:
        try:
            given = list(map(check_type_dict, check_type_list(value) if is_list else [value]))
        except TypeError:
            kind = "a list of dictionaries" if is_list else "a dictionary"
            return _wrong(
                name, value, f"it is not {kind}.", f"Use {kind} with the keys {', '.join(option['options'])}."
            )
        names = [f"{name}[{number}]" for number in range(len(given))] if is_list else [name]
        return next(filter(None, (_of_keys(*one, option["options"]) for one in zip(names, given, strict=True))), None)
    if "choices" in option:
        choices = f"{'a list of' if is_list else 'one of'} {', '.join(map(str, option['choices']))}"
        return _wrong(name, value, "it is not allowed.", f"Use {choices}.")
    return _wrong(name, value, "its type is wrong.", f"Use {_TYPES[option['type']]}.")


def _of_keys(name: str, given: Mapping[str, Any], keys: Mapping[str, Mapping[str, Any]]) -> CmkError | None:
    """The error of a dictionary with an unknown key, a missing key, or a key with a wrong value."""
    unknown = [str(key) for key in given if key not in keys]
    missing = [key for key, one in keys.items() if one.get("required") and given.get(key) is None]
    if unknown or missing:
        problem = f"it must not have the key {unknown[0]}." if unknown else f"it lacks {', '.join(missing)}."
        return _wrong(name, given, problem, f"Use the keys {', '.join(keys)}.")
    return next(filter(None, (type_error(f"{name}.{key}", one, keys[key]) for key, one in given.items())), None)


def _wrong(name: str, value: Any, problem: str, remedy: str) -> CmkError:
    """The error of the variable `cmk_name`, of its item `cmk_name[0]`, or of its key `cmk_name.key`."""
    variable = re.split(r"[.[]", name)[0]
    text = f"{name} is {value!r}: {problem} {remedy}"
    return CmkError(text, code="invalid_option", variable=variable, value=value, remedy=remedy)


def without_blanks(
    options: Mapping[str, Any],
    variables: Mapping[str, str],
    defaults: Mapping[str, Any],
    template: Callable[[Any], Any],
) -> dict[str, Any]:
    """The options of a task. If a variable is an empty string or null, it counts as not set: the role's default
    applies, and an option without a default is omitted. AWX passes an empty string for each survey question that was
    left blank. `variables` are the variables of the options, by option."""
    blank = {option for option in variables if option in options and is_blank(options[option])}
    chosen = {option: template(defaults[variables[option]]) for option in blank if variables[option] in defaults}
    chosen = {option: value for option, value in chosen.items() if not is_blank(value)}
    return {option: value for option, value in {**options, **chosen}.items() if option not in blank - chosen.keys()}
