# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recordings of the experiments with Azure (docs/developers/live.md), and their comparison with the sandbox.

The folder `contributed` has the recordings, and RESULT.json with the measured positions of the switches. A recording
begins with an empty resource group. Its requests are sent to a sandbox in their order, with its clock: values that only
Azure can assign are replaced by those of the sandbox as soon as a response has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sandbox_client import VAULT_SCOPE, Sandbox

FOLDER = Path(__file__).with_name("contributed")
# What differs in each run: ids, versions, times, and the lines of an error message that contain them.
_ASSIGNED = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{32}\b", re.IGNORECASE)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z|\b\d{10}\b|0x8D[0-9A-F]{13}")
# Random by nature, or of the subscription.
_OTHERS = frozenset({"n", "x", "y", "etag", "dedicatedcorequotapervmfamily"})
_COMPARED_HEADERS = ("content-type", "www-authenticate", "x-ms-failure-cause")


def interactions(recording: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(recording.read_text(encoding="utf-8"))["interactions"]
    return found


def cases(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """The method and the path of each interaction, by `RECORDING #NUMBER`, as the fidelity tables cite them."""
    return {
        f"{recording.stem} #{number}": {"method": one["method"], "path": urlsplit(one["url"]).path}
        for recording in sorted(folder.glob("live-*.json"))
        for number, one in enumerate(interactions(recording))
    }


class Replay:
    def __init__(self, sandbox: Sandbox, recording: Path) -> None:
        self._sandbox = sandbox
        self._interactions = interactions(recording)
        # By the value in the recording, the value in the sandbox.
        self._known: dict[str, str] = {}

    def differences(self) -> Iterator[str]:
        """What the sandbox does differently, a line for each difference."""
        self._prepare()
        before: datetime | None = None
        ended: set[str] = set()
        for number, one in enumerate(self._interactions):
            began = datetime.fromisoformat(one["began"].replace("Z", "+00:00"))
            if before is not None:
                self._sandbox.control.advance(max(0.0, (began - before).total_seconds()))
            before = began
            if one["url"] in ended:
                # Azure needed more polls than the sandbox.
                continue
            yield from (f"#{number} {one['method']}: {line}" for line in self._compared(one, ended))

    def _prepare(self) -> None:
        """Create the resource group of the recording."""
        paths = [urlsplit(one["url"]).path.split("/") for one in self._interactions]
        placed = next(path for path in paths if len(path) > 4 and path[3].lower() == "resourcegroups")
        self._known[placed[2].lower()] = self._sandbox.subscription_id
        principals = self._sandbox.control.call("GET", "/principals")["principals"]
        operator = next(one for one in principals if one["name"] == "operator")
        for one in self._interactions:
            if "principal" in one:
                self._known |= {one["tenant"]: self._sandbox.tenant_id, one["principal"]: operator["object_id"]}
        body = {"location": "westeurope"}
        path = f"{self._sandbox.subscription}/resourceGroups/{placed[4]}"
        assert self._sandbox.arm("PUT", path, "2022-09-01", body).ok

    def _compared(self, one: dict[str, Any], ended: set[str]) -> Iterator[str]:
        host = urlsplit(one["url"]).hostname or ""
        session = self._sandbox.bearer(VAULT_SCOPE) if host.endswith(".vault.azure.net") else self._sandbox.bearer()
        url, body = self._own(one["url"]), self._own(one.get("body"))
        response = session.request(one["method"], url, json=body, timeout=30)
        if one["status"] == 202 and response.status_code in (200, 201, 204):
            # The operation has ended earlier.
            ended.add(one["headers"].get("location", ""))
            return
        if response.status_code != one["status"]:
            yield f"status {response.status_code} instead of {one['status']}"
            return
        own = {name.lower(): value for name, value in response.headers.items()}
        for name in _COMPARED_HEADERS:
            if name in one["headers"]:
                yield from self._value(name, one["headers"][name], own.get(name))
        if "location" in one["headers"] and "location" in own:
            self._known[one["headers"]["location"].lower()] = own["location"]
        if "answer" in one:
            yield from self._value("body", one["answer"], response.json())

    def _value(self, place: str, recorded: Any, own: Any) -> Iterator[str]:
        if isinstance(recorded, dict) and isinstance(own, dict):
            # The ids of resources are names of members too.
            first = {self._own(name).lower(): value for name, value in recorded.items()}
            second = {name.lower(): value for name, value in own.items()}
            for name in sorted(first.keys() ^ second.keys()):
                yield f"{place}.{name} is only in the {'recording' if name in first else 'sandbox'}"
            for name in sorted(first.keys() & second.keys() - _OTHERS):
                yield from self._value(f"{place}.{name}", first[name], second[name])
        elif isinstance(recorded, list) and isinstance(own, list):
            if len(recorded) != len(own):
                yield f"{place} has {len(own)} items instead of {len(recorded)}"
            for number, (first, second) in enumerate(zip(recorded, own, strict=False)):
                yield from self._value(f"{place}[{number}]", first, second)
        elif isinstance(recorded, str) and isinstance(own, str):
            pairs = zip(_ASSIGNED.findall(recorded), _ASSIGNED.findall(own), strict=False)
            self._known |= {first.lower(): second for first, second in pairs}
            if _masked(recorded) != _masked(own):
                yield f"{place} is {own!r} instead of {recorded!r}"
        elif recorded != own and not (_is_time(recorded) and _is_time(own)):
            yield f"{place} is {own!r} instead of {recorded!r}"

    def _own(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._own(name): self._own(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._own(one) for one in value]
        if not isinstance(value, str):
            return value
        return self._known.get(value.lower()) or _ASSIGNED.sub(
            lambda found: self._known.get(found[0].lower(), found[0]), value
        )


def _is_time(value: Any) -> bool:
    """Whether it is a time in seconds since 1970."""
    return isinstance(value, int) and value >= 10**9


def _masked(text: str) -> str:
    return _MOMENT.sub("<moment>", _ASSIGNED.sub("<assigned>", text)).lower()
