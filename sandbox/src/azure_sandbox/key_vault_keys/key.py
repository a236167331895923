# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A key, its versions and its rotation policy."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from ..event_grid.events import KEY_EXPIRED, KEY_NEAR_EXPIRY
from .rotation import RotationPolicy


@dataclass
class KeyVersion:
    """One key pair. Times are whole seconds since 1970-01-01 UTC."""

    kty: str
    key_ops: list[str]
    private_key: bytes
    # n and e, or crv, x and y, as in responses.
    public: dict[str, str]
    size: int | None
    created: int
    updated: int
    enabled: bool = True
    not_before: int | None = None
    expires: int | None = None
    tags: dict[str, str] | None = None
    version: str = field(default_factory=lambda: uuid.uuid4().hex)
    # The types of the events about the expiry of this version, each with the expiry.
    announced: set[tuple[str, int | None]] = field(default_factory=set)

    @property
    def is_hardware(self) -> bool:
        return self.kty.endswith("-HSM")

    @property
    def family(self) -> str:
        return self.kty.removesuffix("-HSM")


@dataclass
class Key:
    name: str
    # In order of creation. A key identifier without a version means the last version.
    versions: list[KeyVersion]
    policy: RotationPolicy | None = None
    # A recovered key is available from this time on.
    visible_from: float = 0
    deleted_at: float | None = None
    # Until this time the deletion is in progress, and reads find neither a key nor a deleted key.
    deleted_from: float = 0

    @property
    def latest(self) -> KeyVersion:
        return self.versions[-1]

    def version(self, wanted: str) -> KeyVersion | None:
        if not wanted:
            return self.latest
        return next((version for version in self.versions if version.version == wanted.lower()), None)

    def changes(self) -> Iterator[float]:
        """The times at which the key becomes available or rotation is due, and at which a version becomes valid or
        expires; in the past and in the future."""
        yield self.visible_from
        times = [one for version in self.versions for one in (version.not_before, version.expires)]
        if self.policy is not None:
            times.append(self.policy.next(self.latest.created, self.latest.expires))
        yield from (one for one in times if one is not None)

    def announcements(self) -> Iterator[tuple[KeyVersion, str, int]]:
        """The events about expiry that are not published yet, each with its version, type and time, in the past or in
        the future. Only the current version at this time has these events."""
        policy = self.policy or RotationPolicy()
        for version, successor in zip_longest(self.versions, self.versions[1:]):
            near = policy.near_expiry(version.created, version.expires)
            for kind, due in ((KEY_NEAR_EXPIRY, near), (KEY_EXPIRED, version.expires)):
                if due is None or (kind, version.expires) in version.announced:
                    continue
                # A new expiry can be so close, or in the past, that the event is due at once.
                moment = max(due, version.updated)
                if successor is None or moment < successor.created:
                    yield version, kind, moment

    def copy(self) -> Key:
        return copy.deepcopy(self)


@dataclass
class Safe:
    """The keys of one vault, by their names in lower case."""

    live: dict[str, Key] = field(default_factory=dict)
    deleted: dict[str, Key] = field(default_factory=dict)


@dataclass(frozen=True)
class KeySettings:
    """The properties of a new version in a request to create or import it."""

    kty: str
    size: int | None = None
    curve: str | None = None
    exponent: int = 65537
    key_ops: tuple[str, ...] = ()
    enabled: bool = True
    not_before: int | None = None
    expires: int | None = None
    tags: dict[str, str] | None = None

    @property
    def family(self) -> str:
        return self.kty.removesuffix("-HSM")
