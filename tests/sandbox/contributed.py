# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recordings of the experiments with Azure (docs/developers/live.md), and their comparison with the sandbox.

The folder `contributed` has the recordings, and RESULT.json with the measured positions of the switches. The first
recording of a resource group begins with an empty one. The requests are sent to a sandbox in their order, with its
clock: values that only Azure can assign are replaced by those of the sandbox as soon as a response has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from live.cleaning import TAGS
from live.recording import Ground
from sandbox_client import MANAGEMENT, VAULT_SCOPE, Sandbox

from azure_sandbox.redaction import HIDDEN

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


def in_order(folder: Path = FOLDER) -> dict[str, list[Path]]:
    """The recordings, by the resource group that they have in common, in the order in which they were made."""
    found: dict[str, list[Path]] = {}
    for recording in sorted(folder.glob("live-*.json"), key=lambda one: interactions(one)[0]["began"]):
        found.setdefault(_group(recording), []).append(recording)
    return found


def _group(recording: Path) -> str:
    """The path of the resource group of a recording."""
    paths = (urlsplit(one["url"]).path.split("/") for one in interactions(recording))
    return next("/".join(path[:5]) for path in paths if len(path) > 4 and path[3].lower() == "resourcegroups")


class Replay:
    """Sends the requests of recordings that have a resource group in common, one recording after the other."""

    def __init__(self, sandbox: Sandbox, group: str) -> None:
        self._sandbox = sandbox
        _, _, subscription, _, name = group.split("/")
        self._ground = Ground(sandbox.subscription_id, "")
        self._ground.group = name
        # By the value in a recording, the value in the sandbox.
        self._known = {subscription.lower(): sandbox.subscription_id}
        principals = sandbox.control.call("GET", "/principals")["principals"]
        self._operator = next(one["object_id"] for one in principals if one["name"] == "operator")
        path, body = f"{sandbox.subscription}/resourceGroups/{name}", {"location": "westeurope", "tags": TAGS}
        self._ground.has(f"{MANAGEMENT}{path}", json.dumps(body).encode())
        assert sandbox.arm("PUT", path, "2022-09-01", body).ok
        self._before: datetime | None = None

    def differences(self, recording: Path) -> Iterator[str]:
        """What the sandbox does differently, a line for each difference."""
        ended: set[str] = set()
        for number, one in enumerate(interactions(recording)):
            if "principal" in one:
                self._known |= {one["tenant"]: self._sandbox.tenant_id, one["principal"]: self._operator}
            began = datetime.fromisoformat(one["began"].replace("Z", "+00:00"))
            if self._before is not None:
                self._sandbox.control.advance(max(0.0, (began - self._before).total_seconds()))
            self._before = began
            if one["url"] in ended:
                # Azure needed more polls than the sandbox.
                continue
            yield from (f"#{number} {one['method']}: {line}" for line in self._compared(one, ended))

    def _compared(self, one: dict[str, Any], ended: set[str]) -> Iterator[str]:
        host = urlsplit(one["url"]).hostname or ""
        session = self._sandbox.bearer(VAULT_SCOPE) if host.endswith(".vault.azure.net") else self._sandbox.bearer()
        url, body = self._own(one["url"]), self._own(one.get("body"))
        response = session.request(one["method"], url, json=body, timeout=30)
        self._ground.has(url, json.dumps(body).encode())
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
            yield from self._value("body", one["answer"], self._ground.own(response.json()))

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
            for number, (first, second) in enumerate(zip(recorded, self._ordered(own, recorded), strict=False)):
                yield from self._value(f"{place}[{number}]", first, second)
        elif isinstance(recorded, str) and isinstance(own, str):
            pairs = zip(_ASSIGNED.findall(recorded), _ASSIGNED.findall(own), strict=False)
            self._known |= {first.lower(): second for first, second in pairs}
            if not _agrees(recorded, own):
                yield f"{place} is {own!r} instead of {recorded!r}"
        elif recorded != own and not (_is_time(recorded) and _is_time(own)):
            yield f"{place} is {own!r} instead of {recorded!r}"

    def _ordered(self, items: list[Any], recorded: list[Any]) -> list[Any]:
        """The items in the order of the recorded ones with the same ids: Key Vault sorts versions by random ids."""
        order = {self._own(_id(one)).lower(): number for number, one in enumerate(recorded) if _id(one)}
        return sorted(items, key=lambda one: order.get(_id(one).lower(), 0))

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


def _id(item: Any) -> str:
    """The id of an item of a list; empty if it has none."""
    return str(item.get("kid") or item.get("id") or "") if isinstance(item, dict) else ""


def _is_time(value: Any) -> bool:
    """Whether it is a time in seconds since 1970."""
    return isinstance(value, int) and value >= 10**9


def _agrees(recorded: str, own: str) -> bool:
    """Whether two texts are equal except for what differs in each run, and what the recorder has hidden."""
    known = map(re.escape, _masked(recorded).split(HIDDEN))
    return re.fullmatch(".*".join(known), _masked(own), re.DOTALL) is not None


def _masked(text: str) -> str:
    return _MOMENT.sub("<moment>", _ASSIGNED.sub("<assigned>", text)).lower()
