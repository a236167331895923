# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The writes of a key that the steps of a plan use, with the rights that each write needs.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ..._checks import rights
from ..._checks.rights import Needed, NeededRights
from ..._core.documents import RotationPolicy
from ..._core.plan import Service

NEEDED = NeededRights()


class KeyWrites(Service, Protocol):
    def create(self, *, vault: str, name: str, body: Mapping[str, Any]) -> None: ...

    def update(self, *, vault: str, name: str, version: str, body: Mapping[str, Any]) -> None: ...

    def set_rotation_policy(self, *, vault: str, name: str, policy: RotationPolicy) -> None: ...

    def delete(self, *, vault: str, name: str) -> None: ...

    def recover(self, *, vault: str, name: str) -> None: ...


@NEEDED.of(KeyWrites.create)
def _create(*, vault: str, **_rest: object) -> Iterator[Needed]:
    yield rights.to_use_key("create", vault)


@NEEDED.of(KeyWrites.update)
def _update(*, vault: str, **_rest: object) -> Iterator[Needed]:
    yield rights.to_use_key("update", vault)


@NEEDED.of(KeyWrites.set_rotation_policy)
def _set_rotation_policy(*, vault: str, **_rest: object) -> Iterator[Needed]:
    yield rights.to_use_key("setrotationpolicy", vault)
    # A read of the policy confirms the change.
    yield rights.to_use_key("getrotationpolicy", vault)


@NEEDED.of(KeyWrites.delete)
def _delete(*, vault: str, **_rest: object) -> Iterator[Needed]:
    yield rights.to_use_key("delete", vault)


@NEEDED.of(KeyWrites.recover)
def _recover(*, vault: str, **_rest: object) -> Iterator[Needed]:
    yield rights.to_use_key("recover", vault)
