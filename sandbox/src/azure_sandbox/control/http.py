# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control API over HTTP. Every body, in and out, is a JSON object."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from starlette.responses import Response

from .. import seed
from ..batch.account import AVAILABLE, Account
from ..batch.key_check import KeyCheck
from ..entra import assertions
from ..entra.rules import Principal
from ..faults import BadFault
from ..key_vault.grants import Grants
from ..resource_graph.query import COLUMNS
from ..resource_graph.rows import INVISIBLE
from ..sandbox import Sandbox
from ..shared.behavior import changed
from ..shared.timing import Timing
from ..shared.web import AzureError, Call, answer
from . import reading

SECRET_SECONDS = 3600 * 24
# The year 3000, so that all times can be formatted as dates.
END_OF_TIME = 32503680000


def describe(sandbox: Sandbox, call: Call[Any]) -> Response:
    return answer({"name": "azure-sandbox", "url": sandbox.url, "tenant": sandbox.world.directory.tenant_id})


def get_environment(sandbox: Sandbox, call: Call[Any]) -> Response:
    return answer(sandbox.environment)


def reset(sandbox: Sandbox, call: Call[Any]) -> Response:
    sandbox.reset()
    return answer({})


# Request log


def get_requests(sandbox: Sandbox, call: Call[Any]) -> Response:
    try:
        since = int(call.query("since") or 0)
    except ValueError as error:
        raise reading.bad_request("since must be the number of a request") from error
    writes = call.query("writes").lower() in ("true", "1", "yes")
    return answer(
        {
            "requests": [entry.document() for entry in sandbox.log.entries(since, writes)],
            "last": sandbox.log.last,
        }
    )


def delete_requests(sandbox: Sandbox, call: Call[Any]) -> Response:
    sandbox.log.clear()
    return answer({})


# Clock, timing and behavior


def get_clock(sandbox: Sandbox, call: Call[Any]) -> Response:
    clock = sandbox.world.clock
    return answer({"now": clock.iso(), "time": clock.time()})


def advance_clock(sandbox: Sandbox, call: Call[Any]) -> Response:
    clock = sandbox.world.clock
    seconds = reading.seconds(call.json, "seconds", -1)
    if seconds < 0:
        raise reading.bad_request("seconds must be a positive number or 0")
    if clock.time() + seconds > END_OF_TIME:
        raise reading.bad_request("the clock cannot pass the year 3000")
    sandbox.world.advance(seconds)
    return get_clock(sandbox, call)


def get_timing(sandbox: Sandbox, call: Call[Any]) -> Response:
    return answer(dataclasses.asdict(sandbox.world.timing))


def patch_timing(sandbox: Sandbox, call: Call[Any]) -> Response:
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Timing)}
    for name, value in call.json.items():
        if name not in kinds:
            raise reading.bad_request(f"unknown name {name}; valid names: {', '.join(kinds)}")
        is_flag = kinds[name] is bool
        if is_flag != isinstance(value, bool) or not (is_flag or (reading.is_seconds(value) and value >= 0)):
            raise reading.bad_request(f"{name} must be {'true or false' if is_flag else 'a number of seconds'}")
    sandbox.world.timing = dataclasses.replace(sandbox.world.timing, **call.json)
    return get_timing(sandbox, call)


def get_behavior(sandbox: Sandbox, call: Call[Any]) -> Response:
    return answer(dataclasses.asdict(sandbox.world.behavior))


def patch_behavior(sandbox: Sandbox, call: Call[Any]) -> Response:
    try:
        sandbox.world.behavior = changed(sandbox.world.behavior, call.json)
    except (TypeError, ValueError) as error:
        raise reading.bad_request(str(error)) from error
    return get_behavior(sandbox, call)


# Faults


def get_accounts(sandbox: Sandbox, call: Call[Any]) -> Response:
    """Whether each account is available now, and whether Batch can use the account's key. The check changes nothing."""
    key_check = KeyCheck(sandbox.world, Grants(sandbox.world))
    return answer({"accounts": [_account_document(account, key_check) for account in sandbox.world.batch.existing()]})


def _account_document(account: Account, key_check: KeyCheck) -> dict[str, Any]:
    found = key_check.health(account)
    unusable = key_check.unusable(account) if account.protection else ""
    return {
        "id": account.id,
        "available": found.kind == AVAILABLE,
        "unavailable_reason": found.reason,
        "key_unusable_reason": unusable,
    }


def get_faults(sandbox: Sandbox, call: Call[Any]) -> Response:
    return answer({"faults": [fault.document() for fault in sandbox.faults]})


def post_fault(sandbox: Sandbox, call: Call[Any]) -> Response:
    try:
        return answer(sandbox.faults.add(call.json, sandbox.world.clock.time()).document(), 201)
    except BadFault as error:
        raise reading.bad_request(str(error)) from error


def delete_faults(sandbox: Sandbox, call: Call[Any]) -> Response:
    sandbox.faults.clear()
    return answer({})


# Subscriptions


def post_subscription(sandbox: Sandbox, call: Call[Any]) -> Response:
    holder = _principal(sandbox, call)
    group = seed.add_subscription(sandbox.world, reading.needed(call.json, "name"), holder.object_id)
    described = {"subscription_id": group.subscription, "resource_group": group.name, "location": group.location}
    return answer({**described, "tenant_id": holder.tenant_id}, 201)


# Resources of services that the sandbox does not have

_RESOURCE_MEMBERS = frozenset(COLUMNS) - {"name", "type", "tenantId", "subscriptionId", "resourceGroup"}
_RESOURCE_ID = re.compile(
    r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/([^/]+)((?:/[^/]+/[^/]+)+)", re.IGNORECASE
)


def get_other_resources(sandbox: Sandbox, call: Call[Any]) -> Response:
    return answer({"resources": sandbox.world.resource_graph.added()})


def post_other_resource(sandbox: Sandbox, call: Call[Any]) -> Response:
    document = call.json
    if unknown := sorted(set(document) - _RESOURCE_MEMBERS):
        raise reading.bad_request(f"unknown name {unknown[0]}; valid names: {', '.join(sorted(_RESOURCE_MEMBERS))}")
    for name in ("location", "kind", "managedBy"):
        reading.text(document, name)
    for name in ("properties", "tags"):
        if not isinstance(document.get(name) or {}, dict):
            raise reading.bad_request(f"{name} must be an object")
    found = _RESOURCE_ID.fullmatch(reading.needed(document, "id"))
    if found is None:
        raise reading.bad_request("id must be the id of a resource in a resource group")
    subscription, group, namespace, parts = found.groups()
    if sandbox.world.resources.group(subscription, group) is None:
        raise reading.bad_request(f"there is no resource group {group} in the subscription {subscription}")
    kind = "/".join([namespace, *parts.split("/")[1::2]])
    if kind.lower() in INVISIBLE:
        raise reading.bad_request(f"Resource Graph has no rows of the type {kind}")
    added = {**document, "name": parts.rpartition("/")[2], "type": kind}
    sandbox.world.resource_graph.add(added)
    return answer(added, 201)


def delete_other_resource(sandbox: Sandbox, call: Call[Any]) -> Response:
    resource_id = call.query("id")
    if not sandbox.world.resource_graph.remove(resource_id):
        raise reading.not_found(f"the resource {resource_id} was not added")
    return answer({})


# Principals


def _principal(sandbox: Sandbox, call: Call[Any]) -> Principal:
    """The principal that the request names, or else the operator. Raises AzureError."""
    object_id = str(call.json.get("object_id") or sandbox.world.operator.object_id)
    principal = sandbox.world.directory.principal(object_id)
    if principal is None:
        raise reading.not_found(f"the principal {object_id} does not exist")
    return principal


def _principal_document(principal: Principal) -> dict[str, Any]:
    return {
        "object_id": principal.object_id,
        "client_id": principal.app_id,
        "tenant_id": principal.tenant_id,
        "name": principal.display_name,
        "kind": principal.kind,
        "resource_id": principal.resource_id,
    }


def get_principals(sandbox: Sandbox, call: Call[Any]) -> Response:
    return answer({"principals": [_principal_document(p) for p in sandbox.world.directory.principals()]})


def post_principal(sandbox: Sandbox, call: Call[Any]) -> Response:
    directory, body = sandbox.world.directory, call.json
    principal = directory.add_principal(directory.tenant_id, reading.needed(body, "name"))
    try:
        lifetime = reading.seconds(body, "secret_lifetime", SECRET_SECONDS)
        extras = _register(sandbox, principal, body)
    except (AzureError, UnsupportedAlgorithm, ValueError) as error:
        directory.remove_principal(principal.object_id)
        raise reading.bad_request(f"{type(error).__name__}: {error}") from error
    secret = directory.add_secret(principal, lifetime)
    sandbox.world.batch.reassess(None)
    return answer({**_principal_document(principal), "secret": secret, **extras}, 201)


def _register(sandbox: Sandbox, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Assign the roles in the request, and add a certificate. Returns the thumbprint of the certificate. Raises
    AzureError, UnsupportedAlgorithm and ValueError."""
    extras: dict[str, Any] = {}
    directory = sandbox.world.directory
    authorization = sandbox.world.authorization
    grants = [(reading.needed(one, "scope"), reading.needed(one, "role")) for one in reading.objects(body, "roles")]
    for _scope, role in grants:
        if not (authorization.role(role) or authorization.role_named(role)):
            raise reading.bad_request(f"the role {role} does not exist")
    if body.get("token_lifetime") is not None:
        directory.credentials(principal).token_lifetime = int(reading.seconds(body, "token_lifetime", 0))
    if certificate := reading.text(body, "certificate"):
        extras["thumbprint"] = assertions.add_certificate(directory, principal, certificate.encode())
    # Roles are assigned last, because they would not be removed if a later step failed.
    for scope, role in grants:
        authorization.assign(scope, role, principal.object_id)
    return extras


def post_federated_token(sandbox: Sandbox, call: Call[Any]) -> Response:
    return answer({"token": assertions.federated_token(sandbox.world.directory, _principal(sandbox, call))})
