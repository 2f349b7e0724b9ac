// Small pieces of markup that all parts use.

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
