# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version that several runs agree on that were asked for a new one for the same purpose, such as the slices of a
workflow: a tag of the version says what it was forced for.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..._core.documents import KeyBundle, KeyItem
from .document import item_of, version_of

TAG = "azbatch-cmk-new-version-for"
# Documented limits of Key Vault: tags of a version, and characters of a tag's value.
MOST_TAGS, LONGEST = 15, 256
# The number of a workflow job may come a second time, such as after its controller was installed again. A version that
# was forced for the first one does not count by then.
_COUNTS_FOR_SECONDS = 7 * 24 * 3600


def version_for(purpose: str | None, newest: KeyBundle, versions: Sequence[KeyItem] | None, now: float) -> str | None:
    """The newest version that was forced for the purpose lately. One that was disabled does not count, and none does if
    the newest version of the key was disabled: no account can be moved to that.

    `newest` is the newest version as it was read, and `versions` are all of the key, if they were listed.
    """
    if purpose is None or not newest["attributes"]["enabled"]:
        return None
    forced = [
        one
        for one in (*(versions or ()), item_of(newest))
        if one.get("tags", {}).get(TAG) == purpose
        and one["attributes"]["enabled"]
        and now - one["attributes"]["created"] < _COUNTS_FOR_SECONDS
    ]
    return version_of(max(forced, key=lambda one: one["attributes"]["created"])) if forced else None


def tags_of_new_version(previous: Mapping[str, str], purpose: str | None) -> dict[str, str]:
    """The tags of the version before, and the purpose for which the new one is forced, if there is room for its tag.

    The version before may have been forced for another purpose.
    """
    tags = {name: value for name, value in previous.items() if name != TAG}
    return {**tags, TAG: purpose} if purpose and len(tags) < MOST_TAGS else tags
