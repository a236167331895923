# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of a drill, the tags of a vault that describe it, its report, and what counts as a refusal."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from azure_table import Table, task_of
from documents import KEY, NEW, OLD, account_id, key, listed, vault

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    Refused,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import drill as drill_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.drill import KINDS, Drill, of_vault, tags_with
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.key import DRILL_TAG, MOST_TAGS
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.drill.decide import (
    _enable,
    _is_disabled_by,
    _is_of_key,
    _OfPlace,
    _tagged,
    _Taken,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.drill.goal import desired
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import requests

BEGUN = Drill("disable_key", account_id(), KEY, "2026-02-01T12:00:00Z", "an object id")
REFUSED = replace(BEGUN, refused_at="2026-02-01T12:20:05Z", refusal="409 KeyVaultKeyNotAccessible")
RECOVERED = replace(REFUSED, recovered_at="2026-02-01T12:21:00Z")
OTHERS = {"owner": "operations", "azbatch-cmk": "a tag of a person"}


# The goal


def options(**given: Any) -> dict[str, Any]:
    known = {"resource_group": "rg-batch", "account_name": "mybatch", "state": "lost", "vault_used_by": "any"}
    return {**known, "kind": "disable_key", "canary": "mybatch", "users_in": None, **given}


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({}, None),
        ({"canary": "MyBatch"}, None),
        ({"state": "ended", "kind": None, "canary": None}, None),
        ({"state": "recovered", "canary": "other"}, None),
        ({"canary": None}, "canary"),
        ({"canary": ""}, "canary"),
        ({"canary": "other"}, "canary"),
        ({"kind": None}, "kind"),
        ({"account_name": "no-name"}, "account_name"),
    ],
)
def test_only_the_named_canary_loses_its_key(given: dict[str, Any], wrong: str | None) -> None:
    if wrong is None:
        assert desired(options(**given)).name == "mybatch"
        return
    with pytest.raises(CmkError) as refused:
        desired(options(**given))
    assert refused.value.code == "invalid_option"
    assert wrong in {refused.value.facts["option"], *(one["option"] for one in refused.value.facts.get("problems", ()))}


# The tags


@pytest.mark.parametrize("drill", [BEGUN, REFUSED, RECOVERED])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tags_describe_the_drill(drill: Drill, kind: str) -> None:
    drill = replace(drill, kind=kind)
    tagged = {**vault(), "tags": tags_with({**vault(), "tags": OTHERS}, drill)}

    assert of_vault(tagged) == drill
    assert OTHERS.items() <= tagged["tags"].items()
    # Tags of an earlier drill go, and those of others stay.
    assert tags_with(tagged, BEGUN) == {**OTHERS, **BEGUN.tags}
    assert tags_with(tagged, None) == OTHERS


def test_values_of_tags_are_short_enough() -> None:
    long = replace(RECOVERED, account=f"/subscriptions/{'1' * 36}/resourceGroups/{'g' * 90}/providers/Microsoft.Batch")
    assert all(len(value) <= 256 for value in long.tags.values())


@pytest.mark.parametrize("changed", [{}, {"kind": ""}, {"kind": "purge"}, {"account": ""}, {"key": ""}], ids=str)
def test_incomplete_tags_are_no_drill(changed: dict[str, str]) -> None:
    tags = {name: value for name, value in BEGUN.tags.items() if changed}
    tags |= {f"azbatch-cmk-drill-{name}": value for name, value in changed.items()}
    assert of_vault({**vault(), "tags": tags}) is None


def test_a_drill_is_that_of_an_account() -> None:
    assert BEGUN.is_of(account_id().upper())
    assert not BEGUN.is_of(account_id("other"))


# The report


@pytest.mark.parametrize(
    ("drill", "until_refused", "until_recovered", "passed"),
    [
        (BEGUN, None, None, False),
        (REFUSED, 1205, None, False),
        (RECOVERED, 1205, 55, True),
        (replace(BEGUN, recovered_at="2026-02-01T12:21:00Z"), None, None, False),
        # The clocks of two services, and a tag that somebody has changed.
        (replace(RECOVERED, refused_at="2026-02-01T11:59:59Z"), 0, 1261, True),
        (replace(RECOVERED, started_at="yesterday"), None, 55, True),
    ],
)
def test_the_report(drill: Drill, until_refused: int | None, until_recovered: int | None, passed: bool) -> None:
    report = drill_document.describe(drill) or {}

    assert (report["seconds_until_refused"], report["seconds_until_recovered"]) == (until_refused, until_recovered)
    assert report["passed"] is passed


# What the drill has disabled


AT, ID = BEGUN.started_at, parse_key_identifier(KEY, "key_identifier")


def item(version: str, *, enabled: bool = True, **tags: str) -> Any:
    return listed(key(version, enabled=enabled, tags=tags))


def test_versions_get_the_tag_of_the_drill_while_they_are_disabled_and_lose_it_when_they_are_enabled() -> None:
    """Other tags stay."""
    table = Table({refs.versions_of(ID): [item(OLD), item(NEW, team="a", **{DRILL_TAG: "an earlier drill"})]})
    disabled = [requests.update(ID, version, {"attributes": {"enabled": False}}) for version in (OLD, NEW)]

    sent = task_of(table).driver.solve(lambda docs: _tagged(docs, ID, disabled, AT))

    off: dict[str, Any] = {"attributes": {"enabled": False}}
    assert [one.body for one in sent] == [
        {**off, "tags": {DRILL_TAG: AT}},
        {**off, "tags": {"team": "a", DRILL_TAG: AT}},
    ]
    back = _enable(ID, item(NEW, enabled=False, team="a", **{DRILL_TAG: AT}))
    assert back.body == {"attributes": {"enabled": True}, "tags": {"team": "a"}}


def test_a_version_with_the_most_tags_refuses_the_drill() -> None:
    many = {f"tag{number}": "x" for number in range(MOST_TAGS)}
    table = Table({refs.versions_of(ID): [item(OLD, **many)]})
    disabled = [requests.update(ID, OLD, {"attributes": {"enabled": False}})]

    with pytest.raises(Refused) as refused:
        task_of(table).driver.solve(lambda docs: _tagged(docs, ID, disabled, AT))
    assert refused.value.code == "drill_refused"


@pytest.mark.parametrize(
    ("one", "is_own"),
    [
        pytest.param(item(OLD, enabled=False, **{DRILL_TAG: AT}), True, id="by the drill"),
        pytest.param(item(OLD, **{DRILL_TAG: AT}), False, id="enabled since"),
        pytest.param(item(OLD, enabled=False, **{DRILL_TAG: "2026-01-01T00:00:00Z"}), False, id="by an earlier drill"),
        pytest.param(item(OLD, enabled=False), False, id="by somebody"),
    ],
)
def test_only_versions_that_the_drill_has_disabled_are_enabled(one: Any, is_own: bool) -> None:
    assert _is_disabled_by(BEGUN, one) is is_own


# The refusal

LOST = Rejected("No.", azure={"status": 409, "code": "KeyVaultKeyNotAccessible"})
LOCKED = Rejected("No.", azure={"status": 409, "code": "ScopeLocked"})


@pytest.mark.parametrize(
    ("error", "status", "code", "is_refusal"),
    [
        (Rejected, 409, "KeyVaultKeyNotAccessible", True),
        (Denied, 403, "Forbidden", True),
        (Denied, 403, "AuthorizationFailed", False),
        (Denied, 403, "RequestDisallowedByPolicy", False),
        (Rejected, 409, "ScopeLocked", False),
        (Rejected, 409, "AccountOperationInProgress", False),
        (Unavailable, 503, "ServiceUnavailable", False),
        (Unavailable, 429, "TooManyRequests", False),
    ],
)
def test_only_a_loss_of_the_key_is_a_refusal(error: type[CmkError], status: int, code: str, is_refusal: bool) -> None:
    assert _is_of_key(error("No.", azure={"status": status, "code": code})) is is_refusal


@pytest.mark.parametrize(
    ("kind", "refusal", "ends"),
    [
        pytest.param(_Taken, None, False, id="accepted, waiting for the loss"),
        pytest.param(_Taken, LOST, True, id="refused, waiting for the loss"),
        pytest.param(_Taken, Unavailable("Busy."), False, id="no response, waiting for the loss"),
        pytest.param(_Taken, LOCKED, None, id="locked, waiting for the loss"),
        pytest.param(_OfPlace, None, True, id="accepted, waiting for the recovery"),
        pytest.param(_OfPlace, LOST, False, id="refused, waiting for the recovery"),
        pytest.param(_OfPlace, Unavailable("Busy."), False, id="no response, waiting for the recovery"),
        pytest.param(_OfPlace, LOCKED, None, id="locked, waiting for the recovery"),
    ],
)
def test_what_ends_the_updates_of_the_account(kind: Any, refusal: CmkError | None, ends: bool | None) -> None:
    """`ends` is None if the refusal has another reason than the key."""
    more = {"drill": BEGUN, "refs": ()} if kind is _Taken else {}
    sent = SimpleNamespace(of=lambda _ref: [SimpleNamespace(answered_at=1.0)])
    facts = SimpleNamespace(wait_timeout=60, journal=sent)
    change = kind({}, {}, goal=desired(options()), facts=facts, place=None, **more)
    request = requests.update(ID, OLD, {})
    if ends is None:
        with pytest.raises(Rejected):
            change.heard(request, refusal)
        return
    assert (change.heard(request, refusal) is None) is ends
    if kind is _Taken and ends:
        assert change.progress.refusal == "409 KeyVaultKeyNotAccessible"
