# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report as a table for spreadsheets: a row for each account.

This module util is private to the collection.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from .report import open_findings

_PLAIN = (
    *(
        "name",
        "subscription_id",
        "subscription_name",
        "resource_group",
        "location",
        "provisioning_state",
        "state",
        "key_source",
        "vault_name",
        "key_name",
    ),
    *("version", "follows_latest", "newest_version", "newer_version_exists", "version_created_on", "version_age_days"),
    *("expires_on", "days_left", "key_type", "key_size", "rotated_by_key_vault", "access", "available"),
)
COLUMNS = (*_PLAIN, "worst", "open_findings", "accepted_findings", "unknown", "id")
# A spreadsheet reads a cell that begins with one of these characters as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(report: Mapping[str, Any]) -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(COLUMNS)
    rows.writerows([_cell(value) for value in _row(account)] for account in report["accounts"])
    return out.getvalue()


def _row(account: Mapping[str, Any]) -> list[Any]:
    opened = open_findings(account)
    return [
        *(account[name] for name in _PLAIN),
        opened[0]["severity"] if opened else None,
        " ".join(one["id"] for one in opened),
        " ".join(one["id"] for one in account["findings"] if one["accepted"]),
        " ".join(account["unknown"]),
        account["id"],
    ]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
