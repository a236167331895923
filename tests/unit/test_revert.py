# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account that goes back to a Microsoft-managed key, stage by stage."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, NEW, OTHER, PRINCIPAL, account, system_assigned, user_assigned
from plays import Play
from wishes import revert_goal

from ansible_collections.azbatch.cmk.plugins.module_utils import _encryption, _revert
from ansible_collections.azbatch.cmk.plugins.module_utils._errors import CmkError, Denied, InvalidOption, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome

PINNED = f"{KEY}/{NEW}"
BACK = {**_encryption.describe(account()), "answers": True}
ON_KEY = {**_encryption.describe(account(key=PINNED)), "answers": True}
ALL = {"key": "delete", "access": "withdraw"}
IN_USE = Refused("In use.", code="in_use", accounts=["another"])
DONE = Outcome(True, {}, {})


def play(
    *answers: Outcome | CmkError, on: str | None = PINNED, identity: dict[str, Any] | None = None, **options: Any
) -> Play:
    has = account(key=on, identity=identity or system_assigned())
    return Play(_revert.stages(revert_goal(**options), has), *answers)


def taken_back(**more: Any) -> Outcome:
    return Outcome(True, ON_KEY, BACK, **more)


def test_key_and_access_stay_unless_it_is_asked() -> None:
    played = play(taken_back(), taken_back())

    assert played.services == ["encryption", "encryption"]
    assert [stage.foresee for stage in played.seen] == [True, False]
    assert played.seen[1].goal.key is None
    report = played.outcome.report
    assert (report["key_source"], report["former_key_identifier"], report["answers"]) == (
        "microsoft_batch",
        PINNED,
        True,
    )


def test_what_is_left_behind_is_foreseen_first_and_put_away_last() -> None:
    played = play(taken_back(), IN_USE, IN_USE, taken_back(), DONE, DONE, **ALL)

    assert played.services == ["encryption", "keys", "access", "encryption", "keys", "access"]
    assert [stage.foresee for stage in played.seen] == [True] * 3 + [False] * 3
    key, access = played.seen[4:]
    assert (key.goal.state, key.goal.name, key.alone) == ("absent", "batch", "myvault")
    assert (access.goal.principal_id, access.goal.present, access.alone) == (PRINCIPAL, False, "myvault")
    assert played.outcome.report["changed_steps"] == {"encryption": True, "key": True, "access": True}


def test_access_of_each_identity() -> None:
    identity = user_assigned(one=PRINCIPAL, two=OTHER)
    answers = [taken_back(), DONE, DONE, taken_back(), DONE, DONE]
    played = play(*answers, identity=identity, access="withdraw")

    assert [stage.goal.principal_id for stage in played.seen[4:]] == [PRINCIPAL, OTHER]


def test_what_others_use_stays() -> None:
    played = play(taken_back(), IN_USE, IN_USE, taken_back(), IN_USE, IN_USE, **ALL)

    report = played.outcome.report
    assert (report["key_kept_for"], report["access_kept_for"]) == (["another"], ["another"])
    assert report["changed_steps"] == {"encryption": True, "key": False, "access": False}


@pytest.mark.parametrize("failing", [1, 2, 4, 5])
def test_other_refusals_end_it(failing: int) -> None:
    answers: list[Outcome | CmkError] = [taken_back(), DONE, DONE, taken_back(), DONE, DONE]
    answers[failing:] = [Denied("You may not.")]
    with pytest.raises(Denied) as failed:
        play(*answers, **ALL)

    assert failed.value.facts["changed_steps"]["encryption"] is (failing > 3)
    assert ("so_far" in failed.value.facts) is (failing > 3)


@pytest.mark.parametrize("wish", [{"key": "disable"}, {"key": "delete"}, {"access": "withdraw"}])
def test_nothing_tells_which_key_an_account_used_that_is_back_already(wish: dict[str, str]) -> None:
    """It may never have been on the key that is named."""
    same = Outcome(False, BACK, BACK)
    played = play(same, same, on=None, **wish)

    assert played.services == ["encryption", "encryption"]
    assert "previous_key_identifier" in played.outcome.warnings[0]
    assert not played.outcome.changed


def test_an_account_that_is_back_already_warns_of_nothing_that_was_not_asked() -> None:
    same = Outcome(False, BACK, BACK)

    assert play(same, same, on=None).outcome.warnings == ()


@pytest.mark.parametrize("previous", [KEY, f"{KEY}/{NEW}", f"{KEY}/{NEW}".upper()])
def test_an_account_that_is_back_already_leaves_the_key_behind_that_somebody_confirms(previous: str) -> None:
    same = Outcome(False, BACK, BACK)
    played = play(same, DONE, same, DONE, on=None, key="disable", previous_key_identifier=previous)

    assert played.outcome.warnings == ()
    assert played.seen[-1].goal.state == "disabled"
    assert played.outcome.report["changed_steps"] == {"encryption": False, "key": True, "access": False}


@pytest.mark.parametrize("previous", [f"{KEY}2", KEY.replace("myvault", "vault2"), "batch"])
def test_the_previous_key_is_the_one_that_is_named(previous: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        revert_goal(previous_key_identifier=previous)

    assert refused.value.facts["option"] == "previous_key_identifier"


@pytest.mark.parametrize("wish", [{"key": "disable"}, {"key": "delete"}, {"access": "withdraw"}])
@pytest.mark.parametrize("option", [{"key_name": "other"}, {"vault_name": "vault2"}])
def test_a_key_that_the_account_is_not_on_is_not_put_away(wish: dict[str, str], option: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        play(**wish, **option)

    assert refused.value.code == "account_on_another_key"
    # Where nothing is put away, it does not matter.
    assert play(taken_back(), taken_back(), **option).outcome.changed


def test_an_account_that_is_gone() -> None:
    def ended(missing: str) -> Outcome:
        return Play(_revert.stages(revert_goal(missing=missing), None)).outcome

    assert ended("skip").report == {"account": "mybatch", "exists": False}
    assert not ended("skip").changed
    with pytest.raises(CmkError) as failed:
        ended("fail")
    assert failed.value.code == "account_not_found"


@pytest.mark.parametrize("options", [{"account_name": "my-batch"}, {"vault_name": "v"}, {"key_name": "a_key"}])
def test_malformed_options_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption) as refused:
        revert_goal(**options, key="delete")

    assert refused.value.facts["option"] == next(iter(options))
