# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What several tests ask for: the options of a task, most of them left out."""

from __future__ import annotations

from typing import Any

from documents import PRINCIPAL

from ansible_collections.azbatch.cmk.plugins.module_utils import (
    _access,
    _key,
    _key_goal,
    _provision,
    _revert,
    _rotation,
)


def access_goal(**options: Any) -> _access.Goal:
    params = {
        "resource_group": None,
        "vault_name": "myvault",
        "principal_id": PRINCIPAL,
        "identity_id": None,
        "key_name": None,
        "state": "present",
        "force": False,
        **options,
    }
    return _access.desired(params)


def key_goal(**options: Any) -> _key_goal.Goal:
    params = {
        "vault_name": "myvault",
        "name": "batch",
        "state": "present",
        "version": None,
        "key_type": None,
        "key_size": None,
        "expires_in": None,
        "extend_expired_by": None,
        "max_version_age": None,
        "new_version": False,
        "rotation_policy": None,
        "enable_key": False,
        "recover": False,
        "remove_rotation_policy": False,
        "force": False,
        **options,
    }
    return _key.desired(params)


def provision_goal(**options: Any) -> _provision.Goal:
    params = {
        "resource_group": "rg-batch",
        "account_name": "mybatch",
        "location": None,
        "identity_id": None,
        "adopt_existing": False,
        "vault_name": "myvault",
        "vault_resource_group": None,
        "authorization": None,
        "recover": False,
        "key_name": "batch",
        "key_type": None,
        "key_size": None,
        "follow_latest": None,
        "replace_key": False,
        "enable_key": False,
        "expires_in": None,
        "rotation_policy": None,
        **options,
    }
    return _provision.desired(params)


def revert_goal(**options: Any) -> _revert.Goal:
    params = {
        "resource_group": "rg-batch",
        "account_name": "mybatch",
        "missing": "fail",
        "vault_name": "myvault",
        "vault_resource_group": None,
        "key_name": "batch",
        "key": "keep",
        "access": "keep",
        "previous_key_identifier": None,
        **options,
    }
    return _revert.desired(params)


def rotation_goal(**options: Any) -> _rotation.Goal:
    params = {
        "resource_group": "rg-batch",
        "account_name": "mybatch",
        "missing": "fail",
        "vault_name": "myvault",
        "key_name": "batch",
        "vault_resource_group": None,
        "key_size": None,
        "follow_latest": None,
        "enable_key": False,
        "max_version_age": None,
        "new_version": False,
        "expires_in": None,
        "rotation_policy": None,
        "new_key_identifier": None,
        "previous_version": "keep",
        "previous_version_grace": "P0D",
        "previous_key_identifier": None,
        **options,
    }
    return _rotation.desired(params)


def rotation(**options: str) -> dict[str, str | None]:
    return {"expiry_time": None, "time_after_create": None, "time_before_expiry": None, **options}
