# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The SDKs: checks their versions, converts their responses and errors, and makes the transport of their clients.

The minimum versions are also in requirements.txt; a test compares the two.

This module util is private to the collection.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from threading import Lock
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from .._core.errors import CmkError, Code, Denied, MissingSdk, NotFound, Rejected, Unavailable
from .._core.rights import grant
from .._core.summary import scope_text
from . import denial

# Package -> its module, and its minimum version.
FLOORS = {
    "azure-core": ("azure.core", "1.31.0"),
    "azure-identity": ("azure.identity", "1.19.0"),
    "azure-mgmt-core": ("azure.mgmt.core", "1.4.0"),
    "azure-mgmt-batch": ("azure.mgmt.batch", "17.3.0"),
    "azure-mgmt-keyvault": ("azure.mgmt.keyvault", "10.3.1"),
    "azure-keyvault-keys": ("azure.keyvault.keys", "4.10.0"),
}
# The error code of a request that a lock of Azure Resource Manager forbids.
LOCKED = "ScopeLocked"
QUOTA_EXCEEDED = "SubscriptionQuotaExceeded"
# Refusals for other reasons than missing rights, by Azure's code: this collection's code, the reason and the remedy.
_FORBIDDEN: dict[str, tuple[Code, str, str]] = {
    LOCKED: ("resource_locked", "a lock{of} forbids it", "Remove the lock, and run the task again."),
    QUOTA_EXCEEDED: (
        "quota_exceeded",
        "the subscription has reached its quota of accounts in the region",
        "Request a higher quota, or use another region or subscription.",
    ),
}
_SEE_REASON = "See the reason in azure.message."
_QUOTED = re.compile(r"'(?P<name>[^'/]+)'")
_LOCKED_SCOPE = re.compile(r"locked: '(?P<scope>/[^']+)'")
# Codes of the HTTP status 400 that are about a resource of the account, such as its key, its identity or its access.
# Other codes say that the request is malformed: the next account would send the same request.
_REFUSED_FOR_ACCOUNT = frozenset(
    (
        "FailedIdentityOperation",
        "ForbiddenByRbac",
        "InsufficientPermissions",
        "InvalidKeyVaultProperties",
        "InvalidKeyVaultReference",
        "PrincipalNotFound",
        "RoleAssignmentUpdateNotPermitted",
        "SoftDeletedVaultDoesNotExist",
    )
)
_LOGGERS = ("azure", "msal", "urllib3", "requests")
# Without any handler, Python writes warnings to the standard error.
_NOWHERE = logging.NullHandler()
_LOGGERS_LOCK = Lock()
# The number of blocks of `unlogged` that have begun and not ended, and how the loggers were before the first of them.
_unlogged = 0
_propagated: dict[str, bool] = {}


@cache
def load(package: str) -> ModuleType:
    """Import the module of a package. Raises MissingSdk if the package is missing or too old."""
    module, floor = FLOORS[package]
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise _missing(package, f"{package} cannot be imported", details=str(error)) from error
    found = metadata.version(package)
    if _numbers(found) < _numbers(floor):
        problem = f"{package} {found} is older than {floor}"
        raise _missing(package, problem, found=found, details=f"{package} is at {loaded.__path__[0]}")
    return loaded


@contextmanager
def unlogged() -> Iterator[None]:
    """Discard the log entries of the SDKs during the block. They contain requests, even if the task has `no_log`,
    and Ansible's log records the entries of all libraries in its process. Other code may log with the same
    libraries before and after the block. Blocks of several threads may overlap: the last one to end restores the
    loggers."""
    global _unlogged
    with _LOGGERS_LOCK:
        if not _unlogged:
            for logger in map(logging.getLogger, _LOGGERS):
                _propagated[logger.name] = logger.propagate
                logger.propagate = False
                logger.addHandler(_NOWHERE)
        _unlogged += 1
    try:
        yield
    finally:
        with _LOGGERS_LOCK:
            _unlogged -= 1
            if not _unlogged:
                for logger in map(logging.getLogger, _LOGGERS):
                    logger.propagate = _propagated.pop(logger.name)
                    logger.removeHandler(_NOWHERE)


def _missing(package: str, problem: str, *, details: str, found: str | None = None) -> MissingSdk:
    remedy = f"Run: {sys.executable} -m pip install -U {' '.join(FLOORS)}"
    return MissingSdk(
        f"{problem}. {remedy}", package=package, floor=FLOORS[package][1], found=found, remedy=remedy, details=details
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def renewal(credential: Any) -> Any:
    """A policy for the SDKs' pipelines: if a service refuses the token of a request, the request is sent again with
    a new token.

    The policy must run before the policy that adds the token. A policy for each call does that in all SDKs. A
    policy for each retry runs too late in azure-mgmt-batch 17.3.

    The SDKs replace a token when it expires by this machine's clock, or after a claims challenge. Without this
    policy, a token that is refused earlier would fail the run.
    """
    base: Any = load("azure-core").pipeline.policies.HTTPPolicy

    class Renewal(base):  # type: ignore[misc]
        def send(self, request: Any) -> Any:
            response = self.next.send(request)
            refused = request.http_request.headers.get("Authorization", "").removeprefix("Bearer ")
            if response.http_response.status_code == 401 and credential.forget(refused):
                response = self.next.send(request)
            return response

    return Renewal()


_MISSING_ABOVE: dict[str, tuple[Code, str, str, str]] = {
    "SubscriptionNotFound": (
        "subscription_not_found",
        "subscription_id",
        "the subscription{of} was not found",
        "Correct O(subscription_id), or grant the caller access to the subscription.",
    ),
    "InvalidSubscriptionId": (
        "subscription_not_found",
        "subscription_id",
        "the id{of} of the subscription is invalid",
        "Correct O(subscription_id), which must be a GUID.",
    ),
    "ResourceGroupNotFound": (
        "resource_group_not_found",
        "resource_group",
        "the resource group{of} was not found",
        "Correct O(resource_group), or create the resource group.",
    ),
}
# Entra's number -> code, option, reason, remedy. Numbers: learn.microsoft.com, "Microsoft Entra authentication error
# codes".
_ENTRA: dict[str, tuple[Code, str, str, str]] = {
    "7000215": (
        "authentication_failed",
        "secret",
        "the secret is wrong",
        "Set O(secret) to the value (not the id) of a current secret.",
    ),
    "7000222": (
        "secret_expired",
        "secret",
        "the secret has expired",
        "Create a new secret of the application, and set O(secret) to its value.",
    ),
    "700016": (
        "authentication_failed",
        "client_id",
        "the tenant has no such application{of}",
        "Correct O(client_id) or O(tenant).",
    ),
    "90002": ("authentication_failed", "tenant", "there is no such tenant{of}", "Correct O(tenant)."),
    "900023": (
        "authentication_failed",
        "tenant",
        "this is no name of a tenant",
        "Set O(tenant) to a GUID or a domain name.",
    ),
    "700027": (
        "authentication_failed",
        "x509_certificate_path",
        "the application does not have the certificate",
        "Register the certificate with the application.",
    ),
}
_PERMISSION = re.compile(
    r"perform action '(?P<arm>[^']+)'|Action: '(?P<rbac>[^']+)'|does not have (?P<policy>keys \S+) permission"
)


def is_missing_above(answer: Any) -> bool:
    """Whether the resource group or the subscription of the resource is missing."""
    try:
        return str(json.loads(answer.text())["error"]["code"]) in _MISSING_ABOVE
    except (KeyError, TypeError, ValueError):
        return False


@contextmanager
def translated(what: str, unreachable: Code = "unreachable") -> Iterator[None]:
    """Convert the SDKs' exceptions to this collection's errors.

    `what` is the attempted action as an infinitive, `unreachable` the code of the error if there is no response.
    """
    load("azure-core")
    from azure.core import exceptions as sdk

    try:
        yield
    except sdk.ClientAuthenticationError as error:
        # For the Azure CLI, the message is the output of the CLI, which may be an error of the proxy.
        if is_of_proxy(error.message):
            raise no_response(what, error.message, unreachable) from error
        raise _authentication(what, error) from error
    # This precedes HttpResponseError: IncompleteReadError, an incomplete response, is a subclass without a status.
    except (sdk.ServiceRequestError, sdk.ServiceResponseError, sdk.IncompleteReadError) as error:
        raise no_response(what, error.message, unreachable) from error
    except (json.JSONDecodeError, sdk.DecodeError) as error:
        raise Unavailable(
            f"Could not {what}: the response is not JSON, so it is not from Azure. Check the proxy."
        ) from error
    except sdk.HttpResponseError as error:
        raise service_error(what, _read(error)) from error


def _authentication(what: str, error: Any) -> CmkError:
    if "AKV10032" in error.message:
        # Key Vault's error code for a token of another tenant.
        remedy = "Move the vault to the caller's tenant, or sign in to the vault's tenant."
        return Denied(
            f"Could not {what}: the vault belongs to another tenant than the caller. {remedy}",
            code="vault_in_other_tenant",
            remedy=remedy,
            details=error.message,
        )
    number = re.search(r"AADSTS(\d+)", error.message)
    # msal reads the tenant's metadata first. If there are none, its message does not contain Entra's number.
    unknown_tenant = "Unable to get authority configuration" in error.message
    unknown = f"Microsoft Entra ID refused the credentials ({number[0]})" if number else "the result has the details"
    check = "Check O(tenant), O(client_id), O(secret) and O(auth_source)."
    code, option, reason, remedy = _ENTRA.get(
        number[1] if number else "90002" if unknown_tenant else "",
        ("authentication_failed", "auth_source", unknown, check),
    )
    name = _QUOTED.search(error.message)
    reason = reason.format(of=f" ({name['name']})" if name else "")
    return CmkError(
        f"Could not sign in: {reason}. {remedy}", code=code, option=option, remedy=remedy, details=error.message
    )


def service_error(what: str, service: Mapping[str, Any]) -> CmkError:
    """The error for an error response: its `status`, and the `code`, `inner_code` and `message` of the service."""
    status = service["status"]
    if service["code"] in _MISSING_ABOVE:
        code, option, reason, remedy = _MISSING_ABOVE[service["code"]]
        name = _QUOTED.search(service["message"])
        reason = reason.format(of=f" {name['name']}" if name else "")
        text = f"Could not {what}: {reason}. {remedy}"
        return NotFound(text, code=code, option=option, remedy=remedy, azure=service)
    if status == 403:
        return _denied(what, service)
    if status == 404:
        return NotFound(f"Could not {what}: Azure has not found it ({service['code']}).", azure=service)
    if status == 429 or status >= 500:
        reason = f"Azure is busy or failing ({status} {service['code']})"
        return Unavailable(f"Could not {what}: {reason}. Run the task again.", azure=service)
    if service["code"] in _FORBIDDEN:
        code, reason, remedy = _FORBIDDEN[service["code"]]
        scope = _LOCKED_SCOPE.search(service["message"])
        reason = reason.format(of=f" on {scope_text(scope['scope'])}" if scope else "")
        return Rejected(f"Could not {what}: {reason}. {remedy}", code=code, remedy=remedy, azure=service)
    is_of_account = status != 400 or service["code"] in _REFUSED_FOR_ACCOUNT
    text = f"Could not {what}: Azure refused it ({service['code']}). {_SEE_REASON}"
    return Rejected(text, is_of_account=is_of_account, remedy=_SEE_REASON, azure=service)


def _denied(what: str, service: Mapping[str, Any]) -> CmkError:
    if service["inner_code"] in ("ForbiddenByFirewall", "ForbiddenByConnection"):
        reason = "the vault's firewall blocks this network"
        remedy = "Run the task from a network that the firewall allows, or add this network."
        if service["inner_code"] == "ForbiddenByConnection":
            reason = "the vault does not allow public access"
            remedy = "Run the task from a network with a private endpoint of the vault."
        text = f"Could not {what}: {reason}. {remedy}"
        return Denied(text, code="network_denied", remedy=remedy, azure=service)
    if service["code"] == denial.DISALLOWED:
        return denial.denied(what, service)
    found = _PERMISSION.search(service["message"])
    action = found[found.lastgroup] if found and found.lastgroup else None
    remedy = grant(action) if action else _SEE_REASON
    reason = f"the caller lacks {action}" if action else f"Azure denies it ({service['code']}), and names no right"
    return Denied(f"Could not {what}: {reason}. {remedy}", action=action, remedy=remedy, azure=service)


def _read(error: Any) -> dict[str, Any]:
    """The code and the message of Azure's error response."""
    try:
        said = json.loads(error.response.text())["error"]
    except (AttributeError, KeyError, TypeError, ValueError):
        said = None
    # Gateways and proxies send texts instead of objects.
    body: Mapping[str, Any] = said if isinstance(said, Mapping) else {"message": said}
    details = body.get("details") or ()
    details = "; ".join(map(_detail, details if isinstance(details, list) else [details] if details else ()))
    inner = body.get("innererror")
    # Batch appends the request's id and the time to its messages, each on a separate line.
    message = str(body.get("message") or error.message).partition("\nRequestId:")[0]
    denying = denial.policies(body)
    return {
        "status": error.status_code,
        "code": str(body.get("code") or error.reason),
        "inner_code": inner.get("code") if isinstance(inner, Mapping) else None,
        "message": " ".join(f"{message} {details}".split()),
        "request_id": error.response.headers.get("x-ms-request-id") if error.response else None,
        **({"policies": denying} if denying else {}),
    }


def _detail(detail: Any) -> str:
    return f"{detail.get('code')}: {detail.get('message')}" if isinstance(detail, Mapping) else str(detail)


# Messages of urllib3 and the Azure CLI. If a proxy refuses a tunnel for another reason than missing credentials
# (HTTP status 407), the proxy works, and the host may be unreachable.
_PROXY_FAILED = re.compile(r"connect to proxy|ProxyError", re.IGNORECASE)
_HOST_FAILED = re.compile(r"Tunnel connection failed: (?!407)")
# Why there is no response, by messages of urllib3 and Python.
_NO_RESPONSE = (
    (re.compile(r"resolve|getaddrinfo|Name or service not known", re.IGNORECASE), "the name of its host is unknown"),
    (re.compile(r"certificate", re.IGNORECASE), "the certificate of its host is not trusted"),
    (re.compile(r"refused", re.IGNORECASE), "its host refused the connection"),
    (re.compile(r"timed out|timeout", re.IGNORECASE), "its host did not respond in time"),
)
# In the order in which the library requests reads them.
_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def is_of_proxy(message: str) -> bool:
    return bool(_PROXY_FAILED.search(message)) and not _HOST_FAILED.search(message)


def no_response(what: str, message: str, unreachable: Code) -> Unavailable:
    """The error if there was no response to `what`. `unreachable` is the code if the host failed, not the proxy."""
    name, proxy, secret = _proxy()
    said = message.replace(secret, "...") if secret else message
    if is_of_proxy(message):
        remedy = f"Correct {name}, start the proxy, or give it credentials."
        return Unavailable(
            f"Could not {what}: the proxy {proxy} does not accept the connection. {remedy}",
            code="unreachable",
            proxy=proxy,
            remedy=remedy,
            details=said,
        )
    reason = next((reason for pattern, reason in _NO_RESPONSE if pattern.search(said)), "no response")
    remedy = "Check the network, the proxy and the name of the host."
    return Unavailable(
        f"Could not {what}: {reason}. {remedy}",
        code=unreachable,
        remedy=remedy,
        is_of_account=unreachable == "vault_unreachable",
        details=said,
    )


def _proxy() -> tuple[str, str, str]:
    """The environment variable that sets the proxy, the proxy's URL, and the credentials that were in the URL."""
    name = next((one for one in _VARIABLES if os.environ.get(one)), "HTTPS_PROXY")
    scheme, separator, rest = os.environ.get(name, "").rpartition("://")
    credentials, _at, host = rest.rpartition("@")
    return name, f"{scheme}{separator}{host}", credentials


def transport(adapter: Callable[[Any], Any] = lambda to_azure: to_azure) -> Any:
    """The transport that all clients of a task share. A client with its own transport has its own connections, and
    reads the proxies and certificates of the environment for each request. In a fleet, that is a tenth of a task's
    processor time.

    `adapter` takes the HTTP adapter that sends to Azure, and returns the
    HTTP adapter that the clients use."""
    import requests
    from urllib3.util import Retry

    class Session(requests.Session):
        def __init__(self) -> None:
            super().__init__()
            self._merged: dict[tuple[str, str], Any] = {}

        def merge_environment_settings(self, url: Any, *settings: Any) -> Any:
            key = urlsplit(url).netloc, repr(settings)
            if key not in self._merged:
                self._merged[key] = super().merge_environment_settings(url, *settings)
            return self._merged[key]

    session = Session()
    # The SDKs retry by themselves.
    retries = Retry(total=False, redirect=False, raise_on_status=False)
    session.mount("https://", adapter(requests.adapters.HTTPAdapter(max_retries=retries)))
    return load("azure-core").pipeline.transport.RequestsTransport(session=session, session_owner=False)
