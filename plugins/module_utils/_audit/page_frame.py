# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The frame of a report's page: one HTML file that needs no network and no other file, and can be read without
scripts, on a narrow screen, in the dark and on paper.

This module util is private to the collection.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import NamedTuple


class Page(NamedTuple):
    """`title` and `skip` are plain text, the other texts are HTML."""

    title: str
    header: str
    main: str
    # The element of the skip link, and the text of the link.
    target: str
    skip: str
    # What only this page needs.
    style: str = ""
    script: str = ""


def framed(page: Page) -> str:
    script = f"<script>{page.script}</script>" if page.script else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_policy(page.script)}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(page.title)}</title><style>{STYLE}{page.style}</style></head>\n"
        f'<body><a class="skip" href="#{page.target}">{escape(page.skip)}</a>'
        f"<header>{page.header}</header><main>{page.main}</main>\n{script}</body></html>\n"
    )


def _policy(script: str) -> str:
    """The Content-Security-Policy: the page runs only its own script and loads nothing, even if the name of a
    resource contains HTML."""
    rules = "default-src 'none'; style-src 'unsafe-inline'"
    if script:
        rules += f"; script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --band: #f3f5f7; --link: #0550ae;
  --critical: #a40e26; --high: #bc4c00; --medium: #7d5700; --low: #0550ae; --info: #57606a;
  --at_risk: #a40e26; --non_compliant: #8a5200; --unknown: #57606a; --ok: #116329;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #0d1117; --ink: #e6edf3; --soft: #9da7b3; --line: #3d444d; --band: #161b22; --link: #79c0ff;
    --critical: #ff7b72; --high: #ffa657; --medium: #e3b341; --low: #79c0ff; --info: #9da7b3;
    --at_risk: #ff7b72; --non_compliant: #e3b341; --unknown: #9da7b3; --ok: #56d364;
  }
}
* { box-sizing: border-box }
[hidden] { display: none !important }
body { margin: 0 auto; max-width: 84rem; padding: .75rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }
h1, h2, h3, p, li, small, th b, .warning { overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 .25rem }
h2 { font-size: 1.25rem; margin: 1.75rem 0 .75rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem }
h3 { font-size: 1.05rem; margin: 0 }
p { margin: .25rem 0 }
a { color: var(--link) }
small { display: block; font-size: .8rem; color: var(--soft) }
.soft, summary { color: var(--soft) }
summary { cursor: pointer }
.state { font-size: 1.1rem; font-weight: 600 }
.warning { border-left: .3rem solid var(--high); padding-left: .75rem; margin: .5rem 0 }
.warning details { font-size: .85rem }
.warning div + div { margin-top: .25rem }
.paper { display: none }
.skip { position: absolute; left: -99rem }
.skip:focus { left: 1rem; top: 1rem; background: var(--paper); padding: .5rem }
.at_risk { --tone: var(--at_risk) } .non_compliant { --tone: var(--non_compliant) }
.unknown, .under_way { --tone: var(--unknown) } .ok { --tone: var(--ok) }
.critical { --tone: var(--critical) } .high { --tone: var(--high) } .medium { --tone: var(--medium) }
.low { --tone: var(--low) } .info { --tone: var(--info) }
.mark { color: var(--tone); border: 1px solid var(--tone); border-radius: 1rem; padding: 0 .5rem; font-size: .85rem;
  font-weight: 600; white-space: nowrap }
label { font-size: .85rem; color: var(--soft) }
input, select, button { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--soft);
  border-radius: .3rem; padding: .25rem .5rem }
input, select { display: block; width: 100%; color: var(--ink); height: 2.1rem; font-size: .95rem }
#shown { color: var(--soft) }
figure { margin: 0; border: 1px solid var(--line); border-radius: .4rem; padding: .75rem }
figcaption { font-weight: 600 }
figure svg { width: 100%; height: auto; display: block; margin-top: .5rem }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif }
svg .count { font-weight: 600 }
svg rect { fill: var(--tone, var(--low)) }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
tbody th { font-weight: 400 }
td small { font-size: .75rem }
thead th { background: var(--band); white-space: nowrap }
/* The id of a subscription or a version shows its first eight digits. A pointer shows all of it, and a copy has all. */
@media screen {
  .id { max-width: 9.8ch; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
    font-variant-numeric: tabular-nums }
  code.id { display: inline-block; vertical-align: bottom }
}
.wide { overflow-x: auto }
code { font-family: ui-monospace, monospace; font-size: .9em }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
@media screen and (max-width: 48rem) {
  body { padding: .5rem 1rem 3rem; overflow-wrap: anywhere }
  h1 { font-size: 1.35rem }
  /* Cards: each row of a table is a list of its values. */
  .cards, .cards tbody, .cards tbody tr { display: block }
  .cards thead { position: absolute; left: -999rem }
  .cards tbody tr { border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .75rem; margin: .5rem 0 }
  .cards tbody :is(th, td) { display: grid; grid-template-columns: 6rem 1fr; gap: 0 .5rem; border: 0;
    padding: .15rem 0; text-align: left; min-width: 0 }
  .cards tbody th { display: block; font-size: 1rem }
  .cards tbody td > * { grid-column: 2; min-width: 0 }
  .cards td::before { color: var(--soft); grid-row: 1 / span 9 }
  .cards td[data-head]::before { content: attr(data-head) }
}
@page { size: landscape; margin: 12mm }
@media print {
  :root { color-scheme: light }
  html { font-size: 11px }
  body { max-width: none; padding: 0 }
  .skip, #filters { display: none }
  .paper { display: block }
  .wide { overflow: visible }
  details::details-content { content-visibility: visible; display: block; height: auto }
  thead, tr, figure { break-inside: avoid }
  h2, h3 { break-after: avoid }
}
"""
