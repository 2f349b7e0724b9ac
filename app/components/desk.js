// What the parts of the page share in one browser tab: the document as shown, the selection, and the line of acts
// to the server. Every part's script starts with this one; the first to run makes the desk.
const desk = (window.conceptscape ??= (() => {
  const listeners = {};
  const waiting = []; // acts not sent yet: one is under way at a time, so they arrive in order
  let sent = 0;
  let answered = 0;

  const next = () => {
    if (sent > answered || !waiting.length) return;
    const act = waiting.shift();
    sent = act.data.number;
    act.trigger("act", act.data);
  };

  const desk = {
    nodes: [], // the document's nodes, in order; see view.document
    selection: [], // node ids, in the order they were chosen
    working: false, // a long act is under way
    asked: 0, // the number of the last act; a view that answers an earlier one is out of date

    on(topic, listener) {
      (listeners[topic] ??= []).push(listener);
    },
    emit(topic, data) {
      for (const listener of listeners[topic] ?? []) listener(data);
    },

    // Ask the server to change something.
    act(trigger, name, data = {}) {
      if (desk.working) return desk.announce("Something is still running. Wait for it, or press Stop.");
      desk.asked += 1;
      waiting.push({ trigger, data: { ...data, act: name, number: desk.asked } });
      next();
    },
    answered: () => answered,
    answer(number) {
      answered = Math.max(answered, number ?? 0);
      next();
    },

    index: (id) => desk.nodes.findIndex((node) => node.id === id),
    node: (id) => desk.nodes.find((node) => node.id === id),
    // Selected ids in document order.
    inOrder: () => {
      const chosen = new Set(desk.selection);
      return desk.nodes.filter((node) => chosen.has(node.id)).map((node) => node.id);
    },

    select(ids) {
      const known = new Set(desk.nodes.map((node) => node.id));
      desk.selection = [...new Set(ids)].filter((id) => known.has(id));
      desk.emit("selection", desk.selection);
    },
    toggle(id) {
      desk.select(desk.selection.includes(id) ? desk.selection.filter((one) => one !== id) : [...desk.selection, id]);
    },

    announce: (message) => desk.emit("announce", message),
    calm: () => window.matchMedia("(prefers-reduced-motion: reduce)").matches,
    narrow: () => window.matchMedia("(max-width: 900px)").matches,
    plural: (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`,
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable=true]");
    if (typing || document.querySelector("dialog[open]")) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      desk.emit("history", event.shiftKey ? "redo" : "undo");
    } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "y") {
      event.preventDefault();
      desk.emit("history", "redo");
    } else if (event.key === "Escape") {
      desk.select([]);
      desk.emit("ghost", null);
    }
  });
  return desk;
})());

// An element: make("button", { class: "quiet", onclick: f }, "Text", child). Text is always text, never markup.
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") node[name] = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};
// A menu of languages, each [code, own name, English name]. A long one is searched by typing either name.
const languageMenu = (select, languages, first = [], last = []) => {
  const option = ([code, own]) => make("option", { value: code, lang: "" }, own);
  select.replaceChildren(...[...first, ...languages, ...last].map(option));
  if (languages.length <= 12) return;
  const names = [...first, ...languages, ...last].map(([code, own, english]) => [code, !english || own === english ? own : `${own} – ${english}`]);
  let search = select.parentElement.querySelector(".language");
  if (!search) {
    const list = make("datalist", { id: `languages-${Math.random().toString(36).slice(2)}` });
    search = make("input", { class: "language", list: list.id, autocomplete: "off", spellcheck: "false", placeholder: "Find a language", "aria-label": select.getAttribute("aria-label") ?? "Language" });
    search.list_ = list;
    select.after(search, list);
    select.hidden = true;
    search.addEventListener("focus", () => (search.value = ""));
    search.addEventListener("blur", () => search.show());
    search.addEventListener("change", () => {
      const typed = search.value.trim().toLowerCase();
      const found = search.names.find(([code, name]) => [code.toLowerCase(), name.toLowerCase(), ...name.toLowerCase().split(" – ")].includes(typed));
      if (found && found[0] !== select.value) {
        select.value = found[0];
        select.dispatchEvent(new Event("change"));
      }
      search.blur();
    });
  }
  search.names = names;
  search.show = () => {
    search.value = names.find(([code]) => code === select.value)?.[1] ?? "";
    search.disabled = select.disabled;
  };
  search.list_.replaceChildren(...names.map(([, name]) => make("option", { value: name })));
};
// Show in the field what its menu holds, after the menu was set by the page.
const showLanguage = (select) => {
  const search = select.parentElement.querySelector(".language");
  if (search && document.activeElement !== search) search.show();
};
const find = (selector) => element.querySelector(selector);
