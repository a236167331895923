# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Concurrent runs in an order that the test decides: the same choices send the same requests."""

from __future__ import annotations

import random
import re
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest
from meddling import Wire
from one_process import OneProcess
from role_runs import QUARTER, VARS
from service import Service, reset

GUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}")


def sent(runner: OneProcess, wire: Wire, service: Service, seed: int) -> list[tuple[str, str, str]]:
    """The run, the method and the URL of each request of two rotations and a switch at the same time."""
    reset(service.sandbox.control)
    runner.forget()
    service.on_key()
    for name in ("account2", "account3"):
        service.make_account(name)
        service.grant(service.account(name)["identity"]["principalId"])
        service.point(service.key().id, name)
    service.make_key("key2")
    service.sandbox.control.advance(QUARTER)
    other = {"cmk_new_key_identifier": service.key("key2").id.rpartition("/")[0]}
    requests: list[tuple[str, str, str]] = []

    def noted(run: str, request: Any) -> None:
        requests.append((run, request.method, GUID.sub("ID", request.url)))

    chances = random.Random(seed)
    runs = {
        "one": partial(runner.role, "rotate", {**VARS, "cmk_key_new_version": True}),
        "two": partial(runner.role, "rotate", {**VARS, "cmk_account_name": "account2", "cmk_key_new_version": True}),
        "three": partial(runner.another().role, "switch", {**VARS, "cmk_account_name": "account3", **other}),
    }
    wire.scheduled(lambda names, _last: chances.choice(names), runs, noted)
    return requests


def test_the_same_choices_send_the_same_requests(runner: OneProcess, wire: Wire, service: Service) -> None:
    first, second, other = (sent(runner, wire, service, seed) for seed in (1, 1, 2))

    assert {run for run, _method, _url in first} == {"one", "two", "three"}
    assert first == second
    assert first != other


def test_an_error_of_a_run_is_raised_after_the_other_runs(wire: Wire) -> None:
    ended = []

    def fails() -> None:
        raise ValueError("it fails")

    with pytest.raises(ValueError, match="it fails"):
        wire.scheduled(lambda names, _last: names[0], {"one": fails, "two": lambda: ended.append("two")})
    assert ended == ["two"]


def test_a_run_that_waits_for_ever_is_reported(wire: Wire) -> None:
    with pytest.raises(AssertionError, match="deadlock of \\['one'\\]"):
        wire.scheduled(lambda names, _last: names[0], {"one": lambda: Future().result(), "two": lambda: None})
