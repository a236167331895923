/*
Copyright (c) 2026, the azbatch.cmk authors
GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
*/

// A list of the versions below the title, if this site is in one of several folders: scripts/pages writes versions.json.
(async () => {
  const site = new URL(document.documentElement.dataset.content_root, location.href);
  const all = new URL("..", site);
  const current = site.pathname.slice(all.pathname.length, -1);
  const response = await fetch(new URL("versions.json", all));
  if (!response.ok) return;
  const versions = await response.json();
  const list = document.createElement("select");
  list.className = "versions";
  list.setAttribute("aria-label", "Version");
  list.append(...versions.map((name) => new Option(name, name, false, name === current)));
  list.addEventListener("change", async () => {
    const page = new URL(location.pathname.slice(site.pathname.length), new URL(`${list.value}/`, all));
    const exists = (await fetch(page, { method: "HEAD" })).ok;
    location.assign(exists ? page : new URL(`${list.value}/index.html`, all));
  });
  document.querySelector(".sidebar-brand").after(list);
})().catch(() => {
  // A site on a disk, or without a network, has no list.
});
