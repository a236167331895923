# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rotation, stage by stage."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, NEW, OLD, PRINCIPAL, account, system_assigned
from plays import Play
from wishes import rotation_goal

from ansible_collections.azbatch.cmk.plugins.module_utils import _rotation
from ansible_collections.azbatch.cmk.plugins.module_utils._errors import CmkError, Denied, InvalidOption, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._stages import Newest

PINNED_OLD, PINNED_NEW = f"{KEY}/{OLD}", f"{KEY}/{NEW}"
ELSEWHERE = "https://vault2.vault.azure.net/keys/other"
IN_USE = Refused("In use.", code="in_use", accounts=["another"])
NEWEST = {"version": NEW, "previous_version": OLD}


def described(on: str) -> dict[str, Any]:
    version = on.removeprefix(f"{KEY}").strip("/") or None
    names = {"key_source": "microsoft_keyvault", "key_identifier": on, "key_version": version}
    return {**names, "follows_latest": version is None, "answers": True}


def play(*answers: Outcome | CmkError, on: str | None = PINNED_OLD, **options: Any) -> Play:
    return Play(_rotation.stages(rotation_goal(**options), account(key=on, identity=system_assigned())), *answers)


def made(**more: Any) -> Outcome:
    return Outcome(True, {"version": OLD}, NEWEST, **more)


def moved(to: str = PINNED_NEW, **more: Any) -> Outcome:
    return Outcome(True, described(PINNED_OLD), described(to), **more)


def same(on: str = PINNED_NEW) -> Outcome:
    return Outcome(False, described(on), described(on))


def test_a_new_version_and_the_account_on_it() -> None:
    played = play(made(warnings=("Heed this.",)), moved())

    assert played.services == ["keys", "encryption"]
    make, switch = played.seen
    assert make.newest == Newest("myvault/batch", "/rg-batch/mybatch", OLD)
    assert make.requires is not None
    assert str(switch.goal.key) == PINNED_NEW
    assert played.outcome.changed
    assert played.outcome.warnings == ("Heed this.",)
    assert played.outcome.report["key_identifier"] == PINNED_NEW
    assert played.outcome.report["former_key_identifier"] == PINNED_OLD
    assert played.outcome.report["changed_steps"] == {
        **{"key": True, "access": False, "encryption": True},
        "former_disabled": False,
    }


def test_nothing_due() -> None:
    played = play(Outcome(False, NEWEST, NEWEST), same(), on=PINNED_NEW)

    assert not played.outcome.changed
    assert (played.outcome.before, played.outcome.after) == ({}, {})


@pytest.mark.parametrize(
    ("on", "follow", "wanted"),
    [
        pytest.param(KEY, True, KEY, id="is to follow, and does"),
        pytest.param(KEY, None, KEY, id="goes on following"),
        pytest.param(KEY, False, PINNED_NEW, id="is to be pinned"),
        pytest.param(PINNED_OLD, True, KEY, id="is to follow"),
        pytest.param(PINNED_OLD, None, PINNED_NEW, id="stays pinned"),
    ],
)
def test_whether_the_account_follows_is_changed_only_when_asked(on: str, follow: bool | None, wanted: str) -> None:
    played = play(made(), same(wanted), on=on, follow_latest=follow)

    assert str(played.seen[-1].goal.key) == wanted
    assert played.outcome.report["follows_latest"] is (wanted == KEY)


def test_another_key_is_replaced_only_where_it_is_named() -> None:
    """Somebody may move the account to another key meanwhile."""
    other = f"https://vault2.vault.azure.net/keys/other/{OLD}"

    assert not play(made(), moved()).seen[-1].goal.replaces
    assert play(moved(other), Outcome(False, {}, {}), moved(other), new_key_identifier=other).seen[-1].goal.replaces


def test_an_expiry_that_would_come_earlier_for_others_is_kept() -> None:
    played = play(IN_USE, Outcome(False, NEWEST, NEWEST), same(), on=PINNED_NEW, expires_in="P30D")

    assert [stage.goal.expires_in for stage in played.seen[:2]] == [30 * 86400, None]
    assert played.outcome.report["expiry_kept_for"] == ["another"]


@pytest.mark.parametrize(
    ("on", "newest", "versions"),
    [
        pytest.param(PINNED_OLD, NEWEST, [OLD], id="the one that it was on"),
        pytest.param(PINNED_NEW, NEWEST, [OLD], id="moved already"),
        pytest.param(KEY, NEWEST, [OLD], id="follows"),
        pytest.param(f"{KEY}/{'f' * 32}", NEWEST, ["f" * 32, OLD], id="one came between"),
        pytest.param(PINNED_NEW, {**NEWEST, "previous_version": None}, [], id="the first version"),
    ],
)
def test_which_versions_are_disabled(on: str, newest: dict[str, Any], versions: list[str]) -> None:
    disabled = [Outcome(True, {}, {})] * len(versions)

    played = play(Outcome(False, newest, newest), moved(), *disabled, on=on, previous_version="disable")

    assert [(stage.goal.state, stage.goal.version) for stage in played.seen[2:]] == [("disabled", v) for v in versions]
    assert all(stage.once for stage in played.seen[2:])
    assert played.outcome.report["changed_steps"]["former_disabled"] is bool(versions)


DISABLED = Outcome(True, {}, {})
SEVERAL = f"{KEY}/{'f' * 32}"


@pytest.mark.parametrize(
    ("on", "options", "disabled"),
    [
        pytest.param(PINNED_OLD, {"new_key_identifier": ELSEWHERE}, [KEY], id="the key that it was on"),
        pytest.param(
            PINNED_OLD,
            {"new_key_identifier": ELSEWHERE, "previous_key_identifier": PINNED_OLD},
            [PINNED_OLD],
            id="the version that is named",
        ),
        pytest.param(ELSEWHERE, {"new_key_identifier": ELSEWHERE}, [], id="on the other key already"),
        pytest.param(
            ELSEWHERE,
            {"new_key_identifier": ELSEWHERE, "previous_key_identifier": KEY.upper()},
            [KEY],
            id="on the other key already, and the one before is named",
        ),
        pytest.param(
            ELSEWHERE,
            {"new_key_identifier": ELSEWHERE, "previous_key_identifier": ELSEWHERE},
            [],
            id="the key that it is on is no previous one",
        ),
        pytest.param(PINNED_OLD, {"new_key_identifier": PINNED_NEW}, [PINNED_OLD], id="another version of the key"),
        pytest.param(KEY, {"new_key_identifier": PINNED_NEW}, [], id="it followed the key"),
        pytest.param(PINNED_NEW, {"previous_key_identifier": KEY}, [PINNED_OLD], id="its own key is named"),
        pytest.param(PINNED_NEW, {"previous_key_identifier": SEVERAL}, [PINNED_OLD, SEVERAL], id="one more version"),
        pytest.param(PINNED_NEW, {"previous_key_identifier": PINNED_NEW}, [PINNED_OLD], id="never the newest"),
        pytest.param(PINNED_NEW, {"previous_key_identifier": ELSEWHERE}, [PINNED_OLD, ELSEWHERE], id="a key of once"),
    ],
)
def test_only_what_the_account_used_or_is_named_is_disabled(
    on: str, options: dict[str, Any], disabled: list[str]
) -> None:
    other = options.get("new_key_identifier")
    granted = [moved(other), DISABLED, moved(other)] if other else []
    answers = granted or [Outcome(False, NEWEST, NEWEST), same()]
    played = play(*answers, *[DISABLED] * len(disabled), on=on, previous_version="disable", **options)

    stages = [stage for stage in played.seen if stage.service == "keys" and stage.goal.state == "disabled"]
    wanted = [parse_key_identifier(one, "key") for one in disabled]
    named = [(one.goal.vault, one.goal.name.lower(), one.goal.version) for one in stages]
    assert named == [(one.vault, one.name, one.version) for one in wanted]
    assert [one.alone for one in stages] == [one.goal.vault for one in stages]
    assert len({one.once for one in stages}) == len(stages)
    is_unknown = on == other and "previous_key_identifier" not in options
    assert any("previous_key_identifier" in one for one in played.outcome.warnings) is is_unknown


@pytest.mark.parametrize(
    ("switch", "moved_now"), [pytest.param(moved(), True, id="moved"), pytest.param(same(), False, id="there already")]
)
def test_the_grace_time_of_a_version(switch: Outcome, moved_now: bool) -> None:
    kept = Refused("Wait.", code="in_grace", kept_until="2026-01-02T00:00:00Z")
    played = play(
        Outcome(False, NEWEST, NEWEST), switch, kept, previous_version="disable", previous_version_grace="P2D"
    )

    goal = played.seen[-1].goal
    assert (goal.grace.lasts, goal.grace.moved_now, str(goal.grace.moved_to)) == (2 * 86400, moved_now, KEY)
    assert (goal.not_after, goal.max_version_age, goal.new_version) == (NEW, None, False)
    assert played.outcome.report["previous_kept_until"] == "2026-01-02T00:00:00Z"
    assert played.outcome.report["former_kept_for"] == []


def test_an_account_that_somebody_else_moves_meanwhile_gets_the_newest_by_then() -> None:
    moved_away = Refused("Moved.", code="account_moved", key_identifier=SEVERAL, applied=[])
    later = {"version": "f" * 32, "previous_version": NEW}
    played = play(Outcome(False, NEWEST, NEWEST), moved_away, Outcome(False, later, later), same(SEVERAL))

    assert [stage.goal.instead_of.version for stage in played.seen if stage.service == "encryption"] == [OLD, "f" * 32]
    assert [stage.newest.used for stage in played.seen if stage.newest] == [OLD, "f" * 32]
    assert played.outcome.report["key_identifier"] == SEVERAL


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"key_identifier": None}, id="to a Microsoft-managed key"),
        pytest.param({"key_identifier": ELSEWHERE}, id="to another key"),
        pytest.param({"key_identifier": SEVERAL, "applied": ["set_encryption"]}, id="after this run has moved it"),
    ],
)
def test_an_account_that_somebody_else_takes_away_stays_there(facts: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        play(Outcome(False, NEWEST, NEWEST), Refused("Moved.", code="account_moved", **facts))

    assert refused.value.code == "account_moved"


def test_the_longest_grace_time_is_told() -> None:
    kept = [Refused("Wait.", code="in_grace", kept_until=f"2026-01-0{day}T00:00:00Z") for day in (3, 2)]
    played = play(Outcome(False, NEWEST, NEWEST), moved(), *kept, on=SEVERAL, previous_version="disable")

    assert played.outcome.report["previous_kept_until"] == "2026-01-03T00:00:00Z"


def test_a_version_that_others_are_on_is_kept_for_them() -> None:
    played = play(made(), moved(), IN_USE, previous_version="disable")

    assert played.outcome.report["former_kept_for"] == ["another"]
    assert played.outcome.report["changed_steps"]["former_disabled"] is False


def test_a_different_key_is_foreseen_then_granted_then_taken() -> None:
    refused = Refused("Not granted.", code="preflight_failed", failed_checks=["access_granted"])
    granted = Outcome(True, {}, {})
    played = play(
        refused,
        granted,
        moved(ELSEWHERE),
        Outcome(True, {}, {}),
        new_key_identifier=ELSEWHERE,
        previous_version="disable",
    )

    assert played.services == ["encryption", "access", "encryption", "keys"]
    foreseen, grant, switch, disable = played.seen
    assert (foreseen.foresee, switch.foresee) == (True, False)
    assert (grant.goal.vault, grant.goal.principal_id) == ("vault2", PRINCIPAL)
    assert str(switch.goal.key) == ELSEWHERE
    assert (disable.goal.state, disable.goal.name, disable.goal.version) == ("disabled", "batch", None)


def test_a_different_key_that_fails_otherwise_is_not_granted() -> None:
    checks = ["key_enabled", "access_granted"]
    with pytest.raises(Refused) as refused:
        play(Refused("No.", code="preflight_failed", failed_checks=checks), new_key_identifier=ELSEWHERE)

    assert refused.value.facts["changed_steps"]["access"] is False


@pytest.mark.parametrize(
    ("on", "options", "code"),
    [
        pytest.param(None, {}, "account_not_on_cmk", id="Microsoft-managed"),
        pytest.param(ELSEWHERE, {}, "account_on_another_key", id="another key"),
        pytest.param(ELSEWHERE, {"new_key_identifier": f"{ELSEWHERE}/{NEW}"}, "account_on_another_key", id="a third"),
    ],
)
def test_an_account_that_is_elsewhere_is_left_alone(on: str | None, options: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        play(on=on, **options)

    assert refused.value.code == code


@pytest.mark.parametrize("on", [ELSEWHERE, ELSEWHERE.upper().replace("HTTPS", "https")])
def test_an_account_that_is_on_the_different_key_already_is_looked_at_all_the_same(on: str) -> None:
    played = play(same(ELSEWHERE), Outcome(False, {}, {}), same(ELSEWHERE), on=on, new_key_identifier=ELSEWHERE)

    assert not played.outcome.changed


def test_what_was_done_before_a_failure_is_told() -> None:
    with pytest.raises(Denied) as failed:
        play(made(), Denied("You may not."))
    assert failed.value.facts["changed_steps"]["key"] is True
    assert "so_far" not in failed.value.facts

    with pytest.raises(Denied) as failed:
        play(made(), moved(), Denied("You may not."), previous_version="disable")
    assert failed.value.facts["so_far"]["key_identifier"] == PINNED_NEW


def test_an_account_that_is_gone() -> None:
    def ended(missing: str) -> Outcome:
        with pytest.raises(StopIteration) as end:
            next(_rotation.stages(rotation_goal(missing=missing), None))
        outcome: Outcome = end.value.value
        return outcome

    assert ended("skip").report == {"account": "mybatch", "exists": False}
    assert not ended("skip").changed
    with pytest.raises(CmkError) as failed:
        ended("fail")
    assert failed.value.code == "account_not_found"


@pytest.mark.parametrize(
    "options",
    [
        {"account_name": "my-batch"},
        {"vault_name": "v"},
        {"key_name": "a_key"},
        {"new_key_identifier": "batch"},
        {"key_size": 1024},
        {"max_version_age": "90 days"},
        {"previous_version_grace": "soon"},
        {"previous_key_identifier": "batch"},
    ],
)
def test_malformed_options_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption) as refused:
        rotation_goal(**options)

    assert refused.value.facts["option"] == next(iter(options))


def test_accounts_of_the_same_name_are_counted_apart() -> None:
    """In two subscriptions, groups and accounts may have the same names."""
    params = {"resource_group": "rg", "account_name": "batch", "vault_name": "kv", "key_name": "cmk"}

    counted = {_rotation.counted_as({**params, "subscription_id": one})[1] for one in ("first", "second", None)}

    assert len(counted) == 3
