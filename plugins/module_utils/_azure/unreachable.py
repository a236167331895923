# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connection errors: distinguishes failures of the host from failures of the proxy.

This module util is private to the collection.
"""

from __future__ import annotations

import os
import re

from .._core.errors import Unavailable

# Messages of urllib3 and the Azure CLI. If a proxy refuses a tunnel for another reason than missing credentials
# (HTTP status 407), the proxy works, and the host may be unreachable.
_PROXY_FAILED = re.compile(r"connect to proxy|ProxyError", re.IGNORECASE)
_HOST_FAILED = re.compile(r"Tunnel connection failed: (?!407)")
# In the order in which the library requests reads them.
_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def is_of_proxy(message: str) -> bool:
    return bool(_PROXY_FAILED.search(message)) and not _HOST_FAILED.search(message)


def no_response(what: str, message: str, unreachable: str) -> Unavailable:
    """The error if there was no response to `what`. `unreachable` is the code if the host failed, not the proxy."""
    name, proxy, secret = _proxy()
    said = message.replace(secret, "...") if secret else message
    if is_of_proxy(message):
        remedy = f"Correct {name}, start the proxy, or give the proxy the credentials that it asks for."
        return Unavailable(
            f"Could not {what}: the proxy {proxy} ({name}) does not accept the connection ({said}). {remedy}",
            code="unreachable",
            proxy=proxy,
            remedy=remedy,
        )
    remedy = "Check the network, the proxy and the name of the host."
    return Unavailable(f"Could not {what}: no response ({said}). {remedy}", code=unreachable, remedy=remedy)


def _proxy() -> tuple[str, str, str]:
    """The environment variable that sets the proxy, the proxy's URL, and the credentials that were in the URL."""
    name = next((one for one in _VARIABLES if os.environ.get(one)), "HTTPS_PROXY")
    scheme, separator, rest = os.environ.get(name, "").rpartition("://")
    credentials, _at, host = rest.rpartition("@")
    return name, f"{scheme}{separator}{host}", credentials
