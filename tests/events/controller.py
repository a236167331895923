# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Emulates the part of AWX's REST API that ansible-rulebook uses: it finds job templates, launches jobs and reads their
status. The job templates are those of the playbook awx. A job runs the playbook of its template.

Source of the rules: awx/api/serializers.py and awx/main/models/mixins.py of AWX.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import json_server
from awx_templates import defined, job_template, job_variables

TOKEN = "token-of-the-rulebook"
NAME = "Batch keys"
TYPES = {"text": str, "multiplechoice": str, "multiselect": list, "integer": int}

# Runs a playbook with its limit and extra variables.
Play = Callable[[str, str, Mapping[str, Any]], "subprocess.CompletedProcess[str]"]


def problems(template: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Why AWX refuses to launch a job with these extra variables."""
    found = []
    for one in template.get("survey", ()):
        name = one["variable"]
        values = given.get(name) if one["type"] == "multiselect" else [given.get(name)]
        if name not in given:
            found += [f"'{name}' value missing"] if one["required"] else []
        elif type(given[name]) is not TYPES[one["type"]] or ("choices" in one and {*values} - {*one["choices"]}):
            found.append(f"Value {given[name]} for '{name}' expected to be {one.get('choices', one['type'])}.")
    return found


@dataclass
class Job:
    template: str
    given: Mapping[str, Any]
    status: str = "running"
    output: str = ""


@dataclass
class Controller:
    play: Play
    organization: str
    url: str = ""
    jobs: list[Job] = field(default_factory=list)
    # The launches that were refused, with the reasons.
    refused: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def respond(self, method: str, path: str, query: Mapping[str, str], body: Any) -> tuple[int, Any]:
        match path.strip("/").split("/")[2:]:
            case ["config"]:
                return 200, {"version": "24.6.1"}
            case ["unified_job_templates"]:
                templates = [one for one in defined("__job_templates") if query["name"] == f"{NAME}: {one['name']}"]
                return 200, _page([self._shown(one["name"]) for one in templates])
            case ["job_templates", name, "launch"] if method == "POST":
                return self._launch(name, body)
            case ["jobs"]:
                numbers = map(int, query["id__in"].split(","))
                return 200, _page([{"id": number, **self._status(number)} for number in numbers])
        return 404, {"detail": "Not found."}

    def _shown(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "type": "job_template",
            "name": f"{NAME}: {name}",
            "summary_fields": {"organization": {"name": self.organization}},
            "related": {"launch": f"/api/v2/job_templates/{name}/launch/"},
            "ask_limit_on_launch": True,
            "ask_variables_on_launch": True,
            "ask_labels_on_launch": False,
            "ask_inventory_on_launch": False,
        }

    def _launch(self, name: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        template, given = job_template(name), body["extra_vars"]
        if wrong := problems(template, given):
            self.refused += wrong
            return 400, {"variables_needed_to_start": wrong}
        job = Job(name, given)
        self.jobs.append(job)

        def run() -> None:
            done = self.play(template.get("playbook", name), body["limit"], job_variables(template, given))
            job.output = done.stdout
            job.status = "failed" if done.returncode else "successful"

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        number = len(self.jobs)
        return 201, {"id": number, "url": f"/api/v2/jobs/{number}/"}

    def _status(self, number: int) -> dict[str, Any]:
        return {"status": self.jobs[number - 1].status, "created": "2026-01-01T00:00:00Z", "artifacts": {}}


def _page(results: list[Any]) -> dict[str, Any]:
    return {"count": len(results), "next": None, "previous": None, "results": results}


@contextmanager
def serving(play: Play, organization: str) -> Iterator[Controller]:
    """A controller that listens on loopback. At the end, waits for its jobs."""
    controller = Controller(play, organization)
    with json_server.serving(controller.respond, TOKEN) as controller.url:
        yield controller
        for one in controller.threads:
            one.join()
