# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of an audit, from the documents that the audit has read."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import jinja2
import pytest
import yaml
from documents import (
    CRYPTO_OFFICER,
    DAY,
    DEFINITIONS,
    GROUP_OF_PEOPLE,
    KEY,
    NEW,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    VAULT_ID,
    account,
    assignment,
    identity_id,
    key,
    listed,
    rotation_policy,
    user_assigned,
    vault,
)
from fleets import asked, found, many, on, report, seen

from ansible_collections.azbatch.cmk.plugins.module_utils._audit import files
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.audit import summary
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.comparison import compared
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.csv_rows import as_csv
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.junit import as_junit
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.policy import policy as parsed
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.remedies import ready
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.report import FORMAT, unseen
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.rules import RULES
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.sarif import as_sarif
from ansible_collections.azbatch.cmk.plugins.module_utils._core.duration import instant
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    InvalidOption,
    Rejected,
    Unavailable,
)


def only(one: dict[str, Any]) -> dict[str, Any]:
    (account,) = one["accounts"]
    return account


def keys(**others: Any) -> dict[str, Any]:
    """The documents of the key, with other values for some fields."""
    return {KEY: {**seen()["keys"][KEY], **others}}


# The current state of an account


@pytest.mark.parametrize(
    ("left", "days", "finding"),
    [
        (31 * DAY, 31, []),
        (30 * DAY - 1, 29, ["key_expires_soon"]),
        (0, 0, ["version_unusable"]),
        (-1, -1, ["version_unusable"]),
    ],
)
def test_days_left(left: int, days: int, finding: list[str]) -> None:
    newest = key(exp=NOW + left)
    one = report(on(), keys=keys(newest=newest, versions=[listed(newest)]))

    assert only(one)["days_left"] == days
    assert [name for name in found(one) if name != "key_expires_soon" or left > 0] == finding


@pytest.mark.parametrize(
    ("used", "left", "changed", "is_found"),
    [
        pytest.param(None, DAY, None, True, id="follows"),
        pytest.param(None, 6 * DAY, None, False, id="follows, after the margin"),
        pytest.param(NEW, DAY, NOW - 2 * DAY, True, id="pinned, moved inside the margin"),
        pytest.param(NEW, 6 * DAY, NOW - 2 * DAY, False, id="pinned, after the margin"),
        pytest.param(NEW, DAY, NOW - 8 * DAY, False, id="pinned, moved long ago"),
        pytest.param(NEW, 6 * DAY, None, True, id="pinned, moved at an unknown time"),
    ],
)
def test_another_version_that_expires_while_it_may_be_in_use(
    used: str | None, left: int, changed: int | None, is_found: bool
) -> None:
    """The newest version was created two days ago."""
    old = key(OLD, created=NOW - 100 * DAY, updated=NOW - 100 * DAY, exp=NOW + left)
    new = key(NEW, created=NOW - 2 * DAY, updated=NOW - 2 * DAY)
    rotated = keys(newest=new, versions=[listed(old), listed(new)], policy=rotation_policy(timeAfterCreate="P90D"))
    read = {"changed_at": {on()["id"].lower(): changed}} if used else {}

    one = report(on(used), keys=rotated, **read)

    assert found(one) == (["key_expires_soon"] if is_found else [])
    if is_found:
        (finding,) = only(one)["findings"]
        assert f"Version {OLD}, which Batch may still need until " in finding["evidence"]
        assert "Set a later expiry" in finding["remedy"]
        assert finding["deadline"] == instant(NOW + left)
        assert ready("key_expires_soon", one) is None
    # A version that expires too is one finding with it.
    newest = key(NEW, created=NOW - 2 * DAY, updated=NOW - 2 * DAY, exp=NOW + 3 * DAY)
    both = keys(newest=newest, versions=[listed(old), listed(newest)], policy=rotation_policy(timeAfterCreate="P90D"))
    (finding,) = only(report(on(used), keys=both, **read))["findings"]
    assert (finding["id"], OLD in finding["evidence"]) == ("key_expires_soon", is_found)
    assert finding["deadline"] == instant(min(left, 3 * DAY) + NOW if is_found else NOW + 3 * DAY)


@pytest.mark.parametrize(
    ("provisioning", "state", "expected"),
    [
        ("Succeeded", "non_compliant", ["newer_version_unused"]),
        ("Failed", "non_compliant", ["account_failed", "newer_version_unused"]),
        # The roles leave such an account alone, so no repair applies.
        ("Creating", "under_way", []),
        ("Deleting", "under_way", []),
    ],
)
def test_the_state_of_the_last_operation(provisioning: str, state: str, expected: list[str]) -> None:
    """The list of accounts shows it, without the pools."""
    account = on(OLD)
    account["properties"]["provisioningState"] = provisioning
    one = report(account)

    assert (only(one)["provisioning_state"], only(one)["state"]) == (provisioning, state)
    assert found(one) == expected
    assert (ready("newer_version_unused", one) is None) is (state == "under_way")
    said = "1 being created or deleted, 0 ok."
    assert (said in summary(one["summary"], "")) is (state == "under_way")


@pytest.mark.parametrize(
    ("age", "pools", "changed", "state"),
    [
        pytest.param(7 * DAY, False, None, "ok", id="outside the margin"),
        pytest.param(7 * DAY - 1, False, None, "unknown", id="inside the margin"),
        pytest.param(7 * DAY - 1, True, NOW, "unknown", id="inside the margin, with pools, account changed"),
    ],
)
def test_a_follower_may_need_its_previous_version_inside_the_margin(
    age: int, pools: bool, changed: int | None, state: str
) -> None:
    """The previous version was disabled two hours ago."""
    old = key(OLD, created=NOW - 100 * DAY, updated=NOW - 7200, enabled=False)
    new = key(NEW, created=NOW - age, updated=NOW - age)
    rotated = keys(newest=new, versions=[listed(old), listed(new)], policy=rotation_policy(timeAfterCreate="P90D"))
    name = on()["id"].lower()
    read = {"pools": {name: []} if pools else {}, "changed_at": {name: changed} if changed else {}}

    assert only(report(on(None), keys=rotated, **read))["state"] == state


@pytest.mark.parametrize(("middle", "there"), [({}, True), ({"enabled": False}, False), ({"nbf": NOW + 1}, False)])
def test_a_usable_version_before_a_disabled_newest_version_counts(middle: dict[str, Any], there: bool) -> None:
    versions = [
        key(OLD, created=NOW - 9 * DAY),
        key("d" * 32, created=NOW - 5 * DAY, **middle),
        key(NEW, enabled=False),
    ]
    of_key = keys(newest=versions[-1], versions=[listed(one) for one in versions])

    one = report(on(OLD), keys=of_key)
    assert only(one)["newer_version_exists"] is ("newer_version_unused" in found(one)) is there
    if there:
        (finding,) = only(one)["findings"]
        assert finding["evidence"] == (
            f"Version {'d' * 32} is newer than version {OLD}, and can be used. The newest version cannot be used: "
            f"version {NEW} is disabled."
        )
        assert finding["remedy"] == RULES["newer_version_unused"].remedy
        assert ready("newer_version_unused", one) is not None


def test_access_that_may_depend_on_a_group_is_not_known() -> None:
    of_group = assignment(CRYPTO_OFFICER, VAULT_ID, principal=GROUP_OF_PEOPLE)
    given = {KEY: {"by_principal": {}, "of_groups": [of_group]}}
    one = only(report(on(), grants=given, definitions=DEFINITIONS))

    assert (one["access"], one["state"]) == (None, "unknown")
    assert GROUP_OF_PEOPLE in one["unknown"]["access"]


@pytest.mark.parametrize("is_read", [False, True])
def test_one_of_two_identities_has_access(is_read: bool) -> None:
    identities = user_assigned(**{"id-one": PRINCIPAL, "id-two": OTHER})
    both = account(key=f"{KEY}/{NEW}", identity=identities)
    there = {name.lower(): one["principalId"] for name, one in identities["userAssignedIdentities"].items()}
    pools = {both["id"].lower(): []} if is_read else {}

    one = report(both, identities={identity_id().split("/")[2]: there}, pools=pools)

    assert (only(one)["access"], found(one)) == (("granted", []) if is_read else (None, ["not_read"]))
    assert is_read or "pools: true" in only(one)["unknown"]["access"]


def test_what_could_not_be_read_is_one_line_with_the_missing_rights() -> None:
    """Thousands of accounts would otherwise be thousands of lines."""
    lacking = Denied("No keys for you.", action="Microsoft.KeyVault/vaults/keys/read")
    hidden = {"newest": lacking, "versions": None, "policy": None, "deleted": None}
    unread = {"keys": {KEY: hidden}, "named": {f"{KEY}/{NEW}": lacking}}
    accounts = [account("plain"), *(on(name=f"batch{number}") for number in range(7))]

    assert unseen(report(*accounts, **unread)) == [
        "Not all data of 7 of 8 Batch accounts (batch0, batch1, batch2, batch3, batch4 and 2 more) is known. The "
        "caller lacks Microsoft.KeyVault/vaults/keys/read."
    ]
    (line,) = unseen(report(on(), grants={KEY: Unavailable("Busy.")}))
    assert line == "Not all data of 1 of 1 Batch account (mybatch) is known. mybatch: access: Busy."
    known = {"finding": "not_read", "accounts": ["*"], "reason": "So.", "expires_on": "2099-12-31"}
    assert unseen(report(*accounts, **unread, by={"exceptions": [known]})) == []
    (invocation,) = json.loads(as_sarif(report(*accounts, **unread)))["runs"][0]["invocations"]
    assert (invocation["executionSuccessful"], len(invocation["toolExecutionNotifications"])) == (False, 1)


def test_identities() -> None:
    both = account(key=f"{KEY}/{NEW}", identity=user_assigned(**{"id-one": PRINCIPAL}))
    subscription = identity_id().split("/")[2]

    def end_state(listed: Any) -> dict[str, Any]:
        return only(report(both, identities={subscription: listed}))

    assert end_state({identity_id("id-one").lower(): PRINCIPAL})["state"] == "ok"
    assert end_state({})["findings"][0]["id"] == "identity_missing"
    assert end_state({identity_id("id-one").lower(): "of another"})["findings"][0]["id"] == "identity_missing"
    assert end_state(Denied("Not for you."))["unknown"] == {f"identity {identity_id('id-one')}": "Not for you."}


def test_pools_of_an_unavailable_account() -> None:
    mine = on()["id"].lower()
    unavailable = Rejected(
        "Its key is gone.", azure={"status": 409, "code": "KeyVaultKeyNotAccessible", "message": "Gone."}
    )
    forbidden = Denied("Not for you.", azure={"status": 403, "code": "AuthorizationFailed", "message": "No."})

    assert only(report(on(), pools={mine: []}))["available"] is True
    lost = report(on(), pools={mine: unavailable})
    assert (only(lost)["available"], only(lost)["unavailable_reason"]) == (
        False,
        "Its key is gone. Azure reports: (KeyVaultKeyNotAccessible) Gone.",
    )
    assert found(lost) == ["account_unavailable"]
    hidden = only(report(on(), pools={mine: forbidden}))
    why = "Not for you. Azure reports: (AuthorizationFailed) No."
    assert (hidden["available"], hidden["unknown"], hidden["state"]) == (None, {"pools": why}, "unknown")
    busy = only(report(on(), pools={mine: Unavailable("Busy.")}))
    assert (busy["available"], busy["state"]) == (None, "unknown")


def test_vaults_without_soft_delete_or_purge_protection() -> None:
    bare = vault(rbac=True, enablePurgeProtection=None, enableSoftDelete=False)
    assert found(report(on(), vaults={"myvault": bare})) == [
        "vault_without_soft_delete",
        "vault_without_purge_protection",
    ]


# The policy


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ({}, True),
        ({"tags": {"environment": "test"}}, False),
        ({"resource_groups": ["RG-Batch"]}, True),
        ({"locations": ["West Europe"]}, True),
        ({"accounts": ["*/resourcegroups/rg-batch/*"]}, True),
        ({"accounts": ["my*"], "locations": ["eastus"]}, False),
    ],
)
def test_accounts_that_the_policy_requires_a_key_for(selector: dict[str, Any], fits: bool) -> None:
    one = report(account(tags={"environment": "production"}), by={"required": [selector]})
    assert (found(one) == ["not_on_customer_managed_key"]) is fits


def test_an_exception_is_valid_on_its_last_day() -> None:
    def end_state(day: str) -> dict[str, Any]:
        exception = {"finding": "follows_without_rotation", "accounts": ["MYBATCH"], "reason": "So.", "expires_on": day}
        return only(report(on(None), by={"exceptions": [exception]}))

    # The current date is 2026-05-28.
    assert (end_state("2026-05-28")["state"], end_state("2026-05-27")["state"]) == ("ok", "non_compliant")
    assert end_state("2026-05-27")["findings"][0]["exception"] == {
        "reason": "So.",
        "expires_on": "2026-05-27",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_version_age": "90 days"},
        {"min_days_to_expiry": -1},
        {"exceptions": [{"finding": "not_read", "accounts": [], "reason": "", "expires_on": "2027-01-01"}]},
        {"exceptions": [{"finding": "not_read", "accounts": [], "reason": "So.", "expires_on": "2027-02-30"}]},
        {"exceptions": [{"finding": "not_reed", "accounts": [], "reason": "So.", "expires_on": "2027-02-28"}]},
        {"exceptions": [{"code": "network_deny", "accounts": [], "reason": "So.", "expires_on": "2027-02-28"}]},
        {"exceptions": [{"accounts": [], "reason": "So.", "expires_on": "2027-02-28"}]},
    ],
)
def test_an_invalid_policy_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        parsed(asked(**wrong))


# The report


def test_every_rule_is_in_the_documentation() -> None:
    manual = (Path(__file__).resolve().parents[3] / "docs" / "findings.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", manual, re.MULTILINE | re.DOTALL))

    assert list(sections) == list(RULES)
    for name, rule in RULES.items():
        section = " ".join(sections[name].split())
        assert section.startswith(f"**{rule.severity}**: {rule.title}. Remedy: {rule.remedy}"), name


# The comparison of two reports


def test_subscriptions_unread_in_one_report_are_not_compared() -> None:
    whole, less = report(on(), account("plain")), report()
    less["unlisted_subscriptions"] = [on()["id"].split("/")[2]]

    comparison = compared(whole, less)

    assert (comparison["removed"], comparison["closed"]) == ([], [])
    assert comparison["not_compared"] == less["unlisted_subscriptions"]


def test_a_later_date_is_no_change() -> None:
    before, after = report(on()), report(on(), now=NOW + 3 * DAY)

    assert only(after)["version_age_days"] == 13
    comparison = compared(before, after)
    assert [value for name, value in comparison.items() if name != "since"] == [[]] * 6


# Pools

CONFIDENTIAL = {"managedDisk": {"securityProfile": {"securityEncryptionType": "DiskWithVMGuestState"}}}
GUEST_STATE = {"managedDisk": {"securityProfile": {"securityEncryptionType": "VMGuestStateOnly"}}}
WITH_SET = {"managedDisk": {"diskEncryptionSet": {"id": "/subscriptions/s/diskEncryptionSets/d"}}}
CONFIDENTIAL_SET = {"managedDisk": {"securityProfile": WITH_SET["managedDisk"]}}


@pytest.mark.parametrize(
    ("machine", "by"),
    [
        (None, []),
        ({"diskEncryptionConfiguration": None, "securityProfile": None, "osDisk": None, "dataDisks": None}, []),
        ({"diskEncryptionConfiguration": {"targets": ["TemporaryDisk"]}}, ["diskEncryptionConfiguration"]),
        ({"securityProfile": {"encryptionAtHost": True}}, ["encryptionAtHost"]),
        ({"securityProfile": {"securityType": "confidentialVM"}, "osDisk": GUEST_STATE}, []),
        ({"securityProfile": {"securityType": "confidentialVM"}, "osDisk": CONFIDENTIAL}, ["managedDisk"]),
        ({"osDisk": WITH_SET}, ["managedDisk"]),
        ({"osDisk": CONFIDENTIAL_SET, "dataDisks": [WITH_SET]}, ["managedDisk"]),
        ({"osDisk": WITH_SET, "dataDisks": [WITH_SET, {"lun": 1, "diskSizeGB": 8}]}, []),
    ],
)
def test_the_settings_that_encrypt_the_disks_of_a_pool(machine: dict[str, Any] | None, by: list[str]) -> None:
    pool = {"name": "a", "properties": {"deploymentConfiguration": {"virtualMachineConfiguration": machine}}}
    one = report(on(), pools={on()["id"].lower(): [pool]})

    assert only(one)["pools"][0]["encrypted_by"] == by
    targets = ["TemporaryDisk"] if by == ["diskEncryptionConfiguration"] else []
    assert only(one)["pools"][0]["encrypted_disks"] == targets
    assert found(one) == ([] if by else ["pool_disks_not_encrypted"])


@pytest.mark.parametrize(("follows", "expected"), [(None, "pinned"), (False, "pinned"), (True, "follows")])
def test_a_pool_with_its_own_key_that_is_pinned_to_a_version(follows: bool | None, expected: str) -> None:
    own = {"keyUrl": "https://other.vault.azure.net/keys/disks/1", "rotationToLatestKeyVersionEnabled": follows}
    machine = {"diskEncryptionConfiguration": {"targets": ["OsDisk"], "customerManagedKey": own}}
    pool = {"name": "a", "properties": {"deploymentConfiguration": {"virtualMachineConfiguration": machine}}}
    one = report(on(), pools={on()["id"].lower(): [pool]})

    assert only(one)["pools"][0]["key_follows_latest"] is (expected == "follows")
    assert found(one) == (["pool_key_pinned"] if expected == "pinned" else []) + ["pool_uses_other_key"]
    assert RULES["pool_key_pinned"].severity == RULES["newer_version_unused"].severity


# Formats


def test_csv_cells_are_not_formulas() -> None:
    one = report(account("plain"))
    only(one)["location"] = "=1+1"

    rows = list(csv.reader(io.StringIO(as_csv(one), newline="")))

    assert rows[1][rows[0].index("location")] == "'=1+1"


def test_characters_invalid_in_xml_are_replaced() -> None:
    one = report(on(None))
    only(one)["findings"][0]["evidence"] = "\x00<&>\ud800"

    (failure,) = xml.fromstring(as_junit(one).encode()).iter("failure")

    assert "?<&>?" in (failure.text or "")


def test_junit_cases_fail_only_above_severity_info() -> None:
    mine = on()["id"].lower()
    own = {"keyUrl": "https://other.vault.azure.net/keys/disks", "rotationToLatestKeyVersionEnabled": True}
    safe = {"targets": ["OsDisk"], "customerManagedKey": own}
    machine = {"virtualMachineConfiguration": {"diskEncryptionConfiguration": safe}}
    keyed = {"name": "keyed", "properties": {"deploymentConfiguration": machine}}

    one = report(on(), pools={mine: [keyed]})
    suite = xml.fromstring(as_junit(one).encode())[0]
    assert (only(one)["state"], found(one)) == ("ok", ["pool_uses_other_key"])
    assert (suite.attrib["failures"], list(suite.iter("failure"))) == ("0", [])
    assert str(suite.findtext("system-out")).startswith("mybatch: info: pool_uses_other_key: ")

    worse = xml.fromstring(as_junit(report(on(), pools={mine: [keyed]}, vaults={"myvault": vault()})).encode())[0]
    assert worse.attrib["failures"] == "1"
    assert "pool_uses_other_key" not in str(worse.findtext(".//failure"))


def test_sarif_marks_accepted_findings() -> None:
    results = json.loads(as_sarif(many(8)))["runs"][0]["results"]

    accepted = [one for one in results if "suppressions" in one]
    assert [one["suppressions"][0]["justification"] for one in accepted] == ["Moves soon"]
    assert len({one["partialFingerprints"]["azbatch/v1"] for one in results}) == len(results)


def test_a_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    one = report(on())
    paths = files.write(one, files.prepared(str(tmp_path / "a" / "b")), "audit", ["json", "csv"])

    assert sorted(paths) == ["csv", "json"]
    assert files.read(paths["json"], "compare_with", FORMAT) == one
    assert files.read(str(tmp_path / "none"), "compare_with", FORMAT) is None
    for content in ("{}", "[]", "no JSON", '{"format": "another"}'):
        (tmp_path / "other").write_text(content)
        with pytest.raises(InvalidOption):
            files.read(str(tmp_path / "other"), "compare_with", FORMAT)


# Remedies


def with_finding(rule: str, *accounts: dict[str, Any], **policy: Any) -> dict[str, Any]:
    """A report in which these accounts of another report have this finding."""
    found = {"id": rule, "accepted": False, "remedy": RULES[rule].remedy}
    return {"options": asked(**policy), "accounts": [{**one, "findings": [found]} for one in accounts]}


@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if rule.repair])
def test_a_remedy_is_an_inventory_and_a_playbook(rule: str) -> None:
    accounts = report(on(), account("plain"))["accounts"]
    made = ready(rule, with_finding(rule, *accounts))
    assert made is not None
    inventory, (play,) = map(yaml.safe_load, made)

    (group,) = inventory["groups"]
    assert group == f"finding_{rule}" == play.get("hosts", play.get("vars", {}).get("cmk_hosts"))
    assert selected(inventory["groups"][group], accounts) == [one["name"] for one in accounts]


def selected(condition: str, accounts: list[dict[str, Any]]) -> list[str]:
    """The names of the accounts for which the condition is true, with the variables of the inventory plugin."""
    evaluate = jinja2.Environment().compile_expression(condition)
    return [
        one["name"]
        for one in accounts
        if evaluate(
            cmk_account_id=one["id"],
            cmk_key_identifier=one["key_identifier"],
            cmk_resource_group=one["resource_group"],
        )
    ]


def test_a_remedy_selects_accounts_by_their_key() -> None:
    """The condition is short even for thousands of accounts, and excludes accounts with the same key that do not
    have the finding."""
    exceptions = [
        {"finding": "version_too_old", "accounts": ["old7"], "reason": "Moves soon", "expires_on": "2099-12-31"}
    ]
    accounts = [on(OLD, name=f"old{number}") for number in range(60)]
    one = report(*accounts, on(name="new"), account("plain"), by={"max_version_age": "P40D", "exceptions": exceptions})

    made = ready("version_too_old", one)

    assert made is not None
    condition = yaml.safe_load(made.inventory)["groups"]["finding_version_too_old"]
    assert selected(condition, one["accounts"]) == [
        f"old{number}" for number in sorted(range(60), key=str) if number != 7
    ]
    assert made.inventory.count("/batchaccounts/") == 1
    assert f"{KEY}/{OLD}" in condition


@pytest.mark.parametrize("by_id", ["account_name", "rule"])
def test_a_remedy_names_accounts_that_their_key_does_not_determine(by_id: str) -> None:
    """An account that was created after the audit may use the same key, but be outside the scope or the policy."""
    accounts = [account(f"plain{number}") for number in range(60)]
    rule = "not_on_customer_managed_key" if by_id == "rule" else "version_too_old"
    policy = {"account_name": "plain0"} if by_id == "account_name" else {}

    made = ready(rule, with_finding(rule, *report(*accounts)["accounts"], **policy))

    assert made is not None
    assert made.inventory.count("/batchaccounts/") == 60


def test_a_remedy_stays_in_the_resource_group_of_the_audit() -> None:
    accounts = report(*(on(name=f"batch{number}") for number in range(9)))["accounts"]
    made = ready("version_too_old", with_finding("version_too_old", *accounts, resource_group="RG-Batch"))
    assert made is not None
    condition = yaml.safe_load(made.inventory)["groups"]["finding_version_too_old"]

    assert len(selected(condition, accounts)) == 9
    assert selected(condition, [{**accounts[0], "resource_group": "another"}]) == []


@pytest.mark.parametrize(
    ("rule", "policy", "expires_in"),
    [
        ("version_too_old", {"expiry_required": True, "max_version_age": "P40D"}, "P1Y"),
        ("key_expires_soon", {"expiry_required": True}, "P1Y"),
        ("key_expires_soon", {}, None),
    ],
)
def test_new_versions_of_a_remedy_expire_if_the_policy_requires_that(
    rule: str, policy: dict[str, Any], expires_in: str | None
) -> None:
    made = ready(rule, with_finding(rule, *report(on())["accounts"], **policy))

    assert made is not None
    (play,) = yaml.safe_load(made.playbook)
    assert play["vars"].get("cmk_key_expires_in") == expires_in


# Causes


def causes(one: dict[str, Any]) -> list[tuple[str, int]]:
    return [(cause["id"], cause["accounts"]) for cause in one["causes"]]


def test_an_unavailable_account_has_the_cause_of_its_other_finding() -> None:
    mine = on()["id"].lower()
    lost = Rejected("Its key is gone.", azure={"status": 409, "code": "KeyVaultKeyNotAccessible"})

    both = report(on(), pools={mine: lost}, grants={KEY: {"by_principal": {}, "of_groups": []}})
    assert found(both) == ["access_missing", "account_unavailable"]
    assert causes(both) == [("access_missing:myvault/batch", 1)]
    assert causes(report(on(), pools={mine: lost})) == [("account_unavailable:myvault/batch", 1)]


def test_an_account_that_follows_may_need_a_version_that_it_does_not_use() -> None:
    old = key(OLD, created=NOW - 100 * DAY, updated=NOW - 60, enabled=False)
    new = key(NEW, created=NOW - 60, updated=NOW - 60)
    rotated = keys(newest=new, versions=[listed(old), listed(new)], policy=rotation_policy(timeAfterCreate="P90D"))

    assert found(report(on(None), keys=rotated)) == ["not_read"]
    refusal = Rejected("Its key is gone.", azure={"status": 409, "code": "KeyVaultKeyNotAccessible"})
    one = report(on(None), keys=rotated, pools={on()["id"].lower(): refusal})

    assert causes(one)[0] == ("version_unusable:myvault/batch", 1)
    assert one["causes"][0]["resource"] == {"type": "key", "name": "myvault/batch"}


def test_a_deleted_identity_is_the_cause_for_its_accounts() -> None:
    identity = user_assigned(**{"id-one": PRINCIPAL})
    two = [account(name, key=f"{KEY}/{NEW}", identity=identity) for name in ("one", "two")]

    one = report(*two, identities={identity_id().split("/")[2]: {}})

    (cause,) = one["causes"]
    assert (cause["finding"], cause["accounts"]) == ("identity_missing", 2)
    assert cause["resource"] == {"type": "identities", "name": identity_id("id-one")}


def test_a_report_does_not_follow_links(tmp_path: Path) -> None:
    """Another user who may write to the folder could create a link to a file of this user."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "reports"
    folder.mkdir()
    for name in ("audit.json", ".audit.json.part"):
        (folder / name).symlink_to(victim)
    files.write({"a": 1}, folder, "audit", ["json"])

    assert victim.read_text() == "mine"
    assert not (folder / "audit.json").is_symlink()
    assert json.loads((folder / "audit.json").read_text()) == {"a": 1}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_report_files_have_the_mode_of_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        paths = files.write({}, tmp_path, "audit", ["json"])
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(paths["json"]).st_mode) == mode


def test_failed_report_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "audit.json").mkdir()
    with pytest.raises(CmkError) as failed:
        files.write({}, tmp_path, "audit", ["json"])

    assert failed.value.code == "report_not_written"
    assert [file.name for file in tmp_path.iterdir()] == ["audit.json"]
