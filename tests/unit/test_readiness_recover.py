# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first task of `recover`: which repairs are needed, and which runs are refused."""

from __future__ import annotations

from typing import Any

import pytest
from documents import NOW, deleted_vault, diagnosed, key, listed, policy, vault
from goals import check_before
from readiness import (
    ASSIGNMENTS,
    HIDDEN,
    PINNED_NEW,
    READS,
    UNAVAILABLE,
    UPDATE_KEY,
    VAULTS,
    Azure,
    Cloud,
    check,
    needs,
    on,
    refused,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._core.duration import instant
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, NotFound, Rejected, Unavailable
from ansible_collections.azbatch.cmk.plugins.modules import batch_encryption_info


def lost(*versions: dict[str, Any], **observed: Any) -> Azure:
    """An unavailable account, with the given problems of its key, if any."""
    diagnosis = diagnosed(PINNED_NEW, *versions, **observed)
    return Azure(on(PINNED_NEW), UNAVAILABLE, vault=vault(rbac=True), diagnosis=diagnosis)


def repairs(azure: Azure, **options: Any) -> list[str]:
    needed: list[str] = check("recover", azure, **options).after["repairs"]
    return needed


DISABLED = key(enabled=False)
CLOSED = vault(policy(), networkAcls={"bypass": "None", "defaultAction": "Deny"})
GONE: dict[str, Any] = {
    **{"vault": None, "versions": None, "deleted_vault": deleted_vault()},
    "bundle": Unavailable("No response.", code="vault_unreachable"),
}
ALL_REPAIRS = ["vault", "network", "key", "access"]


def changed_vault(seconds_ago: int) -> dict[str, Any]:
    return {**vault(policy()), "systemData": {"lastModifiedAt": instant(NOW - seconds_ago)}}


def without(*excluded: str) -> list[str]:
    return [repair for repair in ALL_REPAIRS if repair not in excluded]


@pytest.mark.parametrize(
    ("observed", "needed"),
    [
        pytest.param({"vault": CLOSED}, ["network"], id="network"),
        pytest.param({"bundle": DISABLED, "versions": [listed(DISABLED)]}, ["key"], id="version"),
        pytest.param({"bundle": None, "versions": [], "deleted_key": key()}, ["key"], id="deleted key"),
        pytest.param({"vault": vault()}, ["access"], id="access"),
        # Each repair occurs once, in the order of the tasks.
        pytest.param(
            {
                **{"vault": vault(networkAcls=CLOSED["properties"]["networkAcls"])},
                **{"bundle": key(enabled=False, key_ops=["sign"]), "versions": [listed(DISABLED)]},
            },
            ["network", "key", "access"],
            id="several",
        ),
        pytest.param({}, [], id="nothing that can be read"),
    ],
)
def test_repairs_are_those_that_the_causes_need(observed: dict[str, Any], needed: list[str]) -> None:
    azure = lost(**observed)
    outcome = check("recover", azure)

    assert (outcome.changed, outcome.after["repairs"], outcome.warnings) == (False, needed, ())
    assert (outcome.after["available"], outcome.after["diagnosis"]["recoverable"]) == (False, True)
    # It is enough to allow the needed repairs.
    assert repairs(lost(**observed), allowed_repairs=needed) == needed


@pytest.mark.parametrize("allowed", [["vault"], ALL_REPAIRS])
def test_contents_of_a_deleted_vault_are_checked_after_its_recovery(allowed: list[str]) -> None:
    """A person may have disabled the key on purpose before the vault was deleted."""
    found = check("recover", lost(**GONE), allowed_repairs=allowed)

    assert (found.after["repairs"], found.after["causes_so_far"], found.warnings) == (["vault"], ["vault_deleted"], ())
    rehearsed = lost(**GONE)
    rehearsed.is_rehearsal = True
    [warning] = check("recover", rehearsed, allowed_repairs=allowed).warnings
    assert "Azure does not show" in warning


IS_DISABLED: dict[str, Any] = {"bundle": DISABLED, "versions": [listed(DISABLED)]}


def test_a_refusal_after_a_repair_names_the_repairs() -> None:
    failure = refused(
        "recover", lost(**IS_DISABLED), allowed_repairs=["vault"], causes_so_far=["vault_deleted", "version_unusable"]
    )
    assert failure.code == "repair_not_allowed"
    assert failure.msg.endswith("Before that, the run has repaired: vault_deleted.")
    for earlier in ([], ["version_unusable"]):
        failure = refused("recover", lost(**IS_DISABLED), allowed_repairs=[], causes_so_far=earlier)
        assert failure.msg.endswith("Nothing was changed.")
    found = check("recover", lost(**IS_DISABLED), causes_so_far=["vault_deleted"])
    assert found.after["causes_so_far"] == ["vault_deleted", "version_unusable"]


def test_all_reasons_are_reported_at_once() -> None:
    azure = lost(vault=vault(), **IS_DISABLED)
    azure.allowed = READS
    failure = refused("recover", azure, allowed_repairs=["access"])

    assert failure.code == "repair_not_allowed"
    expected = ("allowed_repairs: key. ", "is disabled", UPDATE_KEY, f"{ASSIGNMENTS}/write")
    assert all(part in failure.msg for part in expected)


FIREWALL = Denied("Could not read the key. Run from elsewhere.", code="network_denied")
SAYS_DISABLED = "Reason: The key 'https://myvault.vault.azure.net/keys/batch' is disabled."


def kept_out(said: str, **observed: Any) -> Azure:
    """A caller that the firewall of the vault blocks, and the message of Batch."""
    reason = Rejected(f"Azure reports: {said}", azure={"message": said})
    azure = lost(bundle=FIREWALL, versions=None, unavailable_reason=reason, **observed)
    azure.unavailable_reason = reason
    return azure


def test_a_firewall_is_opened_by_a_caller_that_it_blocks() -> None:
    assert repairs(kept_out("(Forbidden) no.", vault=CLOSED)) == ["network"]
    # After the repair, the account may need ten minutes.
    assert repairs(kept_out("(Forbidden) no."), causes_so_far=["network_closed"]) == []
    assert repairs(kept_out(f"The key is accessible again. It was: {SAYS_DISABLED}", vault=CLOSED)) == ["network"]
    # This message is about the vault, not about the key.
    assert repairs(kept_out("Public network access is disabled and request is not from", vault=CLOSED)) == ["network"]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (SAYS_DISABLED, "version_unusable"),
        ("Reason: The key 'https://k' has expired.", "version_unusable"),
        ("Reason: The key 'https://k' was not found.", "key_deleted"),
        ("Operation unwrapKey is not permitted on this key.", "operations_missing"),
    ],
)
@pytest.mark.parametrize("observed", [{"vault": CLOSED}, {}])
def test_reason_of_batch_is_the_cause_if_the_caller_cannot_read_the_key(observed: Any, said: str, cause: str) -> None:
    for earlier in ([], ["network_closed"]):
        failure = refused("recover", kept_out(said, **observed), causes_so_far=earlier)

        assert failure.code == "network_denied"
        assert cause in [one["name"] for one in failure.facts["causes"]]
        assert all(part in failure.msg for part in (said, FIREWALL.msg))


def test_recover_does_not_wait_for_a_cause_without_a_repair() -> None:
    assert refused("recover", kept_out("(Forbidden) no.")).code == "network_denied"


def test_an_available_account_needs_no_repair() -> None:
    """In any state of its key: a loss may not have taken effect yet, or Batch may use another version."""
    azure = lost(DISABLED, bundle=DISABLED)
    azure.unavailable_reason = None

    assert repairs(azure, allowed_repairs=[]) == []
    assert azure.needed == []


def test_an_account_on_a_microsoft_managed_key_needs_no_repair() -> None:
    for unavailable in (UNAVAILABLE, Unavailable("Busy.")):
        assert refused("recover", Azure(on(None), unavailable)).code == "account_unavailable"
    assert repairs(Azure(on(None))) == []


@pytest.mark.parametrize("allowed", [ALL_REPAIRS, []])
@pytest.mark.parametrize(
    ("observed", "cause"),
    [
        ({"principals": ()}, "identity_missing"),
        ({"vault": None, "bundle": GONE["bundle"], "versions": None}, "vault_missing"),
        ({"bundle": None, "versions": []}, "key_missing"),
    ],
)
def test_an_account_that_cannot_be_recovered_is_not_touched(
    observed: dict[str, Any], cause: str, allowed: list[str]
) -> None:
    failure = refused("recover", lost(**observed), allowed_repairs=allowed)

    assert failure.code == "not_recoverable"
    [found] = [one for one in failure.facts["causes"] if one["name"] == cause]
    assert found["repair"] is None
    assert failure.facts["remedy"] == found["remedy"]
    assert all(part in failure.msg for part in ("mybatch", cause, found["evidence"], found["remedy"]))


def test_one_cause_without_a_repair_is_enough() -> None:
    """If the account would stay unavailable, access is not granted."""
    failure = refused("recover", lost(vault=vault(), bundle=None, versions=[]))

    assert failure.code == "not_recoverable"
    assert [(one["name"], one["repair"]) for one in failure.facts["causes"]] == [
        *[("key_missing", None), ("access_missing", "access")]
    ]
    # The message and the remedy are about the cause that has no repair.
    assert "access_missing" not in failure.msg
    assert failure.facts["remedy"] == failure.facts["causes"][0]["remedy"]


@pytest.mark.parametrize(
    ("observed", "allowed", "excluded"),
    [
        ({"bundle": DISABLED, "versions": [listed(DISABLED)]}, without("key"), "key"),
        ({"vault": vault()}, without("access"), "access"),
        ({"vault": CLOSED}, without("network"), "network"),
        (GONE, without("vault"), "vault"),
        ({"vault": vault(), "bundle": DISABLED, "versions": [listed(DISABLED)]}, ["access"], "key"),
        ({"vault": vault(), "bundle": DISABLED, "versions": [listed(DISABLED)]}, [], "key, access"),
    ],
)
def test_a_repair_that_is_not_allowed_is_refused(observed: dict[str, Any], allowed: list[str], excluded: str) -> None:
    failure = refused("recover", lost(**observed), allowed_repairs=allowed)

    assert failure.code == "repair_not_allowed"
    assert (failure.facts["option"], failure.facts["value"]) == ("allowed_repairs", allowed)
    assert f"allowed_repairs: {excluded}. " in failure.msg
    assert all(cause["evidence"] in failure.msg for cause in failure.facts["causes"])


@pytest.mark.parametrize("observed", [{}, {"vault": vault()}, {"principals": ()}])
def test_an_account_is_not_repaired_if_its_availability_is_unknown(observed: dict[str, Any]) -> None:
    azure = lost(**observed)
    azure.unavailable_reason = HIDDEN

    assert refused("recover", azure).code == "availability_unknown"
    assert refused("recover", Azure(on(None), HIDDEN)).code == "availability_unknown"


@pytest.mark.parametrize("is_rehearsal", [False, True])
@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ({"vault": HIDDEN}, HIDDEN.msg),
        ({"bundle": HIDDEN, "versions": None}, HIDDEN.msg),
        ({"assignments": HIDDEN, "vault": vault(rbac=True)}, HIDDEN.msg),
        ({"bundle": Unavailable("Busy."), "versions": None}, "Busy."),
        # The vault is in another subscription.
        ({"vault": None}, f"{VAULTS}/read"),
        # Also if there are other causes.
        ({"vault": HIDDEN, **IS_DISABLED}, HIDDEN.msg),
        ({"bundle": HIDDEN, "versions": None, "vault": CLOSED}, HIDDEN.msg),
    ],
)
def test_unreadable_resource_is_refused_at_once(observed: dict[str, Any], expected: str, is_rehearsal: bool) -> None:
    azure = lost(**observed)
    azure.is_rehearsal = is_rehearsal
    failure = refused("recover", azure)

    assert expected in failure.msg
    assert failure.msg.endswith("Nothing was changed.")
    assert failure.code == ("service_unavailable" if expected == "Busy." else "permission_denied")


@pytest.mark.parametrize(
    ("observed", "allowed", "rights"),
    [
        ({"bundle": DISABLED, "versions": [listed(DISABLED)]}, ALL_REPAIRS, [UPDATE_KEY]),
        (
            {"bundle": None, "versions": [], "deleted_key": key()},
            ALL_REPAIRS,
            [f"{VAULTS}/keys/recover/action", UPDATE_KEY],
        ),
        ({"vault": vault()}, ALL_REPAIRS, [f"{ASSIGNMENTS}/write"]),
        ({"vault": CLOSED}, ALL_REPAIRS, [f"{VAULTS}/write"]),
        (GONE, ALL_REPAIRS, [f"{VAULTS}/write", f"{ASSIGNMENTS}/write"]),
        # If access is not granted, its right is not needed.
        (GONE, without("access"), [f"{VAULTS}/write"]),
        ({}, ALL_REPAIRS, []),
    ],
)
def test_rights_to_recover(observed: dict[str, Any], allowed: list[str], rights: list[str]) -> None:
    assert needs("recover", lost(**observed), allowed_repairs=allowed) == rights
    rehearsed = lost(**observed)
    rehearsed.allowed, rehearsed.is_rehearsal = READS, True
    warnings = check("recover", rehearsed, allowed_repairs=allowed).warnings[: len(rights)]
    assert all(right in warning for right, warning in zip(rights, warnings, strict=True))


def test_rights_to_recover_are_required_only_for_a_recovery() -> None:
    azure = lost(DISABLED, bundle=DISABLED)
    azure.allowed = READS
    cloud: Any = Cloud(azure)
    surveyed = batch_encryption_info.run({**check_before("recover"), "check_before": None, "diagnose": True}, cloud)

    assert (surveyed.warnings, azure.needed) == ((), [])
    assert "repairs" not in surveyed.after
    assert surveyed.after["diagnosis"]["causes"][0]["repair"] == "key"


NO_GROUP = NotFound("There is no such resource group.", code="resource_group_not_found")
NO_SUBSCRIPTION = NotFound("There is no such subscription.", code="subscription_not_found")


@pytest.mark.parametrize("found", [None, NO_GROUP])
def test_an_account_to_recover_that_is_missing(found: Any) -> None:
    code = found.code if found else "account_not_found"
    assert refused("recover", Azure(found)).code == code
    skipped = check("recover", Azure(found), missing="skip")

    assert (skipped.changed, skipped.after["exists"]) == (False, False)
    assert "repairs" not in skipped.after
    assert "mybatch" in skipped.warnings[0]


def test_a_missing_subscription_is_no_missing_account() -> None:
    gone: Any = NO_SUBSCRIPTION

    assert refused("recover", Azure(gone), missing="skip").code == "subscription_not_found"


def test_a_perimeter_is_a_cause_only_before_a_repair() -> None:
    """After a repair, the account may need ten minutes to become available."""
    azure = lost(vault=vault(policy(), publicNetworkAccess="SecuredByPerimeter"))

    assert refused("recover", azure).code == "not_recoverable"
    assert repairs(azure, causes_so_far=["network_closed"]) == []
