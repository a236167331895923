# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The causes why an account cannot use its key, and their repairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from documents import (
    DAY,
    ENCRYPTION_USER,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    TENANT,
    VAULT_ID,
    assignment,
    key,
    policy,
    symptoms,
    vault,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._checks import diagnosis, preflight
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.diagnosis import Symptoms
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, Rejected, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import read_key_identifier

UNREACHABLE = Unavailable("No response.", code="vault_unreachable")
DELETED_VAULT = {"properties": {"vaultId": VAULT_ID, "scheduledPurgeDate": "2026-09-01T00:00:00Z"}}
ASSIGNED = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one"


def causes(observed: Symptoms) -> dict[str, str | None]:
    """Each cause with its repair."""
    return {cause.name: cause.repair for cause in diagnosis.causes(observed)}


def needed(observed: Symptoms) -> list[str]:
    return [str(one) for one in diagnosis.diagnosed(observed).needed]


def unclear_of(observed: Symptoms) -> dict[str, str]:
    return diagnosis.unclear(observed, diagnosis.causes(observed))


def says(said: str) -> Rejected:
    return Rejected(f"Azure reports: {said}", azure={"message": said})


PERIMETER = vault(policy(), publicNetworkAccess="SecuredByPerimeter")
EXPIRED = key(exp=NOW - DAY)
CLOSED = vault(policy(), networkAcls={"bypass": "None", "defaultAction": "Deny"})


@pytest.mark.parametrize(
    ("observed", "found"),
    [
        pytest.param(symptoms(principals=()), {"identity_missing": None}, id="no identity"),
        pytest.param(symptoms(missing_identities=[ASSIGNED]), {"identity_missing": None}, id="identity deleted"),
        pytest.param(
            symptoms(vault=None, bundle=UNREACHABLE, versions=None, deleted_vault=DELETED_VAULT),
            {"vault_deleted": "vault"},
            id="vault deleted",
        ),
        pytest.param(
            symptoms(vault=None, bundle=UNREACHABLE, versions=None), {"vault_missing": None}, id="vault purged"
        ),
        pytest.param(symptoms(tenant_id=TENANT[::-1]), {"vault_in_other_tenant": None}, id="tenant"),
        pytest.param(symptoms(vault=CLOSED), {"network_closed": "network"}, id="firewall"),
        pytest.param(symptoms(vault=PERIMETER), {"network_closed": None}, id="perimeter"),
        pytest.param(
            symptoms(f"{KEY}/{NEW}", EXPIRED, vault=PERIMETER, bundle=EXPIRED),
            {"version_unusable": "key"},
            id="perimeter, expired",
        ),
        pytest.param(symptoms(bundle=None, versions=[], deleted_key=key()), {"key_deleted": "key"}, id="key deleted"),
        pytest.param(symptoms(bundle=None, versions=[]), {"key_missing": None}, id="key purged"),
        pytest.param(symptoms(f"{KEY}/{OLD}", bundle=None), {"version_missing": None}, id="key created again"),
        pytest.param(
            symptoms(KEY, unavailable_reason=says(f"The key '{KEY}/{OLD}' was not found.")),
            {"version_missing": None},
            id="key created again, which the account follows",
        ),
        pytest.param(
            symptoms(KEY, unavailable_reason=says(f"The key '{KEY}/{NEW}' was not found.")),
            {},
            id="key recovered",
        ),
        pytest.param(
            symptoms(KEY, unavailable_reason=says(f"accessible again. It was: The key '{KEY}/{OLD}' was not found.")),
            {},
            id="key restored",
        ),
        pytest.param(
            symptoms(f"{KEY}/{NEW}", key(enabled=False), bundle=key(enabled=False)),
            {"version_unusable": "key"},
            id="disabled",
        ),
        pytest.param(symptoms(f"{KEY}/{NEW}", EXPIRED, bundle=EXPIRED), {"version_unusable": "key"}, id="expired"),
        pytest.param(symptoms(bundle=key(key_ops=["sign"])), {"operations_missing": "key"}, id="operations"),
        pytest.param(symptoms(bundle=key(kty="EC")), {"key_not_supported": None}, id="type"),
        pytest.param(symptoms(vault=vault()), {"access_missing": "access"}, id="grant"),
        pytest.param(
            symptoms(f"{KEY}/{NEW}", key(enabled=False), vault=vault(), bundle=key(enabled=False)),
            {"version_unusable": "key", "access_missing": "access"},
            id="several",
        ),
    ],
)
def test_causes(observed: Symptoms, found: dict[str, str | None]) -> None:
    assert causes(observed) == found
    described = diagnosis.diagnosed(observed)
    assert described.recoverable is (None not in found.values())
    assert all(cause.evidence and cause.remedy for cause in described.causes)


def test_the_access_of_a_deleted_identity_is_of_no_use() -> None:
    observed = symptoms(principals=(PRINCIPAL, OTHER), available=True, missing_identities=["deleted"])
    identity: Any = {"userAssignedIdentities": {"deleted": {"principalId": PRINCIPAL}, "other": {"principalId": OTHER}}}
    existing = preflight.without_deleted(observed.evidence, identity, observed.missing_identities)
    observed = replace(observed, evidence=existing)

    assert causes(observed) == {"access_missing": "access"}
    assert len(diagnosis.lost_key(observed)[0]) == 1
    assert preflight.access_since(observed.evidence) == 0


def test_the_identity_that_exists_decides() -> None:
    """The access of the deleted identity is newer, or missing."""
    identity: Any = {"userAssignedIdentities": {"deleted": {"principalId": OTHER}, "other": {"principalId": PRINCIPAL}}}
    newer = [assignment(ENCRYPTION_USER, VAULT_ID, principal=OTHER, name="newer", age=60)]
    older = [assignment(ENCRYPTION_USER, VAULT_ID, name="older", age=9 * DAY)]
    for of_deleted in (newer, []):
        granted = {"vault": changed_vault(), "assignments": {OTHER: of_deleted, PRINCIPAL: older}}
        observed = symptoms(principals=(OTHER, PRINCIPAL), missing_identities=["deleted"], **granted)
        observed = replace(observed, evidence=preflight.without_deleted(observed.evidence, identity, ["deleted"]))

        assert causes(observed) == {}
        assert preflight.access_since(observed.evidence) == NOW - 9 * DAY


@pytest.mark.parametrize(("available", "found"), [(True, {}), (None, {}), (False, {"access_missing": "access"})])
def test_one_identity_with_access_is_enough_for_an_available_account(
    available: bool | None, found: dict[str, str | None]
) -> None:
    assert causes(symptoms(principals=(PRINCIPAL, OTHER), available=available)) == found
    assert causes(symptoms(principals=(OTHER, OTHER), available=available)) == {"access_missing": "access"}


@pytest.mark.parametrize("seen", [None, Denied("No vaults for you.")])
def test_an_unreadable_vault_is_not_reported_as_purged(seen: Any) -> None:
    gone: dict[str, Any] = {"vault": seen, "bundle": UNREACHABLE, "versions": None}
    for reason in (Denied("Not for you."), Unavailable("Busy.")):
        observed = symptoms(**gone, deleted_vault=reason)

        assert causes(observed) == {}
        assert reason in diagnosis.unread(observed)
    assert causes(symptoms(**gone)) == {"vault_missing": None}


LET_IN = vault(
    policy(), networkAcls={"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "192.0.2.1/32"}]}
)
NOT_PUBLIC = vault(policy(), networkAcls=LET_IN["properties"]["networkAcls"], publicNetworkAccess="Disabled")
LET_IN_CALLER = vault(
    policy(), networkAcls={"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "127.0.0.1/32"}]}
)
CLOSED_NETWORK = {"network_closed": "network"}


def test_batch_reports_that_the_firewall_blocks_it() -> None:
    said = says("Client address is not authorized and caller is not a trusted service.")
    observed = symptoms(vault=LET_IN, bundle=DISABLED, available=False, unavailable_reason=said)
    assert causes(observed) == {**CLOSED_NETWORK, "version_unusable": "key"}


@pytest.mark.parametrize(
    ("rules", "available", "found", "unclear"),
    [
        pytest.param(LET_IN, None, {}, {"network"}, id="allowed address, and nobody has asked"),
        pytest.param(LET_IN, True, {}, set(), id="allowed address of Batch"),
        pytest.param(LET_IN, False, CLOSED_NETWORK, set(), id="allowed address that is not of Batch"),
        pytest.param(LET_IN_CALLER, None, CLOSED_NETWORK, set(), id="allowed address that no service has"),
        pytest.param(CLOSED, None, CLOSED_NETWORK, set(), id="no address"),
        pytest.param(CLOSED, True, CLOSED_NETWORK, set(), id="no address, and Batch has not noticed yet"),
        pytest.param(NOT_PUBLIC, None, CLOSED_NETWORK, set(), id="not public, so the address is of no use"),
        pytest.param(PERIMETER, True, {}, set(), id="a perimeter that lets Batch in"),
        pytest.param(PERIMETER, None, {}, {"network"}, id="a perimeter, and nobody has asked"),
        pytest.param(PERIMETER, False, {"network_closed": None}, set(), id="a perimeter that keeps Batch out"),
    ],
)
def test_whether_the_network_lets_batch_in(
    rules: Any, available: bool | None, found: dict[str, str], unclear: set[str]
) -> None:
    """Microsoft documents that Batch passes the firewall as a trusted service. IP rules may have its addresses too."""
    reason = says("The key is not accessible.") if available is False else None
    observed = symptoms(vault=rules, available=available, unavailable_reason=reason)
    assert bool(diagnosis.lost_key(observed)[0]) is (found == CLOSED_NETWORK and rules is not LET_IN)
    assert causes(observed) == found
    assert diagnosis.repairs(observed) == ([] if available else [one for one in found.values() if one])
    assert unclear_of(observed).keys() == unclear


def test_an_uncertain_cause_is_unclear_if_another_cause_explains_the_loss() -> None:
    """One of two identities has access."""
    for used, is_explained in ((key(), False), (DISABLED, True)):
        observed = symptoms(f"{KEY}/{NEW}", used, bundle=used, principals=(PRINCIPAL, OTHER))
        known = diagnosis.known(diagnosis.causes(observed))

        assert [cause.repair for cause in known] == ["key" if is_explained else "access"]
        assert unclear_of(observed).keys() == ({"access"} if is_explained else set())
        # The role recover makes all repairs, because one run should be enough.
        assert "access" in causes(observed).values()


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (symptoms(), False),
        (symptoms(vault=PERIMETER), True),
        (symptoms(vault=Denied("Not for you.")), True),
        (symptoms(bundle=Denied("Not for you.")), True),
        (symptoms(versions=Denied("Not for you.")), True),
        (symptoms(assignments=Denied("Not for you."), vault=vault(rbac=True)), True),
        (symptoms(bundle=key(enabled=False)), False),
    ],
)
def test_what_the_caller_cannot_read(observed: Any, expected: bool) -> None:
    assert diagnosis.is_unread(observed) is expected


DISABLED = key(enabled=False)


def test_unreadable_data_is_no_cause() -> None:
    hidden = Denied("Not for you.")
    observed = symptoms(vault=hidden, bundle=hidden, assignments=hidden, versions=None)
    described = diagnosis.diagnosed(observed)

    assert described.causes == ()
    assert described.vault_id is None
    assert needed(observed) == [f"{KEY}/{NEW}"]
    assert "unknown" in {check.status for check in described.checks}


# The versions that an account may use (`versions_possibly_in_use` has the rule)


def versions(identifier: str, *disabled: str, newest_is: int = 6 * DAY, since: int = 5 * DAY, **more: Any) -> Symptoms:
    """Three versions. The newest was created `newest_is` seconds ago, and the versions `disabled` were disabled `since`
    seconds ago. The account was changed a day ago."""
    ages = {OLD: 30 * DAY, MIDDLE: 20 * DAY, NEW: newest_is}
    bundles = [
        key(name, created=NOW - age, updated=NOW - (since if name in disabled else age), enabled=name not in disabled)
        for name, age in ages.items()
    ]
    used = next((one for one in bundles if identifier.endswith(one["key"]["kid"][-32:])), bundles[-1])
    return symptoms(identifier, *bundles, bundle=used, **{"account_changed_at": NOW - DAY, **more})


IDENTIFIERS = pytest.mark.parametrize("identifier", [f"{KEY}/{NEW}", KEY], ids=["pinned", "follows"])


@IDENTIFIERS
@pytest.mark.parametrize(
    ("disabled", "lost", "unknown"),
    [
        pytest.param((), False, None, id="all are usable"),
        pytest.param((MIDDLE,), False, MIDDLE, id="some are unusable"),
        pytest.param((NEW, MIDDLE, OLD), True, None, id="all are unusable"),
    ],
)
def test_availability_by_the_versions_that_the_account_may_use(
    identifier: str, disabled: tuple[str, ...], lost: bool, unknown: str | None
) -> None:
    found, reasons = diagnosis.lost_key(versions(identifier, *disabled))

    assert bool(found) is lost
    assert [unknown in reason and "state: enabled" in reason for reason in reasons] == [True] * (unknown is not None)


def test_several_versions_that_batch_may_need_are_all_named() -> None:
    _lost, (unknown,) = diagnosis.lost_key(versions(f"{KEY}/{OLD}", NEW, MIDDLE))

    assert f"Version {NEW} is disabled. Version {MIDDLE} is disabled. Batch may still need them." in unknown
    assert unknown.endswith("make them usable with azbatch.cmk.recover (cmk_allowed_repairs: [key, other_versions]).")


def test_other_versions_are_repaired_only_if_that_is_asked_for() -> None:
    observed = versions(f"{KEY}/{NEW}", MIDDLE)
    assert causes(observed) == {}
    asked = replace(observed, repairs_other_versions=True)
    assert (causes(asked), diagnosis.repairs(asked)) == ({"version_unusable": "other_versions"}, ["other_versions"])
    assert causes(versions(f"{KEY}/{NEW}", NEW, repairs_other_versions=True)) == {"version_unusable": "key"}


@IDENTIFIERS
def test_the_account_has_never_used_a_version_of_another_type(identifier: str) -> None:
    observed = versions(identifier, MIDDLE, unsupported=[MIDDLE])

    assert diagnosis.lost_key(observed) == ([], [])


def test_a_follower_may_have_lost_its_key_with_the_newest_version() -> None:
    lost, (unknown,) = diagnosis.lost_key(versions(KEY, NEW))

    assert lost == []
    assert f"Version {NEW} is disabled. The account may use an older version. Create a new version" in unknown


def test_no_new_version_is_needed_before_a_version_is_valid() -> None:
    staged = key(NEW, created=NOW - DAY, nbf=NOW + DAY)

    _lost, unknown = diagnosis.lost_key(symptoms(KEY, key(OLD, created=NOW - 30 * DAY), staged, bundle=staged))

    assert unknown == [f"Version {NEW} is not valid yet. The account may use an older version."]


@IDENTIFIERS
def test_a_version_that_was_disabled_long_after_accounts_left_it_is_no_cause(identifier: str) -> None:
    """Somebody has disabled it on purpose. A later change of the account does not matter."""
    for available in (True, None, False):
        observed = versions(identifier, MIDDLE, OLD, newest_is=10 * DAY, since=2 * DAY, available=available)

        assert needed(observed) == [identifier]
        assert causes(observed) == {}
        assert diagnosis.lost_key(observed) == ([], [])
        assert unclear_of(observed) == {}


@IDENTIFIERS
@pytest.mark.parametrize("available", [None, False])
def test_versions_to_enable(identifier: str, available: bool | None) -> None:
    """All versions that the account may use: one recovery should be enough. The oldest version was replaced long before
    it was disabled."""
    observed = versions(identifier, NEW, MIDDLE, OLD, available=available)

    assert needed(observed) == [f"{KEY}/{NEW}", f"{KEY}/{MIDDLE}"]
    assert causes(observed) == {"version_unusable": "key"}
    assert diagnosis.repairs(observed) == ["key"]


@IDENTIFIERS
@pytest.mark.parametrize("available", [True, None, False])
def test_another_version_is_repaired_only_if_batch_refuses_the_account(identifier: str, available: bool | None) -> None:
    """Somebody may have disabled it because it was leaked, and the account may be unavailable for another reason."""
    observed = versions(identifier, MIDDLE, available=available)

    assert (causes(observed), diagnosis.repairs(observed)) == ({}, [])
    assert needed(observed) == [identifier]
    assert bool(unclear_of(observed)) is (available is None)
    refused = versions(identifier, MIDDLE, available=False, unavailable_reason=says("The key cannot be used."))
    assert (causes(refused), diagnosis.repairs(refused)) == ({"version_unusable": "key"}, ["key"])


@pytest.mark.parametrize("unusable", [{"enabled": False}, {"nbf": NOW + DAY}, {"exp": NOW - 60}])
@pytest.mark.parametrize("available", [True, None])
def test_an_unusable_newest_version_is_no_cause_for_a_follower(
    unusable: dict[str, Any], available: bool | None
) -> None:
    newest = key(NEW, created=NOW - 60, updated=NOW - 60, **unusable)
    observed = symptoms(KEY, newest, key(OLD, created=NOW - 9 * DAY), bundle=newest, available=available)

    assert (causes(observed), diagnosis.repairs(observed)) == ({}, [])
    assert list(unclear_of(observed)) == ([] if available else ["version"])


@IDENTIFIERS
def test_an_available_account_needs_its_own_version_only(identifier: str) -> None:
    every = versions(identifier, NEW, MIDDLE, OLD, available=True)
    assert (needed(every), diagnosis.repairs(versions(identifier, NEW, available=True))) == (
        [f"{KEY}/{NEW}"],
        [],
    )


@IDENTIFIERS
def test_a_version_that_batch_names_is_needed(identifier: str) -> None:
    """Also if nothing else shows that the account may use it: without it, Batch cannot move the account."""
    named = {"available": False, "unavailable_reason": says(f"The key {KEY}/{OLD} is disabled.")}
    observed = versions(identifier, OLD, newest_is=10 * DAY, since=2 * DAY, **named)

    assert f"{KEY}/{OLD}" in needed(observed)
    assert causes(observed) == {"version_unusable": "key"}
    assert causes(replace(observed, available=True)) == {}


@IDENTIFIERS
def test_the_time_of_the_last_change_is_read_only_if_it_matters(identifier: str) -> None:
    assert diagnosis.depends_on_account_change(versions(identifier, MIDDLE))
    assert not diagnosis.depends_on_account_change(versions(identifier))
    # A version that became unusable inside the margin may be one that the account had just left.
    assert diagnosis.depends_on_account_change(versions(identifier, MIDDLE, newest_is=15 * DAY, since=6 * DAY))
    assert not diagnosis.depends_on_account_change(versions(identifier, MIDDLE, newest_is=15 * DAY, since=8 * DAY))


@pytest.mark.parametrize(
    ("granted", "is_known"),
    [pytest.param(6 * DAY, False, id="inside the margin"), pytest.param(8 * DAY, True, id="before")],
)
def test_a_follower_that_was_granted_access_may_use_an_older_version(granted: int, is_known: bool) -> None:
    observed = versions(KEY, MIDDLE, newest_is=13 * DAY, since=7 * DAY, account_changed_at=NOW - 12 * DAY)
    observed = replace(observed, evidence=replace(observed.evidence, **by_role(granted)))

    assert (diagnosis.lost_key(observed) == ([], [])) is is_known


@IDENTIFIERS
@pytest.mark.parametrize(
    ("left", "disabled", "reason"),
    [
        pytest.param(MIDDLE, (), None, id="usable"),
        pytest.param(MIDDLE, (MIDDLE,), MIDDLE, id="the version that the account has left"),
        pytest.param(MIDDLE, (OLD,), None, id="a version that was disabled long before"),
    ],
)
def test_a_version_that_the_account_has_just_left(
    identifier: str, left: str, disabled: tuple[str, ...], reason: str | None
) -> None:
    items = versions(KEY, *disabled, newest_is=60).versions
    found = diagnosis.lost_after_change(
        *(read_key_identifier(one) for one in (f"{KEY}/{left}", identifier)), items, NOW
    )

    assert [*found] == ([] if reason is None else [reason])
    assert all(one in text and "state: enabled" in text for one, text in found.items())


NOT_LISTED = Denied("No permission to list keys.")


@pytest.mark.parametrize(
    ("identifier", "more", "is_known"),
    [
        pytest.param(KEY, {}, False, id="follows"),
        pytest.param(KEY, {"account_changed_at": NOW - 9 * DAY}, False, id="follows, and was changed long ago"),
        pytest.param(f"{KEY}/{NEW}", {"account_changed_at": None}, False, id="pinned, at an unknown time"),
        pytest.param(f"{KEY}/{NEW}", {"account_changed_at": NOW - 7 * DAY + 1}, False, id="pinned inside the margin"),
        pytest.param(f"{KEY}/{NEW}", {"account_changed_at": NOW - 7 * DAY}, True, id="pinned outside the margin"),
        # The audit without pools does not judge whether an account is available.
        pytest.param(f"{KEY}/{NEW}", {}, True, id="pinned, and the time was not read"),
    ],
)
def test_versions_that_cannot_be_listed(identifier: str, more: dict[str, Any], is_known: bool) -> None:
    observed = symptoms(identifier, versions=NOT_LISTED, **more)

    assert diagnosis.depends_on_account_change(observed)
    assert diagnosis.unread(observed) == [NOT_LISTED]
    lost, unknown = diagnosis.lost_key(observed)
    assert lost == []
    assert ([] if is_known else [True]) == ["list keys" in reason for reason in unknown]


def test_a_follower_needs_the_newest_version_and_an_older_one() -> None:
    newest = key(NEW, key_ops=["sign"], created=NOW - 60)
    older = key(OLD, enabled=False, created=NOW - 9 * DAY, updated=NOW - 60)
    observed = symptoms(KEY, newest, older, bundle=newest)

    assert causes(observed) == {"version_unusable": "key", "operations_missing": "key"}
    assert needed(observed) == [KEY, f"{KEY}/{OLD}"]


@pytest.mark.parametrize(("secured", "names_perimeter"), [(PERIMETER, True), (vault(policy()), False)])
def test_a_perimeter_may_be_why_the_key_cannot_be_read(secured: Any, names_perimeter: bool) -> None:
    errors = diagnosis.unread(symptoms(bundle=UNREACHABLE, vault=secured))

    assert errors[0] == UNREACHABLE
    assert ["perimeter" in error.facts["remedy"] for error in errors[1:]] == [True] * names_perimeter
    assert diagnosis.unread(symptoms(vault=secured)) == []


# A repair that Batch may not have noticed yet


ENABLED = key(updated=NOW - 500)
OLDER_ENABLED = key(OLD, updated=NOW - 300)


def by_role(*ages: int) -> dict[str, Any]:
    """The account has access by role assignments of these ages."""
    made = [assignment(ENCRYPTION_USER, VAULT_ID, name=f"of-{age}", age=age) for age in ages]
    return {"vault": changed_vault(), "assignments": {PRINCIPAL: made}}


def changed_vault(at: str = "2020-01-01T00:00:00Z", **properties: Any) -> dict[str, Any]:
    """A vault that uses Azure RBAC, and was changed at that time."""
    return {**vault(rbac=True, **properties), "systemData": {"lastModifiedAt": at}}


@pytest.mark.parametrize(
    ("observed", "noticed_after"),
    [
        pytest.param(symptoms(), {}, id="nothing changed"),
        pytest.param(symptoms(bundle=ENABLED), {500: 600}, id="version enabled"),
        pytest.param(symptoms(bundle=key(updated=NOW - 600)), {}, id="version enabled long ago"),
        pytest.param(symptoms(bundle=key(created=NOW - 5, updated=NOW - 5)), {}, id="version created"),
        pytest.param(symptoms(**by_role(60)), {60: 1200}, id="access granted"),
        pytest.param(symptoms(**by_role(1200)), {}, id="access granted long ago"),
        pytest.param(symptoms(**by_role(60, DAY)), {}, id="access granted a second time"),
        pytest.param(symptoms(bundle=ENABLED, **by_role(60)), {500: 600, 60: 1200}, id="both"),
        pytest.param(symptoms(KEY, key(), OLDER_ENABLED), {300: 600}, id="older version enabled"),
        pytest.param(symptoms(f"{KEY}/{NEW}", key(), OLDER_ENABLED), {}, id="older version of a pinned account"),
        pytest.param(symptoms(KEY, key(), key(OLD, updated=NOW - 300, enabled=False)), {}, id="older disabled"),
        pytest.param(symptoms(vault=vault(rbac=True), assignments={PRINCIPAL: []}), {}, id="no access"),
        pytest.param(symptoms(assignments=Denied("Not for you.")), {}, id="access not read"),
    ],
)
def test_repairs_that_batch_may_not_have_noticed(observed: Symptoms, noticed_after: dict[int, int]) -> None:
    """A role takes up to ten minutes to take effect, and the account may need ten minutes after that."""
    found = diagnosis.unnoticed_repairs(observed)

    assert {NOW - repaired: noticed - repaired for repaired, noticed in found.items()} == noticed_after


@pytest.mark.parametrize(("seconds_ago", "is_recent"), [(599, True), (600, False)])
def test_a_change_of_the_vault_may_be_a_repair_in_a_report(seconds_ago: int, is_recent: bool) -> None:
    """Azure does not show whether an access policy or the firewall was changed. Changes of accounts are not prevented,
    because with access policies each new account changes the vault."""
    observed = symptoms(vault=changed_vault(diagnosis.instant(NOW - seconds_ago)))
    expected = {NOW - seconds_ago: NOW - seconds_ago + 600} if is_recent else {}

    assert diagnosis.unnoticed_repairs(observed) == {}
    assert diagnosis.unnoticed_repairs(replace(observed, is_report=True)) == expected
    assert diagnosis.unnoticed_repairs(symptoms(vault=vault(rbac=True), is_report=True)) == {}


@pytest.mark.parametrize(
    ("account_changed_at", "is_known"),
    [
        pytest.param(NOW - 501, False, id="before the key"),
        pytest.param(NOW - 500, True, id="in the same second"),
        pytest.param(NOW - 400, True, id="after the key"),
        pytest.param(None, False, id="not known"),
    ],
)
def test_an_account_that_was_changed_after_its_key_has_used_the_key(
    account_changed_at: int | None, is_known: bool
) -> None:
    lost, unknown = diagnosis.lost_key(symptoms(bundle=ENABLED, account_changed_at=account_changed_at))

    assert lost == []
    assert (unknown == []) is is_known
    assert is_known or "2026-05-28T20:" in unknown[0]


def test_a_perimeter_is_no_cause_soon_after_the_access_was_granted() -> None:
    """The role may need ten minutes, and the account may need ten minutes after that."""
    in_perimeter = vault(rbac=True, publicNetworkAccess="SecuredByPerimeter")

    for age, found in ((60, []), (1199, []), (1200, ["network_closed"])):
        observed = symptoms(**{**by_role(age), "vault": in_perimeter})
        assert list(causes(observed)) == found
