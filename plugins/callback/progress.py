# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows the progress of a run over many hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: aggregate
short_description: Show the progress of a run over many hosts
description:
  - Shows a progress line at most every O(interval) seconds, and at the end of each wave (C(serial)). The line has the
    number of hosts that are done and that failed. As soon as two hosts are done, it also has the number of hosts per
    second and the estimated remaining time.
  - At the end of a play, a line counts the changed, unchanged and failed hosts and the new versions of keys, as in
    C(60 rotated, 0 unchanged, 0 failed, 1 new version).
  - If the play stops in a wave, a line for each host of that wave shows the key that its account uses, or shows that
    the host failed.
  - For a play with a single host, nothing is shown.
  - After the last play, a line for each cause names the hosts whose accounts the playbooks of this collection have left
    alone, and the remedy.
  - With the variable C(cmk_report_file), the playbooks of this collection write a report to this file on the
    controller, also after a stop. It has the same fields as the variable that they pass on to AWX.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
requirements:
  - Enable the plugin with C(callbacks_enabled = azbatch.cmk.progress) in the section C(defaults) of C(ansible.cfg), or
    with the environment variable E(ANSIBLE_CALLBACKS_ENABLED).
options:
  interval:
    description: Minimum number of seconds between two lines.
    type: float
    default: 10
    env:
      - name: AZBATCH_CMK_PROGRESS_INTERVAL
    ini:
      - section: callback_azbatch_cmk_progress
        key: interval
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.plugin_utils._left_alone import lines, links, noted
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import REPORT, STATS
from ansible_collections.azbatch.cmk.plugins.plugin_utils._progress import Progress, duration
from ansible_collections.azbatch.cmk.plugins.plugin_utils._tally import Tally


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "azbatch.cmk.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display: Any = None, options: Any = None) -> None:
        super().__init__(display, options)
        self._progress: Progress | None = None
        self._tally = Tally(0)
        self._play: str | None = None
        self._shown_at = time.monotonic()
        self._groups: Mapping[str, list[str]] = {}
        self._inventories: list[str] = []
        # The file of the report, and by playbook what it has.
        self._file = ""
        self._report: dict[str, dict[str, Any]] = {}
        self._playbook = ""
        self._hosts: list[str] = []
        self._wave: list[str] = []

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Called for each wave of a play: Ansible starts the play again for each wave."""
        variables = play.get_variable_manager().get_vars(play=play)
        self._groups, self._inventories = variables.get("groups", {}), variables.get("ansible_inventory_sources", [])
        # The path identifies a play, because ansible-runner gives each wave its own uuid.
        is_other = play.get_path() != self._play
        self._end(is_last=is_other)
        if self._progress is None or self._progress.left == 0 or is_other:
            self._hosts = list(variables.get("ansible_play_hosts_all", []))
            hosts = len(self._hosts)
            self._playbook = variables.get(STATS, "")
            templar = Templar(loader=play.get_loader(), variables=variables)
            self._file = str(templar.template(variables.get("cmk_report_file")) or "")
            self._play = play.get_path()
            self._progress = Progress(hosts, time.monotonic()) if hosts > 1 else None
            self._tally = Tally(hosts)
        # In a play that matches no host, Ansible sets the hosts of an earlier play.
        known = set(self._hosts)
        self._wave = [host for host in variables.get("ansible_play_batch", []) if host in known]
        self._tally.begun.update(self._wave)
        if self._progress is not None:
            self._progress.next_wave(len(self._wave))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if self._progress is not None:
            self._progress.next_task(task.get_name())
        if self._playbook and str(task.action).endswith("set_stats"):
            self._note_report()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        if self._progress is not None:
            self._progress.stopped = True

    def v2_runner_on_ok(self, result: Any) -> None:
        self._through(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._through(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._through(result, failed=not ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._through(result, failed=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end(is_last=True)
        notes = noted(RunFiles(constants.DEFAULT_LOCAL_TMP))  # type: ignore[attr-defined]
        for line in lines(notes, self._groups, self._inventories):
            # Programs may read stdout, for example with the callback plugin ansible.posix.json.
            self._display.display(f"LEFT ALONE: {line}", stderr=True)
        if notes:
            self._display.display(f"ABOUT THESE CAUSES: {' '.join(links(notes))}", stderr=True)
        if self._file and self._report:
            try:
                Path(self._file).write_text(f"{json.dumps(self._report, indent=2)}\n", encoding="utf-8")
            except OSError as error:
                self._display.warning(f"The report {self._file} (cmk_report_file) was not written: {error}")

    def _through(self, result: Any, *, failed: bool = False) -> None:
        # The attributes of a result have become public with ansible-core 2.19.
        is_public = hasattr(result, "host")
        host = (result.host if is_public else result._host).get_name()
        task, values = (result.task, result.result) if is_public else (result._task, result._result)
        role = task._role.get_name() if task._role else ""
        self._tally.add(host, role, str(task.action), values, failed=failed)
        progress = self._progress
        if progress is None:
            return
        progress.through.add(host)
        if failed:
            progress.failed.add(host)
        if time.monotonic() - self._shown_at >= self.get_option("interval"):
            self._tell(progress)

    def _end(self, *, is_last: bool) -> None:
        """End a wave. If it was the last wave of the play, show the final counts."""
        progress = self._progress
        if progress is None:
            self._tally.end_wave()
            self._add_to_report()
            return
        if is_last and progress.has_waves_left:
            # If all hosts of a wave fail, Ansible stops the play without an event.
            progress.stopped = True
        progress.end_wave(len(self._tally.counted - self._tally.finished))
        if progress.left:
            self._tell(progress)
        if progress.stopped:
            for line in self._tally.overview():
                self._show(line)
        else:
            self._tally.end_wave()
        self._add_to_report()
        if progress.left == 0 or is_last:
            took = duration(time.monotonic() - progress.began)
            self._show(f"{self._tally.line()}, in {took}")

    def _add_to_report(self) -> None:
        """Add the play to what earlier plays of the playbook have reported."""
        if not self._playbook:
            return
        report = self._report.setdefault(self._playbook, {"accounts": {}, "not_started": [], "new_versions": {}})
        for host, found in self._tally.accounts().items():
            before = report["accounts"].get(host, {})
            report["accounts"][host] = {**before, **found, "changed": found["changed"] or before.get("changed", False)}
        report["not_started"] = [one for one in self._hosts if one not in report["accounts"]]
        report["new_versions"] |= dict(sorted(self._tally.versions))

    def _note_report(self) -> None:
        """Note what the playbook's set_stats passes on to AWX: the accounts of the wave. It is the first task of the
        wave, and the last task."""
        self._tally.end_wave()
        self._add_to_report()
        report = self._report[self._playbook]
        accounts = {host: report["accounts"][host] for host in self._wave}
        files = RunFiles(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
        files.store({self._playbook: {**report, "accounts": accounts}}, REPORT, is_note=True)

    def _tell(self, progress: Progress) -> None:
        self._shown_at = time.monotonic()
        self._show(progress.line(self._shown_at))

    def _show(self, line: str) -> None:
        self._display.display(f"PROGRESS: {line}")
