// Keeps the list of records current from /live. The server sends whole rows, already escaped.
"use strict";
(() => {
  const bar = document.getElementById("live");
  const body = document.getElementById("records");
  if (!bar || !body || !window.EventSource) return;
  const say = document.getElementById("live-state");
  const toggle = document.getElementById("live-toggle");
  const table = document.getElementById("table");
  const empty = document.getElementById("empty");
  const MOST = 200; // Rows kept: more make the page slow, and older ones are a click away.
  let source = null;
  let paused = false;

  const number = (row) => Number(row.dataset.id);

  const read = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    return [...template.content.querySelectorAll("tr[data-id]")];
  };

  const put = (row, fresh) => {
    const old = document.getElementById(row.id);
    if (old) {
      if (old.innerHTML === row.innerHTML && old.classList.contains("open") === row.classList.contains("open")) return;
      const focused = old.contains(document.activeElement);
      old.replaceWith(row);
      if (focused) row.querySelector(".c-what a")?.focus();
      return;
    }
    if (fresh) row.classList.add("fresh");
    let next = body.firstElementChild;
    while (next && number(next) > number(row)) next = next.nextElementSibling;
    body.insertBefore(row, next);
  };

  const tidy = () => {
    while (body.children.length > MOST) body.lastElementChild.remove();
    const none = body.children.length === 0;
    table.hidden = none;
    // What to do first stays until something has passed: logins and changes are no traffic.
    const welcome = "welcome" in empty.dataset && !body.querySelector("tr:not(.k-control)");
    empty.hidden = !none && !welcome;
  };

  const state = (name, text) => {
    bar.dataset.state = name;
    say.textContent = text;
  };

  const open = () => {
    let first = body.children.length === 0;
    state("wait", "connecting");
    source = new EventSource(bar.dataset.src);
    // Everything the newest page holds: also mends what was missed while the stream was down.
    source.addEventListener("page", (event) => {
      const rows = read(event.data);
      const known = new Set(rows.map((row) => row.id));
      const newest = body.firstElementChild ? number(body.firstElementChild) : 0;
      for (const row of [...body.children]) {
        if (!known.has(row.id)) row.remove();
      }
      for (const row of rows) put(row, !first && number(row) > newest);
      first = false;
      state("on", "live");
      tidy();
    });
    source.addEventListener("row", (event) => {
      for (const row of read(event.data)) put(row, true);
      tidy();
    });
    source.addEventListener("end", () => {
      close();
      state("off", "ended: reload the page");
      toggle.hidden = true;
    });
    source.onerror = () => {
      if (source && source.readyState === EventSource.CLOSED) state("off", "lost: reload the page");
      else state("wait", "reconnecting");
    };
  };

  const close = () => {
    if (source) source.close();
    source = null;
  };

  toggle.addEventListener("click", () => {
    paused = !paused;
    toggle.textContent = paused ? "Resume" : "Pause";
    if (paused) {
      close();
      state("off", "paused");
    } else {
      open();
    }
  });

  // A page left in the background of the history must not keep its stream.
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted && !paused) open();
  });

  open();
})();
