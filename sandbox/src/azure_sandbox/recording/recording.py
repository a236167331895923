# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A recording: a JSON file with the requests to Azure and the responses."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..redaction import HIDDEN, MEMBERS, VAULT_MEMBERS, document_without_secrets, encoded, text_without_secrets
from ..request_log import kept_url
from ..shared import clouds
from .placeholders import Placeholders
from .secrets import Secrets

# The headers of responses that clients use, and those that say how Azure counts and refuses.
HEADERS = frozenset(
    {
        "allow",
        "content-type",
        "etag",
        "last-modified",
        "preference-applied",
        "retry-after",
        "www-authenticate",
    }
)
LINKS = frozenset({"azure-asyncoperation", "location"})
# The parameters with which Resource Manager signs the address of an operation: time, certificate, signature and hash.
SIGNATURE = frozenset("tcsh")
HEADER_PREFIXES = ("x-ms-ratelimit-", "x-ms-failure-cause", "x-ms-keyvault-", "x-ms-error-code", "x-ms-operation-")


# The suffix of a recording that is not finished, with an interaction in each line.
UNFINISHED = ".jsonl"


class Recording:
    """Adds interactions to a file, one in a line, so that a run that is killed loses nothing."""

    def __init__(self, path: Path, placeholders: Placeholders, secrets: Secrets) -> None:
        self._path = path
        self._placeholders = placeholders
        self._secrets = secrets

    def add(
        self,
        method: str,
        url: str,
        content: bytes,
        content_type: str,
        status: int,
        headers: Mapping[str, str],
        answer: bytes,
        *,
        claims: Mapping[str, Any],
        began: datetime,
        seconds: float,
    ) -> None:
        """Add a request and its response. Raises SecretFound if they contain a secret of the run. Then nothing is
        written."""
        interaction: dict[str, Any] = {"method": method, "url": self._url(url), "status": status}
        host = urlsplit(url).hostname or ""
        # Of a sign-in, only its status is of interest.
        if not clouds.by_login_host(host):
            if content:
                interaction["body"] = self._body(content, content_type, host)
            interaction["headers"] = self._headers(headers)
            if answer:
                interaction["answer"] = self._body(answer, headers.get("content-type", ""), host)
        # Who has sent the request.
        for member, claim in (("tenant", "tid"), ("principal", "oid")):
            if claim in claims:
                interaction[member] = self._placeholders.text(str(claims[claim]))
        interaction["began"] = began.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        interaction["seconds"] = round(seconds, 3)
        line = json.dumps(interaction, ensure_ascii=False)
        self._secrets.require_none(line, self._placeholders.replaced)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def _url(self, url: str) -> str:
        address, _, query = url.partition("?")
        parameters = parse_qsl(query)
        if {name for name, _ in parameters} >= SIGNATURE:
            query = encoded([(name, HIDDEN if name in SIGNATURE else value) for name, value in parameters])
        return self._placeholders.text(kept_url(address, query))

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        kept = {name.lower(): value for name, value in headers.items()}
        return {
            name: self._url(value) if name in LINKS else self._placeholders.text(value)
            for name, value in kept.items()
            if name in HEADERS | LINKS or name.startswith(HEADER_PREFIXES)
        }

    def _body(self, content: bytes, content_type: str, host: str) -> Any:
        try:
            document = json.loads(content)
        except ValueError:
            if content_type.startswith("text/"):
                return self._placeholders.text(text_without_secrets(content.decode("utf-8", "replace")))
            # Any part of such a body could be a secret.
            return f"({len(content)} bytes of {content_type or 'an unknown type'})"
        document = document_without_secrets(document, MEMBERS)
        if clouds.by_vault_host(host):
            document = _without_operands(document)
        return self._placeholders.document(document)


def finish(unfinished: Path, source: str) -> None:
    """Replace an unfinished recording by the recording. A line that was cut off is left out."""
    text = unfinished.read_text(encoding="utf-8")
    interactions = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    if interactions:
        began = datetime.fromisoformat(interactions[0]["began"].replace("Z", "+00:00"))
        document = {
            "source": source,
            "recorded": f"{began:%-d %b %Y}",
            "strips": [],
            "interactions": interactions,
        }
        path = unfinished.with_suffix(".json")
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".recording-")
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{json.dumps(document, indent=1, ensure_ascii=False)}\n")
        os.replace(temporary, path)
    unfinished.unlink()


def _without_operands(document: Any) -> Any:
    """A document of Key Vault's data plane without the texts that a key wraps, signs and decrypts."""
    if not isinstance(document, dict):
        return document
    operands = VAULT_MEMBERS - MEMBERS
    return {name: HIDDEN if name in operands and isinstance(value, str) else value for name, value in document.items()}
