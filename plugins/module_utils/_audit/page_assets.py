# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The style sheet and the script of the report's page. In Python, because a module on another host is
sent with nothing else.

This module util is private to the collection.
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --band: #f3f5f7; --link: #0550ae;
  --critical: #a40e26; --high: #bc4c00; --medium: #7d5700; --low: #0550ae; --info: #57606a;
  --at_risk: #a40e26; --breaks_rules: #9a5b00; --unknown: #57606a; --ok: #116329;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0d1117; --ink: #e6edf3; --soft: #9da7b3; --line: #3d444d; --band: #161b22; --link: #79c0ff;
    --critical: #ff7b72; --high: #ffa657; --medium: #e3b341; --low: #79c0ff; --info: #9da7b3;
    --at_risk: #ff7b72; --breaks_rules: #e3b341; --unknown: #9da7b3; --ok: #56d364;
  }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 90rem; padding: 1rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: .5rem 0 0 }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .25rem }
a { color: var(--link) }
.soft { color: var(--soft) }
.skip { position: absolute; left: -99rem }
.skip:focus { left: 1rem; top: 1rem; background: var(--paper); padding: .5rem }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; padding: 0; list-style: none }
.cards li { flex: 1 1 9rem; border: 1px solid var(--line); border-top: .3rem solid var(--tone, var(--line));
  border-radius: .4rem; padding: .5rem .75rem; background: var(--band) }
.cards b { display: block; font-size: 1.6rem; line-height: 1.2 }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem }
figure { margin: 0; border: 1px solid var(--line); border-radius: .4rem; padding: .75rem }
figcaption { font-weight: 600 }
figure svg { width: 100%; height: auto; display: block; margin-top: .5rem }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif }
svg .count { font-weight: 600 }
summary { cursor: pointer; color: var(--soft) }
.at_risk { --tone: var(--at_risk) } .breaks_rules { --tone: var(--breaks_rules) }
.unknown { --tone: var(--unknown) } .ok { --tone: var(--ok) }
.critical { --tone: var(--critical) } .high { --tone: var(--high) } .medium { --tone: var(--medium) }
.low { --tone: var(--low) } .info { --tone: var(--info) }
.mark { color: var(--tone); border: 1px solid var(--tone); border-radius: 1rem; padding: 0 .5rem; font-size: .85rem;
  white-space: nowrap }
svg rect { fill: var(--tone, var(--low)) }
svg .now { stroke: var(--soft); stroke-dasharray: 4 3 }
.charts + figure { margin-top: 1rem }
.charts + figure svg { min-width: 48rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
thead th { background: var(--band) }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit }
th button::after { content: " \\2195"; content: " \\2195" / ""; color: var(--soft) }
th[aria-sort=ascending] button::after { content: " \\2191"; content: " \\2191" / ""; color: var(--ink) }
th[aria-sort=descending] button::after { content: " \\2193"; content: " \\2193" / ""; color: var(--ink) }
.wide { overflow-x: auto }
.tools { display: flex; flex-wrap: wrap; gap: .75rem 1rem; align-items: end; margin: .75rem 0 }
.tools label { display: block; font-size: .85rem; color: var(--soft) }
input, select, .tools button, .finding button { font: inherit; color: inherit; background: var(--paper);
  border: 1px solid var(--soft); border-radius: .3rem; padding: .25rem .5rem }
button:disabled { opacity: .45 }
pre { background: var(--band); border: 1px solid var(--line); border-radius: .4rem; padding: .75rem; overflow-x: auto;
  font: .85rem/1.45 ui-monospace, monospace; margin: .5rem 0; max-height: 24rem }
.names { overflow-wrap: anywhere }
td.names { min-width: 9rem }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
@media print {
  :root { color-scheme: light }
  body { max-width: none; font-size: 10pt; padding: 0 }
  .tools, .skip, .finding button, th button::after { display: none }
  pre { max-height: none; white-space: pre-wrap; overflow-wrap: anywhere }
  section.finding, figure, tr { break-inside: avoid }
}
"""

SCRIPT = """
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const words = data.words, page = 100;
  const find = (id) => document.getElementById(id);
  const body = find("rows"), state = find("state"), finding = find("finding"), text = find("text");
  // A row is what the table shows and sorts by; numbers in place of words that occur often.
  const rows = data.rows.map((row) => ({
    cells: [row[0], words[row[1]], words[row[2]], data.states[row[3]][1], words[row[4]], words[row[5]], row[6], row[7]],
    rank: row[3], marks: row[8], id: row[9],
    search: [row[0], words[row[1]], words[row[2]], words[row[4]], words[row[5]]].join("\\n").toLowerCase(),
  }));
  let shown = rows, first = 0, column = -1, down = false;

  const value = (row) => column === 3 ? row.rank : column === 8 ? row.marks.length : row.cells[column];
  const order = (a, b) => {
    const x = value(a), y = value(b);
    if (x === null || y === null) return (x === null) - (y === null);
    const less = typeof x === "number" ? x - y : x.localeCompare(y);
    return down ? -less : less;
  };
  const cell = (row, content, kind) => {
    const made = row.insertCell();
    if (kind) made.className = kind;
    made.append(content ?? "\\u2013");
    return made;
  };
  const mark = (name, tone, accepted) => {
    const made = document.createElement("a");
    made.href = "#" + name;
    made.textContent = name + (accepted ? " (accepted)" : "");
    const around = document.createElement("div");
    around.className = tone;
    around.append(made);
    return around;
  };
  const fill = () => {
    body.replaceChildren();
    for (const one of shown.slice(first, first + page)) {
      const row = body.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = one.cells[0];
      head.title = one.id;
      row.append(head);
      cell(row, one.cells[1]);
      cell(row, one.cells[2]);
      const stands = document.createElement("span");
      stands.className = "mark " + data.states[one.rank][0];
      stands.textContent = one.cells[3];
      cell(row, stands);
      cell(row, one.cells[4], "names");
      cell(row, one.cells[5], "names");
      cell(row, one.cells[6], "number");
      cell(row, one.cells[7], "number");
      const marks = document.createElement("div");
      for (const [rule, accepted] of one.marks) marks.append(mark(data.rules[rule][0], data.rules[rule][1], accepted));
      cell(row, marks);
    }
    const last = Math.min(first + page, shown.length);
    find("shown").textContent = shown.length
      ? `${first + 1} to ${last} of ${shown.length} accounts` : "No account fits.";
    find("back").disabled = first === 0;
    find("on").disabled = last >= shown.length;
  };
  const choose = () => {
    const wanted = text.value.trim().toLowerCase();
    const rule = finding.value === "" ? null : Number(finding.value);
    const rank = state.value === "" ? null : Number(state.value);
    shown = rows.filter((row) => (rank === null || row.rank === rank)
      && (rule === null || row.marks.some((mark) => mark[0] === rule)) && row.search.includes(wanted));
    if (column >= 0) shown.sort(order);
    first = 0;
    fill();
  };
  const turn = (by) => {
    first += by * page;
    fill();
  };
  document.querySelectorAll("#accounts th button").forEach((button, number) => {
    button.addEventListener("click", () => {
      down = column === number ? !down : false;
      column = number;
      document.querySelectorAll("#accounts th").forEach((head) => head.removeAttribute("aria-sort"));
      button.parentElement.setAttribute("aria-sort", down ? "descending" : "ascending");
      choose();
    });
  });
  let waiting = 0;
  text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(choose, 120);
  });
  state.addEventListener("change", choose);
  finding.addEventListener("change", choose);
  find("back").addEventListener("click", () => turn(-1));
  find("on").addEventListener("click", () => turn(1));
  document.querySelectorAll("button[data-finding]").forEach((button) => button.addEventListener("click", () => {
    finding.value = button.dataset.finding;
    state.value = text.value = "";
    choose();
    find("accounts-title").scrollIntoView();
    finding.focus();
  }));
  document.querySelectorAll("button[data-copy]").forEach((button) => button.addEventListener("click", async () => {
    const code = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
  }));
  fill();
})();
"""
