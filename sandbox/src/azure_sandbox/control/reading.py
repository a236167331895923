# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which requests the control API accepts, the members of their bodies, and the responses to other requests.

The API has no authentication: every user of this machine may use it. A browser on this machine may use it too, and
would send the requests of any web site that it shows. Two headers prevent this:

- `Host`: a web site can resolve its own name to 127.0.0.1 (DNS rebinding), so that the browser treats the sandbox as
  the same site. The requests still have the name of the web site as `Host`. `Sandbox.service` accepts only
  `127.0.0.1:PORT` and `localhost:PORT` as names of the control API.
- `Origin`: a web site can send a form, or a POST that needs no preflight request, to 127.0.0.1. It can't read the
  response, but a POST /reset would have its effect. The browser names the web site in `Origin` or `Sec-Fetch-Site`.

Clients other than browsers send neither `Origin` nor `Sec-Fetch-Site`, and are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from ..shared.web import AzureError

# 100 years in seconds, so that times that are calculated from it can be formatted as dates.
LONGEST = 100 * 365 * 86400


def text(document: Mapping[str, Any], name: str) -> str:
    """A member that must be a string; empty if it is missing. Raises AzureError."""
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_request(f"{name} must be a string")
    return value or ""


def needed(document: Mapping[str, Any], name: str) -> str:
    value = text(document, name)
    if not value:
        raise bad_request(f"{name} is missing")
    return value


def is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LONGEST <= value <= LONGEST


def seconds(document: Mapping[str, Any], name: str, default: float) -> float:
    value = document.get(name)
    if value is not None and not is_seconds(value):
        raise bad_request(f"{name} must be a number of seconds, at most {LONGEST}")
    return default if value is None else float(value)


def objects(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    values = document.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise bad_request(f"{name} must be a list of objects")
    return values


SAFE_METHODS = ("GET", "HEAD")


def check_site(url: str, request: Request) -> None:
    """Refuse requests of other web sites. `url` is the address of the sandbox. Raises AzureError."""
    origin = request.headers.get("origin")
    if origin is not None and origin.lower() not in _own(url):
        raise other_site(origin)
    # Following a link to the sandbox from another site is not forbidden: that is a GET, which changes nothing.
    site = request.headers.get("sec-fetch-site", "none").lower()
    if request.method not in SAFE_METHODS and site not in ("none", "same-origin"):
        raise other_site(site)


def _own(url: str) -> set[str]:
    port = urlsplit(url).port
    return {f"http://{name}:{port}" for name in ("127.0.0.1", "localhost")}


# Refusals


def bad_request(message: str) -> AzureError:
    return AzureError(400, {"error": {"code": "BadRequest", "message": message}})


def other_site(origin: str) -> AzureError:
    message = f"This API accepts requests from local programs and its own page, not from other web sites ({origin})."
    return AzureError(403, {"error": {"code": "OtherSite", "message": message}})


def not_found(message: str) -> AzureError:
    return AzureError(404, {"error": {"code": "NotFound", "message": message}})


def method_not_allowed(methods: set[str]) -> AzureError:
    allowed = ", ".join(sorted(methods))
    return AzureError(
        405,
        {"error": {"code": "MethodNotAllowed", "message": f"Allowed methods: {allowed}."}},
        {"allow": allowed},
    )
