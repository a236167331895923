# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Since when accounts and pools have access to a key. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from math import inf

from .._checks.preflight import Evidence, usable_since
from .._core.docs import Docs
from .._core.errors import CmkError
from .._core.ids import KeyIdentifier
from .._documents import refs
from .._documents.access import RoleAssignment, RoleDefinitionProperties, by_principal, granted, roles_in, scope_of
from .._documents.vault import Vault, uses_rbac
from . import vaults
from .evidence import definitions


def since_when(
    docs: Docs,
    key: KeyIdentifier,
    vaults_in: str,
    users: Mapping[str, tuple[Sequence[str] | None, bool]],
    now: float,
) -> dict[str, float]:
    """By the id of each user that uses the key or may have access to the key: since when, as far as the vault and the
    role assignments show (preflight.usable_since). Infinite if that is not known. The vault is searched for in the
    subscription `vaults_in` first.

    The `users` are accounts and pools. By id: the principals of the user, if they are known, and whether the user
    certainly uses the key. A user may have access as a member of a group. Only role assignments of the principals
    themselves have a time.
    """
    try:
        read = _access_to(docs, key, vaults_in)
    except CmkError:
        read = None
    if read is None:
        return dict.fromkeys(users, inf)
    vault, given, roles = read
    of_groups = [
        one for one in chain.from_iterable(given.values()) if one["properties"].get("principalType") == "Group"
    ]
    found = {}
    for name, (principals, uses) in users.items():
        own = {principal: given.get(principal.lower(), []) for principal in principals or ()}
        may_use = any(
            granted(vault, principal, key.name, [*assignments, *of_groups], roles)
            for principal, assignments in own.items()
        )
        if principals is None:
            found[name] = inf
        elif uses or may_use:
            found[name] = usable_since(Evidence(key, principals, None, vault, None, own, {}, now))
    return found


def _access_to(
    docs: Docs, key: KeyIdentifier, vaults_in: str
) -> tuple[Vault, dict[str, list[RoleAssignment]], dict[str, RoleDefinitionProperties]] | None:
    """The vault of the key, the role assignments that apply to the key, by principal, and the assigned roles. None if
    there is no vault that the caller can read."""
    vault = vaults.find(docs, key.vault, vaults_in, None)
    if vault is None or not uses_rbac(vault):
        return None if vault is None else (vault, {}, {})
    listed = docs.items(refs.assignments_at(scope_of(vault, key.name)))
    return vault, by_principal(listed), definitions(docs, vault["id"], roles_in(listed))
