const panel = find(".inspector");
let place = null; // a point of the map being looked at: { x, y, frame, index }
let shown = null; // what the panel was built for; the same again is not rebuilt, so that a draft survives
let topic = null; // what is being asked about; answers on anything else come too late
let asked = 0; // the number of the latest question
let waiting = null; // the newest question not sent yet: one is under way at a time, and those between are skipped
let underway = false;
let onAnswer = () => {}; // (answer, whether it is the latest)

const seed = () => Math.floor(Math.random() * 1e6);
const act = (name, data) => line.act(name, data);
const ask = (about, data) => {
  asked += 1;
  topic = about;
  waiting = { data, key: [topic, asked] };
  next();
};
const next = async () => {
  if (underway || !waiting) return;
  const { data, key } = waiting;
  waiting = null;
  underway = true;
  const answer = await line.ask({ ask: "look", data });
  underway = false;
  next();
  if (key[0] === topic) onAnswer(answer, key[1] === asked);
};

// Pieces

const button = (text, onclick, look = "") => make("button", { type: "button", class: `does ${look}`.trim(), onclick, disabled: desk.working }, text);
const regenerate = (ids) => {
  const made = button(ids.length > 1 ? "Regenerate all" : "Regenerate", () => act("regenerate", { ids, seed: seed() }), "model");
  made.disabled ||= !!desk.noModel; // the space may have no concept model
  made.title = desk.noModel ?? "";
  return made;
};
const title = (text, more) => make("header", {}, make("h2", {}, text), more ? make("p", { class: "more" }, more) : null);
const row = (...children) => make("div", { class: "row" }, ...children.filter(Boolean));
const words = (text, look = "") => make("p", { class: `words ${look}`.trim() }, text);
const slider = (label, value, oninput, step = 0.01) => make("input", { type: "range", min: 0, max: 1, step, value, "aria-label": label, oninput });
const quote = (id, name) => {
  const node = desk.node(id);
  return make("button", { type: "button", class: "quote", title: "Select only this one", onclick: () => desk.select([id]) },
    make("span", { class: "name" }, name ?? String(desk.index(id) + 1)), make("span", { class: "words" }, node.text));
};
// A sentence that is not in the document: it waits dimmed until the server answers.
const proposal = (point) => {
  const text = make("p", { class: "words proposal waiting", "aria-live": "polite" }, "…");
  const refuse = make("p", { class: "more", hidden: true });
  return {
    element: make("div", { class: "found" }, text, refuse),
    wait: (at) => {
      text.classList.add("waiting");
      if (at) desk.emit("ghost", { at, waiting: true });
    },
    fill: (answer, latest) => {
      text.textContent = answer.text ?? "";
      text.hidden = !answer.text;
      text.classList.toggle("waiting", !latest);
      refuse.textContent = answer.refused ?? "";
      refuse.hidden = !answer.refused;
      if (answer.at) desk.emit("ghost", { at: answer.at });
    },
  };
};
const lot = (ids) => row(
  button("Duplicate", () => act("duplicate", { ids })),
  ids.length > 1 ? button("Merge", () => act("merge", { ids })) : null,
  regenerate(ids),
  button("Delete", () => act("delete", { ids, then: null })),
);

// Panels

const nothing = () => [
  title("Ideas, in order"),
  words("Each point is one sentence. The line is the order in which they are told.", "lead"),
  make("ul", { class: "ways" },
    ...[
      ["One sentence", "Select it to rewrite it, vary it, or let the model say it anew."],
      ["Two", "Slide from one meaning to the other. Shift-click or tap the numbers to select more."],
      ["Three", "Blend them, or reckon with them: a − b + c."],
      ["None", "Click an empty place on the map and read what lies there."],
    ].map(([head, text]) => make("li", {}, make("strong", {}, head), make("span", {}, text))),
  ),
  make("dl", { class: "keys" },
    ...[["↑ ↓", "choose"], ["Alt ↑ ↓", "move"], ["Shift ↑ ↓", "extend"], ["Enter", "edit"], ["Del", "delete"], ["Ctrl Z", "undo"]].flatMap(([key, what]) =>
      [make("dt", {}, make("kbd", {}, key)), make("dd", {}, what)]),
  ),
];

const one = (id) => {
  const node = desk.node(id);
  const text = make("textarea", { class: "draft", "aria-label": "The sentence", lang: node.html_lang, rows: 2 });
  text.value = node.text;
  const grow = () => ((text.style.height = "auto"), (text.style.height = `${text.scrollHeight + 2}px`));
  const changed = () => text.value.trim() !== node.text && text.value.trim() !== "";
  const rewrite = button("Rewrite", () => changed() && act("rewrite", { id, text: text.value }), "primary");
  const split = button("Split at the cursor", () => act("split", { id, position: text.selectionStart }));
  const settle = () => {
    rewrite.disabled = !changed() || desk.working;
    split.disabled = node.decoded || changed() || desk.working;
    grow();
  };
  text.addEventListener("input", settle);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (changed()) act("rewrite", { id, text: text.value });
      desk.emit("focus-list");
    } else if (event.key === "Escape") {
      event.stopPropagation();
      text.value = node.text;
      settle();
      desk.emit("focus-list");
    }
  });
  requestAnimationFrame(settle);

  const others = make("ul", { class: "others" });
  const more = button("Other wordings", () => {
    others.replaceChildren(make("li", { class: "words waiting" }, "…"));
    onAnswer = ({ texts, refused }) =>
      others.replaceChildren(...(texts?.length
        ? texts.map((other) => make("li", {}, make("button", { type: "button", class: "quote", title: "Say it like this", onclick: () => act("alternative", { id, text: other }) }, make("span", { class: "words" }, other))))
        : [make("li", { class: "more" }, refused)]));
    ask(`alternatives ${id}`, { want: "alternatives", id, n: 4, seed: seed() });
  });
  const amount = slider("How far to vary", 0.35, () => {}, 0.05);

  return [
    title(`Sentence ${desk.index(id) + 1}`, node.origin),
    node.decoded ? words(node.own, "original") : null,
    text,
    row(rewrite, split),
    node.parents.length ? make("section", {}, make("h3", {}, "Made from"), ...node.parents.map((parent) => quote(parent))) : null,
    node.decoded ? null : make("section", {}, make("h3", {}, "Same meaning"), row(more), others),
    make("section", {}, make("h3", {}, "Near meaning"),
      make("div", { class: "scale" }, make("span", {}, "near"), amount, make("span", {}, "far")),
      row(button("Vary", () => act("vary", { id, amount: Number(amount.value), seed: seed() })))),
    make("section", {}, make("h3", {}, "This sentence"), lot([id])),
  ];
};

const two = ([a, b]) => {
  const found = proposal();
  const share = make("output", {}, "50 %");
  const look = () => {
    const t = Number(range.value);
    share.textContent = `${Math.round(t * 100)} %`;
    found.wait();
    ask(`between ${a} ${b}`, { want: "between", a, b, t });
  };
  const range = slider("From the first sentence to the second", 0.5, look, 0.02);
  // The sentence changes on the way: each answer counts that comes while one slides.
  onAnswer = found.fill;
  look();
  return [
    title("Between two"),
    quote(a),
    make("div", { class: "between" }, found.element, range, make("div", { class: "scale ends" }, make("span", {}, String(desk.index(a) + 1)), share, make("span", {}, String(desk.index(b) + 1)))),
    quote(b),
    row(
      button("Insert it", () => act("interpolate", { a, b, t: Number(range.value) }), "primary"),
      desk.index(b) === desk.index(a) + 1
        ? button("Let the model fill in", () => act("infill", { a, b, seed: seed() }))
        : null,
    ),
    make("section", {}, make("h3", {}, "Both sentences"), lot([a, b])),
  ];
};

const several = (ids) => {
  const order = ids.slice(0, 3); // as chosen: a, b, c
  const found = proposal();
  const weights = new Map(ids.map((id) => [id, 0.5]));
  let sum = "blend";
  const body = make("div", { class: "sums" });
  const data = () => (sum === "blend" ? { want: "blend", ids, weights: ids.map((id) => weights.get(id)) } : { want: "arithmetic", ids: order });
  const look = () => {
    found.wait();
    ask(`${sum} ${data().ids}`, data());
  };
  const draw = () => {
    body.replaceChildren(...(sum === "blend"
      ? ids.map((id) => make("div", {}, quote(id), slider(`Weight of sentence ${desk.index(id) + 1}`, weights.get(id), (event) => (weights.set(id, Number(event.target.value)), look()), 0.05)))
      : [...order.map((id, i) => quote(id, ["a", "− b", "+ c"][i])), row(button("Change places", () => (order.push(order.shift()), draw())))]));
    for (const tab of tabs.children) tab.setAttribute("aria-selected", String(tab.dataset.sum === sum));
    look();
  };
  const tab = (name, text) => make("button", { type: "button", role: "tab", "data-sum": name, onclick: () => ((sum = name), draw()) }, text);
  const tabs = make("div", { class: "tabs", role: "tablist" }, tab("blend", "Blend"), ids.length === 3 ? tab("arithmetic", "a − b + c") : null);
  onAnswer = found.fill;
  draw();
  return [
    title(desk.plural(ids.length, "sentence")),
    tabs,
    body,
    found.element,
    row(button("Insert it", () => (sum === "blend" ? act("blend", { ids, weights: ids.map((id) => weights.get(id)) }) : act("arithmetic", { ids: order })), "primary")),
    make("section", {}, make("h3", {}, "All of them"), lot(desk.inOrder())),
  ];
};

const many = (ids) => [
  title(desk.plural(ids.length, "sentence"), "Drag them together, or merge them into one where they stand next to each other."),
  lot(desk.inOrder()),
];

const here = () => {
  const found = proposal();
  const { index } = place;
  onAnswer = found.fill;
  found.wait([place.x, place.y]);
  ask(`place ${place.x} ${place.y}`, { want: "place", x: place.x, y: place.y, frame: place.frame });
  return [
    title("Here lies", "What the decoder reads at this point of the map."),
    found.element,
    row(button("Insert here", () => act("place", place), "primary"), button("Leave", () => leave())),
    make("p", { class: "more" }, index ? `It would come after sentence ${index}.` : "It would come first."),
  ];
};

// What to show

const leave = () => {
  place = null;
  desk.emit("ghost", null);
  draw();
};
const draw = () => {
  const ids = desk.selection.length === 2 ? desk.inOrder() : desk.selection;
  const now = JSON.stringify([ids, place, ids.map((id) => [desk.index(id), desk.node(id)])]);
  if (now === shown) return;
  shown = now;
  topic = null;
  waiting = null;
  onAnswer = () => {};
  if (!place) desk.emit("ghost", null);
  const parts = place ? here() : [nothing, () => one(ids[0]), () => two(ids), () => several(ids)][Math.min(ids.length, 3)];
  const built = place ? parts : ids.length > 6 ? many(ids) : parts();
  panel.replaceChildren(...built.filter(Boolean));
  panel.scrollTop = 0;
};
desk.on("selection", (ids) => {
  if (ids.length) place = null;
  draw();
});
desk.on("place", (point) => {
  const last = Math.max(-1, ...desk.inOrder().map(desk.index));
  place = { ...point, index: last < 0 ? desk.nodes.length : last + 1 };
  desk.select([]);
});
desk.on("edit", () => {
  const draft = find(".draft");
  if (!draft) return;
  draft.focus();
  draft.setSelectionRange(draft.value.length, draft.value.length);
});
desk.on("working", (working) => {
  for (const one of panel.querySelectorAll("button.does")) one.disabled = working || (one.matches(".model") && !!desk.noModel);
  find(".draft")?.dispatchEvent(new Event("input"));
});
draw();
