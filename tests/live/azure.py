# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to Azure, as JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import requests

from azure_sandbox.recording.recorder import NO_RESPONSE

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
POLICIES = "2022-06-01"
BATCH_DATA = "2024-07-01.20.0"
# By the domain of a data plane, the scope of its tokens.
_SCOPES = {
    ".vault.azure.net": "https://vault.azure.net/.default",
    ".batch.azure.com": "https://batch.core.windows.net/.default",
}


class Credential(Protocol):
    def get_token(self, *scopes: str) -> Any: ...


class NoResponse(Exception):
    """Azure did not respond. The experiment can be continued later."""


class Refused(Exception):
    """Azure has refused a request that an experiment needs."""


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
        message = self._error.get("message", "")
        if isinstance(message, dict):
            message = message.get("value", "")
        details = [one for one in self._error.get("details") or () if isinstance(one, dict)]
        told = "; ".join(f"{one.get('code')}: {one.get('message')}" for one in details)
        return " ".join(part for part in (self.what, str(message).partition("\n")[0], told and f"({told})") if part)

    def required(self) -> Any:
        """The document. Raises Refused if the request was refused."""
        if not self.ok:
            raise Refused(f"{self.request}: {self.said}")
        return self.document


class Azure:
    """Sends requests with the caller's token. `session` sends them through the recorder."""

    def __init__(self, session: requests.Session, credential: Credential, subscription: str) -> None:
        self._session = session
        self._credential = credential
        # By scope. To ask the Azure CLI for each request would take longer than the request.
        self._tokens: dict[str, Any] = {}
        self.subscription = f"/subscriptions/{subscription}"

    def arm(
        self, method: str, path: str, version: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        separator = "&" if "?" in path else "?"
        return self.send(method, f"{MANAGEMENT}{path}{separator}api-version={version}", body, headers)

    def vault(self, method: str, vault: str, path: str, body: Any = None) -> Response:
        return self.send(method, f"https://{vault}.vault.azure.net{path}?api-version={KEYS}", body)

    def send(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Response:
        host = urlsplit(url).hostname or ""
        scope = next((one for domain, one in _SCOPES.items() if host.endswith(domain)), f"{MANAGEMENT}/.default")
        sent = {"Authorization": f"Bearer {self._token(scope)}", **(headers or {})}
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

    def _token(self, scope: str) -> str:
        if scope not in self._tokens or self._tokens[scope].expires_on < time.time() + _SPARE_SECONDS:
            self._tokens[scope] = self._credential.get_token(scope)
        return str(self._tokens[scope].token)

    def next_of(self, response: Response) -> str | None:
        """The address at which the operation of a response can be polled."""
        location = response.headers.get("location") or response.headers.get("azure-asyncoperation")
        return urljoin(MANAGEMENT, location) if location else None
