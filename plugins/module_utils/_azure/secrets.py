# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The secrets that the collection reads, and results without them.

Ansible masks the values of options with `no_log`. Since ansible-core 2.22, Ansible also masks registered secrets, in
everything that it shows. The collection registers the secrets that are no such values: those of files, and those of an
inventory source.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    from ansible.module_utils.secrets import register_secret
except ImportError:  # ansible-core before 2.22

    def register_secret(value: str, /) -> str:
        return value


_HIDDEN = "********"


def register(secret: str | None) -> None:
    if secret:
        register_secret(secret)


def register_file(path: str | None) -> None:
    """Register the text of a file. A file that cannot be read is ignored: its reader reports that."""
    if path:
        with suppress(OSError, ValueError):
            register(Path(path).read_text(encoding="utf-8"))


def without(secrets: Iterable[str], value: Any) -> Any:
    """A result with asterisks in place of these secrets, also in parts of texts."""
    # A secret may contain another one.
    by_length = sorted(secrets, key=len, reverse=True)
    return _without(by_length, value) if by_length else value


def _without(secrets: list[str], value: Any) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, _HIDDEN)
        return value
    if isinstance(value, Mapping):
        return {name: _without(secrets, one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without(secrets, one) for one in value]
    return value
