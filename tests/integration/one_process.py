# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs roles in this process, a hundred times faster than ansible-playbook, for tests with thousands of runs.

It uses the files of the roles, the templates of Ansible and the code of the modules. Only the executor is different: it
implements the keywords that the roles use, and fails on any other keyword. It needs ansible-core 2.19 or later.
"""

from __future__ import annotations

import functools
import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from harness import Ansible, Run, Task
from predictions import Record, Result, unrecorded
from reports import MOVES, STEPS
from reports import report as reported
from sandbox_client import Control

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION, without_empty
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import settled
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError
from ansible_collections.azbatch.cmk.plugins.module_utils._core.placeholders import shown
from ansible_collections.azbatch.cmk.plugins.module_utils._core.sent_writes import SentWrites

ROLES = Path(__file__).resolve().parents[2] / "roles"
ROLE_NAMES = frozenset(path.name for path in ROLES.iterdir())
OURS = "azbatch.cmk."
KEYWORDS = frozenset("name register when loop loop_control vars check_mode changed_when failed_when".split())

_loader = DataLoader()


@dataclass(frozen=True)
class OneProcess:
    """`tokens` is the folder in which the tasks of a run share their cache, locks and token buckets."""

    tokens: Path
    # Options of the connection. The environment has the options that are missing here.
    connection: Mapping[str, str] = field(default_factory=dict)
    # Whether each module runs in a separate process, which shares only the journal of the run with others.
    as_module: bool = False
    # Returns what names a task of a playbook and its hosts that run the task at the same time. None: the host is alone.
    moment: Callable[[], str | None] = lambda: None

    def forget(self) -> None:
        """Delete all that previous runs left in the folder."""
        shutil.rmtree(self.tokens, ignore_errors=True)
        self.tokens.mkdir(mode=0o700)

    def another(self) -> OneProcess:
        """Another controller, which shares no files with this controller and does not wait for its locks."""
        return replace(self, tokens=Path(tempfile.mkdtemp(dir=self.tokens)))

    def role(
        self,
        role: str,
        variables: Mapping[str, Any],
        *,
        check: bool = False,
        record: Record = unrecorded,
    ) -> Result:
        """The report of the role, or the result of the failed task with the account's state after its change (`moved`).
        `record` takes the name and the result of each task."""
        scope = {**_read(role, "defaults"), **_read(role, "vars"), **variables, "ansible_check_mode": check}
        results: dict[str, Result] = {}
        for task in _tasks(role, scope):
            result = self._task(task, scope, check)
            record(task["name"], result)
            if result.get("failed"):
                # The result of the first task would be wrong if another controller has moved the account since then.
                return {**result, "task": task["name"], "moved": results.get(MOVES[role], {})}
            results[task["name"]] = {} if result.get("skipped") else result
        if role not in STEPS:
            return results["Audit the accounts and write the reports"]
        return {
            "account": variables["cmk_account_name"],
            **reported(role, results),
            "warnings": [one for of in results.values() for one in of.get("warnings", ())],
        }

    def module(
        self, name: str, arguments: Mapping[str, Any], *, check: bool = False, task: str | None = None
    ) -> Result:
        """The result of the module. With the same `task`, the calls are those of several hosts for one task of a
        playbook."""
        module = _module(name)
        given = without_empty({**self.connection, **arguments})
        validation = _validator(name).validate(given)
        assert not validation.error_messages, validation.error_messages
        params = validation.validated_parameters
        journal = Journal(RunFiles(str(self.tokens)), SentWrites())
        try:
            folder = None if self.as_module else str(self.tokens)
            handed = journal.handed_over() if self.as_module and not check else None
            with settled():
                cloud = Cloud(params, folder, predicts=check, task=task, handed=handed)
                try:
                    with cloud.task():
                        outcome = module.run(cloud.resolved(params), cloud)
                finally:
                    if handed is not None:
                        journal.merge(cloud.written())
                result: Result = outcome.result(planned=check)
        except CmkError as failure:
            result = {"failed": True, "changed": False, **shown(failure.result())}
        if folder and not check and (result.get("failed") or result.get("changed")):
            RunFiles(folder).end_predictions()
        return result

    def _task(self, task: Mapping[str, Any], scope: dict[str, Any], check: bool) -> Result:
        (action,) = set(task) - KEYWORDS
        if "loop" in task:
            items = Templar(_loader, variables=scope).template(task["loop"])
            name = task.get("loop_control", {}).get("loop_var", "item")
            results = [self._item(task, action, {**scope, name: item}, scope, check) for item in items]
            result: Result = {
                **next((one for one in results if one.get("failed")), {}),
                "results": results,
                "changed": any(one.get("changed") for one in results),
                "failed": any(one.get("failed") for one in results),
                "skipped": all(one.get("skipped") for one in results),
            }
        else:
            result = self._item(task, action, scope, scope, check)
        if "register" in task:
            scope[task["register"]] = result
        return result

    def _item(
        self, task: Mapping[str, Any], action: str, seen: dict[str, Any], scope: dict[str, Any], check: bool
    ) -> Result:
        seen = {**seen, **task.get("vars", {})}
        templar = Templar(_loader, variables=seen)
        if not _holds(templar, task.get("when", True)):
            return {"changed": False, "skipped": True}
        result = self._act(action, task[action], templar, scope, check or task.get("check_mode", False))
        templar = Templar(_loader, variables={**seen, **({task["register"]: result} if "register" in task else {})})
        if "failed_when" in task:
            result["failed"] = _holds(templar, task["failed_when"])
        if "changed_when" in task:
            result["changed"] = _holds(templar, task["changed_when"])
        return result

    def _act(self, action: str, arguments: Any, templar: Templar, scope: dict[str, Any], check: bool) -> Result:
        if action.startswith(OURS):
            name = action.removeprefix(OURS)
            return self.module(name, templar.template(arguments), check=check, task=self.moment())
        if action == "ansible.builtin.assert":
            holds = _holds(templar, arguments["that"])
            return {"changed": False} if holds else {"failed": True, "msg": templar.template(arguments["fail_msg"])}
        if action == "ansible.builtin.set_fact":
            scope.update(templar.template(arguments))
            return {"changed": False}
        assert action == "ansible.builtin.debug", action
        return {"changed": False}


@dataclass(frozen=True)
class Roles:
    """Runs the playbooks of roles in this process, with the interface of `harness.Ansible`. The output is a list of the
    tasks' results, not the output of ansible-playbook."""

    runner: OneProcess
    control: Control

    def playbook(self, playbook: str, *, extra_vars: Mapping[str, Any], check: bool = False, diff: bool = False) -> Run:
        assert not diff, "only the output shows a diff"
        role = playbook.removeprefix(OURS)
        controller = self.runner.another()
        tasks: list[Task] = []
        since = self.control.last

        def record(name: str, result: Result) -> None:
            nonlocal since
            requests, since = self.control.requests(since), self.control.last
            status = "failed" if result.get("failed") else "skipped" if result.get("skipped") else "ok"
            place = (name, f"{OURS}{role} : {name}", "", "localhost", status)
            tasks.extend(Task(*place, item=True, result=one, requests=[]) for one in result.get("results", ()))
            tasks.append(Task(*place, item=False, result=result, requests=requests))

        report = controller.role(role, extra_vars, check=check, record=record)
        output = "\n".join(f"{one.name}: {one.result}" for one in tasks)
        return Run(2 if report.get("failed") else 0, output, tasks, controller.tokens)


RolesRunner = Ansible | Roles


def compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile each template only once. Ansible compiles a template each time it is used, although the code depends only
    on the template's text."""
    # ansible-core before 2.19 does not have this module.
    from ansible._internal._templating._jinja_bits import AnsibleEnvironment, _TemplateCompileContext

    compiled: dict[tuple[str, bool], Any] = {}
    original = AnsibleEnvironment.compile

    def kept(environment: AnsibleEnvironment, source: Any, *args: Any, **options: Any) -> Any:
        context = _TemplateCompileContext.current(optional=True)
        # An expression is parsed already (not a string), and an included template has a name in `args` or `options`.
        if not isinstance(source, str) or args or options or context is None:
            return original(environment, source, *args, **options)
        key = str(source), context.escape_backslashes
        if key not in compiled:
            compiled[key] = original(environment, source)
        return compiled[key]

    monkeypatch.setattr(AnsibleEnvironment, "compile", kept)


@functools.cache
def _validator(module: str) -> ArgumentSpecValidator:
    return ArgumentSpecValidator({**CONNECTION, **_module(module).ARGUMENTS})


def _module(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.azbatch.cmk.plugins.modules.{name}")


# Cached here because Ansible's loader copies the content at each call.
@functools.cache
def _read(role: str, part: str, name: str = "main.yml") -> Any:
    file = ROLES / role / part / name
    return _loader.load_from_file(str(file), trusted_as_template=True) if file.exists() else {}


def _tasks(role: str, scope: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    for task in _read(role, "tasks"):
        file = task.get("ansible.builtin.include_tasks") or task.get("ansible.builtin.import_tasks")
        if file is None:
            yield task
        elif _holds(Templar(_loader, variables=scope), task.get("when", True)):
            yield from _read(role, "tasks", file)


def _holds(templar: Templar, conditions: Any) -> bool:
    listed = conditions if isinstance(conditions, list) else [conditions]
    return all(templar.evaluate_conditional(condition) for condition in listed)
