/* Copyright (c) 2026, the azbatch.cmk authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later */

(() => {
  "use strict";
  const button = document.getElementById("refresh");
  const status = document.getElementById("status");
  const key = "azure-sandbox: keep up to date";
  const seconds = 2;
  let busy = false;

  const isOn = () => button.getAttribute("aria-pressed") === "true";

  function turn(on) {
    button.setAttribute("aria-pressed", String(on));
    sessionStorage.setItem(key, String(on));
    status.textContent = on ? `every ${seconds} s` : "";
  }

  // Keep open sections open, and keep the keyboard focus.
  function replace(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("live");
    const live = document.getElementById("live");
    const focused = live.contains(document.activeElement) ? document.activeElement : null;
    const focusable = "a[href], summary";
    const place = focused ? [...live.querySelectorAll(focusable)].indexOf(focused) : -1;
    for (const details of live.querySelectorAll("details")) {
      const same = fresh.querySelector(`#${CSS.escape(details.id)}`);
      if (same) same.open = details.open;
    }
    live.replaceChildren(...fresh.childNodes);
    if (place >= 0) live.querySelectorAll(focusable)[place]?.focus({ preventScroll: true });
  }

  async function refresh() {
    const isReading = !getSelection().isCollapsed;
    if (!isOn() || busy || document.hidden || isReading) return;
    busy = true;
    try {
      const response = await fetch(location.href, { headers: { accept: "text/html" } });
      replace(await response.text());
      status.textContent = `every ${seconds} s`;
    } catch {
      status.textContent = "The sandbox does not respond.";
    } finally {
      busy = false;
    }
  }

  button.hidden = false;
  turn(sessionStorage.getItem(key) === "true");
  button.addEventListener("click", () => turn(!isOn()));
  setInterval(refresh, seconds * 1000);
})();
