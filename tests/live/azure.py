# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to Azure, as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import requests

from azure_sandbox.recording.recorder import NO_RESPONSE

from .clock import Clock

MANAGEMENT = "https://management.azure.com"
RESPONSE_SECONDS = 130
# How long a token must be valid at least.
_SPARE_SECONDS = 300
# The API versions of the requests.
BATCH = "2025-06-01"
VAULTS = "2026-02-01"
KEYS = "2025-07-01"
IDENTITIES = "2023-01-31"
ROLES = "2022-04-01"
GROUPS = "2022-09-01"
PERMISSIONS = "2022-04-01"
LOCKS = "2020-05-01"
RESOURCE_GRAPH = "2024-04-01"
BATCH_DATA = "2024-07-01.20.0"
# By the domain of a data plane, the scope of its tokens.
_SCOPES = {
    ".vault.azure.net": "https://vault.azure.net/.default",
    ".batch.azure.com": "https://batch.core.windows.net/.default",
}


# How often a request is sent that Azure throttles or fails to process, and how long the client waits in between if the
# response has no Retry-After.
_ATTEMPTS = 6
_RETRY_SECONDS = 10.0
# Codes of refusals that are about the caller, the subscription or the moment. They say nothing about Batch.
_UNRELATED = frozenset(
    {
        "AccountOperationInProgress",
        "AuthorizationFailed",
        "LinkedAuthorizationFailed",
        "MissingSubscriptionRegistration",
        "ReadOnlyDisabledSubscription",
        "RequestDisallowedByAzure",
        "RequestDisallowedByPolicy",
        "ResourceGroupBeingDeleted",
        "ResourceGroupNotFound",
        "ScopeLocked",
        "SubscriptionNotFound",
        "SubscriptionNotRegistered",
        "SubscriptionQuotaExceeded",
    }
)
# Azure names the assignments and definitions of a subscription in the message, which belong to its owner.
_POLICY = "RequestDisallowedByPolicy"


class Credential(Protocol):
    def get_token(self, *scopes: str) -> Any: ...


class NoResponse(Exception):
    """Azure did not respond. The experiment can be continued later."""


class NoResult(Exception):
    """The experiment has no result in this run: Azure has refused a request for a reason that is not part of the
    question. The next run asks again."""


class Disturbed(NoResult):
    """Azure has throttled or failed to process a request, or did not respond. The experiment can begin again."""


class Unavailable(Disturbed):
    """Azure gave the same response, 429 or 5xx, each time that a request was sent."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.request}: {response.said}, {_ATTEMPTS} times")
        self.response = response


@dataclass(frozen=True)
class Response:
    request: str
    status: int
    headers: Mapping[str, str]
    document: Any

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def is_transient(self) -> bool:
        """Whether the response says nothing but that the request has to be sent again."""
        return self.status in (408, 429) or self.status >= 500

    @property
    def retry_after(self) -> float:
        """How long to wait before the next request, in seconds."""
        try:
            return max(float(self.headers.get("retry-after", _RETRY_SECONDS)), 1)
        except ValueError:
            # A date.
            return 60.0

    @property
    def code(self) -> str:
        """The code of an error response; empty if there is none."""
        return str(self._error.get("code", ""))

    @property
    def _error(self) -> dict[str, Any]:
        if self.ok or not isinstance(self.document, dict):
            return {}
        # The data plane of Batch has no `error` around its errors.
        error = self.document.get("error", self.document)
        return error if isinstance(error, dict) else {}

    @property
    def what(self) -> str:
        """The status and the code, such as `409 Conflict`."""
        return f"{self.status} {self.code}".strip()

    @property
    def said(self) -> str:
        """The status, the code, the first line of the message, and the details of an error of Batch."""
        if self.code == _POLICY:
            return f"{self.what} (an Azure Policy denies it)"
        message = self._error.get("message", "")
        if isinstance(message, dict):
            message = message.get("value", "")
        details = [one for one in self._error.get("details") or () if isinstance(one, dict)]
        told = "; ".join(f"{one.get('code')}: {one.get('message')}" for one in details)
        return " ".join(part for part in (self.what, str(message).partition("\n")[0], told and f"({told})") if part)

    def is_about_the_request(self, *codes: str) -> bool:
        """Whether Azure has accepted the request, or refused it because of what it asks for, or with one of the
        codes."""
        return self.ok or self.code in codes or not (self.status == 401 or self.code in _UNRELATED)

    def checked(self, *codes: str) -> Response:
        """The response. Raises NoResult if it is not about the request (`is_about_the_request`)."""
        if not self.is_about_the_request(*codes):
            raise NoResult(f"{self.request}: {self.said}")
        return self

    def required(self) -> Any:
        """The document. Raises NoResult if the request was refused."""
        if not self.ok:
            raise NoResult(f"{self.request}: {self.said}")
        return self.document


class Azure:
    """Sends requests with the caller's token. `session` sends them through the recorder.

    A request is sent again if the response is 408, 429 or 5xx, or if there is none, and once with a new token if it is
    401. Raises Unavailable or NoResponse if
    Azure responds no better."""

    def __init__(
        self, session: requests.Session, sign_in: Callable[[], Credential], subscription: str, clock: Clock
    ) -> None:
        self._session = session
        self._sign_in = sign_in
        self._credential = sign_in()
        self._clock = clock
        self._attempts = _ATTEMPTS
        # By scope. To ask the Azure CLI for each request would take longer than the request.
        self._tokens: dict[str, Any] = {}
        self.subscription = f"/subscriptions/{subscription}"

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Send each request of the block once. Raises Disturbed if one would have to be sent again: a time would be
        wrong, or the first attempt may have taken effect."""
        self._attempts = 1
        try:
            yield
        except NoResponse as error:
            raise Disturbed(str(error)) from error
        finally:
            self._attempts = _ATTEMPTS

    def arm(
        self, method: str, path: str, version: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        separator = "&" if "?" in path else "?"
        return self.send(method, f"{MANAGEMENT}{path}{separator}api-version={version}", body, headers)

    def vault(self, method: str, vault: str, path: str, body: Any = None) -> Response:
        return self.send(method, f"https://{vault}.vault.azure.net{path}?api-version={KEYS}", body)

    def send(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Response:
        is_new = False
        for attempt in range(1, self._attempts + 1):
            try:
                response = self._sent(method, url, body, headers or {})
            except NoResponse:
                if attempt == self._attempts:
                    raise
                self._clock.wait(_RETRY_SECONDS)
                continue
            if response.status == 401 and not is_new:
                # A credential would return the token that it has, until the token expires.
                self._credential, is_new = self._sign_in(), True
                self._tokens.clear()
                continue
            if not response.is_transient:
                return response
            if attempt < self._attempts:
                self._clock.wait(response.retry_after)
        raise Unavailable(response)

    def responds(self, url: str) -> bool:
        """Whether a host responds at all. Raises Unavailable if Azure does not process the request."""
        try:
            response = self._sent("GET", url, None, {})
        except NoResponse:
            return False
        if response.is_transient:
            raise Unavailable(response)
        return True

    def _sent(self, method: str, url: str, body: Any, headers: Mapping[str, str]) -> Response:
        host = urlsplit(url).hostname or ""
        scope = next((one for domain, one in _SCOPES.items() if host.endswith(domain)), f"{MANAGEMENT}/.default")
        sent = {"Authorization": f"Bearer {self.token(scope)}", **headers}
        try:
            response = self._session.request(method, url, json=body, headers=sent, timeout=RESPONSE_SECONDS)
        except requests.RequestException as error:
            raise NoResponse(f"{host} did not respond ({type(error).__name__}).") from error
        if NO_RESPONSE in response.headers:
            raise NoResponse(response.text.strip())
        try:
            document = response.json() if response.content else None
        except ValueError:
            document = response.text
        request = f"{method} {urlsplit(url).path}"
        return Response(request, response.status_code, response.headers, document)

    def token(self, scope: str = f"{MANAGEMENT}/.default") -> str:
        if scope not in self._tokens or self._tokens[scope].expires_on < time.time() + _SPARE_SECONDS:
            self._tokens[scope] = self._credential.get_token(scope)
        return str(self._tokens[scope].token)

    def next_of(self, response: Response) -> str | None:
        """The address at which the operation of a response can be polled."""
        location = response.headers.get("location") or response.headers.get("azure-asyncoperation")
        return urljoin(MANAGEMENT, location) if location else None
