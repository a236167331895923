# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The times at which Batch's use of keys changes without a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .account import Protection
from .key_check import KeyIdentifier, delays
from .world import World


def changes(world: World, protections: Iterable[Protection]) -> Iterator[float]:
    """The times, in the past and in the future, at which an account may change to another key version, or Batch may
    become able or unable to use the key of an account.

    A new condition of `KeyCheck` or `KeyUse` that depends on the clock needs its time here.
    """
    yield from world.authorization.changes()
    wait = delays(world)
    used: set[tuple[str, str]] = set()
    for protection in protections:
        yield from (one.until for one in protection.previous)
        if protection.unusable_since is not None:
            yield protection.unusable_since + wait.loss
        if protection.back_at is not None:
            yield protection.back_at + wait.recovery
        if (key := KeyIdentifier.parse(protection.version)) is not None:
            used.add((key.vault, key.name.lower()))
    for vault_name, key_name in used:
        yield from _of_key(world, vault_name, key_name)


def _of_key(world: World, vault_name: str, key_name: str) -> Iterator[float]:
    vault = world.vaults.by_name(vault_name)
    if vault is None:
        return
    yield from vault.changes()
    key = world.keys.live_key(vault, key_name)
    if key is None:
        return
    yield from key.changes()
    follower_delay = float(world.behavior.follower_delay)
    yield from (version.created + follower_delay for version in key.versions)
