# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A task reports a change only if a later read shows the change, and rolls back a switch that fails."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from harness import Ansible, Task, advance, control_task, fails, short, task, writes
from meddling import REALISTIC
from one_process import OneProcess
from operators import RBAC_VAULT, USER_ASSIGNED, Run, World
from sandbox_client import Control
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


def test_a_rollback_is_preflighted(ansible: Ansible, service: Service) -> None:
    """Also in a rollback: no rollback to a key that was disabled meanwhile."""
    service.on_key()
    second = service.make_key("other").id
    service.sandbox.control.fault(match={"path": f"{ACCOUNT}/pools"}, times=None, answer=REFUSAL)

    def disable_once_switched() -> None:
        if service.encryption() == second:
            service.disable()
            stop.set()

    with repeatedly(disable_once_switched) as stop:
        run = ansible.play([fails(to_key("switch", second, wait_timeout=4, previous_key="any"))], way="in_process")
    one = run["switch"]
    assert one["code"] == "account_unavailable"
    assert one["restored"] is False
    assert one["restore_failure"]["code"] == "preflight_failed"
    assert one["restore_failure"]["failed_checks"] == ["key_enabled"]
    assert patches(one) == [f"{second} 200"]
    assert service.encryption() == second


@contextlib.contextmanager
def repeatedly(act: Any) -> Iterator[threading.Event]:
    """Call `act` in the background until the event is set or the block ends."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            act()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()


def test_a_grant_that_has_not_taken_effect(ansible: Ansible, service: Service, way: str) -> None:
    """The checks before a switch find a new role assignment that has not taken effect in Batch yet. The task waits."""
    service.make_vault(rbac=True)
    principal = service.make_account()["identity"]["principalId"]
    identifier = service.make_key().id
    control: Control = service.sandbox.control
    control.timing(role_propagation=300, batch_recovery=600)

    def propagate_once_refused() -> None:
        if any(r["method"] == "PATCH" and r["status"] == 400 for r in control.requests()):
            control.advance(301)
            stop.set()

    with repeatedly(propagate_once_refused) as stop:
        run = ansible.play(
            [
                task("grant", "keyvault_cmk_access", vault_name="vault-one", principal_id=principal),
                to_key("switch", identifier, wait_timeout=120),
            ],
            way=way,
        )
    sent = patches(run["switch"])
    assert len(sent) >= 2
    assert sent[-1] == f"{identifier} 200"
    assert set(sent[:-1]) == {f"{identifier} 400"}
    assert run["switch"]["changed"] is True
    assert service.encryption() == identifier
    assert service.is_available()


@pytest.mark.parametrize("vault", ["vault-one", RBAC_VAULT])
def test_a_grant_that_has_not_taken_effect_for_a_new_account(runner: OneProcess, service: Service, vault: str) -> None:
    world = World(service, runner)
    service.sandbox.control.timing(**REALISTIC)
    report = world.prepared(Run("provision", USER_ASSIGNED, (vault, "key1")))()
    assert not report.get("failed"), report
    assert (report["changed_steps"]["account"], report["changed_steps"]["encryption"]) == (True, False)
    assert service.encryption(USER_ASSIGNED) == report["key_identifier"]
    assert service.is_available(USER_ASSIGNED)


def test_recovery_is_waited_for(ansible: Ansible, service: Service, way: str) -> None:
    """After the key is restored, Batch needs ten minutes. Until then, tasks refuse to change the account."""
    _principal, identifier = service.on_key()
    other = service.make_key("other").id
    service.sandbox.control.timing(batch_recovery=600)
    service.disable()
    info = task("lost", "batch_encryption_info", resource_group=GROUP, account_name="account1")
    run = ansible.play(
        [
            info,
            fails(to_key("same key, disabled", identifier)),
            task("enabled", "keyvault_cmk_key", vault_name="vault-one", name="key1", allowed_repairs=["key"]),
            fails(to_key("same key", identifier)),
            fails(to_key("other key", other, previous_key="any")),
            fails(to_key("Microsoft's", None)),
            advance("ten minutes later", service.sandbox, 601),
            # Must not use the values that previous tasks cached ten minutes ago.
            task("found", "batch_encryption_diagnosis", resource_group=GROUP, account_name="account1"),
            to_key("same key again", identifier),
        ],
        way=way,
    )
    assert run["lost"]["available"] is False
    for one in run.failed:
        one.refused("account_unavailable", by_azure=True)
        assert one["key_identifier"] == identifier
        assert identifier in one["msg"]
        assert one["remedy"]
    assert run["enabled"]["enabled"] is True
    assert run["found"]["available"] is True
    assert run["same key again"].untouched()["changed"] is False
    assert service.is_available()


@pytest.mark.slow
def test_a_lost_response(ansible: Ansible, service: Service, way: str) -> None:
    """Azure makes the change and the response is lost: the task fails. The account can use the new key, so it stays."""
    service.on_key()
    wanted = service.make_key().id
    run = ansible.play(
        [
            order(service, "lost", match={"method": "PATCH", "path": ACCOUNT}, drop="after"),
            fails(to_key("switch", wanted)),
            to_key("once more", wanted),
        ],
        way=way,
    )
    one = run["switch"]
    assert one["code"] == "unreachable"
    assert one["changed"] is False
    assert one["restored"] is False
    assert "The change took effect, and stays." in one["msg"]
    assert one["current_state"]["key_identifier"] == wanted
    assert patches(one) == [f"{wanted} None"]
    assert run["once more"]["changed"] is False
    assert service.encryption() == wanted


@pytest.mark.slow
def test_writes_without_effect(ansible: Ansible, service: Service, way: str) -> None:
    """The other modules, if Azure returns success but does not make the change."""
    vault = service.make_vault(properties={"enablePurgeProtection": None})
    service.make_vault("by-roles", rbac=True)
    account = service.make_account(identity={"type": "None"})
    key = service.make_key()
    principal = service.make_identity()["properties"]["principalId"]
    shown = {
        "key": {"kid": key.id, "kty": "RSA", "key_ops": ["wrapKey", "unwrapKey"], "n": "AQAB" * 80, "e": "AQAB"},
        "attributes": {"enabled": True, "created": 1, "updated": 1, "recoveryLevel": "Recoverable"},
    }
    policies = {"properties": {"accessPolicies": []}}
    assignment = {"id": "/x", "name": "x", "type": "x", "properties": {"roleDefinitionId": "/x", "principalId": "x"}}
    control = service.sandbox.control

    def without_effect(method: str, path: str, body: Any, status: int = 200) -> None:
        control.fault(match={"method": method, "path": path}, times=None, answer={"status": status, "body": body})

    without_effect("PATCH", ACCOUNT, account)
    without_effect("PATCH", "/vaults/vault-one[?]", vault)
    without_effect("PUT", "/accessPolicies/add", policies)
    without_effect("PUT", "/roleAssignments/", assignment, 201)
    without_effect("POST", "/keys/key1/create", shown)
    without_effect("PATCH", "/keys/key1/", shown)
    soon = {"wait_timeout": 1}
    on_vault = {"vault_name": "vault-one", "name": "key1", **soon}
    on_account = {"resource_group": GROUP, "name": "account1", **soon}
    run = ansible.play(
        [
            fails(task("identity", "batch_account_identity", **on_account, allowed_repairs=["identity"])),
            fails(task("vault", "keyvault_cmk_vault", resource_group=GROUP, name="vault-one", **soon)),
            fails(task("policy", "keyvault_cmk_access", vault_name="vault-one", principal_id=principal, **soon)),
            fails(task("role", "keyvault_cmk_access", vault_name="by-roles", principal_id=principal, **soon)),
            fails(task("version", "keyvault_cmk_key", **on_vault, new_version=True)),
            fails(task("disabled", "keyvault_cmk_key_state", **on_vault, state="disabled")),
        ],
        way=way,
    )
    for one in run:
        assert one["code"] == "not_confirmed", one
        assert one["changed"] is False
        assert one["missing"]["before"] != one["missing"]["after"]
        assert len(one["applied"]) == len(one.writes) == 1
    assert run["version"]["missing"]["before"]["version"] == key.properties.version
    assert service.versions()[0].enabled


@pytest.mark.slow
def test_busy(ansible: Ansible, service: Service) -> None:
    """A task retries if Azure is busy, and fails if Azure stays unavailable."""
    service.make_vault()
    busy = {"status": 429, "headers": {"Retry-After": "1"}, "body": {"error": {"code": "TooManyRequests"}}}
    broken = {"status": 503, "body": {"error": {"code": "ServiceUnavailable", "message": "Not now."}}}
    vaults = {"match": {"host": "vault-one.vault.azure.net", "path": "/keys/"}}
    run = ansible.play(
        [
            order(service, "busy", **vaults, times=1, answer=busy),
            order(service, "busy accounts", match={"path": "/batchAccounts"}, times=1, answer=busy),
            task("key", "keyvault_cmk_key", vault_name="vault-one", name="key1"),
            task("account", "batch_account_identity", resource_group=GROUP, name="account1"),
            order(service, "broken", match={"path": ACCOUNT}, times=None, answer=broken),
            fails(to_key("given up", None)),
        ],
        way="in_process",
    )
    assert run["key"]["changed"] is run["account"]["changed"] is True
    assert len(run["account"].writes) == 1
    one = run["given up"].refused("service_unavailable")
    assert "Not now." in one["msg"]


def test_a_slow_creation(ansible: Ansible, service: Service) -> None:
    """A creation that does not end within `wait_timeout` is an error. A rerun succeeds."""
    service.sandbox.control.timing(batch_create=1000)
    account = task("account", "batch_account_identity", resource_group=GROUP, name="account1", wait_timeout=2)
    began = time.monotonic()
    run = ansible.play(
        [
            fails({**account, "name": "too slow"}),
            advance("later", service.sandbox, 1001),
            account,
        ],
        way="in_process",
    )
    assert run["too slow"]["code"] == "timed_out"
    assert run["too slow"]["option"] == "wait_timeout"
    assert time.monotonic() - began < 60
    assert run["account"].untouched()["changed"] is False
    assert service.accounts() == ["account1"]
