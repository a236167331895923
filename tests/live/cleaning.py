# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deletes what the experiments have created. Everything is in resource groups with a tag."""

from __future__ import annotations

from collections.abc import Iterator

from .azure import GROUPS, LOCKS, Azure
from .clock import Clock

TAG = "azbatch-live"
PREFIX = "azbatch-live-"
_PATIENCE = 3600


def groups(azure: Azure) -> Iterator[str]:
    """The names of the resource groups that the experiments have created."""
    query = f"$filter=tagName eq '{TAG}'"
    found = azure.arm("GET", f"{azure.subscription}/resourcegroups?{query}", GROUPS).required()["value"]
    for group in found:
        # Both must be true, so that a tag on a group of others deletes nothing.
        if group["name"].startswith(PREFIX) and TAG in (group.get("tags") or {}):
            yield group["name"]


def clean(azure: Azure, clock: Clock) -> list[str]:
    """Delete these groups, and wait until they do not exist. Returns their names."""
    names = list(groups(azure))
    for name in names:
        path = f"{azure.subscription}/resourcegroups/{name}"
        # A lock of a run that was killed would refuse the deletion.
        for lock in azure.arm("GET", f"{path}/providers/Microsoft.Authorization/locks", LOCKS).required()["value"]:
            azure.arm("DELETE", lock["id"], LOCKS).required()
        azure.arm("DELETE", path, GROUPS).required()
    began = clock.now()
    while set(groups(azure)) & set(names) and clock.now() < began + _PATIENCE:
        clock.wait(15)
    return names
