const plot = find(".plot");
const ghost = find(".ghost");
const tip = find(".tip");
const spot = find(".spot");
const NEAR = 15; // pixels around a node that count as the node

let frame = null; // the map drawn last
let ready = false;
let ghostPoint = null;
let places = new Map(); // node id -> its place in the order

let shown = {}; // see view.concept_map
let fitting = null; // how far the fit of the document's own map is: [done, total]
const view = () => shown;
const nodes = () => view().nodes ?? [];
const color = (name) => getComputedStyle(element).getPropertyValue(name).trim();

// Drawing

// The part of the plane to show, [x0, x1, y0, y1]: what holds all points, with a margin.
const around = (points, margin) => {
  const xs = points.map((p) => p[0]);
  const ys = points.map((p) => p[1]);
  const box = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const pad = Math.max(box[1] - box[0], box[3] - box[2], 0.15) * margin;
  return [box[0] - pad, box[1] + pad, box[2] - pad, box[3] + pad];
};
const home = () => {
  const points = nodes().map((node) => [node.x, node.y]);
  return points.length ? around(points, 0.16) : [-1.05, 1.05, -1.05, 1.05];
};
const axis = (range, more) => ({ visible: false, range, fixedrange: false, autorange: false, ...more });

const draw = () => {
  if (!window.Plotly || !land || !view().frame) return; // the ground comes first, so that all is drawn once
  const fresh = frame !== `${view().frame} ${view().document}`;
  frame = `${view().frame} ${view().document}`;
  const box = fresh ? home() : null;
  const now = plot._fullLayout;
  const ranges = box ? [box.slice(0, 2), box.slice(2)] : [[...now.xaxis.range], [...now.yaxis.range]];
  places = new Map(nodes().map((node, i) => [node.id, i]));
  const layout = {
    uirevision: frame, margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, hovermode: "closest", hoverdistance: NEAR,
    dragmode: plot.layout?.dragmode ?? "pan", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: axis(ranges[0]), yaxis: axis(ranges[1], { scaleanchor: "x" }),
    newselection: { line: { color: color("--accent"), width: 1.5, dash: "dot" } },
  };
  Plotly.react(plot, [...contours(), ...path()], layout, { displayModeBar: false, scrollZoom: true, doubleClick: false, responsive: true });
  if (!ready) bind();
  ready = true;
  mark();
  if (!fresh) glide();
  follow();
  controls();
  plot.setAttribute("aria-label", `Map of meaning with ${desk.plural(nodes().length, "sentence")}; the list says the same in words`);
};

const controls = () => {
  const { enough } = view();
  for (const button of element.querySelectorAll(".frames button")) {
    if (land && button.dataset.frame !== "document") button.hidden = (button.dataset.frame === "landscape") !== !!land.x;
    const own = button.dataset.frame === "document";
    button.setAttribute("aria-checked", String(button.dataset.frame === view().frame));
    button.disabled = own && !enough;
    if (own) button.title = enough ? "The document's own shape, fitted to it" : "A map of its own needs 15 sentences or more";
  }
  find(".note").hidden = view().frame !== "plane";
  find(".fitting").hidden = !fitting;
  if (fitting) find(".fitting-text").textContent = fitting[1] > 1 ? `Fitting the map: ${fitting[0]} of ${fitting[1]}` : "Fitting the map";
};

// Places and pixels. The plot has no margins, so its ranges are those of the whole part.

const projector = () => {
  const { xaxis, yaxis } = plot._fullLayout;
  const [w, h] = [plot.clientWidth, plot.clientHeight];
  const [[x0, x1], [y0, y1]] = [xaxis.range, yaxis.range];
  return ([x, y]) => [((x - x0) / (x1 - x0)) * w, h - ((y - y0) / (y1 - y0)) * h];
};
const toPoint = ([left, top]) => {
  const { xaxis, yaxis } = plot._fullLayout;
  const [w, h] = [plot.clientWidth, plot.clientHeight];
  return [xaxis.range[0] + (left / w) * (xaxis.range[1] - xaxis.range[0]), yaxis.range[0] + (1 - top / h) * (yaxis.range[1] - yaxis.range[0])];
};
const nearest = ([left, top]) => {
  let best = null;
  let least = NEAR;
  const toPixels = projector();
  for (const node of nodes()) {
    const [x, y] = toPixels([node.x, node.y]);
    const distance = Math.hypot(x - left, y - top);
    if (distance <= least) [best, least] = [node, distance];
  }
  return best;
};

// What lies over the plot: the selected nodes, and the point that is only being looked at. They change with every
// key and every step of a slider, faster than Plotly draws.
const mark = () => {
  const layer = find(".marks");
  const old = new Map([...layer.children].map((one) => [one.dataset.id, one]));
  const found = desk.selection.filter((id) => places.has(id));
  layer.replaceChildren(...found.map((id) => old.get(id) ?? make("span", { class: "chosen", "data-id": id })));
  for (const one of layer.children) one.textContent = String(places.get(one.dataset.id) + 1);
};
const put = (mark, [left, top]) => (mark.style.transform = `translate(${left}px, ${top}px)`);
const overlay = () => {
  if (!ready) return;
  const toPixels = projector();
  for (const one of find(".marks").children) {
    const node = nodes()[places.get(one.dataset.id)];
    if (node) put(one, toPixels([node.x, node.y]));
  }
  ghost.hidden = !ghostPoint || ghostPoint.frame !== view().frame;
  if (!ghost.hidden) put(ghost, toPixels(ghostPoint.at));
  ghost.classList.toggle("waiting", !!ghostPoint?.waiting);
};
// Selected nodes go to a new place visibly.
const glide = () => {
  find(".marks").classList.add("gliding");
  clearTimeout(glide.end);
  glide.end = setTimeout(() => find(".marks").classList.remove("gliding"), 450);
};
const follow = () => {
  overlay();
  sow();
  placeNames();
  hint(null);
};
desk.on("ghost", (point) => {
  ghostPoint = point && { ...point, frame: view().frame };
  overlay();
});

// What is under the pointer, in words: a sentence of the document, or else a reference.
const hint = (node, reference = null) => {
  const own = node && desk.node(node.id);
  const there = own ? [node.x, node.y] : reference === null ? null : [land.x[reference], land.y[reference]];
  tip.hidden = !there;
  spot.hidden = !there || !!own;
  if (!there) return;
  const shorter = (text) => (text.length > 240 ? `${text.slice(0, 240)}…` : text);
  tip.replaceChildren(...(own ? [make("span", { class: "count" }, String((places.get(node.id) ?? 0) + 1)), shorter(own.text)] : cited(reference)));
  const [left, top] = projector()(there);
  put(spot, [left, top]);
  const [w, h] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${Math.min(Math.max(left - w / 2, 8), plot.clientWidth - w - 8)}px`;
  tip.style.top = `${top - h - 18 > 4 ? top - h - 18 : top + 18}px`;
};
const explain = (here) => {
  const node = nearest(here);
  hint(node, node ? null : referenceAt(here));
};

// Hands on the map

const zoom = (factor) => {
  const { xaxis, yaxis } = plot._fullLayout;
  const scaled = ([a, b]) => [(a + b) / 2 - ((b - a) / 2) * factor, (a + b) / 2 + ((b - a) / 2) * factor];
  look(scaled(xaxis.range), scaled(yaxis.range));
};
const look = (x, y) => Plotly.relayout(plot, { "xaxis.range": x, "yaxis.range": y });
// Bring a selected node into sight where the view has left it.
const reach = (ids) => {
  const inside = ([left, top]) => left > 0 && top > 0 && left < plot.clientWidth && top < plot.clientHeight;
  const all = nodes().filter((node) => ids.includes(node.id));
  const toPixels = projector();
  if (!all.length || all.some((node) => inside(toPixels([node.x, node.y])))) return;
  const { xaxis, yaxis } = plot._fullLayout;
  const around = ([a, b], at) => [at - (b - a) / 2, at + (b - a) / 2];
  look(around(xaxis.range, all[0].x), around(yaxis.range, all[0].y));
};

const bind = () => {
  plot.on("plotly_relayouting", () => (find(".marks").classList.remove("gliding"), follow()));
  plot.on("plotly_relayout", follow);
  plot.on("plotly_selected", (event) => {
    if (!event) return;
    const last = plot.data.length - 1; // the nodes
    const found = event.points.filter((point) => point.curveNumber === last).map((point) => nodes()[point.pointIndex].id);
    drawLasso(false);
    Plotly.restyle(plot, { selectedpoints: [null] }, plot.data.map((_, i) => i).filter((i) => plot.data[i].type === "scatter"));
    Plotly.relayout(plot, { selections: [] });
    desk.select(nodes().map((node) => node.id).filter((id) => found.includes(id)));
    desk.announce(`${desk.plural(found.length, "sentence")} selected.`);
  });

  const at = (event) => {
    const box = plot.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  // Plotly reports clicks on points only, and lays a cover over the page while a button is down: so presses are
  // watched on the plot and releases on the window, and a press that did not travel is a click.
  let press = null;
  plot.addEventListener("pointerdown", (event) => (press = event.button ? null : at(event)), true);
  window.addEventListener("pointerup", (event) => {
    if (!press) return;
    const here = at(event);
    const still = Math.hypot(here[0] - press[0], here[1] - press[1]) < 5;
    press = null;
    if (still && plot.layout.dragmode === "pan") click(here, event);
  }, true);
  plot.addEventListener("pointermove", (event) => event.buttons || explain(at(event)));
  // A finger leaves as soon as it is lifted; what it tapped stays to be read.
  plot.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hint(null));
  new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  new ResizeObserver(follow).observe(plot);
};

const click = (here, event) => {
  const node = nearest(here);
  if (!node) {
    const reference = referenceAt(here);
    const [x, y] = reference === null ? toPoint(here) : [land.x[reference], land.y[reference]];
    desk.emit("place", { x, y, frame: view().frame });
    explain(here);
  } else {
    if (event.shiftKey || event.ctrlKey || event.metaKey) desk.toggle(node.id);
    else desk.select([node.id]);
    desk.emit("reveal", node.id);
  }
};

const drawLasso = (on) => {
  Plotly.relayout(plot, { dragmode: on ? "lasso" : "pan" });
  find(".lasso").setAttribute("aria-pressed", String(on));
};
find(".lasso").addEventListener("click", () => drawLasso(plot.layout.dragmode !== "lasso"));
find(".closer").addEventListener("click", () => zoom(0.7));
find(".farther").addEventListener("click", () => zoom(1 / 0.7));
find(".path").addEventListener("click", () => {
  const box = home();
  look(box.slice(0, 2), box.slice(2));
});
for (const button of element.querySelectorAll(".frames button")) {
  button.addEventListener("click", () => chart(button.dataset.frame));
}
find(".cancel").addEventListener("click", () => chart("stop"));

// Another map. That of the document is fitted in the background, and asked after until it is there.
const chart = async (frame) => {
  const answer = await line.ask({ ask: "chart", frame });
  for (const [kind, text] of answer.refused ? [["warning", answer.refused]] : answer.said) desk.emit("say", { kind, text });
  const watched = !!fitting;
  fitting = answer.fitting ?? null;
  if (answer.map) desk.show("map", answer.map);
  if (fitting && !(watched && frame)) chart("");
};

desk.on("selection", (ids) => {
  mark();
  overlay();
  if (ready) reach(ids);
});
desk.shown("map", (value) => {
  shown = value;
  draw();
});
line.ask({ ask: "landscape" }).then((found) => {
  land = found.refused ? {} : found;
  makeNames();
  draw();
});
