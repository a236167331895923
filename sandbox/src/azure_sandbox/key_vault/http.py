# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Vaults over HTTP, on the management plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from starlette.responses import Response

from ..shared import clouds, web
from ..shared.errors import resource_not_found
from ..shared.paging import page
from ..shared.web import Route, answer
from . import documents, errors, request, rules
from .rules import Order, Vaults
from .vault import Vault

_HEADERS = {"x-aspnet-version": "4.0.30319", "x-ms-keyvault-service-version": "1.5.1243.0"}
# The longest Retry-After of Azure between two polls of a purge, in seconds.
_PURGE_RETRY_SECONDS = 5


class World(rules.World, Protocol):
    vaults: Vaults


Call = web.Call[World]


def _by(call: Call) -> str:
    assert call.caller is not None
    return call.caller.app_id


def _vault(call: Call) -> Vault:
    path = call.path
    return _required(call, call.world.vaults.find(path["subscription"], path["group"], path["vault"]))


def _required(call: Call, vault: Vault | None) -> Vault:
    if vault is None:
        raise resource_not_found("Microsoft.KeyVault/vaults", call.path["vault"], call.path["group"])
    return vault


def _show(call: Call, vault: Vault, *, just_created: bool = False) -> Response:
    registering = call.world.vaults.is_registering(vault)
    return answer(documents.vault(vault, registering=registering, just_created=just_created), headers=_HEADERS)


def _show_all(call: Call, vaults: list[Vault]) -> Response:
    def document(vault: Vault) -> dict[str, Any]:
        return documents.vault(vault, registering=call.world.vaults.is_registering(vault))

    return answer(page(call, vaults, document, ends_empty=True), headers=_HEADERS)


def _check_change(call: Call, vault: Vault | None) -> None:
    """Check that the caller may change the permission model of an existing vault."""
    assert call.caller is not None
    if vault is not None:
        sent = request.mapping(call.json.get("properties"), "properties")
        call.world.vaults.check_change(call.caller, vault, sent)


def put(call: Call) -> Response:
    path = call.path
    _check_change(call, call.world.vaults.find(path["subscription"], path["group"], path["vault"]))
    cloud = clouds.by_management_host(call.host) or clouds.PUBLIC
    order = Order(
        path["subscription"],
        path["group"],
        path["vault"],
        call.json,
        call.api_version,
        cloud.vault_suffix,
        _by(call),
    )
    vault, new = call.world.vaults.put(order)
    return _show(call, vault, just_created=new)


def get(call: Call) -> Response:
    path = call.path
    return _show(call, _required(call, call.world.vaults.shown(path["subscription"], path["group"], path["vault"])))


def patch(call: Call) -> Response:
    vault = _vault(call)
    _check_change(call, vault)
    call.world.vaults.patch(vault, call.json, _by(call))
    return _show(call, vault)


def delete(call: Call) -> Response:
    path = call.path
    vault = call.world.vaults.find(path["subscription"], path["group"], path["vault"])
    if vault is None:
        return answer(status=204, headers=_HEADERS)
    call.world.vaults.delete(vault)
    return answer(headers=_HEADERS)


def list_in_group(call: Call) -> Response:
    return _show_all(call, call.world.vaults.listed(call.path["subscription"], call.path["group"]))


def list_in_subscription(call: Call) -> Response:
    is_listed = _is_listed(call, _READ)
    vaults = call.world.vaults.listed(call.path["subscription"])
    return _show_all(call, [vault for vault in vaults if is_listed(vault.id)])


def _is_listed(call: Call, action: str) -> Callable[[str], bool]:
    assert call.caller is not None
    return call.world.authorization.listed(call.caller, action, call.path["subscription"])


def put_access_policies(call: Call) -> Response:
    vault, operation = _vault(call), call.path["operation"].lower()
    if operation not in ("add", "replace", "remove"):
        raise errors.invalid_value("operationKind")
    sent = request.mapping(call.json.get("properties"), "properties").get("accessPolicies")
    if sent is None:
        raise errors.parameter_missing("accessPolicies")
    named = request.access_policies(sent)
    call.world.vaults.change_policies(vault, operation, named, _by(call))
    holders = {policy.holder for policy in named}
    shown = [policy for policy in vault.access_policies if policy.holder in holders]
    document = {
        "id": f"{vault.id}/accessPolicies/",
        "type": "Microsoft.KeyVault/vaults/accessPolicies",
        "properties": {"accessPolicies": documents.policies(shown)},
    }
    return answer(document, headers=_HEADERS)


def _deleted(call: Call) -> Vault:
    return call.world.vaults.deleted_vault(call.path["subscription"], call.path["location"], call.path["vault"])


def get_deleted(call: Call) -> Response:
    vault = _deleted(call)
    return answer(documents.deleted_vault(vault, call.world.vaults.purge_date(vault)), headers=_HEADERS)


def list_deleted(call: Call) -> Response:
    vaults, is_listed = call.world.vaults, _is_listed(call, _READ_DELETED)
    value = [
        documents.deleted_vault(vault, vaults.purge_date(vault))
        for vault in vaults.deleted(call.path["subscription"])
        if is_listed(vault.id)
    ]
    return answer({"value": value}, headers=_HEADERS)


def purge(call: Call) -> Response:
    vault = _deleted(call)
    operation = call.world.vaults.purge(vault)
    place = f"/subscriptions/{vault.subscription}/providers/Microsoft.KeyVault/locations/{vault.location}"
    location = f"https://{call.host}{place}/operationResults/{operation.id}?api-version={call.api_version}"
    return answer(status=202, headers={**_HEADERS, **_come_again(call), "location": location})


def get_operation(call: Call) -> Response:
    purge = call.world.vaults.purge_operation(call.path["name"])
    now = call.world.clock.time()
    document = documents.operation(purge.started_at, purge.done_at, now)
    if now < purge.done_at:
        location = f"https://{call.host}{call.url_path}?api-version={call.api_version}"
        again = {**_come_again(call), "location": location}
        return answer(document, 202, {**_HEADERS, **again})
    return answer(document, headers=_HEADERS)


def _come_again(call: Call) -> dict[str, str]:
    return {"retry-after": str(min(call.world.timing.retry_after, _PURGE_RETRY_SECONDS))}


def check_name(call: Call) -> Response:
    name = call.json.get("name")
    if not isinstance(name, str) or not name:
        raise errors.parameter_missing("name")
    problem = call.world.vaults.why_not_available(name)
    if problem is None:
        return answer({"nameAvailable": True}, headers=_HEADERS)
    reason, message = problem
    return answer({"nameAvailable": False, "reason": reason, "message": message}, headers=_HEADERS)


def list_no_hsms(call: Call) -> Response:
    """An empty list. The sandbox has no managed HSMs, but clients that list vaults also list managed HSMs."""
    return answer({"value": []}, headers=_HEADERS)


PROVIDER = "Microsoft.KeyVault"

API_VERSIONS = frozenset(
    {
        "2021-10-01",
        "2021-11-01-preview",
        "2022-02-01-preview",
        "2022-07-01",
        "2022-11-01",
        "2023-02-01",
        "2023-07-01",
        "2024-04-01-preview",
        "2024-11-01",
        "2024-12-01-preview",
        "2025-05-01",
        "2026-02-01",
        "2026-05-15",
    }
)

_SUBSCRIPTION = "/subscriptions/{subscription}/providers/Microsoft.KeyVault"
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.KeyVault"
_VAULTS = _GROUP + "/vaults"
_VAULT = _VAULTS + "/{vault}"
_LOCATION = _SUBSCRIPTION + "/locations/{location}"
_DELETED = _LOCATION + "/deletedVaults/{vault}"

_WRITE = "Microsoft.KeyVault/vaults/write"
_READ = "Microsoft.KeyVault/vaults/read"
_READ_HSMS = "Microsoft.KeyVault/managedHSMs/read"

_READ_DELETED = "Microsoft.KeyVault/deletedVaults/read"

ROUTES: tuple[Route, ...] = (
    Route("PUT", _VAULT, put, _WRITE),
    Route("GET", _VAULT, get, _READ),
    Route("PATCH", _VAULT, patch, _WRITE),
    Route("DELETE", _VAULT, delete, "Microsoft.KeyVault/vaults/delete"),
    Route("GET", _VAULTS, list_in_group, _READ),
    # Authorization.listed decides who may list the vaults of a subscription.
    Route("GET", _SUBSCRIPTION + "/vaults", list_in_subscription),
    Route(
        "PUT",
        _VAULT + "/accessPolicies/{operation}",
        put_access_policies,
        "Microsoft.KeyVault/vaults/accessPolicies/write",
    ),
    Route("GET", _SUBSCRIPTION + "/deletedVaults", list_deleted),
    Route("GET", _DELETED, get_deleted, "Microsoft.KeyVault/locations/deletedVaults/read"),
    Route("POST", _DELETED + "/purge", purge, "Microsoft.KeyVault/locations/deletedVaults/purge/action"),
    Route(
        "GET",
        _LOCATION + "/operationResults/{name}",
        get_operation,
        "Microsoft.KeyVault/locations/operationResults/read",
    ),
    Route(
        "POST",
        _SUBSCRIPTION + "/checkNameAvailability",
        check_name,
        "Microsoft.KeyVault/checkNameAvailability/read",
    ),
    Route("GET", _SUBSCRIPTION + "/managedHSMs", list_no_hsms, _READ_HSMS),
    Route("GET", _GROUP + "/managedHSMs", list_no_hsms, _READ_HSMS),
    Route(
        "GET",
        _SUBSCRIPTION + "/deletedManagedHSMs",
        list_no_hsms,
        "Microsoft.KeyVault/deletedManagedHsms/read",
    ),
)
