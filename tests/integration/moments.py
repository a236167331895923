# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The moments of a run at which a test does something (`Wire.meddled`), by the meaning of the run's next request. Only
this file knows with which requests a run does that.

Each moment is a function that is true for the request of an SDK.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Moment = Callable[[Any], bool]


def _request(method: str, path: str) -> Moment:
    """`path` is a regular expression for a part of the URL, in which `?` begins the query."""
    found = re.compile(path)
    return lambda request: request.method == method and found.search(request.url) is not None


def after(first: Moment, then: Moment) -> Moment:
    """The first request `then` after a request `first`."""
    has_been = False

    def is_it(request: Any) -> bool:
        nonlocal has_been
        is_now = has_been and then(request)
        has_been = has_been or first(request)
        return is_now

    return is_it


def after_all(these: Moment) -> Moment:
    """The first other request after the requests `these`."""
    return after(these, lambda request: not these(request))


# Accounts


def creates_account(name: str = "account1") -> Moment:
    return _request("PUT", rf"/batchAccounts/{name}\?")


def moves_account(name: str = "account1") -> Moment:
    return _request("PATCH", rf"/batchAccounts/{name}\?")


lists_accounts = _request("GET", r"/batchAccounts\?")
lists_pools = _request("GET", "/pools")


def confirms_move(name: str = "account1") -> Moment:
    """Finds out whether the account is available after its move."""
    return after(moves_account(name), lists_pools)


# Vaults and access


creates_version = _request("POST", "/keys/key1/create")
reads_key = _request("GET", "/keys/key1")


def creates_vault(name: str = "vault-one") -> Moment:
    return _request("PUT", rf"/vaults/{name}\?")


# Keys

changes_version = _request("PATCH", "/keys/")
deletes = _request("DELETE", "")


def deletes_or_revokes(request: Any) -> bool:
    """Deletes a key or a role assignment, or removes permissions from an access policy."""
    return deletes(request) or _request("PUT", "/accessPolicies/re(move|place)")(request)
