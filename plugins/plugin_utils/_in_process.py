# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs modules inside Ansible's own process, so that a task needs neither start an interpreter nor import the SDKs.

This plugin util is private to the collection.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ansible import constants
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import AnsibleValidationErrorMultiple, NoLogError, UnsupportedError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader, test_loader
from ansible.utils.display import Display

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION, without_empty
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles, begin_run, vault_lock
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sdk import unlogged
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.warm_up import warm_up
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core import interrupts, placeholders
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import settled, value_or_error
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.forced_versions import ForcedVersions
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import LEFT_ALONE, STATS, flag
from ansible_collections.azbatch.cmk.plugins.plugin_utils._role_variables import RoleVariables
from ansible_collections.azbatch.cmk.plugins.plugin_utils._tally import new_versions

# While modules are loaded, hardly anything becomes garbage.
gc.disable()
# Ansible loads an action plugin before it forks its workers, so this runs once in a run. If an SDK is missing here,
# the interpreter that runs modules may still have it.
_MISSING = warm_up()
# For the same reason, load Ansible's filters and tests: the first lookup of a name loads all of them.
filter_loader.get("combine")
test_loader.get("skipped")
# What is loaded now stays until the end. Otherwise the garbage collection at the exit visits all of it, which takes
# longer than a short task. Python's documentation also recommends this before a fork.
gc.freeze()
gc.enable()
begin_run(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
_HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


@contextmanager
def _added(environment: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables during the block. A worker process runs all items of a loop, and each item has its
    own environment."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def action_for(module: ModuleType) -> type[ActionBase]:
    """The action plugin that runs the module of this collection with the module's arguments and results."""
    return type("ActionModule", (RoleVariables, InProcessAction), {"module": module})


def _refused_async(action: str) -> Refused:
    return Refused(
        f"{action} cannot run with async: other tasks of the run may change the same vault at the same time, and a "
        "task in the background cannot hold the lock that keeps them apart. Remove async from the task. Hosts run side "
        "by side without it, as many as forks allows.",
        code="async_not_supported",
        remedy="Remove async from the task.",
    )


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


class InProcessAction(ActionBase):
    module: ModuleType

    _supports_check_mode = True
    _supports_async = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        self._task.args = without_empty(self._task.args)
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            runs_in_process = self._runs_in_process(task_vars)
        except CmkError as wrong:
            return {**result, "failed": True, **wrong.result()}
        if runs_in_process:
            with _added(self._environment()), unlogged():
                result.update(self._run_module())
        else:
            try:
                result.update(self._run_as_module(task_vars))
            except BaseException as ended:
                # The process of the module continues to the end of the change or of the rollback.
                failure = interrupts.as_failure(ended)
                if failure.code != "timed_out":
                    raise
                result.update({"failed": True, **failure.result()})
        self._end_predictions_after(result)
        self._note_left_alone(result, task_vars)
        self._pass_on(result, task_vars)
        return result

    def _end_predictions_after(self, result: Mapping[str, Any]) -> None:
        if not self._task.check_mode and (result.get("changed") or result.get("failed")):
            RunFiles(constants.DEFAULT_LOCAL_TMP).end_predictions()  # type: ignore[attr-defined]

    def _note_left_alone(self, result: dict[str, Any], task_vars: Mapping[str, Any]) -> None:
        """Note for the last play of the playbook that the host's account was left alone."""
        if result.get("left_alone"):
            result["ansible_facts"] = {LEFT_ALONE: result["left_alone"]}
            files = RunFiles(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
            with files.locked(LEFT_ALONE):
                noted = files.load(LEFT_ALONE) or []
                files.store(list(dict.fromkeys([*noted, task_vars["inventory_hostname"]])), LEFT_ALONE)

    def _pass_on(self, result: dict[str, Any], task_vars: Mapping[str, Any]) -> None:
        """Pass the changes of the task to the next node of a workflow. Ansible merges them with the data of the
        playbook's set_stats, but not if the task has failed."""
        if self._task.check_mode or not result.get("changed") or STATS not in task_vars:
            return
        if flag("cmk_set_stats", self._templar.template(task_vars.get("cmk_set_stats")), default=True):
            account = {task_vars["inventory_hostname"]: {"changed": True}}
            data = {"accounts": account, "new_versions": dict(new_versions(result.get("diff")))}
            result["ansible_stats"] = {"data": {task_vars[STATS]: data}, "per_host": False, "aggregate": True}

    def _runs_in_process(self, task_vars: Mapping[str, Any]) -> bool:
        """Whether the task runs in Ansible's process. Ansible has a become plugin if the task, the play, the
        command line or the inventory enables become."""
        wanted = flag("cmk_in_process", self._templar.template(task_vars.get("cmk_in_process")), default=True)
        is_local = self._connection.transport == "local" and self._connection.become is None
        return wanted and is_local and not self._task.async_val and _MISSING is None

    def _run_as_module(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module in a separate process, possibly on another host. Therefore the locks that the tasks of a
        run share are held here."""

        def execute(**options: Any) -> dict[str, Any]:
            arguments = {**self._task.args, **options}
            ran: dict[str, Any] = self._execute_module(
                module_args=arguments, task_vars=task_vars, wrap_async=self._task.async_val
            )
            return ran

        if not hasattr(self.module, "exclusive"):
            return execute()
        if self._task.async_val:
            return {"failed": True, **_refused_async(str(self._task.action)).result()}
        validation = ArgumentSpecValidator({**CONNECTION, **self.module.ARGUMENTS}).validate(self._task.args)
        params = validation.validated_parameters
        vault = None if validation.errors.errors else value_or_error(lambda: self.module.exclusive(params), CmkError)
        if not isinstance(vault, str):
            # The module reports the error of its arguments.
            return execute()
        files = RunFiles(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
        with vault_lock(files, vault):
            forced = getattr(self.module, "forced_version", lambda _params: None)(params)
            if forced is None or self._task.check_mode:
                return execute()
            return ForcedVersions(files).around(forced, lambda force: execute(new_version=force))

    def _environment(self) -> dict[str, str]:
        environment: dict[str, Any] = {}
        self._compute_environment_string(environment)
        return {name: str(value) for name, value in environment.items()}

    def _run_module(self) -> dict[str, Any]:
        spec = {**CONNECTION, **self.module.ARGUMENTS}
        validation = ArgumentSpecValidator(spec).validate(self._task.args)
        params = validation.validated_parameters
        if validation.errors.errors:
            result: dict[str, Any] = {"failed": True, "msg": self._first_error(validation.errors, spec)}
        else:
            # Ansible sets its constants at run time, so mypy does not know them.
            folder = constants.DEFAULT_LOCAL_TMP  # type: ignore[attr-defined]
            try:
                with settled():
                    cloud = Cloud(params, folder, self._notify, predicts=self._task.check_mode, task=self._task._uuid)
                    try:
                        outcome = self.module.run(cloud.resolved(params), cloud)
                    finally:
                        cloud.learn_placeholders()
                    result = outcome.result(planned=self._task.check_mode)
            except BaseException as ended:
                failure = interrupts.as_failure(ended)
                interrupts.pass_on(failure)
                result = {"failed": True, **placeholders.shown(failure.result())}
        # Since ansible-core 2.21, the arguments of a module are in its result only if that is configured.
        if getattr(constants, "INJECT_INVOCATION", True):
            hidden = {name: _HIDDEN for name, option in spec.items() if option.get("no_log") and params.get(name)}
            result["invocation"] = {"module_args": {**params, **hidden}}
        clean: dict[str, Any] = remove_values(result, validation._no_log_values)
        return clean

    def _first_error(self, errors: AnsibleValidationErrorMultiple, spec: Mapping[str, Any]) -> str:
        """The message of AnsibleModule. If a value should be a dictionary, that message does not name the option,
        so it is replaced."""
        if isinstance(errors[0], NoLogError):
            for name, option in spec.items():
                given = self._task.args.get(name)
                if "options" in option and any(not isinstance(one, Mapping) for one in _items(given)):
                    return f"argument '{name}' is {given!r}: a dictionary is required."
        if isinstance(errors[0], UnsupportedError):
            return f"Unsupported parameters for ({self._task.action}) module: {errors.msg}"
        return str(errors.msg)

    def _notify(self, message: str) -> None:
        if not self._task.no_log:
            host = self._templar.available_variables.get("inventory_hostname")
            Display().display(f"[{host}]: {message}")
