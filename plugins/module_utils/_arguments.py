# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that several modules have. Their documentation is in doc fragments; a test compares the two.

This module util is private to the collection.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.parameters import AnsibleFallbackNotFound


def _from_environment(*names: str) -> str:
    """The first variable that is set. An empty variable counts as not set: AWX and containers define empty
    variables."""
    found = next(filter(None, map(os.environ.get, names)), None)
    if found is None:
        raise AnsibleFallbackNotFound
    return found


def _option(*environment: str, **spec: Any) -> dict[str, Any]:
    return {"type": "str", "fallback": (_from_environment, list(environment)), **spec}


# Doc fragment azbatch.cmk.azure.
CONNECTION: dict[str, dict[str, Any]] = {
    "subscription_id": _option("AZURE_SUBSCRIPTION_ID"),
    "tenant": _option("AZURE_TENANT", "AZURE_TENANT_ID"),
    "client_id": _option("AZURE_CLIENT_ID"),
    "secret": _option("AZURE_SECRET", "AZURE_CLIENT_SECRET", no_log=True),
    "x509_certificate_path": _option("AZURE_CERTIFICATE_PATH", type="path"),
    "auth_source": _option(
        "ANSIBLE_AZURE_AUTH_SOURCE",
        default="auto",
        choices=["auto", "env", "cli", "credential_file", "msi", "workload_identity"],
    ),
    "profile": _option("AZURE_PROFILE"),
    "cloud_environment": _option("AZURE_CLOUD_ENVIRONMENT", default="AzureCloud"),
    "wait_timeout": {"type": "int", "default": 600},
}
# The environment variables of these options.
ENVIRONMENT = tuple(name for option in CONNECTION.values() for name in option.get("fallback", (None, ()))[1])


def without_empty(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a task or an inventory source without those that are null, and without empty connection options: they
    count as not set."""
    return {
        name: value for name, value in options.items() if value is not None and (value != "" or name not in CONNECTION)
    }


# The option of each module that sets the key of an account. Without it, the mode is `update`, with a warning if that
# contradicts the identifier of the key.
VERSION_MODE = {
    "version_mode": {"type": "str", "choices": ["update", "keep", "pin", "follow"]},
}
# Doc fragment azbatch.cmk.new_key. The type and the size of a key are no secrets, although Ansible suspects that by
# the names of the options.
NEW_KEY: dict[str, dict[str, Any]] = {
    "key_type": {"type": "str", "no_log": False},
    "key_size": {"type": "int", "no_log": False},
    "expires_in": {"type": "str"},
    "rotation_policy": {
        "type": "dict",
        "options": {
            "expiry_time": {"type": "str"},
            "time_after_create": {"type": "str"},
            "time_before_expiry": {"type": "str"},
        },
    },
}

# The two ways to name a key. The identifier of a key is no secret, although Ansible suspects that by the name of the
# option.
NAMED_KEY: dict[str, dict[str, Any]] = {
    "vault_name": {"type": "str"},
    "name": {"type": "str"},
    "key_identifier": {"type": "str", "no_log": False},
}

# Each module that repairs something has this option and makes the repairs of its resource, so that one variable serves
# all. In the order of the repairs.
ALLOWED_REPAIRS: dict[str, dict[str, Any]] = {
    "allowed_repairs": {
        "type": "list",
        "elements": "str",
        "choices": ["vault", "network", "key", "access", "other_versions", "identity"],
    },
}

# Doc fragment azbatch.cmk.vault_users.
VAULT_USERS: dict[str, dict[str, Any]] = {
    "vault_used_by": {"type": "str", "default": "any", "choices": ["any", "batch"]},
}
# Doc fragment azbatch.cmk.users_in.
USERS_IN: dict[str, dict[str, Any]] = {"users_in": {"type": "list", "elements": "str"}}
# Doc fragment azbatch.cmk.unused.
UNUSED: dict[str, dict[str, Any]] = {
    "unused_for": {"type": "str", "default": "P7D"},
}
