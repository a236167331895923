# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Goals for several tests, from the options of a task. Most options have their defaults."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from documents import PRINCIPAL

from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import goal as access_goal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import goal as account_goal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import goal as encryption_goal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import goal as key_goal_module
from ansible_collections.azbatch.cmk.plugins.modules import (
    batch_account_identity,
    batch_encryption,
    keyvault_cmk_access,
    keyvault_cmk_key,
    keyvault_cmk_key_state,
    keyvault_cmk_unused_versions,
)

# Most tests are about Batch. The resources of other services are in test_services.py.
_ONLY_BATCH = {"vault_used_by": "batch"}
ACCOUNT = {"resource_group": "rg-batch", "account_name": "mybatch"}


def options_of(module: ModuleType, **given: Any) -> dict[str, Any]:
    """The parameters of a task of the module, as Ansible passes them to the module."""
    unknown = set(given) - set(module.ARGUMENTS) - {"subscription_id"}
    assert not unknown, unknown
    defaults = {name: option.get("default") for name, option in module.ARGUMENTS.items()}
    return {"subscription_id": None, **defaults, **given}


def account_goal(**options: Any) -> account_goal_module.Goal:
    given = {"resource_group": "rg-batch", "name": "mybatch", **options}
    return account_goal_module.desired(options_of(batch_account_identity, **given))


def access_goal(**options: Any) -> access_goal_module.Goal:
    given = {"vault_name": "myvault", "principal_id": PRINCIPAL, **_ONLY_BATCH, **options}
    return access_goal_module.desired(options_of(keyvault_cmk_access, **given))


def key_goal(**options: Any) -> key_goal_module.NamedKey:
    given = {"vault_name": "myvault", "name": "batch", **options}
    if "state" in options:
        return key_goal_module.in_state(options_of(keyvault_cmk_key_state, **{**_ONLY_BATCH, **given}))
    return key_goal_module.present(options_of(keyvault_cmk_key, **given))


def unused_goal(**options: Any) -> key_goal_module.UnusedVersionsGoal:
    """The goal that unused versions of the key are disabled."""
    given = {"vault_name": "myvault", "name": "batch", **_ONLY_BATCH, **options}
    return key_goal_module.unused(options_of(keyvault_cmk_unused_versions, **given))


def encryption_options(identifier: str | None, **options: Any) -> dict[str, Any]:
    source = "microsoft_keyvault" if identifier else "microsoft_batch"
    given = {**ACCOUNT, "key_source": source, "key_identifier": identifier, **options}
    return options_of(batch_encryption, **given)


def encryption_goal(identifier: str | None, **options: Any) -> encryption_goal_module.Goal:
    return encryption_goal_module.desired(encryption_options(identifier, **options))


def rotation(**options: str) -> dict[str, str | None]:
    return {"expiry_time": None, "time_after_create": None, "time_before_expiry": None, **options}
