# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of a key, from Key Vault's documents."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from documents import DAY, KEY, MIDDLE, NEW, NOW, OLD, deleted_key, key, listed, observed_key, rotation_policy
from goals import rotation
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import document as key_document

HOUR = 3600


@pytest.mark.parametrize(
    ("deleted", "soft_deleted"), [(None, False), (deleted_key(), True)], ids=["never created", "deleted"]
)
def test_missing_key_is_described_without_properties(deleted: dict[str, Any] | None, soft_deleted: bool) -> None:
    assert key_document.describe(observed_key(deleted=deleted)) == {"exists": False, "soft_deleted": soft_deleted}


def test_key_is_described() -> None:
    observed = observed_key(
        key(OLD, created=NOW - 100 * DAY),
        key(MIDDLE, created=NOW - 50 * DAY, enabled=False),
        key(NEW, size=3072, created=NOW - DAY, exp=NOW + DAY, key_ops=["sign", "wrapKey"]),
        policy=rotation_policy(timeAfterCreate="P90D"),
    )

    assert key_document.describe(observed) == {
        "exists": True,
        "soft_deleted": False,
        "key_identifier": f"{KEY}/{NEW}",
        "versionless_identifier": KEY,
        "version": NEW,
        "key_type": "RSA",
        "key_size": 3072,
        "key_ops": ["sign", "wrapKey"],
        "enabled": True,
        "created_on": "2026-05-27T20:26:40Z",
        "expires_on": "2026-05-29T20:26:40Z",
        "previous_version": MIDDLE,
        "previous_key_identifier": f"{KEY}/{MIDDLE}",
        "enabled_versions": sorted([OLD, NEW]),
        "rotation_policy": rotation(time_after_create="P90D"),
    }


def test_fields_that_key_vault_leaves_out() -> None:
    bundle = key()
    del bundle["key"]["key_ops"]

    described = key_document.describe(observed_key(bundle))

    assert described["key_ops"] == []
    assert described["expires_on"] is None
    assert described["rotation_policy"] is None
    assert described["previous_version"] is described["previous_key_identifier"] is None


def test_versions_that_may_not_be_listed() -> None:
    described = key_document.describe(observed_key(key(), versions=None))

    assert described["previous_version"] is None
    assert described["enabled_versions"] == []


@given(st.sampled_from([2048, 3072, 4096]), st.binary(min_size=512, max_size=512))
def test_size_is_that_of_the_modulus(size: int, material: bytes) -> None:
    modulus = b"\x80" + material[1 : size // 8]
    encoded = base64.urlsafe_b64encode(modulus).rstrip(b"=").decode()

    assert key_document.size_of({"key": {"n": encoded}}) == size


def test_elliptic_key_has_no_modulus() -> None:
    assert key_document.size_of(key(kty="EC")) is None


@pytest.mark.parametrize(
    ("created", "current", "previous"),
    [
        pytest.param({NEW: 0}, NEW, None, id="the only one"),
        pytest.param({OLD: 0, NEW: 1}, NEW, OLD, id="two"),
        # The list is sorted by ids: MIDDLE, NEW, OLD.
        pytest.param({OLD: 0, MIDDLE: 1, NEW: 2}, NEW, MIDDLE, id="three"),
        pytest.param({MIDDLE: 0, OLD: 1, NEW: 2}, NEW, OLD, id="three, in another order"),
        pytest.param({OLD: 0, MIDDLE: 1, NEW: 2}, MIDDLE, OLD, id="before one that is not the newest"),
        pytest.param({}, NEW, None, id="none listed"),
    ],
)
def test_previous_version_is_found_by_creation_time(
    created: dict[str, int], current: str, previous: str | None
) -> None:
    versions = [listed(key(version, created=NOW + days * DAY)) for version, days in sorted(created.items())]

    assert key_document.previous_version(versions, current) == previous


@pytest.mark.parametrize(
    ("used_is", "listed_too", "wins"),
    [
        pytest.param(-1, True, False, id="older"),
        pytest.param(0, True, False, id="of the same second: Key Vault shows which is the newest"),
        pytest.param(1, True, True, id="newer"),
        pytest.param(1, False, True, id="newer, and versions cannot be listed"),
        pytest.param(-1, False, False, id="older, and versions cannot be listed"),
        pytest.param(None, True, False, id="missing"),
        pytest.param(None, False, False, id="missing, and versions cannot be listed"),
    ],
)
def test_the_newest_version_is_not_older_than_the_version_in_use(
    used_is: int | None, listed_too: bool, wins: bool
) -> None:
    newest = key(NEW, created=NOW)
    used = None if used_is is None else key(MIDDLE, created=NOW + used_is)
    versions = [listed(one) for one in (newest, used) if one]
    reads: list[str] = []

    def read(version: str) -> Any:
        reads.append(version)
        return used

    found = key_document.newest_known(newest, versions if listed_too else None, MIDDLE, read)
    assert found is (used if wins else newest)
    assert reads == ([] if listed_too and not wins else [MIDDLE])


@pytest.mark.parametrize("follows", [False, True], ids=["pinned", "follows"])
@pytest.mark.parametrize(
    ("age", "previous", "pinned_doubts", "follower_doubts"),
    [
        pytest.param(HOUR, {}, False, False, id="usable"),
        pytest.param(HOUR, {"enabled": False, "updated": 0}, True, True, id="disabled just now"),
        pytest.param(HOUR, {"exp": 0}, True, True, id="expired just now"),
        pytest.param(HOUR, {"enabled": False, "updated": 2 * HOUR}, False, True, id="disabled before"),
        pytest.param(
            HOUR, {"enabled": False, "updated": 2 * HOUR - 1}, True, True, id="disabled less than an hour before"
        ),
        pytest.param(25 * HOUR, {"enabled": False, "updated": 0}, False, True, id="may just have been left"),
        pytest.param(49 * HOUR, {"enabled": False, "updated": 0}, False, False, id="disabled in time"),
        pytest.param(
            99 * HOUR, {"enabled": False, "updated": 80 * HOUR}, False, True, id="disabled before it was left"
        ),
    ],
)
def test_a_previous_version_that_may_have_been_needed(
    age: int, previous: dict[str, Any], pinned_doubts: bool, follower_doubts: bool, follows: bool
) -> None:
    """`age` is the age of the version in use. All times are seconds before now."""
    times = {name: value if name == "enabled" else NOW - value for name, value in previous.items()}
    used = key(NEW, created=NOW - age, updated=NOW - age)
    versions = [listed(one) for one in (used, key(OLD, **{"created": NOW - 100 * DAY, **times}))]
    doubted = key_document.previous_in_doubt(used, versions, NOW, follows=follows)
    assert doubted == ([OLD] if (follower_doubts if follows else pinned_doubts) else [])


@pytest.mark.parametrize(
    ("ended", "doubted"),
    [
        pytest.param(60 * DAY, True, id="before the next version"),
        pytest.param(49 * DAY + 1, True, id="within a day of the next version"),
        pytest.param(49 * DAY, False, id="a day after the next version"),
    ],
)
@pytest.mark.parametrize("changed", [None, 40 * DAY])
def test_a_version_that_a_follower_lost_before_it_took_the_next(ended: int, doubted: bool, changed: int | None) -> None:
    """Also if there are newer versions: the account takes none of them. All times are seconds before now."""
    used = key(NEW, created=NOW - 9 * DAY, updated=NOW - 9 * DAY)
    middle = key(MIDDLE, created=NOW - 50 * DAY, updated=NOW - 5 * DAY, enabled=False)
    old = key(OLD, created=NOW - 100 * DAY, updated=NOW - ended, enabled=False)
    versions = [listed(one) for one in (old, used, middle)]
    changed_at = None if changed is None else NOW - changed

    found = key_document.previous_in_doubt(used, versions, NOW, follows=True, account_changed_at=changed_at)

    assert found == ([OLD] if doubted and not changed else [])
    assert key_document.previous_in_doubt(used, versions, NOW, follows=False) == []


@pytest.mark.parametrize(
    ("granted", "doubted"),
    [
        pytest.param(9 * DAY, False, id="before the version was retired"),
        pytest.param(6 * DAY + 1, False, id="a day before the version was retired"),
        pytest.param(6 * DAY - 1, True, id="less than a day before"),
        pytest.param(HOUR, True, id="afterwards"),
    ],
)
def test_a_version_that_was_retired_while_a_follower_had_no_access(granted: int, doubted: bool) -> None:
    """All times are seconds before now."""
    used = key(NEW, created=NOW - 9 * DAY, updated=NOW - 9 * DAY)
    old = key(OLD, created=NOW - 100 * DAY, updated=NOW - 5 * DAY, enabled=False)
    versions, since = [listed(one) for one in (old, used)], NOW - granted

    def found(**more: Any) -> list[str]:
        return key_document.previous_in_doubt(used, versions, NOW, **{"follows": True, "access_since": since, **more})

    assert found() == ([OLD] if doubted else [])
    assert found(follows=False) == []
    assert found(account_changed_at=NOW - 5 * DAY + HOUR + 1) == []


@pytest.mark.parametrize(("expired", "doubted"), [(5 * DAY, True), (DAY, False)])
def test_an_expired_version_that_was_disabled_later(expired: int, doubted: bool) -> None:
    """The account could use it until it had expired. All times are seconds before now."""
    used = key(NEW, created=NOW - 9 * DAY, updated=NOW - 9 * DAY)
    old = key(OLD, created=NOW - 100 * DAY, updated=NOW - DAY, exp=NOW - expired, enabled=False)
    versions = [listed(one) for one in (old, used)]

    found = key_document.previous_in_doubt(used, versions, NOW, follows=True, access_since=NOW - 4 * DAY)
    assert found == ([OLD] if doubted else [])


@pytest.mark.parametrize("follows", [False, True], ids=["pinned", "follows"])
@pytest.mark.parametrize(
    ("changed", "ended", "pinned_doubts", "follower_doubts"),
    [
        pytest.param(2 * HOUR, {"enabled": False, "updated": HOUR}, True, True, id="disabled after the change"),
        pytest.param(
            2 * HOUR, {"enabled": False, "updated": 3 * HOUR}, True, True, id="disabled just before the change"
        ),
        pytest.param(2 * HOUR, {"enabled": False, "updated": 3 * HOUR + 1}, False, False, id="disabled before"),
        pytest.param(2 * HOUR, {"exp": HOUR}, True, True, id="expired"),
        pytest.param(2 * HOUR, {"nbf": -HOUR, "updated": HOUR}, True, True, id="not valid yet"),
        pytest.param(24 * HOUR, {"enabled": False, "updated": 0}, False, True, id="a day after the change"),
        pytest.param(48 * HOUR, {"enabled": False, "updated": 0}, False, False, id="two days after the change"),
        pytest.param(None, {"enabled": False, "updated": 25 * HOUR - 1}, True, True, id="changed at any time"),
        pytest.param(None, {"enabled": False, "updated": 25 * HOUR}, False, True, id="changed, a day ago"),
        pytest.param(None, {"enabled": False, "updated": 49 * HOUR}, False, False, id="changed, two days ago"),
        pytest.param(None, {"enabled": False, "updated": 100 * DAY}, False, False, id="never usable"),
        pytest.param(2 * HOUR, {}, False, False, id="usable"),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_a_version_that_an_account_may_just_have_left(
    changed: int | None,
    ended: dict[str, Any],
    pinned_doubts: bool,
    follower_doubts: bool,
    follows: bool,
    older: bool,
) -> None:
    """All times are seconds before now. The account may have been moved to an older version too."""
    times = {name: value if name == "enabled" else NOW - value for name, value in ended.items()}
    left = key(OLD, **{"created": NOW - 100 * DAY, **times})
    used = key(NEW, created=NOW - (200 if older else 50) * DAY)
    changed_at = None if changed is None else NOW - changed

    versions = [listed(one) for one in (used, left)]
    found = key_document.just_left(used, versions, NOW, follows=follows, account_changed_at=changed_at)
    assert found == ([OLD] if (follower_doubts if follows else pinned_doubts) else [])
