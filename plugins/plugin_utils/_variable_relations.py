# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables of the roles that have an effect only together, and values that contradict each other.

This plugin util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible.module_utils.common.validation import check_type_list

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, InvalidOption
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import KeyIdentifier, parse_key
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import WrongVariable, is_blank

# A variable has an effect only with one of these variables of the role, with such a value. A unit test compares the
# descriptions in the argument specifications.
EFFECTIVE_WITH: Mapping[str, Mapping[str, str]] = {
    "cmk_recover_extend_expired_by": {"cmk_allowed_repairs": "key"},
    "cmk_unused_for": {"cmk_unused_versions": "disable", "cmk_unused_key": "disable", "cmk_unused_access": "revoke"},
}
# The value of a variable that requests nothing.
_NOTHING = "keep"


def without_effect(
    variables: Mapping[str, Any],
    specification: Mapping[str, Any],
    defaults: Mapping[str, Any],
    template: Callable[[Any], Any],
) -> Iterator[tuple[str, Any, str]]:
    """The variables that are set, but have no effect in the role: the name, the value, and the variables with which it
    would have an effect. `specification` and `defaults` are those of the role.

    A file with variables may be for several roles, so the variable of another role is sufficient: with
    `cmk_unused_versions: disable` for the role rotate, `cmk_unused_for` is no mistake in the role revert."""
    for name, others in EFFECTIVE_WITH.items():
        own = {other: value for other, value in others.items() if other in specification}
        given = variables.get(name)
        if name not in specification or not own or given == defaults.get(name) or is_blank(given := template(given)):
            continue
        if not any(_requests(template(variables.get(other)), value) for other, value in others.items()):
            yield name, given, " or ".join(f"{other}: {value}" for other, value in own.items())


def _requests(value: Any, wanted: str) -> bool:
    if is_blank(value):
        return False
    is_of_list = isinstance(value, list) or "," in str(value)
    return wanted in check_type_list(value) if is_of_list else value != _NOTHING


def contradictions(role: str, values: Mapping[str, Any]) -> Iterator[CmkError]:
    """The errors of values that the role refuses, although each is valid. `values` are those of the variables that are
    set."""
    name, value = "cmk_key_version_mode", values.get("cmk_key_version_mode")
    if role == "azbatch.cmk.rotate" and value == "keep":
        problem = "leaves a pinned account on its version, so new versions would have no effect"
        yield WrongVariable(name, value, problem, f"Remove {name} for this role, or set it to update.")
    name, value = "cmk_unused_key", values.get("cmk_unused_key")
    if role != "azbatch.cmk.switch" or value in (None, _NOTHING):
        return
    previous, new = values.get("cmk_previous_key", "any"), _key(values.get("cmk_new_key_identifier"))
    # The default. An inventory that is read again after the switch has the new key there.
    own = f"{values.get('cmk_vault_name')}/{values.get('cmk_key_name')}"
    if previous == "any":
        problem = "has an effect only on a key that cmk_previous_key names"
        yield WrongVariable(name, value, problem, "Set cmk_previous_key to the key that accounts leave, as VAULT/KEY.")
    elif (left := _key(previous)) and new and new.is_named(left.vault, left.name) and previous != own:
        problem = "is cmk_new_key_identifier, the key that the account moves to"
        yield WrongVariable(
            "cmk_previous_key", previous, problem, f"Set it to the key that accounts leave, or remove {name}."
        )


def _key(value: Any) -> KeyIdentifier | None:
    try:
        return None if is_blank(value) else parse_key(str(value), "key_identifier")
    except InvalidOption:
        return None
