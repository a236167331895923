# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows the playbooks of this collection without the lines that say nothing. Ansible loads this plugin with these
playbooks, and prefers it to its own plugin of this name. Other plays, and runs with -v, are shown as Ansible shows
them."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins import callback

from ansible_collections.azbatch.cmk.plugins.callback.progress import is_of_collection
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import CONTINUES

# Ansible gives this file the name of the plugin that it replaces, so an import would import this file.
_SPEC: Any = importlib.util.spec_from_file_location(
    "azbatch_cmk_default", Path(callback.__file__).with_name("default.py")
)
_ansible: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_ansible)
# Ansible reads the options of the plugin from this name.
DOCUMENTATION = _ansible.DOCUMENTATION
_BAD = ("failures", "unreachable", "rescued", "ignored")
# Up to this number of hosts, the recap has a line for each host that is not ok.
_MOST_LINES = 5


@dataclass
class _Recap:
    """The statistics of the hosts that the recap shows."""

    processed: Mapping[str, Mapping[str, int]]
    custom: Any

    def summarize(self, host: str) -> Mapping[str, int]:
        return self.processed[host]


class CallbackModule(_ansible.CallbackModule):  # type: ignore[misc]
    CALLBACK_NAME = "default"

    def __init__(self) -> None:
        super().__init__()
        self._is_short = False
        self._is_for_one = False
        # A play whose heading is not shown yet: the callback plugin progress first shows the end of the wave before.
        self._unshown: Any = None
        # Of the current task, the changed hosts, and by cause of a failure the hosts that have failed too.
        self._changed: list[str] = []
        self._failed: dict[tuple[str, str], list[str]] = {}

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._end_task()
        self._is_short = self._display.verbosity == 0 and is_of_collection(play)
        self._play, self._unshown = play, play
        if self._is_short:
            variables = play.get_variable_manager().get_vars(play=play)
            self._is_for_one = len(variables.get("ansible_play_hosts_all", [])) == 1
        else:
            self._show_heading()

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if self._is_short and CONTINUES in self._play.vars:
            self._unshown = None
            return
        self._show_heading()
        super().v2_playbook_on_no_hosts_matched()

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        self._end_task()
        if not self._is_short:
            super().v2_playbook_on_no_hosts_remaining()

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if not self._is_short:
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_ok(self, result: Any) -> None:
        task, values, host = _parts(result)
        if not self._is_short or (task.loop and values.get("changed")):
            super().v2_runner_on_ok(result)
            return
        if values.get("warnings"):
            self._handle_warnings(values)
        if str(task.action).endswith("debug"):
            self._show_message(values.get("msg"))
        elif values.get("changed") and self._is_for_one:
            self._show_heading()
            self._say(f"changed: [{host}] {self._last_task_name.rpartition(' : ')[2]}", constants.COLOR_CHANGED)
        elif values.get("changed"):
            self._begin_lines(task)
            self._changed.append(host)

    def v2_runner_on_skipped(self, result: Any) -> None:
        if not self._is_short:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if not self._is_short or _parts(result)[1].get("changed"):
            super().v2_runner_item_on_ok(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if not self._is_short:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        task, values, host = _parts(result)
        is_plain = "code" in values or str(task.action).endswith("fail")
        if not self._is_short or ignore_errors or not is_plain:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        self._begin_lines(task)
        if values.get("warnings"):
            self._handle_warnings(values)
        code, text = values.get("code", ""), str(values["msg"])
        others = self._failed.get((code, _cause(text, host)))
        if others is not None:
            others.append(host)
            return
        self._failed[code, _cause(text, host)] = []
        self._say(f"fatal: [{host}]: {code}: {text}" if code else f"fatal: [{host}]: {text}", constants.COLOR_ERROR)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end_task()
        processed = {host: stats.summarize(host) for host in stats.processed}
        if self._is_short and len(processed) > 1:
            processed = _recap(processed)
        super().v2_playbook_on_stats(_Recap(processed, stats.custom))

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        self._end_task()
        if not self._is_short:
            super()._task_start(task, prefix)
            return
        self._task_type_cache[task._uuid] = prefix
        self._last_task_name = task.get_name().strip()
        # For many hosts, these tasks may take minutes. Other tasks have a heading if they show something.
        if str(task.action).startswith("azbatch.cmk.") and not self._is_for_one:
            self._begin_lines(task)

    def _print_task_banner(self, task: Any) -> None:
        if not self._is_short:
            super()._print_task_banner(task)
            return
        self._show_heading()
        is_check = task.check_mode and self.get_option("check_mode_markers")
        self._say(f"TASK [{self._last_task_name or task.get_name().strip()}]{' [CHECK MODE]' if is_check else ''}")
        self._last_task_banner = task._uuid

    def _begin_lines(self, task: Any) -> None:
        if self._last_task_banner != task._uuid:
            self._print_task_banner(task)

    def _show_heading(self) -> None:
        if self._unshown is not None:
            play, self._unshown = self._unshown, None
            super().v2_playbook_on_play_start(play)

    def _show_message(self, message: Any) -> None:
        self._show_heading()
        for line in message if isinstance(message, list) else [message]:
            self._say(str(line), constants.COLOR_OK)

    def _end_task(self) -> None:
        """Show the hosts that share a line."""
        if self._changed:
            self._say(f"changed: {_hosts(self._changed)}", constants.COLOR_CHANGED)
        for (code, _cause_of_all), hosts in self._failed.items():
            if hosts:
                about = f": {code}, for the same cause" if code else " for the same cause"
                self._say(f"fatal: [{', '.join(hosts)}]{about}", constants.COLOR_ERROR)
        self._changed, self._failed = [], {}

    def _say(self, line: str, color: str | None = None) -> None:
        self._display.display(line, color=color)


def _parts(result: Any) -> tuple[Any, Any, str]:
    """The task, the values and the host of a result, whose attributes have become public with ansible-core 2.19."""
    if hasattr(result, "host"):
        return result.task, result.result, result.host.get_name()
    return result._task, result._result, result._host.get_name()


def _cause(text: str, host: str) -> str:
    """The message without what differs between accounts with the same cause."""
    return re.sub(rf"\b{re.escape(host)}\b|/subscriptions/\S+|\b[0-9a-f-]{{32,36}}\b", "", text)


def _hosts(hosts: Iterable[str]) -> str:
    named = [*hosts]
    return f"[{named[0]}]" if len(named) == 1 else f"{len(named)} hosts"


def _recap(processed: Mapping[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
    """The hosts that are not ok, unless they are many, and the others in one line."""
    bad = {host: counts for host, counts in processed.items() if any(counts[one] for one in _BAD)}
    shown = bad if len(bad) <= _MOST_LINES else {}
    others: Counter[str] = Counter()
    for host in processed.keys() - shown.keys():
        others.update(processed[host])
    number = len(processed) - len(shown)
    name = f"{number} {'other ' if shown else ''}host{'s' if number > 1 else ''}"
    return {**shown, **({name: others} if others else {})}
