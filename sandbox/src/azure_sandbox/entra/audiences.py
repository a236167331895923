# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tokens can be asked for."""

from __future__ import annotations

from ..shared.clouds import CLOUDS, Cloud

# Every tenant has these, even though the sandbox poses as none of them.
ELSEWHERE = ("https://graph.microsoft.com", "https://graph.windows.net", "https://batch.core.windows.net")


def known(resource: str, cloud: Cloud | None) -> bool:
    """`cloud` is the one whose login host was asked; none for the metadata address, which serves whatever it is."""
    clouds = CLOUDS if cloud is None else (cloud,)
    bare = resource.rstrip("/")
    return bare in ELSEWHERE or any(bare == each.vault_audience or bare in each.management_audiences for each in clouds)


def cloud_of(resource: str) -> Cloud:
    return next((cloud for cloud in CLOUDS if known(resource, cloud)), CLOUDS[0])
