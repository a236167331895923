# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The style sheet and the script of the report's page. They are Python strings, because Ansible transfers only
Python code to another host.

This module util is private to the collection.
"""

from __future__ import annotations

STYLE = """
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0 .75rem; padding: 0; list-style: none }
.tiles li { display: flex; flex: 1 1 auto; border: 1px solid var(--line); border-radius: .4rem; background: var(--band);
  border-top: .3rem solid var(--tone, var(--line)) }
.tiles a { display: flex; flex: 1 1 auto; gap: .5rem; align-items: baseline; padding: .4rem .75rem; color: inherit;
  border-radius: .3rem; text-decoration: none }
.tiles a:hover, .tiles a[aria-current] { box-shadow: 0 0 0 2px var(--tone, var(--ink)) }
.tiles b { font-size: 1.6rem; line-height: 1.2 }
.tiles span { white-space: nowrap }
/* The unavailable accounts within those at risk. */
.tiles a + a { border-left: 1px solid var(--line) }
form { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .5rem .75rem; margin: .25rem 0 }
button { cursor: pointer }
button:disabled { opacity: .45; cursor: default }
#chips { display: flex; flex-wrap: wrap; gap: .5rem; margin: .25rem 0; padding: 0; list-style: none }
#chips a { border: 1px solid var(--line); border-radius: 1rem; padding: .05rem .7rem; text-decoration: none;
  display: block }
#chips [href*="="]::after { content: " \\d7"; content: " \\d7" / "" }
.finding { border: 1px solid var(--line); border-left: .3rem solid var(--tone); border-radius: .4rem;
  padding: .6rem 1rem; margin: .6rem 0 }
.finding > summary { display: flex; gap: .25rem 1rem; color: var(--ink) }
.finding > summary::before { content: "\\25b8"; content: "\\25b8" / ""; color: var(--soft) }
.finding[open] > summary::before { content: "\\25be"; content: "\\25be" / "" }
.finding h3 { flex: 1 }
.total { font-weight: 600; white-space: nowrap }
.finding p { margin-top: .5rem }
.finding ul { margin: .5rem 0 0; padding: 0; list-style: none }
.finding li { display: grid; grid-template-columns: 9rem 1fr; gap: 0 1rem; padding: .4rem 0;
  border-top: 1px solid var(--line) }
.finding li > div { min-width: 0 }
.finding p > a { white-space: nowrap }
.count { font-weight: 600; font-variant-numeric: tabular-nums }
.finding time { font-weight: 600 }
.finding .names { font-size: .85rem; color: var(--soft) }
.finding details { margin-top: .5rem }
svg .now { stroke: var(--soft); stroke-dasharray: 4 3 }
.charts + figure { margin-top: 1rem }
.charts + figure svg { min-width: 48rem }
tbody th { min-width: 9rem }
#rows th small { max-width: 14rem; overflow-wrap: break-word }
tbody td:nth-child(2) { min-width: 6rem; overflow-wrap: anywhere }
tbody td:nth-child(5) { min-width: 12rem; overflow-wrap: anywhere }
td:nth-child(7) time { white-space: nowrap }
i { font-style: normal }
th i { margin-right: .75em; display: inline-block; max-width: 100% }
.number { text-align: right; font-variant-numeric: tabular-nums }
#rows td:nth-child(6) { font-variant-numeric: tabular-nums; white-space: nowrap }
@media (min-width: 48.01rem), print { #rows td:nth-child(6) { text-align: right } }
th button { font-weight: 600; background: none; border: 0; padding: 0 }
th button::after { content: " \\2195"; content: " \\2195" / ""; color: var(--soft) }
th[aria-sort=ascending] button::after { content: " \\2191"; content: " \\2191" / ""; color: var(--ink) }
th[aria-sort=descending] button::after { content: " \\2193"; content: " \\2193" / ""; color: var(--ink) }
/* Thousands of rows are laid out once the script has reduced them to a page of the table. */
@media (scripting: enabled) { #rows:not(.read) { display: none } }
@media screen { th:has(button) span { display: none } }
.pager { display: flex; flex-wrap: wrap; gap: .5rem .75rem; align-items: center; margin: .75rem 0 }
pre { background: var(--band); border: 1px solid var(--line); border-radius: .4rem; padding: .75rem; overflow: auto;
  font: .85rem/1.45 ui-monospace, monospace; margin: .5rem 0; max-height: 20rem }
.names { overflow-wrap: anywhere }
@media screen and (max-width: 48rem) {
  pre { white-space: pre-wrap }
  .tiles { display: grid; grid-template-columns: repeat(2, 1fr); gap: .5rem }
  .tiles li:first-child, .tiles li:has(a + a) { grid-column: 1 / -1 }
  .tiles a { padding: .3rem .5rem; gap: .4rem; font-size: .9rem }
  .tiles b { font-size: 1.35rem }
  .finding > summary { flex-wrap: wrap }
  .finding h3 { flex-basis: 75% }
  .total { flex-basis: 100% }
  .finding li { grid-template-columns: 1fr }
  #accounts td:nth-child(2)::before { content: "Subscription" }
  #accounts td:nth-child(3)::before { content: "Region" }
  #accounts td:nth-child(4)::before { content: "State" }
  #accounts td:nth-child(5)::before { content: "Key" }
  #accounts td:nth-child(6)::before { content: "Age" }
  #accounts td:nth-child(7)::before { content: "Expires" }
  #accounts td:nth-child(8)::before { content: "Findings" }
  #accounts .mark { justify-self: start }
}
@media print {
  .tiles b { font-size: 1.3rem }
  /* Chromium repeats the head of a table on each page only if there is no button in it. */
  .pager, .repair, #chips [href="#all"], #chips a::after, th button { display: none }
  .finding > summary::before, .finding details > summary { display: none }
  .finding, .finding li { break-inside: avoid }
}
"""

SCRIPT = """
(() => {
  "use strict";
  const find = (id) => document.getElementById(id);
  const all = (what, within = document) => [...within.querySelectorAll(what)];
  const number = (value) => value.toLocaleString("en");
  const accounts = (amount) => `${number(amount)} account${amount === 1 ? "" : "s"}`;
  const body = find("rows"), form = document.forms[0], page = 100;

  const causes = all("[data-cause]").map((line) => {
    const section = line.closest(".finding");
    return { line, section, id: line.dataset.cause, finding: section.id, severity: section.dataset.severity };
  });
  // The table is the data: each row is read once, and only the rows of one page are in the document.
  const rows = [...body.rows].map((row) => {
    const cells = [...row.cells];
    const expires = cells[6].querySelector("time");
    return {
      row, name: cells[0].firstChild.textContent, state: row.dataset.state,
      available: row.dataset.available,
      text: cells.map((cell) => cell.textContent).join("\\n").toLowerCase(),
      subscription: cells[1].querySelector("small").textContent,
      region: cells[2].textContent, vault: cells[4].querySelector("i")?.textContent,
      tags: all("i", cells[0]).map((tag) => tag.textContent),
      causes: row.dataset.causes.split(" ").filter(Boolean).map((index) => causes[index]),
      values: [
        cells[0].textContent, cells[1].textContent, cells[2].textContent, null, cells[4].textContent,
        cells[5].textContent, expires ? expires.dateTime : null, cells[7].childElementCount,
      ],
    };
  });
  const tiles = all(".tiles a").map((link) => {
    const [[name, value]] = [...new URLSearchParams(link.hash.slice(1))];
    return { link, name, value };
  });
  const states = tiles.filter((tile) => tile.name === "state").map((tile) => tile.value);
  for (const row of rows) {
    row.values[3] = states.indexOf(row.state);
    const age = parseInt(row.values[5].replaceAll(",", ""));
    row.values[5] = Number.isNaN(age) ? null : age;
  }

  const of_account = {
    text: (row, value) => row.text.includes(value.trim().toLowerCase()),
    state: (row, value) => row.state === value,
    available: (row, value) => row.available === value,
    subscription: (row, value) => row.subscription === value,
    region: (row, value) => row.region === value,
    vault: (row, value) => row.vault === value,
    tag: (row, value) => row.tags.some((tag) => tag === value || tag.startsWith(value + "=")),
  };
  const of_cause = ["severity", "finding", "cause"];
  const names = [...Object.keys(of_account), ...of_cause];
  // The filters are those of the address, and nowhere else.
  let wanted = new URLSearchParams(), shown = rows, first = 0, column = -1, down = false;

  const in_cause = (cause) => (!wanted.has("severity") || cause.severity === wanted.get("severity"))
    && (!wanted.has("finding") || cause.finding === wanted.get("finding"))
    && (!wanted.has("cause") || cause.id === wanted.get("cause"));
  const fits = (row, but) =>
    Object.entries(of_account).every(([name, test]) => name === but || !wanted.has(name) || test(row, wanted.get(name)))
    && (!of_cause.some((name) => wanted.has(name)) || row.causes.some(in_cause));
  const order = (a, b) => {
    const x = a.values[column], y = b.values[column];
    if (x === null || y === null) return (x === null) - (y === null);
    const less = typeof x === "number" ? x - y : x.localeCompare(y);
    return down ? -less : less;
  };

  const fill = () => {
    const last = Math.min(first + page, shown.length);
    body.replaceChildren(...shown.slice(first, last).map((one) => one.row));
    find("part").textContent = `${number(first + 1)} to ${number(last)} of ${number(shown.length)}`;
    all(".pager").forEach((pager) => { pager.hidden = shown.length <= page; });
    find("back").disabled = first === 0;
    find("on").disabled = last >= shown.length;
  };
  const sort = () => {
    shown = rows.filter((row) => fits(row));
    if (column >= 0) shown.sort(order);
    first = 0;
    fill();
  };
  const count = () => {
    for (const { link, name, value } of tiles) {
      const is_of = of_account[name];
      const amount = is_of ? rows.filter((row) => is_of(row, value) && fits(row, name)).length : rows.length;
      link.querySelector("b").textContent = number(amount);
      const current = is_of ? wanted.get(name) === value : !wanted.size;
      link.toggleAttribute("aria-current", current);
      if (current) link.setAttribute("aria-current", "true");
    }
  };
  const explain = () => {
    const affected = new Map(causes.map((cause) => [cause, []]));
    for (const row of shown) for (const cause of row.causes) if (in_cause(cause)) affected.get(cause).push(row);
    for (const [cause, of] of affected) {
      cause.line.hidden = !of.length;
      cause.line.querySelector(".count").textContent = accounts(of.length);
      const rest = of.length - 5;
      cause.line.querySelector(".names").textContent = of.slice(0, 5).map((row) => row.name).join(", ")
        + (rest > 0 ? ` and ${number(rest)} more` : "");
    }
    for (const section of all(".finding")) {
      const of = causes.filter((cause) => cause.section === section).flatMap((cause) => affected.get(cause));
      section.hidden = !of.length;
      if (of_cause.some((name) => wanted.has(name))) section.open = true;
      section.querySelector(".total").textContent = accounts(new Set(of).size);
      for (const more of all("details:not(.repair)", section)) {
        const rest = all("[data-cause]:not([hidden])", more).length;
        more.hidden = !rest;
        more.firstElementChild.textContent = `${number(rest)} more`;
      }
    }
    const [first, lost] = ["findings", "lost"].map((id) => all(".finding:not([hidden])", find(id)).length > 0);
    find("findings").hidden = lost && !first;
    find("lost").hidden = !lost;
    find("no-finding").hidden = first;
  };
  const chip = (content, hash) => {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = hash;
    link.textContent = content;
    item.append(link);
    return item;
  };
  const label = (name, value) => {
    const tile = tiles.find((one) => one.name === name && one.value === value);
    const option = [...(form[name]?.options ?? [])].find((one) => one.value === value);
    return tile?.link.lastChild.textContent ?? option?.text ?? value;
  };
  const describe = () => {
    find("shown").textContent = shown.length === rows.length
      ? `${rows.length > 1 ? "All " : ""}${accounts(rows.length)}.`
      : `Filters match ${number(shown.length)} of ${accounts(rows.length)}. The other accounts are not shown.`;
    const chips = [...wanted].map(([name, value]) =>
      chip(`${name}: ${label(name, value)}`, "#" + new URLSearchParams([[name, value]])));
    if (chips.length) chips.push(chip("Clear all filters", "#all"));
    find("chips").replaceChildren(...chips);
    find("chips").hidden = !chips.length;
    for (const field of form.elements) {
      const value = wanted.get(field.name) ?? "";
      if (field === document.activeElement && field.value.trim() === value) continue;
      field.value = value;
      // A value that no account has, such as that of an older report.
      if (field.value !== value) {
        field.add(new Option(value, value));
        field.value = value;
      }
    }
  };
  const apply = () => {
    const given = new URLSearchParams(location.hash.slice(1));
    wanted = new URLSearchParams(names.filter((name) => given.get(name)).map((name) => [name, given.get(name)]));
    sort();
    count();
    explain();
    describe();
  };
  const set = (name, value, replace) => {
    const next = new URLSearchParams(wanted);
    if (value) next.set(name, value);
    else next.delete(name);
    history[replace ? "replaceState" : "pushState"](null, "", "#" + (next.size ? next : "all"));
    apply();
  };
  const reveal = (target) => {
    if (target.hidden) {
      history.pushState(null, "", "#all");
      apply();
    }
    if ("open" in target) target.open = true;
    target.scrollIntoView();
    (target.querySelector("summary") ?? target).focus({ preventScroll: true });
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (!link) return;
    event.preventDefault();
    const hash = link.getAttribute("href").slice(1);
    const [[name, value]] = [...new URLSearchParams(hash)];
    if (hash === "all") {
      history.pushState(null, "", "#all");
      apply();
    } else if (hash.includes("=")) {
      set(name, wanted.get(name) === value && !link.dataset.to ? "" : value);
      if (link.dataset.to) reveal(find(link.dataset.to));
    } else reveal(find(hash));
  });
  addEventListener("hashchange", apply);
  let waiting = 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    if (event.target.name !== "text") set(event.target.name, event.target.value.trim());
  });
  form.text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => set("text", form.text.value.trim(), true), 120);
  });
  all("#accounts thead th").forEach((head, index, heads) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => {
      down = column === index ? !down : false;
      column = index;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort();
    });
    head.append(button);
  });
  const turn = (by) => {
    first += by * page;
    fill();
  };
  find("back").addEventListener("click", () => turn(-1));
  find("on").addEventListener("click", () => turn(1));
  // Paper has no pages to turn to.
  addEventListener("beforeprint", () => body.replaceChildren(...shown.map((one) => one.row)));
  addEventListener("afterprint", fill);
  all("button[data-copy]").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
  });
  // On a narrow screen, the current month is in the middle of the timeline.
  all(".wide:has(svg)").forEach((one) => {
    one.scrollLeft = (one.scrollWidth - one.clientWidth) / 2;
  });
  find("filters").hidden = find("shown").hidden = false;
  find("filters").open = matchMedia("(min-width: 48rem)").matches;
  apply();
  body.className = "read";
})();
"""
