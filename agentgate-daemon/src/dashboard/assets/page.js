// Comforts of the pages, none of them needed: the viewer's time, keys, copying, and offers while a filter is typed.
"use strict";
(() => {
  // Times are in UTC; where the viewer's clock says otherwise, so does the page.
  const local = (time) => {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime()) || at.getTimezoneOffset() === 0) return "";
    return ` (${at.toLocaleString()} your time)`;
  };
  for (const time of document.querySelectorAll("time[data-local]")) time.after(local(time));
  document.addEventListener("mouseover", (event) => {
    const time = event.target.closest?.("time[title]:not([data-seen])");
    if (!time) return;
    time.dataset.seen = "";
    time.title += local(time);
  });

  for (const button of document.querySelectorAll("button.copy")) {
    if (!navigator.clipboard) break;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
    });
  }

  const field = document.getElementById("q");
  const offers = document.getElementById("q-offers");
  if (!field || !offers) return;

  const panes = [...document.querySelectorAll("details.more")];
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") for (const pane of panes) pane.open = false;
    const typing = event.target.closest?.("input, select, textarea, [contenteditable]");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  });

  // What is empty says nothing, and makes addresses long.
  field.form.addEventListener("submit", () => {
    for (const input of field.form.elements) input.disabled = input.name !== "" && input.value.trim() === "";
  });
  const enable = () => {
    for (const input of field.form.elements) input.disabled = false;
  };
  // What is sent is settled by then; a page that does not come leaves this one in use.
  field.form.addEventListener("submit", () => setTimeout(enable));
  window.addEventListener("pageshow", enable);

  // What is wrong is what is typed over.
  if (field.dataset.wrongFrom) {
    field.focus();
    field.setSelectionRange(Number(field.dataset.wrongFrom), Number(field.dataset.wrongTo));
  }

  const fields = [...document.querySelectorAll("a[data-field]")].map((link) => ({
    name: `${link.dataset.field.replace("NAME", "")}${link.dataset.field.endsWith("NAME") ? "" : ":"}`,
    what: link.dataset.what,
    values: link.dataset.values.split(" ").filter(Boolean),
  }));
  const MOST = 12; // Offers shown at once.
  let at = -1;

  // The word that is typed: its beginning in the field, and its text without a minus.
  const word = () => {
    const before = field.value.slice(0, field.selectionStart);
    const text = /[^\s()]*$/.exec(before)[0].replace(/^-/, "");
    return { start: before.length - text.length, text };
  };

  const offered = (typed) => {
    const text = typed.toLowerCase();
    if (!text || text.includes('"')) return [];
    if (!text.includes(":")) {
      return fields.filter((one) => one.name.startsWith(text)).map((one) => ({ text: one.name, what: one.what }));
    }
    const known = fields.flatMap((one) => one.values.map((value) => one.name + value));
    const seen = [...document.querySelectorAll("[data-is]")].map((element) => element.dataset.is);
    const found = new Set([...known, ...seen].filter((one) => one.toLowerCase().startsWith(text) && one.length > text.length));
    return [...found].map((one) => ({ text: one, what: "" }));
  };

  const close = () => {
    at = -1;
    offers.hidden = true;
    offers.replaceChildren();
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  };

  const choose = (to) => {
    const items = offers.children;
    at = (to + items.length) % items.length;
    [...items].forEach((item, index) => item.setAttribute("aria-selected", String(index === at)));
    field.setAttribute("aria-activedescendant", items[at].id);
    items[at].scrollIntoView({ block: "nearest" });
  };

  const put = (text, start) => {
    const end = field.selectionStart;
    // A field waits for its value; a whole condition is done.
    const space = /[:.]$/.test(text) ? "" : " ";
    field.setRangeText(text + space, start, end, "end");
    field.focus();
    field.dispatchEvent(new Event("input"));
  };

  const open = () => {
    const { start, text } = word();
    const found = field.selectionStart === field.selectionEnd ? offered(text).slice(0, MOST) : [];
    close();
    if (found.length === 0) return;
    offers.replaceChildren(
      ...found.map((one, index) => {
        const item = document.createElement("li");
        item.id = `q-offer-${index}`;
        item.role = "option";
        const code = document.createElement("code");
        code.textContent = one.text;
        const what = document.createElement("span");
        what.className = "dim";
        what.textContent = one.what;
        item.append(code, what);
        // Before the field loses the focus.
        item.addEventListener("mousedown", (event) => {
          event.preventDefault();
          put(one.text, start);
        });
        return item;
      }),
    );
    offers.hidden = false;
    field.setAttribute("aria-expanded", "true");
  };

  field.setAttribute("role", "combobox");
  field.setAttribute("aria-autocomplete", "list");
  field.setAttribute("aria-controls", offers.id);
  field.setAttribute("aria-expanded", "false");
  field.addEventListener("input", open);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (offers.hidden) {
      if (event.key === "Escape" && panes.every((pane) => !pane.open)) field.blur();
      return;
    }
    const keys = { ArrowDown: at + 1, ArrowUp: at < 0 ? -1 : at - 1 };
    if (event.key in keys) choose(keys[event.key]);
    else if (event.key === "Escape") close();
    else if (event.key === "Tab" || (event.key === "Enter" && at >= 0)) {
      put(offers.children[Math.max(at, 0)].firstChild.textContent, word().start);
    } else return;
    event.preventDefault();
  });

  for (const link of document.querySelectorAll("a[data-field]")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      const end = field.value.length;
      field.setSelectionRange(end, end);
      const gap = end > 0 && !/\s$/.test(field.value) ? " " : "";
      put(`${gap}${link.dataset.field === "fact.NAME" ? "fact." : `${link.dataset.field}:`}`, end);
    });
  }
})();
