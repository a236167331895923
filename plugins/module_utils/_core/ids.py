# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ARM ids, key identifiers, and the names in them.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import InvalidOption, Problems

# The host suffixes of Key Vault in the three clouds. A managed HSM has another suffix; Batch supports only keys of
# vaults.
VAULT_SUFFIXES = ("vault.azure.net", "vault.usgovcloudapi.net", "vault.azure.cn")

# The value of the option `previous_key` for all keys.
ANY_KEY = "any"

_MANAGEMENT_GROUP = "/providers/microsoft.management/managementgroups/"

_KEY_IDENTIFIER = re.compile(
    r"https://(?P<vault>[a-z0-9-]{3,24})\.(?P<suffix>[a-z0-9.]+?)(?::443)?"
    r"/keys/(?P<name>[a-z0-9-]{1,127})(?:/(?P<version>[0-9a-f]{32}))?/?",
    re.IGNORECASE,
)
_ANY_KEY_IDENTIFIER = re.compile(
    r"https://(?P<vault>[^./]+)\.(?P<suffix>[^/]+)/keys/(?P<name>[^/]+)(?:/(?P<version>[^/]+))?/?", re.IGNORECASE
)
_ACCOUNT_NAME = re.compile(r"[a-zA-Z0-9]{3,24}")
_VAULT_NAME = re.compile(r"[a-zA-Z](?!.*--)[a-zA-Z0-9-]{1,22}[a-zA-Z0-9]")
_KEY_NAME = re.compile(r"[a-zA-Z0-9-]{1,127}")
_GUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_GROUP_NAME = re.compile(r"[-\w.()]{0,89}[-\w()]")
# The place of a name in a resource id or a URL.
_IN_ID = {
    pattern: re.compile(place, re.IGNORECASE)
    for pattern, place in (
        (_ACCOUNT_NAME, r"/batchAccounts/([^/]+)"),
        (_VAULT_NAME, r"(?:/vaults/|://)([^/.]+)"),
        (_KEY_NAME, r"/keys/([^/]+)"),
        (_GUID, r"^/?subscriptions/([^/]+)"),
        (_GROUP_NAME, r"/resourceGroups/([^/]+)"),
    )
}
_USER_ASSIGNED = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/(?P<name>[^/]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class KeyIdentifier:
    """A key of a vault; without a version, it means the newest version."""

    vault: str
    suffix: str
    name: str
    # In lower case, as Key Vault writes it. Batch keeps the letter case of the identifier that was set.
    version: str | None = None

    def __str__(self) -> str:
        version = f"/{self.version}" if self.version else ""
        return f"{self.vault_url}/keys/{self.name}{version}"

    @property
    def vault_url(self) -> str:
        return f"https://{self.vault}.{self.suffix}"

    @property
    def versionless(self) -> KeyIdentifier:
        return replace(self, version=None)

    @property
    def folded(self) -> str:
        """The identifier for comparisons: Azure keeps the letter case of an identifier, but ignores it in
        comparisons."""
        return str(self).casefold()

    def same(self, other: KeyIdentifier | None) -> bool:
        return other is not None and self.folded == other.folded

    def same_key(self, other: KeyIdentifier | None) -> bool:
        """Whether both name the same key, regardless of the version. The host may be one of a private endpoint, which
        begins with the name of the vault too."""
        return other is not None and other.is_named(self.vault, self.name)

    def is_named(self, vault: str, name: str) -> bool:
        """Whether this is the key of that name in that vault, or a version of it."""
        return self.vault == vault.lower() and self.name.casefold() == name.casefold()


def key_in_vault(vault: str, name: str) -> str:
    """The name of a key in the run's store, regardless of the letter case."""
    return f"{vault}/{name}".casefold()


def parse_key_identifier(value: str, option: str) -> KeyIdentifier:
    found = _KEY_IDENTIFIER.fullmatch(value.strip())
    if found is None or found["suffix"].lower() not in VAULT_SUFFIXES:
        raise InvalidOption(
            option,
            value,
            "this is not the identifier of a key in a key vault.",
            "Use https://VAULT.vault.azure.net/keys/KEY, and /VERSION to pin it.",
        )
    return _key_identifier(found["vault"], found["suffix"], found["name"], found["version"])


def parse_key(value: str, option: str, forms: str = "VAULT/KEY or a key identifier") -> KeyIdentifier:
    """A key by its identifier, or as VAULT/KEY, then without the suffix of the vault. `forms` are the values that the
    option accepts."""
    if "://" in value:
        return parse_key_identifier(value, option)
    vault, slash, name = value.strip().partition("/")
    for pattern, part, kind in ((_VAULT_NAME, vault, "vault"), (_KEY_NAME, name, "key")):
        if slash and pattern.fullmatch(part) is None:
            raise InvalidOption(option, value, f"{part!r} is no name of a {kind}.", f"Correct the name of the {kind}.")
    if not slash:
        raise InvalidOption(option, value, "this names no key.", f"Use {forms}.")
    return KeyIdentifier(vault, "", name)


def parse_previous_key(value: str, option: str) -> tuple[str, str] | str:
    """The vault and the name of the only key that an account may leave, or `ANY_KEY`."""
    if value.strip().lower() == ANY_KEY:
        return ANY_KEY
    key = parse_key(value, option, f"VAULT/KEY, a key identifier, or {ANY_KEY}")
    return key.vault, key.name


def read_key_identifier(value: str) -> KeyIdentifier:
    """An identifier from a response of Azure, which this collection may not accept as an option."""
    found = _ANY_KEY_IDENTIFIER.fullmatch(value)
    if found is None:
        return KeyIdentifier("unknown", "invalid", value)
    return _key_identifier(found["vault"], found["suffix"].removesuffix(":443"), found["name"], found["version"])


def is_key_identifier(value: str) -> bool:
    """Whether the value has the parts of an identifier that `read_key_identifier` reads."""
    return _ANY_KEY_IDENTIFIER.fullmatch(value) is not None


def _key_identifier(vault: str, suffix: str, name: str, version: str | None) -> KeyIdentifier:
    return KeyIdentifier(vault.lower(), suffix.lower(), name, version.lower() if version else None)


def check_account_name(value: str, option: str) -> str:
    return _checked(_ACCOUNT_NAME, value, option, "a Batch account's name has 3 to 24 letters and digits.")


def check_vault_name(value: str, option: str) -> str:
    problem = "a vault's name has 3 to 24 letters, digits and single hyphens, and begins with a letter."
    return _checked(_VAULT_NAME, value, option, problem)


def check_key_name(value: str, option: str) -> str:
    return _checked(_KEY_NAME, value, option, "a key's name has 1 to 127 letters, digits and hyphens.")


def check_guid(value: str, option: str) -> str:
    return _checked(_GUID, value, option, "this is not a GUID such as 11111111-2222-3333-4444-555555555555.")


def check_subscription(value: str, option: str) -> str:
    return _checked(_GUID, value, option, "the id of a subscription is a GUID.")


def check_subscriptions(values: Iterable[str] | None, option: str) -> None:
    for one in values or ():
        check_subscription(one, option)


def check_group_name(value: str, option: str) -> str:
    problem = "a resource group's name has 1 to 90 letters, digits and -_.(), and no period at its end."
    return _checked(_GROUP_NAME, value, option, problem)


def check_places(params: Mapping[str, Any]) -> Problems:
    """The problems of the subscriptions and resource groups in the options of a task."""
    problems = Problems()
    for option, value in params.items():
        kind = next((kind for kind in _PLACES if option.endswith(kind)), None)
        if kind and isinstance(value, str) and value:
            problems.of(_PLACES[kind], value, option)
    return problems


_PLACES = {"subscription_id": check_subscription, "resource_group": check_group_name}


def check_tags(tags: Mapping[str, Any] | None) -> dict[str, str]:
    """The option `tags`. A number counts as its text, because YAML reads `cost_center: 4711` as a number."""
    texts = {
        name: str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in (tags or {}).items()
    }
    if not all(isinstance(one, str) for one in (*texts, *texts.values())):
        raise InvalidOption("tags", tags, "the name and the value of a tag are texts.", "Put them in quotes.")
    return texts


def _checked(pattern: re.Pattern[str], value: str, option: str, problem: str) -> str:
    if pattern.fullmatch(value) is None:
        found = _IN_ID[pattern].search(value)
        name = found[1] if found else value.strip().strip("/")
        remedy = f"Use {name}." if pattern.fullmatch(name) else f"Correct O({option})."
        raise InvalidOption(option, value, problem, remedy)
    return value


@dataclass(frozen=True)
class UserAssignedId:
    """The ARM id of a user-assigned managed identity."""

    subscription: str
    group: str
    name: str

    def __str__(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{self.name}"
        )


def parse_user_assigned_id(value: str, option: str) -> UserAssignedId:
    found = _USER_ASSIGNED.fullmatch(value.strip().rstrip("/"))
    if found is None:
        raise InvalidOption(
            option,
            value,
            "this is no id of a user-assigned identity.",
            "Use its resource id (/subscriptions/.../userAssignedIdentities/NAME).",
        )
    return UserAssignedId(found["subscription"], found["group"], found["name"])


def same_id(one: str, other: str) -> bool:
    """Azure may return an ARM id in another letter case than it was sent, often `resourcegroups`."""
    return one.rstrip("/").casefold() == other.rstrip("/").casefold()


def role_guid(role_definition_id: str) -> str:
    """The GUID of a role. Azure returns the id of a role with or without a subscription, so only the GUID is stable."""
    return role_definition_id.rsplit("/", 1)[-1].lower()


def place_of(resource_id: str) -> tuple[str, str, str]:
    """The subscription, resource group and name in the id
    /subscriptions/ID/resourceGroups/NAME/providers/NAMESPACE/TYPE/NAME."""
    parts = resource_id.rstrip("/").split("/")
    return parts[2], parts[4], parts[8]


def type_of(resource_id: str) -> str:
    """The type of a resource, such as `microsoft.batch/batchaccounts/pools`."""
    namespace, *parts = resource_id.lower().rpartition("/providers/")[2].split("/")
    return "/".join([namespace, *parts[::2]])


def is_pool(resource_id: str) -> bool:
    return type_of(resource_id) == "microsoft.batch/batchaccounts/pools"


def is_of_batch(resource_id: str) -> bool:
    return type_of(resource_id).startswith("microsoft.batch/")


def within(scope: str, resource_id: str) -> bool:
    """Whether an assignment at `scope`, from Azure's list for the resource, applies to the resource.

    A management group contains subscriptions, but is not a part of their ids.
    """
    if scope.casefold().startswith(_MANAGEMENT_GROUP):
        return True
    above, below = scope.rstrip("/").casefold(), resource_id.rstrip("/").casefold()
    return below == above or below.startswith(f"{above}/")
