// Keeps a page fresh: when one of the subjects changes that the page shows, fetches the page again and puts its <main> in
// place of the old one. The page says in `data-events` where it hears of its own subjects.
"use strict";
(() => {
  const main = () => document.querySelector("main");
  const address = document.body.dataset.events;
  if (!window.EventSource || !address) return;
  let busy = false, again = false;

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      // Leave a page alone while somebody types or chooses in it.
      const active = document.activeElement;
      if (active && active.closest("main form") && active.tagName !== "BUTTON") return;
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
      if (!fresh || fresh.innerHTML === main().innerHTML) return;
      for (const old of main().querySelectorAll("details[id]")) {
        const same = fresh.querySelector("#" + CSS.escape(old.id));
        if (same) same.open = old.open;
      }
      const atEnd = new Set();
      for (const log of main().querySelectorAll("details[id] pre.log")) {
        if (log.scrollTop + log.clientHeight >= log.scrollHeight - 4) atEnd.add(log.closest("details").id);
      }
      main().replaceWith(fresh);
      for (const id of atEnd) {
        const log = document.querySelector("#" + CSS.escape(id) + " pre.log");
        if (log) log.scrollTop = log.scrollHeight;
      }
    } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  }

  const events = new EventSource(address);
  // What changed between the page and the connection, or while there was none, sends no event.
  events.addEventListener("open", refresh);
  events.addEventListener("change", refresh);
})();
