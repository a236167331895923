# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Emulates the part of AWX's REST API that the modules of awx.awx use: lists, objects, associations and surveys.

Source of the rules: awx/api/serializers.py and awx/api/views of AWX 24.6.1.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import json_server

Object = dict[str, Any]

TOKEN = "token-of-the-test"
# The path of the API.
BASE = "/api/v2/"
ENCRYPTED = "$encrypted$"
# The fields that AWX encrypts, by type of credential.
SECRETS = {"Microsoft Azure Resource Manager": ("password", "secret")}
REQUIRED = {"Microsoft Azure Resource Manager": ("subscription",)}
# The fields of an object that was created without them, as far as the modules compare them.
DEFAULTS: dict[str, Object] = {
    "inventories": {"kind": "", "host_filter": None},
    "projects": {"scm_revision": "1", "scm_branch": ""},
    "job_templates": {"job_slice_count": 1, "survey_enabled": False},
    "workflow_job_template_nodes": {"extra_data": {}},
}
UNIFIED = ("job_templates", "workflow_job_templates", "projects", "inventory_sources")
# The type of the default of a question. A default of a list has one choice a line.
DEFAULT_TYPES = {"text": str, "multiplechoice": str, "multiselect": str, "integer": int}


class Rejected(Exception):
    """A request that AWX rejects with status 400 and this body."""

    def __init__(self, body: Object) -> None:
        super().__init__(str(body))
        self.body = body


@dataclass
class Awx:
    """The objects by endpoint and id, and the requests that changed something or tried to."""

    # The playbooks in the repository of each project.
    playbooks: frozenset[str]
    url: str = ""
    objects: dict[str, dict[int, Object]] = field(default_factory=dict)
    associations: dict[str, list[int]] = field(default_factory=dict)
    surveys: dict[int, Object] = field(default_factory=dict)
    # What AWX stores, and returns as $encrypted$.
    inputs: dict[int, Object] = field(default_factory=dict)
    writes: list[tuple[str, str, Any]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, endpoint: str, **fields: Any) -> Object:
        """Create an object. Returns its representation."""
        number = 1 + sum(map(len, self.objects.values()))
        kind = endpoint.removesuffix("s") if endpoint != "inventories" else "inventory"
        path = f"{BASE}{endpoint}/{number}/"
        sent = {name: value for name, value in fields.items() if value is not None}
        made = {"id": number, "type": kind, "url": path, "summary_fields": {}, **DEFAULTS.get(endpoint, {}), **sent}
        made["related"] = {"survey_spec": f"{path}survey_spec/", "update": f"{path}update/"}
        if endpoint == "projects":
            # AWX begins an update after the creation.
            update = self.add("project_updates", status="successful", scm_revision="1")
            made["summary_fields"] = {"current_update": {"id": update["id"]}}
        return self._store(endpoint, made)

    def named(self, endpoint: str, name: str) -> Object:
        """The only object of that name."""
        (found,) = (one for one in self.objects[endpoint].values() if one.get("name") == name)
        return found

    def associated(self, one: Object, kind: str) -> list[Object]:
        """The objects that are associated with an object."""
        numbers = self.associations.get(f"{one['url']}{kind}/", [])
        return [made for objects in self.objects.values() for made in objects.values() if made["id"] in numbers]

    def respond(self, method: str, path: str, query: Mapping[str, str], body: Any) -> tuple[int, Any]:
        with self.lock:
            try:
                return self._respond(method, path, query, body)
            except Rejected as rejected:
                return 400, rejected.body

    def _respond(self, method: str, path: str, query: Mapping[str, str], body: Any) -> tuple[int, Any]:
        if not path.startswith(BASE):
            return 404, {"detail": "Not found."}
        endpoint, *rest = path.removeprefix(BASE).strip("/").split("/")
        if method != "GET":
            self.writes.append((method, path, body))
        if not rest:
            return self._list(endpoint, query) if method == "GET" else (201, self._create(endpoint, body))
        one = self.objects.get(endpoint, {}).get(int(rest[0]))
        if one is None:
            return 404, {"detail": "Not found."}
        if rest[1:] == ["survey_spec"]:
            return self._survey(one, method, body)
        if rest[1:]:
            return self._association(path, method, body)
        if method == "DELETE":
            del self.objects[endpoint][one["id"]]
            return 204, None
        return 200, one if method == "GET" else self._store(endpoint, {**one, **self._checked(endpoint, body)})

    def _list(self, endpoint: str, query: Mapping[str, str]) -> tuple[int, Object]:
        found = [
            one
            for kind in (UNIFIED if endpoint == "unified_job_templates" else [endpoint])
            for one in self.objects.get(kind, {}).values()
            if all(str(one.get(name)) == value for name, value in query.items())
        ]
        return 200, {"count": len(found), "next": None, "previous": None, "results": found}

    def _create(self, endpoint: str, body: Object) -> Object:
        taken = [one for one in self.objects.get(endpoint, {}).values() if one.get("name") == body.get("name")]
        if taken and endpoint != "workflow_job_template_nodes":
            raise Rejected({"__all__": [f"{endpoint} with this name already exists."]})
        return self.add(endpoint, **self._checked(endpoint, body))

    def _checked(self, endpoint: str, body: Object) -> Object:
        """The fields that AWX accepts. It rejects some invalid ones."""
        if endpoint == "job_templates" and body["playbook"] not in self.playbooks:
            raise Rejected({"playbook": ["Playbook not found for project."]})
        if endpoint == "workflow_job_template_nodes" and body.get("extra_data"):
            template = self.objects["job_templates"][body["unified_job_template"]]
            asked = {one["variable"] for one in self.surveys.get(template["id"], {}).get("spec", ())}
            if not template.get("ask_variables_on_launch") and body["extra_data"].keys() - asked:
                raise Rejected({"extra_vars": ["Variables are not allowed on launch."]})
        if endpoint == "schedules" and not {"DTSTART", "RRULE:", "INTERVAL"} <= {
            part for part in ("DTSTART", "RRULE:", "INTERVAL") if part in body["rrule"]
        }:
            raise Rejected({"rrule": ["INTERVAL required in rrule"]})
        return body

    def _store(self, endpoint: str, made: Object) -> Object:
        if endpoint == "credentials" and "inputs" in made:
            kind = self.objects["credential_types"][made["credential_type"]]["name"]
            inputs = {
                name: self.inputs[made["id"]][name] if value == ENCRYPTED else value
                for name, value in made["inputs"].items()
            }
            if not all(inputs.get(name) for name in REQUIRED.get(kind, ())):
                raise Rejected({"inputs": {"subscription": ["required for Microsoft Azure Resource Manager"]}})
            self.inputs[made["id"]] = inputs
            hidden = {name: ENCRYPTED for name in SECRETS.get(kind, ()) if inputs.get(name)}
            made = {**made, "inputs": {**inputs, **hidden}}
        if endpoint == "notification_templates" and made["notification_configuration"].get("password"):
            made = {**made, "notification_configuration": {**made["notification_configuration"], "password": ENCRYPTED}}
        self.objects.setdefault(endpoint, {})[made["id"]] = made
        return made

    def _association(self, path: str, method: str, body: Any) -> tuple[int, Any]:
        numbers = self.associations.setdefault(path, [])
        if method == "GET":
            results = [{"id": number} for number in numbers]
            return 200, {"count": len(results), "next": None, "previous": None, "results": results}
        if body.get("disassociate"):
            numbers.remove(body["id"])
        elif body["id"] not in numbers:
            numbers.append(body["id"])
        return 204, None

    def _survey(self, one: Object, method: str, body: Any) -> tuple[int, Any]:
        if method == "POST":
            for question in body["spec"]:
                missing = {"type", "question_name", "variable", "required"} - question.keys()
                default = question.get("default", "")
                if missing or not isinstance(question["required"], bool):
                    raise Rejected({"error": f"{missing or 'required'} in survey question"})
                if default != "" and not isinstance(default, DEFAULT_TYPES[question["type"]]):
                    raise Rejected({"error": f"Default value {default} has the wrong type."})
                if question["type"].startswith("multi") and set(str(default).split("\n")) - {*question["choices"], ""}:
                    raise Rejected({"error": "The default is not one of the choices."})
            self.surveys[one["id"]] = body
        return 200, self.surveys.get(one["id"], {}) if method == "GET" else {}


@contextmanager
def serving(playbooks: frozenset[str]) -> Iterator[Awx]:
    """An AWX with the organization Default, which listens on loopback."""
    awx = Awx(playbooks)
    awx.add("organizations", name="Default")
    awx.add("credential_types", name="Microsoft Azure Resource Manager")
    headers = {"X-API-Product-Name": "AWX", "X-API-Product-Version": "24.6.1"}
    with json_server.serving(awx.respond, TOKEN, headers) as awx.url:
        yield awx
