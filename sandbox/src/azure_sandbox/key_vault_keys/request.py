# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Validates the properties of a key in a request, and converts them to the fields of a key version."""

from __future__ import annotations

import re
from typing import Any

from . import errors
from .key import KeySettings, KeyVersion
from .material import CURVES

OPERATIONS = {
    "RSA": ("encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"),
    "EC": ("sign", "verify"),
}
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
_TYPES = ("RSA", "RSA-HSM", "EC", "EC-HSM")
# 9999-12-31T23:59:59Z
_END_OF_TIME = 253402300799
_SIZES = (2048, 3072, 4096)
_MOST_TAGS, _LONGEST_TAG = 15, 256


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise errors.invalid_name(name)


def key_settings(document: dict[str, Any], *, imported: bool = False) -> KeySettings:
    kty = str(document.get("kty"))
    if kty not in _TYPES:
        raise errors.kty_not_supported(kty)
    family = kty.removesuffix("-HSM")
    size = document.get("key_size")
    if size is not None and (not isinstance(size, int) or size not in _SIZES or family != "RSA"):
        raise errors.size_not_supported(size)
    curve = document.get("crv")
    if curve is not None and (not isinstance(curve, str) or curve not in CURVES):
        raise errors.bad_parameter(f"Invalid crv value: {curve}")
    found: dict[str, Any] = {"enabled": True}
    found.update(attributes(document.get("attributes")))
    return KeySettings(
        kty,
        size,
        curve,
        _exponent(document.get("public_exponent")),
        tuple(key_ops(document.get("key_ops"), family) or OPERATIONS[family]),
        found["enabled"],
        found.get("not_before"),
        found.get("expires"),
        tags(document.get("tags")),
    )


def apply(document: dict[str, Any], version: KeyVersion) -> None:
    """Apply a PATCH. Properties that the request does not contain do not change. Raises AzureError."""
    operations = key_ops(document.get("key_ops"), version.family)
    changes = attributes(document.get("attributes"))
    named_tags = tags(document.get("tags"))
    _check_order(changes.get("not_before", version.not_before), changes.get("expires", version.expires))
    if operations is not None:
        version.key_ops = operations
    for name, value in changes.items():
        setattr(version, name, value)
    if named_tags is not None:
        version.tags = named_tags


def key_ops(value: Any, family: str) -> list[str] | None:
    """The operations in the order of the request; None if the request does not contain them. Raises AzureError."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise errors.bad_parameter("Invalid key_ops value")
    known = {*OPERATIONS[family], "import", "export"}
    for operation in value:
        if not isinstance(operation, str) or operation not in known:
            raise errors.bad_parameter(f"Invalid key_ops value: {operation}")
    return list(value)


def attributes(document: Any) -> dict[str, Any]:
    """The attributes in the request, by the names of the fields of KeyVersion. Raises AzureError."""
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise errors.bad_parameter("Invalid attributes value")
    found: dict[str, Any] = {}
    if document.get("enabled") is not None:
        if not isinstance(document["enabled"], bool):
            raise errors.bad_parameter("Invalid enabled value")
        found["enabled"] = document["enabled"]
    for sent, name in (("nbf", "not_before"), ("exp", "expires")):
        if document.get(sent) is not None:
            if not _is_moment(document[sent]):
                raise errors.bad_parameter(f"Invalid {sent} value")
            found[name] = document[sent]
    _check_order(found.get("not_before"), found.get("expires"))
    return found


def tags(document: Any) -> dict[str, str] | None:
    if document is None:
        return None
    if not isinstance(document, dict):
        raise errors.bad_parameter("Invalid tags value")
    if len(document) > _MOST_TAGS or any(len(str(text)) > _LONGEST_TAG for tag in document.items() for text in tag):
        raise errors.bad_parameter(f"At most {_MOST_TAGS} tags are allowed, of {_LONGEST_TAG} characters each")
    return {str(name): str(value) for name, value in document.items()} or None


def _is_moment(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _END_OF_TIME


def _check_order(not_before: int | None, expires: int | None) -> None:
    if not_before is not None and expires is not None and expires <= not_before:
        raise errors.bad_parameter("The exp attribute must be later than nbf.")


def _exponent(value: Any) -> int:
    if value is None:
        return 65537
    if not isinstance(value, int) or value not in (3, 65537):
        raise errors.bad_parameter(f"Invalid public_exponent value: {value}")
    return value
