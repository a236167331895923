# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs modules inside Ansible's own process, so that a task needs neither start an interpreter nor import the SDKs.

This plugin util is private to the collection.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ansible import constants
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import AnsibleValidationErrorMultiple, NoLogError, UnsupportedError
from ansible.playbook.handler import Handler
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader, test_loader
from ansible.utils.display import Display

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION, without_empty
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles, begin_run, vault_lock
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sdk import unlogged
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.secrets import without
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.warm_up import warm_up
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core import interrupts, placeholders
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import settled, value_or_error
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Refused, documented, reports
from ansible_collections.azbatch.cmk.plugins.module_utils._core.sent_writes import SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._module import JOURNAL, MESSAGES
from ansible_collections.azbatch.cmk.plugins.plugin_utils import _argument_spec
from ansible_collections.azbatch.cmk.plugins.plugin_utils._left_alone import LeftAlone, playbook_number
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import CLEAN_UP, STATS, flag, sets_stats
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
_NOT_CLEANED_UP = (
    "The temporary folder of Ansible is full, read-only or was removed. Therefore this run does not disable or revoke "
    "what the accounts have left. Repair the folder, and run the playbook again."
)
_HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
# The strategies with which all hosts of a wave begin a task after the previous task of each of them has ended.
_IN_STEP = ("linear", "ansible.builtin.linear", "debug", "ansible.builtin.debug")


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


def action_for(module: ModuleType, *checks: type[ActionBase]) -> type[ActionBase]:
    """The action plugin that runs the module of this collection with the module's arguments and results. `checks` are
    classes whose `run` may refuse the task first.

    Each module has a file in plugins/action. With one file for all modules, and `action_plugin` in meta/runtime.yml,
    Ansible would load this file in each worker and not once before it forks. Also, `resolved_action` would be the same
    for all modules: by that name, Ansible Automation Platform finds the query that counts the nodes of a task."""
    return type("ActionModule", (Documented, LeftAlone, RoleVariables, *checks, InProcessAction), {"module": module})


class Documented(ActionBase):  # type: ignore[misc]
    """Adds the link to the code of a failure. With -v, shows what Azure has reported."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = documented(super().run(tmp, task_vars))
        if not self._task.no_log:
            host = (task_vars or {}).get("inventory_hostname")
            for said in reports(result if result.get("failed") else result.get("left_alone", {})):
                Display().v(f"[{host}]: {said}")
        return result


def _refused_async(action: str) -> Refused:
    return Refused(
        f"{action} cannot run with async, because other tasks would not know what it changes. Remove async from the "
        "task. Hosts run side by side without it.",
        code="invalid_option",
        option="async",
        remedy="Remove async from the task.",
    )


class InProcessAction(ActionBase):
    module: ModuleType

    _supports_check_mode = True
    _supports_async = True
    TRANSFERS_FILES = False
    # How often this task was run for this host or item (`until`, `retries`).
    _attempts = 0

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        self._attempts += 1
        self._task.args = without_empty(self._task.args)
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            runs_in_process = self._runs_in_process(task_vars)
        except CmkError as wrong:
            return {**result, "failed": True, **wrong.result()}
        if runs_in_process:
            with _added(self._environment()), unlogged():
                result.update(self._run_module(task_vars))
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
        self._note_clean_up(result, task_vars)
        self._pass_on(result, task_vars)
        return result

    def _end_predictions_after(self, result: Mapping[str, Any]) -> None:
        if not self._task.check_mode and (result.get("changed") or result.get("failed")):
            RunFiles(constants.DEFAULT_LOCAL_TMP).end_predictions()  # type: ignore[attr-defined]

    def _note_clean_up(self, result: dict[str, Any], task_vars: Mapping[str, Any]) -> None:
        """Note for the next play of the playbook that the host's account is on its key, so that the key that it has
        left may be disabled. One host is sufficient for all hosts with the same value."""
        if self._sets_key and CLEAN_UP in task_vars and not result.get("failed"):
            value = self._templar.template(task_vars[CLEAN_UP])
            files = RunFiles(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
            name = CLEAN_UP, str(playbook_number(files))
            # The first of the hosts in the order of the play, so that a check and the run name the same host.
            order, host = task_vars["ansible_play_hosts_all"].index, task_vars["inventory_hostname"]
            if value and order((files.load(*name, is_note=True) or {}).get(value, host)) >= order(host):
                with files.locked(CLEAN_UP):
                    hosts = files.load(*name, is_note=True) or {}
                    first = min(hosts.get(value, host), host, key=order)
                    is_stored = files.store({**hosts, value: first}, *name, is_note=True)
                if not is_stored:
                    result["warnings"] = [*result.get("warnings", ()), _NOT_CLEANED_UP]

    def _pass_on(self, result: dict[str, Any], task_vars: Mapping[str, Any]) -> None:
        """Pass the changes of the task to the next node of a workflow, because no task runs after a wave that stops the
        play. Ansible merges them with the data of the playbook's set_stats, but not if the task has failed."""
        if self._task.check_mode or not result.get("changed") or STATS not in task_vars:
            return
        if sets_stats(self._templar.template(task_vars.get("cmk_set_stats")), task_vars):
            account = {task_vars["inventory_hostname"]: {"changed": True}}
            data = {"accounts": account, "new_versions": dict(new_versions(result.get("diff")))}
            result["ansible_stats"] = {"data": {task_vars[STATS]: data}, "per_host": False, "aggregate": True}

    @property
    def _sets_key(self) -> bool:
        return self.module.__name__.endswith(".batch_encryption")

    @property
    def _creates_account(self) -> bool:
        return self.module.__name__.endswith(".batch_account_identity")

    def _runs_in_process(self, task_vars: Mapping[str, Any]) -> bool:
        """Whether the task runs in Ansible's process. Ansible has a become plugin if the task, the play, the
        command line or the inventory enables become."""
        wanted = flag("cmk_in_process", self._templar.template(task_vars.get("cmk_in_process")), default=True)
        is_local = self._connection.transport == "local" and self._connection.become is None
        return wanted and is_local and not self._task.async_val and _MISSING is None

    def _run_as_module(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module in a separate process, possibly on another host. Therefore the locks that the tasks of a
        run share are held here."""

        spec = {**CONNECTION, **self.module.ARGUMENTS}
        validation = ArgumentSpecValidator(spec).validate(self._task.args)
        params = validation.validated_parameters
        if validation.errors.errors:
            return {"failed": True, "msg": self._first_error(validation.errors)}

        # The vault whose lock the task holds. If the module refuses its arguments, it reports that itself.
        exclusive = getattr(self.module, "exclusive", None)
        vault = None if exclusive is None else value_or_error(lambda: exclusive(params), CmkError)
        if self._task.async_val:
            if exclusive is not None or self._sets_key or self._creates_account:
                return {"failed": True, **_refused_async(str(self._task.action)).result()}
            return self._execute(task_vars)
        if not isinstance(vault, str):
            return self._execute_with_journal(task_vars)
        with vault_lock(RunFiles(constants.DEFAULT_LOCAL_TMP), vault):  # type: ignore[attr-defined]
            return self._execute_with_journal(task_vars)

    def _execute_with_journal(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module, which knows what the run has done once for all tasks. What the run has read before is out of
        date then, also if the module was killed."""
        if self._task.check_mode:
            return self._execute(task_vars)
        journal = Journal(RunFiles(constants.DEFAULT_LOCAL_TMP), SentWrites())  # type: ignore[attr-defined]
        try:
            ran = self._execute(task_vars, **{JOURNAL: journal.handed_over()})
            journal.merge(ran.pop(JOURNAL, {}))
        finally:
            journal.mark()
        return ran

    def _execute(self, task_vars: dict[str, Any], **options: Any) -> dict[str, Any]:
        is_async = self._task.async_val
        arguments = {**self._task.args, **options, **({} if is_async else {MESSAGES: True})}
        ran: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=is_async)
        messages = ran.pop(MESSAGES, {})
        if messages and ran.get("code") != "internal_error":
            # Since ansible-core 2.19, this has the message of the module, which Ansible would show.
            ran.pop("exception", None)
        warnings = [*ran.get("warnings", []), *messages.pop("warnings", [])]
        return {**ran, **messages, **({"warnings": warnings} if warnings else {})}

    def _account_id(self, params: Mapping[str, Any], group: str, name: str) -> str:
        environment = {**os.environ, **self._environment()}
        subscription = params["subscription_id"] or environment.get("AZURE_SUBSCRIPTION_ID") or "unknown"
        return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts/{name}"

    def _moment(self, task_vars: Mapping[str, Any]) -> str:
        """The same for the hosts that run this task at the same time, whose previous tasks have all ended: those of a
        wave with the strategy linear. Handlers, repetitions and hosts with another strategy are alone."""
        task, hosts = self._task, task_vars.get("ansible_play_batch") or [task_vars.get("inventory_hostname")]
        play = task.get_play()
        is_in_step = getattr(play, "strategy", "") in _IN_STEP and not isinstance(task, Handler)
        if is_in_step and self._attempts == 1:
            return f"{task._uuid} {hosts[0]}"
        return f"{task._uuid} {task_vars.get('inventory_hostname')} {time.monotonic()}"

    def _environment(self) -> dict[str, str]:
        environment: dict[str, Any] = {}
        self._compute_environment_string(environment)
        return {name: str(value) for name, value in environment.items()}

    def _run_module(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        spec = {**CONNECTION, **self.module.ARGUMENTS}
        validation = ArgumentSpecValidator(spec).validate(self._task.args)
        params = validation.validated_parameters
        if validation.errors.errors:
            result: dict[str, Any] = {"failed": True, "msg": self._first_error(validation.errors)}
        else:
            # Ansible sets its constants at run time, so mypy does not know them.
            folder = constants.DEFAULT_LOCAL_TMP  # type: ignore[attr-defined]
            try:
                with settled():
                    moment = self._moment(task_vars)
                    cloud = Cloud(params, folder, self._notify, predicts=self._task.check_mode, task=moment)
                    with cloud.task():
                        outcome = self.module.run(cloud.resolved(params), cloud)
                    result = outcome.result(planned=self._task.check_mode)
            except BaseException as ended:
                failure = interrupts.as_failure(ended)
                interrupts.pass_on(failure)
                result = {"failed": True, **placeholders.shown(failure.result())}
        # Since ansible-core 2.21, the arguments of a module are in its result only if that is configured.
        if getattr(constants, "INJECT_INVOCATION", True):
            hidden = {name: _HIDDEN for name, option in spec.items() if option.get("no_log") and params.get(name)}
            result["invocation"] = {"module_args": {**params, **hidden}}
        clean: dict[str, Any] = without(validation._no_log_values, result)
        return clean

    def _first_error(self, errors: AnsibleValidationErrorMultiple) -> str:
        """The message of AnsibleModule, except for a value that should be a dictionary: that message does not name the
        option."""
        if isinstance(errors[0], NoLogError):
            options = self.module.ARGUMENTS.items()
            of_keys = {name: option for name, option in options if "options" in option and name in self._task.args}
            return str(next(iter(_argument_spec.errors(of_keys, self._task.args)), errors.msg))
        if isinstance(errors[0], UnsupportedError):
            return f"Unsupported parameters for ({self._task.action}) module: {errors.msg}"
        return str(errors.msg)

    def _notify(self, message: str) -> None:
        if not self._task.no_log:
            host = self._templar.available_variables.get("inventory_hostname")
            Display().display(f"[{host}]: {message}")
