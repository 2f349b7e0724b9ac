const name = find(".title");
const read = find(".read select");
const conflict = find(".conflict");
const menu = find(".menu");
let shown = {}; // see view.bar

const draw = () => {
  const { title = "", document: id, saved, undo, redo, reading, languages = [], conflict: clash, no_model = "" } = shown;
  if (document.activeElement !== name) name.value = title;
  fit();
  document.title = title ? `${title} – Conceptscape` : "Conceptscape";

  const state = find(".state");
  state.hidden = desk.working || !id;
  state.textContent = saved ? "Saved" : "Not saved";
  state.disabled = !!saved;
  state.title = saved ? "Every change is saved as you make it" : "See why, and try again";
  if (saved) unsaved.close();
  else if (shown.unsaved) explain();

  for (const [selector, what, label] of [[".undo", "Undo", undo], [".redo", "Redo", redo]]) {
    const one = find(selector);
    one.disabled = !label || desk.working;
    one.title = label ? `${what}: ${label}` : `Nothing to ${what.toLowerCase()}`;
  }
  languageMenu(read, languages, [["", "as written"]], [["?", "Written in …"]]);
  read.value = reading ?? "";
  read.disabled = desk.working;
  showLanguage(read);
  desk.lang = shown.written;
  if (desk.noModel !== no_model) {
    desk.noModel = no_model;
    desk.emit("working", desk.working);
  }

  const items = [["text", "Text"], ["markdown", "Markdown"], ["json", "JSON with vectors"]];
  const language = languages.find(([code]) => code === reading)?.[2];
  if (language) items.push(["reading", `Text in ${language}`]);
  find(".items").replaceChildren(...items.map(([format, text]) =>
    make("button", { type: "button", onclick: () => ((menu.open = false), line.act("export", { format })) }, text)));

  if (clash && !conflict.open) {
    find(".conflict-text").textContent = clash;
    conflict.showModal();
  } else if (!clash && conflict.open) conflict.close();
  if (id) remember(id);
};

// The address names the document, so that a reload opens it again.
const remember = (id) => {
  const address = new URL(window.location);
  if (address.searchParams.get("doc") === id) return;
  address.searchParams.set("doc", id);
  window.history.replaceState(null, "", address);
};
desk.on("download", ({ name: file, type, text }) => {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: file });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
// A title is as wide as its words.
const ruler = document.createElement("canvas").getContext("2d");
const fit = () => {
  const style = getComputedStyle(name);
  ruler.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  name.style.width = `${Math.ceil(ruler.measureText(name.value || "Untitled").width) + 26}px`;
};

name.addEventListener("input", fit);
// A title that could not be given stays to be read, until the next change of the page.
const typed = () => name.value.trim() !== (shown.title ?? "").trim();
name.addEventListener("change", () => {
  const title = name.value;
  if (typed()) line.act("rename", { title })?.then((done) => done || ((name.value = title), fit()));
});
desk.drafts.push(() => document.activeElement === name && typed());
name.addEventListener("keydown", (event) => {
  if (event.key === "Enter") name.blur();
  if (event.key === "Escape") {
    name.value = shown.title ?? "";
    name.blur();
  }
});
name.addEventListener("blur", () => name.value.trim() || (name.value = shown.title ?? ""));
find(".stop").addEventListener("click", () => line.stop());
find(".undo").addEventListener("click", () => line.act("undo"));
find(".redo").addEventListener("click", () => line.act("redo"));
desk.on("history", (what) => !find(`.${what}`).disabled && line.act(what));
read.addEventListener("change", () => {
  if (read.value === "?") correct();
  else if (!line.act("read", { lang: read.value || null })) draw();
});

// How far a long act is.
desk.on("progress", (progress) => {
  find(".progress").hidden = !progress;
  find(".state").hidden = !!progress || !shown.document;
  if (!progress) return;
  const [label, done, total] = progress;
  find(".progress-text").textContent = total > 1 ? `${label}: ${done} of ${total}` : label;
  const gauge = find("progress");
  if (total > 1) [gauge.max, gauge.value] = [total, done];
  else gauge.removeAttribute("value");
});
desk.on("working", () => draw());

// What could not be saved.
const unsaved = find(".unsaved");
const explain = () => {
  find(".unsaved-text").textContent = shown.unsaved;
  find(".elsewhere").hidden = !shown.moved;
  find(".retry").classList.toggle("primary", !shown.moved); // the file that is gone rarely comes back
  if (shown.moved && !unsaved.open) unsaved.showModal();
};
find(".state").addEventListener("click", () => (shown.unsaved ? (explain(), unsaved.open || unsaved.showModal()) : line.act("save")));
for (const [selector, what] of [[".retry", "save"], [".elsewhere", "elsewhere"]])
  find(selector).addEventListener("click", () => (unsaved.close(), line.act(what)));
find(".unsaved .cancel").addEventListener("click", () => unsaved.close());

// The language that a text was read as may be wrong.
const written = find(".written");
const correct = () => {
  const { reading, languages, written: lang } = shown;
  read.value = reading ?? "";
  showLanguage(read);
  languageMenu(find(".written select"), languages);
  find(".written select").value = lang;
  showLanguage(find(".written select"));
  written.showModal();
};
find(".written .primary").addEventListener("click", () => {
  const lang = find(".written select").value;
  written.close();
  if (lang !== shown.written) line.act("written", { lang });
});
find(".written .cancel").addEventListener("click", () => written.close());
find(".able").addEventListener("click", () => desk.emit("abilities"));
find(".open").addEventListener("click", () => desk.emit("library"));
find(".copy").addEventListener("click", () => line.act("copy"));
find(".other").addEventListener("click", () => line.act("reopen", { document: shown.document }));
conflict.addEventListener("cancel", (event) => event.preventDefault());
document.addEventListener("click", (event) => menu.contains(event.target) || (menu.open = false));
menu.addEventListener("keydown", (event) => event.key === "Escape" && ((menu.open = false), find("summary").focus()));

desk.shown("bar", (bar) => {
  shown = bar;
  draw();
});
line.arrive();
