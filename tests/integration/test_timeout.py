# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A task with `timeout` ends when its time is over, even if a request is pending."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from azure.keyvault.keys._shared import http_challenge_cache
from harness import Ansible, fails, task
from sandbox_client import Control, Sandbox, started
from service import GROUP, Service

# Seconds that a request hangs.
HANGS = 120


@pytest.fixture
def running_sandbox() -> Iterator[Sandbox]:
    """A separate sandbox, because a request that hangs here would end during another test."""
    http_challenge_cache.clear()
    sandbox = started()
    yield sandbox
    # A clean stop would wait for the pending request.
    sandbox.process.kill()
    sandbox.process.wait(30)
    http_challenge_cache.clear()


@pytest.mark.parametrize(
    "hanging",
    [{"path": "/vaults/vault-one"}, {"host": "login"}],
    ids=["beside others", "signing in"],
)
@pytest.mark.slow(every=3)
def test_a_timeout_does_not_wait_for_requests(
    ansible: Ansible, service: Service, control: Control, way: str, hanging: dict[str, str]
) -> None:
    """The pending request is one of several concurrent requests, or the sign-in."""
    _principal, identifier = service.on_key()
    control.call("POST", "/faults", {"match": hanging, "delay": HANGS, "times": None})
    account = {"resource_group": GROUP, "account_name": "account1"}
    switch = task("switch", "batch_encryption", **account, key_source="microsoft_keyvault", key_identifier=identifier)
    began = time.monotonic()
    ansible.play([fails({**switch, "timeout": 3})], way=way)
    # Python and Ansible need a few seconds to start on a busy machine.
    assert time.monotonic() - began < HANGS / 2


@pytest.mark.slow(every=2)
def test_a_timeout_while_several_things_are_read_at_once(
    ansible: Ansible, service: Service, control: Control, way: str
) -> None:
    service.on_key()
    control.call("POST", "/faults", {"match": {"host": "vault-one"}, "delay": HANGS, "times": None})
    audit = task("audit", "batch_encryption_audit")
    began = time.monotonic()
    ansible.play([fails({**audit, "timeout": 3})], way=way)
    assert time.monotonic() - began < HANGS / 2
