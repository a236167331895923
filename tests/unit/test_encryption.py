# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan for the key that a Batch account uses."""

from __future__ import annotations

from typing import Any

import pytest
from documents import (
    KEY,
    NEW,
    OLD,
    OTHER,
    PRINCIPAL,
    account,
    account_id,
    diagnosed,
    evidence,
    key,
    policy,
    system_assigned,
    user_assigned,
    vault,
)
from goals import encryption_goal as goal
from hypothesis import given
from hypothesis import strategies as st
from plain_service import Plain

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    InvalidOption,
    NotFound,
    Refused,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import key_of
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Plan, Step
from ansible_collections.azbatch.cmk.plugins.module_utils._core.reconcile import converge, predicted
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.account import NotShown
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import plan as encryption_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import survey as encryption_survey
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.goal import MODES, EncryptionWrites

PINNED_OLD, PINNED_NEW = f"{KEY}/{OLD}", f"{KEY}/{NEW}"
ELSEWHERE = "https://vault2.vault.azure.net/keys/batch"
UNKNOWN_KIND = f"https://myhsm.managedhsm.azure.net/keys/batch/{OLD}"
HIDDEN = Denied("Azure reports: (AuthorizationFailed) you may not.", azure={"code": "AuthorizationFailed"})
UNAVAILABLE = Rejected("Azure reports: (Forbidden) the key cannot be read.")


def seen(on: str | None, *, unavailable_reason: CmkError | None = None, **read: Any) -> dict[str, Any]:
    return {
        "account": account(key=on, identity=system_assigned()),
        "unavailable_reason": unavailable_reason,
        "evidence": evidence(**read),
    }


PLACE = {"group": "rg-batch", "name": "mybatch"}


def move(previous: str | None, identifier: str | None, *, even_if_unavailable: bool = False) -> Step:
    encryption: dict[str, Any] = {"keySource": "Microsoft.Batch"}
    if identifier:
        encryption = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": identifier}}
    body = {"properties": {"encryption": encryption}}
    sent = {
        "body": body,
        "previous": key_of(account(key=previous)),
        "evidence": evidence(),
        "even_if_unavailable": even_if_unavailable,
    }
    return Step(EncryptionWrites.set_encryption, {**PLACE, **sent})


# The goal


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"key_source": "microsoft_keyvault", "key_identifier": None}, id="no key"),
        pytest.param({"key_source": "microsoft_keyvault", "key_identifier": ""}, id="empty key"),
        pytest.param({"key_source": "microsoft_batch", "key_identifier": KEY}, id="a key too many"),
    ],
)
def test_source_and_identifier_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(None, **options)

    assert refused.value.facts["option"] == "key_identifier"


@pytest.mark.parametrize(
    ("options", "code"),
    [({"account_name": "my-batch"}, "invalid_option"), ({"key_identifier": "batch"}, "invalid_option")],
)
def test_malformed_option_is_refused(options: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(KEY, **options)

    assert refused.value.code == code


# The planned key


@pytest.mark.parametrize(
    ("on", "asked"),
    [
        pytest.param(None, None, id="Microsoft-managed"),
        pytest.param(PINNED_OLD, PINNED_OLD, id="pinned"),
        pytest.param(KEY, KEY, id="follows"),
        pytest.param(PINNED_OLD.upper(), PINNED_OLD, id="another letter case"),
        pytest.param(f"https://myvault.vault.azure.net:443/keys/batch/{OLD}/", PINNED_OLD, id="another spelling"),
    ],
)
def test_account_that_is_on_the_key_stays_as_it_is(on: str | None, asked: str | None) -> None:
    observed = seen(on)
    del observed["evidence"]  # not even read

    plan = encryption_plan.plan(goal(asked), observed)

    assert not plan.changed
    assert plan.before == plan.after
    assert plan.report == {"previous_key_identifier": None}


@pytest.mark.parametrize(
    ("on", "asked"),
    [
        pytest.param(None, PINNED_NEW, id="first key"),
        pytest.param(None, KEY, id="first key, followed"),
        pytest.param(PINNED_OLD, PINNED_NEW, id="another version"),
        pytest.param(ELSEWHERE, KEY, id="another vault"),
        pytest.param(PINNED_OLD, None, id="back"),
        pytest.param(KEY, None, id="back from following"),
    ],
)
def test_account_is_moved_and_nothing_else_is_sent(on: str | None, asked: str | None) -> None:
    plan = encryption_plan.plan(goal(asked, previous_key="any" if on == ELSEWHERE else None), seen(on))

    assert plan.steps == (move(on, asked),)
    assert plan.report["previous_key_identifier"] == on
    assert plan.before["key_identifier"] == on
    assert plan.after["key_identifier"] == asked
    assert plan.after["key_source"] == ("microsoft_keyvault" if asked else "microsoft_batch")


def test_preflight_is_reported_for_a_move_to_a_key_only() -> None:
    there = encryption_plan.plan(goal(KEY), seen(None))
    back = encryption_plan.plan(goal(None), {"account": account(key=KEY), "unavailable_reason": None})

    assert {check["status"] for check in there.report["preflight"]} == {"ok"}
    assert back.report == {"preflight": [], "previous_key_identifier": KEY}


def test_account_is_not_moved_to_a_key_that_fails_preflight() -> None:
    with pytest.raises(Refused) as refused:
        encryption_plan.plan(goal(KEY), seen(None, bundle=key(enabled=False), vault=vault(policy(OTHER))))

    assert refused.value.code == "preflight_failed"
    assert refused.value.facts["failed_checks"] == ["key_enabled", "access_granted"]


def test_a_preflight_check_that_is_unknown_is_a_warning() -> None:
    plan = encryption_plan.plan(goal(KEY), seen(None, bundle=Denied("You may not.")))

    assert plan.changed
    assert any("key_exists" in warning for warning in plan.warnings)


@pytest.mark.parametrize("asked", [None, KEY, PINNED_OLD])
def test_missing_account_is_an_error(asked: str | None) -> None:
    with pytest.raises(NotFound) as failed:
        encryption_plan.plan(goal(asked), {"account": None, "unavailable_reason": None})

    assert failed.value.code == "account_not_found"


@pytest.mark.parametrize(
    ("on", "asked"),
    [
        pytest.param(PINNED_OLD, PINNED_NEW, id="another version"),
        pytest.param(PINNED_OLD, PINNED_OLD, id="the key it is on"),
        pytest.param(PINNED_OLD, None, id="back"),
        pytest.param(None, KEY, id="Microsoft-managed"),
    ],
)
def test_an_unavailable_account_is_not_changed(on: str | None, asked: str | None) -> None:
    with pytest.raises(Unavailable) as failed:
        encryption_plan.plan(goal(asked), seen(on, unavailable_reason=UNAVAILABLE))

    assert failed.value.code == "account_unavailable"
    assert failed.value.facts["key_identifier"] == on
    assert UNAVAILABLE.msg in str(failed.value)
    assert f"It uses {on or 'a Microsoft-managed key'}." in str(failed.value)


@pytest.mark.parametrize("asked", [PINNED_NEW, None])
def test_a_change_that_could_not_be_confirmed_is_refused(asked: str | None) -> None:
    """Also before the key is judged, which rotation would repair."""
    with pytest.raises(Denied) as refused:
        encryption_plan.plan(goal(asked), seen(PINNED_OLD, unavailable_reason=HIDDEN, bundle=key(enabled=False)))

    assert refused.value.code == "availability_unknown"


def test_availability_that_is_not_known_is_null_and_a_warning() -> None:
    plan = encryption_plan.plan(goal(KEY), seen(KEY, unavailable_reason=HIDDEN))

    assert not plan.changed
    assert plan.after["available"] is None
    assert "Microsoft.Batch/batchAccounts/pools/read" in plan.warnings[0]


def unread() -> NotShown:
    reason = NotShown(["The vault could not be read."])
    reason.is_unread = True
    return reason


@pytest.mark.parametrize(
    ("reason", "is_refused"),
    [(HIDDEN, True), (unread(), True), (NotShown(["A version is disabled."]), False)],
)
def test_availability_that_has_to_be_readable(reason: CmkError, is_refused: bool) -> None:
    """A version that somebody has disabled on purpose does not make a job fail each night."""
    observed = seen(KEY, unavailable_reason=reason)
    assert encryption_plan.plan(goal(KEY), observed).after["available"] is None
    if not is_refused:
        assert encryption_plan.plan(goal(KEY, require_readable=True), observed).after["available"] is None
        return
    with pytest.raises(Refused) as refused:
        encryption_plan.plan(goal(KEY, require_readable=True), observed)
    assert refused.value.code == "availability_unknown"
    assert reason.msg in str(refused.value) or "Microsoft.Batch/batchAccounts/pools/read" in str(refused.value)
    assert "require_readable: true" in str(refused.value)


def test_a_read_that_may_be_older_than_a_write_is_not_trusted_without_the_pools() -> None:
    """The key would be written again, and that write could not be confirmed."""
    with pytest.raises(Denied) as refused:
        encryption_plan.plan(goal(KEY), {**seen(KEY, unavailable_reason=HIDDEN), "may_be_stale": True})

    assert refused.value.code == "availability_unknown"


def test_an_account_with_unknown_availability_is_not_waited_for() -> None:
    with pytest.raises(Denied) as refused:
        encryption_plan.plan(goal(KEY, wait_until_available=True), seen(KEY, unavailable_reason=HIDDEN))

    assert refused.value.code == "availability_unknown"


def test_a_rollback_does_not_need_the_right_to_check_the_account() -> None:
    rollback = encryption_plan.plan(goal(PINNED_NEW), seen(PINNED_OLD)).rollback_goal

    assert encryption_plan.plan(rollback, seen(PINNED_NEW, unavailable_reason=HIDDEN)).steps == (
        move(PINNED_NEW, PINNED_OLD, even_if_unavailable=True),
    )
    current = encryption_plan.plan(rollback, seen(PINNED_OLD, unavailable_reason=HIDDEN)).before
    assert "its availability is not known" in rollback.described(current)


def test_an_unknown_key_source_is_not_reported_as_microsoft_managed() -> None:
    assert encryption_plan.plan(goal(None), seen(UNKNOWN_KIND)).changed
    assert encryption_document.describe(account(key=UNKNOWN_KIND))["key_source"] == "microsoft_keyvault"


@pytest.mark.parametrize(
    ("on", "asked", "refused"),
    [
        pytest.param(PINNED_OLD, PINNED_NEW, False, id="another version"),
        pytest.param(PINNED_OLD.upper().replace("HTTPS", "https"), PINNED_NEW, False, id="in capitals"),
        pytest.param(None, KEY, False, id="from a Microsoft-managed key"),
        pytest.param(ELSEWHERE, None, False, id="to a Microsoft-managed key"),
        pytest.param(ELSEWHERE, KEY, True, id="another vault"),
        pytest.param(f"{KEY}2/{OLD}", PINNED_NEW, True, id="another name"),
        pytest.param(UNKNOWN_KIND, KEY, True, id="a managed HSM"),
    ],
)
def test_a_different_key_is_left_only_on_request(on: str | None, asked: str | None, refused: bool) -> None:
    assert encryption_plan.plan(goal(asked, previous_key="any"), seen(on)).steps == (move(on, asked),)
    if not refused:
        assert encryption_plan.plan(goal(asked), seen(on)).steps == (move(on, asked),)
        return
    with pytest.raises(Refused) as failed:
        encryption_plan.plan(goal(asked), seen(on))

    assert failed.value.code == "account_on_another_key"
    assert failed.value.facts["option"] == "previous_key"
    assert "set O(previous_key) to the key that the account may leave" in failed.value.facts["remedy"]


# Whether the account follows the newest version

OTHER_KEY = f"{KEY}2/{OLD}"


@pytest.mark.parametrize(
    ("mode", "on", "asked", "wanted"),
    [
        pytest.param("update", KEY, PINNED_NEW, None, id="keeps following"),
        pytest.param("update", KEY.upper(), PINNED_NEW, None, id="keeps following, in capitals"),
        pytest.param("update", PINNED_OLD, PINNED_NEW, PINNED_NEW, id="is moved to the version"),
        pytest.param("update", PINNED_NEW, PINNED_NEW, None, id="is on the version"),
        pytest.param("update", None, PINNED_NEW, PINNED_NEW, id="takes the version"),
        pytest.param("update", OTHER_KEY, PINNED_NEW, PINNED_NEW, id="takes the version of another key"),
        pytest.param("update", None, KEY, KEY, id="follows without a version"),
        pytest.param("update", KEY, KEY, None, id="no version, and follows"),
        pytest.param("keep", KEY, PINNED_NEW, None, id="stays as it is and follows"),
        pytest.param("keep", PINNED_OLD, PINNED_NEW, None, id="stays as it is"),
        pytest.param("keep", OTHER_KEY, PINNED_NEW, PINNED_NEW, id="cannot stay as it is"),
        pytest.param("keep", None, PINNED_NEW, PINNED_NEW, id="has nothing to keep"),
        pytest.param("follow", KEY, PINNED_NEW, None, id="is to follow, and does"),
        pytest.param("follow", PINNED_OLD, PINNED_NEW, KEY, id="is to follow, from another version"),
        pytest.param("follow", PINNED_NEW, PINNED_NEW, KEY, id="is to follow, from this version"),
        pytest.param("follow", None, PINNED_NEW, KEY, id="is to follow, from a Microsoft-managed key"),
        pytest.param("follow", OTHER_KEY, PINNED_NEW, KEY, id="is to follow another key"),
        pytest.param("follow", f"{KEY}2", PINNED_NEW, KEY, id="is to follow another key than it does"),
        pytest.param("follow", PINNED_NEW, KEY, KEY, id="no version, and is to follow"),
        pytest.param("pin", KEY, PINNED_NEW, PINNED_NEW, id="is to be pinned, and follows"),
        pytest.param("pin", PINNED_OLD, PINNED_NEW, PINNED_NEW, id="is to be pinned, and is"),
        pytest.param("pin", PINNED_NEW, PINNED_NEW, None, id="is pinned to the version"),
        pytest.param("pin", None, PINNED_NEW, PINNED_NEW, id="is to be pinned, from a Microsoft-managed key"),
        pytest.param("pin", OTHER_KEY, PINNED_NEW, PINNED_NEW, id="is to be pinned to another key"),
    ],
)
def test_the_key_identifier_that_is_set(mode: str, on: str | None, asked: str, wanted: str | None) -> None:
    """`wanted` is None if the account is not changed."""
    plan = encryption_plan.plan(goal(asked, version_mode=mode, previous_key="any"), seen(on))

    assert plan.steps == (() if wanted is None else (move(on, wanted),))
    assert plan.after["key_identifier"] == encryption_document.describe(account(key=wanted or on))["key_identifier"]
    # After the change, the plan has no steps.
    assert not encryption_plan.plan(plan.goal, seen(wanted or on)).changed


@pytest.mark.parametrize("mode", MODES)
def test_a_microsoft_managed_key_is_not_followed(mode: str) -> None:
    wanted = goal(None, version_mode=mode)

    assert encryption_plan.plan(wanted, seen(KEY)).steps == (move(KEY, None),)
    assert not encryption_plan.plan(wanted, seen(None)).changed


# An account that does not exist


def test_an_account_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(NotFound):
        encryption_plan.plan(goal(PINNED_NEW), {"account": None, "unavailable_reason": None})


# An account that may be moved from one key only


@pytest.mark.parametrize(
    ("on", "allowed"),
    [
        pytest.param(PINNED_OLD, True, id="pinned to the key"),
        pytest.param(KEY, True, id="follows the key"),
        pytest.param(None, False, id="uses a Microsoft-managed key"),
        pytest.param(f"{KEY}2/{OLD}", False, id="a key of another name"),
        pytest.param("https://vault3.vault.azure.net/keys/batch", False, id="a key in another vault"),
    ],
)
@pytest.mark.parametrize("asked", [ELSEWHERE, None], ids=["to another key", "to a Microsoft-managed key"])
def test_an_account_is_moved_from_the_named_key_only(on: str | None, asked: str | None, allowed: bool) -> None:
    named = {"previous_key": "MyVault/BATCH"}
    wanted = goal(asked, **named)

    if allowed or on == asked:
        assert encryption_plan.plan(wanted, seen(on)).changed is (on != asked)
        return
    with pytest.raises(Refused) as refused:
        encryption_plan.plan(wanted, seen(on))
    assert refused.value.code == "account_on_another_key"
    assert (refused.value.facts["option"], refused.value.facts["key_identifier"]) == ("previous_key", on)
    assert all(
        part in str(refused.value)
        for part in (on or "a Microsoft-managed key", "BATCH", "MyVault", "This task changed nothing.")
    )


def test_an_account_that_is_on_the_wanted_key_already_needs_no_previous_key() -> None:
    wanted = goal(ELSEWHERE, previous_key="myvault/batch")

    assert not encryption_plan.plan(wanted, seen(ELSEWHERE)).changed


def test_the_rollback_goes_back_from_the_key_of_this_task() -> None:
    wanted = goal(ELSEWHERE, previous_key="myvault/batch")
    rollback = encryption_plan.plan(wanted, seen(PINNED_OLD)).rollback_goal

    assert encryption_plan.plan(rollback, seen(ELSEWHERE)).steps == (
        move(ELSEWHERE, PINNED_OLD, even_if_unavailable=True),
    )


@pytest.mark.parametrize(
    "previous",
    ["batch", "myvault/", "/batch", "v/batch", "myvault/my_key", "https://myvault.vault.azure.net/batch"],
)
def test_the_previous_key_has_a_vault_and_a_name(previous: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(ELSEWHERE, previous_key=previous)

    assert (refused.value.facts["option"], refused.value.facts["value"]) == ("previous_key", previous)


@pytest.mark.parametrize("previous", [PINNED_OLD, KEY, " myvault/batch ", "MYVAULT/BATCH", "any", " ANY"])
def test_ways_to_name_the_previous_key(previous: str) -> None:
    assert encryption_plan.plan(goal(ELSEWHERE, previous_key=previous), seen(PINNED_NEW)).changed


# The rollback of a switch that failed


# Previous key, requested key and options of all kinds of moves, such as from following to pinned.
WAYS: list[tuple[str | None, str | None, dict[str, Any]]] = [
    (None, PINNED_NEW, {}),
    (None, PINNED_NEW, {"version_mode": "keep"}),
    (None, PINNED_NEW, {"version_mode": "follow"}),
    (PINNED_OLD, PINNED_NEW, {}),
    (PINNED_OLD, PINNED_NEW, {"previous_key": "myvault/batch"}),
    (PINNED_OLD, PINNED_NEW, {"version_mode": "follow"}),
    (PINNED_NEW, PINNED_NEW, {"version_mode": "follow"}),
    (KEY, PINNED_NEW, {"version_mode": "pin"}),
    (ELSEWHERE, PINNED_NEW, {"previous_key": "any"}),
    (f"{ELSEWHERE}/{OLD}", PINNED_NEW, {"previous_key": "any", "version_mode": "keep"}),
    (f"{ELSEWHERE}/{OLD}", KEY, {"previous_key": "any"}),
    (PINNED_OLD, None, {}),
    (KEY, None, {}),
]
EVERYWHERE = [None, KEY, PINNED_OLD, PINNED_NEW, ELSEWHERE, f"{ELSEWHERE}/{OLD}", f"{ELSEWHERE}/{NEW}"]


@pytest.mark.parametrize(("on", "asked", "options"), WAYS)
def test_a_rollback_restores_the_exact_previous_setting(
    on: str | None, asked: str | None, options: dict[str, Any]
) -> None:
    plan = encryption_plan.plan(goal(asked, **options), seen(on))
    now = plan.after["key_identifier"]

    back = encryption_plan.plan(plan.rollback_goal, seen(now, unavailable_reason=UNAVAILABLE))

    assert back.steps == (move(now, on, even_if_unavailable=True),)
    assert back.after["key_identifier"] == on
    # The rollback moves the account only if it uses the key that this task has set.
    for place in EVERYWHERE:
        assert encryption_plan.plan(plan.rollback_goal, seen(place, unavailable_reason=UNAVAILABLE)).changed is (
            place == now
        )
        # Only the exact previous identifier meets the goal of the rollback.
        assert plan.rollback_goal.is_satisfied_by(account(key=place)) is (place == on)


def test_a_rollback_is_made_if_access_to_the_previous_key_cannot_be_read() -> None:
    hidden = {"vault": Denied("You may not read the vault.")}
    with pytest.raises(Refused) as refused:
        encryption_plan.plan(goal(PINNED_NEW), seen(PINNED_OLD, **hidden))
    assert refused.value.code == "access_unknown"
    rollback = encryption_plan.plan(goal(PINNED_NEW), seen(PINNED_OLD)).rollback_goal

    assert encryption_plan.plan(rollback, seen(PINNED_NEW, unavailable_reason=UNAVAILABLE, **hidden)).changed


@pytest.mark.parametrize(("on", "asked", "options"), WAYS)
def test_the_fallback_is_a_microsoft_managed_key(on: str | None, asked: str | None, options: dict[str, Any]) -> None:
    plan = encryption_plan.plan(goal(asked, **options), seen(on))
    if on is None:
        assert plan.if_refused is None
        return
    for place in EVERYWHERE:
        last = encryption_plan.plan(plan.if_refused, seen(place, unavailable_reason=UNAVAILABLE))
        moves = place is not None and place == plan.after["key_identifier"]
        assert last.steps == ((move(place, None, even_if_unavailable=True),) if moves else ())


def test_the_vault_of_the_previous_key_may_be_in_another_group() -> None:
    wanted = goal(KEY, vault_resource_group="rg-keys", previous_key="any")
    plan = encryption_plan.plan(wanted, seen(ELSEWHERE))

    assert plan.rollback_goal.vault_group is None


class Batch(Plain):
    """An account whose key is written and read. Batch refuses the key `refuses`. The account is unavailable with
    the key `unavailable`. Access to all keys that begin with `revoked` is revoked when the account is written."""

    def __init__(self, on: str | None, *, refuses: str = "", unavailable: str = "", revoked: str = "") -> None:
        self.on = on
        self.refuses = refuses
        self.unavailable = unavailable
        self.revoked = revoked
        self.writes: list[str | None] = []

    def read(self, wanted: Any) -> dict[str, Any]:
        unavailable_reason = UNAVAILABLE if self.unavailable and self.on == self.unavailable else None
        key = str(wanted.key or "")
        is_gone = bool(self.writes and self.revoked) and key.startswith(self.revoked)
        return seen(
            self.on, unavailable_reason=unavailable_reason, **({"vault": vault(policy(OTHER))} if is_gone else {})
        )

    def set_encryption(self, group: str, name: str, body: dict[str, Any], **_more: Any) -> None:
        asked = body["properties"]["encryption"].get("keyVaultProperties", {}).get("keyIdentifier")
        self.writes.append(asked)
        if asked == self.refuses:
            raise Rejected("Azure reports: no.")
        self.on = asked


@pytest.mark.parametrize("previous", [None, PINNED_OLD, KEY])
def test_switch_is_made_and_confirmed(previous: str | None) -> None:
    batch = Batch(previous)

    outcome = converge(goal(PINNED_NEW, version_mode="pin"), batch, encryption_plan)

    assert batch.writes == [PINNED_NEW]
    assert outcome.changed
    assert outcome.after["key_identifier"] == PINNED_NEW
    assert outcome.report["previous_key_identifier"] == previous
    assert not converge(goal(PINNED_NEW), batch, encryption_plan).changed


@pytest.mark.parametrize("previous", [None, PINNED_OLD, KEY])
def test_a_switch_of_an_account_that_becomes_unavailable_is_rolled_back(previous: str | None) -> None:
    batch = Batch(previous, unavailable=PINNED_NEW)

    with pytest.raises(Unavailable) as failed:
        converge(goal(PINNED_NEW, version_mode="pin"), batch, encryption_plan)

    assert batch.writes == [PINNED_NEW, previous]
    assert batch.on == previous
    assert failed.value.code == "account_unavailable"
    assert failed.value.facts["restored"] is True
    assert failed.value.facts["current_state"]["key_identifier"] == previous


@pytest.mark.parametrize(
    ("previous", "ends"),
    [
        pytest.param(None, None, id="from Microsoft's"),
        pytest.param(ELSEWHERE, ELSEWHERE, id="from a key that is still there"),
        pytest.param(PINNED_OLD, None, id="from a key that is gone too"),
    ],
)
def test_access_that_was_revoked_meanwhile(previous: str | None, ends: str | None) -> None:
    """Batch still accepts the key. The account is moved to its previous key or, if that key may not be used either,
    to a Microsoft-managed key."""
    batch = Batch(previous, revoked=KEY)

    with pytest.raises(Refused) as failed:
        converge(goal(PINNED_NEW, previous_key="any"), batch, encryption_plan)

    assert batch.writes == [PINNED_NEW, ends]
    assert failed.value.code == "preflight_failed"
    assert failed.value.facts["failed_checks"] == ["access_granted"]
    assert failed.value.facts["restored"] is (ends == previous)
    assert failed.value.facts["current_state"]["key_identifier"] == ends
    assert f"uses {ends or 'a Microsoft-managed key'} now" in str(failed.value)


def test_refused_switch_leaves_the_account_where_it_was() -> None:
    batch = Batch(PINNED_OLD, refuses=PINNED_NEW)

    with pytest.raises(Rejected) as failed:
        converge(goal(PINNED_NEW), batch, encryption_plan)

    assert batch.writes == [PINNED_NEW]
    assert failed.value.facts["applied"] == []
    assert failed.value.facts["restored"] is True
    assert failed.value.facts["current_state"]["key_identifier"] == PINNED_OLD


def test_a_prediction_preflights_and_writes_nothing() -> None:
    batch = Batch(None)

    plan = predicted(goal(KEY), batch, encryption_plan)

    assert batch.writes == []
    assert plan.changed
    assert plan.report["preflight"]


# Return values


@pytest.mark.parametrize(
    ("on", "described"),
    [
        pytest.param(
            None,
            {"key_source": "microsoft_batch", "key_identifier": None, "key_version": None, "follows_latest": False},
            id="Microsoft-managed",
        ),
        pytest.param(
            PINNED_OLD,
            {
                "key_source": "microsoft_keyvault",
                "key_identifier": PINNED_OLD,
                "key_version": OLD,
                "follows_latest": False,
            },
            id="pinned",
        ),
        pytest.param(
            KEY,
            {"key_source": "microsoft_keyvault", "key_identifier": KEY, "key_version": None, "follows_latest": True},
            id="follows",
        ),
    ],
)
def test_description(on: str | None, described: dict[str, Any]) -> None:
    assert encryption_document.describe(account(key=on)) == {
        **{"exists": True, "id": account_id(), "name": "mybatch"},
        **described,
    }


def test_wait_until_available_waits_for_an_unavailable_account() -> None:
    plan = encryption_plan.plan(goal(KEY, wait_until_available=True), seen(KEY, unavailable_reason=UNAVAILABLE))

    assert plan.steps == (Step(EncryptionWrites.wait_until_available, {"group": "rg-batch", "name": "mybatch"}),)
    assert (plan.before["available"], plan.after["available"]) == (False, True)
    assert not encryption_plan.plan(plan.goal, seen(KEY)).changed


def test_an_account_on_another_key_is_not_waited_for() -> None:
    with pytest.raises(Unavailable):
        encryption_plan.plan(goal(ELSEWHERE, wait_until_available=True), seen(KEY, unavailable_reason=UNAVAILABLE))


@pytest.mark.parametrize(
    ("on", "available", "expected"),
    [
        (PINNED_OLD, True, f"uses {PINNED_OLD} now and is available"),
        (None, False, "a Microsoft-managed key now and is not available"),
    ],
)
def test_the_current_state_of_an_account_is_described(on: str | None, available: bool, expected: str) -> None:
    assert expected in goal(KEY).described({"key_identifier": on, "available": available})


def test_survey_of_no_account() -> None:
    assert encryption_survey.survey({"account": None, "unavailable_reason": None, "diagnosis": None}) == {
        "exists": False
    }


@pytest.mark.parametrize("unavailable_reason", [None, UNAVAILABLE], ids=["available", "unavailable"])
def test_survey_of_an_account(unavailable_reason: CmkError | None) -> None:
    document = account(key=KEY, identity=user_assigned(one=PRINCIPAL, two=OTHER))

    surveyed = encryption_survey.survey(
        {"account": document, "unavailable_reason": unavailable_reason, "diagnosis": None}
    )

    assert surveyed["exists"] is True
    assert surveyed["key_identifier"] == KEY
    assert surveyed["identity"]["type"] == "user_assigned"
    assert surveyed["principal_ids"] == [PRINCIPAL, OTHER]
    assert surveyed["available"] is (unavailable_reason is None)
    assert surveyed["unavailable_reason"] == (unavailable_reason.msg if unavailable_reason else None)


@pytest.mark.parametrize(("unavailable_reason", "available"), [(None, True), (UNAVAILABLE, False)])
def test_diagnosis_of_an_account_on_a_microsoft_managed_key(
    unavailable_reason: CmkError | None, available: bool
) -> None:
    found = encryption_survey.diagnosis(
        {"account": account(), "unavailable_reason": unavailable_reason, "diagnosis": None}
    )

    assert (found["key_identifier"], found["causes"], found["repairs"]) == (None, [], [])
    assert (found["available"], found["recoverable"]) == (available, available)


def test_diagnosis_of_an_account() -> None:
    disabled = key(enabled=False)
    found = diagnosed(PINNED_NEW, disabled, bundle=disabled, vault=vault())

    diagnosis = encryption_survey.diagnosis(
        {"account": account(key=PINNED_NEW), "unavailable_reason": UNAVAILABLE, "diagnosis": found}
    )

    assert diagnosis["repairs"] == ["key", "access"]
    assert diagnosis["key_identifiers"] == [PINNED_NEW]
    assert (diagnosis["available"], diagnosis["recoverable"]) == (False, True)


def test_survey_of_an_account_with_unknown_availability() -> None:
    observed = {"account": account(key=KEY), "unavailable_reason": HIDDEN, "diagnosis": None}

    surveyed = encryption_survey.survey(observed)

    assert (surveyed["available"], surveyed["unavailable_reason"]) == (None, None)
    assert "Microsoft.Batch/batchAccounts/pools/read" in encryption_survey.survey_warnings(observed)[0]
    assert encryption_survey.survey_warnings({**observed, "unavailable_reason": UNAVAILABLE}) == ()
    assert encryption_survey.survey_warnings({**observed, "account": None}) == ()


# From any state

PLACES = st.sampled_from([None, KEY, PINNED_OLD, PINNED_NEW, PINNED_NEW.upper(), ELSEWHERE])


@given(PLACES, st.sampled_from([None, PINNED_OLD, PINNED_NEW]), st.sampled_from(MODES))
def test_second_plan_is_empty_and_the_first_had_predicted_its_state(
    on: str | None, asked: str | None, mode: str
) -> None:
    def planned(place: str | None) -> Plan:
        wanted = goal(asked, previous_key="any", version_mode=mode)
        return encryption_plan.plan(wanted, seen(place))

    first = planned(on)
    second = planned(first.after["key_identifier"])

    assert not second.changed
    assert second.before == first.after
    assert len(first.steps) <= 1
