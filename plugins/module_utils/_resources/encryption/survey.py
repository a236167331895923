# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The return values of azbatch.cmk.batch_encryption_info and azbatch.cmk.batch_encryption_diagnosis.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._checks import preflight
from ..._checks.diagnosis import AccountState, Diagnosis, Symptoms, diagnosed, doubtful_versions, unread
from ..._core.errors import Denied, Unavailable
from ..._core.ids import place_of
from ..._documents import drill as drill_document
from ..._documents.account import Account, availability_warning, is_failed, key_of
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


def survey(observed: AccountState) -> dict[str, Any]:
    """The return value of batch_encryption_info."""
    account, reason, available = observed.account, observed.unavailable_reason, observed.available
    if account is None:
        return {"exists": False}
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


def diagnosis(observed: AccountState) -> dict[str, Any]:
    """The return value of batch_encryption_diagnosis, for an account that exists."""
    surveyed, symptoms = survey(observed), observed.symptoms
    # Without symptoms, the account uses a Microsoft-managed key.
    found = diagnosed(symptoms) if symptoms else Diagnosis(recoverable=observed.available is True)
    return {
        **{name: surveyed[name] for name in _OF_INFO},
        "causes": [cause.described for cause in found.causes],
        "repairs": list(found.repairs),
        # No repair of a key makes up for an operation on the account that has failed.
        "recoverable": found.recoverable and not is_failed(observed.account),
        "unknown": [error.reported for error in found.unread],
        "vault": _place(found.vault_id),
        "key_identifiers": [str(key) for key in found.needed],
        "preflight": preflight.describe(found.checks),
        "unfinished_drill": _unfinished_drill(surveyed["id"], symptoms),
    }


def _place(vault_id: str | None) -> dict[str, str] | None:
    if vault_id is None:
        return None
    subscription, group, name = place_of(vault_id)
    return {"subscription_id": subscription, "resource_group": group, "name": name}


def _unfinished_drill(account_id: str, symptoms: Symptoms | None) -> dict[str, Any] | None:
    vault = symptoms.evidence.vault if symptoms else None
    drill = drill_document.of_vault(vault) if isinstance(vault, Mapping) else None
    return drill_document.describe(drill if drill and drill.is_of(account_id) else None)


def survey_warnings(observed: AccountState) -> tuple[str, ...]:
    """The module's warnings about values that could not be read."""
    account, reason, symptoms = observed.account, observed.unavailable_reason, observed.symptoms
    if account is None:
        return ()
    if reason and observed.available is None:
        found = availability_warning(account["name"], reason)
        # An error of the service does not say which versions are in doubt.
        doubt = doubtful_versions(symptoms) if symptoms and isinstance(reason, Unavailable) else ""
        return (f"{found} {doubt}".rstrip(),)
    if observed.available or not symptoms:
        return ()
    hidden = [one for one in unread(symptoms) if isinstance(one, Denied)]
    return tuple(f"Not all possible causes could be checked. {one.reported}" for one in hidden)
