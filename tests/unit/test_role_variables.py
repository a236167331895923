# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of the roles in failures and warnings, and variables that no role has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants

from ansible_collections.azbatch.cmk.plugins.plugin_utils import _role_variables
from ansible_collections.azbatch.cmk.plugins.plugin_utils._role_variables import (
    KNOWN_VARIABLES,
    name_variables,
    of_other_roles,
    passed_on,
    unknown_variable,
    with_variables,
    without_blanks,
)

ROOT = Path(__file__).resolve().parents[2]
ACTION = "azbatch.cmk.keyvault_cmk_key"


@pytest.mark.parametrize(
    ("template", "variable"),
    [
        ("{{ cmk_key_name }}", "cmk_key_name"),
        ("  {{cmk_key_name}}\n", "cmk_key_name"),
        ("{{ cmk_key_size | default(omit) }}", "cmk_key_size"),
        ("{{ cmk_disable_key | default(omit, true) }}", "cmk_disable_key"),
        ("{{ cmk_key_enable | bool }}", "cmk_key_enable"),
        ("{{ cmk_key_size | default(2048) | int }}", "cmk_key_size"),
        ("{{ omit if cmk_identity_id == 'system_assigned' else cmk_identity_id }}", "cmk_identity_id"),
        # The value of the option is not the value of the variable.
        ("{{ cmk_key_name == 'batch' }}", None),
        ("{{ not cmk_key_enable }}", None),
        ("{{ cmk_key_name | upper }}", None),
        ("{{ 'a' if cmk_key_enable else 'b' }}", None),
        ("key-{{ cmk_key_name }}", None),
        ("{{ cmk_key_name }}-{{ cmk_vault_name }}", None),
        ("{{ __recover_vault.name }}", None),
        ("{{ my_key }}", None),
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


BLANK = {"key_size": "cmk_key_size", "wait_timeout": "cmk_wait_timeout", "version_mode": "cmk_key_version_mode"}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"key_size": "", "wait_timeout": ""}, {"wait_timeout": "of cmk_wait_timeout"}),
        # Neither 0 nor false is blank, and an option that does not pass on a variable is not changed.
        ({"version_mode": "pin", "key_size": 0, "state": ""}, {"version_mode": "pin", "key_size": 0, "state": ""}),
    ],
)
def test_blank_variables_are_not_given(options: dict[str, Any], kept: dict[str, Any]) -> None:
    defaults = {"cmk_wait_timeout": "cmk_wait_timeout", "cmk_adopt_existing": False}

    assert without_blanks(options, BLANK, defaults, lambda default: f"of {default}") == kept


VARIABLES = {
    "vault_name": "cmk_vault_name",
    "name": "cmk_key_name",
    "enable": "cmk_key_enable",
    "recover": "cmk_key_recover",
    "key_size": "cmk_key_size",
    "location": "cmk_location",
}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("vault_name is 'x': it is too short.", "cmk_vault_name is 'x': it is too short."),
        ("name is 'a b': it has a space.", "cmk_key_name is 'a b': it has a space."),
        ("Set enable: true if it may.", "Set cmk_key_enable: true if it may."),
        ("Set recover: true to recover it.", "Set cmk_key_recover: true to recover it."),
        ("Set key_size: 3072.", "Set cmk_key_size: 3072."),
        ("Correct name or vault_name.", "Correct cmk_key_name or cmk_vault_name."),
        ("Set location to one of: a, b.", "Set cmk_location to one of: a, b."),
        ("It is elsewhere. location is for a new vault.", "It is elsewhere. cmk_location is for a new vault."),
        ("vault_name and vault_name", "cmk_vault_name and cmk_vault_name"),
        ("If the key is leaked, set key_size: P0D.", "If the key is leaked, set cmk_key_size: P0D."),
        ("Leave out location.", "Leave out cmk_location."),
        # Not the option, but a word, a part of another name, of a path or of an identifier, or a heading.
        ("The name of the vault in this location.", "The name of the vault in this location."),
        ("my_vault_name, vault_name_2", "my_vault_name, vault_name_2"),
        ("https://a/vault_name", "https://a/vault_name"),
        ("location: The region.", "location: The region."),
        ("No deleted key has this name: it was purged.", "No deleted key has this name: it was purged."),
        ("In this location: none. To recover: nothing.", "In this location: none. To recover: nothing."),
    ],
)
def test_options_in_a_text(text: str, named: str) -> None:
    assert with_variables(text, VARIABLES) == named


def test_an_option_of_another_role_in_a_text() -> None:
    others = {"recover": ("cmk_key_recover", "azbatch.cmk.provision")}
    result = {"failed": True, "msg": "It can recover: it was deleted. Set recover: true."}
    name_variables(result, {}, others=others)

    assert result["msg"] == "It can recover: it was deleted. Set cmk_key_recover: true in azbatch.cmk.provision."


def test_failure_and_warnings_name_the_variable() -> None:
    failure = {
        "failed": True,
        "msg": "vault_name is 'x': Correct it.",
        "option": "vault_name",
        "remedy": "Correct vault_name.",
        "warnings": ["Set enable: true."],
    }
    name_variables(failure, VARIABLES)

    assert failure["variable"] == "cmk_vault_name"
    assert failure["msg"].startswith("cmk_vault_name is 'x'")
    assert failure["remedy"] == "Correct cmk_vault_name."
    assert failure["warnings"] == ["Set cmk_key_enable: true."]


@pytest.mark.parametrize("result", [{"msg": "vault_name"}, {"failed": True, "msg": "no", "option": "timeout"}])
def test_result_without_a_variable(result: dict[str, Any]) -> None:
    before = dict(result)
    name_variables(result, VARIABLES)

    assert result == before


# All messages of the modules

UTILS = ROOT / "plugins" / "module_utils"
PACKAGES = {
    **{"keyvault_cmk_vault": "vault", "keyvault_cmk_key": "key", "keyvault_cmk_access": "access"},
    "keyvault_cmk_unused_versions": "key",
    **{"batch_account_identity": "account", "batch_encryption": "encryption", "batch_encryption_info": "encryption"},
}
SHARED = [*UTILS.glob("_core/*.py"), *UTILS.glob("_azure/*.py"), *UTILS.glob("_checks/*.py")]


@cache
def messages(file: Path) -> list[str]:
    """The texts of a module with several words. A value in a text is replaced by `word`."""
    tree, found = ast.parse(file.read_text()), []
    no_messages = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            no_messages |= {id(one) for one in ast.walk(node) if one is not node}
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr) and id(node) not in no_messages:
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "word" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in no_messages:
            text = node.value
        if " " in text.strip():
            found.append(text)
    return found


def tasks_of_roles() -> Iterator[Any]:
    for file in sorted((ROOT / "roles").glob("*/tasks/*.yml")):
        for task in yaml.safe_load(file.read_text()):
            [action] = [name for name in task if "." in name]
            if action.rpartition(".")[2] in PACKAGES:
                yield pytest.param(file.parts[-3], task, action, id=f"{file.parts[-3]}: {task['name']}")


@pytest.mark.parametrize(("role", "task", "action"), list(tasks_of_roles()))
def test_no_message_in_a_role_names_an_option_of_a_variable_or_a_module(role: str, task: Any, action: str) -> None:
    variables, others = passed_on(task, action), of_other_roles(f"azbatch.cmk.{role}", action)
    verbs = ("set", "correct", "leave out", "leave", "with", "without", "set .*, or", "correct .*, .* or")
    advice = "|".join(f"(?i:{verb})" for verb in verbs)
    leaked = []
    for file in (*SHARED, *UTILS.glob(f"_resources/{PACKAGES[action.rpartition('.')[2]]}/*.py")):
        for text in messages(file):
            result = {"failed": True, "msg": text}
            name_variables(result, variables, others=others)
            found = re.findall(r"azbatch\.cmk\.(?:batch|keyvault)_\w+", result["msg"])
            for option in variables:
                # The name of such an option may also be a word, as in `recover the vault`.
                is_word = rf"(?:{advice}) {option}(?! the| of| it)\b|{option}: (?:true|word)"
                found += re.findall(rf"(?<![\w.])(?:{is_word if '_' not in option else option})\b", result["msg"])
            if found:
                leaked.append((file.name, found, result["msg"]))
    assert leaked == []


# Unknown variables


def test_known_variables() -> None:
    files = (ROOT / "roles").glob("*/meta/argument_specs.yml")
    specifications = [yaml.safe_load(file.read_text())["argument_specs"] for file in files]
    options = {name for one in specifications for entry in one.values() for name in entry["options"]}

    assert len(options) > 30
    assert options < KNOWN_VARIABLES
    assert {"cmk_hosts", "cmk_serial", "cmk_max_fail_percentage", "cmk_in_process", "cmk_result"} < KNOWN_VARIABLES
    assert {"cmk_tags", "cmk_account_id", "cmk_follows_latest"} < KNOWN_VARIABLES
    assert all(name.startswith("cmk_") for name in KNOWN_VARIABLES)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cmk_key_max_ages", "Did you mean cmk_key_max_version_age?"),
        ("cmk_vaultname", "Did you mean cmk_vault_name?"),
        ("cmk_zzz", "The argument specifications of the roles list them all."),
    ],
)
def test_advice_on_an_unknown_variable(name: str, advice: str) -> None:
    assert unknown_variable(name).startswith(f"The variable {name} has no effect")
    assert unknown_variable(name).endswith(advice)


def test_a_warning_is_given_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))

    assert _role_variables._not_reported_yet([]) == []
    assert list(tmp_path.iterdir()) == [], "a run without warnings reads and writes no file"
    assert _role_variables._not_reported_yet(["a", "b"]) == ["a", "b"]
    assert _role_variables._not_reported_yet(["b", "c"]) == ["c"]
    assert _role_variables._not_reported_yet(["b"]) == []


# Rotate without a rule


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"cmk_unused_versions": "keep", "cmk_key_new_version": False}, False),
        ({"cmk_key_new_version": "no", "cmk_unused_versions": "", "cmk_key_rotation_policy": {}}, False),
        ({"cmk_unused_versions": "disable"}, True),
        ({"cmk_key_new_version": True}, True),
        ({"cmk_key_new_version": "yes"}, True),
        ({"cmk_key_max_version_age": "P90D"}, True),
        ({"cmk_key_rotation_policy": {"time_after_create": "P90D"}}, True),
    ],
)
def test_rotate_has_a_rule(variables: dict[str, Any], expected: bool) -> None:
    assert _role_variables.rotates(variables) is expected


def test_advice_for_rotate_names_every_rule() -> None:
    assert [name for name in _role_variables.RULES if name not in _role_variables.NO_RULE] == []
    assert KNOWN_VARIABLES >= _role_variables.RULES


# Versions that are created more often than unused versions are disabled


POLICY, AGE = "cmk_key_rotation_policy", "cmk_key_max_version_age"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        pytest.param({}, None, id="neither"),
        pytest.param({AGE: "P6D"}, AGE, id="age, shorter"),
        pytest.param({AGE: "P7D"}, None, id="age, as long"),
        pytest.param({AGE: "P90D"}, None, id="age, longer"),
        pytest.param({AGE: ""}, None, id="age, blank"),
        pytest.param({AGE: None}, None, id="age, null"),
        pytest.param({AGE: "P6D", "cmk_unused_versions": "keep"}, None, id="versions are kept"),
        pytest.param({AGE: "P6D", "cmk_unused_versions": ""}, None, id="versions are kept, blank"),
        pytest.param({AGE: "P6D", "cmk_unused_for": "P5D"}, None, id="a shorter margin"),
        pytest.param({AGE: "P6D", "cmk_unused_for": "P0D"}, None, id="no margin"),
        pytest.param({AGE: "P20D", "cmk_unused_for": "P30D"}, AGE, id="a longer margin"),
        # A blank variable counts as not set, so the margin is the default.
        pytest.param({AGE: "P20D", "cmk_unused_for": ""}, None, id="a blank margin"),
        # Key Vault creates the next version before the nightly run.
        pytest.param({POLICY: {"time_after_create": "P7D"}}, POLICY, id="policy, as long"),
        pytest.param({POLICY: {"time_after_create": "P8D"}}, None, id="policy, longer"),
        pytest.param(
            {POLICY: {"time_before_expiry": "P21D", "expiry_time": "P28D"}}, POLICY, id="policy, before expiry"
        ),
        pytest.param(
            {POLICY: {"time_before_expiry": "P20D", "expiry_time": "P28D"}}, None, id="policy, before expiry, longer"
        ),
        pytest.param({POLICY: {"time_after_create": "P8D", "expiry_time": ""}}, None, id="policy, with a blank text"),
        # Ansible accepts a dictionary as a text, for example from -e.
        pytest.param({POLICY: '{"time_after_create": "P7D"}'}, POLICY, id="policy, as a text"),
        pytest.param({POLICY: {}}, None, id="policy, empty"),
        pytest.param({POLICY: ""}, None, id="policy, blank"),
        pytest.param({AGE: "P90D", POLICY: {"time_after_create": "P7D"}}, POLICY, id="both, the policy is shorter"),
        pytest.param({AGE: "P5D", POLICY: {"time_after_create": "P90D"}}, AGE, id="both, the age is shorter"),
    ],
)
def test_a_rotation_that_is_faster_than_the_margin_has_one_warning(
    variables: dict[str, Any], named: str | None
) -> None:
    defaults = {"cmk_unused_versions": "disable", "cmk_unused_for": "P7D"}

    warnings = list(_role_variables._too_often({**defaults, **variables}))

    assert [warning.startswith(f"With this {named}, ") for warning in warnings] == [True] * (named is not None)
