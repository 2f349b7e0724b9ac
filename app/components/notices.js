const banner = find(".banner");
const toasts = find(".toasts");
const HOW_LONG = { info: 8000, warning: 12000 }; // milliseconds

// One sentence at the foot of the page.
desk.on("say", ({ kind, text }) => {
  const toast = make("div", { class: `toast ${kind}` }, make("p", {}, text), make("button", { type: "button", "aria-label": "Close", onclick: () => toast.remove() }, "×"));
  for (const old of [...toasts.children]) if (old.firstChild.textContent === text) old.remove();
  toasts.append(toast);
  while (toasts.children.length > 3) toasts.firstChild.remove();
  setTimeout(() => toast.remove(), HOW_LONG[kind] ?? HOW_LONG.info);
});

// What the page shows, where the program no longer has it.
const text = () => desk.nodes.map((node) => node.text + (node.paragraph ? "\n\n" : " ")).join("").trim() + "\n";
let title = "";
let last = "calm";
desk.shown("bar", (bar) => {
  title = bar.title;
  find(".saved").dataset.id = bar.document;
});

desk.on("line", ({ state, why }) => {
  banner.hidden = state === "calm";
  find(".why").textContent = state === "lost" ? why : `The program does not answer${why ? ` (${why.trim().slice(0, 200)})` : ""}. What you typed is kept, and it is asked again every second.`;
  const arrived = desk.nodes.length > 0;
  find(".again").hidden = state === "lost" && arrived;
  for (const one of [".keep", ".file", ".saved"]) find(one).hidden = state !== "lost" || !arrived;
  if (state === "calm" && last === "silent") desk.emit("say", { kind: "info", text: "The program answers again." });
  last = state;
});
find(".again").addEventListener("click", () => line.again());
find(".keep").addEventListener("click", () => line.act("import", { text: text(), title, lang: desk.lang }));
find(".file").addEventListener("click", () => desk.emit("download", { name: "document.txt", type: "text/plain;charset=utf-8", text: text() }));
find(".saved").addEventListener("click", (event) => line.act("reopen", { document: event.currentTarget.dataset.id }));
