# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which versions of a key an account or a pool may use. Pure: sends no requests.

Microsoft documents neither how soon Batch adopts a new version, nor for how long it needs a previous one. No code
makes assumptions about that. Instead, a margin covers every plausible value.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from .._documents.key import KeyBundle, KeyItem, ended_at, is_fit, is_staged, usable_since, version_of, why_unusable

MARGIN_SECONDS = 7 * 24 * 3600
# A version that expires within this time is replaced. The previous version has to stay valid for the margin after that,
# and a nightly run may be delayed by a day, or fail once. The options `expires_in` and
# `rotation_policy` allow only versions that live longer.
REPLACED_BEFORE_EXPIRY = MARGIN_SECONDS + 2 * 24 * 3600


@dataclass(frozen=True)
class KeyVersions:
    """All versions of a key."""

    items: Sequence[KeyItem]
    # The time by Key Vault's clock, in seconds since 1970.
    now: float
    # The newest version, which only Key Vault knows if two were created in the same second.
    newest: str | None = None
    # Versions that Batch never uses because of their type, size or operations, which a list of versions does not show.
    unfit: Collection[str] = ()

    @cached_property
    def newest_first(self) -> list[KeyItem]:
        """The versions sorted by their creation: Key Vault sorts them by their ids, which are random."""

        def age(item: KeyItem) -> tuple[int, bool]:
            return item["attributes"]["created"], version_of(item) == self.newest

        return sorted(self.items, key=age, reverse=True)

    @cached_property
    def replaced(self) -> list[tuple[KeyItem, float]]:
        """The versions that are older than the newest usable version, and not valid later. The newest first, each with
        the time since when the next usable version could be used, in seconds since 1970."""
        found: list[tuple[KeyItem, float]] = []
        since: float | None = None
        for item in self.newest_first:
            if since is not None and not is_staged(item, self.now):
                found.append((item, since))
            if not why_unusable(item, self.now):
                if version_of(item) in self.unfit:
                    return []
                since = _valid_since(item)
        return found


@dataclass(frozen=True)
class VersionUser:
    """An account or a pool that uses a key."""

    # The version that the user is pinned to. None: the user follows the latest version.
    version: str | None
    # When the user was last changed, in seconds since 1970. None: not known, so it may have been changed just now.
    changed_at: float | None
    # Since when the user has access to the key, as far as that is known, in seconds since 1970.
    access_since: float = 0


def _valid_since(item: KeyItem) -> float:
    return max(item["attributes"]["created"], item["attributes"].get("nbf") or 0)


def versions_of(newest: KeyBundle, items: Sequence[KeyItem], now: float) -> KeyVersions:
    """The versions of a key whose newest version was read too."""
    version = version_of(newest["key"])
    return KeyVersions(items, now, version, () if is_fit(newest) else (version,))


def versions_possibly_in_use(versions: KeyVersions, user: VersionUser, margin: float = MARGIN_SECONDS) -> list[str]:
    """The versions that the user may use, its own version first, which is the newest version if the user follows the
    key.

    A pinned user may use its version and, inside the margin (seconds) after its last change, each other version. A
    user that follows the key may use the newest version and, until it could use the newest version for the margin,
    each other version. It may also use an older version that was enabled inside the margin, because Batch can only then
    move the user to the newest version. A version that became unusable when it cannot have been in use any more is not
    among them.
    """
    now, ordered = versions.now, versions.newest_first
    own = user.version or (version_of(ordered[0]) if ordered else None)
    if own is None:
        return []

    def is_possible(item: KeyItem) -> bool:
        ended = ended_at(item, now)
        if ended > now or margin_ends(versions, user, margin) <= now:
            return margin_ends(versions, user, margin, item) > now
        return _was_possible(versions, user, margin, item, ended)

    return [own, *(version_of(item) for item in ordered if version_of(item) != own and is_possible(item))]


def is_key_usable(possible: Sequence[str], unusable: Collection[str], *, is_pinned: bool) -> bool | None:
    """Whether Batch can use the key of a user, by the versions that the user may use (`versions_possibly_in_use`).

    False if the version of a pinned user is unusable, or if all versions are. None if only others are unusable, because
    it is not known whether the user needs them."""
    if not unusable:
        return True
    return False if (is_pinned and possible[0] in unusable) or len(unusable) == len(possible) else None


def _was_possible(versions: KeyVersions, user: VersionUser, margin: float, item: KeyItem, ended: float) -> bool:
    """Whether the user may have used a version when it became unusable, at the time `ended`."""
    created = item["attributes"]["created"]
    if ended <= created:
        # It was created as a disabled version.
        return False
    if user.changed_at is not None and user.changed_at - ended >= margin:
        # Batch refuses to change an account that has lost its key.
        return False
    if user.changed_at is None:
        # The user may have been changed just before. Assumed only inside the margin, because otherwise a report would
        # read the time of each account whose key ever had another version.
        settled = ended if versions.now - ended < margin else 0
    else:
        # A run that disables a version and then moves an account may do both in the same second.
        settled = user.changed_at if user.changed_at < ended else 0
    # A version of the same second may be the newer one.
    replacing = [
        one
        for one in versions.items
        if one is not item and one["attributes"]["created"] >= created and version_of(one) not in versions.unfit
    ]
    return not any(_usable_for(one, ended, settled, versions.now) >= margin for one in replacing)


def updated_when_left(versions: KeyVersions, user: VersionUser) -> list[str]:
    """The versions that are updated without a change before the user leaves the key: the usable versions that it may
    use, except the newest. Their time of update shows then that Batch may still need them."""
    possible = versions_possibly_in_use(versions, user)

    def may_be_replaced(item: KeyItem) -> bool:
        created = item["attributes"]["created"]
        return any(one is not item and one["attributes"]["created"] >= created for one in versions.items)

    usable = [item for item in versions.newest_first if not why_unusable(item, versions.now)]
    return [version_of(item) for item in usable if version_of(item) in possible and may_be_replaced(item)]


def margin_ends(
    versions: KeyVersions, user: VersionUser, margin: float = MARGIN_SECONDS, older: KeyItem | None = None
) -> float:
    """The time from which on the user certainly uses its own version only, or at least not the older version, in
    seconds since 1970. Without a further change, that is. For a user that follows a key whose newest version is not
    usable, there is no such time."""
    now, ordered = versions.now, versions.newest_first
    since = now if user.changed_at is None else user.changed_at
    if user.version is None and ordered:
        newest = ordered[0]
        if why_unusable(newest, now) or version_of(newest) in versions.unfit:
            return inf
        since = max(since, usable_since(newest), user.access_since)
        if older is not None and ended_at(older, now) > now and usable_since(older) > older["attributes"]["created"]:
            since = max(since, usable_since(older))
    return since + margin


def _usable_for(item: KeyItem, until: float, since: float, now: float) -> float:
    """For how long, from `since` at the earliest, the version could be used at the time `until`, in seconds."""
    attributes, ended = item["attributes"], min(until, ended_at(item, now))
    updated = attributes.get("updated") or 0
    # An earlier change may have enabled the version. A later one, for example of its expiry, says nothing.
    enabled = updated if updated < ended else 0
    return ended - max(since, attributes["created"], attributes.get("nbf") or 0, enabled)
