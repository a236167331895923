# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checks before an account is moved to a key: each check passes, fails and is unknown."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from documents import (
    CRYPTO_OFFICER,
    DAY,
    DEFINITIONS,
    ENCRYPTION_USER,
    KEY,
    NEW,
    NOW,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
    TENANT,
    VAULT_ID,
    assignment,
    definition,
    evidence,
    key,
    policy,
    vault,
)
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._checks import preflight
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, NotFound, Refused, Unavailable

NAMES = [
    "identity_present",
    "vault_reachable",
    "vault_soft_delete",
    "vault_purge_protection",
    "same_tenant",
    "key_exists",
    "key_enabled",
    "key_not_expired",
    "key_type_rsa",
    "key_size_supported",
    "key_ops_wrap_unwrap",
    "access_granted",
    "network_open_to_batch",
]
DENIED = Denied("You may not.")
BUSY = Unavailable("It is busy.")
GONE = Unavailable("No response.", code="vault_unreachable")


def checks(**read: Any) -> dict[str, dict[str, str]]:
    """Every check by its name, whether or not a check fails."""
    return {check["name"]: check for check in preflight.describe(preflight.judged(evidence(**read)))}


def roles(*assigned: dict[str, Any], of: str = PRINCIPAL) -> dict[str, Any]:
    return {"vault": vault(rbac=True), "assignments": {of: list(assigned)}, "definitions": DEFINITIONS}


def of_vault(*policies: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {"vault": vault(*(policies or (policy(),)), **properties)}


def of_key(**fields: Any) -> dict[str, Any]:
    return {"bundle": key(**fields)}


def without(document: dict[str, Any], *path: str) -> dict[str, Any]:
    """The document without the field at this path."""
    first, *rest = path
    kept = {name: value for name, value in document.items() if name != first}
    return {**kept, first: without(document[first], *rest)} if rest else kept


MANAGEMENT_GROUP = "/providers/Microsoft.Management/managementGroups/mg"
CLOSED = {"defaultAction": "Deny", "bypass": "None", "ipRules": [], "virtualNetworkRules": []}


@pytest.mark.parametrize(
    ("name", "status", "read"),
    [
        ("identity_present", "ok", {}),
        ("identity_present", "failed", {"principals": ()}),
        ("vault_reachable", "ok", {}),
        ("vault_reachable", "ok", {"vault": DENIED}),
        ("vault_reachable", "ok", {"bundle": DENIED}),
        ("vault_reachable", "failed", {"bundle": GONE}),
        ("vault_reachable", "failed", {"bundle": GONE, "vault": DENIED}),
        ("vault_reachable", "unknown", {"bundle": BUSY, "vault": DENIED}),
        ("vault_soft_delete", "ok", {}),
        ("vault_soft_delete", "ok", of_vault(enableSoftDelete=None)),
        ("vault_soft_delete", "failed", of_vault(enableSoftDelete=False)),
        ("vault_soft_delete", "unknown", {"vault": DENIED}),
        ("vault_purge_protection", "ok", {}),
        ("vault_purge_protection", "failed", of_vault(enablePurgeProtection=None)),
        ("vault_purge_protection", "ok", {"vault": DENIED, **of_key(recoveryLevel="CustomizedRecoverable")}),
        ("vault_purge_protection", "failed", {"vault": DENIED, **of_key(recoveryLevel="Recoverable+Purgeable")}),
        ("vault_purge_protection", "failed", {"vault": None, **of_key(recoveryLevel="Purgeable")}),
        ("vault_purge_protection", "unknown", {"vault": DENIED, "bundle": DENIED}),
        ("vault_purge_protection", "unknown", {"vault": DENIED, "bundle": None}),
        ("same_tenant", "ok", {}),
        ("same_tenant", "ok", {"tenant_id": TENANT.upper()}),
        ("same_tenant", "ok", of_vault(tenantId=TENANT.upper())),
        ("same_tenant", "failed", {"tenant_id": SUBSCRIPTION}),
        ("same_tenant", "unknown", {"tenant_id": None}),
        ("key_exists", "ok", {}),
        ("key_exists", "failed", {"bundle": None}),
        ("key_exists", "unknown", {"bundle": DENIED}),
        ("key_enabled", "ok", {}),
        ("key_enabled", "failed", of_key(enabled=False)),
        ("key_enabled", "unknown", {"bundle": DENIED}),
        ("key_not_expired", "ok", {}),
        ("key_not_expired", "ok", of_key(nbf=NOW - DAY, exp=NOW + DAY)),
        ("key_not_expired", "ok", of_key(nbf=NOW, exp=NOW + 1)),
        ("key_not_expired", "failed", of_key(exp=NOW)),
        ("key_not_expired", "failed", of_key(nbf=NOW + 1)),
        ("key_not_expired", "unknown", {"bundle": DENIED}),
        ("key_type_rsa", "ok", of_key(kty="RSA-HSM")),
        ("key_type_rsa", "failed", of_key(kty="EC")),
        ("key_type_rsa", "unknown", {"bundle": DENIED}),
        ("key_size_supported", "ok", of_key(size=2048)),
        ("key_size_supported", "ok", of_key(size=4096)),
        ("key_size_supported", "failed", of_key(kty="EC")),
        ("key_size_supported", "unknown", {"bundle": DENIED}),
        ("key_ops_wrap_unwrap", "ok", of_key(key_ops=["sign", "unwrapKey", "wrapKey"])),
        ("key_ops_wrap_unwrap", "failed", of_key(key_ops=["wrapKey"])),
        ("key_ops_wrap_unwrap", "failed", of_key(key_ops=["unwrapKey"])),
        ("key_ops_wrap_unwrap", "unknown", {"bundle": DENIED}),
        ("access_granted", "ok", {}),
        ("access_granted", "ok", of_vault(policy(keys=["all"]))),
        ("access_granted", "ok", of_vault(policy(PRINCIPAL.upper()))),
        ("access_granted", "failed", of_vault(policy(OTHER))),
        ("access_granted", "failed", of_vault(policy(keys=["get", "wrapKey"]))),
        ("access_granted", "failed", of_vault(policy(application=OTHER))),
        ("access_granted", "ok", {"principals": (PRINCIPAL, OTHER), **of_vault(policy(), policy(OTHER))}),
        # It is not known which of several identities Batch uses, so all of them need access.
        ("access_granted", "failed", {"principals": (PRINCIPAL, OTHER), **of_vault(policy())}),
        ("access_granted", "ok", roles(assignment(ENCRYPTION_USER, f"{VAULT_ID}/keys/batch"))),
        ("access_granted", "ok", roles(assignment(CRYPTO_OFFICER, f"/subscriptions/{SUBSCRIPTION}"))),
        (
            "access_granted",
            "ok",
            roles(assignment(ENCRYPTION_USER, MANAGEMENT_GROUP)),
        ),
        ("access_granted", "failed", roles()),
        ("access_granted", "failed", roles(assignment(ENCRYPTION_USER, f"{VAULT_ID}/keys/other"))),
        ("access_granted", "failed", roles(assignment(ENCRYPTION_USER, VAULT_ID, principal=OTHER), of=OTHER)),
        # An access policy has no effect in a vault that uses Azure RBAC.
        ("access_granted", "failed", {**roles(), "vault": vault(policy(), rbac=True)}),
        ("access_granted", "unknown", {**roles(), "assignments": DENIED}),
        ("access_granted", "unknown", {"principals": ()}),
        ("access_granted", "unknown", {"vault": DENIED}),
        ("network_open_to_batch", "ok", {}),
        ("network_open_to_batch", "ok", of_vault(publicNetworkAccess=None)),
        ("network_open_to_batch", "ok", of_vault(networkAcls={**CLOSED, "bypass": "AzureServices"})),
        (
            "network_open_to_batch",
            "ok",
            of_vault(publicNetworkAccess="enabled", networkAcls={**CLOSED, "defaultAction": "allow"}),
        ),
        ("network_open_to_batch", "ok", of_vault(publicNetworkAccess="Disabled")),
        ("network_open_to_batch", "failed", of_vault(networkAcls=CLOSED)),
        (
            "network_open_to_batch",
            "failed",
            of_vault(publicNetworkAccess="Disabled", networkAcls={**CLOSED, "defaultAction": "Allow"}),
        ),
        ("network_open_to_batch", "unknown", {"vault": DENIED}),
        ("network_open_to_batch", "unknown", of_vault(publicNetworkAccess="SecuredByPerimeter")),
        # Fields that Azure leaves out.
        ("key_ops_wrap_unwrap", "failed", {"bundle": without(key(), "key", "key_ops")}),
        (
            "vault_purge_protection",
            "failed",
            {"vault": without(vault(policy()), "properties", "enablePurgeProtection")},
        ),
        (
            "vault_purge_protection",
            "failed",
            {"vault": DENIED, "bundle": without(key(), "attributes", "recoveryLevel")},
        ),
        ("key_size_supported", "failed", {"bundle": without(key(), "key", "n")}),
        ("access_granted", "failed", {"vault": without(vault(policy()), "properties", "accessPolicies")}),
    ],
)
def test_check(name: str, status: str, read: dict[str, Any]) -> None:
    check = checks(**read)[name]

    assert check["status"] == status, check
    assert check["evidence"]
    # Only a failed check has a remedy.
    assert bool(check["remedy"]) is (status == "failed")


def test_all_failed_checks_are_reported_at_once() -> None:
    wrong = evidence(
        f"{KEY}/{NEW}",
        principals=(OTHER,),
        tenant_id=SUBSCRIPTION,
        vault=vault(policy(), enableSoftDelete=False, enablePurgeProtection=None, networkAcls=CLOSED),
        bundle=key(kty="EC", enabled=False, exp=NOW, key_ops=["sign"]),
    )

    with pytest.raises(Refused) as refused:
        preflight.require(wrong)

    failed = [name for name in NAMES if name not in ("identity_present", "vault_reachable", "key_exists")]
    assert refused.value.code == "preflight_failed"
    assert refused.value.facts["failed_checks"] == failed
    # The other checks do not help, and would fill the screen.
    assert [check["name"] for check in refused.value.facts["preflight"]] == failed
    first, *lines = refused.value.msg.splitlines()
    assert first == "The account was not moved to the key batch."
    assert refused.value.facts["key_identifier"] == f"{KEY}/{NEW}"
    for number, (check, line) in enumerate(zip(refused.value.facts["preflight"], lines, strict=True), 1):
        assert line == f"{number}. {check['evidence']} {check['remedy']}"
        assert f"{number}. {check['remedy']}" in refused.value.facts["remedy"].splitlines()


READ = st.fixed_dictionaries(
    {
        "principals": st.sampled_from([(), (PRINCIPAL,), (PRINCIPAL, OTHER)]),
        "vault": st.sampled_from(
            [
                None,
                DENIED,
                NotFound("The vault does not exist."),
                vault(),
                vault(policy()),
                vault(rbac=True, networkAcls=CLOSED),
            ]
        ),
        "bundle": st.sampled_from([None, DENIED, BUSY, GONE, key(), key(enabled=False), key(kty="EC"), key(exp=NOW)]),
        "assignments": st.sampled_from([{}, DENIED, {PRINCIPAL: [assignment(ENCRYPTION_USER, VAULT_ID)]}]),
        "definitions": st.just(DEFINITIONS),
        "tenant_id": st.sampled_from([None, TENANT, SUBSCRIPTION]),
    }
)


@given(READ)
def test_preflight_passes_exactly_if_no_check_fails(read: dict[str, Any]) -> None:
    statuses = {name: check["status"] for name, check in checks(**read).items()}

    assert list(statuses) == NAMES
    try:
        passed = preflight.require(evidence(**read))
    except Refused as refused:
        assert refused.facts["failed_checks"] == [name for name in NAMES if statuses[name] == "failed"] != []  # noqa: PT017
    else:
        assert "failed" not in statuses.values()
        assert len(preflight.warnings(passed)) == list(statuses.values()).count("unknown")


def test_a_key_that_expires_soon_fails_for_an_account_that_moves_to_it() -> None:
    soon, later = (evidence(bundle=key(exp=NOW + seconds)) for seconds in (3600, 3601))

    with pytest.raises(Refused) as refused:
        preflight.require(preflight.lasting(soon))

    assert refused.value.facts["failed_checks"] == ["key_not_expired"]
    assert preflight.require(preflight.lasting(later))
    # A rollback to the key passes the check, and an account that already uses the key has no finding.
    assert preflight.require(soon)


def by_role(*ages: int, changed: str | None = "2020-01-01T00:00:00.123Z", **network: Any) -> dict[str, Any]:
    """The account has access by role assignments of these ages, to a vault that was `changed` at that time."""
    seen = vault(rbac=True, **network)
    if changed:
        seen["systemData"] = {"lastModifiedAt": changed}
    given = [assignment(ENCRYPTION_USER, VAULT_ID, name=f"of-{age}", age=age) for age in ages]
    return {"vault": seen, "assignments": {PRINCIPAL: given}}


def by_two(*ages: int, undated: bool = False) -> dict[str, Any]:
    """The same for two identities, of which the second has access by assignments of these ages."""
    others = [assignment(ENCRYPTION_USER, VAULT_ID, principal=OTHER, name=f"of-{age}", age=age) for age in ages]
    for one in others if undated else ():
        del one["properties"]["createdOn"]
    read = by_role(DAY)
    return {**read, "principals": (PRINCIPAL, OTHER), "assignments": {**read["assignments"], OTHER: others}}


CLOSED = {"bypass": "None", "defaultAction": "Deny", "ipRules": []}
LET_IN = {**CLOSED, "ipRules": [{"value": "203.0.113.7"}]}


@pytest.mark.parametrize(
    ("read", "since"),
    [
        pytest.param(by_role(DAY), NOW - DAY, id="access granted"),
        pytest.param(by_role(60, DAY), NOW - DAY, id="access granted a second time"),
        pytest.param(by_role(DAY, changed="2026-05-28T20:06:40.1234567Z"), 1779998800, id="vault changed later"),
        pytest.param(by_role(DAY, changed=None), inf, id="time of the change not known"),
        pytest.param(by_role(), inf, id="no access"),
        pytest.param(by_two(60), NOW - 60, id="access of another identity granted later"),
        pytest.param(by_two(), inf, id="no access of another identity"),
        pytest.param(by_two(60, undated=True), inf, id="assignment without a time"),
        pytest.param({**by_role(DAY), "principals": ()}, inf, id="no identity"),
        pytest.param({**by_role(DAY), "assignments": Denied("Not for you.")}, inf, id="access not read"),
        pytest.param({**by_role(DAY), "vault": None}, inf, id="no vault"),
        pytest.param({**by_role(DAY), "vault": Denied("Not for you.")}, inf, id="vault not read"),
        pytest.param(by_role(DAY, networkAcls=CLOSED), inf, id="closed network"),
        pytest.param(by_role(DAY, networkAcls=LET_IN), inf, id="network that may let Batch in"),
        pytest.param(by_role(DAY, publicNetworkAccess="SecuredByPerimeter"), inf, id="perimeter"),
        pytest.param(
            {"vault": {**vault(policy()), "systemData": {"lastModifiedAt": "2026-05-28T20:06:40Z"}}},
            1779998800,
            id="access policies",
        ),
    ],
)
def test_since_when_an_account_can_use_its_key(read: dict[str, Any], since: float) -> None:
    assert preflight.usable_since(evidence(**read)) == since


def test_access_by_several_role_assignments_begins_with_the_last() -> None:
    reads = assignment(READS_KEYS, VAULT_ID, name="reads", age=9 * DAY)
    wraps = assignment(WRAPS_KEYS, VAULT_ID, name="wraps", age=DAY)
    definitions = {READS_KEYS: _allowing("read"), WRAPS_KEYS: _allowing("wrap/action", "unwrap/action")}
    given = {"vault": vault(rbac=True), "assignments": {PRINCIPAL: [wraps, reads]}, "definitions": definitions}

    assert preflight.access_since(evidence(**given)) == NOW - DAY


@pytest.mark.parametrize(
    ("read", "since"),
    [
        # Batch may use any of the identities.
        pytest.param(by_two(60), NOW - 60, id="the later of two identities"),
        pytest.param(by_two(9 * DAY), NOW - DAY, id="the later of two identities, the first"),
        pytest.param(by_two(), NOW - DAY, id="the other identity has no access"),
        pytest.param(by_two(60, undated=True), NOW - DAY, id="assignment without a time"),
        pytest.param({"vault": vault(policy())}, 0, id="access policy"),
        pytest.param({**by_role(DAY), "vault": None}, 0, id="no vault"),
    ],
)
def test_since_when_an_account_has_access(read: dict[str, Any], since: float) -> None:
    assert preflight.access_since(evidence(**read)) == since


READS_KEYS, WRAPS_KEYS = "1" * 8 + "-0000-0000-0000-000000000000", "2" * 8 + "-0000-0000-0000-000000000000"


def _allowing(*operations: str) -> dict[str, Any]:
    return definition(([f"Microsoft.KeyVault/vaults/keys/{one}" for one in operations], []))
