# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The users of a vault as one HTML page, grouped by the version of the key. Only the filter needs a script.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .._checks.usage import ANY, BATCH, NOT_IN_GRAPH, ONLY_BATCH
from .page_frame import Page, framed
from .page_text import count, day, prose, with_azure

Report = Mapping[str, Any]
_HEADS = ("User", "Subscription", "Version", "Since")
# The groups of users that name no version.
_LATEST, _NOT_KNOWN = "The latest version", "Version not known"

_STYLE = """
.group th { background: var(--band); padding-top: .75rem }
.users tbody + tbody { border-top: 2px solid var(--line) }
.users td { min-width: 7rem }
form { max-width: 24rem; margin: 1rem 0 .25rem }
@media screen and (max-width: 48rem) {
  .users .group { border: 0; border-radius: 0; padding: 0; margin: 1rem 0 0 }
  .users .group th { padding: .5rem .75rem }
}
@media print { .users tbody { break-inside: avoid } }
"""

_SCRIPT = """
(() => {
  "use strict";
  const all = (what, within = document) => [...within.querySelectorAll(what)];
  const form = document.forms[0], status = document.getElementById("shown"), users = all(".user");
  const show = (element, wanted) => {
    element.hidden = !wanted;
    return wanted;
  };
  const apply = () => {
    const text = form.elements.text.value.trim().toLowerCase();
    const fits = (element) => element.textContent.toLowerCase().includes(text);
    for (const key of all("#keys > section")) {
      const of_key = fits(key.querySelector("h2"));
      const groups = all("tbody", key).map((group) => {
        const of_group = of_key || fits(group.rows[0]);
        const rows = all(".user", group).map((row) => show(row, of_group || fits(row)));
        return show(group, of_group || rows.includes(true));
      });
      show(key, of_key || groups.includes(true));
    }
    const shown = users.filter((row) => !row.closest("[hidden]")).length;
    status.textContent = text ? `The filter matches ${shown} of ${users.length} users.` : "";
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  // A browser keeps the text when it loads the page again.
  apply();
})();
"""


def as_page(report: Report) -> str:
    title = f"Users of the key vault {report['vault_name']}"
    keys = "".join(map(_key, report["vault_keys"])) or "<p>The vault has no key.</p>"
    return framed(
        Page(
            title=title,
            header=(
                f'<h1>{escape(title)}</h1><p class="state">{escape(report["reason"])}</p>'
                f'<p class="soft">{prose(report["generated_on"])}.</p>{_warnings(report)}'
                '<form id="filters" role="search" hidden><label>Filter<input name="text" type="search" '
                'placeholder="User, group, subscription, version"></label></form><p id="shown" role="status"></p>'
            ),
            main=f'<div id="keys" tabindex="-1">{keys}</div>',
            target="keys",
            skip="To the keys and their users",
            style=_STYLE,
            script=_SCRIPT,
        )
    )


def _warnings(report: Report) -> str:
    hidden = [f"{one['scope']}: {one['reason']}" for one in report["unlisted"]]
    hidden += [report["not_listed"]] if report["not_listed"] else []
    if report["subscriptions_left_out"]:
        hidden.append(f"No user was searched for in the subscriptions {', '.join(report['subscriptions_left_out'])}.")
    hidden += [NOT_IN_GRAPH] if report["vault_used_by"] == ANY else []
    if report["vault_used_by"] == BATCH:
        hidden.append(ONLY_BATCH)
    return "".join(f'<div class="warning">{with_azure(one)}</div>' for one in hidden)


def _key(key: Report) -> str:
    by_version: dict[str, list[Report]] = {}
    for one in key["users"]:
        name = one["version"] or (_LATEST if one["follows_latest"] else _NOT_KNOWN)
        by_version.setdefault(name, []).append(one)
    versions = {one["version"]: one for one in key["versions"]}
    # First those that follow the latest version, because they use the newest one.
    names = [*(one for one in by_version if one not in versions), *versions]
    groups = "".join(_group(one, versions.get(one), by_version.get(one, [])) for one in names)
    name, heads = escape(key["name"]), "".join(f'<th scope="col">{one}</th>' for one in _HEADS)
    table = (
        f'<div class="wide" tabindex="0" role="region" aria-label="Versions and users of {name}">'
        f'<table class="users cards"><thead><tr>{heads}</tr></thead>{groups}</table></div>'
    )
    reason = escape(key["unknown"] or key["reason"])
    return f"<section><h2>Key {name}</h2><p>{reason}</p>{table if groups else ''}</section>"


def _group(name: str, version: Report | None, users: Sequence[Report]) -> str:
    """A version with the users that name it. `name` may be one of the groups without a version."""
    title = f"<b>{name if name in (_LATEST, _NOT_KNOWN) else f'Version {_short(name)}'}</b>"
    number, about = count(len(users), "user"), ""
    if version is not None:
        others = len(set(version["in_use_by"]) - {one["id"] for one in users})
        if others:
            number = f"{number}; {count(others, 'other')}" if users else count(others, "user")
            number += " may use it"
        title += f" {_when(version)}"
        about = f"<small>Created {day(version['created_on'])}. {prose(version['reason'])}</small>"
    head = f'<tr class="group"><th colspan="{len(_HEADS)}" scope="rowgroup">{title} {number}{about}</th></tr>'
    return f"<tbody>{head}{''.join(map(_user, users))}</tbody>"


def _user(user: Report) -> str:
    parts = user["id"].split("/")
    place = dict(zip(map(str.lower, parts[1::2]), parts[2::2], strict=False))
    cells = (
        _short(place.get("subscriptions", "")),
        "follows the latest" if user["follows_latest"] else "pinned" if user["version"] else "not known",
        day(user["changed_on"]) if user["changed_on"] else "not known",
    )
    title = f'<b title="{escape(user["id"])}">{escape(user["name"])}</b>'
    title += f"<small>{escape(place.get('resourcegroups', ''))}</small>"
    shown = "".join(
        f'<td data-head="{head}"><div>{cell}</div></td>' for head, cell in zip(_HEADS[1:], cells, strict=True)
    )
    return f'<tr class="user"><th scope="row">{title}</th>{shown}</tr>'


def _short(name: str) -> str:
    """An id, of which a wide screen shows the first eight characters."""
    return f'<code class="id" title="{escape(name)}">{escape(name)}</code>'


def _when(version: Report) -> str:
    if not version["enabled"]:
        return '<span class="mark info">disabled</span>'
    if version["may_be_disabled"]:
        return '<span class="mark ok">may be disabled now</span>'
    at = version["may_be_disabled_from"]
    if at:
        return f'<span class="mark medium">may be disabled from {day(at)}</span>'
    return '<span class="mark unknown">has to stay enabled</span>'
