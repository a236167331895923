# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tasks that a role runs and their options, depending on variables and on the results of earlier tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19, all strings are templates

    def trust_as_template(value: str) -> str:
        return value


from documents import KEY, MIDDLE, NEW, OLD, identity_id

ROLES = Path(__file__).resolve().parents[2] / "roles"
OMITTED = "__omitted__"
ASKED = {"cmk_resource_group": "rg-batch", "cmk_account_name": "mybatch", "cmk_vault_name": "myvault"}
PINNED_OLD, PINNED_NEW = f"{KEY}/{OLD}", f"{KEY}/{NEW}"
ELSEWHERE = f"https://vault2.vault.azure.net/keys/other/{OLD}"
Results = Mapping[str, Mapping[str, Any]]


def load(role: str, folder: str) -> Any:
    return yaml.safe_load((ROLES / role / folder / "main.yml").read_text(encoding="utf-8"))


def trusted(value: Any) -> Any:
    return trust_as_template(value) if isinstance(value, str) else value


class Run:
    """Runs the tasks of a role like Ansible. `returns` has the result of each task that registers a variable."""

    def __init__(self, role: str, returns: Results, **asked: Any) -> None:
        parts = [part for part in ("defaults", "vars") if (ROLES / role / part).is_dir()]
        values = {name: trusted(value) for part in parts for name, value in load(role, part).items()}
        self.variables: dict[str, Any] = {"omit": OMITTED, **values, **ASKED, "cmk_key_name": "batch", **asked}
        self.tasks: list[tuple[str, dict[str, Any]]] = []
        for task in load(role, "tasks"):
            self._run(task, returns)

    def _run(self, task: dict[str, Any], returns: Results) -> None:
        runs = False
        if "loop" in task:
            for item in self._template(self.variables, task["loop"]):
                self._run_once(task, {**self.variables, task["loop_control"]["loop_var"]: item})
        else:
            runs = self._run_once(task, self.variables)
        if name := task.get("register"):
            result = returns.get(name, {}) if runs else {"skipped": True}
            self.variables[name] = {"changed": False, **result}

    def _run_once(self, task: dict[str, Any], own: dict[str, Any]) -> bool:
        conditions = task.get("when", [])
        conditions = [conditions] if isinstance(conditions, str) else conditions
        runs = all(self._template(own, f"{{{{ ({condition}) | bool }}}}") for condition in conditions)
        [module] = [name for name in task if name.startswith("azbatch.cmk.")]
        if runs:
            given = {name: self._template(own, value) for name, value in task[module].items()}
            kept = {name: value for name, value in given.items() if value != OMITTED}
            self.tasks.append((module.removeprefix("azbatch.cmk."), kept))
        return runs

    @staticmethod
    def _template(variables: dict[str, Any], value: Any) -> Any:
        return Templar(loader=DataLoader(), variables=variables).template(trusted(value))

    @property
    def modules(self) -> list[str]:
        return [module for module, _options in self.tasks]

    def options(self, module: str, number: int = 0) -> dict[str, Any]:
        return [options for name, options in self.tasks if name == module][number]


# Provision

MADE = {
    "__provision_key": {"key_identifier": PINNED_NEW},
    "__provision_account": {"identity": {"user_assigned_identities": {identity_id(): {}}}},
}


def provision(**asked: Any) -> Run:
    return Run("provision", MADE, **asked)


def test_access_is_granted_once_the_identity_exists() -> None:
    ends = ["batch_encryption"]
    begins = ["batch_encryption_info", "keyvault_cmk_vault", "keyvault_cmk_key"]

    assert provision().modules == [*begins, "batch_account_identity", "keyvault_cmk_access", *ends]
    assert provision(cmk_identity=identity_id()).modules == [
        *begins,
        *["keyvault_cmk_access", "batch_account_identity"],
        *ends,
    ]
    two = {identity_id(): {}, identity_id("two"): {}}
    several = {**MADE, "__provision_account": {"identity": {"user_assigned_identities": two}}}
    assert Run("provision", several, cmk_identity=identity_id()).modules == [
        *begins,
        *["keyvault_cmk_access", "batch_account_identity", "keyvault_cmk_access"],
        *ends,
    ]
    assert provision().options("keyvault_cmk_access")["account_name"] == "mybatch"
    assert provision(cmk_identity=identity_id()).options("keyvault_cmk_access")["identity_id"] == identity_id()


def test_an_account_with_a_user_assigned_identity_is_created_with_its_key() -> None:
    assert "key_identifier" not in provision().options("batch_account_identity")
    options = provision(cmk_identity=identity_id(), cmk_key_follow_latest=True).options("batch_account_identity")
    assert (options["key_identifier"], options["follow_latest"]) == (PINNED_NEW, True)


def test_provisioning_does_not_rotate() -> None:
    options = provision().options("batch_encryption")

    assert (options["key_identifier"], options["update_version"]) == (PINNED_NEW, False)
    assert "follow_latest" not in options
    assert provision(cmk_key_follow_latest=False).options("batch_encryption")["follow_latest"] is False


# The role, the variable, a value, and by module the option that gets the value.
SETTINGS = [
    ("provision", "cmk_replace_key", True, {"batch_encryption_info": "replace_key", "batch_encryption": "replace_key"}),
    ("provision", "cmk_key_enable", True, {"batch_encryption_info": "enable_key", "keyvault_cmk_key": "enable_key"}),
    (
        "provision",
        "cmk_vault_recover",
        True,
        {"batch_encryption_info": "recover_vault", "keyvault_cmk_vault": "recover"},
    ),
    (
        "provision",
        "cmk_adopt_existing",
        True,
        {"batch_encryption_info": "adopt_existing", "batch_account_identity": "adopt_existing"},
    ),
    ("rotate", "cmk_key_enable", True, {"keyvault_cmk_key": "enable_key"}),
    ("rotate", "cmk_key_force_new_version", True, {"keyvault_cmk_key": "new_version"}),
]


@pytest.mark.parametrize(("role", "variable", "value", "options"), SETTINGS)
def test_optional_change_is_passed_on_and_off_by_default(
    role: str, variable: str, value: bool, options: dict[str, str]
) -> None:
    for module, option in options.items():
        assert Run(role, {**MADE, **FOUND}).options(module)[option] is False
        assert Run(role, {**MADE, **FOUND}, **{variable: value}).options(module)[option] is True


@pytest.mark.parametrize("role", ["provision", "rotate", "revert"])
def test_options_that_no_role_sets(role: str) -> None:
    given = {option for task in load(role, "tasks") for one in task.values() if isinstance(one, dict) for option in one}

    assert not given & {"force", "remove_rotation_policy", "trusted_services", "sku", "retention_days"}


@pytest.mark.parametrize("role", ["provision", "rotate", "revert"])
def test_the_first_task_checks_the_requirements_of_later_tasks(role: str) -> None:
    module, options = Run(role, {**MADE, **FOUND}).tasks[0]

    assert (module, options["check_before"]) == ("batch_encryption_info", role)
    assert (options["account_name"], options["vault_name"], options["key_name"]) == ("mybatch", "myvault", "batch")


# Rotate

BEFORE = {"exists": True, "key_identifier": PINNED_OLD, "previous_key_identifier": PINNED_OLD}
NEWEST = {"key_identifier": PINNED_NEW, "previous_key_identifier": PINNED_OLD}
MOVED = {"key_identifier": PINNED_NEW, "previous_key_identifier": PINNED_OLD}
FOUND: Results = {
    "__rotate_before": BEFORE,
    "__rotate_key": NEWEST,
    "cmk_result": MOVED,
    "__revert_before": BEFORE,
}


def rotate(results: Results | None = None, **asked: Any) -> Run:
    return Run("rotate", {**FOUND, **(results or {})}, **asked)


def test_a_rotation_makes_a_version_and_moves_the_account() -> None:
    run = rotate()

    assert run.modules == ["batch_encryption_info", "keyvault_cmk_key", "batch_encryption"]
    assert run.options("keyvault_cmk_key")["account_name"] == "mybatch"
    move = run.options("batch_encryption")
    assert (move["key_identifier"], move["expected_key_identifier"], move["replace_key"]) == (
        *[PINNED_NEW, PINNED_OLD],
        False,
    )
    assert "follow_latest" not in move


def test_a_different_key_is_granted_and_taken_only_if_it_is_named() -> None:
    run = rotate(cmk_new_key_identifier=ELSEWHERE)

    assert run.modules == ["batch_encryption_info", "keyvault_cmk_access", "batch_encryption"]
    access, move = run.options("keyvault_cmk_access"), run.options("batch_encryption")
    assert (access["key_identifier"], access["account_name"]) == (ELSEWHERE, "mybatch")
    assert (move["key_identifier"], move["expected_key_identifier"], move["replace_key"]) == (
        *[ELSEWHERE, PINNED_OLD],
        True,
    )
    assert run.options("batch_encryption_info")["new_key_identifier"] == ELSEWHERE


@pytest.mark.parametrize("empty", ["", None])
def test_a_variable_that_is_empty_names_no_key(empty: str | None) -> None:
    """A survey of AWX passes an empty value."""
    run = rotate(cmk_new_key_identifier=empty, cmk_previous_key_identifier=empty, cmk_previous_version="disable")

    assert run.options("batch_encryption")["replace_key"] is False
    assert run.options("keyvault_cmk_key", 1)["key_identifier"] == PINNED_OLD


@pytest.mark.parametrize(
    ("results", "asked", "previous"),
    [
        pytest.param({}, {}, [PINNED_OLD], id="the version that the account used"),
        pytest.param(
            {"cmk_result": {**MOVED, "previous_key_identifier": None}}, {}, [PINNED_OLD], id="it was moved before"
        ),
        pytest.param(
            {"cmk_result": {**MOVED, "previous_key_identifier": f"{KEY}/{MIDDLE}"}},
            {},
            [f"{KEY}/{MIDDLE}", PINNED_OLD],
            id="a version was created in between",
        ),
        pytest.param(
            {}, {"cmk_previous_key_identifier": ELSEWHERE}, [PINNED_OLD, ELSEWHERE], id="one is named as well"
        ),
        pytest.param(
            {
                "cmk_result": {**MOVED, "previous_key_identifier": None},
                "__rotate_key": {**NEWEST, "previous_key_identifier": None},
            },
            {},
            [],
            id="the first version",
        ),
        pytest.param(
            {"cmk_result": {**MOVED, "previous_key_identifier": KEY}},
            {"cmk_new_key_identifier": ELSEWHERE},
            [KEY],
            id="the whole key",
        ),
        pytest.param(
            {"cmk_result": {**MOVED, "previous_key_identifier": None}},
            {"cmk_new_key_identifier": ELSEWHERE},
            [],
            id="it was moved to the different key before",
        ),
    ],
)
def test_previous_versions_are_disabled_on_request(
    results: Results, asked: dict[str, Any], previous: list[str]
) -> None:
    keep = rotate(results, **asked)
    run = rotate(results, cmk_previous_version="disable", cmk_previous_version_grace="P2D", **asked)

    assert run.tasks[1 : len(keep.tasks)] == keep.tasks[1:]
    disabled = run.tasks[len(keep.tasks) :]
    assert [options["key_identifier"] for _module, options in disabled] == previous
    for module, options in disabled:
        assert (module, options["state"]) == ("keyvault_cmk_key", "disabled")
        # A version in use stays, and only versions that are older than the new version of the accounts are disabled.
        assert (options["in_use"], options["moved_to"], options["grace_period"]) == ("keep", PINNED_NEW, "P2D")


def test_a_missing_account_is_not_rotated() -> None:
    run = rotate({"__rotate_before": {"exists": False}}, cmk_previous_version="disable", cmk_missing_account="skip")

    assert run.modules == ["batch_encryption_info"]
    assert run.options("batch_encryption_info")["missing"] == "skip"


# Revert


def revert(results: Results | None = None, **asked: Any) -> Run:
    return Run("revert", {**FOUND, **(results or {})}, **asked)


def test_key_and_access_are_kept_by_default() -> None:
    run = revert()

    assert run.modules == ["batch_encryption_info", "batch_encryption"]
    assert run.options("batch_encryption")["key_source"] == "microsoft_batch"
    check = run.options("batch_encryption_info")
    assert (check["previous_key"], check["revokes_access"]) == ("keep", False)


@pytest.mark.parametrize(("asked", "state"), [("disable", "disabled"), ("delete", "absent")])
def test_the_previous_key_is_removed_last_unless_accounts_use_it(asked: str, state: str) -> None:
    run = revert(cmk_revert_key=asked, cmk_revert_access="revoke")

    assert run.modules == ["batch_encryption_info", "batch_encryption", "keyvault_cmk_key", "keyvault_cmk_access"]
    key, access = run.options("keyvault_cmk_key"), run.options("keyvault_cmk_access")
    assert (key["state"], key["in_use"], key["name"]) == (state, "keep", "batch")
    assert (access["state"], access["in_use"], access["account_name"]) == ("absent", "keep", "mybatch")
    check = run.options("batch_encryption_info")
    assert (check["previous_key"], check["revokes_access"]) == (asked, True)


def test_an_unknown_previous_key_is_not_removed() -> None:
    unknown = {"__revert_before": {**BEFORE, "previous_key_identifier": None}}
    run = revert(unknown, cmk_revert_key="disable", cmk_revert_access="revoke")

    assert run.modules == ["batch_encryption_info", "batch_encryption"]


def test_a_missing_account_is_not_moved() -> None:
    gone = {"__revert_before": {"exists": False, "previous_key_identifier": None}}

    assert revert(gone, cmk_revert_key="delete", cmk_revert_access="revoke").modules == ["batch_encryption_info"]
