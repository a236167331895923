# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resources of other services on the vault: a storage account, a disk encryption set, an SQL server and a Cosmos DB
account. They keep what they use, whatever the caller's rights are and however Azure Resource Graph responds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from callers import give, sign_in
from harness import Ansible, writes
from one_process import OneProcess
from others import SERVICES, uses
from role_runs import VARS
from service import DAY, GROUP, Service

DISABLE = {**VARS, "cmk_unused_versions": "disable", "cmk_vault_used_by": "any"}
DEFINITIONS = Path(__file__).resolve().parents[2] / "examples" / "roles"
SCHEMA = DEFINITIONS.parents[1] / "docs" / "audit.schema.json"
# What the audit reads, without the resources of other services.
AUDITED = [
    *("Microsoft.Authorization/*/read", "Microsoft.Batch/*/read", "Microsoft.KeyVault/*/read"),
    *("Microsoft.Resources/subscriptions/read", "Microsoft.ManagedIdentity/*/read"),
]
NOT_SHOWN = "Azure Resource Graph does not show encryption protectors of SQL"


def queries(service: Service, since: int) -> int:
    return sum("/Microsoft.ResourceGraph/" in one["url"] for one in service.sandbox.control.requests(since))


@pytest.fixture(params=[False, True], ids=["access policies", "Azure RBAC"])
def versions(request: pytest.FixtureRequest, service: Service) -> list[str]:
    """The account uses the third version of its key. Nothing of Batch uses the first two."""
    _principal, first = service.on_key(rbac=request.param)
    second, third = service.make_key().id, service.make_key().id
    service.point(third)
    service.sandbox.control.advance(8 * DAY)
    return [first, second, third]


def enabled(service: Service, versions: list[str]) -> list[bool]:
    return [bool(service.key(version=one[-32:]).properties.enabled) for one in versions]


def test_a_rotation_keeps_versions_that_other_services_use(
    runner: OneProcess, service: Service, versions: list[str]
) -> None:
    used = [uses(service, "storage", versions[0]), uses(service, "cosmos", versions[0][:-33])]
    # These are texts that name a key, and use nothing.
    for kind in ("templateSpecs", "templateSpecs/a/versions", "deploymentStacks"):
        document = {
            "id": f"{service.sandbox.group}/providers/Microsoft.Resources/{kind}/a",
            "location": "westeurope",
            "properties": {"mainTemplate": {"resources": [{"properties": {"keyId": versions[1]}}]}},
        }
        service.sandbox.control.call("POST", "/other-resources", document, 201)
    since = service.sandbox.control.last

    predicted = runner.another().role("rotate", DISABLE, check=True)
    assert queries(service, since) == 1
    assert writes(service.sandbox.control.requests(since)) == []
    report = runner.another().role("rotate", DISABLE)

    assert report["changed_steps"] == predicted["changed_steps"]
    assert report["key_kept_for"] == predicted["key_kept_for"] == used[:1]
    assert enabled(service, versions) == [True, False, True]
    assert [one for one in report["warnings"] if one.startswith(NOT_SHOWN)]
    # Nothing is due any more.
    service.sandbox.control.call("DELETE", f"/other-resources?id={used[0]}")
    uses(service, "storage", versions[2])
    assert runner.another().role("rotate", DISABLE)["changed"] is True
    since = service.sandbox.control.last
    assert runner.another().role("rotate", DISABLE)["changed"] is False
    assert queries(service, since) == 0
    assert enabled(service, versions) == [False, False, True]


def test_followers_keep_all_versions_inside_the_margin(
    runner: OneProcess, service: Service, versions: list[str]
) -> None:
    cosmos = uses(service, "cosmos", versions[0].rpartition("/")[0])
    newest = service.make_key().id
    service.sandbox.control.advance(6 * DAY)

    report = runner.another().role("rotate", {**DISABLE, "cmk_key_version_mode": "keep"})
    assert report["changed_steps"]["unused_disabled"] is False, report
    assert report["key_kept_for"] == [cosmos]
    service.sandbox.control.advance(2 * DAY)
    keep = {**DISABLE, "cmk_key_version_mode": "keep"}
    assert runner.another().role("rotate", keep)["changed_steps"]["unused_disabled"] is True
    assert enabled(service, [*versions, newest]) == [False, False, True, True]


def test_removals_are_refused_by_name(runner: OneProcess, service: Service, versions: list[str]) -> None:
    used = [uses(service, name, versions[0]) for name in ("storage", "disks", "sql")]
    key = {"vault_name": "vault-one", "name": "key1"}
    for module, wanted in (
        ("keyvault_cmk_key_state", {**key, "state": "disabled", "version": versions[0][-32:]}),
        ("keyvault_cmk_key_state", {**key, "state": "disabled"}),
        ("keyvault_cmk_key_state", {**key, "state": "absent"}),
    ):
        for check in (True, False):
            since = service.sandbox.control.last
            refused = runner.another().module(module, wanted, check=check)
            assert (refused["code"], sorted(refused["resources"])) == ("in_use", sorted(used)), refused
            assert "1 storage account" in refused["msg"]
            assert "1 SQL server" in refused["msg"]
            assert "1 disk encryption set" in refused["msg"]
            assert queries(service, since) == 1
            assert writes(service.sandbox.control.requests(since)) == []
    kept = runner.another().module(
        "keyvault_cmk_key_state", {**key, "state": "disabled", "version": versions[0][-32:], "in_use": "keep"}
    )
    assert (kept["changed"], sorted(kept["in_use_by"])) == (False, sorted(used))
    unused = {**key, "state": "disabled", "version": versions[1][-32:]}
    assert runner.another().module("keyvault_cmk_key_state", unused)["changed"] is True


def test_revert_keeps_the_key_but_not_the_access(runner: OneProcess, service: Service, versions: list[str]) -> None:
    """No other resource has the system-assigned identity of the account."""
    disks = uses(service, "disks", versions[2])
    wanted = {**DISABLE, "cmk_unused_key": "disable", "cmk_unused_access": "revoke"}
    assert runner.another().role("revert", wanted)["changed"] is True
    service.sandbox.control.advance(8 * DAY)

    report = runner.another().role("revert", wanted)

    assert report["changed_steps"] == {"encryption": False, "key": False, "access": True}, report
    assert report["key_kept_for"] == [disks]
    assert all(enabled(service, versions))


@pytest.mark.parametrize("others", [False, True], ids=["Batch only", "with Reader"])
def test_callers_with_the_documented_roles(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    """Those of rotate.json and subscription.json, in a vault with Azure RBAC. The resource is in another group."""
    _principal, first = service.on_key(rbac=True)
    service.point(service.make_key().id)
    sandbox = service.sandbox
    sandbox.control.advance(8 * DAY)
    elsewhere = f"{sandbox.subscription}/resourceGroups/elsewhere"
    assert sandbox.arm("PUT", elsewhere, "2021-04-01", {"location": "westeurope"}).ok
    storage = uses(service, "storage", first, elsewhere)
    rotate, above = (json.loads((DEFINITIONS / f"{one}.json").read_text()) for one in ("rotate", "subscription"))
    allowed = [one for one in above["Actions"] if others or one != "*/read"]
    roles = [
        give(service, sandbox.group, rotate["Actions"], rotate["DataActions"]),
        give(service, sandbox.subscription, allowed),
    ]
    sign_in(service, monkeypatch, roles)

    report = runner.another().role("rotate", DISABLE)
    if others:
        assert (report["changed"], report["key_kept_for"]) == (False, [storage])
        return
    assert report["code"] == "users_unknown", report
    assert [(one["scope"], one["action"]) for one in report["unlisted"]] == [(sandbox.subscription, "*/read")]
    assert "cmk_vault_used_by" in json.dumps(report) or "vault_used_by" in report["msg"]
    since = sandbox.control.last
    assert runner.another().role("rotate", {**DISABLE, "cmk_vault_used_by": "batch"})["changed"] is True
    assert queries(service, since) == 0


@pytest.mark.parametrize("used_by", ["any", "batch"])
def test_a_role_at_one_group_of_another_subscription(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, used_by: str
) -> None:
    """Azure lists that subscription, but the caller cannot read all users in it. `users_in` leaves it out, even if it
    has a user."""
    _principal, first = service.on_key(rbac=True)
    service.point(service.make_key().id)
    sandbox = service.sandbox
    own = sandbox.subscription_id
    other = sandbox.control.call("POST", "/subscriptions", {"name": "b"}, 201)["subscription_id"]
    group = f"/subscriptions/{other}/resourceGroups/{GROUP}"
    assert sandbox.arm("PUT", group, "2021-04-01", {"location": "westeurope"}).ok
    uses(service, "storage", first, group)
    rotate, above = (json.loads((DEFINITIONS / f"{one}.json").read_text()) for one in ("rotate", "subscription"))
    roles = [
        give(service, sandbox.group, rotate["Actions"], rotate["DataActions"]),
        give(service, sandbox.subscription, above["Actions"]),
        {"role": "Reader", "scope": group},
    ]
    sign_in(service, monkeypatch, roles)
    sandbox.control.advance(8 * DAY)
    wanted, key = {**DISABLE, "cmk_vault_used_by": used_by}, {"vault_name": "vault-one", "vault_used_by": used_by}

    refused = runner.another().role("rotate", wanted)
    assert (refused["code"], {one["scope"] for one in refused["unlisted"]}) == (
        "users_unknown",
        {f"/subscriptions/{other}"},
    )
    assert "users_in" in refused["remedy"]
    assert (
        runner.another().module("keyvault_cmk_users", key)["vault_keys"][0]["versions"][1]["may_be_disabled"] is False
    )

    narrowed = {**wanted, "cmk_users_in": [own.upper()]}
    since = sandbox.control.last
    for check in (True, False):
        report = runner.another().role("rotate", narrowed, check=check)
        assert report["changed_steps"]["unused_disabled"] is True, report
        assert [other in one for one in report["warnings"] if "leaves out subscriptions" in one] == [True]
    assert not [one for one in sandbox.control.requests(since) if f"/subscriptions/{other}" in one["url"]]
    found = runner.another().module("keyvault_cmk_users", {**key, "users_in": [own]})
    assert (found["subscriptions_left_out"], found["unlisted"]) == ([other], [])
    assert any(other in one for one in found["warnings"])
    again = runner.another().module("keyvault_cmk_unused_versions", {**key, "name": "key1", "users_in": [own]})
    assert (again["changed"], again["subscriptions_left_out"]) == (False, [other])


@pytest.mark.slow(every=2)
@pytest.mark.parametrize(
    "answer",
    [
        {"status": 403, "body": {"error": {"code": "AccessDenied", "message": "Access is denied."}}},
        {"status": 400, "body": {"error": {"code": "BadRequest", "message": "No."}}},
        {"status": 500, "body": {"error": {"code": "Odd", "message": "Something is odd."}}},
    ],
    ids=["refused", "bad request", "failing"],
)
def test_a_query_that_fails(runner: OneProcess, service: Service, versions: list[str], answer: dict[str, Any]) -> None:
    service.sandbox.control.fault(
        match={"method": "POST", "path": "/providers/Microsoft.ResourceGraph/resources"}, times=None, answer=answer
    )

    report = runner.another().role("rotate", DISABLE)

    assert report["code"] == "users_unknown", report
    assert [one["scope"] for one in report["unlisted"]] == ["Azure Resource Graph"]
    assert all(enabled(service, versions))
    forced = {"vault_name": "vault-one", "name": "key1", "force": True}
    assert runner.another().module("keyvault_cmk_unused_versions", forced)["changed"] is True


def test_a_throttled_query_is_repeated(runner: OneProcess, service: Service, versions: list[str]) -> None:
    busy = {"error": {"code": "RateLimiting", "message": "Client application has been throttled."}}
    service.sandbox.control.fault(
        match={"method": "POST", "path": "/providers/Microsoft.ResourceGraph/resources"},
        times=2,
        answer={"status": 429, "headers": {"Retry-After": "0"}, "body": busy},
    )

    assert runner.another().role("rotate", DISABLE)["changed"] is True
    assert enabled(service, versions) == [False, False, True]


@pytest.mark.parametrize("lost", [{"drop": "before"}, {"drop": "after"}, {"truncate": 30}], ids=str)
@pytest.mark.slow(every=3)
def test_a_lost_query_is_repeated(
    runner: OneProcess, service: Service, versions: list[str], lost: dict[str, Any]
) -> None:
    match = {"method": "POST", "path": "/providers/Microsoft.ResourceGraph/resources"}
    service.sandbox.control.fault(match=match, **lost)

    assert runner.another().role("rotate", DISABLE)["changed"] is True
    assert enabled(service, versions) == [False, False, True]


@pytest.mark.parametrize("token", [None, ""])
def test_a_token_without_a_value_is_no_further_page(
    runner: OneProcess, service: Service, versions: list[str], token: str | None
) -> None:
    page = {"totalRecords": 0, "count": 0, "data": [], "resultTruncated": "false", "$skipToken": token}
    match = {"method": "POST", "path": "/providers/Microsoft.ResourceGraph/resources"}
    service.sandbox.control.fault(match=match, times=3, answer={"status": 200, "body": page})
    since = service.sandbox.control.last

    assert runner.another().role("rotate", DISABLE)["changed"] is True
    assert queries(service, since) == 1


def test_a_response_without_all_rows(runner: OneProcess, service: Service, versions: list[str]) -> None:
    """Azure Resource Graph has left out rows, or its response is malformed."""
    whole = {"totalRecords": 0, "count": 0, "data": [], "resultTruncated": "false"}
    row = {"id": f"{service.sandbox.group}/providers/Microsoft.Sql/servers/a", "type": "a/b", "properties": {}}
    odd = ({"resultTruncated": "true"}, {"resultTruncated": True}, {"totalRecords": 1}, {"totalRecords": "a"})
    rows: list[Any] = [{"columns": [], "rows": []}, ["a"], *([{**row, name: 1}] for name in row)]
    rows += [[{name: row[name] for name in row if name != missing}] for missing in row]
    for body in (*({**whole, **one} for one in odd), *({**whole, "data": one} for one in rows), {}, [], "<html>"):
        service.sandbox.control.call("DELETE", "/faults")
        match = {"method": "POST", "path": "/providers/Microsoft.ResourceGraph/resources"}
        service.sandbox.control.fault(match=match, times=None, answer={"status": 200, "body": body})

        report = runner.another().role("rotate", DISABLE)
        assert (report["code"], report["unlisted"][0]["scope"]) == ("users_unknown", "Azure Resource Graph"), body
    assert all(enabled(service, versions))


@pytest.mark.slow(every=2)
@pytest.mark.parametrize("position", ["documented", "any"])
def test_rows_that_lag_never_restore_a_version(
    runner: OneProcess, service: Service, versions: list[str], position: str
) -> None:
    """The storage account has left the version, and Azure Resource Graph shows that later. The Batch accounts decide
    about the confirmation."""
    service.sandbox.control.behavior(graph_lag="600", graph_union=position)
    uses(service, "storage", versions[0])
    service.sandbox.control.advance(700)
    uses(service, "storage", versions[2])
    assert runner.another().role("rotate", DISABLE)["key_kept_for"]
    service.sandbox.control.advance(700)

    assert runner.another().role("rotate", DISABLE)["changed"] is True
    assert enabled(service, versions) == [False, False, True]


def test_all_pages_of_the_rows_count(runner: OneProcess, service: Service) -> None:
    """120 resources have a secret of the vault. The storage account is on the second page."""
    _principal, first = service.on_key()
    service.point(service.make_key().id)
    service.sandbox.control.advance(8 * DAY)
    for number in range(120):
        resource = f"{service.sandbox.group}/providers/Microsoft.Automation/automationAccounts/a{number}"
        document = {
            "id": resource,
            "location": "westeurope",
            "properties": {"url": f"{first.partition('/keys')[0]}/secrets/a"},
        }
        service.sandbox.control.call("POST", "/other-resources", document, 201)
    storage = uses(service, "storage", first)
    since = service.sandbox.control.last

    assert runner.role("rotate", DISABLE)["key_kept_for"] == [storage]
    assert queries(service, since) == 2


def test_tasks_of_a_run_share_one_query_a_vault(runner: OneProcess, service: Service) -> None:
    """Three keys of one vault, whose unused versions are disabled in one run."""
    service.on_key()
    keys = ("key1", "key2", "key3")
    for name in keys:
        service.make_key(name)
        service.make_key(name)
    service.sandbox.control.advance(8 * DAY)
    used = uses(service, "disks", service.key("key2").id.rpartition("/")[0])
    since = service.sandbox.control.last

    found = [runner.module("keyvault_cmk_unused_versions", {"vault_name": "vault-one", "name": name}) for name in keys]

    assert [bool(one["disabled_versions"]) for one in found] == [True, True, True], found
    assert used
    assert queries(service, since) == 1


# The playbook `users`


def test_the_playbook_users(ansible: Ansible, service: Service, versions: list[str], tmp_path: Path) -> None:
    """A storage account, a disk encryption set, an SQL server and a Cosmos DB account on the vault."""
    for name in SERVICES:
        uses(service, name, versions[0] if name != "cosmos" else versions[0].rpartition("/")[0])
    since = service.sandbox.control.last

    wanted = {"cmk_users_folder": str(tmp_path), "cmk_vault_name": "vault-one", "cmk_vault_used_by": "any"}
    run = ansible.playbook("azbatch.cmk.users", extra_vars=wanted)

    assert run.rc == 0, run.output
    assert writes(service.sandbox.control.requests(since)) == []
    assert queries(service, since) == 1
    report = json.loads((tmp_path / "cmk-users.json").read_text())
    [key] = report["vault_keys"]
    assert {one["type"]: one["version"] for one in key["users"]} == {
        "microsoft.batch/batchaccounts": versions[2][-32:],
        "microsoft.compute/diskencryptionsets": versions[0][-32:],
        "microsoft.documentdb/databaseaccounts": None,
        "microsoft.sql/servers": versions[0][-32:],
        "microsoft.storage/storageaccounts": versions[0][-32:],
    }
    assert [one["may_be_disabled"] for one in key["versions"]] == [False, True, False]
    assert key["reason"] == report["reason"]
    assert "1 Batch account" in report["reason"]
    page = (tmp_path / "cmk-users.html").read_text()
    assert "storage account storage" in page


def test_the_report_is_as_of_azures_clock_and_names_what_is_not_shown(runner: OneProcess, service: Service) -> None:
    """The clock of the sandbox is ahead of that of the controller."""
    service.on_key()
    service.sandbox.control.advance(8 * DAY)
    since = service.sandbox.control.call("GET", "/clock")["now"]

    for used_by in ("any", "batch"):
        found = runner.another().module("keyvault_cmk_users", {"vault_name": "vault-one", "vault_used_by": used_by})
        assert found["generated_on"] >= since[:19]
        assert any(NOT_SHOWN in one for one in found.get("warnings", [])) is (used_by == "any")


def test_a_wrong_subscription_is_refused(runner: OneProcess, service: Service) -> None:
    """A removal, and the report of users."""
    service.on_key()
    wrong = {"vault_name": "vault-one", "subscription_id": "99999999-8888-7777-6666-555555555555"}
    for module, options in {
        "keyvault_cmk_users": {},
        "keyvault_cmk_key_state": {"name": "key1", "state": "disabled"},
    }.items():
        failure = runner.another().module(module, {**wrong, **options})
        assert (failure["code"], failure["option"]) == ("subscription_not_found", "subscription_id")
        users_in = [service.sandbox.subscription_id, wrong["subscription_id"]]
        failure = runner.another().module(module, {"vault_name": "vault-one", "users_in": users_in, **options})
        assert (failure["code"], failure["option"]) == ("subscription_not_found", "users_in")
    assert service.enabled() == [True]


@pytest.mark.parametrize("vault", ["missing", "deleted", "hidden"])
def test_the_users_of_a_vault_that_cannot_be_read(runner: OneProcess, service: Service, vault: str) -> None:
    """A vault that exists in a subscription that the caller cannot list is not known."""
    service.on_key()
    if vault == "deleted":
        service.delete_vault()
    if vault == "hidden":
        service.sandbox.control.fault(
            match={"method": "GET", "path": r"/vaults(\?|$)"}, times=None, answer={"status": 200, "body": {"value": []}}
        )
    name = "vault-two" if vault == "missing" else "vault-one"
    found = runner.module("keyvault_cmk_users", {"vault_name": name, "vault_used_by": "batch"})
    if vault == "hidden":
        assert found["reason"] == "1 Batch account uses it."
        assert found["may_be_deleted"] is False
        return
    assert (found["failed"], found["code"]) == (True, {"missing": "vault_not_found"}.get(vault, "vault_deleted"))
    assert name in found["msg"]


def test_the_users_of_a_key_that_does_not_exist(runner: OneProcess, service: Service) -> None:
    """A key that was deleted is reported."""

    def found(name: str) -> dict[str, Any]:
        return runner.another().module("keyvault_cmk_users", {"vault_name": "vault-one", "name": name})

    service.on_key()
    service.make_key("key2")
    service.keys().begin_delete_key("key2").result()
    for name in ("key1", "key2"):
        assert not found(name).get("failed"), name
    missing = found("key3")
    assert (missing["failed"], missing["code"], missing["option"]) == (True, "key_not_found", "name")


@pytest.mark.parametrize("name", ["", "..", "../report", "folder/report"])
def test_the_name_of_a_report_has_no_folder(runner: OneProcess, service: Service, tmp_path: Path, name: str) -> None:
    since = service.sandbox.control.last
    wanted = {"vault_name": "vault-one", "folder": str(tmp_path / "reports"), "report_name": name}
    refused = runner.module("keyvault_cmk_users", wanted)
    assert (refused["code"], refused["option"]) == ("invalid_option", "report_name")
    assert (service.sandbox.control.last, list(tmp_path.glob("*.json"))) == (since, [])


# The audit


def audited(runner: OneProcess, tmp_path: Path, **options: Any) -> dict[str, Any]:
    """The JSON report, which has to be valid by its schema."""
    found = runner.another().role(
        "audit", {"cmk_audit_folder": str(tmp_path), **{f"cmk_{name}": value for name, value in options.items()}}
    )
    assert found["changed"] is False, found
    report: dict[str, Any] = json.loads((tmp_path / "cmk-audit.json").read_text())
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    return report


def test_the_audit_lists_the_resources_of_each_vault(
    runner: OneProcess, service: Service, versions: list[str], tmp_path: Path
) -> None:
    """No finding depends on them, and with `batch` no query is made."""
    key = versions[0].rpartition("/")[0]
    used = {name: uses(service, name, key if name == "cosmos" else versions[0]) for name in SERVICES}
    since = service.sandbox.control.last

    report = audited(runner, tmp_path, vault_used_by="any")

    assert queries(service, since) == 1
    [vault] = report["vaults"]
    assert (vault["vault_name"], vault["unknown"]) == ("vault-one", None)
    pinned = {"name": "key1", "version": versions[0][-32:], "follows_latest": False}
    follows = {"name": "key1", "version": None, "follows_latest": True}
    assert {one["id"]: one["used_keys"] for one in vault["resources"]} == {
        id_: [follows if name == "cosmos" else pinned] for name, id_ in used.items()
    }
    assert "storage account storage" in (tmp_path / "cmk-audit.html").read_text()
    since = service.sandbox.control.last
    batch = audited(runner, tmp_path, vault_used_by="batch")
    assert queries(service, since) == 0
    assert batch["vaults"][0]["resources"] is None
    assert [one["findings"] for one in batch["accounts"]] == [one["findings"] for one in report["accounts"]]


@pytest.mark.parametrize("others", [False, True], ids=["without */read", "with a query that fails"])
def test_the_audit_of_resources_that_may_be_missing(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, others: bool
) -> None:
    """The report never says that nobody uses the vault. The audit is not incomplete, and does not fail."""
    _principal, first = service.on_key(rbac=True)
    uses(service, "storage", first)
    reads = json.loads((DEFINITIONS / "subscription.json").read_text())["Actions"]
    if others:
        match = {"method": "POST", "path": "/providers/Microsoft.ResourceGraph/resources"}
        denied = {"status": 403, "body": {"error": {"code": "AccessDenied", "message": "Access is denied."}}}
        service.sandbox.control.fault(match=match, times=None, answer=denied)
    else:
        role = give(service, service.sandbox.subscription, [*AUDITED, *(one for one in reads if one != "*/read")])
        sign_in(service, monkeypatch, [role, {"role": "Key Vault Reader", "scope": service.sandbox.subscription}])

    report = audited(runner, tmp_path, vault_used_by="any", audit_fail_on="high")

    [vault] = report["vaults"]
    assert vault["resources"] is None
    assert ("find the resources" if others else "may lack */read") in vault["unknown"]
    assert report["unlisted"] == []
    assert "Not known for 1 vault (vault-one)" in (tmp_path / "cmk-audit.html").read_text()
