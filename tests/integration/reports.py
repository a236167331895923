# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Combines the results of a role's tasks for an account into a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The tasks of each role, each with a short name of the resource or setting that it changes.
STEPS = {
    "provision": {
        "Ensure the vault": "vault",
        "Ensure the key": "key",
        "Grant the user-assigned identity access to the key": "access",
        "Ensure the account and its identity": "account",
        "Grant the identities of the account access to the key": "access",
        "Move the account to the key": "encryption",
    },
    "rotate": {
        "Ensure a current version of the key": "key",
        "Move the account to the key": "encryption",
        "Disable unused versions of the key": "unused_disabled",
    },
    "switch": {
        "Grant the account access to the key": "access",
        "Move the account to the key": "encryption",
        "Disable or delete the key that accounts have left": "key",
    },
    "revert": {
        "Move the account to a Microsoft-managed key": "encryption",
        "Disable or delete the key": "key",
        "Revoke the account's access to the key": "access",
    },
    "recover": {
        "Recover the vault": "vault",
        "Allow trusted Microsoft services in the vault's firewall": "network",
        "Recover the key": "key",
        "Enable the versions of the key that the account needs": "version",
        "Grant the account access to the key": "access",
        "Wait until the account is available": "answer",
    },
}
# The task of the role whose result is the state of the account before the repairs.
DIAGNOSIS = "Find the causes, and fail if the allowed repairs cannot recover the account"
# The task of each role whose result is the current state of the account.
MOVES = {
    "provision": "Move the account to the key",
    "rotate": "Move the account to the key",
    "switch": "Move the account to the key",
    "revert": "Move the account to a Microsoft-managed key",
    "recover": "Wait until the account is available",
}
STATE = ("key_source", "key_identifier", "key_version", "follows_latest", "available")


def report(role: str, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The report from the results of the tasks by name. A task that was skipped or not reached has no result."""
    before = results.get(DIAGNOSIS, {})
    steps: dict[str, bool] = {}
    for name, step in STEPS[role].items():
        steps[step] = steps.get(step, False) or bool(results.get(name, {}).get("changed"))
    moved = results.get(MOVES[role], {})
    state = moved if "key_source" in moved else before
    found: dict[str, Any] = {
        "exists": state.get("exists"),
        **{name: state.get(name) for name in STATE},
        "previous_key_identifier": moved.get("previous_key_identifier"),
        "changed": any(steps.values()),
        "changed_steps": steps,
    }
    keys = [name for name, step in STEPS[role].items() if step == ("unused_disabled" if role == "rotate" else "key")]
    key: Mapping[str, Any] = next((results[name] for name in keys if name in results), {})
    if role in ("rotate", "switch", "revert"):
        found["key_kept_for"], found["key_kept_until"] = key.get("in_use_by", []), key.get("kept_until")
    if role == "recover":
        found["causes"] = before.get("causes", [])
        found["answered_before"] = before.get("available")
    if role == "revert":
        access = results.get("Revoke the account's access to the key", {})
        found["access_kept_for"], found["access_kept_until"] = access.get("in_use_by", []), access.get("kept_until")
    return found
