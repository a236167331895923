# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All requests to Azure. They go through the pipelines of the SDKs' clients, as JSON: the models of the SDKs' releases
differ.

A resource is named by its id (`/subscriptions/...`), or by its URL in a vault
(`https://NAME.vault.azure.net/keys/...`). `what` is the attempted action as an infinitive, for errors.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .._core.errors import Code, NotFound, TimedOut, Unavailable
from .._documents.refs import vault_made
from . import sdk
from .rate_limit import is_read
from .session import Session


class Answer(NamedTuple):
    """The document of a resource, None if the resource is missing. The times, from headers of the response, are in
    seconds since 1970, None if the response has none: that of the response, and that of the last change."""

    document: Any
    at: float | None = None
    changed_at: float | None = None


@dataclass
class Operation:
    """A long-running operation on a resource, with the poller of Azure's SDK."""

    method: str
    ref: str
    # The document in the first response, None if that is empty.
    document: Any
    poller: Any = None
    # The document that the last poll has read, None if there was no poll or no document.
    polled: Any = None


class Provider(NamedTuple):
    # Stated in each request, because the defaults of the SDKs' releases differ.
    api_version: str
    # The client with the pipeline. The pipeline of Batch serves all other providers, because the
    # pipelines of Resource Manager are alike.
    package: str = "azure-mgmt-batch"
    client: str = "BatchManagementClient"


# By the namespace of the resource provider in lower case.
_PROVIDERS = {
    # The first version that shows the key of a pool's disks.
    "microsoft.batch": Provider("2025-06-01"),
    # Older versions retire on 27 February 2027.
    "microsoft.keyvault": Provider("2026-02-01", "azure-mgmt-keyvault", "KeyVaultManagementClient"),
    "microsoft.authorization": Provider("2022-04-01"),
    "microsoft.managedidentity": Provider("2023-01-31"),
    "microsoft.resourcegraph": Provider("2024-04-01"),
}
# Subscriptions, resource groups and resource providers belong to Resource Manager itself.
_RESOURCES = Provider("2021-04-01")
_SUBSCRIPTIONS_API = "2022-12-01"
_LOCKS_API = "2020-05-01"
_UNREACHABLE: Code = "vault_unreachable"
LOCKS = "/providers/Microsoft.Authorization/locks"
_NAMESPACE = re.compile(r".*/providers/([^/?]+)/", re.IGNORECASE)


class Gateway:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._clients: dict[str, Any] = {}
        # The new vaults whose host names resolve. One thread at a time waits for a name.
        self._resolved: set[str] = set()
        self._resolving = Lock()

    def answer(self, what: str, ref: str) -> Answer:
        """The document with the times of the response. If the resource group or the subscription is missing, that is
        an error."""
        with self._translated(what, ref):
            found = self._sent("GET", ref, may_be_missing=True)
            document = None if found.status_code == 404 else found.json()
        return Answer(document, _moment(found, "Date"), _moment(found, "Last-Modified"))

    def find(self, what: str, ref: str) -> Any:
        """The document; None if the resource is missing."""
        return self.answer(what, ref).document

    def get(self, what: str, ref: str) -> Any:
        """The document. Raises NotFound if the resource is missing."""
        with self._translated(what, ref):
            return self._sent("GET", ref).json()

    def query(self, what: str, ref: str, body: Mapping[str, Any]) -> list[Any]:
        """The rows of all pages of a query of Azure Resource Graph. Raises an error if rows are missing."""
        rows, options = list[Any](), dict(body["options"])
        with self._translated(what, ref):
            while True:
                page = self._sent("POST", ref, body={**body, "options": options}).json()
                if not _is_page_of_rows(page):
                    raise Unavailable(f"Could not {what}: the response of Azure Resource Graph is malformed.")
                rows += page["data"]
                if not page.get("$skipToken"):
                    break
                options["$skipToken"] = page["$skipToken"]
        is_truncated = str(page.get("resultTruncated")).lower() == "true"
        if len({row["id"] for row in rows}) < (page.get("totalRecords") or 0) or is_truncated:
            raise Unavailable(f"Could not {what}: Azure Resource Graph has not returned all rows. Run the task again.")
        return rows

    def list(self, what: str, ref: str, filter: str | None = None) -> list[Any]:
        """The items of all pages of a list."""
        params = {"$filter": filter} if filter else {}
        with self._translated(what, ref):
            page = self._sent("GET", ref, params).json()
            items: list[Any] = page["value"]
            while page.get("nextLink"):
                page = self._sent("GET", page["nextLink"]).json()
                items += page["value"]
        return items

    def ask(self, what: str, ref: str, body: Mapping[str, Any]) -> Any:
        """The response to a POST that changes nothing."""
        with self._translated(what, ref):
            return self._sent("POST", ref, body=body).json()

    def write(
        self,
        what: str,
        method: str,
        ref: str,
        body: Mapping[str, Any] | None = None,
        *,
        if_late: Callable[[], None] | None = None,
        undoes: bool = False,
    ) -> Any:
        """Send a change, and return the document in the response. `if_late` is called before a delayed request
        (rate_limit.IF_LATE). `undoes` is for the journal."""
        journal = self._session.journal
        try:
            with journal.writing(method, ref, body, undoes=undoes), self._translated(what, ref):
                answer = self._sent(method, ref, body=body, if_late=if_late)
                document = answer.json() if answer.text() else None
        except NotFound:
            if method == "DELETE" and journal.is_in_doubt(ref):
                # An earlier try of the request has deleted the resource.
                return None
            raise
        return document

    def begin(
        self,
        what: str,
        method: str,
        ref: str,
        body: Mapping[str, Any] | None = None,
        *,
        if_late: Callable[[], None] | None = None,
        undoes: bool = False,
    ) -> Operation:
        """The same for a long-running operation, for which `finish` waits."""
        from azure.core.polling import LROPoller
        from azure.mgmt.core.polling.arm_polling import ARMPolling

        with self._session.journal.writing(method, ref, body, undoes=undoes), self._translated(what, ref):
            began = self._sent(method, ref, body=body, if_late=if_late, _return_pipeline_response=True)
            polling = ARMPolling(_POLLING_SECONDS, lro_options={"final-state-via": "location"})
            poller = LROPoller(self._client(ref), began, lambda answer: answer, polling)
            first = began.http_response
            return Operation(method, ref, first.json() if first.text() else None, poller)

    def finish(self, what: str, operation: Operation) -> bool:
        """Wait for a long-running operation. Raises TimedOut after wait_timeout. Returns False if Azure has accepted
        the request, but does not show the new resource yet."""
        from azure.core.exceptions import HttpResponseError

        timeout, poller, journal = self._session.wait_timeout, operation.poller, self._session.journal
        with sdk.translated(what), journal.changing(operation.method, operation.ref):
            try:
                poller.wait(timeout)
            except HttpResponseError as error:
                if error.status_code != 404:
                    raise
                return False
            if not poller.done():
                raise TimedOut(
                    f"Azure has not finished after {timeout} s (state {poller.status()}): {what}. Run the task again, "
                    "perhaps with a longer O(wait_timeout).",
                    option="wait_timeout",
                    value=timeout,
                )
            last = poller.result()
        # Without a poll, it is the response to the write, or None after a deletion.
        if last is not None and last.http_request.method == "GET" and last.http_response.text():
            operation.polled = last.http_response.json()
        return True

    def _translated(self, what: str, ref: str) -> AbstractContextManager[None]:
        return sdk.translated(what, unreachable=_UNREACHABLE) if self._is_in_vault(ref) else sdk.translated(what)

    def _sent(
        self,
        method: str,
        ref: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        may_be_missing: bool = False,
        **options: Any,
    ) -> Any:
        """The response. Raises the SDKs' exceptions for the statuses of errors."""
        send = partial(self._sent_now, method, ref, params, body, may_be_missing=may_be_missing, **options)
        return self._once_resolved(ref, send) if method == "GET" and self._is_in_vault(ref) else send()

    def _once_resolved(self, ref: str, send: Callable[[], Any]) -> Any:
        """If the run has created or recovered the vault, wait until its host name resolves: that may take minutes."""
        from azure.core.exceptions import ServiceRequestError

        name = urlsplit(ref).netloc.partition(".")[0]
        if name in self._resolved or self._session.journal.noted_at(vault_made(name)) is None:
            return send()
        answers = []

        def unresolved() -> Unavailable | None:
            try:
                answers.append(send())
            except ServiceRequestError as error:
                failure = sdk.no_response(f"connect to the key vault {name}", error.message, _UNREACHABLE)
                if failure.code != _UNREACHABLE:
                    raise
                failure.__cause__ = error
                return failure
            self._resolved.add(name)
            return None

        if unresolved() is not None:
            with self._resolving:
                made_at = self._session.journal.noted_at(vault_made(name)) or 0.0
                deadline = made_at + self._session.wait_timeout
                failure = self._session.poll_until(unresolved, deadline, f"the name of the key vault {name} to resolve")
            if failure is not None:
                raise failure.__cause__ or failure
        return answers[0]

    def _sent_now(
        self,
        method: str,
        ref: str,
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        *,
        may_be_missing: bool,
        **options: Any,
    ) -> Any:
        if self._session.predicts and not is_read(method, ref):
            raise AssertionError(f"check mode sends no write: {method} {ref}")
        from azure.core.exceptions import ClientAuthenticationError, map_error
        from azure.core.rest import HttpRequest

        client = self._client(ref)
        # The link to the next page has the API version.
        stated = {} if self._is_in_vault(ref) or "api-version=" in ref else {"api-version": _api_version(ref)}
        url = ref if ref.startswith("https://") else f"{self._session.environment.resource_manager}{ref}"
        if method == "GET" and self._is_in_vault(ref):
            # A vault that does not exist has no host, so more retries are useless.
            options["retry_connect"] = 1
        if method == "POST" and is_read(method, ref):
            # The SDKs repeat no POST after a lost connection.
            options["retry_on_methods"] = ["POST"]
        request = HttpRequest(method, url, params={**stated, **(params or {})}, json=body)
        answer = client.send_request(request, **options)
        response = getattr(answer, "http_response", answer)
        map_error(response.status_code, response, {401: ClientAuthenticationError})
        if not (may_be_missing and response.status_code == 404 and not sdk.is_missing_above(response)):
            response.raise_for_status()
        return answer

    def _client(self, ref: str) -> Any:
        """What sends the requests: a client for keys, or the pipeline of a management client."""
        if self._is_in_vault(ref):
            parts = urlsplit(ref)
            return self._kept(f"{parts.scheme}://{parts.netloc}", self._key_client)
        return self._kept(_provider(ref).package, lambda _package: self._management_client(_provider(ref)))

    def _is_in_vault(self, ref: str) -> bool:
        return ref.startswith("https://") and not ref.startswith(self._session.environment.resource_manager)

    def _kept(self, name: str, make: Callable[[str], Any]) -> Any:
        if name not in self._clients:
            self._clients[name] = make(name)
        return self._clients[name]

    def _management_client(self, provider: Provider) -> Any:
        environment = self._session.environment
        # Each ref names its subscription.
        client = getattr(sdk.load(provider.package), provider.client)(
            self._session.credential,
            "",
            base_url=environment.resource_manager,
            credential_scopes=[environment.resource_manager_scope],
            **self._session.policies,
        )
        return client._client

    def _key_client(self, url: str) -> Any:
        return sdk.load("azure-keyvault-keys").KeyClient(
            url,
            self._session.credential,
            policies=self._session.bare_policies(self._session.key_vault_scope),
            **self._session.policies,
        )


# Responses of Azure have the time to wait. This is the time without such a response.
_POLLING_SECONDS = 5


def _provider(ref: str) -> Provider:
    found = _NAMESPACE.match(urlsplit(ref).path)
    return _PROVIDERS.get(found[1].lower(), _RESOURCES) if found else _RESOURCES


def _is_page_of_rows(page: Any) -> bool:
    """Whether it has what the collection reads of a page of Azure Resource Graph. A row that cannot be read may be a
    user of a key."""
    if not isinstance(page, Mapping) or not isinstance(page.get("data"), list):
        return False
    return isinstance(page.get("totalRecords") or 0, int) and all(
        isinstance(row, Mapping)
        and isinstance(row.get("properties"), Mapping)
        and isinstance(row.get("type"), str)
        and isinstance(row.get("id"), str)
        and "/providers/" in row["id"].lower()
        for row in page["data"]
    )


def _api_version(ref: str) -> str:
    if ref.endswith(LOCKS):
        return _LOCKS_API
    return _SUBSCRIPTIONS_API if ref == "/subscriptions" else _provider(ref).api_version


def _moment(answer: Any, header: str) -> float | None:
    """The time in the header; None if the header is missing or no time."""
    try:
        return parsedate_to_datetime(answer.headers.get(header) or "").timestamp()
    except (TypeError, ValueError):
        return None
