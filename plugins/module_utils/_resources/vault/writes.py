# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The writes of a key vault that the steps of a plan use, with the rights that each write needs.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ..._checks import rights
from ..._checks.rights import Needed, NeededRights
from ..._core.plan import Service

NEEDED = NeededRights()


class VaultWrites(Service, Protocol):
    def create(self, *, group: str, name: str, body: Mapping[str, Any]) -> None: ...

    def update(self, *, group: str, name: str, body: Mapping[str, Any]) -> None: ...

    def delete(self, *, group: str, name: str) -> None: ...

    def restore_access(self, *, group: str, name: str) -> None: ...


@NEEDED.of(VaultWrites.create)
def _create(*, group: str, **_rest: object) -> Iterator[Needed]:
    yield rights.to_create_vault(group)


@NEEDED.of(VaultWrites.update)
def _update(*, group: str, name: str, **_rest: object) -> Iterator[Needed]:
    yield rights.to_change_vault(group, name)


@NEEDED.of(VaultWrites.delete)
def _delete(*, group: str, name: str) -> Iterator[Needed]:
    yield rights.to_delete_vault(group, name)


@NEEDED.of(VaultWrites.restore_access)
def _restore_access(*, group: str, name: str) -> Iterator[Needed]:
    yield rights.to_change_vault(group, name)
