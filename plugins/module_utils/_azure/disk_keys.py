# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys that the pools of Batch accounts encrypt their disks with. A pool must not lose its key (invariant I2).

A pool may use any key, also that of another account, and no request lists the pools of several accounts. Therefore
the pools of each account are listed.

This module util is private to the collection.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from .._checks.usage import DiskKey, Unlisted
from .._core.concurrent import map_concurrent, value_or_error
from .._core.documents import Account, Pool
from .._core.duration import moment
from .._core.errors import CmkError, Denied, NotFound
from .._core.ids import is_key_identifier, place_of
from .._resources.account.document import POOLS_READ, disk_encryption, is_unavailable
from .resources import Resources
from .session import Session

# For up to twenty accounts, each task lists the pools again. For more accounts, the tasks of the run share a list
# for a while. Otherwise the number of requests of a run would be the square of the number of accounts.
_ASKED_EACH_TIME = 20
_SECONDS_FOR_EACH_MORE = 0.1


class DiskKeys:
    def __init__(self, session: Session, resources: Resources) -> None:
        self._session = session
        self._resources = resources

    def read(self, accounts: Iterable[Account]) -> tuple[list[DiskKey], list[Unlisted]]:
        """The keys of all pools of the accounts, and the subscriptions in which the caller may not list pools."""
        # An account that is being created has no pools, and is not available yet.
        made = [one["id"] for one in accounts if one["properties"].get("provisioningState") != "Creating"]
        allowed_age = max(0, len(made) - _ASKED_EACH_TIME) * _SECONDS_FOR_EACH_MORE
        asked: dict[str, Any] = self._session.cache.get(
            lambda: self._of_each(made), "disk keys", not_before=time.monotonic() - allowed_age
        )
        of_each = {**asked, **self._of_each([name for name in made if name not in asked])}
        answers = [of_each[name] for name in made]
        failures = [one["failure"] for one in answers if one["failure"]]
        return [disk for one in answers for disk in one["disks"]], _by_subscription(failures)

    def _of_each(self, accounts: Iterable[str]) -> dict[str, Any]:
        return map_concurrent(self._of, accounts)

    def _of(self, account_id: str) -> dict[str, Any]:
        try:
            pools = self._pools(account_id)
        except CmkError as reason:
            if isinstance(reason, Denied) and not is_unavailable(reason):
                return {"disks": [], "failure": {"scope": account_id, "reason": reason.msg, "action": POOLS_READ}}
            # Its pools may use any key. That keeps the keys, but does not stop the rotation of other accounts.
            return {"disks": [_unknown(account_id)], "failure": None}
        return {"disks": [disk for pool in pools for disk in _keys(pool)], "failure": None}

    def _pools(self, account_id: str) -> list[Pool]:
        try:
            return self._resources.pools(account_id)
        except NotFound:
            # Azure is eventually consistent: for a moment, it may not find an account that exists.
            if isinstance(value_or_error(lambda: self._resources.account(account_id)), NotFound):
                return []
            return self._resources.pools(account_id)


def _keys(pool: Pool) -> list[DiskKey]:
    # A disk encryption set is a resource of Azure Compute. It has its own key, which the document of a pool does
    # not show.
    if '"diskEncryptionSet"' in json.dumps(pool["properties"]):
        return [_unknown(pool["id"])]
    own = disk_encryption(pool).get("customerManagedKey") or {}
    if not own.get("keyUrl"):
        return []
    if not is_key_identifier(own["keyUrl"]):
        return [_unknown(pool["id"])]
    assigned = pool.get("identity", {}).get("userAssignedIdentities", {})
    reference = (own.get("identityReference") or {}).get("resourceId", "").lower()
    named = [value for name, value in assigned.items() if name.lower() == reference]
    principals = [value.get("principalId") for value in named or assigned.values()]
    return [
        {
            "id": pool["id"],
            "key": own["keyUrl"],
            "changed_at": moment(pool["properties"].get("lastModified")),
            "follows_latest": bool(own.get("rotationToLatestKeyVersionEnabled")),
            "principals": [one for one in principals if one] if all(principals) and principals else None,
        }
    ]


def _unknown(resource_id: str) -> DiskKey:
    return {"id": resource_id, "key": None, "changed_at": None, "follows_latest": False, "principals": None}


def _by_subscription(failures: Sequence[Unlisted]) -> list[Unlisted]:
    """The missing right, reported once for each subscription with the first reason."""
    denied: dict[str, list[Unlisted]] = {}
    for one in failures:
        denied.setdefault(f"/subscriptions/{place_of(one['scope'])[0]}", []).append(one)
    return [
        {"scope": scope, "reason": f"{len(of_scope)} of the accounts: {of_scope[0]['reason']}", "action": POOLS_READ}
        for scope, of_scope in denied.items()
    ]
