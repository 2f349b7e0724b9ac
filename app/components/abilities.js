const dialog = find("dialog");

const draw = () => {
  const { about = "", caption = "", rows = [], example } = props.value ?? {};
  find(".about").textContent = about;
  find("table").hidden = !rows.length;
  find("caption").textContent = caption;
  find("tbody").replaceChildren(...rows.map(([task, read, grammatical, sensible]) =>
    make("tr", {}, make("th", { scope: "row" }, task), make("td", {}, read), make("td", {}, grammatical), make("td", {}, sensible))));
  find(".bad").hidden = !example;
  if (example) {
    find(".before").textContent = example.asked;
    find("blockquote").textContent = example.wrote;
  }
};

find(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
desk.on("abilities", () => dialog.showModal());
watch("value", draw);
draw();
