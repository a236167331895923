# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tasks that a role runs and their options, depending on variables and on the results of earlier tasks."""

from __future__ import annotations

import re
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


from documents import KEY, NEW, OLD, identity_id

ROLES = Path(__file__).resolve().parents[2] / "roles"
ROLE_NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())
OMITTED = "__omitted__"
ASKED = {"cmk_resource_group": "rg-batch", "cmk_account_name": "mybatch", "cmk_vault_name": "myvault"}
PINNED_OLD, PINNED_NEW = f"{KEY}/{OLD}", f"{KEY}/{NEW}"
ELSEWHERE = f"https://vault2.vault.azure.net/keys/other/{OLD}"
Results = Mapping[str, Mapping[str, Any]]


INCLUDE, IMPORT = "ansible.builtin.include_tasks", "ansible.builtin.import_tasks"


def load(role: str, folder: str, file: str = "main.yml") -> Any:
    return yaml.safe_load((ROLES / role / folder / file).read_text(encoding="utf-8"))


def flat(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks, with those of blocks, and without roles that are included."""
    parts = [[*task["block"], *task["always"]] if "block" in task else [task] for task in tasks]
    return [task for part in parts for task in part if "ansible.builtin.include_role" not in task]


def tasks_of(role: str) -> list[dict[str, Any]]:
    """The tasks of the role. An included or imported file, or a block, is replaced by its tasks. Another role of the
    collection that it includes is left out."""
    tasks: list[dict[str, Any]] = []
    for task in flat(load(role, "tasks")):
        file = task.get(INCLUDE, task.get(IMPORT))
        tasks += load(role, "tasks", file) if file else [task]
    return tasks


def trusted(value: Any) -> Any:
    return trust_as_template(value) if isinstance(value, str) else value


class Run:
    """Runs the tasks of a role like Ansible. `returns` has the result of each task that registers a variable.
    Variables that are OMITTED are not set."""

    def __init__(self, role: str, returns: Results, **asked: Any) -> None:
        parts = [part for part in ("defaults", "vars") if (ROLES / role / part).is_dir()]
        values = {name: trusted(value) for part in parts for name, value in load(role, part).items()}
        given = {**values, **ASKED, "cmk_key_name": "batch", **asked}
        self.variables: dict[str, Any] = {name: value for name, value in given.items() if value != OMITTED}
        self.variables["omit"] = OMITTED
        self.tasks: list[tuple[str, dict[str, Any]]] = []
        for task in load(role, "tasks"):
            file = task.get(INCLUDE, task.get(IMPORT))
            if not file:
                self._run(task, returns)
            elif self._runs(task, self.variables):
                for included in load(role, "tasks", file):
                    self._run(included, returns)

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
        runs = self._runs(task, own)
        [module] = [name for name in task if name.startswith("azbatch.cmk.")]
        if runs:
            given = {name: self._template(own, value) for name, value in task[module].items()}
            kept = {name: value for name, value in given.items() if value != OMITTED}
            self.tasks.append((module.removeprefix("azbatch.cmk."), kept))
        return runs

    def _runs(self, task: dict[str, Any], own: dict[str, Any]) -> bool:
        conditions = task.get("when", [])
        conditions = [conditions] if isinstance(conditions, str) else conditions
        return all(self._template(own, f"{{{{ ({condition}) | bool }}}}") for condition in conditions)

    @staticmethod
    def _template(variables: dict[str, Any], value: Any) -> Any:
        return Templar(loader=DataLoader(), variables=variables).template(trusted(value))

    @property
    def modules(self) -> list[str]:
        return [module for module, _options in self.tasks]

    def options(self, module: str, number: int = 0) -> dict[str, Any]:
        return [options for name, options in self.tasks if name == module][number]


@pytest.mark.parametrize("role", [name for name in ROLE_NAMES if name not in ("audit", "drill", "users")])
def test_each_role_that_returns_the_availability_can_require_that_it_is_readable(role: str) -> None:
    [move] = [task["azbatch.cmk.batch_encryption"] for task in tasks_of(role) if "azbatch.cmk.batch_encryption" in task]

    assert move["require_readable"] in ("{{ cmk_require_readable }}", "{{ cmk_require_readable | default(omit) }}")
    assert load(role, "defaults")["cmk_require_readable"] is False


# Provision

MADE = {
    "__provision_key": {"key_identifier": PINNED_NEW},
    "__provision_account": {"identity": {"user_assigned_identities": {identity_id(): {}}}},
}


def provision(**asked: Any) -> Run:
    return Run("provision", MADE, **asked)


def test_access_is_granted_once_the_identity_exists() -> None:
    ends = ["batch_encryption"]
    begins = ["keyvault_cmk_vault", "keyvault_cmk_key"]

    assert provision().modules == [*begins, "batch_account_identity", "keyvault_cmk_access", *ends]
    assert provision(cmk_identity_id=identity_id()).modules == [
        *begins,
        *["keyvault_cmk_access", "batch_account_identity"],
        *ends,
    ]
    two = {identity_id(): {}, identity_id("two"): {}}
    several = {**MADE, "__provision_account": {"identity": {"user_assigned_identities": two}}}
    assert Run("provision", several, cmk_identity_id=identity_id()).modules == [
        *begins,
        *["keyvault_cmk_access", "batch_account_identity", "keyvault_cmk_access"],
        *ends,
    ]
    assert provision().options("keyvault_cmk_access")["account_name"] == "mybatch"
    assert provision(cmk_identity_id=identity_id()).options("keyvault_cmk_access")["identity_id"] == identity_id()


def test_an_account_with_a_user_assigned_identity_is_created_with_its_key() -> None:
    assert "key_identifier" not in provision().options("batch_account_identity")
    options = provision(cmk_identity_id=identity_id(), cmk_key_version_mode="follow").options("batch_account_identity")
    assert (options["key_identifier"], options["version_mode"]) == (PINNED_NEW, "follow")


def test_provisioning_does_not_rotate() -> None:
    options = provision().options("batch_encryption")

    assert (options["key_identifier"], options["version_mode"]) == (PINNED_NEW, "keep")
    assert provision(cmk_key_version_mode="pin").options("batch_encryption")["version_mode"] == "pin"


# Each role is a list of tasks without logic


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_a_role_is_a_short_list_of_tasks_of_modules(role: str) -> None:
    tasks = tasks_of(role)

    assert 1 <= len(tasks) <= 10
    for task in tasks:
        modules = [name for name in task if "." in name]
        assert [name.startswith("azbatch.cmk.") for name in modules] == [True], task["name"]
        assert set(task) <= {"name", *modules, "register", "when", "loop", "loop_control"}, task["name"]


# A template that passes on a variable or a result, or the default of a variable. The exceptions choose between two
# values of an option.
PASSED_ON = re.compile(r"\{\{ [\w.]+( \| default\((omit|'')\))? \}\}(/\{\{ \w+( \| default\(''\))? \}\})?")
CHOICES = {
    "{{ __provision_key.key_identifier if cmk_identity_id | default('', true) else omit }}",
    "{{ 'absent' if cmk_unused_key == 'delete' else 'disabled' }}",
}


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_options_pass_on_variables_and_results(role: str) -> None:
    templates = [
        value
        for task in tasks_of(role)
        for name, options in task.items()
        if name.startswith("azbatch.cmk.")
        for value in options.values()
        if isinstance(value, str) and "{{" in value
    ]

    assert [value for value in templates if not PASSED_ON.fullmatch(value) and value not in CHOICES] == []


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_options_that_no_role_sets(role: str) -> None:
    given = {option for task in tasks_of(role) for one in task.values() if isinstance(one, dict) for option in one}

    assert not given & {"force", "remove_rotation_policy"}


REPAIRING = ("keyvault_cmk_vault", "keyvault_cmk_key", "batch_account_identity")
# The role, the variable, the module and the option that get its value, the default and another value.
SETTINGS = [
    *(("provision", "cmk_allowed_repairs", module, "allowed_repairs", [], ["vault", "key"]) for module in REPAIRING),
    ("rotate", "cmk_key_new_version", "keyvault_cmk_key", "new_version", "", True),
    ("rotate", "cmk_key_new_version", "keyvault_cmk_key", "new_version", "", "CHG1"),
]


@pytest.mark.parametrize(("role", "variable", "module", "option", "default", "value"), SETTINGS)
def test_optional_change_is_passed_on_and_off_by_default(
    role: str, variable: str, module: str, option: str, default: Any, value: Any
) -> None:
    assert Run(role, {**MADE, **FOUND}).options(module).get(option, default) == default
    assert Run(role, {**MADE, **FOUND}, **{variable: value}).options(module)[option] == value


# Rotate

FOUND: Results = {"__rotate_key": {"key_identifier": PINNED_NEW}}


def test_a_rotation_makes_a_version_and_moves_the_account() -> None:
    run = Run("rotate", FOUND)

    assert run.modules == ["keyvault_cmk_key", "batch_encryption"]
    key, move = run.options("keyvault_cmk_key"), run.options("batch_encryption")
    assert key["used_by_account"] == "mybatch"
    assert (move["key_identifier"], move["account_name"]) == (PINNED_NEW, "mybatch")
    assert (move["version_mode"], move["previous_key"]) == ("update", "myvault/batch")


UNUSED = "keyvault_cmk_unused_versions"


def test_unused_versions_are_disabled_on_request_after_the_account_was_moved() -> None:
    run = Run("rotate", FOUND, cmk_unused_versions="disable", cmk_unused_for="P2D")

    assert run.modules == ["keyvault_cmk_key", "batch_encryption", UNUSED]
    options = run.options(UNUSED)
    assert (options["vault_name"], options["name"], options["unused_for"]) == ("myvault", "batch", "P2D")


# Switch


def switch(**asked: Any) -> Run:
    return Run("switch", {"__switch_access": {}}, cmk_new_key_identifier=ELSEWHERE, **asked)


def test_a_switch_grants_access_to_the_different_key_and_moves_the_account() -> None:
    run = switch()

    assert run.modules == ["keyvault_cmk_access", "batch_encryption"]
    access, move = run.options("keyvault_cmk_access"), run.options("batch_encryption")
    assert (access["key_identifier"], access["account_name"]) == (ELSEWHERE, "mybatch")
    # Only from the key that the variables name.
    assert (move["key_identifier"], move["previous_key"]) == (ELSEWHERE, "myvault/batch")


def test_a_switch_from_any_key() -> None:
    run = switch(cmk_vault_name=OMITTED, cmk_key_name=OMITTED)

    assert run.options("batch_encryption")["previous_key"] == "any"


def test_the_key_that_accounts_have_left_is_disabled_if_it_is_named() -> None:
    run = switch(cmk_previous_key=KEY, cmk_unused_key="disable")

    assert run.modules[2:] == ["keyvault_cmk_key_state"]
    key = run.options("keyvault_cmk_key_state")
    assert (key["key_identifier"], key["state"], key["in_use"], key["unused_for"]) == (KEY, "disabled", "keep", "P7D")


# Revert


def revert(**asked: Any) -> Run:
    return Run("revert", {}, **asked)


def test_key_and_access_are_kept_by_default() -> None:
    run = revert()

    assert run.modules == ["batch_encryption"]
    move = run.options("batch_encryption")
    assert move["key_source"] == "microsoft_batch"
    # An account that uses another key is refused.
    assert move["previous_key"] == "myvault/batch"


@pytest.mark.parametrize(("asked", "state"), [("disable", "disabled"), ("delete", "absent")])
def test_key_and_access_are_removed_last_unless_accounts_may_use_them(asked: str, state: str) -> None:
    run = revert(cmk_unused_key=asked, cmk_unused_access="revoke", cmk_unused_for="P2D")

    assert run.modules == ["batch_encryption", "keyvault_cmk_key_state", "keyvault_cmk_access"]
    key, access = run.options("keyvault_cmk_key_state"), run.options("keyvault_cmk_access")
    assert (key["state"], key["in_use"], key["name"], key["unused_for"]) == (state, "keep", "batch", "P2D")
    assert (access["state"], access["in_use"], access["account_name"]) == ("absent", "keep", "mybatch")
    assert access["unused_for"] == "P2D"


# Recover

DIAGNOSED: dict[str, Any] = {
    "key_identifier": PINNED_OLD,
    "vault_name": "myvault",
    "key_name": "batch",
    "vault": {"subscription_id": "s", "resource_group": "rg-keys", "name": "myvault"},
    "causes": [],
    "key_identifiers": [PINNED_OLD, PINNED_NEW],
}
DIAGNOSIS = "batch_encryption_diagnosis"
WAIT = "batch_encryption"


def recover(*repairs: str, **asked: Any) -> Run:
    causes = [{"name": "key_deleted"}] if "key" in repairs else []
    found = {**DIAGNOSED, "repairs": list(repairs), "causes": causes}
    returns: Any = dict.fromkeys(("__recover_before", "__recover_in_vault", "__recover_in_key"), found)
    return Run("recover", returns, **asked)


@pytest.mark.parametrize(
    ("repairs", "modules"),
    [
        ((), [DIAGNOSIS, WAIT]),
        (("vault",), [DIAGNOSIS, "keyvault_cmk_vault", DIAGNOSIS, WAIT]),
        (("network",), [DIAGNOSIS, "keyvault_cmk_vault", DIAGNOSIS, WAIT]),
        (
            ("key",),
            [DIAGNOSIS, "keyvault_cmk_key_state", DIAGNOSIS, "keyvault_cmk_key_state", "keyvault_cmk_key_state", WAIT],
        ),
        (("access",), [DIAGNOSIS, "keyvault_cmk_access", WAIT]),
    ],
)
def test_a_diagnosis_follows_each_repair_that_may_show_more(repairs: tuple[str, ...], modules: list[str]) -> None:
    run = recover(*repairs, cmk_allowed_repairs=["key"])

    assert run.modules == modules
    assert all(options["allowed_repairs"] == ["key"] for module, options in run.tasks if module == DIAGNOSIS)
    wait = run.options(WAIT)
    assert (wait["key_identifier"], wait["version_mode"], wait["wait_until_available"]) == (PINNED_OLD, "keep", True)


def test_the_versions_that_the_account_needs_are_enabled() -> None:
    enabled = [options for _module, options in recover("key").tasks if options.get("state") == "enabled"]

    assert [one["key_identifier"] for one in enabled] == [PINNED_OLD, PINNED_NEW]
    assert {one["extend_expired_by"] for one in enabled} == {"P30D"}


def test_an_account_without_a_key_is_not_waited_for() -> None:
    found = {**DIAGNOSED, "key_identifier": None, "key_identifiers": [], "repairs": []}

    assert Run("recover", {"__recover_before": found}).modules == [DIAGNOSIS]
