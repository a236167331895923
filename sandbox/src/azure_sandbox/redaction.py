# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removes secrets from JSON documents, forms, queries and texts.

A name decides whether its value is a secret. Names that end like a secret's name are included, because each service
has its own names, such as `accountKey` of a pool. A few values that are no secrets are hidden too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

HIDDEN = "(hidden)"
FORM_FIELDS = frozenset({"code", "code_verifier", "device_code"})
# Members of JSON bodies that hold secrets, such as the private parts of a JSON Web Key.
MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "k", "key_hsm", "primary", "secondary"})
# Existing clients of Azure put no secrets into URLs, but a client under development might.
PARAMETERS = FORM_FIELDS | MEMBERS
# On the host of a vault, the members for backups, for wrapped and plain data and for secrets are hidden too.
VAULT_MEMBERS = MEMBERS | {"value", "iv", "tag", "aad"}

# The ends of the names of secrets, in lower case and without `_` and `-`.
_SECRET_ENDS = (
    "assertion",
    "connectionstring",
    "credential",
    "key",
    "passphrase",
    "password",
    "passwd",
    "pwd",
    "saskey",
    "secret",
    "signature",
    "token",
)
_SECRET_NAMES = frozenset({"sas", "sig"})
# The token of a page in a list, and public keys.
_PUBLIC_ENDS = ("publickey", "skiptoken")
# The names of permissions in an access policy.
_PERMISSIONS = frozenset({"keys", "secrets"})

# A text without any of these characters is a single word.
_SEPARATOR = re.compile(r"[=:>%\s]|eyJ")
# The name in `name=value`, `name: value`, `"name": "value"`, `<name>value` and `--name value`. The equals sign may be
# percent-encoded.
_NAME = re.compile(
    r"""(?:(?<![\w$%-])|(?<=%26)|(?<=%3F))(?P<name>[\w$-]+)\\*["']?\s*(?:=|:|>|%3D)\s*"""
    r"""|(?<![\w-])--(?P<argument>[\w-]+)\s+""",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"""\\*(?P<quote>["'])(?:\\.|(?!(?P=quote)).)*(?P=quote)?|(?:(?!%26|%3B)[^&;\s"'<>])+""", re.IGNORECASE | re.DOTALL
)
# Secrets without a name: values of the header Authorization, passwords in URLs, private keys and JSON Web Tokens.
_NAMELESS = (
    (re.compile(r"\b(Bearer|SharedKey|SharedAccessSignature)\s+\S+", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"\bBasic\s+[A-Za-z0-9+/]{12,}={0,2}(?!\w)", re.IGNORECASE), f"Basic {HIDDEN}"),
    (re.compile(r"""(://[^/\s:@"']*:)[^/\s@"']+@"""), rf"\1{HIDDEN}@"),
    (re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)", re.DOTALL), rf"\1{HIDDEN}"),
    (re.compile(r"\beyJ[\w-]+\.eyJ[\w-]+(?:\.[\w-]*)?"), HIDDEN),
)


@lru_cache(maxsize=1000)
def is_secret_name(name: str) -> bool:
    plain = name.lower().replace("_", "").replace("-", "")
    if plain in _PERMISSIONS:
        return False
    singular = plain.removesuffix("s") if plain not in _SECRET_NAMES else plain
    return singular in _SECRET_NAMES or (singular.endswith(_SECRET_ENDS) and not singular.endswith(_PUBLIC_ENDS))


def text_without_secrets(text: str) -> str:
    """A text without the values of secret names, such as `sig` of a shared access signature in a URL."""
    if not _SEPARATOR.search(text):
        return text
    for pattern, replacement in _NAMELESS:
        text = pattern.sub(replacement, text)
    kept, end = [], 0
    for found in _NAME.finditer(text):
        if found.start() >= end and is_secret_name(found["name"] or found["argument"]):
            value = _VALUE.match(text, found.end())
            if value is not None:
                kept += [text[end : found.end()], HIDDEN]
                end = value.end()
    return "".join([*kept, text[end:]])


def parts_without_secrets(parts: list[tuple[str, str]], names: frozenset[str]) -> list[tuple[str, str]]:
    """The names and values of a form or a query without secrets. `names` are secret whatever they end with."""
    return [
        (name, HIDDEN if name.lower() in names or is_secret_name(name) else text_without_secrets(value))
        for name, value in parts
    ]


def encoded(parts: list[tuple[str, str]]) -> str:
    return urlencode(parts, safe="()/:$")


def document_without_secrets(document: Any, members: frozenset[str]) -> Any:
    """A JSON document without secrets. Of a list or an object below a secret name, nothing is kept. `members` are
    secret whatever they end with."""
    if isinstance(document, dict):
        # Settings such as {"name": "DB_PASSWORD", "value": "..."}.
        is_setting = isinstance(document.get("name"), str) and is_secret_name(document["name"])
        return {
            text_without_secrets(name): HIDDEN
            if is_secret_member(name, value, members) or (is_setting and name == "value")
            else document_without_secrets(value, members)
            for name, value in document.items()
        }
    if isinstance(document, list):
        return [document_without_secrets(item, members) for item in document]
    return text_without_secrets(document) if isinstance(document, str) else document


def is_secret_member(name: str, value: Any, members: frozenset[str]) -> bool:
    if value is None or isinstance(value, bool):
        return False
    if name.lower() == "key" and isinstance(value, dict):
        # A JSON Web Key, whose private parts are hidden.
        return False
    return name.lower() in members or is_secret_name(name)
