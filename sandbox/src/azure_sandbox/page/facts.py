# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that the page shows, as plain values."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

from ..batch.key_check import KeyCheck
from ..key_vault.grants import Grants
from ..sandbox import Sandbox
from ..shared.timing import QUICK, REALISTIC
from ..world import World
from . import accounts, requests, shown, vaults
from .query import HEALTHS, SHOWN, SOURCES, PageQuery
from .shown import Rows

MOST_PRINCIPALS = 100


def facts(sandbox: Sandbox, page_query: PageQuery) -> dict[str, Any]:
    world = sandbox.world
    grants = Grants(world)
    return {
        "page_query": page_query,
        "sources": SOURCES,
        "healths": HEALTHS,
        "shows": SHOWN,
        "url": sandbox.url,
        "now": shown.moment(world.clock.time()),
        "accounts": accounts.facts(world, KeyCheck(world, grants), page_query),
        "vaults": vaults.facts(world, grants, page_query),
        "requests": requests.facts(world, sandbox.log, page_query),
        "faults": requests.faults(world, sandbox.faults),
        "timing": _timing(world),
        "latency": round(sandbox.latency * 1000),
        "subscriptions": [dataclasses.asdict(s) for s in world.resources.subscriptions()],
        "principals": _principals(world, page_query),
    }


def _timing(world: World) -> dict[str, Any]:
    named = {QUICK: "default", REALISTIC: "realistic"}
    fields = dataclasses.asdict(world.timing)
    values = {name: ("on" if value else "off") if isinstance(value, bool) else value for name, value in fields.items()}
    return {"name": named.get(world.timing, "custom"), "values": values}


def _principals(world: World, page_query: PageQuery) -> Rows[dict[str, Any]]:
    roles: defaultdict[str, list[str]] = defaultdict(list)
    for held in world.authorization.assignments("/", below=True, principal_id=None):
        role = world.authorization.role(held.role)
        roles[held.principal_id.lower()].append(
            f"{role.name if role else held.role} at {shown.place(world, held.scope)}"
        )
    everybody = list(world.directory.principals())
    found = [p for p in everybody if page_query.finds(p.display_name, p.object_id, p.app_id, p.resource_id or "")]
    rows = [
        {
            **shown.principal(world, principal.object_id),
            "client_id": principal.app_id,
            "tenant_id": principal.tenant_id,
            "resource_id": principal.resource_id,
            "roles": roles[principal.object_id.lower()],
        }
        for principal in found[:MOST_PRINCIPALS]
    ]
    return Rows(rows, len(found), len(everybody))
