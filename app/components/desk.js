// What the parts of the page share in one browser tab: the document as shown, and the selection.
const desk = (() => {
  const listeners = {};
  const values = {}; // what each part was last told to show

  const desk = {
    nodes: [], // the document's nodes, in order; see view.concept_list
    selection: [], // node ids, in the order they were chosen
    working: false, // a long act is under way
    drafts: [], // functions that say whether something half-typed would be lost with the page

    on(topic, listener) {
      (listeners[topic] ??= []).push(listener);
    },
    emit(topic, data) {
      for (const listener of listeners[topic] ?? []) listener(data);
    },
    // Tell a part what it shows, and hear it: also what was told before the part was there.
    show(part, value) {
      values[part] = value;
      desk.emit(part, value);
    },
    shown(part, listener) {
      desk.on(part, listener);
      if (values[part]) listener(values[part]);
    },
    work(working) {
      if (desk.working === working) return;
      desk.working = working;
      desk.emit("working", working);
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
})();
