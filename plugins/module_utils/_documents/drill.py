# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tags of a vault that describe a drill of a Batch account whose key is in the vault. Any later run can restore
what the drill has changed; a file of the controller would not exist in AWX.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.duration import moment
from .vault import Vault

DISABLE_KEY, REVOKE_ACCESS, CLOSE_FIREWALL = "disable_key", "revoke_access", "close_firewall"
KINDS = (DISABLE_KEY, REVOKE_ACCESS, CLOSE_FIREWALL)
_PREFIX = "azbatch-cmk-drill"
# The longest value of a tag of a resource.
_LONGEST = 256


@dataclass(frozen=True)
class Drill:
    """Times are in UTC. `key` is the identifier without a version. `refusal` is the response with which Batch refused
    the account."""

    kind: str
    account: str
    key: str
    started_at: str
    started_by: str
    refused_at: str | None = None
    refusal: str | None = None
    recovered_at: str | None = None

    def is_of(self, account_id: str) -> bool:
        return self.account.lower() == account_id.lower()

    @property
    def tags(self) -> dict[str, str]:
        values = {f"{_PREFIX}-{name.replace('_', '-')}": value for name, value in vars(self).items()}
        return {name: value[:_LONGEST] for name, value in values.items() if value}


def of_vault(vault: Vault) -> Drill | None:
    """The drill that the vault's tags describe. None if there is none."""
    tags = vault.get("tags") or {}
    values = {name: tags.get(f"{_PREFIX}-{name.replace('_', '-')}") for name in Drill.__dataclass_fields__}
    kind, account, key = values.pop("kind"), values.pop("account"), values.pop("key")
    if kind not in KINDS or not account or not key:
        return None
    started_at, started_by = values.pop("started_at") or "", values.pop("started_by") or ""
    return Drill(kind, account, key, started_at, started_by, **values)


def tags_with(vault: Vault, drill: Drill | None) -> dict[str, str]:
    """The vault's tags with those of the drill instead of those of an earlier drill."""
    others = {name: value for name, value in (vault.get("tags") or {}).items() if not name.startswith(f"{_PREFIX}-")}
    return {**others, **(drill.tags if drill else {})}


def describe(drill: Drill | None) -> dict[str, Any] | None:
    """The module's return value. Times between are in seconds."""
    if drill is None:
        return None
    return {
        "kind": drill.kind,
        "account_id": drill.account,
        "key_identifier": drill.key,
        "started_at": drill.started_at,
        "started_by": drill.started_by,
        "refused_at": drill.refused_at,
        "refusal": drill.refusal,
        "recovered_at": drill.recovered_at,
        "seconds_until_refused": _between(drill.started_at, drill.refused_at),
        "seconds_until_recovered": _between(drill.refused_at, drill.recovered_at),
        "passed": drill.refused_at is not None and drill.recovered_at is not None,
    }


def _between(begin: str | None, end: str | None) -> int | None:
    began, ended = (_time(one) for one in (begin, end))
    # The clocks of Azure's services may differ by a second.
    return None if began is None or ended is None else max(0, int(ended - began))


def _time(text: str | None) -> float | None:
    """None also if somebody has changed the tag."""
    try:
        return moment(text)
    except ValueError:
        return None


DONE = {
    DISABLE_KEY: "the key was disabled",
    REVOKE_ACCESS: "the access was revoked",
    CLOSE_FIREWALL: "the firewall was closed",
}


def summary(name: str, drill: Mapping[str, Any] | None) -> str:
    """One line for a person. `drill` is from `describe`."""
    if drill is None:
        return f"There is no unfinished drill of {name}."
    text = f"Drill of {name}: {DONE[drill['kind']]} at {drill['started_at']}."
    if drill["refused_at"]:
        text += f" Batch refused the account {drill['seconds_until_refused']} s later."
    if drill["recovered_at"]:
        text += f" {drill['seconds_until_recovered']} s after that, Batch accepted changes of the account again."
    return text
