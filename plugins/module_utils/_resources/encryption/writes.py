# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The writes of an account's encryption that the steps of a plan use, with the rights that each write needs.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ..._checks import rights
from ..._checks.preflight import Evidence
from ..._checks.rights import Needed, NeededRights
from ..._core.ids import KeyIdentifier
from ..._core.plan import Service

NEEDED = NeededRights()


class EncryptionWrites(Service, Protocol):
    def set_encryption(
        self,
        *,
        group: str,
        name: str,
        body: Mapping[str, Any],
        previous: KeyIdentifier | None,
        evidence: Evidence | None,
        even_if_unavailable: bool,
    ) -> None: ...

    def wait_until_available(self, *, group: str, name: str) -> None: ...


@NEEDED.of(EncryptionWrites.set_encryption)
def _set_encryption(*, group: str, name: str, **_rest: object) -> Iterator[Needed]:
    yield from rights.to_set_encryption(group, name)


@NEEDED.of(EncryptionWrites.wait_until_available)
def _wait_until_available(**_rest: object) -> Iterator[Needed]:
    yield from ()
