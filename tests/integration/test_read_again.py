# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other users change keys and accounts while a task moves an account to a key. The task decides by what it reads since
its own change, even if it has read the same data a moment before."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.pipeline.transport import RequestsTransport
from one_process import OneProcess
from service import GROUP, Service

# Sets what others do at a certain time.
Set = Callable[[Callable[[], object]], None]


def to_key(identifier: str, **options: Any) -> dict[str, Any]:
    where = {"resource_group": GROUP, "account_name": "account1"}
    return {**where, "key_source": "microsoft_keyvault", "key_identifier": identifier, **options}


def version_of(identifier: str) -> str:
    return identifier.rpartition("/")[2]


@pytest.fixture
def after_switch(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Others act after Batch has accepted the switch, and before the task sends another request."""

    def set_(act: Callable[[], object]) -> None:
        send = RequestsTransport.send

        def acting(transport: Any, request: Any, **options: Any) -> Any:
            response = send(transport, request, **options)
            if request.method == "PATCH" and "/batchAccounts/" in request.url and response.status_code == 200:
                monkeypatch.setattr(RequestsTransport, "send", send)
                act()
            return response

        monkeypatch.setattr(RequestsTransport, "send", acting)

    return set_


@pytest.fixture
def in_pause(monkeypatch: pytest.MonkeyPatch, runner: OneProcess) -> Set:
    """Others act during the next pause of the task, before it tries the same again."""
    pause = time.sleep

    def set_(act: Callable[[], object]) -> None:
        def acting(seconds: float) -> None:
            # The rate limit often pauses for 0 seconds.
            if seconds:
                monkeypatch.setattr(time, "sleep", pause)
                act()
            pause(seconds)

        monkeypatch.setattr(time, "sleep", acting)

    return set_


def refuse_once(service: Service) -> None:
    """Let Batch refuse the next change of the account."""
    error = {"code": "InvalidAccountState", "message": "Not now, says the test."}
    match = {"method": "PATCH", "path": "/batchAccounts/account1"}
    service.sandbox.control.fault(match=match, times=1, answer={"status": 400, "body": {"error": error}})


@pytest.mark.parametrize("is_pinned", [True, False], ids=["pinned", "follows"])
def test_a_key_is_disabled_just_after_the_switch(
    runner: OneProcess, service: Service, after_switch: Set, is_pinned: bool
) -> None:
    """The task has read the key just before the switch. Batch notices an hour later that the key is disabled."""
    _principal, first = service.on_key()
    wanted = str(service.make_key("key2").id)
    service.sandbox.control.behavior(key_loss_noticed="3600")
    after_switch(lambda: service.disable("key2"))

    identifier = wanted if is_pinned else wanted.rpartition("/")[0]
    report = runner.module("batch_encryption", to_key(identifier, previous_key="any"))

    assert (report.get("code"), report.get("failed_checks")) == ("preflight_failed", ["key_enabled"]), report
    assert report["restored"] is True
    assert service.encryption() == first
    assert service.is_safe()


@pytest.mark.parametrize("lost", ["the new version", "the version before"])
def test_a_version_is_disabled_just_after_the_second_switch(
    runner: OneProcess, service: Service, after_switch: Set, in_pause: Set, lost: str
) -> None:
    """Batch refuses the first switch, and somebody moves the account to another version of the key. Therefore the task
    lists the versions before its second switch."""
    service.on_key()
    before, wanted = str(service.make_key().id), str(service.make_key().id)
    service.sandbox.control.behavior(key_loss_noticed="3600")
    refuse_once(service)
    in_pause(lambda: service.point(before))
    is_new = lost == "the new version"
    after_switch(lambda: service.disable(version=version_of(wanted if is_new else before)))

    report = runner.module("batch_encryption", to_key(wanted))

    if is_new:
        assert (report.get("code"), report.get("failed_checks")) == ("preflight_failed", ["key_enabled"]), report
        assert service.encryption() == before
        assert service.is_safe()
    else:
        assert (report["changed"], report["available"]) == (True, None), report
        assert any(version_of(before) in warning for warning in report["warnings"])


@pytest.mark.parametrize("is_on_key", [True, False], ids=["from a key", "from Microsoft's"])
def test_somebody_moves_the_account_after_batch_has_refused_the_switch(
    runner: OneProcess, service: Service, in_pause: Set, is_on_key: bool
) -> None:
    """The task has read the account since the refusal, to find out whether the account is available."""
    service.on_key()
    wanted, theirs = str(service.make_key("key2").id), str(service.make_key("key3").id)
    allowed: dict[str, Any] = {}
    if is_on_key:
        allowed = {"previous_key": "vault-one/key1"}
    else:
        service.point(None)
    refuse_once(service)
    in_pause(lambda: service.point(theirs))

    report = runner.module("batch_encryption", to_key(wanted, **allowed))

    assert report.get("code") == "account_on_another_key", report
    assert service.encryption() == theirs
    assert service.is_available()
