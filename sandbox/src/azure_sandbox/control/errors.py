# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the control API answers when it is asked for what it does not do."""

from __future__ import annotations

from ..shared.web import AzureError


def bad_request(message: str) -> AzureError:
    return AzureError(400, {"error": {"code": "BadRequest", "message": message}})


def other_site(asked_by: str) -> AzureError:
    message = f"This API is for programs on this machine and for its own page, not for other web sites ({asked_by})."
    return AzureError(403, {"error": {"code": "OtherSite", "message": message}})


def not_found(message: str) -> AzureError:
    return AzureError(404, {"error": {"code": "NotFound", "message": message}})


def method_not_allowed(methods: set[str]) -> AzureError:
    allowed = ", ".join(sorted(methods))
    return AzureError(
        405, {"error": {"code": "MethodNotAllowed", "message": f"It takes {allowed}."}}, {"allow": allowed}
    )
