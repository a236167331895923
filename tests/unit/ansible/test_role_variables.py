# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blank variables, variables that no role has, and variables that do not fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants

from ansible_collections.azbatch.cmk.plugins.plugin_utils import _variable_warnings
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_checks import without_blanks
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_relations import (
    EFFECTIVE_WITH,
    contradictions,
    without_effect,
)
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_warnings import KNOWN_VARIABLES, unknown_variable

ROOT = Path(__file__).resolve().parents[3]


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
    defaults = {"cmk_wait_timeout": "cmk_wait_timeout", "cmk_require_readable": False}

    assert without_blanks(options, BLANK, defaults, lambda default: f"of {default}") == kept


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
    ("name", "value", "advice"),
    [
        ("cmk_vaultname", "kv-demo", "Did you mean cmk_vault_name?"),
        ("cmk_zzz", "", "The argument specifications of the roles list them all."),
        # Only a variable that accepts the value.
        ("cmk_unused_versions_after", "P14D", "Did you mean cmk_unused_for?"),
        ("cmk_unused_versions_after", "disable", "Did you mean cmk_unused_versions?"),
        ("cmk_key_rotation_policies", 1, "The argument specifications of the roles list them all."),
    ],
)
def test_advice_on_an_unknown_variable(name: str, value: Any, advice: str) -> None:
    assert unknown_variable(name, value).startswith(f"The variable {name} has no effect")
    assert unknown_variable(name, value).endswith(advice)


def test_a_warning_is_given_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))

    assert _variable_warnings._not_reported_yet([]) == []
    assert list(tmp_path.iterdir()) == [], "a run without warnings reads and writes no file"
    assert _variable_warnings._not_reported_yet(["a", "b"]) == ["a", "b"]
    assert _variable_warnings._not_reported_yet(["b", "c"]) == ["c"]
    assert _variable_warnings._not_reported_yet(["b"]) == []


# Rotate without a rule


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"cmk_unused_versions": "keep", "cmk_key_new_version": False}, False),
        ({"cmk_key_new_version": "no", "cmk_unused_versions": "", "cmk_key_rotation_policy": {}}, False),
        ({"cmk_unused_versions": "disable"}, True),
        ({"cmk_key_new_version": "yes"}, True),
        ({"cmk_key_rotation_policy": {"time_after_create": "P90D"}}, True),
    ],
)
def test_rotate_has_a_rule(variables: dict[str, Any], expected: bool) -> None:
    assert _variable_warnings.rotates(variables) is expected


# Variables that have an effect only together, and values that contradict each other


MARGIN = "cmk_unused_for"
EXTENSION, REPAIRS = "cmk_recover_extend_expired_by", "cmk_allowed_repairs"


@pytest.mark.parametrize(
    ("role", "variables", "others"),
    [
        ("rotate", {MARGIN: "the default"}, None),
        ("rotate", {MARGIN: "P0D"}, "cmk_unused_versions: disable"),
        ("rotate", {MARGIN: "P0D", "cmk_unused_versions": "disable"}, None),
        ("switch", {MARGIN: "P0D"}, "cmk_unused_key: disable"),
        ("revert", {MARGIN: "P0D"}, "cmk_unused_key: disable or cmk_unused_access: revoke"),
        # A file with variables of all roles.
        ("revert", {MARGIN: "P14D", "cmk_unused_versions": "disable"}, None),
        # The role users reports the end of this time.
        ("users", {MARGIN: "P14D"}, None),
        ("recover", {EXTENSION: "P9D", REPAIRS: ["access"]}, f"{REPAIRS}: key"),
        ("recover", {EXTENSION: "P9D", REPAIRS: "vault,access"}, f"{REPAIRS}: key"),
        ("recover", {EXTENSION: "P9D", REPAIRS: "key"}, None),
    ],
)
def test_a_variable_without_effect(role: str, variables: dict[str, Any], others: str | None) -> None:
    specification = _variable_warnings.SPECIFICATIONS[f"azbatch.cmk.{role}"]
    found = list(without_effect(variables, specification, {MARGIN: "the default"}, lambda value: value))

    name = next(iter(variables))
    assert found == ([(name, variables[name], others)] if others else [])


def test_the_specifications_name_the_variables_with_which_another_has_an_effect() -> None:
    for name, others in EFFECTIVE_WITH.items():
        for options in _variable_warnings.SPECIFICATIONS.values():
            if name in options:
                described = " ".join(options[name]["description"])
                assert [other for other in others if other in options and f"O({other}" not in described] == [], name


NEW_KEY, OTHER_KEY = (f"https://kv-demo.vault.azure.net/keys/{name}" for name in ("new", "old"))
DISABLE = {"cmk_unused_key": "disable"}
IN_INVENTORY = {"cmk_vault_name": "kv-demo", "cmk_key_name": "new"}


@pytest.mark.parametrize(
    ("role", "values", "wrong"),
    [
        ("rotate", {"cmk_key_version_mode": "keep"}, "cmk_key_version_mode"),
        ("rotate", {"cmk_key_version_mode": "update"}, None),
        ("provision", {"cmk_key_version_mode": "keep"}, None),
        # The key that accounts leave is the new key, or is not named.
        ("switch", {**DISABLE, "cmk_previous_key": NEW_KEY.upper().replace("HTTPS", "https")}, "cmk_previous_key"),
        ("switch", {**DISABLE, "cmk_previous_key": "KV-demo/new"}, "cmk_previous_key"),
        ("switch", {**DISABLE, "cmk_previous_key": "any"}, "cmk_unused_key"),
        ("switch", {**DISABLE, "cmk_previous_key": OTHER_KEY}, None),
        ("switch", {**DISABLE, "cmk_previous_key": "no key"}, None),
        ("switch", {"cmk_previous_key": NEW_KEY}, None),
        # The default, with an inventory that was read after the switch.
        ("switch", {**DISABLE, **IN_INVENTORY, "cmk_previous_key": "kv-demo/new"}, None),
    ],
)
def test_values_that_contradict_each_other(role: str, values: dict[str, Any], wrong: str | None) -> None:
    found = contradictions(f"azbatch.cmk.{role}", {"cmk_new_key_identifier": NEW_KEY, **values})

    assert [one.facts["variable"] for one in found] == ([wrong] if wrong else [])


# Versions that are created more often than unused versions are disabled


POLICY, AGE = "cmk_key_rotation_policy", "cmk_key_max_version_age"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        pytest.param({}, None, id="neither"),
        pytest.param({AGE: "P6D"}, AGE, id="age, shorter"),
        pytest.param({AGE: "P7D"}, None, id="age, as long"),
        pytest.param({AGE: "P6D", "cmk_unused_versions": "keep"}, None, id="versions are kept"),
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
        pytest.param({AGE: "P90D", POLICY: {"time_after_create": "P7D"}}, POLICY, id="both, the policy is shorter"),
        pytest.param({AGE: "P5D", POLICY: {"time_after_create": "P90D"}}, AGE, id="both, the age is shorter"),
    ],
)
def test_a_rotation_that_is_faster_than_the_margin_has_one_warning(
    variables: dict[str, Any], named: str | None
) -> None:
    defaults = {"cmk_unused_versions": "disable", "cmk_unused_for": "P7D"}

    warnings = list(_variable_warnings._too_often({**defaults, **variables}))

    assert [warning.startswith(f"With this {named}, ") for warning in warnings] == [True] * (named is not None)
