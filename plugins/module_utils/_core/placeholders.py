# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Placeholders for values that only Azure can assign: the principal of a new identity, and a new key version.

In check mode, a placeholder is a well-formed GUID or version, so that it can be used in requests. It has a text
that names the resource. Results show that text, as in `(known after apply: new version 1 of batch in myvault)`, and
later tasks in check mode accept it. Two resources of a subscription never have the same placeholder.

This module util is private to the collection.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

_KNOWN_AFTER_APPLY = "known after apply"
_PLACEHOLDER = re.compile(r"\bc3c3c3c3-0000-4000-8000-[0-9a-f]{12}\b|\bc3c3c3c300000000[0-9a-f]{16}\b", re.IGNORECASE)
_TEXT = re.compile(rf"\({_KNOWN_AFTER_APPLY}: ([^()]+)\)")
_OF_PRINCIPAL = "principal"
# The values that Key Vault sets together with a version.
_WITH_VERSION = ("created_on",)
# The texts of the placeholders that this process knows.
_texts: dict[str, str] = {}


def principal(account: str, group: str, number: int) -> str:
    """The placeholder of the principal of an account's new system-assigned identity. `number` counts its identities."""
    return _made(f"{_OF_PRINCIPAL} {number} of {account} in {group}")


def version(vault: str, key: str, number: int) -> str:
    """The placeholder of a new version of a key. `number` counts the new versions."""
    return _made(f"new version {number} of {key} in {vault}")


def newest(vault: str, key: str) -> str:
    """The placeholder of the newest version of a key whose vault is recovered in check mode."""
    return _made(f"newest version of {key} in {vault}")


def is_placeholder(value: str) -> bool:
    return _PLACEHOLDER.fullmatch(value) is not None


def text_of(placeholder: str) -> str:
    return _texts[placeholder]


def learn(texts: Mapping[str, str]) -> None:
    """Note the texts of placeholders that another process has made."""
    _texts.update(texts)


def resolved(value: Any) -> Any:
    """The value with the placeholder in place of its text."""
    return _TEXT.sub(lambda found: _made(found[1]), value) if isinstance(value, str) else value


def shown(value: Any) -> Any:
    """The value with the text in place of every placeholder in it."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(_shown, value)
    if isinstance(value, Mapping):
        new = is_placeholder(str(value.get("version")))
        unknown = f"({_KNOWN_AFTER_APPLY})"
        return {name: unknown if new and name in _WITH_VERSION else shown(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        # The position of a placeholder in a sorted list is random, so placeholders are moved to the end.
        return sorted(map(shown, value), key=_is_text)
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(f"({_KNOWN_AFTER_APPLY}")


def _shown(found: re.Match[str]) -> str:
    text = _texts.get(found[0].lower())
    return f"({_KNOWN_AFTER_APPLY}: {text})" if text else f"({_KNOWN_AFTER_APPLY})"


def _made(text: str) -> str:
    digits = hashlib.sha256(text.lower().encode()).hexdigest()
    is_principal = text.startswith(_OF_PRINCIPAL)
    made = f"c3c3c3c3-0000-4000-8000-{digits[:12]}" if is_principal else f"c3c3c3c300000000{digits[:16]}"
    _texts.setdefault(made, text)
    return made
