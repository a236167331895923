# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HTTP connections of a task, which all clients of the SDKs share.

A client of the SDKs with its own transport has its own connections, and reads the proxies and certificates of
the environment for each request. In a fleet, that is a tenth of a task's processor time.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from . import sdk


def transport(adapter: Callable[[Any], Any] = lambda to_azure: to_azure) -> Any:
    """A transport for clients of the SDKs. `adapter` takes the HTTP adapter that sends to Azure, and returns the
    HTTP adapter that the clients use."""
    import requests
    from urllib3.util import Retry

    class Session(requests.Session):
        def __init__(self) -> None:
            super().__init__()
            self._merged: dict[tuple[str, str], Any] = {}

        def merge_environment_settings(self, url: Any, *settings: Any) -> Any:
            key = urlsplit(url).netloc, repr(settings)
            if key not in self._merged:
                self._merged[key] = super().merge_environment_settings(url, *settings)
            return self._merged[key]

    session = Session()
    # The SDKs retry by themselves.
    retries = Retry(total=False, redirect=False, raise_on_status=False)
    session.mount("https://", adapter(requests.adapters.HTTPAdapter(max_retries=retries)))
    return sdk.load("azure-core").pipeline.transport.RequestsTransport(session=session, session_owner=False)
