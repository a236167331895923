# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations of the login hosts."""

from __future__ import annotations

from ..shared.web import Route
from . import http

ROUTES: tuple[Route, ...] = (
    Route("POST", "/{tenant}/oauth2/v2.0/token", http.token_v2),
    Route("POST", "/{tenant}/oauth2/token", http.token_v1),
    Route("GET", "/{tenant}/v2.0/.well-known/openid-configuration", http.openid_configuration),
    Route("GET", "/{tenant}/.well-known/openid-configuration", http.openid_configuration),
    Route("GET", "/{tenant}/discovery/v2.0/keys", http.signing_keys),
    Route("GET", "/{tenant}/discovery/keys", http.signing_keys),
    Route("GET", "/{tenant}/discovery/instance", http.instance_discovery),
)
