# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of a key, from Key Vault's documents."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from documents import DAY, KEY, MIDDLE, NEW, NOW, OLD, key, listed, rotation_policy
from goals import rotation
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._documents import key as key_document


def describe(*bundles: dict[str, Any], policy: Any = None, are_listed: bool = True) -> dict[str, Any]:
    """The newest version is the last one."""
    items: Any = [listed(one) for one in bundles] if are_listed else None
    return key_document.describe(bundles[-1], items, policy, NOW)


@pytest.mark.parametrize("is_deleted", [False, True], ids=["never created", "deleted"])
def test_missing_key_is_described_without_properties(is_deleted: bool) -> None:
    described = key_document.describe(None, [], None, NOW, is_deleted=is_deleted)

    assert described == {"exists": False, "soft_deleted": is_deleted}


def test_key_is_described() -> None:
    described = describe(
        key(OLD, created=NOW - 100 * DAY),
        key(MIDDLE, created=NOW - 50 * DAY, enabled=False),
        key(NEW, size=3072, created=NOW - DAY, exp=NOW + DAY, key_ops=["sign", "wrapKey"]),
        policy=rotation_policy(timeAfterCreate="P90D"),
    )

    assert described == {
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
        "staged_versions": [],
        "rotation_policy": rotation(time_after_create="P90D"),
    }


def test_fields_that_key_vault_leaves_out() -> None:
    bundle = key()
    del bundle["key"]["key_ops"]

    described = describe(bundle)

    assert described["key_ops"] == []
    assert described["expires_on"] is None
    assert described["rotation_policy"] is None
    assert described["previous_version"] is described["previous_key_identifier"] is None


OLDER, STAGED = key(OLD, created=NOW - 20 * DAY), key(NEW, nbf=NOW + DAY)
DISABLED, EXPIRED = key(NEW, enabled=False), key(NEW, exp=NOW - 1)


@pytest.mark.parametrize(
    ("bundles", "counts_disabled", "expected"),
    [
        pytest.param([OLDER, key(NEW)], False, NEW, id="usable"),
        pytest.param([OLDER, STAGED], False, OLD, id="valid later"),
        pytest.param([OLDER, STAGED], True, OLD, id="valid later, disabled versions count"),
        pytest.param([OLDER, DISABLED], False, OLD, id="disabled"),
        pytest.param([OLDER, DISABLED], True, NEW, id="disabled, and may be enabled"),
        pytest.param([OLDER, EXPIRED], False, OLD, id="expired"),
        pytest.param([key(OLD, enabled=False, created=NOW - 20 * DAY), STAGED], False, NEW, id="none"),
        pytest.param([OLDER, key(MIDDLE, created=NOW - 12 * DAY), STAGED], False, MIDDLE, id="the newest of them"),
    ],
)
def test_the_newest_version_that_can_be_used(bundles: list[Any], counts_disabled: bool, expected: str) -> None:
    by_version = {one["key"]["kid"][-32:]: one for one in bundles}
    items = [listed(one) for one in bundles]

    found = key_document.newest_usable(bundles[-1], items, NOW, by_version.get, counts_disabled=counts_disabled)
    unlisted = key_document.newest_usable(bundles[-1], None, NOW, by_version.get, counts_disabled=counts_disabled)

    assert found is by_version[expected]
    assert unlisted is bundles[-1]


def test_a_version_that_is_valid_later_is_named() -> None:
    described = describe(STAGED, OLDER)

    assert described["staged_versions"] == [{"version": NEW, "valid_from": "2026-05-29T20:26:40Z"}]
    summary = key_document.summary("myvault", "batch", described, described)
    assert summary == (
        f"The newest usable version of key batch in vault myvault is enabled: version {OLD[:8]}…. Can be used later: "
        f"version {NEW[:8]}… from 2026-05-29T20:26:40Z."
    )


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
        # The list is sorted by ids: MIDDLE, NEW, OLD.
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


# Only the other versions are listed.
OTHERS = "others"


@pytest.mark.parametrize(
    ("used_is", "listed_too", "wins"),
    [
        pytest.param(-1, True, False, id="older"),
        pytest.param(0, True, False, id="of the same second: Key Vault shows which is the newest"),
        pytest.param(1, True, True, id="newer"),
        pytest.param(1, OTHERS, True, id="newer, and a list that is out of date"),
        pytest.param(-1, OTHERS, False, id="older, and a list that is out of date"),
        pytest.param(1, False, True, id="newer, and versions cannot be listed"),
        pytest.param(-1, False, False, id="older, and versions cannot be listed"),
        pytest.param(None, True, False, id="missing"),
        pytest.param(None, False, False, id="missing, and versions cannot be listed"),
    ],
)
def test_the_newest_version_is_not_older_than_the_version_in_use(
    used_is: int | None, listed_too: bool | str, wins: bool
) -> None:
    newest = key(NEW, created=NOW)
    used = None if used_is is None else key(MIDDLE, created=NOW + used_is)
    versions = [listed(one) for one in (newest, used) if one and (one is newest or listed_too is not OTHERS)]
    reads: list[str] = []

    def read(version: str) -> Any:
        reads.append(version)
        return used

    found = key_document.newest_known(newest, versions if listed_too else None, MIDDLE, read)
    assert found is (used if wins else newest)
    assert reads == ([] if listed_too is True and used and not wins else [MIDDLE])


@pytest.mark.parametrize(
    ("attributes", "ended"),
    [
        pytest.param({}, None, id="usable"),
        pytest.param({"exp": NOW + DAY}, None, id="expires later"),
        pytest.param({"enabled": False, "updated": NOW - DAY}, NOW - DAY, id="disabled"),
        pytest.param({"exp": NOW - DAY}, NOW - DAY, id="expired"),
        pytest.param({"exp": NOW}, NOW, id="expires now"),
        pytest.param({"exp": NOW - 2 * DAY, "enabled": False, "updated": NOW}, NOW - 2 * DAY, id="expired, disabled"),
        pytest.param({"exp": NOW + DAY, "enabled": False, "updated": NOW}, NOW, id="disabled before it expires"),
        pytest.param({"nbf": NOW + DAY, "updated": NOW - DAY}, NOW - DAY, id="not valid yet"),
        pytest.param({"nbf": NOW - DAY}, None, id="valid since a day"),
    ],
)
def test_when_a_version_became_unusable(attributes: dict[str, Any], ended: int | None) -> None:
    found = key_document.ended_at(listed(key(**attributes)), NOW)

    assert found > NOW if ended is None else found == ended
    assert bool(key_document.why_unusable(listed(key(**attributes)), NOW)) is (ended is not None)


@pytest.mark.parametrize(
    ("attributes", "since"),
    [
        ({}, NOW - 10 * DAY),
        ({"updated": NOW - DAY}, NOW - DAY),
        ({"nbf": NOW - 2 * DAY}, NOW - 2 * DAY),
        ({"updated": None}, NOW - 10 * DAY),
    ],
)
def test_since_when_a_version_can_be_used(attributes: dict[str, Any], since: int) -> None:
    assert key_document.usable_since(listed(key(**attributes))) == since


@pytest.mark.parametrize(
    ("fields", "fit", "usable"),
    [
        ({}, True, True),
        ({"kty": "RSA-HSM", "size": 4096}, True, True),
        ({"key_ops": ["wrapKey", "unwrapKey", "sign"]}, True, True),
        ({"kty": "EC"}, False, False),
        ({"key_ops": ["unwrapKey"]}, False, False),
        ({"enabled": False}, True, False),
        ({"exp": NOW}, True, False),
    ],
)
def test_a_version_that_batch_can_use(fields: dict[str, Any], fit: bool, usable: bool) -> None:
    assert (key_document.is_fit(key(**fields)), key_document.is_usable(key(**fields), NOW)) == (fit, usable)


@pytest.mark.parametrize("tag", [key_document.TAG, key_document.DRILL_TAG])
def test_a_new_version_does_not_get_the_tags_of_the_collection(tag: str) -> None:
    assert key_document.tags_of_new_version({"team": "a", tag: "x"}, None) == {"team": "a"}
