const plot = find(".plot");
const ghost = find(".ghost");
const tip = find(".tip");
const NUMBERED = 80; // longer paths show numbers only where selected
const BENT = 150; // longer paths are drawn straight
const POINTED = 400; // longer paths have no arrows
const NEAR = 15; // pixels around a node that count as the node

let land = null; // the landscape, asked for once
let frame = null; // the map drawn last
let ready = false;
let ghostPoint = null;
let places = new Map(); // node id -> its place in the order

const view = () => props.value ?? {};
const nodes = () => view().nodes ?? [];
const color = (name) => getComputedStyle(element).getPropertyValue(name).trim();

// Shapes

// A gentle bend to the right tells the way there from the way back, and shows the order without a legend.
const bend = ([x0, y0], [x1, y1], steps) => {
  const cx = (x0 + x1) / 2 + (y1 - y0) * 0.14;
  const cy = (y0 + y1) / 2 - (x1 - x0) * 0.14;
  return Array.from({ length: steps + 1 }, (_, i) => {
    const t = i / steps;
    const [a, b, c] = [(1 - t) * (1 - t), 2 * t * (1 - t), t * t];
    return [a * x0 + b * cx + c * x1, a * y0 + b * cy + c * y1];
  });
};

const background = () => {
  if (view().frame !== "landscape" || !land?.x) return [];
  const contour = {
    type: "contour", x: land.density.x, y: land.density.y, z: land.density.z, zmin: 0, zmax: 1,
    showscale: false, hoverinfo: "skip", autocontour: false,
    contours: { start: 0.06, end: 0.9, size: 0.105, coloring: "fill" },
    line: { width: 0.6, color: color("--contour"), smoothing: 1.2 },
    // The ground lies on the canvas below; each height adds a little to the tint of the one under it.
    colorscale: [[0, "rgba(0,0,0,0)"], [0.06, "rgba(0,0,0,0)"], [0.061, color("--height")], [1, color("--height")]],
  };
  const labels = {
    type: "scatter", mode: "text", x: land.labels.map((l) => l[0]), y: land.labels.map((l) => l[1]), hoverinfo: "skip",
    text: land.labels.map((l) => plain(l[2])), textfont: { size: desk.narrow() ? 9.5 : 11, color: color("--region"), family: color("--sans") },
  };
  return [contour, labels];
};
// The reference sentences, as faint dots: thousands of them cost nothing on a canvas.
const sow = () => {
  const canvas = find(".ground");
  const scale = window.devicePixelRatio;
  [canvas.width, canvas.height] = [plot.clientWidth * scale, plot.clientHeight * scale];
  if (view().frame !== "landscape" || !land?.x) return;
  const brush = canvas.getContext("2d");
  brush.scale(scale, scale);
  brush.fillStyle = color("--reference");
  const toPixels = projector();
  land.x.forEach((x, i) => {
    const [left, top] = toPixels([x, land.y[i]]);
    brush.fillRect(left - 0.8, top - 0.8, 1.6, 1.6);
  });
};
// Plotly reads some markup in labels.
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const path = () => {
  const points = nodes().map((node) => [node.x, node.y]);
  const steps = points.length > BENT ? 1 : 12;
  const line = [];
  const arrows = { x: [], y: [], angle: [] };
  for (let i = 1; i < points.length; i += 1) {
    const [p, q] = [points[i - 1], points[i]];
    const way = steps > 1 ? bend(p, q, steps) : [p, q];
    line.push(...way);
    if (points.length > POINTED) continue;
    const middle = steps > 1 ? way[steps / 2] : [(p[0] + q[0]) / 2, (p[1] + q[1]) / 2];
    arrows.x.push(middle[0]);
    arrows.y.push(middle[1]);
    arrows.angle.push((Math.atan2(q[0] - p[0], q[1] - p[1]) * 180) / Math.PI);
  }
  const many = points.length > NUMBERED;
  const crowded = points.length > POINTED;
  const made = nodes().map((node) => node.made);
  const node = {
    type: "scatter", mode: many ? "markers" : "markers+text", hoverinfo: "none", textposition: "middle center",
    textfont: { family: color("--sans"), size: size() < 20 ? 9.5 : 10.5 },
    selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 1 } },
  };
  return [
    {
      type: "scatter", mode: "lines", x: line.map((p) => p[0]), y: line.map((p) => p[1]), hoverinfo: "skip",
      line: { width: many ? 1 : 1.7, color: color("--accent") }, opacity: crowded ? 0.22 : many ? 0.45 : 0.62,
    },
    {
      type: "scatter", mode: "markers", ...{ x: arrows.x, y: arrows.y }, hoverinfo: "skip",
      marker: { symbol: "arrow", size: many ? 5 : 8, angle: arrows.angle, color: color("--accent"), line: { width: 0 } }, opacity: many ? 0.5 : 0.8,
    },
    {
      ...node, x: points.map((p) => p[0]), y: points.map((p) => p[1]), text: many ? [] : points.map((_, i) => String(i + 1)),
      textfont: { ...node.textfont, color: made.map((own) => color(own ? "--accent" : "--on-accent")) },
      marker: {
        size: size(), color: made.map((own) => color(own ? "--paper" : "--accent")),
        line: { width: crowded ? 0.5 : 1.5, color: made.map((own) => color(own ? "--accent" : "--paper")) },
      },
    },
  ];
};

const size = () => (nodes().length > POINTED ? 6 : nodes().length > NUMBERED ? 9 : nodes().length > 30 || desk.narrow() ? 17 : 20);

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
  if (!window.Plotly || !view().frame) return;
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
  Plotly.react(plot, [...background(), ...path()], layout, { displayModeBar: false, scrollZoom: true, doubleClick: false, responsive: true });
  if (!ready) bind();
  ready = true;
  tip.hidden = true;
  mark();
  if (!fresh) glide();
  follow();
  controls();
  plot.setAttribute("aria-label", `Map of meaning with ${desk.plural(nodes().length, "sentence")}; the list says the same in words`);
};

const controls = () => {
  const { fitting, enough } = view();
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
  tip.hidden = true;
};
desk.on("ghost", (point) => {
  ghostPoint = point && { ...point, frame: view().frame };
  overlay();
});

const hint = (node) => {
  if (!node) return (tip.hidden = true);
  const [left, top] = projector()([node.x, node.y]);
  const own = desk.node(node.id);
  if (!own) return (tip.hidden = true);
  tip.replaceChildren(make("span", { class: "count" }, String((places.get(node.id) ?? 0) + 1)), own.text.length > 240 ? `${own.text.slice(0, 240)}…` : own.text);
  tip.hidden = false;
  const [w, h] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${Math.min(Math.max(left - w / 2, 8), plot.clientWidth - w - 8)}px`;
  tip.style.top = `${top - h - 18 > 4 ? top - h - 18 : top + 18}px`;
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
  plot.addEventListener("pointermove", (event) => event.buttons || hint(nearest(at(event))));
  plot.addEventListener("pointerleave", () => hint(null));
  new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  new ResizeObserver(follow).observe(plot);
};

const click = (here, event) => {
  const node = nearest(here);
  if (!node) {
    const [x, y] = toPoint(here);
    desk.emit("place", { x, y, frame: view().frame });
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
  button.addEventListener("click", () => trigger("chart", { frame: button.dataset.frame }));
}
find(".cancel").addEventListener("click", () => trigger("chart", { frame: "stop" }));

desk.on("selection", (ids) => {
  mark();
  overlay();
  if (ready) reach(ids);
});
watch("value", draw);
server.landscape().then((found) => {
  land = found;
  draw();
});
