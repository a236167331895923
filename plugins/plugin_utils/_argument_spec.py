# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors that Ansible's validator finds in variables, with one line for each variable.

The messages of the validator name neither the item of a list nor what to do, and some not the value.

This plugin util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, value_text

Specification = Mapping[str, Mapping[str, Any]]
# The types of variables in words.
_TYPES = {
    **{"int": "an integer", "bool": "true or false", "str": "a text", "path": "a path"},
    **{"list": "a list", "dict": "a dictionary"},
}


def errors(specification: Specification, values: Mapping[str, Any]) -> list[CmkError]:
    """At most one error for each variable of the specification. `values` has those that are set."""
    all_variables = (_error(name, option, values) for name, option in specification.items())
    return [error for error in all_variables if error]


def _error(name: str, option: Mapping[str, Any], values: Mapping[str, Any]) -> CmkError | None:
    # Without the keys, because the validator looks for keys also in a number, which raises TypeError.
    shape, keys = {part: value for part, value in option.items() if part != "options"}, option.get("options")
    given = {name: values[name]} if name in values else {}
    checked = ArgumentSpecValidator({name: shape}).validate(given)
    if checked.error_messages:
        return _wrong(name, given[name], *_problem(option)) if given else _missing(name, option)
    return _of_keys(name, checked.validated_parameters[name], keys) if given and keys else None


def _problem(option: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong if the validator refuses the value itself, and the values that are valid."""
    is_list = option["type"] == "list"
    if "options" in option:
        kind = "a list of dictionaries" if is_list else "a dictionary"
        return f"it is not {kind}", f"{kind} with the keys {', '.join(option['options'])}"
    if "choices" in option:
        return "it is not allowed", f"{'a list of' if is_list else 'one of'} {', '.join(map(str, option['choices']))}"
    return "its type is wrong", _TYPES[option["type"]]


def _missing(name: str, option: Mapping[str, Any]) -> CmkError:
    """The error of a required variable that is not set. It concerns only the account: the inventory names no key for an
    account that somebody has moved to a Microsoft-managed key."""
    # The first sentence of the description, such as `Name of the key.`.
    meaning = option["description"][0].partition(". ")[0].rstrip(".")
    remedy = f"Set {name}: {meaning[0].lower()}{meaning[1:]}."
    message = f"{name} is not set. {remedy}"
    return CmkError(message, code="invalid_option", is_of_account=True, variable=name, remedy=remedy)


def _of_keys(name: str, value: Any, keys: Specification) -> CmkError | None:
    """The error of a dictionary, or of the first dictionary of a list that has an error."""
    is_list = isinstance(value, list)
    for number, item in enumerate(value if is_list else [value]):
        checked = ArgumentSpecValidator(keys).validate(item)
        unknown = ", ".join(sorted(checked.unsupported_parameters))
        problem = f"it must not have the key {unknown}" if unknown else next(iter(checked.error_messages), None)
        if problem:
            return _wrong(f"{name}[{number}]" if is_list else name, item, problem, f"the keys {', '.join(keys)}")
    return None


def _wrong(name: str, value: Any, problem: str, valid: str) -> CmkError:
    """The error of the variable `cmk_name`, or of its item `cmk_name[0]`."""
    remedy = f"Use {valid}."
    text = f"{name} is {value_text(value)}: {problem}. {remedy}"
    return CmkError(text, code="invalid_option", variable=name.partition("[")[0], value=value, remedy=remedy)
