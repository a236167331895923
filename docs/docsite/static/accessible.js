/*
Copyright (c) 2026, the azbatch.cmk authors
GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
*/

// Attributes for screen readers and keyboards that the theme and antsibull-docs lack.
for (const [selector, attribute, value] of [
  [".sidebar-drawer", "aria-label", "Menu"],
  [".toc-drawer", "aria-label", "On this page"],
  [".content-icon-container", "role", "region"],
  [".content-icon-container", "aria-label", "Tools"],
  [".caption[role=heading]", "aria-level", "2"],
]) {
  for (const element of document.querySelectorAll(selector)) element.setAttribute(attribute, value);
}
// antsibull-docs means `role`. The element is a link.
for (const element of document.querySelectorAll("[aria-role]")) element.removeAttribute("aria-role");
// An empty heading of a column or row is a cell without meaning.
for (const element of document.querySelectorAll("th")) {
  if (!element.textContent.trim()) element.replaceWith(document.createElement("td"));
}

// What is wider than the page scrolls, also with a keyboard.
const scrollable = () => {
  for (const element of document.querySelectorAll("pre, .table-wrapper")) {
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  }
};
scrollable();
addEventListener("resize", scrollable);

// The menu shows the entry of the page, also if the entry is far down.
const entry = document.querySelector(".sidebar-tree .current-page > .reference");
const menu = document.querySelector(".sidebar-scroll");
if (entry && menu) menu.scrollTop += entry.getBoundingClientRect().top - menu.getBoundingClientRect().top - menu.clientHeight / 2;
