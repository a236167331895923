# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The return values of azbatch.cmk.batch_encryption_info and azbatch.cmk.batch_encryption_diagnosis.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._checks import diagnosis as account_diagnosis
from ..._checks.diagnosis import Surveyed, Symptoms
from ..._core.errors import Denied, Unavailable
from ..._documents import account as account_document
from ..._documents import drill as drill_document
from ..._documents.account import Account, key_of
from ..._documents.encryption import describe
from ..._documents.identity import describe_identity, principals_of


def described(account: Account | None) -> dict[str, Any]:
    """The key and the identity in the account's document."""
    if account is None:
        return {"exists": False}
    key = key_of(account)
    identity = account.get("identity", {})
    return {
        **describe(account),
        "vault_name": key.vault if key else None,
        "key_name": key.name if key else None,
        "identity": describe_identity(identity),
        "principal_ids": list(principals_of(identity)),
    }


def survey(observed: Surveyed) -> dict[str, Any]:
    """The return value of batch_encryption_info."""
    account: Account | None = observed["account"]
    if account is None:
        return {"exists": False}
    reason = observed["unavailable_reason"]
    available = account_document.availability(reason)
    return {
        **described(account),
        "provisioning_state": account["properties"].get("provisioningState"),
        "available": available,
        "unavailable_reason": reason.reported if reason and available is False else None,
    }


# The parts of batch_encryption_info that batch_encryption_diagnosis returns too.
_OF_INFO = (
    "exists",
    "id",
    "name",
    "provisioning_state",
    "available",
    "unavailable_reason",
    "key_identifier",
    "vault_name",
    "key_name",
)


def diagnosis(observed: Surveyed) -> dict[str, Any]:
    """The return value of batch_encryption_diagnosis, for an account that exists."""
    surveyed, symptoms = survey(observed), observed["diagnosis"]
    found = account_diagnosis.describe(symptoms) if symptoms else _of_no_key(surveyed["available"])
    # No repair of a key makes up for an operation on the account that has failed.
    recoverable = found["recoverable"] and not account_document.is_failed(observed["account"])
    own = {"recoverable": recoverable, "unfinished_drill": _unfinished_drill(surveyed["id"], symptoms)}
    return {**{name: surveyed[name] for name in _OF_INFO}, **found, **own}


def _unfinished_drill(account_id: str, symptoms: Symptoms | None) -> dict[str, Any] | None:
    vault = symptoms["evidence"].vault if symptoms else None
    drill = drill_document.of_vault(vault) if isinstance(vault, Mapping) else None
    return drill_document.describe(drill if drill and drill.is_of(account_id) else None)


def _of_no_key(available: bool | None) -> dict[str, Any]:
    """The diagnosis of an account that uses a Microsoft-managed key."""
    lists: dict[str, list[str]] = {
        name: [] for name in ("causes", "repairs", "unknown", "key_identifiers", "preflight")
    }
    return {**lists, "recoverable": available is True, "vault": None}


def survey_warnings(observed: Surveyed) -> tuple[str, ...]:
    """The module's warnings about values that could not be read."""
    account: Account | None = observed["account"]
    if account is None:
        return ()
    reason = observed["unavailable_reason"]
    available = account_document.availability(reason)
    if reason and available is None:
        found, diagnosis = account_document.availability_warning(account["name"], reason), observed["diagnosis"]
        # An error of the service does not say which versions are in doubt.
        doubt = account_diagnosis.doubtful_versions(diagnosis) if diagnosis and isinstance(reason, Unavailable) else ""
        return (f"{found} {doubt}".rstrip(),)
    if available or not observed["diagnosis"]:
        return ()
    hidden = [one for one in account_diagnosis.unread(observed["diagnosis"]) if isinstance(one, Denied)]
    return tuple(f"Not all possible causes could be checked. {one.reported}" for one in hidden)
