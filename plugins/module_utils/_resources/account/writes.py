# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The writes of a Batch account that the steps of a plan use, with the rights that each write needs.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ..._checks import rights
from ..._checks.preflight import Evidence
from ..._checks.rights import Needed, NeededRights
from ..._core.plan import Service

NEEDED = NeededRights()


class AccountWrites(Service, Protocol):
    def create(self, *, group: str, name: str, body: Mapping[str, Any], evidence: Evidence | None = None) -> None: ...

    def update(self, *, group: str, name: str, body: Mapping[str, Any]) -> None: ...

    def delete(self, *, group: str, name: str) -> None: ...


@NEEDED.of(AccountWrites.create)
def _create(*, group: str, body: Mapping[str, Any], **_rest: object) -> Iterator[Needed]:
    yield from rights.to_create_account(group)
    yield from rights.to_assign_identities(body)
    if "keyVaultProperties" in body["properties"]["encryption"]:
        yield rights.to_confirm_creation(group)


@NEEDED.of(AccountWrites.update)
def _update(*, group: str, name: str, body: Mapping[str, Any]) -> Iterator[Needed]:
    yield rights.to_change_account(group, name)
    yield from rights.to_assign_identities(body)


@NEEDED.of(AccountWrites.delete)
def _delete(*, group: str, name: str) -> Iterator[Needed]:
    yield rights.to_delete_account(group, name)
