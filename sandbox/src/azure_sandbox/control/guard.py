# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps other web sites off the control API.

The API asks for no password: every user of this machine may use it. A browser on this machine may use it too, and a
browser lets every site that it shows send requests to any address. Two things stop that:

- Host. A site can let its own name resolve to 127.0.0.1 (DNS rebinding), and then counts as the same site as the
  sandbox. Its requests still carry its name as Host, and `Sandbox.service` knows the control API by the names
  `127.0.0.1:PORT` and `localhost:PORT` alone.
- Origin. A site can send a form, or a POST that needs no permission, straight to 127.0.0.1. It can't read the answer,
  but POST /reset has done its work by then. The browser says with Origin, or with Sec-Fetch-Site, who it is that asks.

What is no browser sends neither header, and is not held up.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request

from . import reading

SAFE_METHODS = ("GET", "HEAD")


def check(url: str, request: Request) -> None:
    """`url` is the sandbox's own. Raises AzureError."""
    origin = request.headers.get("origin")
    if origin is not None and origin.lower() not in _own(url):
        raise reading.other_site(origin)
    # Following a link to the sandbox from another site is not forbidden: that is a GET, which changes nothing.
    site = request.headers.get("sec-fetch-site", "none").lower()
    if request.method not in SAFE_METHODS and site not in ("none", "same-origin"):
        raise reading.other_site(site)


def _own(url: str) -> set[str]:
    port = urlsplit(url).port
    return {f"http://{name}:{port}" for name in ("127.0.0.1", "localhost")}
