# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A creation does not replace a resource that another user has created, even if a read does not show the resource."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import short
from meddling import Wire
from moments import checks_name_of_vault, creates_account, creates_vault
from one_process import OneProcess
from service import GROUP, LOCATION, Service

ACCOUNT = r"/batchAccounts/account1\?"
REFUSED = {"status": 400, "body": {"error": {"code": "KeyVaultAccessDenied", "message": "The key, says the test."}}}
FORBIDDEN = {"status": 403, "body": {"error": {"code": "RequestDisallowedByPolicy", "message": "No, says the test."}}}


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


# Two controllers, one account that is created with its key


def ours_with_key(service: Service) -> dict[str, Any]:
    """Options that create account1 with key1 by identity1. Both identity1 and identity2 have access to the key."""
    service.make_vault()
    for name in ("identity1", "identity2"):
        service.grant(service.make_identity(name)["properties"]["principalId"])
    key = service.make_key().id
    account = {"resource_group": GROUP, "name": "account1", "location": LOCATION, "wait_timeout": 300}
    return {**account, "identity_id": service.identity_id("identity1"), "key_identifier": key}


def theirs_with_key(service: Service, identity: str) -> None:
    """Another controller creates account1 with key1."""
    identities = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(identity): {}}}
    service.make_account(identity=identities, tags={"owner": "others"})
    service.point(service.key().id)


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
    assert service.account()["tags"] == {"owner": "others"}
    assert service.encryption() == service.key().id
    assert service.is_available()


# Azure is eventually consistent
