# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of the roles: finds the variable of each option of a task, and reports unknown variables.

This plugin util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleUndefinedVariable
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.validation import check_type_dict, check_type_list
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION, UNUSED
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._core import placeholders
from ansible_collections.azbatch.cmk.plugins.module_utils._core.duration import seconds
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    InvalidOption,
    Refused,
    several,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import goal as access_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import goal as account_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import goal as encryption_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import goal as key_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import rotation_policy
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import goal as vault_goal
from ansible_collections.azbatch.cmk.plugins.modules import (
    batch_account_identity,
    batch_encryption,
    keyvault_cmk_access,
    keyvault_cmk_key,
    keyvault_cmk_unused_versions,
    keyvault_cmk_vault,
)
from ansible_collections.azbatch.cmk.plugins.plugin_utils._inventory import Record
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import STATS, VARIABLES, is_blank

_COLLECTION = Path(__file__).resolve().parents[2]
# A template that passes on the value of a variable unchanged, or omits the option.
_PASSED_ON = re.compile(
    r"\{\{ *(?:omit if [^{}]* else +)?(?P<name>cmk_\w+)(?: *\| *(?:default\([^{}|]*\)|bool|int|float|trim))* *\}\}"
)
_VARIABLE = re.compile(r"\bcmk_\w+")
_PREFIX = "cmk_"
_WITH_DEFAULT = ("cmk_key_new_version", "cmk_unused_versions")
_INTERVALS = frozenset({"cmk_unused_versions", "cmk_unused_for", "cmk_key_max_version_age", "cmk_key_rotation_policy"})
# If one of these variables is set, the role rotate does more than move an account to the newest version.
RULES = frozenset({*_WITH_DEFAULT, "cmk_key_max_version_age", "cmk_key_rotation_policy"})
NO_RULE = (
    "No variable requests a rotation, so the role rotate creates a new version only if the newest version expires "
    "within nine days. To rotate, set cmk_key_max_version_age (for example P90D), cmk_key_new_version or "
    "cmk_key_rotation_policy. To disable unused versions, set cmk_unused_versions: disable."
)
# A template that uses the result of an earlier task. Its value is not known before that task.
_RESULT = re.compile(r"\b__\w+")
_OMITTED, _NOT_KNOWN = object(), object()
_WORD = re.compile(r"[a-z_]+")
# The types of variables in words.
_TYPES = {
    **{"int": "an integer", "bool": "true or false", "str": "a text", "path": "a path"},
    **{"list": "a list", "dict": "a dictionary"},
}
# Valid values for some options whose values are not known yet.
_PLACEHOLDERS = {"key_identifier": f"https://unknown.vault.azure.net/keys/unknown/{'0' * 32}"}
_MODULE = r"azbatch\.cmk\.(?:batch|keyvault)_\w+"
# Advice that only a user of the modules can follow, such as ` (azbatch.cmk.batch_encryption)`,
# `, or the vault with azbatch.cmk.keyvault_cmk_vault (recover: true)` or `, or set force: true`, which no role sets.
_WAY_OF_MODULE = re.compile(
    rf"(?:, or (?:[^,.;()]* )?with {_MODULE} \(| \({_MODULE})[^)]*\)|[,.] [Oo]r set force: true[^.]*"
)
_DONE_BY_PROVISION = re.compile(
    r"(?<=with )azbatch\.cmk\.(?:batch_account_identity|keyvault_cmk_(?:access|key|vault))\b(?! \()"
)
# The options of the modules that the roles use, and the functions that check their values.
_CHECKED: dict[str, tuple[Mapping[str, Any], Callable[[Mapping[str, Any]], Any]]] = {
    "azbatch.cmk.batch_account_identity": (batch_account_identity.ARGUMENTS, account_goal.desired),
    "azbatch.cmk.batch_encryption": (batch_encryption.ARGUMENTS, encryption_goal.desired),
    "azbatch.cmk.keyvault_cmk_access": (keyvault_cmk_access.ARGUMENTS, access_goal.desired),
    "azbatch.cmk.keyvault_cmk_key": (keyvault_cmk_key.ARGUMENTS, key_goal.desired),
    "azbatch.cmk.keyvault_cmk_unused_versions": (keyvault_cmk_unused_versions.ARGUMENTS, key_goal.unused),
    "azbatch.cmk.keyvault_cmk_vault": (keyvault_cmk_vault.ARGUMENTS, vault_goal.desired),
}
_KNOWS_TRUST = "trusted_as_template" in signature(DataLoader.load_from_file).parameters
RESULT = "cmk_result"
PRESET_RESULT = Refused(
    f"The variable {RESULT} is an extra variable of this run. An extra variable has precedence over the result that "
    "the role registers under this name, so an old result would be shown as that of this run. The role changed "
    f"nothing. Remove {RESULT} from the extra variables. In a workflow of AWX, pass it on under another name.",
    code="result_preset",
    remedy=f"Remove {RESULT} from the extra variables, and from set_stats of earlier nodes of the workflow.",
)


def _specifications() -> dict[str, Mapping[str, Any]]:
    """The variables of each role, by the name of the role."""
    entries: dict[str, Any] = {}
    for file in _COLLECTION.glob("roles/*/meta/argument_specs.yml"):
        entries |= yaml_load(file.read_text(encoding="utf-8"))["argument_specs"]
    return {f"azbatch.cmk.{role}": entry["options"] for role, entry in entries.items()}


def _known_variables() -> frozenset[str]:
    """The variables of all roles and playbooks, the result variable, and the variables that the inventory plugin
    sets."""
    of_roles = {name for options in _SPECIFICATIONS.values() for name in options}
    playbooks = "".join(file.read_text(encoding="utf-8") for file in _COLLECTION.glob("playbooks/**/*.yml"))
    of_inventory = Record.__required_keys__ | Record.__optional_keys__
    return frozenset({*of_roles, *_VARIABLE.findall(playbooks), *of_inventory, *VARIABLES, RESULT})


# Read when the plugin is loaded, once in a run. In a worker, each task of each host would read the files again.
_SPECIFICATIONS = _specifications()
KNOWN_VARIABLES = _known_variables()


class RoleVariables(ActionBase):  # type: ignore[misc]
    """Names the role's variables in the failures and warnings of a task, and reports unknown variables. Blank
    variables count as not set. A result variable that is set before the role is refused."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        variables = passed_on(self._task.get_ds(), str(self._task.action))
        role = self._task._role.get_name() if self._task._role else ""
        is_ours = role.startswith("azbatch.cmk.")
        is_first = False
        if is_ours:
            if RESULT in self._task.get_variable_manager().extra_vars:
                return {"failed": True, **PRESET_RESULT.result()}
            given = self._templar.available_variables
            # The defaults that other values replaced. A default that is blank itself is not evaluated a second time.
            defaults = {k: v for k, v in self._task._role.get_default_vars().items() if given.get(k) != v}
            self._task.args = without_blanks(self._task.args, variables, defaults, self._templar.template)
            tasks = [task for block in self._task._role.get_task_blocks() for task in _tasks_in(block)]
            # The first task of a role that uses a module of this collection has no condition.
            is_first = tasks[0].name == self._task.name
            problems = self._problems(role, [*tasks[1:], *self._later_play(tasks)], defaults) if is_first else []
            if problems:
                failure = several(problems).result() if len(problems) > 1 else problems[0]
                return self._with_warnings({"failed": True, **failure}, role, task_vars or {})
        result: dict[str, Any] = super().run(tmp, task_vars)
        if any(map(result.get, ("failed", "warnings"))):
            others = of_other_roles(role, str(self._task.action)) if is_ours else None
            name_variables(result, self._names(variables, result), others=others)
        return self._with_warnings(result, role, task_vars or {}) if is_first else result

    def _names(self, variables: Mapping[str, str], result: dict[str, Any]) -> dict[str, str]:
        """By option, the name of its variable for a message. If a variable has its default, and the default is another
        variable, the name is `cmk_resource_group (the default of cmk_vault_resource_group)`.

        Azure does not report which option names a missing resource group or subscription, so the option is found by its
        value."""
        names = dict(variables)
        if self._task._role:
            given = self._templar.available_variables
            for name, default in self._task._role.get_default_vars().items():
                passed = _PASSED_ON.fullmatch(default.strip()) if _is_text(default) else None
                if passed and (given.get(name) == default or is_blank(given.get(name))):
                    text = f"{passed['name']} (the default of {name})"
                    names |= {option: text for option, variable in variables.items() if variable == name}
        if result.get("code") in ("resource_group_not_found", "subscription_not_found"):
            missing = result["azure"]["message"].casefold()
            options = [one for one in self._task.args if one.endswith(("resource_group", "subscription_id"))]
            named = [one for one in options if f"'{self._task.args[one]}'".casefold() in missing]
            if named and result["option"] not in named:
                names[result["option"]] = names.get(named[0], named[0])
        return names

    def _later_play(self, tasks: Sequence[Any]) -> list[Any]:
        """The last tasks of the role, if a later play of the playbook runs them."""
        file = Path(self._task._role._role_path, "tasks", "clean_up.yml")
        if not file.exists():
            return []
        # Since ansible-core 2.19, only trusted texts are templates.
        trusted: dict[str, Any] = {"trusted_as_template": True} if _KNOWS_TRUST else {}
        loaded = self._loader.load_from_file(str(file), **trusted)
        last = [Task.load(one, role=self._task._role, loader=self._loader) for one in loaded]
        names = {task.name for task in tasks}
        return [task for task in last if task.name not in names]

    def _problems(self, role: str, later_tasks: Sequence[Any], defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Before the first task of a role: the results of the errors of all invalid variables, if a variable has a
        wrong type, or if a later task would refuse it. Otherwise the first task reports its own options."""
        # The tasks of a role have many options in common, and each template takes time.
        # In check mode, a value may contain the text of a placeholder, from the result of an earlier task.
        own = {option: placeholders.resolved(value) for option, value in self._task.args.items()}
        own_templates = _options_of(self._task.get_ds(), str(self._task.action))
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
        found = self._wrong_variables(_SPECIFICATIONS[role], [(self._task, own), *later])
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
            found.setdefault(one.get("variable", one["msg"]), _with_default(one, role))
        missing = [name for name, one in found.items() if "value" not in one]
        hosts = self._hosts_not_used()
        if not missing or not hosts:
            return list(found.values())
        others = [one for name, one in found.items() if name not in missing]
        return [_without_hosts(missing, hosts).result(), *others]

    def _hosts_not_used(self) -> int:
        """The number of hosts that the playbook does not use, because `cmk_hosts` is not set. 0 in a user's play."""
        given = self._templar.available_variables
        if STATS not in given or not is_blank(given.get("cmk_hosts")):
            return 0
        return len(set(given["groups"]["all"]) - {"localhost"})

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
            option: not wrong.isdisjoint(_VARIABLE.findall(str(template)))
            for option, template in _options_of(task.get_ds(), action).items()
        }
        right = {option: value for option, value in given.items() if not is_wrong.get(option)}
        optional = {option: {**one, "required": False} for option, one in specification.items()}
        params = ArgumentSpecValidator(optional).validate(right).validated_parameters
        unknown = [
            option
            for option, one in specification.items()
            if option not in right and one["type"] == "str" and (one.get("required") or is_wrong.get(option))
        ]
        try:
            desired({**params, **{option: _placeholder(option) for option in unknown}})
        except CmkError as error:
            found = error.facts.get("problems", [error.result()])
        else:
            return []
        # A value that is not known yet is not wrong.
        problems = [one for one in found if one.get("value") != _placeholder(str(one.get("option")))]
        for problem in problems:
            problem["failed"] = True
            name_variables(problem, self._names(variables, problem))
            del problem["failed"]
        return problems

    def _wrong_variables(
        self, specification: Mapping[str, Mapping[str, Any]], tasks: Sequence[tuple[Any, Mapping[str, Any]]]
    ) -> dict[str, dict[str, Any]]:
        """The results of the errors of the variables that are required and not set, that use an undefined variable, or
        that have a wrong type or a value that is not one of the choices. `tasks` are tasks of the role with the values
        of their options, which are not read a second time."""
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
            found |= {name: _of_type(name, value, types[name]) for name, value in values.items()}
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

    def _with_warnings(self, result: dict[str, Any], role: str, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """The result with the warnings about variables. Each warning is returned once in a run."""
        names = {name for name in task_vars if name.startswith(_PREFIX)}
        warnings = [unknown_variable(name) for name in sorted(names - KNOWN_VARIABLES)]
        if (
            role == "azbatch.cmk.rotate"
            and not result.get("failed")
            and not rotates({name: self._templar.template(task_vars[name]) for name in names & RULES})
        ):
            warnings.append(NO_RULE)
        if role == "azbatch.cmk.rotate" and not result.get("failed"):
            values = {name: self._templar.template(task_vars[name]) for name in names & _INTERVALS}
            warnings += _too_often(values)
        new = _not_reported_yet(warnings)
        return {**result, "warnings": [*result.get("warnings", []), *new]} if new else result


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


def _tasks_in(block: Any) -> Iterator[Any]:
    """The tasks of the block, and of blocks in it (`import_tasks`), that use a module of this collection."""
    for one in block.block:
        if hasattr(one, "block"):
            yield from _tasks_in(one)
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


def _with_default(problem: dict[str, Any], role: str) -> dict[str, Any]:
    """The error of a variable, with the default among the allowed values if it is a word such as `system_assigned`: the
    module that refuses the value does not know the word."""
    default = _SPECIFICATIONS[role].get(str(problem.get("variable")), {}).get("default")
    if not (_is_text(default) and _WORD.fullmatch(default) and problem["remedy"].startswith("Use ")):
        return problem
    remedy = problem["remedy"].replace("Use ", f"Use {default}, or ", 1)
    return {**problem, "msg": problem["msg"].replace(problem["remedy"], remedy), "remedy": remedy}


def _without_hosts(missing: Sequence[str], hosts: int) -> CmkError:
    """The error of a playbook that was meant for the hosts of the inventory, but runs on localhost."""
    remedy = f"Set cmk_hosts to a pattern, such as all for the {hosts} hosts of the inventory."
    return CmkError(
        f"cmk_hosts is not set, so the playbook runs only on localhost, which lacks {', '.join(missing)}. {remedy} If "
        "the run is for one account, set the missing variables instead.",
        code="invalid_option",
        variable="cmk_hosts",
        remedy=remedy,
    )


def _of_type(name: str, value: Any, option: Mapping[str, Any]) -> CmkError | None:
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
    return next(filter(None, (_of_type(f"{name}.{key}", one, keys[key]) for key, one in given.items())), None)


def _wrong(name: str, value: Any, problem: str, remedy: str) -> CmkError:
    """The error of the variable `cmk_name`, of its item `cmk_name[0]`, or of its key `cmk_name.key`."""
    error = InvalidOption(name, value, problem, remedy)
    error.facts["variable"] = re.split(r"[.[]", error.facts.pop("option"))[0]
    return error


def rotates(variables: Mapping[str, Any]) -> bool:
    """Whether the role rotate has a rule. `variables` are the variables of `RULES` that are set."""
    unused, forced = variables.get("cmk_unused_versions"), variables.get("cmk_key_new_version")
    others = {name: value for name, value in variables.items() if name not in _WITH_DEFAULT}
    return any(others.values()) or boolean(forced or False, strict=False) or unused not in (None, "", "keep")


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


def passed_on(task: Any, action: str) -> dict[str, str]:
    """By option, the variable whose value the task passes on. `task` is the parsed YAML of the task."""
    options = _options_of(task, action)
    found = {str(option): _PASSED_ON.fullmatch(value.strip()) for option, value in options.items() if _is_text(value)}
    return {option: match["name"] for option, match in found.items() if match}


def _options_of(task: Any, action: str) -> Mapping[str, Any]:
    """By option, the template of its value. `task` is the parsed YAML of the task."""
    names = (action, action.rpartition(".")[2])
    options = next((task[name] for name in names if name in task), None) if isinstance(task, Mapping) else None
    return options if isinstance(options, Mapping) else {}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


@cache
def of_other_roles(role: str, action: str) -> dict[str, tuple[str, str]]:
    """By option of a module that the role never sets: the variable that the only other role passes on to the option,
    and that role."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted(_COLLECTION.glob("roles/*/tasks/*.yml")):
        for task in yaml_load(file.read_text(encoding="utf-8")):
            for option, variable in passed_on(task, action).items():
                found.setdefault(option, {}).setdefault(f"azbatch.cmk.{file.parts[-3]}", variable)
    only = {option: list(roles.items()) for option, roles in found.items() if role not in roles and len(roles) == 1}
    return {option: (variable, other) for option, [(other, variable)] in only.items()}


def name_variables(
    result: dict[str, Any], variables: Mapping[str, str], *, others: Mapping[str, tuple[str, str]] | None = None
) -> None:
    """Name variables instead of the options in the messages of a result. In a role, also name the role that does what a
    module does: `Create it with azbatch.cmk.provision`, and leave out what only a module can do. `others` are the
    result of `of_other_roles`, in a role."""

    def named(text: Any) -> Any:
        text = with_variables(text, variables)
        if others is None or not isinstance(text, str):
            return text
        for option, (variable, role) in others.items():
            text = re.sub(rf"(?<![\w./]){option}(: {_values(option, variable)})\b", rf"{variable}\1 in {role}", text)
        return _DONE_BY_PROVISION.sub("azbatch.cmk.provision", _WAY_OF_MODULE.sub("", text))

    if result.get("warnings"):
        result["warnings"] = [named(one) for one in result["warnings"]]
    if result.get("failed"):
        lists = [result.get(name, ()) for name in ("problems", "preflight", "causes")]
        for one in (result, result.get("restore_failure") or {}, *chain(*lists)):
            one |= {key: named(one[key]) for key in ("msg", "evidence", "remedy") if key in one}
            if one.get("option") in variables:
                one["variable"] = variables[one["option"]].partition(" ")[0]


def with_variables(text: Any, variables: Mapping[str, str]) -> Any:
    """`Set enable: true` becomes `Set cmk_key_enable: true`."""
    if isinstance(text, str):
        for option, variable in variables.items():
            text = _pattern(option, variable.partition(" ")[0]).sub(variable, text)
    return text


def _values(option: str, variable: str) -> str:
    """The pattern of the values of an option after its name and a colon. If its name is a common word, only the values
    that the variable can have: `state: absent`, but not `no key has this name: it was purged`."""
    if "_" in option:
        return r"\w+"
    specified: Mapping[str, Any] = next((one[variable] for one in _SPECIFICATIONS.values() if variable in one), {})
    values = ["true", "false"] if specified.get("type") == "bool" else specified.get("choices", ())
    return rf"(?:{'|'.join(map(re.escape, values))})" if values else "(?!)"


@cache
def _pattern(option: str, variable: str) -> re.Pattern[str]:
    """The pattern of an option in a message. If its name is a common word, the pattern requires a context in which
    the word can only be the option."""
    if option == "key_identifier":
        return re.compile(r"(?<![\w./])key_identifier\b|\bthe key identifier\b")
    if "_" in option:
        return re.compile(rf"(?<![\w./]){option}\b")
    has_value = rf"(?=: {_values(option, variable)}\b)"
    advice = "|".join(rf"(?<={verb} )" for verb in ("Correct", "correct", "Set", "set", "Leave out", "leave out"))
    return re.compile(
        rf"(?<![\w./]){option}{has_value}|(?:^|(?<=\. )){option}(?= is )|(?:{advice}){option}\b(?!: [^a-z\d])"
    )


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
