# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys to which a resource of any Azure service refers, in a row of Azure Resource Graph.

Some thirty services have a key in as many properties: as an identifier with or without a version, as the vault with the
name of the key beside it, or as the ARM id of a vault. Therefore all properties are searched, whatever their names.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NotRequired, TypedDict

from .identity import Identity

# The host of a vault may be one of its private endpoint.
_URL = re.compile(
    r"(?<![a-z0-9.-])(?P<vault>[a-z0-9-]+)\.(?P<domain>[a-z0-9.-]+)(?::\d+)?"
    r"(?:/+(?P<kind>[a-z]+)(?:/+(?P<name>[a-z0-9-]+)(?:/+(?P<version>[a-z0-9]+))?)?)?",
    re.IGNORECASE,
)
_OF_VAULTS = re.compile(r"(?:privatelink\.)?vault(?:core)?\.", re.IGNORECASE)
_ID = re.compile(
    r"/providers/microsoft\.keyvault/vaults/(?P<vault>[a-z0-9-]+)"
    r"(?:/+(?P<kind>[a-z]+)(?:/+(?P<name>[a-z0-9-]+)(?:/+versions/+(?P<version>[a-z0-9]+))?)?)?",
    re.IGNORECASE,
)
# Parts of the names of properties with settings of encryption.
_ENCRYPTION = re.compile(r"encrypt|cmk|customermanaged|keyvaultproperties|activekey", re.IGNORECASE)
# Key Vault's names of keys and of versions.
_NAME, _VERSION = re.compile(r"[a-z0-9-]{1,127}", re.IGNORECASE), re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
# Resources that refer to a vault, and lose nothing if the vault is deleted, unless they are encrypted with a key of it.
_NO_USERS = (
    "microsoft.alertsmanagement/",
    "microsoft.eventgrid/",
    "microsoft.insights/",
    "microsoft.network/networkinterfaces",
    "microsoft.network/privateendpoints",
    "microsoft.portal/",
    "microsoft.security/",
)


class GraphRow(TypedDict):
    """A resource of any service."""

    id: str
    name: str
    # In lower case.
    type: str
    subscriptionId: str
    properties: dict[str, Any]
    identity: NotRequired[Identity | None]


class Reference(NamedTuple):
    """`name` is None if the key is not known: it may be any key of the vault. `version` is None if the resource follows
    the latest version."""

    name: str | None
    version: str | None


class References(NamedTuple):
    """What a resource uses of a vault. `keys` is empty if it uses the vault, for example its secrets, but no key.
    `principals` are the object ids of the resource's identities; None if they are not known. There may be none, because
    some services read keys as their own application."""

    id: str
    keys: list[Reference]
    principals: list[str] | None


def references(row: GraphRow, vault: str) -> References | None:
    """What the resource uses of the vault of this name; None if it uses nothing of it."""
    found = list(_found(row["properties"], vault.lower(), ()))
    if row["type"].lower().startswith(_NO_USERS):
        found = [one for one in found if _ENCRYPTION.search(one[2])]
    if not found:
        return None
    keys = {_reference(name, version) for name, version, _path in found if name}
    if any(_follows(row["properties"])):
        keys |= {one._replace(version=None) for one in keys}
    # A vault without a key beside one with a key says nothing more. It may be an unknown form of encryption otherwise.
    if not keys and any(name is None and _ENCRYPTION.search(path) for name, _version, path in found):
        keys = {Reference(None, None)}
    return References(row["id"], sorted(keys, key=str), _principals(row.get("identity")))


def _reference(name: Any, version: Any) -> Reference:
    """A name or a version that is none of Key Vault may mean any key."""
    name, version = (one.strip() if isinstance(one, str) else one for one in (name, version))
    if not _is(_NAME, name) or (version and not _is(_VERSION, version)):
        return Reference(None, None)
    return Reference(name.casefold(), version.lower() if version else None)


def _is(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _found(value: Any, vault: str, path: tuple[str, ...]) -> Iterator[tuple[Any, Any, str]]:
    """The references to the vault, each with the name of the key, its version, and the names of the properties in which
    it is. The name is empty for a secret or a certificate, and None if there is no name."""
    if isinstance(value, Mapping):
        parts = {str(name).lower(): one for name, one in value.items()}
        for name, one in value.items():
            # Some services have the identifiers of keys as the names of properties.
            where = (*path, str(name))
            for text in (str(name), one) if isinstance(one, str) else (str(name),):
                for key, version in _read(text, vault):
                    yield from _with_parts(key, version, parts, ".".join(where))
            if not isinstance(one, str):
                yield from _found(one, vault, where)
    elif isinstance(value, list):
        for one in value:
            yield from _found(one, vault, path)
    elif isinstance(value, str):
        yield from ((name, version, ".".join(path)) for name, version in _read(value, vault))


def _read(text: str, vault: str) -> Iterator[tuple[str | None, str | None]]:
    """A host outside the domains of Key Vault counts only with the path of a key."""
    for pattern in (_URL, _ID):
        for found in pattern.finditer(text):
            parts = found.groupdict()
            is_key = (parts["kind"] or "keys").lower() == "keys"
            has_path = is_key and parts["name"] is not None
            if parts["vault"].lower() == vault and (has_path or _OF_VAULTS.match(parts.get("domain", "vault."))):
                yield (parts["name"], parts["version"]) if is_key else ("", None)


def _with_parts(
    name: str | None, version: str | None, parts: Mapping[str, Any], path: str
) -> Iterator[tuple[Any, Any, str]]:
    """The reference, with the name and the version of the key in the properties beside it."""
    if name is None and (beside := parts.get("keyname") or (_ENCRYPTION.search(path) and parts.get("name"))):
        name, version = beside, parts.get("keyversion")
    yield name, version, path
    if name and not version and (beside := parts.get("keyversion")):
        yield name, beside, path


def _follows(value: Any) -> Iterator[bool]:
    """Whether a property says that the resource moves to new versions, although it names a version."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield "rotat" in str(name).lower() and str(one).lower() in ("true", "enabled")
            yield from _follows(one)
    elif isinstance(value, list):
        for one in value:
            yield from _follows(one)


def _principals(identity: Any) -> list[str] | None:
    own = identity if isinstance(identity, Mapping) else {}
    assigned = own.get("userAssignedIdentities") or {}
    if not isinstance(assigned, Mapping):
        return None
    ids = [one.get("principalId") if isinstance(one, Mapping) else None for one in assigned.values()]
    ids += [own["principalId"]] if own.get("principalId") else []
    return [str(one) for one in ids] if all(ids) else None
