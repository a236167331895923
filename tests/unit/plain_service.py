# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The base of services in tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._core.changes import SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError


class Plain:
    """A service whose reads are never out of date, and which shares no reads with other tasks."""

    warnings: tuple[str, ...] = ()
    has_shared = False

    @cached_property
    def sent(self) -> SentWrites:
        return SentWrites()

    def glance(self, _goal: Any) -> Any:
        return None

    def forget(self) -> None:
        pass

    def until_shown(self, look: Callable[[], CmkError | None], _at_least_until: float = 0.0) -> CmkError | None:
        return look()


def plain(**methods: Any) -> Any:
    """A plain service with these methods."""
    service = Plain()
    service.__dict__.update(methods)
    return service
