# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of Microsoft.KeyVault on the management plane."""

from __future__ import annotations

from ..shared.web import AzureError

NAME_TAKEN = (
    "The vault name '{name}' is already in use. Vault names are globally unique so it is possible that the name is"
    " already taken. If you are sure that the vault name was not taken then it is possible that a vault with the same"
    " name was recently deleted but not purged after being placed in a recoverable state. If the vault is in a"
    " recoverable state then the vault will need to be purged before reusing the name. For more information about"
    " VaultAlreadyExists, soft delete and purging a vault follow this link https://go.microsoft.com/fwlink/?linkid=2147740."
)
NAME_NOT_VALID = (
    "The vault name '{name}' is invalid. A vault's name must be between 3-24 alphanumeric characters. The name must"
    " begin with a letter, end with a letter or digit, and not contain consecutive hyphens. Follow this link for more"
    " information: https://go.microsoft.com/fwlink/?linkid=2147742"
)


def _error(status: int, code: str, message: str) -> AzureError:
    return AzureError(status, {"error": {"code": code, "message": message}})


def bad_request(message: str) -> AzureError:
    return _error(400, "BadRequest", message)


def parameter_missing(name: str) -> AzureError:
    return bad_request(f"The parameter {name} is not specified.")


def invalid_value(name: str) -> AzureError:
    return bad_request(f"An invalid value was provided for '{name}'.")


def purge_protection_is_for_good() -> AzureError:
    return bad_request(
        'The property "enablePurgeProtection" cannot be set to false. Enabling the purge protection for a vault is an'
        " irreversible action."
    )


def soft_delete_is_for_good() -> AzureError:
    return bad_request(
        'The property "enableSoftDelete" can be set to false only for creating new vault. Enabling the'
        " 'soft delete' functionality is an irreversible action."
    )


def retention_is_set() -> AzureError:
    return bad_request('The property "softDeleteRetentionInDays" has been set already and it can\'t be modified.')


def model_change_refused(object_id: str, vault_id: str) -> AzureError:
    resource = vault_id.replace("/resourceGroups/", "/resourcegroups/")
    return _error(
        400,
        "InsufficientPermissions",
        "Caller is not allowed to change permission model. For more information on how to change the permissions model"
        f" follow this link: https://go.microsoft.com/fwlink/?linkid=2155160. Details: oid={object_id};"
        f" action=Microsoft.Authorization/roleAssignments/write; resource={resource}; decision=NotAllowed; ",
    )


def uses_azure_rbac(name: str) -> AzureError:
    return bad_request(f"The vault '{name}' uses Azure RBAC. Its access policies cannot be changed.")


def name_not_valid(name: str) -> AzureError:
    return _error(400, "VaultNameNotValid", NAME_NOT_VALID.format(name=name))


def vault_exists(name: str) -> AzureError:
    return _error(409, "VaultAlreadyExists", NAME_TAKEN.format(name=name))


def name_is_soft_deleted() -> AzureError:
    return _error(
        409,
        "ConflictError",
        "A vault with the same name already exists in deleted state. You need to either recover or purge existing key"
        " vault. Follow this link https://go.microsoft.com/fwlink/?linkid=2149745 for more information on soft delete.",
    )


def nothing_to_recover() -> AzureError:
    return _error(
        400,
        "SoftDeletedVaultDoesNotExist",
        "A soft deleted vault with the given name does not exist. Ensure that the name for the vault that is being"
        " attempted to recover is in a recoverable state.",
    )


def deleted_vault_not_found(name: str) -> AzureError:
    return _error(
        404,
        "DeletedVaultNotFound",
        f"The specified deleted vault '{name}' does not exist. Ensure that the vault was indeed deleted and that it is"
        " in recoverable state. If soft delete was not enabled then the vault is permanently deleted. Follow this link"
        " for more information: https://go.microsoft.com/fwlink/?linkid=2149745",
    )


def purge_not_allowed() -> AzureError:
    return _error(405, "MethodNotAllowed", "Operation 'DeletedVaultPurge' is not allowed.")


def operation_not_found(name: str) -> AzureError:
    return _error(404, "NotFound", f"The operation result '{name}' was not found.")
