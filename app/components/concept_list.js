const list = find(".concepts");
let shown = {}; // see view.concept_list
const live = find(".live");
const composer = find("#next-sentence");
const writer = find("#model");
let active = null; // the id that the keyboard stands on
let anchor = null; // where a range began

const announce = (message) => {
  live.textContent = "";
  requestAnimationFrame(() => (live.textContent = message));
};
desk.on("announce", announce);

// Drawing

const mark = (node) => {
  if (!node.mark) return null;
  return make("span", { class: `mark ${node.kind}`, title: node.origin }, node.mark);
};

const row = (node, i) => {
  const tags = [mark(node), node.tag ? make("span", { class: "tag", title: node.decoded ? `Written: ${node.own}` : null }, node.tag) : null];
  const item = make(
    "li",
    {
      id: `concept-${node.id}`,
      role: "option",
      "data-id": node.id,
      "aria-selected": "false",
      class: [node.paragraph && "paragraph", node.decoded && "decoded"].filter(Boolean).join(" "),
    },
    make("span", { class: "number", title: "Add to the selection" }, String(i + 1)),
    make("span", { class: "words" }, make("span", { class: "sentence", lang: node.html_lang }, node.text)),
    make("span", { class: "handle", title: "Drag to move (Alt + arrow keys)", "aria-hidden": "true" }, "⠿"),
  );
  if (tags.some(Boolean)) item.querySelector(".words").append(make("span", { class: "tags" }, ...tags));
  return item;
};

// A row that says the same as before is the same element: long documents are drawn as quickly as short ones.
let drawn = new Map(); // id -> [what the row was made from, the row]
const rows = (nodes) => {
  drawn = new Map(nodes.map((node, i) => {
    const made = JSON.stringify([i, node]);
    const [before, item] = drawn.get(node.id) ?? [];
    return [node.id, [made, made === before ? item : row(node, i)]];
  }));
  list.replaceChildren(...[...drawn.values()].map(([, item]) => item));
};

const draw = () => {
  const { nodes = [], select, reading, models = [], model } = shown;
  const first = !desk.nodes.length;
  desk.nodes = nodes;
  rows(nodes);
  list.hidden = !nodes.length;
  find(".empty").hidden = !!nodes.length;
  find(".reading").hidden = !reading;
  if (reading) {
    find(".reading-text").textContent = reading.decoded
      ? `Decoded into ${reading.name}. What was written is kept.`
      : `Everything is written in ${reading.name}.`;
    find(".keep").hidden = !reading.decoded;
  }
  writer.replaceChildren(...models.map(([kind, title]) => make("option", { value: kind }, title)));
  writer.value = model;
  writer.hidden = models.length < 2;
  desk.emit("document", shown);
  desk.select(select ?? desk.selection);
  if (select?.length) {
    activate(select[select.length - 1]);
    if (!first) show(active);
  }
};

const show = (id) => document.getElementById(`concept-${id}`)?.scrollIntoView({ block: "nearest", behavior: desk.calm() ? "auto" : "smooth" });

const activate = (id) => {
  active = id;
  if (id) list.setAttribute("aria-activedescendant", `concept-${id}`);
  else list.removeAttribute("aria-activedescendant");
};

desk.on("selection", (ids) => {
  const chosen = new Set(ids);
  if (!chosen.has(active)) activate(ids[ids.length - 1] ?? null);
  for (const item of list.children) {
    const on = String(chosen.has(item.dataset.id));
    if (item.getAttribute("aria-selected") !== on) item.setAttribute("aria-selected", on);
    item.classList.toggle("active", item.dataset.id === active && chosen.size > 0);
  }
  const last = Math.max(-1, ...desk.inOrder().map(desk.index));
  find(".where").textContent = last >= 0 && last < desk.nodes.length - 1 ? `after ${last + 1}` : "at the end";
});
desk.on("reveal", show); // the map asks
writer.addEventListener("change", () => line.act("model", { model: writer.value }) || (writer.value = shown.model));

// Selecting

const range = (from, to) => {
  const [a, b] = [desk.index(from), desk.index(to)].sort((x, y) => x - y);
  return desk.nodes.slice(Math.max(a, 0), b + 1).map((node) => node.id);
};

list.addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (!item || event.target.closest(".handle")) return;
  const id = item.dataset.id;
  activate(id);
  if (event.shiftKey && anchor) desk.select(range(anchor, id));
  else {
    anchor = id;
    if (event.ctrlKey || event.metaKey || event.target.closest(".number")) desk.toggle(id);
    else desk.select([id]);
  }
});
// Shift and a click take sentences, not the letters between two places.
list.addEventListener("mousedown", (event) => {
  if (!event.shiftKey || !event.target.closest("li")) return;
  event.preventDefault();
  list.focus({ preventScroll: true });
});
list.addEventListener("dblclick", (event) => {
  if (event.target.closest("li")) desk.emit("edit");
});

const step = (event, by) => {
  const at = desk.index(active);
  const to = Math.min(Math.max(at < 0 ? (by > 0 ? 0 : desk.nodes.length - 1) : at + by, 0), desk.nodes.length - 1);
  const id = desk.nodes[to]?.id;
  if (!id) return;
  activate(id);
  if (event.shiftKey && anchor) desk.select(range(anchor, id));
  else desk.select([(anchor = id)]);
  show(id);
};

// Move the selection one place up or down; the page moves it at once, the server confirms.
const nudge = (by) => {
  const ids = desk.inOrder();
  if (!ids.length || desk.working) return;
  const places = ids.map(desk.index);
  const to = by < 0 ? places[0] - 1 : places[places.length - 1] + 2;
  if (to < 0 || to > desk.nodes.length) return;
  move(ids, to);
  const now = desk.index(ids[0]) + 1;
  announce(`${ids.length > 1 ? desk.plural(ids.length, "sentence") : "Sentence"} moved to place ${now} of ${desk.nodes.length}.`);
  show(active);
};

const move = (ids, index) => {
  const places = ids.map(desk.index);
  if (places.every((place, i) => place === places[0] + i) && index >= places[0] && index <= places[0] + ids.length) return;
  if (!line.act("move", { ids, index })) return;
  const moved = desk.nodes.filter((node) => ids.includes(node.id));
  const front = desk.nodes.slice(0, index).filter((node) => !ids.includes(node.id));
  const back = desk.nodes.slice(index).filter((node) => !ids.includes(node.id));
  const breaks = desk.nodes.map((node) => node.paragraph); // breaks belong to places
  desk.nodes = [...front, ...moved, ...back].map((node, i) => ({ ...node, paragraph: breaks[i] }));
  rows(desk.nodes);
  desk.select(desk.selection);
};

list.addEventListener("keydown", (event) => {
  const plain = !event.ctrlKey && !event.metaKey;
  const keys = {
    ArrowDown: () => (event.altKey ? nudge(1) : step(event, 1)),
    ArrowUp: () => (event.altKey ? nudge(-1) : step(event, -1)),
    Home: () => step(event, -desk.nodes.length),
    End: () => step(event, desk.nodes.length),
    Enter: () => desk.emit("edit"),
    Delete: () => remove(),
    Backspace: () => remove(),
    " ": () => active && desk.toggle(active),
  };
  if (plain && keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  } else if (!plain && event.key.toLowerCase() === "a") {
    event.preventDefault();
    desk.select(desk.nodes.map((node) => node.id));
  }
});

const remove = () => {
  const ids = desk.inOrder();
  if (!ids.length) return;
  const after = desk.nodes[desk.index(ids[ids.length - 1]) + 1] ?? desk.nodes[desk.index(ids[0]) - 1];
  if (!line.act("delete", { ids, then: after?.id ?? null })) return;
  announce(`${desk.plural(ids.length, "sentence")} deleted.`);
};

// Dragging: pointer events serve mouse, pen and touch alike.

list.addEventListener("pointerdown", (event) => {
  const handle = event.target.closest(".handle");
  if (!handle || event.button) return;
  event.preventDefault();
  const id = handle.closest("li").dataset.id;
  const ids = desk.selection.includes(id) ? desk.inOrder() : [id];
  let index = null;
  handle.setPointerCapture(event.pointerId);
  for (const one of ids) document.getElementById(`concept-${one}`).classList.add("dragged");
  const line = make("li", { class: "drop", role: "presentation" });

  const follow = (at) => {
    const items = [...list.querySelectorAll("li[data-id]")];
    index = items.findIndex((item) => {
      const box = item.getBoundingClientRect();
      return at.clientY < box.top + box.height / 2;
    });
    if (index < 0) index = items.length;
    list.insertBefore(line, items[index] ?? null);
    const frame = list.getBoundingClientRect();
    if (at.clientY < frame.top + 36) list.scrollTop -= 12;
    if (at.clientY > frame.bottom - 36) list.scrollTop += 12;
  };
  const end = (at) => {
    handle.removeEventListener("pointermove", follow);
    handle.removeEventListener("pointerup", end);
    handle.removeEventListener("pointercancel", end);
    line.remove();
    for (const item of list.querySelectorAll(".dragged")) item.classList.remove("dragged");
    if (at.type === "pointerup" && index !== null) {
      move(ids, index);
      desk.select(ids);
      announce(`Moved to place ${desk.index(ids[0]) + 1} of ${desk.nodes.length}.`);
    }
  };
  handle.addEventListener("pointermove", follow);
  handle.addEventListener("pointerup", end);
  handle.addEventListener("pointercancel", end);
});

// Writing on

const write = () => {
  const text = composer.value;
  if (!text.trim()) return;
  const last = Math.max(-1, ...desk.inOrder().map(desk.index));
  const done = line.act("insert", { index: last < 0 ? desk.nodes.length : last + 1, text });
  if (!done) return;
  composer.value = "";
  grow();
  done.then((taken) => {
    if (taken) return;
    composer.value = [text, composer.value].filter(Boolean).join("\n"); // given back, before what was typed since
    grow();
  });
};
desk.drafts.push(() => composer.value.trim() !== "");
const grow = () => {
  composer.style.height = "auto";
  composer.style.height = `${composer.scrollHeight}px`;
};
composer.addEventListener("input", grow);
composer.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    write();
  } else if (event.key === "Escape") list.focus();
});
find(".composer").addEventListener("submit", (event) => event.preventDefault());
find(".continue").addEventListener("click", () => line.act("continue", { n: Number(find("#how-many").value) }));
find(".keep").addEventListener("click", () => line.act("translate"));
desk.on("working", (working) => {
  const button = find(".continue");
  button.disabled = working || !!desk.noModel;
  button.title = desk.noModel ?? "";
});
desk.on("focus-list", () => list.focus({ preventScroll: true }));

desk.shown("list", (value) => {
  shown = value;
  draw();
});
