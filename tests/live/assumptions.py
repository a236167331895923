# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For each assumption about Batch in sandbox/fidelity, the experiments that ask Azure, or why none does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    # The names of the experiments; empty if there are none.
    by: tuple[str, ...]
    # Why no experiment asks this, or a part of it.
    not_asked: str = ""


def _by(*experiments: str, but: str = "") -> Asked:
    return Asked(experiments, but)


def _no(reason: str) -> Asked:
    return Asked((), reason)


_NO_POOL = "A pool needs a virtual machine image, which the experiments do not choose. Recordings of pools are public."

# By the beginning of the row.
ASSUMPTIONS: Mapping[str, Asked] = {
    "create an account": _by("changing_accounts"),
    "put an existing account": _by("changes"),
    "update an account": _by("changes", "identities_on_put"),
    "list accounts": _by(
        "refused_requests",
        but="A page needs more than a hundred accounts, and the filter needs a second caller.",
    ),
    "list access keys": _by("refused_requests"),
    "synchronize the auto-storage keys": _by("refused_requests"),
    "check a name": _by("refused_requests"),
    "list pools": _no(_NO_POOL),
    "get a pool": _by("refused_requests", but=_NO_POOL),
    "put a pool": _no(_NO_POOL),
    "delete a pool": _no(_NO_POOL),
    "data plane: list pools": _by("key_loss"),
    "InvalidRequestBody: poolAllocationMode": _by("refused_requests"),
    "InvalidRequestBody: keyVaultProperties": _by("refused_requests"),
    "MissingRequiredProperty: without keyIdentifier": _by("refused_requests"),
    "LinkedInvalidPropertyId": _by("refused_requests"),
    "InvalidPropertyValue": _by("refused_requests"),
    "InvalidIdentityIds": _by("refused_requests"),
    "InvalidAccountName": _by("refused_requests"),
    "AccountAlreadyExists": _no("A name that is in use needs a second resource group."),
    "AccountOperationInProgress": _by("changing_accounts"),
    "AccountCreationFailed": _by("refused_creation"),
    "OperationNotFound": _by("refused_requests"),
    "PoolNotFound": _by("refused_requests"),
    "SharedKeyNotAllowed": _by("refused_requests"),
    "AutoStorageNotConfigured": _by("refused_requests"),
    "InvalidSkipToken": _by("refused_requests"),
    "InvalidKeyVaultProperties": _by("refused_keys"),
    "KeyVaultKeyNotAccessible": _by("key_loss"),
    "At every encryption change,": _by("refused_keys", but="Only the logs of a vault show what Batch wraps."),
    "The check is synchronous:": _by("refused_keys"),
    "Refused: an account without an identity,": _by("which_identity"),
    "Refused: an identity without get,": _by("refused_keys", but="One missing permission is like all."),
    "Refused: a vault without purge protection": _by("refused_keys"),
    "Refused: a vault of another tenant,": _by("refused_keys", but="Another tenant needs a second subscription."),
    "Refused: a missing, disabled, expired": _by("refused_keys"),
    "Refused: a key other than RSA": _by("refused_keys", "hsm_key"),
    "Refused: a value that is not the identifier": _by("refused_keys"),
    "If an account has several user-assigned identities,": _by("which_identity"),
    "Without access to its key, an account accepts only": _by("key_loss"),
    "Batch notices the loss of access": _by("key_loss"),
    "Access is lost if the key or the version": _by(
        "key_loss", "weaknesses", but="A vault in another tenant needs a second subscription."
    ),
    "Access is lost if the key expires": _by("key_loss"),
    "If only the operation wrapKey is lost,": _by("weaknesses"),
    "After access is restored,": _by("key_loss", but="When the sandbox checks keys is a simplification."),
    "An account whose key identifier has no version": _by(
        "follower_delay", but="A version that Batch cannot use would need more days."
    ),
    "After a move from one version to another,": _by("previous_version_needed"),
    "The identity of an account can be changed": _by("weaknesses", "changes"),
}
