# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The decision on the key that a Batch account uses, and on its rollback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure_table import task_of
from documents import (
    DAY,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    account,
    key,
    policy,
    user_assigned,
    vault,
)
from encryption_table import (
    ELSEWHERE,
    NO_KEY,
    PERMISSIONS,
    PINNED_NEW,
    PINNED_OLD,
    POOLS,
    Azure,
    decided,
    keys_set_by,
    solved,
)
from goals import encryption_goal as goal

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.diagnosis import AccountState
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    InvalidOption,
    Refused,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import survey as encryption_survey
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.decide import Move

UNKNOWN_KIND = f"https://myhsm.managedhsm.azure.net/keys/batch/{OLD}"
HIDDEN = Denied("Azure reports: (AuthorizationFailed) you may not.", azure={"code": "AuthorizationFailed"})


def seen(on: str | None, *, pools: CmkError | None = None, **found: Any) -> Azure:
    """An account that uses a key. `found` are the vault, and the newest version, of the key KEY, or the errors of their
    reads. If a list of its pools fails, the caller's permissions do not show the right to list them."""
    azure = Azure(on)
    if pools:
        azure.update({POOLS: pools, PERMISSIONS: []})
    if "vault" in found:
        azure.has_vault(found["vault"])
    if "bundle" in found:
        azure.update({KEY: found["bundle"], PINNED_NEW: found["bundle"]})
    return azure


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


# The planned key


@pytest.mark.parametrize(
    ("on", "asked"),
    [
        pytest.param(PINNED_OLD.upper(), PINNED_OLD, id="another letter case"),
        pytest.param(f"https://myvault.vault.azure.net:443/keys/batch/{OLD}/", PINNED_OLD, id="another spelling"),
    ],
)
def test_account_that_is_on_the_key_stays_as_it_is(on: str | None, asked: str | None) -> None:
    change = decided(goal(asked), seen(on))

    assert not change.requests
    assert change.before == change.after
    assert change.report == {"previous_key_identifier": None}


@pytest.mark.parametrize(
    ("on", "asked"),
    [
        pytest.param(None, PINNED_NEW, id="first key"),
        pytest.param(ELSEWHERE, KEY, id="another vault"),
        pytest.param(KEY, None, id="back from following"),
    ],
)
def test_account_is_moved_and_nothing_else_is_sent(on: str | None, asked: str | None) -> None:
    change = decided(goal(asked, previous_key="any" if on == ELSEWHERE else None), seen(on))

    assert keys_set_by(change) == [asked]
    assert change.report["previous_key_identifier"] == on
    assert change.before["key_identifier"] == on
    assert change.after["key_identifier"] == asked
    assert change.after["key_source"] == ("microsoft_keyvault" if asked else "microsoft_batch")


def test_account_is_not_moved_to_a_key_that_fails_preflight() -> None:
    with pytest.raises(Refused) as refused:
        decided(goal(KEY), seen(None, bundle=key(enabled=False), vault=vault(policy(OTHER))))

    assert refused.value.code == "preflight_failed"
    assert refused.value.facts["failed_checks"] == ["key_enabled", "access_granted"]


@pytest.mark.parametrize(
    ("on", "asked"),
    [
        pytest.param(PINNED_OLD, PINNED_OLD, id="the key it is on"),
        pytest.param(None, KEY, id="Microsoft-managed"),
    ],
)
def test_an_unavailable_account_is_not_changed(on: str | None, asked: str | None) -> None:
    with pytest.raises(Unavailable) as failed:
        decided(goal(asked), seen(on, pools=NO_KEY))

    assert failed.value.code == "account_unavailable"
    assert failed.value.facts["key_identifier"] == on
    assert failed.value.facts["azure"] == NO_KEY.facts["azure"]
    assert f"It uses {'the key batch in myvault' if on else 'a Microsoft-managed key'}." in str(failed.value)


def test_a_change_that_could_not_be_confirmed_is_refused() -> None:
    """Also before the key is judged, which rotation would repair."""
    with pytest.raises(Denied) as refused:
        decided(goal(PINNED_NEW), seen(PINNED_OLD, pools=HIDDEN, bundle=key(enabled=False)))

    assert refused.value.code == "availability_unknown"


@pytest.mark.parametrize(
    ("found", "remedy", "details"),
    [
        pytest.param({"pools": HIDDEN}, "Assign Reader on the account.", "", id="pools"),
        pytest.param({"vault": HIDDEN}, "Make that readable", HIDDEN.msg, id="vault"),
    ],
)
def test_availability_that_has_to_be_readable(found: dict[str, Any], remedy: str, details: str) -> None:
    assert decided(goal(KEY), seen(KEY, **found)).after["available"] is None
    with pytest.raises(Refused) as refused:
        decided(goal(KEY, require_readable=True), seen(KEY, **found))

    assert refused.value.code == "availability_unknown"
    assert remedy in str(refused.value)
    assert details in refused.value.facts.get("details", "")
    assert "require_readable: true" in str(refused.value)


def test_a_version_that_was_disabled_on_purpose_is_readable() -> None:
    """It does not make a job fail each night."""
    azure = seen(KEY)
    azure.change(MIDDLE, enabled=False, updated=NOW - DAY)

    assert decided(goal(KEY, require_readable=True), azure).after["available"] is None


def test_an_account_with_unknown_availability_is_not_waited_for() -> None:
    with pytest.raises(Denied) as refused:
        decided(goal(KEY, wait_until_available=True), seen(KEY, pools=HIDDEN))

    assert refused.value.code == "availability_unknown"


def test_a_rollback_does_not_need_the_right_to_check_the_account() -> None:
    change = decided(goal(PINNED_NEW), seen(PINNED_OLD))

    assert keys_set_by(solved(change.back()[0].decide, seen(PINNED_NEW, pools=HIDDEN))) == [PINNED_OLD]
    current = solved(change.back()[0].decide, seen(PINNED_OLD, pools=HIDDEN)).before
    assert "its availability is not known" in change.undone(current)


@pytest.mark.parametrize(
    ("on", "asked", "refused"),
    [
        pytest.param(PINNED_OLD.upper().replace("HTTPS", "https"), PINNED_NEW, False, id="in capitals"),
        pytest.param(None, KEY, False, id="from a Microsoft-managed key"),
        pytest.param(ELSEWHERE, KEY, True, id="another vault"),
        pytest.param(f"{KEY}2/{OLD}", PINNED_NEW, True, id="another name"),
        pytest.param(UNKNOWN_KIND, PINNED_NEW, True, id="a managed HSM"),
    ],
)
def test_a_different_key_is_left_only_on_request(on: str | None, asked: str | None, refused: bool) -> None:
    assert keys_set_by(decided(goal(asked, previous_key="any"), seen(on))) == [asked]
    if not refused:
        assert keys_set_by(decided(goal(asked), seen(on))) == [asked]
        return
    with pytest.raises(Refused) as failed:
        decided(goal(asked), seen(on))

    assert failed.value.code == "account_on_another_key"
    assert failed.value.facts["option"] == "previous_key"
    assert "set O(previous_key) to the one that it may leave" in failed.value.facts["remedy"]


# Whether the account follows the newest version

OTHER_KEY = f"{KEY}2/{OLD}"


@pytest.mark.parametrize(
    ("mode", "on", "asked", "wanted"),
    [
        pytest.param("update", KEY.upper(), PINNED_NEW, None, id="keeps following, in capitals"),
        pytest.param("update", PINNED_OLD, PINNED_NEW, PINNED_NEW, id="is moved to the version"),
        pytest.param("update", OTHER_KEY, PINNED_NEW, PINNED_NEW, id="takes the version of another key"),
        pytest.param("update", None, KEY, KEY, id="follows without a version"),
        pytest.param("keep", KEY, PINNED_NEW, None, id="stays as it is and follows"),
        pytest.param("keep", PINNED_OLD, PINNED_NEW, None, id="stays as it is"),
        pytest.param("keep", OTHER_KEY, PINNED_NEW, PINNED_NEW, id="cannot stay as it is"),
        pytest.param("keep", None, PINNED_NEW, PINNED_NEW, id="has nothing to keep"),
        pytest.param("follow", KEY, PINNED_NEW, None, id="is to follow, and does"),
        pytest.param("follow", PINNED_NEW, PINNED_NEW, KEY, id="is to follow, from this version"),
        pytest.param("follow", OTHER_KEY, PINNED_NEW, KEY, id="is to follow another key"),
        pytest.param("follow", PINNED_NEW, KEY, KEY, id="no version, and is to follow"),
        pytest.param("pin", KEY, PINNED_NEW, PINNED_NEW, id="is to be pinned, and follows"),
        pytest.param("pin", PINNED_OLD, PINNED_NEW, PINNED_NEW, id="is to be pinned, and is"),
        pytest.param("pin", PINNED_NEW, PINNED_NEW, None, id="is pinned to the version"),
    ],
)
def test_the_key_identifier_that_is_set(mode: str, on: str | None, asked: str, wanted: str | None) -> None:
    """`wanted` is None if the account is not changed."""
    wants = goal(asked, version_mode=mode, previous_key="any")
    change = decided(wants, seen(on))

    assert keys_set_by(change) == ([] if wanted is None else [wanted])
    assert change.after["key_identifier"] == encryption_document.describe(account(key=wanted or on))["key_identifier"]
    # After the change, nothing is left to do.
    assert not decided(wants, seen(wanted or on)).requests


@pytest.mark.parametrize(("mode", "reads"), [("pin", 2), ("update", 2), ("follow", 1)])
def test_the_version_to_which_an_account_is_pinned_is_read_by_the_task(mode: str, reads: int, tmp_path: Path) -> None:
    """Another controller may have made a newer one since another task has read the key. A key that an account will
    follow is only checked."""
    azure, newest = seen(PINNED_OLD), refs.key(parse_key_identifier(KEY, "key_identifier"))
    task_of(azure, tmp_path).driver.get(newest)

    decided(goal(KEY, version_mode=mode, previous_key="any"), azure, task_of(azure, tmp_path))

    assert azure.reads_of(newest) == reads


@pytest.mark.parametrize(
    ("on", "asked", "mode", "advised"),
    [
        pytest.param(PINNED_NEW, KEY, None, "follow", id="stays pinned"),
        pytest.param(KEY, PINNED_NEW, None, "pin", id="keeps following"),
        pytest.param(PINNED_NEW, KEY, "update", None, id="stays pinned, as requested"),
        pytest.param(PINNED_OLD, PINNED_NEW, None, None, id="pinned, to a version"),
        pytest.param(KEY, None, None, None, id="to a Microsoft-managed key"),
    ],
)
def test_an_identifier_that_does_not_decide_whether_the_account_follows(
    on: str | None, asked: str | None, mode: str | None, advised: str | None
) -> None:
    wants, azure = goal(asked, previous_key="any", version_mode=mode), seen(on)
    glanced = task_of(azure).driver.solve(Move(wants, Facts(task_of(azure).session)).glance)
    for change in filter(None, (decided(wants, azure), glanced)):
        found = [one for one in change.warnings if "O(key_identifier)" in one]
        assert [f"Set O(version_mode={advised}) to change" in one for one in found] == [True] * (advised is not None)


# An account that may be moved from one key only


@pytest.mark.parametrize(
    ("on", "allowed"),
    [
        pytest.param(PINNED_OLD, True, id="pinned to the key"),
        pytest.param(None, False, id="uses a Microsoft-managed key"),
        pytest.param(f"{KEY}2/{OLD}", False, id="a key of another name"),
        pytest.param("https://vault3.vault.azure.net/keys/batch", False, id="a key in another vault"),
    ],
)
def test_an_account_is_moved_from_the_named_key_only(on: str | None, allowed: bool) -> None:
    asked = f"{ELSEWHERE}/{NEW}"
    wanted = goal(asked, previous_key="MyVault/BATCH", version_mode="pin")

    if allowed:
        assert keys_set_by(decided(wanted, seen(on))) == [asked]
        return
    with pytest.raises(Refused) as refused:
        decided(wanted, seen(on))
    assert refused.value.code == "account_on_another_key"
    assert (refused.value.facts["option"], refused.value.facts["key_identifier"]) == ("previous_key", on)
    assert all(
        part in str(refused.value)
        for part in ("the key" if on else "a Microsoft-managed key", "BATCH in MyVault", "This task changed nothing.")
    )


@pytest.mark.parametrize(
    "previous",
    ["batch", "myvault/", "https://myvault.vault.azure.net/batch"],
)
def test_the_previous_key_has_a_vault_and_a_name(previous: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(ELSEWHERE, previous_key=previous)

    assert (refused.value.facts["option"], refused.value.facts["value"]) == ("previous_key", previous)


@pytest.mark.parametrize("previous", [PINNED_OLD, " myvault/batch ", " ANY"])
def test_ways_to_name_the_previous_key(previous: str) -> None:
    assert decided(goal(ELSEWHERE, previous_key=previous), seen(PINNED_NEW)).requests


# The rollback of a switch that failed


# Previous key, requested key and options of all kinds of moves, such as from following to pinned.
WAYS: list[tuple[str | None, str | None, dict[str, Any]]] = [
    (None, PINNED_NEW, {}),
    (PINNED_OLD, PINNED_NEW, {}),
    (PINNED_OLD, PINNED_NEW, {"version_mode": "follow"}),
    (KEY, PINNED_NEW, {"version_mode": "pin"}),
    (f"{ELSEWHERE}/{OLD}", PINNED_NEW, {"previous_key": "any", "version_mode": "keep"}),
    (f"{ELSEWHERE}/{OLD}", KEY, {"previous_key": "any"}),
    (KEY, None, {}),
]
EVERYWHERE = [None, KEY, PINNED_OLD, PINNED_NEW, ELSEWHERE, f"{ELSEWHERE}/{OLD}", f"{ELSEWHERE}/{NEW}"]


@pytest.mark.parametrize(("on", "asked", "options"), WAYS)
def test_a_rollback_restores_the_exact_previous_setting(
    on: str | None, asked: str | None, options: dict[str, Any]
) -> None:
    change = decided(goal(asked, **options), seen(on))
    now, back = change.after["key_identifier"], change.back()[0].decide

    # The rollback moves the account only if it uses the key that this task has set.
    for place in EVERYWHERE:
        undone = solved(back, seen(place, pools=NO_KEY))
        assert keys_set_by(undone) == ([on] if place == now else [])
        assert undone.after["key_identifier"] == (on if place == now else place)


@pytest.mark.parametrize(("on", "asked", "options"), WAYS)
def test_a_rollback_is_confirmed_by_the_exact_previous_setting(
    on: str | None, asked: str | None, options: dict[str, Any]
) -> None:
    now = decided(goal(asked, **options), seen(on)).after["key_identifier"]
    back = solved(decided(goal(asked, **options), seen(on)).back()[0].decide, seen(now))

    for place in EVERYWHERE:
        found = solved(back.confirm, seen(place))
        assert keys_set_by(found) == ([on] if place == now else [])
        assert (found.before["key_identifier"] == on) is (place == on)


def test_a_rollback_is_made_if_access_to_the_previous_key_cannot_be_read() -> None:
    hidden = {"vault": Denied("You may not read the vault.")}
    with pytest.raises(Refused) as refused:
        decided(goal(PINNED_NEW), seen(PINNED_OLD, **hidden))
    assert refused.value.code == "access_unknown"
    back = decided(goal(PINNED_NEW), seen(PINNED_OLD)).back()[0].decide

    assert keys_set_by(solved(back, seen(PINNED_NEW, pools=NO_KEY, **hidden))) == [PINNED_OLD]


@pytest.mark.parametrize(("on", "asked", "options"), WAYS)
def test_the_last_rollback_is_to_a_microsoft_managed_key(
    on: str | None, asked: str | None, options: dict[str, Any]
) -> None:
    change = decided(goal(asked, **options), seen(on))
    if on is None:
        assert len(change.back()) == 1
        return
    for place in EVERYWHERE:
        last = solved(change.back()[1].decide, seen(place, pools=NO_KEY))
        moves = place is not None and place == change.after["key_identifier"]
        assert keys_set_by(last) == ([None] if moves else [])


def test_a_rollback_to_a_key_that_cannot_be_used_is_refused() -> None:
    back = decided(goal(PINNED_NEW), seen(PINNED_OLD)).back()[0].decide
    azure = seen(PINNED_NEW, pools=NO_KEY)
    azure.change(OLD, enabled=False)

    with pytest.raises(Refused) as refused:
        solved(back, azure)
    assert refused.value.facts["failed_checks"] == ["key_enabled"]


def test_for_a_rollback_the_access_of_one_identity_is_enough() -> None:
    azure = seen(PINNED_OLD)
    back = decided(goal(PINNED_NEW), azure).back()[0].decide
    azure.identity = user_assigned(one=PRINCIPAL, two=OTHER)
    azure.move(PINNED_OLD)
    with pytest.raises(Refused):
        decided(goal(PINNED_NEW), azure)
    azure.move(PINNED_NEW)

    assert keys_set_by(solved(back, azure)) == [PINNED_OLD]


def test_the_vault_of_the_previous_key_may_be_in_another_group() -> None:
    """The rollback does not search the resource group of the wanted key's vault."""
    azure = seen(ELSEWHERE)
    back = decided(goal(KEY, vault_resource_group="rg-other", previous_key="any"), azure).back()[0].decide
    azure.move(KEY)
    azure.asked.clear()

    assert keys_set_by(solved(back, azure)) == [ELSEWHERE]
    assert not any("rg-other" in one for one in azure.asked)


# Return values


def test_an_account_on_another_key_is_not_waited_for() -> None:
    with pytest.raises(Unavailable):
        decided(goal(ELSEWHERE, wait_until_available=True), seen(KEY, pools=NO_KEY))


@pytest.mark.parametrize(("unavailable_reason", "available"), [(None, True), (NO_KEY, False)])
def test_diagnosis_of_an_account_on_a_microsoft_managed_key(
    unavailable_reason: CmkError | None, available: bool
) -> None:
    found = encryption_survey.diagnosis(AccountState(account(), unavailable_reason))

    assert (found["key_identifier"], found["causes"], found["repairs"]) == (None, [], [])
    assert (found["available"], found["recoverable"]) == (available, available)


def test_survey_of_an_account_with_unknown_availability() -> None:
    observed = AccountState(account(key=KEY), HIDDEN)

    surveyed = encryption_survey.survey(observed)

    assert (surveyed["available"], surveyed["unavailable_reason"]) == (None, None)
    assert "Assign Reader on the account." in encryption_survey.survey_warnings(observed)[0]
    assert encryption_survey.survey_warnings(replace(observed, unavailable_reason=NO_KEY)) == ()
    assert encryption_survey.survey_warnings(replace(observed, account=None)) == ()
