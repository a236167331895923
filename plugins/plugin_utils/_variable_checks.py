# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks all variables of a role before its first task.

Ansible's validator checks what the argument specification says (`_argument_spec.py`). This file checks what it cannot
know: variables that use an undefined variable, values that a module would refuse (`_CHECKED`) although their type is
right, and playbooks that lack the hosts of the inventory. `_variable_relations.py` checks values that contradict each
other.

This plugin util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleUndefinedVariable
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._core import placeholders
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, value_text
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import check_places
from ansible_collections.azbatch.cmk.plugins.module_utils._core.summary import some_text
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
from ansible_collections.azbatch.cmk.plugins.plugin_utils import _argument_spec
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
_NOT_KNOWN = object()
# Valid values for options whose values are not known yet: a name, and the identifier of a key.
_PLACEHOLDERS = ("unknown", f"https://unknown.vault.azure.net/keys/unknown/{'0' * 32}")
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
        included = [own.parent / role / "tasks" / "main.yml" for role in _INCLUDED.get(self._task._role.get_name(), ())]
        # Since ansible-core 2.19, only trusted texts are templates.
        trusted: dict[str, Any] = {"trusted_as_template": True} if _KNOWS_TRUST else {}
        parsed = [
            task
            for file in (own / "tasks" / "clean_up.yml", *included)
            if file.exists()
            for task in self._loader.load_from_file(str(file), **trusted)
        ]
        ours = [task for task in parsed if any(str(keyword).startswith("azbatch.cmk.") for keyword in task)]
        last = [Task.load(task, role=self._task._role, loader=self._loader) for task in ours]
        names = {task.name for task in tasks}
        return [task for task in last if task.name not in names]

    def _problems(self, role: str, later_tasks: Sequence[Any], defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Before the first task of a role: the results of the errors of all its variables, one for each variable."""
        # In check mode, a value may contain the text of a placeholder, from the result of an earlier task.
        own = {option: placeholders.resolved(value) for option, value in self._task.args.items()}
        templates = options_of(self._task.get_ds(), str(self._task.action))
        # The tasks of a role have many options in common, and each template takes time.
        values = {(option, str(template)): own.get(option) for option, template in templates.items()}
        tasks = [(self._task, own)]
        for task in filter(self._may_run, later_tasks):
            for option, template in task.args.items():
                if (option, str(template)) not in values:
                    values[option, str(template)] = self._value_if_known(option, template)
            tasks.append((task, {option: values[option, str(template)] for option, template in task.args.items()}))
        problems = {error.facts["variable"]: error.result() for error in self._wrong_variables(role)}
        wrong = frozenset(problems)
        for task, options in tasks:
            for problem in self._problems_of(task, options, defaults, wrong):
                problems.setdefault(problem.get("variable", problem["msg"]), problem)
        # A value that is made of two variables is wrong because one of them is.
        made_of_wrong = {name for name in problems if not problems.keys().isdisjoint({*name.split("/")} - {name})}
        missing = [name for name in problems if "value" not in problems[name] and name not in made_of_wrong]
        if not missing or not self._has_hosts_not_used():
            return [problem for name, problem in problems.items() if name not in made_of_wrong]
        others = [problem for name, problem in problems.items() if name not in made_of_wrong.union(missing)]
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
        """The results of the errors that the module of a task would report, with the names of the role's variables. The
        argument specification does not know them, such as a period that is too short. The values of the variables that
        are already known to be `wrong` count as not known yet."""
        action = str(task.action)
        if action not in _CHECKED:
            return []
        arguments, desired = _CHECKED[action]
        specification = {**CONNECTION, **arguments}
        is_wrong = {
            option: not wrong.isdisjoint(VARIABLE.findall(str(template)))
            for option, template in options_of(task.get_ds(), action).items()
        }
        known = {
            option: value for option, value in options.items() if value is not _NOT_KNOWN and not is_wrong.get(option)
        }
        known = without_blanks(known, passed_on(task.get_ds(), action), defaults, self._templar.template)
        assumed = {
            option: _placeholder(option)
            for option, expected in specification.items()
            if options.get(option) is _NOT_KNOWN
            or (expected["type"] == "str" and (expected.get("required") or is_wrong.get(option)))
        }
        params = ArgumentSpecValidator(specification).validate({**assumed, **known}).validated_parameters
        problems = [error.result() for error in check_places(known).found]
        try:
            desired(params)
        except CmkError as error:
            problems += error.facts.get("problems", [error.result()])
        # A value that is not known yet is not wrong, and nothing is wrong because it differs from such a value.
        problems = [
            problem
            for problem in problems
            if problem.get("value") not in _PLACEHOLDERS
            and not any(repr(placeholder) in problem["msg"] for placeholder in _PLACEHOLDERS)
        ]
        shown = self._names(task, arguments) if problems else None
        return [shown.in_result(problem, options) for problem in problems] if shown else []

    def _wrong_variables(self, role: str) -> list[CmkError]:
        """The first error of each variable that uses an undefined variable, contradicts the argument specification of
        the role, or contradicts another variable.

        Ansible can check an argument specification itself. But then an empty string would not count as not set, and the
        error would have kilobytes of JSON."""
        specification = dict(SPECIFICATIONS[role])
        for included in _INCLUDED.get(role, ()):
            specification = {**SPECIFICATIONS[f"azbatch.cmk.{included}"], **specification}
        given, defaults = self._templar.available_variables, self._task._role.get_default_vars()
        values, errors = {}, {}
        for name in list(specification):
            try:
                values[name] = self._value(name, given.get(name))
            except AnsibleUndefinedVariable as undefined:
                del specification[name]
                # A default may be made of a required variable, which has its own error.
                if given[name] != defaults.get(name):
                    errors[name] = _undefined(name, given[name], undefined)
        are_set = {name: value for name, value in values.items() if not is_blank(value)}
        for error in (*_argument_spec.errors(specification, are_set), *contradictions(role, are_set)):
            errors.setdefault(error.facts["variable"], error)
        return list(errors.values())

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

    def _value_if_known(self, option: str, template: Any) -> Any:
        """The value of an option. `_NOT_KNOWN` if it uses the result of a task, or a variable that is not defined."""
        if _RESULT.search(str(template)):
            return _NOT_KNOWN
        try:
            return self._value(option, template)
        except AnsibleUndefinedVariable:
            return _NOT_KNOWN

    def _value(self, name: str, template: Any) -> Any:
        """The value of an option or a variable, or None. Raises AnsibleUndefinedVariable."""
        # In a dictionary, because ansible-core refuses the value of `omit` elsewhere.
        value = self._templar.template({name: template}).get(name)
        return None if value == self._templar.available_variables.get("omit") else placeholders.resolved(value)


def tasks_in(block: Any) -> Iterator[Any]:
    """The tasks of the block, and of blocks in it (`import_tasks`), that use a module of this collection."""
    for task in block.block:
        if hasattr(task, "block"):
            yield from tasks_in(task)
        elif str(task.action).startswith("azbatch.cmk."):
            yield task


def _placeholder(option: str) -> str:
    """A value for an option whose value is not known yet."""
    return _PLACEHOLDERS[option == "key_identifier"]


def _undefined(name: str, template: Any, undefined: AnsibleUndefinedVariable) -> CmkError:
    """The error of a variable that uses an undefined variable. Without it, the variable would count as not set, or a
    later task would fail after the first change."""
    reason = str(undefined).rpartition(": ")[2].partition(". ")[0].rstrip(".")
    remedy = f"Define that variable, or correct {name}."
    text = f"{name} is {value_text(template)}: {reason}. {remedy}"
    return CmkError(text, code="invalid_option", variable=name, remedy=remedy)


def _without_hosts(missing: Sequence[str]) -> CmkError:
    """The error of a playbook that was meant for the hosts of the inventory, but runs on localhost."""
    remedy = "Set cmk_hosts to a group or pattern of the inventory, such as pinned or all."
    return CmkError(
        f"cmk_hosts is not set, so the playbook runs only on localhost, which lacks {some_text(missing, 2)}. {remedy}",
        code="invalid_option",
        variable="cmk_hosts",
        remedy=remedy,
    )


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
