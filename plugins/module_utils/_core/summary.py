# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parts of the one-line summaries that every module returns.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .ids import read_key_identifier, type_of
from .placeholders import is_placeholder

# The number of characters of a version in a summary, enough to distinguish versions.
_SHORT = 8
_MOST_NAMES = 3
# The names of types of resources that use keys.
_TYPES = {
    "microsoft.batch/batchaccounts": "Batch account",
    "microsoft.batch/batchaccounts/pools": "pool",
    "microsoft.cognitiveservices/accounts": "AI services account",
    "microsoft.compute/diskencryptionsets": "disk encryption set",
    "microsoft.compute/disks": "disk",
    "microsoft.containerregistry/registries": "container registry",
    "microsoft.containerservice/managedclusters": "Kubernetes cluster",
    "microsoft.databricks/workspaces": "Databricks workspace",
    "microsoft.datafactory/factories": "data factory",
    "microsoft.dbformysql/flexibleservers": "MySQL server",
    "microsoft.dbforpostgresql/flexibleservers": "PostgreSQL server",
    "microsoft.documentdb/databaseaccounts": "Cosmos DB account",
    "microsoft.eventhub/namespaces": "Event Hubs namespace",
    "microsoft.machinelearningservices/workspaces": "Machine Learning workspace",
    "microsoft.operationalinsights/clusters": "Log Analytics cluster",
    "microsoft.recoveryservices/vaults": "Recovery Services vault",
    "microsoft.servicebus/namespaces": "Service Bus namespace",
    "microsoft.sql/managedinstances": "SQL managed instance",
    "microsoft.sql/servers": "SQL server",
    "microsoft.sql/servers/databases": "SQL database",
    "microsoft.storage/storageaccounts": "storage account",
    "microsoft.synapse/workspaces": "Synapse workspace",
}
# The names of further types, at which rights are assigned.
_SCOPES = {
    "microsoft.keyvault/vaults": "key vault",
    "microsoft.keyvault/vaults/keys": "key",
    "microsoft.managedidentity/userassignedidentities": "identity",
}

# What a summary says has been done, and what a prediction says would be done.
_WOULD = {
    "Changed": "change",
    "Created": "create",
    "Deleted": "delete",
    "Disabled": "disable",
    "Enabled": "enable",
    "Gave": "give",
    "Recovered": "recover",
    "Recovered or created": "recover or create",
}
_DONE = re.compile(rf"(?:^|(?<=\. ))({'|'.join(sorted(_WOULD, reverse=True))})(?= )")
# The other sentences about a change.
_STATES = (
    (re.compile(r"^(The principal \S+) has "), r"\1 would have "),
    (re.compile(r"^([^:]+?) uses? (?=version |a |the latest )"), r"\1 would use "),
    (re.compile(r"(?<=\. )(The accounts?) (?:is|are)( not)? (?=available)"), r"\1 would\2 be "),
    (re.compile(r"^(Drill of .+?: the \w+) was "), r"\1 would be "),
)


def would(summary: str) -> str:
    """The summary of a change as a prediction, such as "Would create a new version of key k in vault v."."""
    text = _DONE.sub(lambda found: f"Would {_WOULD[found[1]]}", summary)
    for pattern, replacement in _STATES:
        text = pattern.sub(replacement, text)
    return text


def version_text(version: str | None) -> str:
    """A short name of a version. A version that does not exist yet is "a new version"."""
    return "a new version" if not version or is_placeholder(version) else f"version {version[:_SHORT]}…"


def key_text(identifier: str | None) -> str:
    """The key that an account uses."""
    if identifier is None:
        return "a Microsoft-managed key"
    key = read_key_identifier(identifier)
    version = version_text(key.version) if key.version else "the latest version"
    return f"{version} of key {key.name} in vault {key.vault}"


def changed_values(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The names of the values that differ. Lists and mappings are shown without their values."""
    return ", ".join(
        _changed(name, before.get(name), value) for name, value in after.items() if value != before.get(name)
    )


def _changed(name: str, was: Any, now: Any) -> str:
    is_plain = not isinstance(was, list | Mapping) and not isinstance(now, list | Mapping)
    return f"{name} ({_plain(was)} -> {_plain(now)})" if is_plain else name


def _plain(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def and_text(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def counted(ids: Iterable[str]) -> str:
    """The numbers of resources by their types, such as "2 Batch accounts, 1 pool and 1 storage account"."""
    return and_text(_number(kind, number) for kind, number in Counter(map(type_of, ids)).items())


def _number(kind: str, number: int) -> str:
    name, of_type = _TYPES.get(kind, "resource"), "" if kind in _TYPES else f" of the type {kind}"
    plural = f"{name[:-1]}ies" if name.endswith("ry") else f"{name}s"
    return f"{number} {name if number == 1 else plural}{of_type}"


def user_text(resource_id: str) -> str:
    """The name of a Batch account; of a pool, also that of its account; of another resource, also its type."""
    name, kind = resource_id.rsplit("/", 1)[-1], type_of(resource_id)
    if kind == "microsoft.batch/batchaccounts/pools":
        return f"pool {name} of {resource_id.split('/')[-3]}"
    return name if kind == "microsoft.batch/batchaccounts" else f"{_TYPES.get(kind, kind)} {name}"


def users_text(ids: Iterable[str]) -> str:
    """The names of resources (`user_text`). Results have their ids."""
    return ", ".join(map(user_text, ids))


def scope_text(scope: str) -> str:
    """The name of a resource, a resource group or a subscription, such as `the key vault kv`, by its id. Results have
    the id."""
    parts = scope.strip("/").split("/")
    if not scope.startswith("/") or len(parts) < 2:
        return scope
    if "providers" in scope.lower().split("/"):
        kind, name = type_of(scope), parts[-1]
        known = {**_TYPES, **_SCOPES}.get(kind, kind.rpartition("/")[2])
        return f"the {known} {name}"
    return f"the {'resource group' if len(parts) > 2 else 'subscription'} {parts[-1]}"


def used_by_text(users: Sequence[str]) -> str:
    """Why a resource was kept: the names of at most three of the resources (ids) that use it."""
    return f"because of possible use by {some_text([user_text(one) for one in users])}"


def some_text(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """The first names, and the number of the others."""
    return and_text([*names[:most], f"{len(names) - most} more"] if len(names) > most else names)
