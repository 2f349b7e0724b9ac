const name = find(".title");
const read = find(".read select");
const conflict = find(".conflict");
const menu = find(".menu");
const act = (what, data) => desk.act(trigger, what, data);

const draw = () => {
  const { title = "", document: id, saved, undo, redo, reading, languages = [], progress, conflict: clash, download, number, no_model = "" } = props.value ?? {};
  desk.answer(number);
  if (desk.working !== !!progress) {
    desk.working = !!progress;
    desk.emit("working", desk.working);
  }
  if (document.activeElement !== name) name.value = title;
  fit();
  document.title = title ? `${title} – Conceptscape` : "Conceptscape";

  const state = find(".state");
  state.hidden = !!progress || !id;
  state.textContent = saved ? "Saved" : "Not saved";
  state.disabled = !!saved;
  state.title = saved ? "Every change is saved as you make it" : "Try to save again";
  find(".progress").hidden = !progress;
  if (progress) {
    const [label, done, total] = progress;
    find(".progress-text").textContent = total > 1 ? `${label}: ${done} of ${total}` : label;
    const gauge = find("progress");
    if (total > 1) [gauge.max, gauge.value] = [total, done];
    else gauge.removeAttribute("value");
  }

  for (const [selector, what, label] of [[".undo", "Undo", undo], [".redo", "Redo", redo]]) {
    const one = find(selector);
    one.disabled = !label || desk.working;
    one.title = label ? `${what}: ${label}` : `Nothing to ${what.toLowerCase()}`;
  }
  languageMenu(read, languages, [["", "as written"]], [["?", "Written in …"]]);
  read.value = reading ?? "";
  read.disabled = desk.working;
  showLanguage(read);
  if (desk.noModel !== no_model) {
    desk.noModel = no_model;
    desk.emit("working", desk.working);
  }

  const items = [["text", "Text"], ["markdown", "Markdown"], ["json", "JSON with vectors"]];
  const language = languages.find(([code]) => code === reading)?.[2];
  if (language) items.push(["reading", `Text in ${language}`]);
  find(".items").replaceChildren(...items.map(([format, text]) =>
    make("button", { type: "button", onclick: () => ((menu.open = false), act("export", { format })) }, text)));

  if (clash && !conflict.open) {
    find(".conflict-text").textContent = clash;
    conflict.showModal();
  } else if (!clash && conflict.open) conflict.close();
  if (download) save(download);
  if (id) remember(id);
};

// The address names the document, so that a reload opens it again.
const remember = (id) => {
  const address = new URL(window.location);
  if (address.searchParams.get("doc") === id) return;
  address.searchParams.set("doc", id);
  window.history.replaceState(null, "", address);
};
const save = ({ name: file, type, text }) => {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: file });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
// A title is as wide as its words.
const ruler = document.createElement("canvas").getContext("2d");
const fit = () => {
  const style = getComputedStyle(name);
  ruler.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  name.style.width = `${Math.ceil(ruler.measureText(name.value || "Untitled").width) + 26}px`;
};

name.addEventListener("input", fit);
name.addEventListener("change", () => name.value.trim() !== (props.value?.title ?? "") && act("rename", { title: name.value }));
name.addEventListener("keydown", (event) => {
  if (event.key === "Enter") name.blur();
  if (event.key === "Escape") {
    name.value = props.value?.title ?? "";
    name.blur();
  }
});
name.addEventListener("blur", () => name.value.trim() || (name.value = props.value?.title ?? ""));
find(".state").addEventListener("click", () => act("save"));
find(".stop").addEventListener("click", () => trigger("stop", {}));
find(".undo").addEventListener("click", () => act("undo"));
find(".redo").addEventListener("click", () => act("redo"));
desk.on("history", (what) => !find(`.${what}`).disabled && act(what));
read.addEventListener("change", () => (read.value === "?" ? correct() : act("read", { lang: read.value || null })));

// The language that a text was read as may be wrong.
const written = find(".written");
const correct = () => {
  const { reading, languages, written: lang } = props.value;
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
  if (lang !== props.value.written) act("written", { lang });
});
find(".written .cancel").addEventListener("click", () => written.close());
find(".able").addEventListener("click", () => desk.emit("abilities"));
find(".open").addEventListener("click", () => desk.emit("library"));
find(".copy").addEventListener("click", () => act("copy"));
find(".other").addEventListener("click", () => act("reopen"));
conflict.addEventListener("cancel", (event) => event.preventDefault());
document.addEventListener("click", (event) => menu.contains(event.target) || (menu.open = false));
menu.addEventListener("keydown", (event) => event.key === "Escape" && ((menu.open = false), find("summary").focus()));

watch("value", draw);
draw();
