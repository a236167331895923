# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deletes what the experiments have created. Everything is in resource groups with a tag."""

from __future__ import annotations

from collections.abc import Iterator

from .azure import GROUPS, LOCKS, Azure
from .clock import Clock

TAG = "azbatch-live"
# Of each group.
TAGS = {TAG: "experiments of azbatch.cmk"}
PREFIX = "azbatch-live-"
# How long a deletion may take, and how long Azure may refuse to begin it, in seconds: the removal of a lock takes time.
_PATIENCE = 3600
_REFUSED = 600
_STEP = 15


def groups(azure: Azure) -> Iterator[str]:
    """The names of the resource groups that experiments have created, in this run and in others."""
    query = f"$filter=tagName eq '{TAG}'"
    page = azure.arm("GET", f"{azure.subscription}/resourcegroups?{query}", GROUPS).required()
    while True:
        for group in page["value"]:
            # Both must be true, so that a tag on a group of others deletes nothing.
            if group["name"].startswith(PREFIX) and TAG in (group.get("tags") or {}):
                yield group["name"]
        if "nextLink" not in page:
            return
        page = azure.send("GET", page["nextLink"]).required()


def delete(azure: Azure, clock: Clock, name: str) -> str:
    """Delete a resource group, and wait until it does not exist. Returns why it is left; empty if it is not."""
    path = f"{azure.subscription}/resourcegroups/{name}"
    began = clock.now()
    accepted = False
    while True:
        group = azure.arm("GET", path, GROUPS)
        if group.status == 404:
            return ""
        state = group.required()["properties"]["provisioningState"]
        reason = f"its deletion has not ended within {_PATIENCE} s"
        if state != "Deleting":
            # A lock of a run that was killed would refuse the deletion.
            _unlock(azure, path)
            response = azure.arm("DELETE", path, GROUPS)
            accepted = accepted or response.ok
            reason = response.said
        if clock.now() - began > (_PATIENCE if accepted else _REFUSED):
            return reason
        clock.wait(_STEP)


def _unlock(azure: Azure, path: str) -> None:
    """Remove the locks in a resource group. Azure lists also those of the subscription, which are kept."""
    for lock in azure.arm("GET", f"{path}/providers/Microsoft.Authorization/locks", LOCKS).required()["value"]:
        if lock["id"].lower().startswith(f"{path}/".lower()):
            azure.arm("DELETE", lock["id"], LOCKS)
