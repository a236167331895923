# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of Key Vault's data plane."""

from __future__ import annotations

from ..shared.web import AzureError


def _error(status: int, code: str, message: str, inner: str = "") -> AzureError:
    error: dict[str, object] = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner}
    return AzureError(status, {"error": error})


# Tokens


def _unauthorized(message: str, authority: str, resource: str) -> AzureError:
    error = _error(401, "Unauthorized", message)
    error.headers["WWW-Authenticate"] = f'Bearer authorization="{authority}", resource="{resource}"'
    return error


def token_problem(kind: str, detail: str, authority: str, resource: str, issuer: str) -> AzureError:
    messages = {
        "missing": "AKV10000: Request is missing a Bearer, PoP, or MTLS_POP token.",
        "audience": f"AKV10022: Invalid audience. Expected {resource}, found: {detail}.",
        "issuer": f"AKV10032: Invalid issuer. Expected one of {issuer}, found {detail}.",
        "signature": "AKV10046: Unable to resolve the key used for signature validation."
        f" EncodedJwtHeader: '{detail}'.",
        "expired": "AKV10029: The token has expired.",
        "malformed": "AKV10014: Error validating token: the token is not well formed.",
    }
    return _unauthorized(messages[kind], authority, resource)


# Requests


def throttled() -> AzureError:
    """429 without a Retry-After, as recorded. Clients choose their delays themselves."""
    return _error(
        429,
        "Throttled",
        "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached",
    )


def bad_parameter(message: str, inner: str = "") -> AzureError:
    return _error(400, "BadParameter", message, inner)


def bad_body() -> AzureError:
    return bad_parameter("Request body is not valid JSON.")


def missing_api_version() -> AzureError:
    return bad_parameter("api-version must be specified")


def unknown_api_version(version: str) -> AzureError:
    return bad_parameter(
        f"The specified version ({version}) is not recognized. Consider using the latest supported version "
        "(2025-07-01)."
    )


def invalid_name(name: str) -> AzureError:
    return bad_parameter(f"The request URI contains an invalid name: {name}")


def operation_not_specified() -> AzureError:
    return bad_parameter("Operation not specified")


def invalid_policy(what: str) -> AzureError:
    return bad_parameter(f"Invalid key rotation policy. {what}")


def not_in_sandbox(method: str, path: str) -> AzureError:
    return _error(404, "NotInSandbox", f"{method} {path} is not an operation of the sandbox's Key Vault.")


def wrong_method(method: str) -> AzureError:
    return _error(405, "MethodNotAllowed", f"The request method {method} is not supported on this resource.")


def vault_not_found(host: str) -> AzureError:
    return _error(404, "VaultNotFound", f"There is no vault at {host}: with Azure itself, this name would not resolve.")


# Keys

_HELP = (
    "If you recently deleted this key you may be able to recover it using the correct recovery command. For help"
    " resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182"
)


def key_not_found(name: str) -> AzureError:
    return _error(404, "KeyNotFound", f"A key with (name/id) {name} was not found in this key vault. {_HELP}")


def deleted_key_not_found(name: str) -> AzureError:
    return _error(404, "KeyNotFound", f"Deleted Key not found: {name}")


def name_is_deleted(name: str) -> AzureError:
    return _error(
        409,
        "Conflict",
        f"Key {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the"
        " key can only be recovered or purged.",
        "ObjectIsDeletedButRecoverable",
    )


def name_is_being_deleted(name: str) -> AzureError:
    return _error(
        409,
        "Conflict",
        f"Key {name} is currently being deleted and cannot be re-created; retry later.",
        "ObjectIsBeingDeleted",
    )


def name_is_being_recovered(name: str) -> AzureError:
    return _error(
        409,
        "Conflict",
        f"Key {name} is currently being recovered and cannot be re-created; retry later.",
        "ObjectIsBeingRecovered",
    )


def restore_conflict(kid: str) -> AzureError:
    return _error(
        409,
        "Conflict",
        f"There was a conflict restoring the key '{kid}'. This can happen if either: a second key with the same name"
        " was created after the first key was deleted; thus trying to restore a key whose name is already in use. To"
        " fix this, rename the second key to something else so that the restore works. The second probable cause of"
        " this exception is when multiple operations are performed in parallel against the key. To avoid this error,"
        " perform operations against a key in a sequential manner.",
    )


def key_is_being_deleted() -> AzureError:
    return _error(409, "Conflict", "Key is currently being deleted.", "ObjectIsBeingDeleted")


def purge_protected(vault: str, location: str) -> AzureError:
    return _error(
        403,
        "Forbidden",
        'Operation "purge" is not allowed because purge protection is enabled for this vault. Key Vault service will'
        f" automatically purge it after the retention period has passed.\r\nVault: {vault};location={location}",
    )


def kty_not_supported(kty: str) -> AzureError:
    return bad_parameter(f"Invalid kty value: {kty}", "KeyTypeNotSupported")


def size_not_supported(size: object) -> AzureError:
    return bad_parameter(f"Unsupported key size: {size}")


def hardware_key_on_standard_vault() -> AzureError:
    return bad_parameter("Hardware key operation not allowed on standard vault")


# Operations with keys


def operation_on_disabled_key(operation: str) -> AzureError:
    return _error(403, "Forbidden", f"Operation {operation} is not allowed on a disabled key.", "KeyDisabled")


def operation_on_expired_key(operation: str) -> AzureError:
    return _error(403, "Forbidden", f"Operation {operation} is not allowed on an expired key.", "KeyExpired")


def operation_on_early_key(operation: str) -> AzureError:
    return _error(
        403, "Forbidden", f"Operation {operation} is not allowed on a key that is not yet valid.", "KeyNotYetValid"
    )


def operation_not_permitted(operation: str) -> AzureError:
    return _error(403, "Forbidden", f"Operation {operation} is not permitted on this key.", "KeyOperationForbidden")


def algorithm_does_not_fit(algorithm: object, kty: str) -> AzureError:
    return bad_parameter(f"The algorithm {algorithm} cannot be used with a key of type {kty} for this operation.")
