# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Placeholders for the ids, names and addresses that a recording must not contain.

The placeholder of a value is the same in all recordings of a folder, because it is derived from the value and a random
key of the folder. Without the key, nobody can check whether a known value has a certain placeholder.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ..certificates import private_opener

KEY_FILE = ".placeholder-key"
_KEY_BYTES = 32

_GUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
# The ids of built-in roles and policies are the same in all tenants, and a reader needs them.
_PUBLIC_GUID = re.compile(rf"(?:role|policy|policySet)Definitions/({_GUID.pattern})", re.IGNORECASE)
_ADDRESS = re.compile(r"\b[\w.+-]+(?:#EXT#)?@[\w-]+(?:\.[\w-]+)+\b")
_DOMAIN = re.compile(r"\b[\w-]+\.onmicrosoft\.(?:com|us)\b|\b[\w-]+\.partner\.onmschina\.cn\b", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w.])")
_LOCAL = re.compile(r"0\.|10\.|127\.|169\.254\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|192\.0\.2\.")
# The claims of a token that name a person, an application or an address. Ids are replaced wherever they are.
_CLAIMS = frozenset(
    {
        "app_displayname",
        "email",
        "family_name",
        "given_name",
        "idtyp_name",
        "ipaddr",
        "name",
        "preferred_username",
        "puid",
        "unique_name",
        "upn",
    }
)
# A shorter name could be a part of any word.
_SHORTEST_NAME = 3


def key_of(folder: Path) -> bytes:
    """The key of a folder, which is created for the first recording. It is not part of what is sent to others."""
    path = folder / KEY_FILE
    if not path.exists():
        with open(path, "xb", opener=private_opener) as file:
            file.write(os.urandom(_KEY_BYTES))
    return path.read_bytes()


class Placeholders:
    """Replaces ids, addresses and names in texts and JSON documents."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # The ids and addresses that were replaced, in lower case.
        self.replaced: set[str] = set()
        self._names: dict[str, str] = {}

    def learn(self, token: str) -> dict[str, Any]:
        """Read the names of people and applications from the claims of an access token. Returns the claims."""
        claims = claims_of(token)
        for claim, value in claims.items():
            if claim in _CLAIMS and isinstance(value, str) and len(value) >= _SHORTEST_NAME:
                self._names[value] = f"{claim.replace('_', '-')}-{self._digits(value)[:6]}"
        return claims

    def text(self, text: str) -> str:
        public = {found[1].lower() for found in _PUBLIC_GUID.finditer(text)}
        return self._text(text, public)

    def document(self, document: Any, public: Collection[str] | None = None) -> Any:
        """A JSON document with placeholders, also in the names of its members."""
        if public is None:
            public = {found[1].lower() for found in _PUBLIC_GUID.finditer(json.dumps(document, ensure_ascii=False))}
        if isinstance(document, dict):
            return {self._text(name, public): self.document(value, public) for name, value in document.items()}
        if isinstance(document, list):
            return [self.document(item, public) for item in document]
        return self._text(document, public) if isinstance(document, str) else document

    def _text(self, text: str, public: Collection[str]) -> str:
        text = _IPV4.sub(lambda found: found[0] if _LOCAL.match(found[0]) else self._ip(found[0]), text)
        for name, placeholder in self._names.items():
            if name in text:
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", placeholder, text)
        for pattern, place in ((_ADDRESS, self._person), (_DOMAIN, self._domain), (_GUID, self._guid)):
            text = pattern.sub(lambda found, place=place: self._noted(found[0], place, public), text)  # type: ignore[misc]
        return text

    def _noted(self, original: str, place: Callable[[str], str], public: Collection[str]) -> str:
        new = original if original.lower() in public else place(original)
        if new != original:
            self.replaced.add(original.lower())
        return new

    def _person(self, address: str) -> str:
        return address if address.endswith("@example.com") else f"person-{self._digits(address)[:6]}@example.com"

    def _domain(self, domain: str) -> str:
        return f"tenant-{self._digits(domain)[:6]}.example.com"

    def _digits(self, value: str) -> str:
        return hmac.new(self._key, value.lower().encode(), "sha256").hexdigest()

    def _guid(self, guid: str) -> str:
        # Azure uses the empty id for no id. A placeholder is kept, because documents contain documents as texts.
        if set(guid) <= {"0", "-"} or guid.startswith("00000000-0000-4000-8000-"):
            return guid
        return f"00000000-0000-4000-8000-{self._digits(guid)[:12]}"

    def _ip(self, address: str) -> str:
        # 192.0.2.0/24 is reserved for documentation.
        return f"192.0.2.{int(self._digits(address)[:2], 16)}"


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a JSON Web Token, which is not verified. Empty if the text is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}
