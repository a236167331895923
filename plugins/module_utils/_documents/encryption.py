# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The encryption setting in Azure's document of a Batch account: return values, summaries and errors.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.errors import LONGEST, AccountUnavailable, CmkError, Refused
from .._core.ids import KeyIdentifier, read_key_identifier
from .._core.summary import key_text, version_text
from .account import FAILED, Account, key_of

KEY_VAULT = "microsoft_keyvault"
BATCH = "microsoft_batch"


def required_key(account: Account, vault: str, name: str) -> KeyIdentifier:
    """The customer-managed key that the account uses. It must be the named key."""
    key = key_of(account)
    if key is None:
        raise Refused(
            f"The Batch account {account['name']} uses a Microsoft-managed key. Move it to a customer-managed key "
            "first, with azbatch.cmk.provision.",
            code="account_not_on_cmk",
            remedy="Move the account to a customer-managed key first, with azbatch.cmk.provision.",
        )
    if not key.is_named(vault, name):
        raise Refused(
            f"The Batch account {account['name']} uses {_named(key)}, not {name} in {vault}. Correct O(name) or "
            "O(vault_name), or run azbatch.cmk.switch.",
            code="account_on_another_key",
            key_identifier=str(key),
            option="name",
            value=name,
            remedy="Correct O(name) or O(vault_name), or run azbatch.cmk.switch.",
        )
    return key


def on_another_key(
    account: str,
    has: KeyIdentifier | None,
    wanted: tuple[str, str],
    remedy: str = "Correct the names of the vault and the key.",
    *,
    is_option: bool = True,
) -> Refused:
    """The refusal to move an account from the key that it uses. `wanted` is the vault and the name of the key that it
    may leave (`is_option`), or of the key to move it to, which may be a typing error."""
    key = f"{wanted[1]} in {wanted[0]}"
    return Refused(
        f"The Batch account {account} uses {_named(has)}, not the key {key}. This task changed nothing. {remedy}",
        code="account_on_another_key",
        option="previous_key",
        value="/".join(wanted) if is_option else None,
        key_identifier=str(has or "") or None,
        remedy=remedy,
    )


def describe(account: Account) -> dict[str, Any]:
    """The module's return value."""
    return {"exists": True, "id": account["id"], "name": account["name"], **describe_key(key_of(account))}


def summary(name: str, before: Mapping[str, Any], after: Mapping[str, Any], *, count: int = 1) -> str:
    """One line for a person. `before` and `after` are return values of the module, for one account or for `count`
    accounts with these values, which `name` in `after` names together."""
    if not after["exists"]:
        return f"There is no Batch account {name}."
    used, uses = before["key_identifier"], after["key_identifier"]
    previous = "" if used == uses else f" (before: {_previous(used, uses)})"
    verb, they_are = ("uses", "account is") if count == 1 else ("use", "accounts are")
    available = {
        True: f" The {they_are} available again." if before["available"] is False else "",
        False: f" The {they_are} not available.",
        None: f" Whether the {they_are} available is not known.",
    }
    return f"{after['name']} {verb} {key_text(uses)}{previous}.{available[after['available']]}"


def _previous(used: str | None, uses: str | None) -> str:
    """The previous key. If it is the same key, only the version."""
    if used and uses:
        key = read_key_identifier(used)
        if key.same_key(read_key_identifier(uses)):
            return version_text(key.version) if key.version else "the latest version"
    return key_text(used)


def survey_summary(name: str, found: Mapping[str, Any], *, count: int = 1) -> str:
    """One line for a person. `found` is the return value of azbatch.cmk.batch_encryption_info or
    azbatch.cmk.batch_encryption_diagnosis, for one account or for `count` accounts with these values, which `name`
    names together."""
    if not found["exists"]:
        return f"There is no Batch account {name}."
    verb, they_are, their = ("uses", "is", "its") if count == 1 else ("use", "are", "their")
    uses = f"{name} {verb} {key_text(found['key_identifier'])}"
    if "available" not in found:
        return f"{uses}."
    not_known = f"{their} availability is not known"
    state = {True: f"{they_are} available", False: f"{they_are} not available", None: not_known}[found["available"]]
    causes = ", ".join(cause["name"] for cause in found.get("causes", ()))
    failed = found["provisioning_state"] == FAILED
    operation = f" {their.capitalize()} last operation has failed (provisioning state Failed)." if failed else ""
    return f"{uses} and {state}{f': {causes}' if causes else ''}.{operation}"


def describe_key(key: KeyIdentifier | None) -> dict[str, Any]:
    return {
        "key_source": KEY_VAULT if key else BATCH,
        "key_identifier": str(key) if key else None,
        "key_version": key.version if key else None,
        "follows_latest": key is not None and key.version is None,
    }


def versions_not_kept(name: str, left: KeyIdentifier, reason: CmkError) -> str:
    """The warning that the caller cannot update the versions that an account has left."""
    return (
        f"Batch may need the versions of the key {left.name} in {left.vault} for seven days after the Batch account "
        f"{name} has left the key, but the versions could not be updated without a change. A task that disables unused "
        f"versions may therefore disable them earlier. {reason.reported}"
    )


def account_unavailable(
    name: str, key: KeyIdentifier | None, unavailable_reason: CmkError, *, is_blocked: bool = False
) -> AccountUnavailable:
    """The error of a change. `is_blocked` is whether the firewall of the vault blocks the caller."""
    remedy = "Run the role azbatch.cmk.recover." if key else "Fix the problem that Azure reports (azure.message)."
    network = "The vault's firewall blocks the caller: recover from a network that it allows. " if is_blocked else ""
    begin, why = f"The Batch account {name} is not available.", unavailable_reason.facts.get("details")
    fits = why and len(f"{begin} {why} {network}{remedy}") <= LONGEST
    return AccountUnavailable(
        f"{begin} {why if fits else f'It uses {_named(key)}.'} {network}{remedy}",
        key_identifier=str(key or "") or None,
        remedy=remedy,
        **unavailable_reason.texts,
    )


def _named(key: KeyIdentifier | None) -> str:
    """The key in an error, of which the result has the identifier."""
    return f"the key {key.name} in {key.vault}" if key else "a Microsoft-managed key"
