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
    C(60 changed, 0 unchanged, 0 failed, 1 new version). In check mode, as in
    C(Would create 1 version, change 60 accounts).
  - If the play stops in a wave, lines show the keys that the accounts of that wave use.
  - For a play with a single host, nothing of this is shown.
  - The playbooks of this collection end with a verdict of one to three lines, also after Ctrl-C.
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

import atexit
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.plugin_utils._left_alone import left_alone_accounts, lines, links, play_id
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import (
    CONTINUES,
    PLAYBOOK,
    REPORT,
    REPORT_FILE,
    STATS,
)
from ansible_collections.azbatch.cmk.plugins.plugin_utils._progress import PlayProgress, duration
from ansible_collections.azbatch.cmk.plugins.plugin_utils._tally import Tally

_PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
# The modules of the playbooks that report.
_REPORTS = ("azbatch.cmk.batch_encryption_audit", "azbatch.cmk.keyvault_cmk_users")


def is_of_collection(play: Any) -> bool:
    """Whether the play is in a playbook of this collection."""
    return _PLAYBOOKS in Path(play.get_path().rpartition(":")[0]).resolve().parents


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "azbatch.cmk.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display: Any = None, options: Any = None) -> None:
        super().__init__(display, options)
        self._progress: PlayProgress | None = None
        # Of a playbook of this collection, or of a play of another playbook.
        self._tally = Tally(0)
        self._began = time.monotonic()
        self._number = 0
        self._plays: list[Any] = []
        self._play: str | None = None
        self._shown_at = time.monotonic()
        self._groups: Mapping[str, list[str]] = {}
        self._inventories: list[str] = []
        # The file of the report, and by playbook what it has.
        self._file = ""
        self._report: dict[str, dict[str, Any]] = {}
        self._playbook = ""
        self._hosts: list[str] = []
        self._play_hosts: set[str] = set()
        self._wave: list[str] = []
        self._is_of_collection = False
        # What the end of the run shows.
        self._verdict: list[str] = []
        self._is_bad = False
        atexit.register(self._on_exit)

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._plays = playbook.get_plays()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Called for each wave of a play: Ansible starts the play again for each wave."""
        variables = play.get_variable_manager().get_vars(play=play)
        self._groups, self._inventories = variables.get("groups", {}), variables.get("ansible_inventory_sources", [])
        is_other = play_id(play) != self._play
        self._is_of_collection = is_of_collection(play)
        self._end_wave(is_last=is_other)
        if is_other:
            self._play = play_id(play)
            hosts = list(variables.get("ansible_play_hosts_all", []))
            if not variables.get(CONTINUES):
                self._end_playbook()
                self._begin_playbook(play, variables, hosts)
            # The play that reports accounts does nothing, also for those of earlier playbooks.
            self._play_hosts = set() if _is_report(variables) else set(hosts)
            self._progress = PlayProgress(len(hosts), time.monotonic()) if len(self._play_hosts) > 1 else None
        # In a play that matches no host, Ansible sets the hosts of an earlier play.
        self._wave = [host for host in variables.get("ansible_play_batch", []) if host in self._play_hosts]
        self._tally.begin_wave(self._wave)
        if self._progress is not None:
            self._progress.next_wave(len(self._wave))

    def _begin_playbook(self, play: Any, variables: dict[str, Any], hosts: list[str]) -> None:
        self._number += 1
        files = RunFiles(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
        files.store({"number": self._number, "is_followed": self._is_followed(play)}, PLAYBOOK, is_note=True)
        self._hosts, self._tally, self._began = hosts, Tally(len(hosts)), time.monotonic()
        self._playbook = variables.get(STATS, "")
        templar = Templar(loader=play.get_loader(), variables=variables)
        self._file = str(templar.template(variables.get(REPORT_FILE)) or "") or self._file

    def _is_followed(self, play: Any) -> bool:
        """Whether the last play of a later playbook certainly fails for the accounts that are left alone. A condition
        or other tags may skip its tasks."""
        later = self._plays[[play_id(other) for other in self._plays].index(play_id(play)) :]
        reports = [other for other in later if _is_report(other.vars)]
        return any(not report._included_conditional and {*report.tags} == {*play.tags} for report in reports[1:])

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
        self._count(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._count(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._count(result, failed=not ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._count(result, failed=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end_wave(is_last=True)
        self._end_playbook()
        notes = left_alone_accounts(RunFiles(constants.DEFAULT_LOCAL_TMP))  # type: ignore[attr-defined]
        for line in lines(notes, self._groups, self._inventories):
            # Programs may read stdout, for example with the callback plugin ansible.posix.json.
            self._display.display(f"LEFT ALONE: {line}", stderr=True)
        if links(notes):
            self._display.display(f"ABOUT THESE CAUSES: {' '.join(links(notes))}", stderr=True)
        self._say_verdict()
        if self._file and self._report:
            try:
                Path(self._file).write_text(f"{json.dumps(self._report, indent=2)}\n", encoding="utf-8")
            except OSError as error:
                self._display.warning(f"The report {self._file} (cmk_report_file) was not written: {error}")

    def _count(self, result: Any, *, failed: bool = False) -> None:
        # The attributes of a result have become public with ansible-core 2.19.
        is_public = hasattr(result, "host")
        host = (result.host if is_public else result._host).get_name()
        task, values = (result.task, result.result) if is_public else (result._task, result._result)
        if self._is_of_collection and task.action in _REPORTS and "summary" in values:
            self._verdict.append(values["summary"])
            self._is_bad |= failed
        if host not in self._play_hosts:
            return
        role = task._role.get_name() if task._role else ""
        self._tally.add(host, role, str(task.action), values, failed=failed)
        progress = self._progress
        if progress is None:
            return
        progress.finished.add(host)
        if failed:
            progress.failed.add(host)
        if time.monotonic() - self._shown_at >= self.get_option("interval"):
            self._show_progress(progress)

    def _end_wave(self, *, is_last: bool) -> None:
        """End a wave. `is_last` is whether it was the last wave of the play."""
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
            self._show_progress(progress)
        if progress.stopped:
            for line in self._tally.overview():
                self._show(line)
        else:
            self._tally.end_wave()
        self._add_to_report()

    def _end_playbook(self, *, is_interrupted: bool = False) -> None:
        """Show the final counts, or note them for the end of the run."""
        tally, took = self._tally, duration(time.monotonic() - self._began)
        is_check = bool(context.CLIARGS.get("check"))
        if self._playbook and tally.total:
            self._verdict += tally.verdict(took, is_check=is_check, is_interrupted=is_interrupted)
            self._is_bad |= bool(tally.failed or tally.left_alone or tally.missed or tally.unfinished)
        elif tally.total > 1:
            self._show(tally.outcome(took, is_check=True) if is_check else f"{tally.line()}, in {took}")
        self._playbook, self._tally = "", Tally(0)

    def _say_verdict(self) -> None:
        # After what is still buffered, if stdout and stderr are one file.
        sys.stdout.flush()
        for line in self._verdict:
            color = constants.COLOR_ERROR if self._is_bad else constants.COLOR_OK  # type: ignore[attr-defined]
            self._display.display(line, color=color, stderr=True)
        self._verdict, self._is_bad = [], False

    def _on_exit(self) -> None:
        """Called when the process ends: if the run was interrupted, Ansible has not called v2_playbook_on_stats."""
        if self._playbook:
            self._end_playbook(is_interrupted=True)
            self._say_verdict()

    def _add_to_report(self) -> None:
        """Add the play to what earlier plays of the playbook have reported."""
        if not self._playbook:
            return
        report = self._report.setdefault(self._playbook, {"accounts": {}, "not_started": [], "new_versions": {}})
        for host, account in self._tally.accounts().items():
            before = report["accounts"].get(host, {})
            is_changed = account["changed"] or before.get("changed", False)
            report["accounts"][host] = {**before, **account, "changed": is_changed}
        report["not_started"] = [host for host in self._hosts if host not in report["accounts"]]
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

    def _show_progress(self, progress: PlayProgress) -> None:
        self._shown_at = time.monotonic()
        self._show(progress.line(self._shown_at))

    def _show(self, line: str) -> None:
        self._display.display(f"PROGRESS: {line}")


def _is_report(variables: Mapping[str, Any]) -> bool:
    """Whether the variables are those of the play that fails for the accounts that were left alone."""
    return CONTINUES in variables and STATS not in variables
