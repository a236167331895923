# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The secrets of a run, which no recording may contain."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

from ..redaction import FORM_FIELDS, HIDDEN, MEMBERS, is_secret_member, is_secret_name

# A shorter text could be a part of any other text.
SHORTEST = 8
_OF_VARIABLES = re.compile(r"secret|password|passwd|token|connection_?string|_key$|_sas$", re.IGNORECASE)
# Variables with such names that name a file.
_OF_FILES = re.compile(r"_(?:file|path|dir)$", re.IGNORECASE)


class SecretFound(Exception):
    """A recording still contains a secret of the run."""


class Secrets:
    """Collects the secrets of a run, and searches texts for them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._found: dict[str, str] = {}
        for name, value in environment.items():
            if _OF_VARIABLES.search(name) and not _OF_FILES.search(name):
                self.add(value, f"the environment variable {name}")
            if name.upper().endswith("_PROXY"):
                self.add(urlsplit(value).password or "", f"the password in {name}")

    def add(self, value: str, what: str) -> None:
        if len(value) >= SHORTEST and value != HIDDEN:
            self._found.setdefault(value, what)

    def add_authorization(self, header: str) -> None:
        self.add(header.partition(" ")[2].strip(), "an Authorization header")

    def add_form(self, content: bytes) -> None:
        for name, value in parse_qsl(content.decode("utf-8", "replace")):
            if name.lower() in FORM_FIELDS or is_secret_name(name):
                self.add(value, f"the form field {name}")

    def add_query(self, url: str) -> None:
        for name, value in parse_qsl(urlsplit(url).query):
            if is_secret_name(name):
                self.add(value, f"the parameter {name} of a URL")

    def add_document(self, document: Any) -> None:
        """Add the values of the members of a JSON document that are secret by their names."""
        if isinstance(document, dict):
            for name, value in document.items():
                if is_secret_member(name, value, MEMBERS):
                    self._add_all(value, f"the member {name} of a body")
                else:
                    self.add_document(value)
        elif isinstance(document, list):
            for item in document:
                self.add_document(item)

    def _add_all(self, value: Any, what: str) -> None:
        if isinstance(value, str):
            self.add(value, what)
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                self._add_all(item, what)

    def require_none(self, text: str, others: Iterable[str] = ()) -> None:
        """Raise SecretFound if the text contains a secret of the run, or one of the other values (in any letter
        case), as it is or encoded."""
        for value, what in self._found.items():
            if any(form in text for form in _forms(value)):
                raise SecretFound(f"the recording would contain {what}")
        lower = text.lower()
        if any(other in lower for other in others):
            raise SecretFound("the recording would contain an id, a name or an address that has a placeholder")


def _forms(value: str) -> set[str]:
    """The forms of a secret in a text: as it is, in JSON, in a URL, and in Base64."""
    encoded = base64.b64encode(value.encode()).decode().rstrip("=")
    return {value, json.dumps(value)[1:-1], quote(value, safe=""), quote_plus(value), encoded}
