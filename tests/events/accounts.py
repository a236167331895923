# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Accounts whose key gets a new version."""

from __future__ import annotations

from typing import Any

from service import OFFICER, Service

PINNED = ("account1", "account2")


def on_one_key(service: Service, **options: Any) -> str:
    """Create accounts that are pinned to key1, one that follows it, and one that is pinned to key2 of the vault.
    Returns the identifier of key1 with its version."""
    policy = service.policy(service.operator, *OFFICER, "rotate")
    service.make_vault(properties={"accessPolicies": [policy]})
    identifier = service.make_key(**options).id
    others = {"account1": identifier, "account2": identifier, "following": identifier.rpartition("/")[0]}
    for name, key in {**others, "other": service.make_key("key2").id}.items():
        service.grant(service.make_account(name)["identity"]["principalId"])
        service.point(key, name)
    return identifier


def are_on(service: Service, identifier: str) -> bool:
    return all(service.encryption(name) == identifier for name in PINNED)
