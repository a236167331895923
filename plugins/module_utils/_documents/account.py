# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data of a Batch account in Azure's document, the reasons why an account is unavailable, and errors.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from .._core.errors import CmkError, Denied, NotFound, Refused, Rejected, Unavailable
from .._core.ids import KeyIdentifier, read_key_identifier
from .._core.summary import key_text
from .identity import SYSTEM_ASSIGNED, USER_ASSIGNED, Identity, describe_identity

# Provisioning states: of an account whose last operation has failed, and of accounts that accept no change.
FAILED = "Failed"
UNDER_WAY = {"Creating": "is being created", "Deleting": "is being deleted"}
POOLS_READ = "Microsoft.Batch/batchAccounts/pools/read"
_NOT_KNOWN = "is available is not known, because the caller may not list its pools."
_GRANT = "Assign Reader on the account."


class KeyVaultProperties(TypedDict, total=False):
    keyIdentifier: str


class Encryption(TypedDict, total=False):
    keySource: str
    keyVaultProperties: KeyVaultProperties


class KeyVaultReference(TypedDict):
    """The vault of an account whose pools are in the user's subscription."""

    id: str


class AccountProperties(TypedDict, total=False):
    provisioningState: str
    encryption: Encryption
    keyVaultReference: KeyVaultReference


class Account(TypedDict):
    """A Batch account."""

    id: str
    name: str
    location: str
    properties: AccountProperties
    identity: NotRequired[Identity]
    tags: NotRequired[dict[str, str] | None]


def key_of(account: Account | None) -> KeyIdentifier | None:
    """The customer-managed key in the document of an account; None if it uses a Microsoft-managed key."""
    encryption = account.get("properties", {}).get("encryption", {}) if account else {}
    identifier = encryption.get("keyVaultProperties", {}).get("keyIdentifier")
    if encryption.get("keySource") != "Microsoft.KeyVault" or not identifier:
        return None
    return read_key_identifier(identifier)


def describe(account: Account | None) -> dict[str, Any]:
    """The module's return value."""
    if account is None:
        return {"exists": False}
    key = key_of(account)
    return {
        "exists": True,
        "id": account["id"],
        "name": account["name"],
        "location": account["location"],
        "identity": describe_identity(account.get("identity", {})),
        "key_source": "microsoft_keyvault" if key else "microsoft_batch",
        "key_identifier": str(key) if key else None,
        "tags": account.get("tags", {}),
    }


def summary(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """One line for a person. `before` and `after` are return values of the module."""
    if not after["exists"]:
        return f"Deleted the Batch account {name}." if before["exists"] else f"There is no Batch account {name}."
    has = _identity_text(after["identity"])
    account = f"the Batch account {name} in {after['location']}"
    if not before["exists"]:
        key = f", on {key_text(after['key_identifier'])}" if after["key_identifier"] else ""
        return f"Created {account} with {has}{key}."
    if before == after:
        return f"The{account[3:]} has {has}."
    return f"Gave {account} {has} (before: {_identity_text(before['identity'])})."


def _identity_text(identity: Mapping[str, Any]) -> str:
    if identity["type"] == "none":
        return "no identity"
    # The name is the last part of the resource id.
    names = ", ".join(one.rpartition("/")[2] for one in identity["user_assigned_identities"])
    kind = {SYSTEM_ASSIGNED: "a system-assigned identity", USER_ASSIGNED: "the user-assigned identity"}
    return f"{kind.get(identity['type'], 'a system-assigned identity and the user-assigned identity')} {names}".strip()


def is_unavailable(refusal: CmkError) -> bool:
    """Whether the error of a list of pools means that the account is not available, and not that the caller may not
    list pools."""
    return isinstance(refusal, Denied | Rejected) and not is_of_caller(refusal.facts.get("azure", {}).get("code"))


def is_of_caller(code: object) -> bool:
    """Whether the code means that the caller lacks a right: AuthorizationFailed, LinkedAuthorizationFailed and
    similar."""
    return str(code).lower().endswith("authorizationfailed")


class KeyUnusable(Unavailable):
    """The reason why an account is not available, if Batch does not report it. `pools_listed` is whether Batch
    lists its pools."""

    def __init__(self, evidence: Sequence[str], *, pools_listed: bool) -> None:
        super().__init__("Batch cannot use the key of the account.", details=" ".join(evidence))
        self.pools_listed = pools_listed


class NotShown(CmkError):
    """The reason why it is not known whether an account is available, although its pools can be listed."""

    def __init__(self, unknown: Sequence[str], *, is_unread: bool = False, known_from: float | None = None) -> None:
        told = "Batch lists the pools of the account, which is no proof that it can use its key."
        super().__init__(told, details=" ".join(unknown))
        # Whether data that would show it could not be read. Otherwise, Azure does not show it.
        self.is_unread = is_unread
        # From when on Azure shows it, in seconds since 1970; None if no time is known.
        self.known_from = known_from


def why_unavailable(
    pools: CmkError | None,
    lost: Sequence[str],
    unknown: Sequence[str],
    *,
    is_unread: bool = False,
    known_from: float | None = None,
) -> CmkError | None:
    """Why the account is not available, or why that is not known. `pools` is the error of a list of its pools, or
    None. `lost` are the reasons why Batch cannot use the key, and `unknown` the reasons why that is not known
    (`is_unread`: because data could not be read; `known_from`: from when on Azure shows it).

    It is not documented whether Batch lists the pools of an account that has lost its key. Therefore neither a list
    nor an error of the service (HTTP status 429 or 5xx) is proof, but a refusal is proof.
    """
    if pools is not None and not isinstance(pools, Unavailable):
        return pools
    if lost:
        return KeyUnusable(lost, pools_listed=pools is None)
    return pools or (NotShown(unknown, is_unread=is_unread, known_from=known_from) if unknown else None)


def is_refused(reason: CmkError | None) -> bool:
    """Whether Batch refuses to list the pools of an unavailable account."""
    return not (isinstance(reason, KeyUnusable) and reason.pools_listed)


def availability(reason: CmkError | None) -> bool | None:
    """Whether an account is available, according to the reason why it is not. None if it is not known, for example
    because the caller may not list its pools."""
    if reason is None:
        return True
    return False if isinstance(reason, KeyUnusable) or is_unavailable(reason) else None


def availability_unknown(name: str, reason: CmkError) -> Denied:
    """The error that a change of the account could not be confirmed."""
    return Denied(
        f"Whether the Batch account {name} {_NOT_KNOWN} {_GRANT} This task changed nothing.",
        code="availability_unknown",
        action=POOLS_READ,
        remedy=_GRANT,
        **reason.texts,
    )


def require_known(name: str, reason: CmkError) -> None:
    """Raise the error that it is not known whether the account is available. If Batch lists its pools, and nothing
    shows that the account has lost its key, nothing is raised: Batch refuses to change an account without its key."""
    if isinstance(reason, Denied):
        raise availability_unknown(name, reason)
    if isinstance(reason, Unavailable):
        raise reason


def require_readable(name: str, reason: CmkError) -> None:
    """Raise an error if the caller cannot read whether the account is available. A version that was disabled on
    purpose, or a recent repair, is no error: nothing has to be done about it."""
    if isinstance(reason, NotShown) and not reason.is_unread:
        return
    why, remedy = "something cannot be read (details)", "Make that readable, and run the task again."
    if isinstance(reason, Denied):
        why, remedy = "the caller may not list its pools", _GRANT
    raise Refused(
        f"Whether the Batch account {name} is available is not known, because {why}. {remedy} "
        "(O(require_readable=true))",
        code="availability_unknown",
        remedy=remedy,
        **reason.texts,
    )


def availability_warning(name: str, reason: CmkError) -> str:
    if isinstance(reason, Denied):
        return f"Whether the Batch account {name} {_NOT_KNOWN} {_GRANT}"
    return f"Whether the Batch account {name} is available is not known. {reason.reported}"


def require_ready(account: Account | None) -> None:
    """Raise an error if the account is being created or deleted, or if its last operation has failed."""
    name = account["name"] if account else ""
    state = account["properties"].get("provisioningState") if account else None
    if state in UNDER_WAY:
        remedy = "Wait until that has finished."
        raise Refused(f"The Batch account {name} {UNDER_WAY[state]}. {remedy}", code="account_under_way", remedy=remedy)
    if is_failed(account):
        remedy = "If that was its creation, run the role azbatch.cmk.provision again, or delete the account."
        raise Refused(
            f"The last operation on the Batch account {name} has failed. {remedy}",
            code="account_failed",
            remedy=remedy,
        )


def is_failed(account: Account | None) -> bool:
    """Whether the last operation on the account has failed: its creation, or a change of an account that is in use."""
    return account is not None and account["properties"].get("provisioningState") == FAILED


def encryption_body(key: KeyIdentifier | None) -> Encryption:
    if key is None:
        return {"keySource": "Microsoft.Batch"}
    return {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": str(key)}}


def required(
    account: Account | None, group: str, name: str, *, options: tuple[str, str] = ("account_name", "resource_group")
) -> Account:
    """The account's document. Raises NotFound if there is no account. `options` are the options of the module that
    have the name and the resource group of the account."""
    if account is None:
        remedy = "Create it (M(azbatch.cmk.batch_account_identity)), or correct "
        remedy += f"O({options[0]}), O({options[1]}) or O(subscription_id)."
        raise NotFound(
            f"There is no Batch account {name} in the resource group {group}. {remedy}",
            code="account_not_found",
            option=options[0],
            value=name,
            remedy=remedy,
        )
    return account


def name_taken(name: str) -> Refused:
    return Refused(
        f"The name {name} is taken in the region, by a Batch account of another resource group. Use another name, or "
        "correct O(resource_group) or O(subscription_id).",
        code="account_name_taken",
        option="name",
        value=name,
        remedy="Use another name, or correct O(resource_group) or O(subscription_id).",
    )
