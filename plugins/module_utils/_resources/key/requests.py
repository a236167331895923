# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The requests that change keys.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._azure.facts import Facts
from ..._checks.rights import to_use_key
from ..._core.docs import Docs, Ref, Wait
from ..._core.errors import CmkError, Denied, TimedOut
from ..._core.ids import KeyIdentifier, key_in_vault
from ..._core.tasks import Request
from ..._documents import refs
from ..._documents.key import KeyBundle
from ..._documents.rotation_policy import RotationPolicy


def made_version(key: KeyIdentifier) -> str:
    """The name under which a run notes that it has forced a version of the key."""
    return f"forced version {key_in_vault(key.vault, key.name)}"


def create(key: KeyIdentifier, body: Mapping[str, Any], *, noted: str = "", wanted_first: bool = False) -> Request:
    """Create the key, or a new version of an existing key."""
    what = f"create a version of the key {key.name} in {key.vault}"
    rights = (to_use_key("create", key.vault),)
    return Request("create", what, "POST", f"{key}/create", body, rights, noted=noted, wanted_first=wanted_first)


def update(key: KeyIdentifier, version: str, body: Mapping[str, Any]) -> Request:
    what = f"change the key {key.name} in {key.vault}"
    return Request("update", what, "PATCH", f"{key}/{version}", body, (to_use_key("update", key.vault),))


def touch(key: KeyIdentifier, version: str, *, enabled: bool = True) -> Request:
    """Update a version without a change. Azure shows when a version was updated, but not when a key was recovered, or
    when an account has left a key."""
    what = f"update version {version} of the key {key.name} in {key.vault} without a change"
    body = {"attributes": {"enabled": enabled}}
    return Request("update", what, "PATCH", f"{key}/{version}", body, (to_use_key("update", key.vault),))


def set_rotation_policy(key: KeyIdentifier, policy: RotationPolicy) -> Request:
    # A read of the policy confirms the change.
    rights = to_use_key("setrotationpolicy", key.vault), to_use_key("getrotationpolicy", key.vault)
    what = f"set the rotation policy of the key {key.name} in {key.vault}"
    return Request("set_rotation_policy", what, "PUT", f"{key}/rotationpolicy", policy, rights)


def delete(key: KeyIdentifier) -> Request:
    what, rights = f"delete the key {key.name} in {key.vault}", (to_use_key("delete", key.vault),)
    return Request("delete", what, "DELETE", str(key), None, rights)


def recover(key: KeyIdentifier) -> Request:
    what, rights = f"recover the key {key.name} in {key.vault}", (to_use_key("recover", key.vault),)
    return Request("recover", what, "POST", f"{refs.deleted_key(key).id}/recover", None, rights)


def require_finished(docs: Docs, what: str, ref: Ref[KeyBundle], facts: Facts) -> None:
    """Wait until a read shows the result of the deletion or recovery. If the caller may not read it, the operation has
    ended: until then, Key Vault reports that it is missing."""
    found = docs.known(ref)
    if isinstance(found, CmkError) and not isinstance(found, Denied):
        raise found
    if found is None:
        complaint = TimedOut(
            f"The {what} was not finished in {facts.wait_timeout} s. Run the task again.",
            option="wait_timeout",
            value=facts.wait_timeout,
        )
        raise Wait(complaint, f"the {what} to finish")
