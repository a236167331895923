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
from service import DAY, Service

DISABLE = {**VARS, "cmk_unused_versions": "disable", "cmk_vault_used_by": "any"}
DEFINITIONS = Path(__file__).resolve().parents[2] / "examples" / "roles"
SCHEMA = DEFINITIONS.parents[1] / "docs" / "audit.schema.json"
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


def test_a_subscription_that_users_in_leaves_out_is_named(runner: OneProcess, service: Service) -> None:
    service.on_key()
    own = service.sandbox.subscription_id
    other = service.sandbox.control.call("POST", "/subscriptions", {"name": "b"}, 201)["subscription_id"]

    found = runner.module("keyvault_cmk_users", {"vault_name": "vault-one", "users_in": [own]})

    assert found["subscriptions_left_out"] == [other]
    assert any(other in one for one in found["warnings"])


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


@pytest.mark.parametrize("name", ["", "../report"])
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
