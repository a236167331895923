# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of a key that an account or a pool may use. All times are days before now, unless noted otherwise."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from documents import DAY, MIDDLE, NEW, NOW, OLD, key, listed
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._checks.versions import (
    MARGIN_SECONDS,
    REPLACED_BEFORE_EXPIRY,
    KeyVersions,
    VersionUser,
    margin_ends,
    versions_of,
    versions_possibly_in_use,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.key import version_of

NAMES = {"O": OLD, "M": MIDDLE, "N": NEW}
LETTERS = {version: letter for letter, version in NAMES.items()}
AGES = {"O": 100.0, "M": 50.0, "N": 20.0}
# All versions may be in use for a day, and only the version of the user after that.
ALMOST = 7 - 1 / DAY


def version(letter: str, **attributes: Any) -> dict[str, Any]:
    """A version in a list of versions. By default, it was last changed when it was created."""
    created = attributes.pop("created", AGES[letter])
    times = {"created": created, "updated": attributes.pop("updated", created), **attributes}
    seconds = {name: value if name == "enabled" else int(NOW - value * DAY) for name, value in times.items()}
    return listed(key(NAMES[letter], **seconds))


def versions(newest: dict[str, Any] | None = None, unfit: str = "", **changes: dict[str, Any]) -> KeyVersions:
    """Three versions. `changes` are attributes by version: `M={"enabled": False, "updated": 3}`."""
    attributes = {"O": {}, "M": {}, "N": newest or {}, **changes}
    items = [version(letter, **attributes[letter]) for letter in sorted(AGES, key=NAMES.__getitem__)]
    return KeyVersions(items, NOW, NEW, [NAMES[letter] for letter in unfit])


def user(own: str | None, changed: float | None, access: float | None = None) -> VersionUser:
    since = {} if access is None else {"access_since": NOW - access * DAY}
    return VersionUser(NAMES[own] if own else None, None if changed is None else NOW - changed * DAY, **since)


def possible(of: KeyVersions, one: VersionUser, margin: float = MARGIN_SECONDS) -> str:
    """The letters of the versions, the version of the user first, then the others from the newest to the oldest."""
    return "".join(LETTERS[version] for version in versions_possibly_in_use(of, one, margin))


def test_the_margin_is_seven_days_and_expiring_versions_are_replaced_before_it() -> None:
    """The documentation has these times too."""
    assert (MARGIN_SECONDS, REPLACED_BEFORE_EXPIRY) == (7 * DAY, 9 * DAY)


@pytest.mark.parametrize(
    ("own", "changed", "expected"),
    [
        pytest.param("N", 7, "N", id="pinned, outside the margin"),
        pytest.param("N", ALMOST, "NMO", id="pinned, inside the margin"),
        pytest.param("M", 7, "M", id="pinned to an older version"),
        pytest.param("O", 1, "ONM", id="pinned to the oldest version, its own version first"),
        pytest.param("M", None, "MNO", id="pinned at an unknown time"),
        pytest.param(None, 7, "N", id="follows, outside the margin"),
        pytest.param(None, ALMOST, "NMO", id="follows, inside the margin"),
    ],
)
def test_versions_of_a_user_by_its_last_change(own: str | None, changed: float | None, expected: str) -> None:
    assert possible(versions(), user(own, changed)) == expected


@pytest.mark.parametrize(
    ("newest", "follows"),
    [
        pytest.param({"created": ALMOST}, "NMO", id="created inside the margin"),
        pytest.param({"created": 7}, "N", id="created outside the margin"),
        pytest.param({"updated": ALMOST}, "NMO", id="updated inside the margin: it may have been enabled"),
        pytest.param({"nbf": ALMOST}, "NMO", id="valid since inside the margin"),
        pytest.param({"nbf": 7}, "N", id="valid since outside the margin"),
        pytest.param({"nbf": -1}, "NMO", id="not valid yet"),
        pytest.param({"enabled": False, "updated": 9}, "NMO", id="disabled"),
        pytest.param({"exp": 9}, "NMO", id="expired"),
    ],
)
def test_a_follower_may_use_older_versions_until_it_could_use_the_newest_for_the_margin(
    newest: dict[str, Any], follows: str
) -> None:
    of = versions(newest)

    assert possible(of, user(None, 30)) == follows
    # The newest version says nothing about a pinned user.
    assert possible(of, user("M", 30)) == "M"


def test_a_newest_version_that_batch_does_not_support_is_not_the_only_possible_version() -> None:
    assert possible(versions(unfit="N"), user(None, 30)) == "NMO"


@pytest.mark.parametrize("bundle", [{"kty": "EC"}, {"key_ops": ["sign"]}])
def test_the_newest_version_shows_whether_batch_supports_it(bundle: dict[str, Any]) -> None:
    items = versions().items

    assert possible(versions_of(key(NEW, **bundle), items, NOW), user(None, 30)) == "NMO"
    assert possible(versions_of(key(NEW), items, NOW), user(None, 30)) == "N"


def test_key_vault_names_the_newest_of_two_versions_of_the_same_second() -> None:
    items = versions(M={"created": 20}).items

    for newest, expected in ((NEW, "NMO"), (MIDDLE, "MNO")):
        assert possible(KeyVersions(items, NOW, newest), user(None, 1)) == expected
        assert possible(KeyVersions(items, NOW, newest), user(None, 30)) == expected[0]


@pytest.mark.parametrize(
    ("access", "expected"),
    [pytest.param(7, "N", id="outside the margin"), pytest.param(ALMOST, "NMO", id="inside the margin")],
)
def test_a_follower_that_had_no_access_could_not_use_the_newest_version(access: float, expected: str) -> None:
    assert possible(versions(), user(None, 30, access)) == expected
    assert possible(versions(), user("N", 30, access)) == "N"


@pytest.mark.parametrize(
    ("unusable", "changed", "expected"),
    [
        # The version M was replaced 20 days ago.
        pytest.param({"enabled": False, "updated": 13}, 1, "NO", id="disabled the margin after it was replaced"),
        pytest.param({"enabled": False, "updated": 14}, 8, "N", id="disabled inside the margin, user settled"),
        pytest.param({"enabled": False, "updated": 14}, 6, "NO", id="disabled long before the user was changed"),
        pytest.param({"exp": 3}, 1, "NO", id="expired long after it was replaced"),
        pytest.param({"exp": 14, "enabled": False, "updated": 1}, 6.5, "NO", id="expired, then disabled"),
        pytest.param({"created": 50, "enabled": False, "updated": 50}, None, "NO", id="created as a disabled version"),
    ],
)
def test_a_version_that_became_unusable_when_nothing_used_it_is_not_possible(
    unusable: dict[str, Any], changed: float | None, expected: str
) -> None:
    """A change of the user, for example of its tags, does not change that."""
    assert possible(versions(M=unusable), user("N", changed)) == expected


@pytest.mark.parametrize("own", ["N", None], ids=["pinned", "follows"])
@pytest.mark.parametrize(
    ("newest", "unusable", "changed", "expected"),
    [
        pytest.param(6, {"enabled": False, "updated": 5}, 4, "NMO", id="disabled a day after it was replaced"),
        pytest.param(6, {"nbf": -1, "updated": 5}, 4, "NMO", id="made invalid a day after it was replaced"),
        pytest.param(6, {"enabled": False, "updated": 9}, 4, "NMO", id="disabled before it was replaced"),
        pytest.param(6, {"enabled": False, "updated": 9}, None, "NMO", id="of a user that was changed at any time"),
        pytest.param(6, {"enabled": False, "updated": 11}, 4, "NO", id="disabled the margin before the user changed"),
        pytest.param(6, {"enabled": False, "updated": 10.9}, 4, "NMO", id="disabled almost the margin before"),
        pytest.param(20, {"enabled": False, "updated": 0.5}, 1, "NMO", id="disabled half a day after the user left it"),
        pytest.param(20, {"exp": 0.5}, ALMOST, "NMO", id="expired almost the margin after the user left it"),
        pytest.param(20, {"enabled": False, "updated": 6}, None, "NMO", id="the user may have left it just before"),
    ],
)
def test_a_version_that_became_unusable_while_it_may_have_been_in_use_is_possible(
    own: str | None, newest: float, unusable: dict[str, Any], changed: float | None, expected: str
) -> None:
    assert possible(versions({"created": newest}, M=unusable), user(own, changed)) == expected


def test_a_version_that_was_disabled_in_the_second_of_the_move_was_disabled_before_it() -> None:
    assert possible(versions({"created": 0}, O={"enabled": False, "updated": 0}), user("N", 0)) == "NM"


def test_only_a_newer_version_that_was_usable_releases_an_older_one() -> None:
    """The version O was disabled 30 days ago, when M was 20 days old."""
    disabled = {"enabled": False, "updated": 30}

    assert possible(versions(O=disabled), user("N", 1)) == "NM"
    for of_middle in ({"nbf": 35}, {"enabled": False, "updated": 45}, {"exp": 45}):
        assert "O" in possible(versions(O=disabled, M=of_middle), user("N", None))
    # Batch does not support the version M.
    assert "O" in possible(versions(O=disabled, unfit="M"), user("N", None))
    # An earlier change of M may have enabled it.
    assert "O" in possible(versions(O=disabled, M={"updated": 35}), user("N", None))
    # Two versions of the same second: either may be the newer one.
    assert possible(versions(O={"created": 50, **disabled}), user("N", 1)) == "NM"
    # A later change of M, for example of its expiry, does not matter.
    assert possible(versions(O=disabled, M={"updated": 25}), user("N", 1)) == "NM"


@pytest.mark.parametrize(
    ("attributes", "one", "expected"),
    [
        pytest.param({"updated": 3}, user(None, 30), "NM", id="enabled inside the margin"),
        pytest.param({"updated": 7}, user(None, 30), "N", id="enabled before"),
        pytest.param({"updated": 3}, user("N", 30), "N", id="a pinned user does not need it"),
        pytest.param({"created": 45, "nbf": 3}, user(None, 30), "NM", id="valid since inside the margin"),
        pytest.param({"enabled": False, "updated": 3}, user(None, 30), "N", id="disabled inside the margin"),
    ],
)
def test_a_follower_may_still_use_an_older_version_that_was_enabled_inside_the_margin(
    attributes: dict[str, Any], one: VersionUser, expected: str
) -> None:
    """If the follower had lost this version, Batch can move it to the newest version only now."""
    of = versions(M=attributes)
    middle = next(item for item in of.items if item["kid"].endswith(MIDDLE))

    assert possible(of, one) == expected
    assert (margin_ends(of, one, MARGIN_SECONDS, middle) > NOW) is ("M" in expected)


def test_an_expiry_inside_the_margin_is_still_in_the_future() -> None:
    """A version that may be in use is usable until it expires."""
    assert possible(versions({"created": 3}, M={"exp": -1}), user(None, 30)) == "NMO"


@pytest.mark.parametrize("own", ["M", None])
@pytest.mark.parametrize("changed", [0, 1, None])
def test_without_a_margin_only_the_version_of_the_user_is_possible(own: str | None, changed: float | None) -> None:
    assert possible(versions({"created": 1}), user(own, changed), 0) == (own or "N")


def test_without_a_margin_a_follower_needs_another_version_if_the_newest_is_unusable() -> None:
    assert possible(versions({"enabled": False, "updated": 1}), user(None, 30), 0) == "NMO"


def test_a_shorter_margin() -> None:
    assert possible(versions(), user("N", 2), DAY) == "N"
    assert possible(versions(), user("N", 0.5), DAY) == "NMO"


def test_no_versions_are_known() -> None:
    empty = KeyVersions((), NOW)

    assert versions_possibly_in_use(empty, VersionUser(None, None)) == []
    assert versions_possibly_in_use(empty, VersionUser(OLD, None)) == [OLD]


@pytest.mark.parametrize(
    ("newest", "one", "ends"),
    [
        pytest.param({}, user("M", 3), -4, id="pinned"),
        pytest.param({}, user("M", 30), 23, id="pinned long ago"),
        pytest.param({}, user("M", None), -7, id="pinned at an unknown time"),
        pytest.param({"created": 2}, user("M", 3), -4, id="pinned, which does not depend on the newest version"),
        pytest.param({}, user(None, 3), -4, id="follows"),
        pytest.param({"created": 2}, user(None, 3), -5, id="follows a version that was created later"),
        pytest.param({"created": 2}, user(None, 3, access=1), -6, id="was granted access later"),
        pytest.param({"enabled": False}, user(None, 30), None, id="follows a version that is not usable"),
    ],
)
def test_when_the_margin_ends(newest: dict[str, Any], one: VersionUser, ends: float | None) -> None:
    assert margin_ends(versions(newest), one) == (inf if ends is None else NOW - ends * DAY)


DAYS = st.one_of(st.none(), st.floats(0, 30))
UNUSABLE = st.fixed_dictionaries({"enabled": st.booleans(), "updated": st.floats(0, 40)})


@given(UNUSABLE, UNUSABLE, st.sampled_from(["O", "M", "N", None]), DAYS, st.integers(0, 7), st.integers(0, 7))
def test_a_longer_margin_never_excludes_a_version(
    middle: Any, newest: Any, own: str | None, changed: float | None, one: int, other: int
) -> None:
    of, shorter, longer = versions(newest, M=middle), min(one, other) * DAY, max(one, other) * DAY
    found = [possible(of, user(own, changed), margin) for margin in (shorter, longer)]

    assert set(found[0]) <= set(found[1])
    assert {own or "N"} <= set(found[0])
    # The other versions are possible only before the margin ends.
    items = {LETTERS[version_of(item)]: item for item in of.items}
    for letter in found[1][1:]:
        assert margin_ends(of, user(own, changed), longer, items[letter]) > NOW
