# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""User-assigned identities over HTTP."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.responses import Response

from ..authorization.rules import Authorization
from ..shared import web
from ..shared.errors import location_required
from ..shared.resource import read_tags
from ..shared.web import BadJson, Route, answer
from . import rules
from .rules import TYPE, Identities, UserAssignedIdentity, identity_id, identity_not_found

# The last API version whose documents begin with the id. In later versions, they begin with the location.
_ID_FIRST = "2022-01-31-preview"


class World(rules.World, Protocol):
    authorization: Authorization
    identities: Identities


Call = web.Call[World]


def _id(call: Call) -> str:
    return identity_id(call.path["subscription"], call.path["group"], call.path["identity"])


def _get(call: Call) -> UserAssignedIdentity:
    identity = call.world.identities.get(_id(call))
    if identity is None:
        raise identity_not_found(call.path["identity"], call.path["group"])
    return identity


def _document(call: Call, identity: UserAssignedIdentity) -> dict[str, Any]:
    who = {"id": identity.id, "name": identity.name, "type": TYPE}
    place = {"location": identity.location, "tags": identity.tags}
    properties: dict[str, Any] = {
        "tenantId": identity.tenant_id,
        "principalId": identity.principal_id,
        "clientId": identity.client_id,
    }
    if identity.isolation_scope:
        properties["isolationScope"] = identity.isolation_scope
    ordered = {**who, **place} if call.api_version <= _ID_FIRST else {**place, **who}
    return {**ordered, "properties": properties}


def _object(call: Call, name: str) -> dict[str, Any]:
    value = call.json.get(name) or {}
    if not isinstance(value, dict):
        raise BadJson(f"{name} is not an object")
    return value


def put(call: Call) -> Response:
    location = call.json.get("location")
    if not isinstance(location, str) or not location:
        raise location_required()
    isolation_scope = _object(call, "properties").get("isolationScope")
    place = (call.path["subscription"], call.path["group"], call.path["identity"])
    identity, is_new = call.world.identities.put(*place, location, read_tags(call.json.get("tags")), isolation_scope)
    document = _document(call, identity)
    # The Location is a resource id, not a URL, and there is nothing to poll.
    return answer(document, 201, {"location": identity.id}) if is_new else answer(document)


def get(call: Call) -> Response:
    return answer(_document(call, _get(call)))


def patch(call: Call) -> Response:
    identity = _get(call)
    if call.json.get("tags") is not None:
        call.world.identities.tag(identity, read_tags(call.json["tags"]))
    return answer(_document(call, identity))


def delete(call: Call) -> Response:
    return answer(status=200 if call.world.identities.delete(_id(call)) else 204)


def list_in_subscription(call: Call) -> Response:
    assert call.caller is not None
    is_listed = call.world.authorization.listed(call.caller, _ACTION + "read", call.path["subscription"])
    identities = [one for one in call.world.identities.list(call.path["subscription"], None) if is_listed(one.id)]
    return answer({"value": [_document(call, identity) for identity in identities]})


def list_identities(call: Call) -> Response:
    identities = call.world.identities.list(call.path["subscription"], call.path.get("group"))
    return answer({"value": [_document(call, identity) for identity in identities]})


PROVIDER = "Microsoft.ManagedIdentity"

API_VERSIONS: frozenset[str] = frozenset(
    {
        "2018-11-30",
        "2021-09-30-preview",
        "2022-01-31-preview",
        "2023-01-31",
        "2023-07-31-preview",
        "2024-11-30",
        "2025-01-31-preview",
        "2025-05-31-preview",
        "2026-04-30",
        "2026-05-31",
    }
)

_LIST = "/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}" + _LIST
_IDENTITY = _GROUP + "/{identity}"
_ACTION = "Microsoft.ManagedIdentity/userAssignedIdentities/"

ROUTES: tuple[Route, ...] = (
    # Authorization.listed decides who may list the identities of a subscription.
    Route("GET", "/subscriptions/{subscription}" + _LIST, list_in_subscription),
    Route("GET", _GROUP, list_identities, _ACTION + "read"),
    Route("PUT", _IDENTITY, put, _ACTION + "write"),
    Route("GET", _IDENTITY, get, _ACTION + "read"),
    Route("PATCH", _IDENTITY, patch, _ACTION + "write"),
    Route("DELETE", _IDENTITY, delete, _ACTION + "delete"),
)
