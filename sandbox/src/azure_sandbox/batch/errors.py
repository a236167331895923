# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of Batch. Sources: sandbox/fidelity/batch.yml."""

from __future__ import annotations

from collections.abc import Mapping

from ..shared.errors import FAILURE_CAUSE, gateway_error, other_location
from ..shared.web import AzureError

_LINKED_ID = (
    "Property id '{value}' at path '{path}' is invalid. Expect fully qualified resource Id that start with"
    " '/subscriptions/{{subscriptionId}}' or '/providers/{{resourceProviderNamespace}}/'."
)


class Refusal(Exception):
    """An error of the Batch service. Its details are labels with values: Reason, PropertyName, PropertyPath."""

    def __init__(self, status: int, code: str, summary: str, details: Mapping[str, str]) -> None:
        super().__init__(f"{code}: {summary} {dict(details)}")
        self.status = status
        self.code = code
        self.summary = summary
        self.details = dict(details)

    @property
    def reason(self) -> str:
        return self.details.get("Reason", self.summary)

    @property
    def parts(self) -> tuple[int, str, str, dict[str, str]]:
        """The parts of the error, because an exception cannot be saved."""
        return self.status, self.code, self.summary, self.details

    def answer(self, request_id: str, time: str) -> AzureError:
        error = {
            "code": self.code,
            "message": f"{self.summary}\nRequestId:{request_id}\nTime:{time}",
            "target": "BatchAccount",
            "details": [{"code": label, "message": value} for label, value in self.details.items()],
        }
        return AzureError(self.status, {"error": error}, {"x-ms-request-id": request_id})


class KeyNotAccessible(Refusal):
    """The account has lost its key."""


def invalid_body(reason: str) -> Refusal:
    summary = "The specified Request Body is not syntactically valid."
    return Refusal(400, "InvalidRequestBody", summary, {"Reason": reason})


def missing_property(path: str) -> Refusal:
    summary = "A required property was not specified in the request body."
    names = {"PropertyName": path.rpartition(".")[2], "PropertyPath": path}
    return Refusal(400, "MissingRequiredProperty", summary, names)


def invalid_value(path: str, reason: str) -> Refusal:
    summary = "The value provided for one of the properties in the request body is invalid."
    names = {"Reason": reason, "PropertyName": path.rpartition(".")[2], "PropertyPath": path}
    return Refusal(400, "InvalidPropertyValue", summary, names)


def invalid_name(reason: str) -> Refusal:
    return Refusal(400, "InvalidAccountName", "The specified account name is not valid.", {"Reason": reason})


def name_taken(reason: str) -> Refusal:
    return Refusal(409, "AccountAlreadyExists", "The specified account already exists.", {"Reason": reason})


def quota_exceeded() -> Refusal:
    summary = "The regional Batch account quota for the specified subscription has been reached."
    return Refusal(409, "SubscriptionQuotaExceeded", summary, {})


def creation_failed(name: str) -> Refusal:
    reason = f"Account '{name}' is in provisioning state 'Failed'. Create it again, or delete it."
    return Refusal(409, "AccountCreationFailed", "The creation of the account has failed.", {"Reason": reason})


def in_progress(name: str, state: str) -> Refusal:
    reason = f"Account '{name}' is in provisioning state '{state}'."
    summary = "Another operation on the account is in progress."
    return Refusal(409, "AccountOperationInProgress", summary, {"Reason": reason})


def key_refused(reason: str) -> Refusal:
    names = {"Reason": reason, "PropertyPath": "properties.encryption.keyVaultProperties.keyIdentifier"}
    return Refusal(400, "InvalidKeyVaultProperties", "The specified Key Vault properties are invalid.", names)


def key_not_accessible(key_identifier: str, reason: str) -> KeyNotAccessible:
    summary = "The key that the account is encrypted with is not accessible."
    details = {"Reason": reason, "KeyIdentifier": key_identifier}
    return KeyNotAccessible(409, "KeyVaultKeyNotAccessible", summary, details)


def internal() -> Refusal:
    return Refusal(500, "InternalError", "Server encountered an internal error.", {})


def shared_key_disabled() -> Refusal:
    reason = "SharedKey is not among the allowed authentication modes of the account."
    summary = "The operation is not allowed for the account's authentication modes."
    return Refusal(409, "SharedKeyNotAllowed", summary, {"Reason": reason})


def no_auto_storage() -> Refusal:
    reason = "The account has no auto-storage account."
    return Refusal(409, "AutoStorageNotConfigured", "The operation needs an auto-storage account.", {"Reason": reason})


def pool_not_found(name: str) -> Refusal:
    return Refusal(404, "PoolNotFound", "The specified pool does not exist.", {"Reason": f"There is no pool '{name}'."})


def pool_being_deleted(name: str) -> Refusal:
    reason = f"The pool '{name}' is being deleted."
    return Refusal(409, "PoolBeingDeleted", "The specified pool is being deleted.", {"Reason": reason})


def operation_not_found(name: str) -> Refusal:
    summary = "The specified operation does not exist."
    return Refusal(404, "OperationNotFound", summary, {"Reason": f"There is no operation '{name}'."})


# Errors of the gateway, before the request reaches the service. They have no RequestId, target or details.


def location_differs(name: str, group: str, present: str, wanted: str) -> AzureError:
    error = other_location(name, present, group, wanted)
    error.headers[FAILURE_CAUSE] = "gateway"
    return error


def invalid_skip_token(token: str) -> AzureError:
    return gateway_error(400, "InvalidSkipToken", f"The skip token '{token}' is not valid.")


def missing_identity_ids() -> AzureError:
    message = "The identity ids must not be null or empty for 'UserAssigned' identity type."
    return gateway_error(400, "MissingIdentityIds", message)


def identity_ids_unexpected(kind: str) -> AzureError:
    message = f"The identity ids must be null or empty for '{kind}' identity type."
    return gateway_error(400, "InvalidIdentityIds", message)


def linked_id_invalid(value: str, path: str) -> AzureError:
    return gateway_error(400, "LinkedInvalidPropertyId", _LINKED_ID.format(value=value, path=path))


def linked_authorization_failed(app_id: str, object_id: str, scope: str, linked: str) -> AzureError:
    message = (
        f"The client '{app_id}' with object id '{object_id}' has permission to perform action"
        f" 'Microsoft.Batch/batchAccounts/write' on scope '{scope}'; however, it does not have permission to perform"
        f" action(s) 'Microsoft.ManagedIdentity/userAssignedIdentities/assign/action' on the linked scope(s)"
        f" '{linked}' (respectively) or the linked scope(s) are invalid."
    )
    return gateway_error(403, "LinkedAuthorizationFailed", message)


def identity_not_found(account_id: str, identity_id: str) -> AzureError:
    inner = f'{{"error":{{"code":"BadRequest","message":"Resource \'{identity_id}\' was not found."}}}}'
    message = (
        f"Identity operation for resource '{account_id}' failed with error 'Failed to perform resource identity"
        f" operation. Status: 'BadRequest'. Response: '{inner}'.'."
    )
    return gateway_error(400, "FailedIdentityOperation", message)
