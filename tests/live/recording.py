# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records the requests of the experiments, without anything about other resources of the subscription."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from azure_sandbox.recording.placeholders import Placeholders, key_of
from azure_sandbox.recording.recorder import Recorder
from azure_sandbox.recording.secrets import SecretFound, Secrets
from azure_sandbox.redaction import HIDDEN
from azure_sandbox.request_log import is_write

OTHER = "(other)"
# The name of the locks of the experiments.
OWN_NAME = "azbatch-live"
_MANAGEMENT = "management.azure.com"
# The data planes, in which an own resource has an own host name.
_DATA_PLANES = (".vault.azure.net", ".batch.azure.com")
# Requests outside of the resource group that name no resource of others.
_PUBLIC_PATHS = re.compile(
    r"/subscriptions/[^/]+/providers/Microsoft\.Batch/locations/[^/]+/checkNameAvailability", re.IGNORECASE
)
# Requests that can name the resource group in their body. The rows of a response have ids.
_QUERIES = re.compile(r"/providers/Microsoft\.ResourceGraph/resources", re.IGNORECASE)
# The providers of the resources in the group.
_PROVIDERS = ("microsoft.batch", "microsoft.keyvault", "microsoft.managedidentity")
_DENIED = "RequestDisallowedByPolicy"

_NAME = r"[^/%\s\"'\\,;:?&()\[\]{}<>]+"
_SLASH = r"(?:/|%2F)"
# A resource group, or what is above it. `rest` is the resource in it.
_GROUP = re.compile(
    rf"(?P<subscription>{_SLASH}subscriptions{_SLASH}{_NAME}){_SLASH}resourceGroups{_SLASH}(?P<group>{_NAME})"
    rf"(?P<rest>(?:{_SLASH}{_NAME})*)",
    re.IGNORECASE,
)
_MANAGEMENT_GROUP = re.compile(rf"({_SLASH}managementGroups{_SLASH})({_NAME})", re.IGNORECASE)
# Policies, locks and roles have names that their owner has chosen, or ids.
_GOVERNANCE = re.compile(
    rf"({_SLASH}Microsoft\.Authorization{_SLASH}"
    rf"(?:policy(?:Assignments|Definitions|SetDefinitions|Exemptions)|locks){_SLASH})({_NAME})",
    re.IGNORECASE,
)
# Those of resource groups and management groups, of resources, and of what is below a resource.
_NAMES = re.compile(
    r"/(?:resourceGroups|managementGroups)/([^/]+)|/providers/[^/]+/(?!managementGroups/)[^/]+/([^/]+)(?:/(?!providers/)[^/]+/([^/]+))?",
    re.IGNORECASE,
)
_GUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
_UNDASHED = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", re.IGNORECASE)
_WORD = re.compile(r"[\w-]+")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f.]{0,15}(?![\w:])", re.IGNORECASE)
# Base64, also in URLs. A shorter text has no id.
_BASE64 = re.compile(r"[\w+/-]{32,}={0,2}|[\w+/-]{24,}(?:=|%3D){1,2}", re.ASCII)
_SKIP_TOKEN = re.compile(r"(\$?skiptoken(?:=|%3D))[^&\s\"']{8,}", re.IGNORECASE)
_DOMAIN_OF_ADDRESS = re.compile(r"[\w.+-]@([\w-]+(?:\.[\w-]+)+)")
# A shorter name could be a part of any text.
_SHORTEST_NAME = 6


def _names(document: Any) -> Iterator[str]:
    """The names of resources in ids, and those that people have chosen."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name.lower().endswith("displayname"):
                yield from [value] if isinstance(value, str) else ()
            yield from _names(value)
    elif isinstance(document, list):
        for item in document:
            yield from _names(item)
    elif isinstance(document, str) and document.startswith("/"):
        for found in _NAMES.findall(document):
            yield from filter(None, found)


class Ground:
    """Distinguishes the resource group of the experiments from all other resources of the caller."""

    def __init__(self, subscription: str, texts: str) -> None:
        """`texts` are those of the experiments, whose words are no names of others."""
        self._subscription = subscription.lower()
        self.group = ""
        # Words that the experiments use.
        self.vocabulary = _words(texts)
        # The names of the resources in the group, and the addresses of their operations.
        self._own: set[str] = set()
        self._operations: set[str] = set()
        # The names of the tags that the experiments have sent. A policy may add others.
        self._tags: set[str] = set()
        # Names that must not be in any file.
        self.others: set[str] = set()

    def owns(self, path: str) -> bool:
        """Whether a path is that of the resource group, or below it."""
        group = f"/subscriptions/{self._subscription}/resourcegroups/{self.group}".lower()
        return bool(self.group) and f"{path.lower().partition('?')[0].rstrip('/')}/".startswith(f"{group}/")

    def has(self, url: str, content: bytes) -> bool:
        """Whether a request is about the resource group only."""
        parts = urlsplit(url)
        host, path = parts.hostname or "", unquote(parts.path)
        if host.endswith(_DATA_PLANES) and host.partition(".")[0] in self._own:
            self._note_words(url, content)
            return True
        if host != _MANAGEMENT:
            return False
        if self.owns(path):
            segments = path.lower().split("/")
            if len(segments) > 8 and segments[6] in _PROVIDERS:
                self._own.add(segments[8])
            self._note_words(url, content)
            return True
        named = {part for segment in path.lower().split("/") for part in (segment, segment.partition("-")[0])}
        asks = bool(self.group) and self.group.encode() in content.lower() and _QUERIES.fullmatch(path) is not None
        return asks or bool(named & self._own or url in self._operations or _PUBLIC_PATHS.fullmatch(path))

    def _note_words(self, url: str, content: bytes) -> None:
        """Remember the words and the tags that the experiments have sent."""
        self.vocabulary |= _words(f"{url} {content.decode('utf-8', 'ignore')}")
        body = _json(content)
        tags = body.get("tags") if isinstance(body, dict) else None
        self._tags |= {*(tags if isinstance(tags, dict) else ())}

    def note_operation(self, headers: Mapping[str, str]) -> None:
        self._operations |= {headers[name] for name in ("location", "azure-asyncoperation") if name in headers}

    def note_others(self, document: Any) -> None:
        """Remember the names of resources, subscriptions and policies of others in a document."""
        for name in _names(document):
            if len(name) >= _SHORTEST_NAME and not _GUID.fullmatch(name) and name.lower() not in self._own:
                self.others.add(name.lower())

    def names_others(self, text: str) -> bool:
        """Whether a text has one of these names, except words that the experiments use too."""
        lower = text.lower()
        names = self.others - self.vocabulary
        return bool(_words(lower) & names) or any(name in lower for name in names if not _WORD.fullmatch(name))

    def own(self, document: Any) -> Any:
        """A response without what it says about others: items of lists, tags that a policy added, and policies."""
        if isinstance(document, list):
            return [self.own(item) for item in document if not self._is_of_others(item)]
        if not isinstance(document, dict):
            return document
        error = document.get("error")
        if isinstance(error, dict) and error.get("code") == _DENIED:
            self.note_others(error)
            return {"error": {"code": _DENIED, "message": HIDDEN}}
        kept = {name: self.own(value) for name, value in document.items()}
        if "resultTruncated" in document and isinstance(kept.get("data"), list):
            # The rows of Resource Graph.
            kept["data"] = [row for row in kept["data"] if isinstance(row, dict) and self.owns(str(row.get("id", "")))]
        if isinstance(kept.get("tags"), dict):
            kept["tags"] = {name: value for name, value in kept["tags"].items() if name in self._tags}
        return kept

    def _is_of_others(self, item: Any) -> bool:
        path = item.get("id") if isinstance(item, dict) else ""
        is_other = isinstance(path, str) and path.startswith("/") and not self.owns(path)
        if is_other:
            self.note_others(item)
        return is_other

    def text(self, text: str) -> str:
        """A text without the names of resources of others."""
        text = _SKIP_TOKEN.sub(rf"\1{HIDDEN}", text)
        text = _GROUP.sub(self._group, text)
        text = _MANAGEMENT_GROUP.sub(lambda found: found[1] + OTHER, text)
        return _GOVERNANCE.sub(
            lambda found: found[0] if found[2] == OWN_NAME or _GUID.fullmatch(found[2]) else found[1] + OTHER, text
        )

    def _group(self, found: re.Match[str]) -> str:
        is_own = self.owns(unquote(found[0]))
        return found[0] if is_own else f"{found['subscription']}/resourceGroups/{OTHER}"


class OwnPlaceholders(Placeholders):
    """Replaces also the tenant's own domains, IPv6 addresses, ids without dashes and ids in Base64, and the names of
    resources of others."""

    def __init__(self, key: bytes, ground: Ground) -> None:
        super().__init__(key)
        self._ground = ground
        self._domains: set[str] = set()
        # Ids without dashes: a text of this length can also be the version of a key, which is kept.
        self._undashed: set[str] = set()

    def learn(self, token: str) -> dict[str, Any]:
        claims = super().learn(token)
        self.note(" ".join(map(str, claims.values())))
        return claims

    def note(self, text: str) -> None:
        """Remember ids, so that they are replaced where they have no dashes, and the domains of people."""
        ids = (one for one in _GUID.findall(text) if self._guid(one) != one)
        self._undashed |= {one.replace("-", "").lower() for one in ids}
        domains = (one.lower() for one in _DOMAIN_OF_ADDRESS.findall(text))
        self._domains |= {one for one in domains if not one.endswith("example.com")}

    def _text(self, text: str, public: Collection[str]) -> str:
        text = self._ground.text(text)
        text = _BASE64.sub(lambda found: HIDDEN if _GUID.search(_decoded(found[0])) else found[0], text)
        text = _IPV6.sub(lambda found: self._ipv6(found[0]), text)
        text = super()._text(text, public)
        for domain in self._domains:
            pattern = rf"(?<![\w-]){re.escape(domain)}(?![\w-])"
            text = re.sub(pattern, lambda found: self._noted(found[0], self._domain, ()), text, flags=re.IGNORECASE)
        return _UNDASHED.sub(lambda found: self._without_dashes(found[0]), text)

    def _without_dashes(self, text: str) -> str:
        if text.lower() not in self._undashed:
            return text
        self.replaced.add(text.lower())
        return f"00000000000040008000{self._digits(text)[:12]}"

    def _ipv6(self, text: str) -> str:
        try:
            address = ipaddress.IPv6Address(text)
        except ValueError:
            # Such as a time of day.
            return text
        if not address.is_global:
            return text
        self.replaced.add(text.lower())
        # 2001:db8::/32 is reserved for documentation.
        return f"2001:db8::{self._digits(text)[:4]}"


class LastCheck(Secrets):
    """Searches also inside of Base64, for ids without dashes, and for the names of resources of others."""

    def __init__(self, environment: Mapping[str, str], ground: Ground) -> None:
        super().__init__(environment)
        self._ground = ground

    def require_none(self, text: str, others: Iterable[str] = ()) -> None:
        known = {*others}
        known |= {one.replace("-", "") for one in known if _GUID.fullmatch(one)}
        for one in (text, *map(_decoded, _BASE64.findall(text))):
            super().require_none(one, known)
            if self._ground.names_others(one):
                raise SecretFound("the recording would contain the name of a resource of others")


def _decoded(text: str) -> str:
    """What a Base64 text contains. It can begin after a part of a path, so that each of four positions is tried."""
    plain = unquote(text).rstrip("=").translate(str.maketrans("-_", "+/"))
    begun = (plain[first:] for first in range(4))
    decoded = (base64.b64decode(f"{one}{'A' * (-len(one) % 4)}") for one in begun)
    return "\n".join(one.decode("utf-8", "ignore") for one in decoded)


def _words(text: str) -> set[str]:
    return {*_WORD.findall(text.lower())}


class OwnRecorder(Recorder):
    """Records the requests that are about the resource group of the experiments, and leaves out all others. `sent` is
    called with the name of the recording, if there is one, and the method and the address of each request.

    As the control API of a sandbox, `GET /requests?since=N` has the requests after number N, with the fields of their
    log that a test needs (`_log_entry`)."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        subscription: str,
        texts: str,
        sent: Callable[[str, str, str], None],
    ) -> None:
        super().__init__(folder, environment)
        self.ground = Ground(subscription, texts)
        self._secrets = LastCheck(environment, self.ground)
        self._sent = sent
        self._log: list[dict[str, Any]] = []
        self._name = ""
        # How many requests of the current recording could not be written.
        self.left_out = 0

    async def start(self) -> OwnRecorder:
        await super().start()
        self._own = OwnPlaceholders(key_of(self._folder), self.ground)
        self._placeholders = self._own
        return self

    @contextmanager
    def into(self, name: str) -> Iterator[Path]:
        self._name = name
        try:
            with super().into(name) as path:
                yield path
        finally:
            self._name = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["state"].get("tunnel_host") or scope["path"] != "/requests":
            await super().__call__(scope, receive, send)
            return
        since = int(Request(scope).query_params.get("since", "0"))
        with self._lock:
            document = {"last": len(self._log), "requests": self._log[since:]}
        await JSONResponse(document)(scope, receive, send)

    def _kept(self, method: str, url: str, content: bytes, answer: requests.Response) -> bytes | None:
        self._sent(self._name, method, url)
        is_own = self.ground.has(url, content)
        self._log.append(_log_entry(len(self._log) + 1, method, url, answer.status_code, is_own=is_own))
        document = _json(answer.content)
        if not is_own:
            self.ground.note_others(document)
            return None
        self.ground.note_operation(answer.headers)
        kept = answer.content if document is None else json.dumps(self.ground.own(document)).encode()
        self._own.note(" ".join((url, content.decode("utf-8", "ignore"), kept.decode("utf-8", "ignore"))))
        return kept

    def _leave_out(self, error: SecretFound) -> None:
        self.left_out += 1


def _log_entry(number: int, method: str, url: str, status: int, *, is_own: bool) -> dict[str, Any]:
    """A request without its query. Everybody on this host can read it, so the address of others is not in it."""
    parts = urlsplit(url)
    service = "key_vault_keys" if (parts.hostname or "").endswith(".vault.azure.net") else ""
    service = "resource_manager" if parts.hostname == _MANAGEMENT else service
    return {
        "number": number,
        "method": method,
        "url": f"https://{parts.netloc}{unquote(parts.path)}" if is_own else OTHER,
        "status": status,
        "service": service,
        "write": is_write(service, method, parts.path, status, known=True),
    }


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
