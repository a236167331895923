# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role audit by its playbook: its findings, its requests and its reports."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from azure.keyvault.keys import KeyRotationLifetimeAction, KeyRotationPolicy
from harness import Ansible, Run, fails, task
from junitparser import JUnitXml
from one_process import OneProcess
from operators import done
from role_runs import VARS, holdings
from service import Service

from azure_sandbox.shared.behavior import POSITIONS

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "audit.schema.json"
TASK = "Audit the accounts and write the reports"
READER = "Reader"
ACCOUNT = {"resource_group": "rg-sandbox", "account_name": "account1"}


def audit(ansible: Ansible, *, check: bool = False, environment: Any = None, **options: Any) -> Run:
    """Run the playbook, which may fail. `options` are variables of the role without the prefix cmk_audit_, or cmk_ for
    the exceptions."""
    given = {f"cmk_{'' if name == 'exceptions' else 'audit_'}{name}": value for name, value in options.items()}
    run = ansible.playbook("azbatch.cmk.audit", extra_vars=given, check=check, environment=environment)
    assert run.writes == []
    assert not run.changed
    return run


def report(ansible: Ansible, name: str = "cmk-audit") -> dict[str, Any]:
    """The JSON report that the role wrote, which has to be valid by its schema."""
    read: dict[str, Any] = json.loads((ansible.folder / "cmk-audit" / f"{name}.json").read_text())
    jsonschema.validate(read, json.loads(SCHEMA.read_text()))
    return read


def looked_at(ansible: Ansible, **options: Any) -> dict[str, dict[str, Any]]:
    """The report of each account, by name."""
    run = audit(ansible, **options)
    assert run.rc == 0, run.output
    return {account["name"]: account for account in report(ansible)["accounts"]}


def shown(run: Run) -> str:
    return " ".join(run["Show the summary, the most severe findings, and the paths of the reports"]["msg"])


def found(account: dict[str, Any]) -> list[str]:
    return [one["id"] for one in account["findings"]]


@pytest.mark.parametrize(("rbac", "follow"), [(True, False), (False, True)], ids=["rbac, pinned", "policy, following"])
@pytest.mark.slow(every=2)
def test_compliant_accounts(ansible: Ansible, service: Service, rbac: bool, follow: bool) -> None:
    service.on_key(rbac=rbac, follow=follow)
    service.make_account("account2")
    service.keys().update_key_rotation_policy("key1", rotation()) if follow else None
    before = holdings(service)

    accounts = looked_at(ansible, pools=True)

    assert holdings(service) == before
    assert {name: (one["state"], found(one), one["unknown"]) for name, one in accounts.items()} == {
        "account1": ("ok", [], {}),
        "account2": ("ok", [], {}),
    }
    first = accounts["account1"]
    version = service.key().properties.version
    assert (first["version"], first["newest_version"], first["access"], first["available"]) == (
        *(version, version),
        *("granted", True),
    )
    assert first["key_version"] == (None if follow else version)
    assert first["vault"]["authorization"] == ("rbac" if rbac else "access_policy")
    assert (accounts["account2"]["version"], accounts["account2"]["vault"]) == (None, None)


def rotation() -> KeyRotationPolicy:
    return KeyRotationPolicy(lifetime_actions=[KeyRotationLifetimeAction("Rotate", time_after_create="P90D")])


@pytest.mark.slow
def test_requests_do_not_grow_with_accounts(ansible: Ansible, service: Service) -> None:
    _, key = service.on_key(rbac=True)
    few = audit(ansible)
    for number in range(2, 8):
        account = service.make_account(f"account{number}")
        service.assign(account["identity"]["principalId"], service.vault_id())
        service.point(key, f"account{number}")
    many = audit(ansible)

    assert report(ansible)["summary"]["accounts"] == 7
    assert len(many.requests) == len(few.requests)
    # The list of pools is one request per account. For twenty minutes after the access was granted, the time of
    # the account's last change is read too.
    assert len(audit(ansible, pools=True).requests) == len(many.requests) + 14
    service.sandbox.control.advance(1200)
    assert len(audit(ansible, pools=True).requests) == len(many.requests) + 7


def close(service: Service, *addresses: str) -> None:
    """Let the vault's firewall deny all addresses except these."""
    acls = {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": one} for one in addresses]}
    service.change_vault(properties={"networkAcls": acls})


def test_an_account_that_the_ip_rules_of_its_vault_may_let_in(runner: OneProcess, service: Service) -> None:
    service.on_key()
    close(service, "127.0.0.1", "203.0.113.0/24")
    assert service.is_available()

    found = done(runner.module("batch_encryption_audit", {"return_accounts": True, "pools": True}))
    [account] = found["accounts"]
    assert (account["state"], account["available"]) == ("unknown", None)
    assert "networkAcls.bypass" in account["unknown"]["network"]
    info = done(runner.another().module("batch_encryption_info", ACCOUNT))
    assert info["available"] is None
    assert "IP addresses" in info["warnings"][0]
    recovered = done(runner.another().role("recover", VARS))
    assert (recovered["changed"], recovered["available"]) == (False, None)
    moved = done(runner.another().role("rotate", {**VARS, "cmk_key_new_version": True}))
    assert moved["changed_steps"]["encryption"]


def audited(runner: OneProcess, **options: Any) -> dict[str, Any]:
    """The module's report of the only account."""
    (account,) = runner.another().module("batch_encryption_audit", {"return_accounts": True, **options})["accounts"]
    found: dict[str, Any] = account
    return found


def test_an_account_that_is_being_created(runner: OneProcess, service: Service) -> None:
    """The pools of the account cannot be listed, which is not caused by its key."""
    service.sandbox.control.timing(batch_create=600)
    service.make_account()

    account = audited(runner, pools=True)
    assert (account["state"], found(account), account["available"]) == ("under_way", [], None)
    assert "'Creating'" in account["unknown"]["pools"]


@pytest.mark.parametrize("pools", [False, True])
@pytest.mark.parametrize("position", POSITIONS["pools_without_key"])
def test_a_closed_firewall_that_allows_the_controller(
    runner: OneProcess, service: Service, position: str, pools: bool
) -> None:
    """Batch may list the pools although it cannot use the key, and the caller can read the key."""
    service.on_key()
    close(service, "127.0.0.1/32")
    service.sandbox.control.behavior(pools_without_key=position)
    assert not service.is_available()

    account = audited(runner, pools=pools)
    assert account["state"] == "at_risk"
    assert found(account) == ["network_closed", *(["account_unavailable"] if pools else [])]
    assert account["available"] is (False if pools else None)


def who_reads(service: Service, *roles: str) -> dict[str, str]:
    """Create a principal that has these roles on the subscription. Returns the environment that signs in as it."""
    scope = service.sandbox.subscription
    made = service.sandbox.control.principal("auditor", roles=[{"role": role, "scope": scope} for role in roles])
    return {"AZURE_CLIENT_ID": made["client_id"], "AZURE_SECRET": made["secret"], "AZURE_CLIENT_SECRET": made["secret"]}


@pytest.mark.slow(every=2)
@pytest.mark.parametrize("fail_on", ["never", "high"])
def test_unreadable_items_are_unknown_and_not_compliant(ansible: Ansible, service: Service, fail_on: str) -> None:
    """The screen, the exit status and the reports agree on that."""
    service.on_key(rbac=True)
    run = audit(ansible, environment=who_reads(service, READER), fail_on=fail_on)

    incomplete = (
        "Not all data of 1 of 1 Batch account (account1) is known. The caller lacks "
        "Microsoft.KeyVault/vaults/keys/read."
    )
    if fail_on == "never":
        assert run.rc == 0, run.output
        counted = "0 of 1 Batch account at risk, 0 non-compliant, 1 unknown, 0 ok."
        assert run[TASK]["summary"].startswith(f"{counted} Incomplete: {incomplete} ")
    else:
        refused = run[TASK].refused("audit_incomplete")
        assert refused["msg"].startswith(f"The audit is incomplete. {incomplete} ")
        assert "Key Vault Reader" in refused["remedy"]
        assert "cmk_exceptions" in refused["remedy"]
        assert ".json" not in refused["msg"]
    suite = ElementTree.parse(ansible.folder / "cmk-audit" / "cmk-audit.junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.attrib["failures"], suite.attrib["errors"]) == ("1", "1")
    assert incomplete in (ansible.folder / "cmk-audit" / "cmk-audit.html").read_text()
    (account,) = report(ansible)["accounts"]
    assert account["missing_rights"] == ["Microsoft.KeyVault/vaults/keys/read"]
    assert account["state"] == "unknown"
    assert found(account) == ["not_read"]
    assert "Microsoft.KeyVault/vaults/keys/read" in account["unknown"]["key"]
    assert (account["version"], account["key_type"], account["days_left"]) == (None, None, None)
    assert (account["access"], account["vault"]["purge_protection"]) == ("granted", True)


def test_the_audit_fails_after_it_has_written_the_reports(ansible: Ansible, service: Service) -> None:
    principal, _ = service.on_key()
    service.revoke(principal)

    run = audit(ansible, fail_on="high")

    assert run.rc != 0
    assert run[TASK].refused("audit_failed")["findings"][0].startswith("account1: access_missing (critical)")
    assert report(ansible)["summary"]["states"]["at_risk"] == 1
    service.grant(principal)
    assert audit(ansible, fail_on="high").rc == 0


def test_check_mode_writes_nothing(ansible: Ansible, service: Service) -> None:
    service.on_key()
    run = audit(ansible, check=True)

    assert run.rc == 0, run.output
    assert run[TASK]["counts"]["accounts"] == 1
    assert run[TASK]["files"] == {}
    assert not (ansible.folder / "cmk-audit").exists()


def test_all_formats_have_the_same_content(ansible: Ansible, service: Service) -> None:
    principal, _ = service.on_key()
    service.make_account("account2")
    service.revoke(principal)

    run = audit(ansible)

    whole = report(ansible)
    folder = ansible.folder / "cmk-audit"
    assert sorted(Path(path).name for path in run[TASK]["files"].values()) == sorted(
        f"cmk-audit{suffix}" for suffix in (".json", ".csv", ".junit.xml", ".sarif", ".html")
    )
    with (folder / "cmk-audit.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["state"]) for row in rows] == [(one["name"], one["state"]) for one in whole["accounts"]]
    assert rows[0]["open_findings"] == "access_missing"
    assert rows[0]["subscription_name"] == whole["accounts"][0]["subscription_name"] == "Sandbox (not Azure)"
    cases = JUnitXml.fromfile(str(folder / "cmk-audit.junit.xml"))
    assert (cases.tests, cases.failures) == (2, 1)
    assert [case.is_passed for suite in cases for case in suite] == [False, True]
    sarif = json.loads((folder / "cmk-audit.sarif").read_text())
    (result,) = sarif["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("access_missing", "error")
    assert sarif["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "access_missing"
    assert "account1" in (folder / "cmk-audit.html").read_text()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_evidence_has_checksums_and_the_last_drill(runner: OneProcess, service: Service, tmp_path: Path) -> None:
    _principal, first = service.on_key()
    second = service.make_key().id
    service.point(second)
    for day, passed in ((1, False), (2, True)):
        drill = {"account_id": service.account_id("account1"), "kind": "disable_key", "passed": passed}
        times = {"started_at": f"2026-06-0{day}T12:00:00Z", "seconds_until_refused": 60, "seconds_until_recovered": 600}
        (tmp_path / f"drill{day}.json").write_text(json.dumps({**drill, **times}))
    folder = tmp_path / "audit"
    options = {"cmk_audit_folder": str(folder), "cmk_audit_formats": ["json", "evidence"]}

    found = done(runner.role("audit", {**options, "cmk_drill_folder": str(tmp_path)}))

    read = json.loads((folder / "cmk-audit.json").read_text())
    jsonschema.validate(read, json.loads(SCHEMA.read_text()))
    [key] = read["keys"]
    states = [(one["version"], one["state"]) for one in key["versions"]]
    assert states == [(second[-32:], "active"), (first[-32:], "deactivated")]
    assert key["versions"][1]["replaced_on"] == key["versions"][0]["created_on"]
    assert [one["passed"] for one in read["drills"]] == [True]
    subprocess.run(["sha256sum", "--check", "--strict", Path(found["files"]["checksums"]).name], cwd=folder, check=True)
    assert (folder / "cmk-audit.sha256").read_text().count("\n") == 2
    other = done(runner.another().role("audit", {**options, "cmk_drill_folder": str(folder)}))
    assert any("has no report of a drill" in one for one in other["warnings"])


@pytest.mark.slow
def test_two_reports_are_compared(ansible: Ansible, service: Service) -> None:
    principal, _ = service.on_key()
    service.make_account("account2")
    path = str(ansible.folder / "cmk-audit" / "cmk-audit.json")
    begin = audit(ansible, compare_with=path)
    assert begin[TASK]["comparison"] is None
    assert "no changes are reported" in begin[TASK].warnings[0]

    service.revoke(principal)
    service.batch.batch_account.begin_delete("rg-sandbox", "account2").wait(30)
    service.make_account("account3")
    run = audit(ansible, compare_with=path)

    counted = {name: number for name, number in run[TASK]["comparison"].items() if name != "since"}
    assert counted == {"added": 1, "removed": 1, "changed": 2, "opened": 1, "closed": 0, "not_compared": 0}
    comparison = report(ansible)["comparison"]
    assert [one["name"] for one in (*comparison["added"], *comparison["removed"])] == ["account3", "account2"]
    assert {(one["field"], one["before"], one["after"]) for one in comparison["changed"]} == {
        ("state", "ok", "at_risk"),
        ("access", "granted", "missing"),
    }
    assert comparison["opened"][0]["finding"] == "access_missing"
    changes = "1 new finding (access_missing of account1), 1 added account (account3), 1 removed account (account2)."
    assert f"Since {comparison['since']}: {changes}" in shown(run)

    failed = audit(ansible, compare_with=path, fail_on="critical")
    assert "no new or closed finding." in failed[TASK]["msg"]
    service.grant(principal)
    other = audit(ansible, compare_with=path, pools=True)
    assert other[TASK].warnings == [
        "cmk_audit_pools is true, and was false in the earlier report, so some differences may not be changes."
    ]
    assert [one["finding"] for one in report(ansible)["comparison"]["closed"]] == ["access_missing"]


@pytest.mark.parametrize("fail_on", ["never", "critical"])
def test_a_caller_without_any_role(ansible: Ansible, service: Service, fail_on: str) -> None:
    """A gate that could read nothing must not be open."""
    service.on_key()
    run = audit(ansible, environment=who_reads(service), fail_on=fail_on)

    (incomplete, *_) = run[TASK]["unlisted"]
    if fail_on == "never":
        assert run.rc == 0, run.output
        assert run[TASK]["summary"].startswith("Incomplete: ")
    else:
        # The ids are shortened there.
        reason = re.sub("([0-9a-f]{8})-[0-9a-f-]{27}", r"\1…", incomplete["reason"])
        assert f"could be listed: {reason}" in run[TASK].refused("audit_incomplete")["msg"]
    junit = ElementTree.parse(ansible.folder / "cmk-audit" / "cmk-audit.junit.xml").getroot()
    assert junit.find("testsuite").attrib["errors"] == "1"
    assert len(list(junit.iter("error"))) == 1
    page = (ansible.folder / "cmk-audit" / "cmk-audit.html").read_text()
    assert page.index("No Batch account could be read.") < page.index("On a customer-managed key")
    assert "could be listed" in page
    assert "No open findings." not in page


def test_a_subscription_that_the_caller_cannot_read(ansible: Ansible, service: Service) -> None:
    service.on_key()
    second = service.sandbox.control.call("POST", "/subscriptions", {"name": "second"})["subscription_id"]
    reader = who_reads(service, READER)
    run = audit(ansible, environment=reader, subscriptions=[service.sandbox.subscription_id, second])

    assert run.rc == 0, run.output
    assert report(ansible)["unlisted_subscriptions"] == [second]
    assert second in run[TASK].warnings[0]


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"max_version_age": "90 days"}, "max_version_age"),
    ({"subscriptions": ["mine"]}, "subscriptions"),
    ({"account_name": "account1"}, "resource_group"),
    ({"resource_group": "rg-sandbox", "account_name": "my-account"}, "account_name"),
    ({"name": "../audit"}, "name"),
    ({"folder": "/proc/audit"}, "folder"),
    ({"compare_with": "ansible.cfg"}, "compare_with"),
    ({"exceptions": [{"finding": "not_read", "accounts": ["*"], "reason": "So", "expires_on": "soon"}]}, "exceptions"),
]


def test_malformed_options_are_refused_before_anything_is_read(ansible: Ansible) -> None:
    run = ansible.play([fails(task(named, "batch_encryption_audit", **options)) for options, named in MALFORMED])

    assert run.requests == []
    for _options, named in MALFORMED:
        assert run[named].get("option") == named, run[named]
        assert named in run[named]["msg"]


@pytest.mark.parametrize("account", [None, "account2"])
def test_the_accounts_of_a_group_and_one_account(runner: OneProcess, service: Service, account: str | None) -> None:
    service.make_account("account2")
    service.make_account("account3")
    service.make_group("rg-two")
    done(runner.module("batch_account_identity", {"resource_group": "rg-two", "name": "account4"}))

    wanted = {"resource_group": "rg-sandbox", "account_name": account, "return_accounts": True}
    found = done(runner.another().module("batch_encryption_audit", wanted))

    assert [one["name"] for one in found["accounts"]] == ([account] if account else ["account2", "account3"])
