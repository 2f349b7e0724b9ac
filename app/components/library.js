const dialog = find("dialog");
const pasted = find("#pasted");
const lang = find("#written-in");
const LARGEST = 8e6; // bytes worth sending; the server says what is too long for a document
let own = null; // the document on the page

const act = (what, data) => {
  dialog.close();
  return line.act(what, data);
};
const item = ([head, more, onclick]) =>
  make("li", {}, make("button", { type: "button", onclick }, make("strong", {}, head), make("span", {}, more)));

const draw = ({ documents = [], samples = [], languages = [], refused }) => {
  if (refused) return desk.emit("say", { kind: "warning", text: refused });
  find(".documents").replaceChildren(
    ...(documents.length
      ? documents.map((one) => (one.fault ? damaged(one) : item([one.title, one.about, (event) => open(one, event.currentTarget)])))
      : [make("li", { class: "none" }, "Nothing yet. Texts that you open are kept here.")]));
  find(".samples").replaceChildren(...samples.map((one) => item([one.title, one.about, () => act("sample", { file: one.file })])));
  if (!lang.options.length && languages.length) {
    languageMenu(lang, languages, [["", "the language it is in"]]);
    lang.value = "";
    showLanguage(lang);
  }
};

// One that can't be shown: what is left of it can be taken away, and it can be deleted.
const damaged = (one) => {
  const sure = (event) => {
    if (event.currentTarget.classList.contains("sure")) return act("remove", { document: one.id });
    event.currentTarget.classList.add("sure");
    event.currentTarget.textContent = "Press again to delete it for good";
  };
  return make("li", { class: "damaged" }, make("strong", {}, one.title), make("span", {}, `Can't be shown. ${one.fault}`),
    make("div", { class: "row" },
      make("button", { type: "button", class: "link", onclick: () => act("salvage", { document: one.id }) }, "Export what can be read"),
      make("button", { type: "button", class: "link", onclick: sure }, "Delete")));
};

// What was made in another space has to be encoded again in this one: said first, done when pressed again.
const open = (one, button) => {
  if (one.other && !button.classList.contains("sure")) {
    button.classList.add("sure");
    button.querySelector("span").textContent = `Made in the ${one.other} space. Press again to encode its sentences in this one and open it.`;
  } else act("open", { document: one.id });
};

const send = async (file) => {
  if (!file) return;
  const name = file.name;
  if (file.size > LARGEST) return act("import", { name, size: file.size });
  const url = await new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(file);
  });
  act("import", { name, base64: url.slice(url.indexOf(",") + 1), lang: lang.value });
};

find(".bring").addEventListener("submit", (event) => {
  event.preventDefault();
  act("import", { text: pasted.value, lang: lang.value });
});
find("input[type=file]").addEventListener("change", (event) => {
  send(event.target.files[0]);
  event.target.value = "";
});
dialog.addEventListener("dragover", (event) => event.preventDefault());
dialog.addEventListener("drop", (event) => {
  event.preventDefault();
  send(event.dataTransfer.files[0]);
});
find(".blank").addEventListener("click", () => act("new", { lang: lang.value }));
find(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

desk.on("library", async () => {
  dialog.showModal();
  draw(await line.ask({ ask: "library" }));
});
// A pasted text stays until it has become a document.
desk.shown("list", ({ document: id }) => {
  if (own && id !== own) pasted.value = "";
  own = id;
});
desk.drafts.push(() => pasted.value.trim() !== "");
