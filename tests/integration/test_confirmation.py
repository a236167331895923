# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A task reports a change only if a later read shows the change, and rolls back a switch that fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from harness import Ansible, Task, control_task, fails, short, task, writes
from one_process import OneProcess
from service import GROUP, Service

ACCOUNT = "/batchAccounts/account1"
REFUSAL = {
    "status": 400,
    "body": {"error": {"code": "InvalidAccountState", "message": "The key could not be accessed, says the test."}},
}


def to_key(title: str, identifier: str | None, **options: Any) -> dict[str, Any]:
    requested: dict[str, Any] = {"key_source": "microsoft_batch"}
    if identifier:
        requested = {"key_source": "microsoft_keyvault", "key_identifier": identifier}
    return task(title, "batch_encryption", resource_group=GROUP, account_name="account1", **requested, **options)


def order(service: Service, title: str, **fault: Any) -> dict[str, Any]:
    """A task that injects a fault."""
    return control_task(title, service.sandbox, "POST", "/faults", fault)


def no_faults(service: Service, title: str) -> dict[str, Any]:
    return control_task(title, service.sandbox, "DELETE", "/faults")


def patches(one: Task) -> list[str]:
    return changes_of_key(one.writes)


def changes_of_key(written: Sequence[dict[str, Any]]) -> list[str]:
    """The changes of the account in order: the key's identifier or the other key source, and the status."""
    sent = []
    for request in written:
        if ACCOUNT not in request["url"]:
            continue
        assert request["method"] == "PATCH", short(written)
        encryption = request["body"]["properties"]["encryption"]
        key = encryption.get("keyVaultProperties", {}).get("keyIdentifier", encryption["keySource"])
        sent.append(f"{key} {request['status']}")
    return sent


SWITCHES = pytest.mark.parametrize(
    ("way", "switch"),
    [("in_process", "from a key"), ("in_process", "from Microsoft's"), ("module", "from a key")],
    indirect=True,
)


@pytest.fixture
def switch(request: pytest.FixtureRequest, service: Service) -> tuple[str | None, str]:
    """The key of account1 before the switch and after it."""
    _principal, first = service.on_key()
    second = service.make_key().id
    if request.param == "from a key":
        return first, second
    service.point(None)
    return None, second


@pytest.mark.parametrize("switch", ["from a key", "from Microsoft's"], indirect=True)
@pytest.mark.parametrize("wait_timeout", [2, 600])
def test_a_switch_without_effect(
    runner: OneProcess, service: Service, wait_timeout: int, switch: tuple[str | None, str]
) -> None:
    """Azure returns 200 and the previous account, and has not changed the account."""
    first, wanted = switch
    since = service.sandbox.control.last
    service.sandbox.control.fault(
        match={"method": "PATCH", "path": ACCOUNT}, times=None, answer={"status": 200, "body": service.account()}
    )
    requested = {"resource_group": GROUP, "account_name": "account1", "key_source": "microsoft_keyvault"}
    one = runner.module("batch_encryption", {**requested, "key_identifier": wanted, "wait_timeout": wait_timeout})
    assert one["code"] == "not_confirmed"
    assert one["changed"] is False
    assert one["missing"]["before"]["key_identifier"] == first
    assert one["missing"]["after"]["key_identifier"] == wanted
    assert one["applied"] == ["set_encryption"]
    assert one["restored"] is True
    assert one["current_state"]["key_identifier"] == first
    # Azure accepted the change, so the rollback does not trust the read that shows the previous key.
    sent = changes_of_key(writes(service.sandbox.control.requests(since)))
    assert sent == [f"{wanted} 200", f"{first or 'Microsoft.Batch'} 200"]
    assert service.encryption() == first
    assert service.is_available()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.slow(every=2)
def test_a_switch_that_shows_late(ansible: Ansible, service: Service, way: str, times: int) -> None:
    """Azure is eventually consistent: the first reads after the change return the previous state, although the response
    to the change returns the new state. The task is not known to set the newest version, so it reads the account."""
    _principal, first = service.on_key()
    wanted = service.make_key().id
    stale = {"status": 200, "body": service.account()}
    reads = {"method": "GET", "path": f"{ACCOUNT}[?]"}
    run = ansible.play(
        [
            # The first read is the one before the change.
            order(service, "stale", match=reads, skip=1, times=times, answer=stale),
            to_key("switch", wanted, wait_timeout=60),
            no_faults(service, "end of the faults"),
        ],
        way=way,
    )
    one = run["switch"]
    assert one["changed"] is True
    assert one["key_identifier"] == wanted
    assert patches(one) == [f"{wanted} 200"]
    assert first != wanted == service.encryption()


def test_refusals(ansible: Ansible, service: Service, way: str) -> None:
    """A refusal that may be temporary is retried until `wait_timeout`. A refusal that is final is not retried."""
    _principal, first = service.on_key()
    wanted = service.make_key().id
    match = {"method": "PATCH", "path": ACCOUNT}
    senseless = {"status": 400, "body": {"error": {"code": "InvalidPropertyValue", "message": "No."}}}
    run = ansible.play(
        [
            order(service, "for ever", match=match, times=None, answer=REFUSAL),
            fails(to_key("refused", wanted, wait_timeout=2)),
            fails(to_key("refused at once", wanted, wait_timeout=0)),
            no_faults(service, "end of the faults"),
            order(service, "for good", match=match, times=None, answer=senseless),
            fails(to_key("senseless", wanted, wait_timeout=60)),
            no_faults(service, "end of the faults again"),
            order(service, "twice", match=match, times=2, answer=REFUSAL),
            to_key("taken", wanted, wait_timeout=60),
        ],
        way=way,
    )
    for name in ("refused", "refused at once", "senseless"):
        one = run[name]
        assert one["code"] == "rejected_by_service"
        assert one["azure"]["status"] == 400
        assert one["azure"]["message"] in one["msg"]
        assert one["changed"] is False
        assert one["restored"] is True
        assert one["current_state"]["key_identifier"] == first
        assert one["applied"] == []
    # Sent after 0, 1 and 2 s. On a busy machine, a request may take as long as a pause.
    assert 1 < len(patches(run["refused"])) < 5
    assert set(patches(run["refused"])) == {f"{wanted} 400"}
    assert patches(run["refused at once"]) == patches(run["senseless"]) == [f"{wanted} 400"]
    assert patches(run["taken"]) == [f"{wanted} 400", f"{wanted} 400", f"{wanted} 200"]
    assert run["taken"]["changed"] is True
    assert service.encryption() == wanted
    if way == "in_process":
        # The reason of the wait is shown.
        assert "Waiting for Batch to accept the new encryption setting of the Batch account account1 (" in run.output
        assert "says the test" in run.output


@SWITCHES
@pytest.mark.slow(every=3)
def test_an_account_that_is_unavailable_after_the_switch(
    ansible: Ansible, service: Service, way: str, switch: tuple[str | None, str]
) -> None:
    """If Batch accepts the key but the account stays unavailable, its previous setting is restored."""
    first, wanted = switch
    # The first list of pools is the one before the change.
    unavailable = {"match": {"method": "GET", "path": f"{ACCOUNT}/pools"}, "answer": REFUSAL}
    run = ansible.play(
        [
            order(service, "unavailable for a long time", **unavailable, times=4),
            fails(to_key("put back", wanted, wait_timeout=2)),
            no_faults(service, "end of the faults"),
            order(service, "unavailable for a short time", **unavailable, times=1),
            to_key("taken", wanted, wait_timeout=60),
        ],
        way=way,
    )
    one = run["put back"]
    assert one["code"] == "account_unavailable"
    assert "says the test" in one["msg"]
    assert one["changed"] is False
    assert one["restored"] is True, one
    assert one["current_state"]["key_identifier"] == first
    assert patches(one) == [f"{wanted} 200", f"{first or 'Microsoft.Batch'} 200"]
    assert run["taken"]["changed"] is True
    assert patches(run["taken"]) == [f"{wanted} 200"]
    assert service.encryption() == wanted


def test_a_rollback_that_fails(ansible: Ansible, service: Service, way: str) -> None:
    """The account is unavailable and the rollback fails: the error reports both and the current state."""
    _principal, first = service.on_key()
    second = service.make_key().id
    control = service.sandbox.control
    control.fault(match={"path": f"{ACCOUNT}/pools"}, times=None, answer=REFUSAL)
    control.fault(match={"method": "PATCH", "path": ACCOUNT}, skip=1, times=None, answer=REFUSAL)
    run = ansible.play([fails(to_key("switch", second, wait_timeout=1))], way=way)
    one = run["switch"]
    assert one["code"] == "account_unavailable"
    assert one["restored"] is False
    assert one["restore_failure"]["code"] == "rejected_by_service"
    assert one["restore_failure"]["msg"]
    assert patches(one)[0] == f"{second} 200"
    assert set(patches(one)[1:]) == {f"{first} 400"}
    assert service.encryption() == second
