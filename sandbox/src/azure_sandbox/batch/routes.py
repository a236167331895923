# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations of Microsoft.Batch."""

from __future__ import annotations

from ..web import Route

PROVIDER = "Microsoft.Batch"

API_VERSIONS = frozenset(
    {
        "2018-12-01",
        "2019-04-01",
        "2019-08-01",
        "2020-03-01",
        "2020-03-01-preview",
        "2020-05-01",
        "2020-09-01",
        "2021-01-01",
        "2021-06-01",
        "2022-01-01",
        "2022-06-01",
        "2022-10-01",
        "2023-05-01",
        "2023-11-01",
        "2024-02-01",
        "2024-07-01",
        "2025-06-01",
        "2026-08-01",
    }
)

ROUTES: tuple[Route, ...] = ()
