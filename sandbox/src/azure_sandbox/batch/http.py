# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts over HTTP."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import uuid
from collections.abc import Callable
from typing import Protocol

from starlette.responses import Response

from ..shared import clouds, paging, web
from ..shared.web import Route, answer
from . import account_settings, documents, errors, pools, world
from .account import Account
from .account_settings import AccountSettings
from .errors import Refusal
from .rules import DOMAINS, BatchAccounts, Work

READ = "Microsoft.Batch/batchAccounts/read"


class World(world.World, Protocol):
    batch: BatchAccounts


Call = web.Call[World]
Handler = Callable[[Call], Response]
_BELOW_GROUP = "/providers/Microsoft.Batch/batchAccounts"

# How many seconds the time in the response to a write is later than the stored time.
_ANSWER_DELAY = 0.03


def by_the_service(handler: Handler) -> Handler:
    """Decorate a handler: like all errors of the service, its errors contain a request id and the time."""

    @functools.wraps(handler)
    def handled(call: Call) -> Response:
        try:
            return handler(call)
        except Refusal as refusal:
            raise refusal.answer(str(uuid.uuid4()), call.world.clock.iso()) from refusal

    return handled


def _find(call: Call) -> Account | None:
    return call.world.batch.find(call.path["subscription"], call.path["group"], call.path["account"])


def _get(call: Call) -> Account:
    return call.world.batch.get(call.path["subscription"], call.path["group"], call.path["account"])


def _usable(call: Call) -> Account:
    account = _get(call)
    call.world.batch.use(account)
    return account


def _with_pools(call: Call) -> Account:
    """The account, whose pools can be changed and read one by one. The list of pools has its own rule."""
    account = _get(call)
    if not account.is_failed or call.world.behavior.failed_account_pools == "none":
        call.world.batch.use(account)
    return account


def _account(call: Call, account: Account, moment: float) -> Response:
    document = documents.account_document(account, call.world.batch.state(account), call.api_version)
    return answer(document, headers={"etag": documents.etag(moment), "last-modified": documents.http_date(moment)})


def _written(call: Call, account: Account) -> Response:
    """The response to a write. It has the time of the response; a later GET returns the stored time, a little
    earlier."""
    return _account(call, account, max(call.world.clock.time(), account.modified) + _ANSWER_DELAY)


# Accounts


@by_the_service
def put(call: Call) -> Response:
    settings = account_settings.of_put(call.json)
    _check_linked(call, settings)
    account = _find(call)
    # If the creation of the account failed, a PUT creates the account again.
    if account is not None and call.world.batch.state(account) != "Failed":
        call.world.batch.replace(account, settings)
        return _written(call, account)
    subscription, group, name = call.path["subscription"], call.path["group"], call.path["account"]
    resource_group = call.world.resources.group(subscription, group)
    assert resource_group is not None
    domain = DOMAINS.get(call.host, clouds.BATCH_DOMAIN)
    operation = call.world.batch.create(resource_group.subscription, resource_group.name, name, settings, domain)
    return _accepted(call, operation, f"{resource_group.id}{_BELOW_GROUP}/{name}/operationResults/{operation.id}")


@by_the_service
def get(call: Call) -> Response:
    account = call.world.batch.shown(call.path["subscription"], call.path["group"], call.path["account"])
    return _account(call, account, account.modified)


@by_the_service
def patch(call: Call) -> Response:
    account = _get(call)
    settings = account_settings.of_patch(call.json)
    _check_linked(call, settings)
    call.world.batch.update(account, settings)
    return _written(call, account)


@by_the_service
def delete(call: Call) -> Response:
    account = _find(call)
    if account is None:
        return answer(status=204)
    operation = call.world.batch.delete(account)
    where = f"/subscriptions/{account.subscription}/providers/Microsoft.Batch/locations/{account.location}"
    return _accepted(call, operation, f"{where}/accountOperationResults/{account.name}-{operation.id}")


@by_the_service
def list_all_accounts(call: Call) -> Response:
    """List the accounts of a subscription."""
    assert call.caller is not None
    is_listed = call.world.authorization.listed(call.caller, READ, call.path["subscription"])
    return _list(call, lambda account: is_listed(account.id))


@by_the_service
def list_accounts(call: Call) -> Response:
    return _list(call)


def _list(call: Call, is_shown: Callable[[Account], bool] = lambda _account: True) -> Response:
    subscription, group = call.path["subscription"], call.path.get("group")
    accounts, more = call.world.batch.page(subscription, group, _last_key(call))
    state = call.world.batch.state
    shown = filter(is_shown, accounts)
    value = [documents.account_document(account, state(account), call.api_version) for account in shown]
    if more is None:
        return answer({"value": value})
    link = paging.next_link(call, "/".join(more), [("api-version", call.api_version)])
    return answer({"value": value, "nextLink": link})


def _last_key(call: Call) -> tuple[str, str, str] | None:
    mark = paging.last_mark(call, errors.invalid_skip_token)
    if mark is None:
        return None
    try:
        subscription, group, name = mark.split("/")
    except ValueError as error:
        raise errors.invalid_skip_token(call.query("$skiptoken")) from error
    return subscription, group, name


def _check_linked(call: Call, settings: AccountSettings) -> None:
    """Check that the caller may assign the identities that the request adds."""
    caller = call.caller
    if settings.identity is None or caller is None:
        return
    action = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"
    for identity_id, wanted in settings.identity.ids.items():
        if wanted and not call.world.authorization.allows(caller, action, identity_id):
            scope = call.url_path
            raise errors.linked_authorization_failed(caller.app_id, caller.object_id, scope, identity_id)


# Long-running operations


def _accepted(call: Call, operation: Work, path: str) -> Response:
    """A response with the Location of the next poll. Each Location has a new signature; earlier ones stay valid."""
    now = call.world.clock.time()
    certificate = _base64url(hashlib.sha512(b"asyncoperationsigningcertificate").digest() * 8)
    signed = f"t={documents.ticks(now)}&c={certificate}&s={_base64url(os.urandom(256))}&h={_base64url(os.urandom(32))}"
    headers = {
        "location": f"https://{call.host}{path}?api-version={call.api_version}&{signed}",
        "retry-after": str(call.world.timing.retry_after),
    }
    # The id of the operation is the id of the request that started it.
    if call.request.method != "GET":
        headers["x-ms-request-id"] = operation.id
    return answer(status=202, headers=headers)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@by_the_service
def create_result(call: Call) -> Response:
    operation = call.world.batch.operation(call.path["operation"])
    if not call.world.batch.poll(operation):
        return _accepted(call, operation, call.url_path)
    return _written(call, _get(call))


@by_the_service
def delete_result(call: Call) -> Response:
    # {account}-{guid}: the account's name has no hyphen.
    operation = call.world.batch.operation(call.path["operation"].partition("-")[2])
    if not call.world.batch.poll(operation):
        return _accepted(call, operation, call.url_path)
    return answer(status=200)


@by_the_service
def delete_pool_result(call: Call) -> Response:
    operation = call.world.batch.operation(f"{_get(call).id}/poolOperationResults/{call.path['operation']}")
    if not call.world.batch.poll(operation):
        # In the recording, the Location of a poll has the name of the pool in lower case.
        path, _slash, name = call.url_path.rpartition("/")
        return _accepted(call, operation, f"{path}/{name.lower()}")
    return answer(status=200)


# Keys


@by_the_service
def list_keys(call: Call) -> Response:
    account = _usable(call)
    if not account.shared_key_allowed:
        raise errors.shared_key_disabled()
    return answer(documents.keys_document(account))


@by_the_service
def regenerate_keys(call: Call) -> Response:
    account = _usable(call)
    if not account.shared_key_allowed:
        raise errors.shared_key_disabled()
    which = call.json.get("keyName")
    if not which:
        raise errors.missing_property("keyName")
    call.world.batch.regenerate_key(account, str(which))
    return answer(documents.keys_document(account))


@by_the_service
def sync_auto_storage_keys(call: Call) -> Response:
    call.world.batch.sync_auto_storage_keys(_usable(call))
    return answer(status=204)


@by_the_service
def list_outbound_dependencies(call: Call) -> Response:
    return answer(documents.outbound_dependencies(_usable(call)))


# Locations


@by_the_service
def check_name(call: Call) -> Response:
    problem = call.world.batch.name_problem(call.path["location"], str(call.json.get("name") or ""))
    if problem is None:
        return answer({"nameAvailable": True})
    reason, message = problem
    return answer({"nameAvailable": False, "reason": reason, "message": message})


def quotas(call: Call) -> Response:
    return answer({"accountQuota": call.world.batch.quota})


# Pools


@by_the_service
def list_pools(call: Call) -> Response:
    account = _get(call)
    _require_pools(call, account)
    found = call.world.batch.pools.all(account)
    return answer({"value": [documents.pool_document(account, pool) for pool in found]})


def _require_pools(call: Call, account: Account) -> None:
    status = call.world.behavior.pools_without_key
    try:
        call.world.batch.use(account)
    except errors.KeyNotAccessible as refusal:
        if status == "500":
            raise errors.internal() from refusal
        if status != "200":
            refusal.status = int(status)
            raise


@by_the_service
def get_pool(call: Call) -> Response:
    account = _with_pools(call)
    return _pool(call, account, call.path["name"])


@by_the_service
def put_pool(call: Call) -> Response:
    account = _with_pools(call)
    pool = call.world.batch.pools.put(account, call.path["name"], call.json)
    return _pool(call, account, pool.name)


def _pool(call: Call, account: Account, name: str) -> Response:
    pool = call.world.batch.pools.get(account, name)
    headers = {"etag": documents.pool_etag(pool), "last-modified": documents.http_date(pool.modified)}
    return answer(documents.pool_document(account, pool), headers=headers)


@by_the_service
def delete_pool(call: Call) -> Response:
    account = _with_pools(call)
    name = call.path["name"]
    operation = call.world.batch.pools.delete(account, name)
    if operation is None:
        return answer(status=204)
    return _accepted(call, operation, pools.deletion(account, name))


PROVIDER = "Microsoft.Batch"

API_VERSIONS = frozenset(
    {
        "2018-12-01",
        "2019-04-01",
        "2019-08-01",
        "2020-03-01",
        "2020-03-01-preview",
        "2020-05-01",
        "2020-09-01",
        "2021-01-01",
        "2021-06-01",
        "2022-01-01",
        "2022-06-01",
        "2022-10-01",
        "2023-05-01",
        "2023-11-01",
        "2024-02-01",
        "2024-07-01",
        "2025-06-01",
        "2026-08-01",
    }
)

_SUBSCRIPTION = "/subscriptions/{subscription}/providers/Microsoft.Batch"
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Batch"
_LOCATION = _SUBSCRIPTION + "/locations/{location}"
_ACCOUNT = _GROUP + "/batchAccounts/{account}"
_POOL = _ACCOUNT + "/pools/{name}"

_WRITE = "Microsoft.Batch/batchAccounts/write"
_DELETE = "Microsoft.Batch/batchAccounts/delete"
_READ_POOLS = "Microsoft.Batch/batchAccounts/pools/read"

ROUTES: tuple[Route, ...] = (
    # Authorization.listed decides who may list the accounts of a subscription.
    Route("GET", _SUBSCRIPTION + "/batchAccounts", list_all_accounts),
    Route("GET", _GROUP + "/batchAccounts", list_accounts, READ),
    Route("PUT", _ACCOUNT, put, _WRITE),
    Route("GET", _ACCOUNT, get, READ),
    Route("PATCH", _ACCOUNT, patch, _WRITE),
    Route("DELETE", _ACCOUNT, delete, _DELETE),
    Route(
        "GET",
        _ACCOUNT + "/operationResults/{operation}",
        create_result,
        "Microsoft.Batch/batchAccounts/operationResults/read",
    ),
    Route(
        "GET",
        _LOCATION + "/accountOperationResults/{operation}",
        delete_result,
        "Microsoft.Batch/locations/accountOperationResults/read",
    ),
    Route("POST", _ACCOUNT + "/listKeys", list_keys, "Microsoft.Batch/batchAccounts/listkeys/action"),
    Route(
        "POST",
        _ACCOUNT + "/regenerateKeys",
        regenerate_keys,
        "Microsoft.Batch/batchAccounts/regeneratekeys/action",
    ),
    Route(
        "POST",
        _ACCOUNT + "/syncAutoStorageKeys",
        sync_auto_storage_keys,
        "Microsoft.Batch/batchAccounts/syncAutoStorageKeys/action",
    ),
    Route(
        "GET",
        _ACCOUNT + "/outboundNetworkDependenciesEndpoints",
        list_outbound_dependencies,
        "Microsoft.Batch/batchAccounts/outboundNetworkDependenciesEndpoints/read",
    ),
    Route(
        "POST",
        _LOCATION + "/checkNameAvailability",
        check_name,
        "Microsoft.Batch/locations/checkNameAvailability/action",
    ),
    Route("GET", _LOCATION + "/quotas", quotas, "Microsoft.Batch/locations/quotas/read"),
    Route("GET", _ACCOUNT + "/pools", list_pools, _READ_POOLS),
    Route("GET", _POOL, get_pool, _READ_POOLS),
    Route("PUT", _POOL, put_pool, "Microsoft.Batch/batchAccounts/pools/write"),
    Route("DELETE", _POOL, delete_pool, "Microsoft.Batch/batchAccounts/pools/delete"),
    Route(
        "GET",
        _ACCOUNT + "/poolOperationResults/{operation}",
        delete_pool_result,
        "Microsoft.Batch/batchAccounts/poolOperationResults/read",
    ),
)
