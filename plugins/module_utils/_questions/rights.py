# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rights that the caller lacks, as far as the permissions show that. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .._checks.rights import VAULTS, in_group, is_in_no_policy
from .._core.docs import Docs
from .._core.errors import CmkError, Denied
from .._core.rights import Missing, Needed, Right, VaultRight
from .._documents import refs
from .._documents.access import allows
from .._documents.vault import Vault, uses_rbac
from . import vaults


def missing(docs: Docs, needed: Sequence[Needed], own: str, vaults_in: str) -> Missing:
    """`own` is the task's subscription, in which a scope without a subscription is. Vaults are searched for in the
    subscription `vaults_in` first."""
    rights = dict.fromkeys(
        replace(one, scope=f"/subscriptions/{own}{one.scope}")
        if isinstance(one, Right) and one.scope.startswith(in_group(""))
        else one
        for one in needed
    )
    # The permissions at a resource group are shared by the tasks of a run.
    docs.want(*(refs.permissions_at(_group_of(one.scope)) for one in rights if isinstance(one, Right)))
    found = [one for right in rights if (one := _missing(docs, right, vaults_in)) is not None]
    sought = [_vault(docs, one, vaults_in) for one in rights if isinstance(one, VaultRight)]
    return Missing(found, list(dict.fromkeys(one.msg for one in sought if isinstance(one, Denied))))


def _group_of(scope: str) -> str:
    return "/".join(scope.split("/")[:5])


def _vault(docs: Docs, right: VaultRight, vaults_in: str) -> Vault | CmkError | None:
    try:
        return vaults.find(docs, right.vault, vaults_in, right.looked_for_in)
    except CmkError as hidden:
        return hidden


def _missing(docs: Docs, right: Needed, vaults_in: str) -> tuple[str, str] | None:
    """The action and the scope, if the permissions show that the caller lacks the right."""
    if isinstance(right, Right):
        return _unless_allowed(docs, right.action, right.scope, data=False)
    vault = _vault(docs, right, vaults_in)
    if right.reads_vault and isinstance(vault, Denied):
        return f"{VAULTS}/read", f"the key vault {right.vault}"
    if vault is None or isinstance(vault, CmkError):
        return None
    if uses_rbac(vault):
        return _unless_allowed(docs, right.action, vault["id"], data=right.permission is not None)
    if right.policy_action:
        return _unless_allowed(docs, right.policy_action, vault["id"], data=False)
    if right.permission and is_in_no_policy(vault, right.permission):
        return f"the key permission {right.permission}", vault["id"]
    return None


def _unless_allowed(docs: Docs, action: str, scope: str, *, data: bool) -> tuple[str, str] | None:
    permissions = None
    for place in dict.fromkeys((_group_of(scope), scope)):
        permissions = docs.known(refs.permissions_at(place))
        if not isinstance(permissions, CmkError) and allows(permissions or (), action, data=data):
            return None
    return None if isinstance(permissions, CmkError) else (action, scope)
