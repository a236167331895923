# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A creation does not replace a resource that another user has created, even if a read does not show the resource. If
Azure would refuse the creation, the run fails before its first write request."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from harness import Ansible, short, writes
from meddling import REALISTIC, SETTLED, Wire
from moments import (
    checks_name_of_account,
    checks_name_of_vault,
    creates_account,
    creates_vault,
    moves_account,
    reads_account,
)
from one_process import OneProcess
from role_runs import VARS, holdings
from sandbox_client import Control
from service import GROUP, LOCATION, OFFICER, Service

from ansible_collections.azbatch.cmk.plugins.module_utils._core.interrupts import Interrupted

# Regular expressions for faults. A path includes its query.
VAULT = r"/vaults/vault-one\?"
ACCOUNT = r"/batchAccounts/account1\?"
BUSY = {"status": 429, "headers": {"Retry-After": "60"}, "body": {"error": {"code": "TooManyRequests", "message": "."}}}
MISSING = {"status": 404, "body": {"error": {"code": "ResourceNotFound", "message": "Not found, says the test."}}}


def variables(account: str = "account1", **more: Any) -> dict[str, Any]:
    return {
        "cmk_resource_group": GROUP,
        "cmk_location": LOCATION,
        "cmk_account_name": account,
        "cmk_vault_name": "vault-one",
        "cmk_vault_authorization": "access_policy",
        "cmk_key_name": "key1",
        "cmk_wait_timeout": 900,
        **more,
    }


def succeeded(report: dict[str, Any]) -> dict[str, Any]:
    assert not report.get("failed"), report
    return report


def is_of_vault(url: str) -> bool:
    return url.partition("?")[0].endswith("/vaults/vault-one")


def policies(service: Service) -> dict[str, list[str]]:
    entries = service.vault()["properties"]["accessPolicies"]
    return {one["objectId"]: sorted(one["permissions"]["keys"]) for one in entries}


# Two controllers, one vault


def both(
    runner: OneProcess,
    wire: Wire,
    service: Service,
    at: Callable[[Any], bool],
    first: dict[str, Any],
    second: dict[str, Any],
) -> dict[str, Any]:
    """Run the second run, which sets tags, between two requests of the first run. Returns the report of the first."""

    def meanwhile() -> None:
        succeeded(runner.another().role("provision", second))
        service.change_vault(tags={"owner": "second"})
        assert service.is_available("account2")

    with wire.meddled(at, meanwhile):
        report = runner.role("provision", first)
    assert service.is_available("account2"), report
    return succeeded(report)


@pytest.mark.parametrize("mode", ["access_policy", "rbac"])
@pytest.mark.slow(every=2)
def test_a_vault_created_concurrently_is_not_replaced(
    runner: OneProcess, wire: Wire, service: Service, mode: str
) -> None:
    wanted = {"cmk_vault_authorization": mode}
    report = both(runner, wire, service, checks_name_of_vault, variables(**wanted), variables("account2", **wanted))

    assert report["changed_steps"]["vault"] is False
    assert service.is_available("account1")
    assert service.vault()["tags"] == {"owner": "second"}
    puts = [one for one in service.sandbox.control.requests(writes=True) if is_of_vault(one["url"])]
    assert [one["method"] for one in puts].count("PUT") == 1, short(puts)


@pytest.mark.parametrize("second", ["access_policy", "rbac"])
@pytest.mark.parametrize("first", ["access_policy", "rbac"])
def test_access_is_restored_after_a_vault_is_replaced(
    runner: OneProcess, wire: Wire, service: Service, first: str, second: str
) -> None:
    """The first run's PUT is slow, and arrives after the second run has ended."""
    own = variables(cmk_vault_authorization=first)
    both(runner, wire, service, creates_vault(), own, variables("account2", cmk_vault_authorization=second))

    assert service.is_available("account1")
    assert service.vault()["properties"]["enableRbacAuthorization"] == (first == "rbac")
    if first == "access_policy":
        principal = service.account("account2")["identity"]["principalId"]
        assert policies(service)[principal] == ["get", "unwrapKey", "wrapKey"]


def test_access_is_restored_although_the_response_to_the_replacement_is_lost(
    runner: OneProcess, wire: Wire, service: Service
) -> None:
    """The first try replaces the vault, and Azure refuses the second try."""

    def meanwhile() -> None:
        succeeded(runner.another().role("provision", variables("account2")))
        put = {"method": "PUT", "path": VAULT}
        service.sandbox.control.fault(match=put, times=1, answer={"status": 503}, handled=True)
        service.sandbox.control.fault(match=put, skip=1, times=1, answer=REFUSED)

    module = {"resource_group": GROUP, "name": "vault-one", "authorization": "access_policy"}
    with wire.meddled(creates_vault(), meanwhile):
        report = succeeded(runner.module("keyvault_cmk_vault", module))

    assert service.account_id("account2") in report["warnings"][0]
    assert service.is_available("account2")


def test_a_caller_who_cannot_list_accounts_is_warned_of_a_replacement(runner: OneProcess, service: Service) -> None:
    """The response to the PUT is lost, so the vault may be that of another user."""
    sandbox = service.sandbox
    who = sandbox.control.principal("of the group", roles=[{"role": "Owner", "scope": sandbox.group}])
    caller = replace(runner, connection={"client_id": who["client_id"], "secret": who["secret"]})
    sandbox.control.fault(match={"method": "PUT", "path": VAULT}, drop="after")
    sandbox.control.fault(match={"method": "PUT", "path": VAULT}, skip=1, answer=REFUSED)

    module = {"resource_group": GROUP, "name": "vault-one", "authorization": "access_policy"}
    report = succeeded(caller.module("keyvault_cmk_vault", module))

    [warning] = report["warnings"]
    assert "Somebody else may have created the key vault vault-one" in warning
    assert f"Not all Batch accounts of {sandbox.subscription} could be listed" in warning


def test_a_vault_that_somebody_creates_while_azure_lets_the_creation_wait(
    runner: OneProcess, wire: Wire, service: Service
) -> None:
    def meanwhile() -> None:
        service.make_vault(tags={"owner": "others"})
        service.sandbox.control.fault(match={"method": "PUT", "path": VAULT}, times=1, answer=BUSY)

    wanted = {"resource_group": GROUP, "name": "vault-one", "location": LOCATION, "wait_timeout": 300}
    with wire.meddled(creates_vault(), meanwhile):
        report = succeeded(runner.module("keyvault_cmk_vault", wanted))

    assert report["changed"] is False
    assert service.vault()["tags"] == {"owner": "others"}
    assert policies(service) == {service.operator: sorted(OFFICER)}


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["vault", "account"])
def test_a_resource_that_somebody_creates_between_two_requests_is_not_replaced(
    runner: OneProcess, wire: Wire, service: Service, kind: str, number: int
) -> None:
    """Only the request that creates the resource may be too late."""
    owner, sent = {"owner": "others"}, list[str]()

    def is_request(request: Any) -> bool:
        sent.append(f"{request.method} {request.url.partition('?')[0].rpartition('/')[2]}")
        return len(sent) == number

    def meanwhile() -> None:
        service.make_vault(tags=owner) if kind == "vault" else service.make_account(tags=owner)

    module, name = {"vault": ("keyvault_cmk_vault", "vault-one"), "account": ("batch_account_identity", "account1")}[
        kind
    ]
    with wire.meddled(is_request, meanwhile):
        runner.module(module, {"resource_group": GROUP, "name": name, "location": LOCATION, "wait_timeout": 300})

    if "PUT" not in " ".join(sent[:number]):
        found = service.vault() if kind == "vault" else service.account()
        assert found["tags"] == owner, sent


def test_no_account_is_looked_for_in_a_vault_that_the_run_has_created(runner: OneProcess, service: Service) -> None:
    succeeded(runner.module("keyvault_cmk_vault", {"resource_group": GROUP, "name": "vault-one"}))
    assert succeeded(runner.module("keyvault_cmk_key", {"vault_name": "vault-one", "name": "key1"}))["changed"]
    assert not [one["url"] for one in service.sandbox.control.requests() if "/batchAccounts" in one["url"]]


def test_a_key_that_the_run_has_deleted_in_a_vault_that_it_has_created(runner: OneProcess, service: Service) -> None:
    key = {"vault_name": "vault-one", "name": "key1"}
    succeeded(runner.module("keyvault_cmk_vault", {"resource_group": GROUP, "name": "vault-one"}))
    succeeded(runner.module("keyvault_cmk_key", key))
    succeeded(runner.module("keyvault_cmk_key_state", {**key, "state": "absent", "force": True}))

    assert runner.module("keyvault_cmk_key", key)["code"] == "key_soft_deleted"


@pytest.mark.parametrize(
    ("module", "options", "is_recovered"),
    [
        ("keyvault_cmk_key", {}, False),
        ("keyvault_cmk_key", {"allowed_repairs": ["key"]}, True),
        ("keyvault_cmk_key_state", {"state": "recovered"}, True),
    ],
    ids=["without recover", "with recover", "recovered"],
)
def test_a_key_that_another_tool_has_deleted_in_a_new_vault(
    runner: OneProcess, service: Service, module: str, options: dict[str, Any], is_recovered: bool
) -> None:
    created = {"resource_group": GROUP, "name": "vault-one", "authorization": "access_policy"}
    succeeded(runner.module("keyvault_cmk_vault", created))
    service.make_key()
    service.keys().begin_delete_key("key1").wait()

    report = runner.module(module, {"vault_name": "vault-one", "name": "key1", **options})

    if is_recovered:
        assert succeeded(report)["changed"]
    else:
        assert report["code"] == "key_soft_deleted", report


def test_a_restored_setting_is_reported(runner: OneProcess, wire: Wire, service: Service) -> None:
    module = {"resource_group": GROUP, "name": "vault-one", "authorization": "access_policy"}

    def meanwhile() -> None:
        succeeded(runner.another().role("provision", variables("account2")))

    with wire.meddled(creates_vault(), meanwhile):
        report = succeeded(runner.module("keyvault_cmk_vault", module))

    (warning,) = report["warnings"]
    assert service.account_id("account2") in warning
    assert service.is_available("account2")
    assert not succeeded(runner.module("keyvault_cmk_vault", module))["changed"]


def test_access_is_restored_after_a_lost_response(runner: OneProcess, wire: Wire, service: Service) -> None:
    def meanwhile() -> None:
        succeeded(runner.another().role("provision", variables("account2")))
        service.sandbox.control.fault(match={"method": "PUT", "path": VAULT}, drop="after", times=5)

    with wire.meddled(creates_vault(), meanwhile):
        report = runner.role("provision", variables())
    assert report["failed"]
    assert service.is_available("account2")


def test_access_that_is_replaced_just_before_the_switch(runner: OneProcess, wire: Wire, service: Service) -> None:
    """The account loses its access before it uses a key of the vault, so its own run has to detect the loss."""
    service.make_vault()
    service.sandbox.control.timing(**REALISTIC)
    with wire.meddled(moves_account("account2"), service.make_vault):
        report = runner.role("provision", variables("account2"))
    service.sandbox.control.advance(SETTLED)

    assert report["failed"], report
    assert service.encryption("account2") is None
    assert service.is_available("account2")


# Two controllers, one account


MODULE = {"resource_group": GROUP, "name": "account1", "location": LOCATION}


def test_an_account_that_somebody_creates_just_before_keeps_its_key(
    runner: OneProcess, wire: Wire, service: Service
) -> None:
    service.make_vault()

    def meanwhile() -> None:
        succeeded(runner.another().role("provision", variables()))

    with wire.meddled(checks_name_of_account, meanwhile):
        report = succeeded(runner.module("batch_account_identity", MODULE))

    assert report["changed"] is False
    assert service.encryption() == report["key_identifier"] == service.key().id
    assert service.is_available()


@pytest.mark.parametrize("theirs", ["system_assigned", "user_assigned"])
@pytest.mark.parametrize("ours", ["system_assigned", "user_assigned"])
def test_an_account_that_a_slow_request_replaces_is_available(
    runner: OneProcess, wire: Wire, service: Service, ours: str, theirs: str
) -> None:
    """The previous identity of the account is not known, so the account must not use a key that needs the identity."""
    service.make_identity()
    service.make_vault()
    identity = {"user_assigned": service.identity_id(), "system_assigned": None}

    def meanwhile() -> None:
        asked = {"cmk_identity_id": identity[theirs]} if identity[theirs] else {}
        succeeded(runner.another().role("provision", variables(**asked)))

    with wire.meddled(creates_account(), meanwhile):
        runner.module("batch_account_identity", {**MODULE, "identity_id": identity[ours]})
    service.sandbox.control.advance(SETTLED)

    assert service.is_available()
    assert service.encryption() is None


def test_an_account_that_somebody_creates_just_before_keeps_its_identity(
    runner: OneProcess, wire: Wire, service: Service
) -> None:
    service.make_identity()
    service.make_vault()

    def meanwhile() -> None:
        succeeded(runner.another().role("provision", variables(cmk_identity_id=service.identity_id())))

    with wire.meddled(checks_name_of_account, meanwhile):
        report = runner.role("provision", variables())

    assert report["failed"], report
    assert report["code"] == "identity_differs" or report["code"] == "identity_in_use", report
    assert service.account()["identity"]["type"] == "UserAssigned"
    assert service.is_available()


# Two controllers, one account that is created with its key


def ours_with_key(service: Service) -> dict[str, Any]:
    """Options that create account1 with key1 by identity1. Both identity1 and identity2 have access to the key."""
    service.make_vault()
    for name in ("identity1", "identity2"):
        service.grant(service.make_identity(name)["properties"]["principalId"])
    key = service.make_key().id
    return {**MODULE, "wait_timeout": 300, "identity_id": service.identity_id("identity1"), "key_identifier": key}


def theirs_with_key(service: Service, identity: str = "identity1", location: str = LOCATION) -> None:
    """Another controller creates account1 with key1."""
    identities = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(identity): {}}}
    service.make_account(identity=identities, location=location, tags={"owner": "others"})
    service.point(service.key().id)


def assert_theirs(service: Service) -> None:
    assert service.account()["tags"] == {"owner": "others"}
    assert service.encryption() == service.key().id
    assert service.is_available()


def test_an_account_that_somebody_creates_while_azure_lets_the_creation_wait(
    runner: OneProcess, wire: Wire, service: Service
) -> None:
    ours = ours_with_key(service)

    def meanwhile() -> None:
        theirs_with_key(service)
        service.sandbox.control.fault(match={"method": "PUT", "path": ACCOUNT}, times=1, answer=BUSY)

    with wire.meddled(creates_account(), meanwhile):
        report = succeeded(runner.module("batch_account_identity", ours))

    assert report["changed"] is False
    assert_theirs(service)


REFUSED = {"status": 400, "body": {"error": {"code": "KeyVaultAccessDenied", "message": "The key, says the test."}}}
FORBIDDEN = {"status": 403, "body": {"error": {"code": "RequestDisallowedByPolicy", "message": "No, says the test."}}}


def test_a_late_read_shows_the_account_of_others_that_the_creation_has_replaced(
    runner: OneProcess, wire: Wire, service: Service
) -> None:
    """The first read after the creation is older, and shows the account with another identity and without a key."""
    options = ours_with_key(service)

    def meanwhile() -> None:
        identities = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id("identity2"): {}}}
        before = service.make_account(identity=identities)
        answer = {"status": 200, "body": before}
        service.sandbox.control.fault(match={"method": "GET", "path": ACCOUNT}, times=1, answer=answer)

    with wire.meddled(creates_account(), meanwhile):
        report = succeeded(runner.module("batch_account_identity", options))

    assert report["key_identifier"] == options["key_identifier"] == service.encryption()
    assert list(report["identity"]["user_assigned_identities"]) == [options["identity_id"]]
    assert service.is_available()


@pytest.mark.parametrize("is_it", [reads_account(), checks_name_of_account], ids=["read", "check of the name"])
def test_a_creation_that_ends_before_its_request_leaves_an_account_of_others_on_its_key(
    runner: OneProcess, wire: Wire, service: Service, is_it: Callable[[Any], bool]
) -> None:
    options = ours_with_key(service)

    def meanwhile() -> None:
        theirs_with_key(service)
        raise Interrupted(signal.SIGINT)

    with wire.meddled(is_it, meanwhile), suppress(Interrupted):
        runner.module("batch_account_identity", options)

    assert_theirs(service)


@pytest.mark.parametrize("identity", ["identity1", "identity2"])
@pytest.mark.parametrize("answer", [REFUSED, FORBIDDEN], ids=["refused once", "forbidden"])
def test_a_creation_that_is_refused_leaves_an_account_of_others_on_its_key(
    runner: OneProcess, wire: Wire, service: Service, answer: dict[str, Any], identity: str
) -> None:
    options = ours_with_key(service)
    match = {"method": "PUT", "path": ACCOUNT}

    def meanwhile() -> None:
        theirs_with_key(service, identity)
        service.sandbox.control.fault(match=match, answer=answer, times=1 if answer is REFUSED else 9)

    with wire.meddled(creates_account(), meanwhile):
        report = runner.module("batch_account_identity", options)

    assert report["changed"] is False
    assert report.get("code") == (
        "permission_denied" if answer is FORBIDDEN else "identity_in_use" if identity == "identity2" else None
    )
    assert_theirs(service)


def test_a_refused_creation_is_reported_although_the_account_cannot_be_read(
    runner: OneProcess, wire: Wire, service: Service
) -> None:
    """The task reads the account after the refusal, because somebody may have created it meanwhile."""
    control = service.sandbox.control

    def meanwhile() -> None:
        control.fault(match={"method": "PUT", "path": ACCOUNT}, answer=FORBIDDEN, times=9)
        control.fault(match={"method": "GET", "path": ACCOUNT}, answer=REFUSED, times=None)

    with wire.meddled(creates_account(), meanwhile):
        report = runner.module("batch_account_identity", MODULE)

    assert (report["changed"], report["code"]) == (False, "permission_denied"), report
    assert "No, says the test." in report["msg"]


@pytest.mark.parametrize("identity", ["identity1", "identity2"])
def test_an_account_created_by_others_after_a_refused_creation_is_kept(
    runner: OneProcess, wire: Wire, service: Service, identity: str
) -> None:
    options = ours_with_key(service)
    service.sandbox.control.fault(match={"method": "PUT", "path": ACCOUNT}, answer=REFUSED, times=1)
    checks = count()

    def is_second_check(request: Any) -> bool:
        return checks_name_of_account(request) and next(checks) == 1

    with wire.meddled(is_second_check, lambda: theirs_with_key(service, identity)):
        report = runner.module("batch_account_identity", options)

    assert report["changed"] is False
    assert report.get("code") == ("identity_in_use" if identity == "identity2" else None)
    assert_theirs(service)


@pytest.mark.parametrize("with_key", [True, False])
def test_an_account_that_somebody_creates_just_before_in_another_region(
    runner: OneProcess, wire: Wire, service: Service, with_key: bool
) -> None:
    """Batch checks a name only in one region, so the account is found only when Azure refuses its creation."""
    options = ours_with_key(service)
    if not with_key:
        options["key_identifier"] = None
    with wire.meddled(checks_name_of_account, lambda: theirs_with_key(service, location="northeurope")):
        report = succeeded(runner.module("batch_account_identity", options))

    assert report["changed"] is False
    assert "northeurope" in report["warnings"][0]
    assert_theirs(service)


# Azure is eventually consistent


@pytest.mark.parametrize("times", [1, 2, 3, 8])
@pytest.mark.parametrize("path", [ACCOUNT, VAULT], ids=["account", "vault"])
def test_a_delayed_read_of_an_existing_resource(
    runner: OneProcess, control: Control, service: Service, path: str, times: int
) -> None:
    service.on_key()
    service.change_vault(tags={"owner": "others"})
    before = holdings(service)
    control.fault(match={"method": "GET", "path": path}, answer=MISSING, times=times)
    since = control.last

    report = succeeded(runner.role("provision", variables()))

    assert not report["changed"], report
    assert writes(control.requests(since)) == []
    assert holdings(service) == before


@pytest.mark.parametrize("path", [ACCOUNT, VAULT], ids=["account", "vault"])
@pytest.mark.parametrize("check", [True, False], ids=["check", "apply"])
def test_a_read_that_never_returns_an_existing_resource(
    runner: OneProcess, control: Control, service: Service, path: str, check: bool
) -> None:
    service.on_key()
    before = holdings(service)
    control.fault(match={"method": "GET", "path": path}, answer=MISSING, times=None)
    since = control.last

    report = runner.role("provision", variables(), check=check)

    assert (report["code"], report["option"]) == ("timed_out", "wait_timeout")
    assert writes(control.requests(since)) == []
    control.call("DELETE", "/faults")
    assert holdings(service) == before


@pytest.mark.parametrize("kind", ["account", "vault"])
def test_a_resource_missing_from_reads_and_lists_has_a_taken_name(
    runner: OneProcess, control: Control, service: Service, kind: str
) -> None:
    """If neither a read nor a list shows the resource, its name is reported as taken."""
    service.on_key()
    before = holdings(service)
    listed = {"account": r"/batchAccounts\?", "vault": r"/vaults\?"}[kind]
    control.fault(match={"method": "GET", "path": ACCOUNT if kind == "account" else VAULT}, answer=MISSING, times=None)
    control.fault(match={"method": "GET", "path": listed}, answer={"status": 200, "body": {"value": []}}, times=None)
    since = control.last

    report = runner.role("provision", variables())

    assert (report["code"], report["option"]) == (f"{kind}_name_taken", "name")
    assert [one for one in writes(control.requests(since)) if one["method"] == "PUT"] == []
    control.call("DELETE", "/faults")
    assert holdings(service) == before


def test_a_deleted_account_is_created_despite_the_cached_list(runner: OneProcess, service: Service) -> None:
    """The cached list still contains the account."""
    module = {"resource_group": GROUP, "name": "account1", "location": LOCATION}
    succeeded(runner.module("batch_account_identity", module))
    succeeded(runner.module("batch_account_identity", {**module, "state": "absent"}))
    assert succeeded(runner.module("batch_account_identity", module))["changed"]
    service.batch.batch_account.begin_delete(GROUP, "account1").wait()
    assert succeeded(runner.module("batch_account_identity", module))["changed"]


def test_a_caller_without_permission_to_check_names(
    runner: OneProcess, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    """The caller has roles only on the resource group, and the check of names needs the subscription."""
    roles = ["Owner", "Key Vault Crypto Officer"]
    scope = service.sandbox.group
    who = service.sandbox.control.principal("modest", roles=[{"role": role, "scope": scope} for role in roles])
    monkeypatch.setenv("AZURE_CLIENT_ID", who["client_id"])
    monkeypatch.setenv("AZURE_SECRET", who["secret"])
    monkeypatch.setenv("AZURE_CLIENT_SECRET", who["secret"])

    wanted = variables(cmk_vault_authorization="rbac")
    warnings: dict[bool, list[str]] = {True: [], False: []}
    for check, shown in warnings.items():

        def record(_task: str, result: dict[str, Any], shown: list[str] = shown) -> None:
            shown.extend(one for one in result.get("warnings", ()) if "is not known whether the name" in one)

        assert succeeded(runner.another().role("provision", wanted, check=check, record=record))["changed"]
    assert service.is_available()
    rights = {
        "key vault vault-one": "Microsoft.KeyVault/checkNameAvailability/read",
        "Batch account account1": "Microsoft.Batch/locations/checkNameAvailability/action",
    }
    assert len(warnings[True]) == len(rights), warnings
    for warning, (resource, right) in zip(warnings[True], rights.items(), strict=True):
        assert resource in warning
        assert right in warning
    assert warnings[False] == []


# Refused before anything is written


@pytest.mark.parametrize(
    ("wanted", "code", "option"),
    [
        ({"cmk_location": "atlantis"}, "location_not_available", "location"),
        (
            {"cmk_key_rotation_policy": {"time_after_create": "P3D"}},
            "invalid_option",
            "rotation_policy.time_after_create",
        ),
        ({"cmk_key_expires_in": "P9000Y"}, "invalid_option", "expires_in"),
        ({"cmk_key_expires_in": f"P{'9' * 5000}D"}, "invalid_option", "expires_in"),
    ],
)
@pytest.mark.parametrize("check", [True, False], ids=["check", "apply"])
@pytest.mark.slow(every=3)
def test_invalid_values_are_rejected_before_the_first_write(
    ansible: Ansible, wanted: dict[str, Any], code: str, option: str, check: bool
) -> None:
    run = ansible.playbook("azbatch.cmk.provision", extra_vars=variables(**wanted), check=check)

    [failed] = run.failed
    assert (failed.name, failed["code"], failed["option"]) == ("Ensure the vault", code, option), run.output
    assert run.writes == []


def test_other_regions_are_reported(runner: OneProcess, service: Service) -> None:
    service.make_vault(properties={"accessPolicies": [service.policy(service.operator, *OFFICER)]})
    service.make_account()

    report = succeeded(runner.role("provision", variables(cmk_location="North Europe")))

    warnings = [one for one in report["warnings"] if "North Europe" in one]
    assert len(warnings) == 2, report["warnings"]
    assert all("westeurope" in one for one in warnings)
    assert service.is_available()


@pytest.mark.parametrize("lag", ["5", "60"])
def test_a_vault_that_reads_do_not_show_yet(runner: OneProcess, service: Service, lag: str) -> None:
    """After Azure has accepted the creation, the first reads do not find the vault. That is no failure."""
    service.sandbox.control.behavior(name_lag=lag)
    wanted = {**VARS, "cmk_vault_authorization": "access_policy", "cmk_wait_timeout": 900}

    report = runner.role("provision", wanted)

    assert not report.get("failed"), report
    assert report["changed"] is True
    service.sandbox.control.advance(60)
    assert service.is_available()


def test_a_new_vault_that_no_read_shows_until_the_timeout(runner: OneProcess, service: Service) -> None:
    control, vault = service.sandbox.control, {"resource_group": GROUP, "name": "vault-one"}
    control.behavior(name_lag="60")

    report = runner.module("keyvault_cmk_vault", {**vault, "wait_timeout": 10})

    assert (report["code"], report["option"], report["applied"]) == ("timed_out", "wait_timeout", ["create"]), report
    assert "was created, but Azure did not show it for 10 s" in report["msg"]
    control.advance(60)
    assert succeeded(runner.module("keyvault_cmk_vault", vault))["changed"] is False


@pytest.mark.parametrize("lag", ["0", "5", "60"])
def test_after_its_creation_only_the_vault_is_read_until_it_is_shown(
    runner: OneProcess, service: Service, lag: str
) -> None:
    control = service.sandbox.control
    control.behavior(name_lag=lag)

    assert succeeded(runner.module("keyvault_cmk_vault", {"resource_group": GROUP, "name": "vault-one"}))["changed"]

    sent = [(one["method"], is_of_vault(one["url"])) for one in control.requests()]
    after = sent[sent.index(("PUT", True)) + 1 :]
    assert set(after) == {("GET", True)}
    assert len(after) == 1 or lag != "0"
