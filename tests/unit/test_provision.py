# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account that is put on a key, stage by stage."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, NEW, OLD, PRINCIPAL, account, identity_id, system_assigned, vault
from plays import Play
from wishes import provision_goal

from ansible_collections.azbatch.cmk.plugins.module_utils import _account, _encryption, _provision, _vault
from ansible_collections.azbatch.cmk.plugins.module_utils._errors import CmkError, Denied, InvalidOption, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome

PINNED = f"{KEY}/{NEW}"
IDENTITY = identity_id()
IN_USE = Refused("In use.", code="in_use", accounts=["another"])


def play(*answers: Outcome | CmkError, **options: Any) -> Play:
    return Play(_provision.stages(provision_goal(**options)), *answers)


def same(state: dict[str, Any]) -> Outcome:
    return Outcome(False, state, state)


def made(state: dict[str, Any], before: dict[str, Any] | None = None, **more: Any) -> Outcome:
    return Outcome(True, before or {"exists": False}, state, **more)


VAULT = _vault.describe(vault())
ACCOUNT = _account.describe(account(identity=system_assigned()))
KEYS = {"key_identifier": PINNED, "versionless_identifier": KEY}
# Of something that does not exist, Azure has given no id yet.
NO_VAULT = made({"exists": True, "name": "myvault"})
NO_ACCOUNT = made({"exists": True, "identity": {"principal_id": None}})
GRANTED = {"granted": ["get"]}
UNGRANTED = made(GRANTED)


def on(key: str) -> dict[str, Any]:
    return {**_encryption.describe(account(key=key)), "answers": True}


def at(key: str) -> Outcome:
    return same(_account.describe(account(key=key, identity=system_assigned())))


def test_from_nothing() -> None:
    played = play(
        *(NO_VAULT, NO_ACCOUNT),
        *(made(VAULT), made(ACCOUNT), made(KEYS), made(GRANTED), made(on(PINNED), warnings=("Heed this.",))),
    )

    assert played.services == ["vaults", "accounts", "vaults", "accounts", "keys", "access", "encryption"]
    assert [stage.foresee for stage in played.seen] == [True, True, False, False, False, False, False]
    # Hosts that share the vault take turns at it.
    assert [stage.alone for stage in played.seen[2:]] == ["myvault", None, "myvault", "myvault", None]
    assert played.seen[5].goal.principal_id == PRINCIPAL
    assert str(played.seen[-1].goal.key) == PINNED
    report = played.outcome.report
    assert (report["exists"], report["key_identifier"], report["former_key_identifier"]) == (True, PINNED, None)
    assert report["changed_steps"] == dict.fromkeys(_provision.STEPS, True) | {"born_on_key": False}
    assert played.outcome.warnings == ("Heed this.",)


def again(key: str = PINNED, **options: Any) -> Play:
    """All is there, and the account is on that key."""
    return play(
        *(same(VAULT), at(key), same(KEYS), same(GRANTED)),
        *(same(VAULT), at(key), same(KEYS), same(GRANTED), same(on(key))),
        **options,
    )


def test_nothing_to_do() -> None:
    played = again()

    assert not played.outcome.changed
    assert (played.outcome.before, played.outcome.after) == ({}, {})


def test_the_key_and_the_access_are_foreseen_once_there_is_a_vault() -> None:
    assert again().services[:4] == ["vaults", "accounts", "keys", "access"]
    assert all(stage.foresee for stage in again().seen[:4])
    assert again().seen[3].goal.principal_id == PRINCIPAL


@pytest.mark.parametrize(
    ("former", "follow", "wanted"),
    [
        pytest.param(f"{KEY}/{OLD}", None, f"{KEY}/{OLD}", id="stays on its version"),
        pytest.param(KEY, None, KEY, id="goes on following"),
        pytest.param(KEY.replace("batch", "BATCH"), None, KEY, id="goes on following, in capitals"),
        pytest.param("https://vault2.vault.azure.net/keys/batch", None, PINNED, id="followed another key"),
        pytest.param("https://vault2.vault.azure.net/keys/batch", True, KEY, id="is to follow another key"),
        pytest.param(f"{KEY}/{OLD}", False, f"{KEY}/{OLD}", id="is pinned already"),
        pytest.param(f"{KEY}/{OLD}", True, KEY, id="is to follow"),
        pytest.param(KEY, False, PINNED, id="is to be pinned"),
        pytest.param(f"{KEY}/{OLD}".upper(), False, f"{KEY}/{OLD}".replace("batch", "BATCH"), id="pinned, in capitals"),
        pytest.param("https://vault2.vault.azure.net/keys/batch/" + OLD, False, PINNED, id="another vault's key"),
        pytest.param(f"{KEY}2/{OLD}", False, PINNED, id="a key whose name begins alike"),
    ],
)
def test_where_the_account_is_put(former: str, follow: bool | None, wanted: str) -> None:
    assert str(again(former, follow_latest=follow, replace_key=True).seen[-1].goal.key) == wanted


@pytest.mark.parametrize(
    "former",
    [
        pytest.param(f"https://vault2.vault.azure.net/keys/batch/{OLD}", id="another vault"),
        pytest.param(f"{KEY}2", id="another name"),
    ],
)
def test_an_account_on_another_key_is_refused_while_nothing_was_written(former: str) -> None:
    """With a typing error in its name there is no such vault, and none is made."""
    with pytest.raises(Refused) as refused:
        play(NO_VAULT, at(former))

    assert refused.value.code == "account_on_another_key"
    assert refused.value.facts["option"] == "replace_key"


@pytest.mark.parametrize(("follow", "tolerates"), [(None, "any"), (False, "pinned"), (True, None)])
def test_a_move_to_a_newer_version_meanwhile_is_not_undone(follow: bool | None, tolerates: str | None) -> None:
    assert again(follow_latest=follow).seen[-1].goal.tolerates == tolerates


def test_whether_a_key_may_be_replaced_is_passed_on() -> None:
    assert not again().seen[-1].goal.replaces
    assert again(replace_key=True).seen[-1].goal.replaces


def test_whether_a_key_may_be_enabled_is_passed_on() -> None:
    assert {one.goal.enable for one in again(enable_key=True).seen if one.service == "keys"} == {True}


def test_a_new_account_with_a_user_assigned_identity_is_born_on_the_key() -> None:
    played = play(
        *(same(VAULT), NO_ACCOUNT, same(KEYS), UNGRANTED),
        *(same(VAULT), made(GRANTED), same(KEYS), made(ACCOUNT), same(on(PINNED))),
        identity_id=IDENTITY,
    )

    assert played.services[3:] == ["access", "vaults", "access", "keys", "accounts", "encryption"]
    grant, birth = played.seen[5], played.seen[7]
    assert (grant.goal.principal_id, str(grant.goal.identity_id)) == (None, IDENTITY)
    assert str(birth.goal.key) == PINNED
    assert played.outcome.report["changed_steps"]["born_on_key"] is True


def test_an_account_that_is_there_is_not_born_again() -> None:
    played = play(
        *(same(VAULT), at(PINNED), same(KEYS), same(GRANTED)),
        *(same(VAULT), same(GRANTED), same(KEYS), at(PINNED), same(on(PINNED))),
        identity_id=IDENTITY,
    )

    assert played.seen[7].goal.key is None


def test_an_expiry_that_would_come_earlier_for_others_is_kept() -> None:
    played = play(
        *(same(VAULT), at(PINNED), IN_USE, same(KEYS), same(GRANTED)),
        *(same(VAULT), at(PINNED), same(KEYS), same(GRANTED), same(on(PINNED))),
        expires_in="P30D",
    )

    assert [s.goal.expires_in for s in played.seen if s.service == "keys"] == [30 * 86400, None, None]
    assert played.outcome.report["expiry_kept_for"] == ["another"]


def test_what_was_done_before_a_failure_is_told() -> None:
    with pytest.raises(Denied) as failed:
        play(same(VAULT), NO_ACCOUNT, same(KEYS), same(VAULT), made(ACCOUNT), same(KEYS), Denied("You may not."))

    assert failed.value.facts["changed_steps"]["account"] is True
    assert "so_far" not in failed.value.facts


def test_what_was_done_beside_a_failure_is_told() -> None:
    with pytest.raises(Denied, match=r"You may not\.") as failed:
        play(same(VAULT), NO_ACCOUNT, same(KEYS), same(VAULT), Denied("You may not."), made(KEYS))

    assert (failed.value.facts["changed_steps"]["account"], failed.value.facts["changed_steps"]["key"]) == (False, True)


@pytest.mark.parametrize(
    "options",
    [
        {"account_name": "my-batch"},
        {"vault_name": "v"},
        {"key_name": "a_key"},
        {"identity_id": "mine"},
        {"key_type": "EC"},
        {"key_size": 1024},
        {"expires_in": "90 days"},
    ],
)
def test_malformed_options_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption) as refused:
        provision_goal(**options)

    assert refused.value.facts["option"] == next(iter(options))
