# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The return value of azbatch.cmk.batch_encryption_info.

This module util is private to the collection.
"""

from __future__ import annotations

from typing import Any

from ..._checks import diagnosis as account_diagnosis
from ..._checks.diagnosis import Surveyed, Symptoms
from ..._core.documents import Account
from ..._core.errors import Denied, Unavailable
from ..._core.ids import key_of, principals_of
from ..account import document as account_document
from .document import describe


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
        "identity": account_document.describe_identity(identity),
        "principal_ids": list(principals_of(identity)),
    }


def survey(observed: Surveyed) -> dict[str, Any]:
    """The module's return value."""
    account: Account | None = observed["account"]
    if account is None:
        return {"exists": False, "repairs": []}
    reason, diagnosis = observed["unavailable_reason"], observed["diagnosis"]
    available = account_document.availability(reason)
    return {
        **described(account),
        "provisioning_state": account["properties"].get("provisioningState"),
        "available": available,
        "unavailable_reason": str(reason) if reason and available is False else None,
        "diagnosis": _diagnosed(account, diagnosis) if diagnosis else None,
        "repairs": account_diagnosis.repairs(diagnosis) if diagnosis else [],
    }


def _diagnosed(account: Account, diagnosis: Symptoms) -> dict[str, Any]:
    """The diagnosis. No repair of a key makes up for an operation on the account that has failed."""
    described = account_diagnosis.describe(diagnosis)
    return {**described, "recoverable": described["recoverable"] and not account_document.is_failed(account)}


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
    return tuple(f"Not all possible causes could be checked. {one.msg}" for one in hidden)
