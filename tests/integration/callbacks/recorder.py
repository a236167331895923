# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes a line of JSON for each finished task, with its result and its requests."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: recorder
type: aggregate
short_description: Record results and requests for the tests
description: Writes a line of JSON for every finished task to the file that RECORDER_FILE names.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "recorder"

    def __init__(self) -> None:
        super().__init__()
        # Without a proxy, because the environment names the sandbox as the proxy of all requests to Azure.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._seen = int(os.environ["RECORDER_SINCE"])

    def _requests(self) -> list[dict[str, Any]]:
        with self._open(f"{os.environ['RECORDER_URL']}/requests?since={self._seen}", timeout=30) as answer:
            found = json.load(answer)
        self._seen = found["last"]
        requests: list[dict[str, Any]] = found["requests"]
        return requests

    def _record(self, result: Any, status: str, requests: list[dict[str, Any]], item: bool = False) -> None:
        task = result.task if hasattr(result, "task") else result._task
        returned = result.result if hasattr(result, "result") else result._result
        host = result.host if hasattr(result, "host") else result._host
        entry = {
            "name": task.get_name().rpartition(" : ")[2],
            "full_name": task.get_name(),
            "action": task.action,
            "host": host.get_name(),
            "status": status,
            "item": item,
            "result": returned,
            "requests": requests,
        }
        with open(os.environ["RECORDER_FILE"], "a") as file:
            file.write(json.dumps(entry, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._record(result, "ok", self._requests())

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._record(result, "failed", self._requests())

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._record(result, "skipped", self._requests())

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._record(result, "unreachable", self._requests())

    # The next item may run while an item is recorded, so the requests of a loop are recorded with the task.

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._record(result, "ok", [], item=True)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._record(result, "failed", [], item=True)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        self._record(result, "skipped", [], item=True)
