# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The writes of access to a vault's keys that the steps of a plan use, with the rights that each write needs.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..._checks import rights
from ..._checks.rights import Needed, NeededRights
from ..._core.documents import AccessPolicy
from ..._core.plan import Service

NEEDED = NeededRights()


class AccessWrites(Service, Protocol):
    def set_policy(self, *, vault_id: str, operation: str, entry: AccessPolicy) -> None: ...

    def assign(self, *, scope: str, name: str, role: str, principal: str) -> None: ...

    def unassign(self, *, assignment_id: str) -> None: ...


@NEEDED.of(AccessWrites.set_policy)
def _set_policy(*, vault_id: str, **_rest: object) -> Iterator[Needed]:
    yield rights.to_change_policies(vault_id)


@NEEDED.of(AccessWrites.assign)
def _assign(*, scope: str, **_rest: object) -> Iterator[Needed]:
    yield rights.to_assign_role(scope)


@NEEDED.of(AccessWrites.unassign)
def _unassign(*, assignment_id: str) -> Iterator[Needed]:
    yield rights.to_unassign_role(assignment_id)
