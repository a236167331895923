# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version that several runs share if they force a new version for the same purpose, such as the slices of a
workflow job. A tag of the version has the purpose.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..._core.documents import KeyBundle, KeyItem
from .document import item_of, version_of

TAG = "azbatch-cmk-new-version-for"
# Documented limits of Key Vault: the number of tags of a version, and the number of characters of a tag's value.
MOST_TAGS, LONGEST = 15, 256
# The number of a workflow job may be used again, for example after its controller was installed again. Therefore a
# version counts only for this time.
_COUNTS_FOR_SECONDS = 7 * 24 * 3600


def version_for(purpose: str | None, newest: KeyBundle, versions: Sequence[KeyItem] | None, now: float) -> str | None:
    """The newest enabled version that was forced for the purpose within the last week; None if there is none. None
    also if the newest version of the key is disabled, because no account can be moved to that version.

    `newest` is the newest version, and `versions` are all versions of the key, if they could be listed.
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
    """The tags of the previous version, and the tag with the purpose of the new version, if the number of tags
    allows it.

    The purpose of the previous version is not copied.
    """
    tags = {name: value for name, value in previous.items() if name != TAG}
    return {**tags, TAG: purpose} if purpose and len(tags) < MOST_TAGS else tags
