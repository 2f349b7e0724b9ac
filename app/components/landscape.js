// The landscape under the path: contours, reference sentences as faint dots, and the names of regions. Only the contours
// are Plotly's: dots are on a canvas and names are elements, both below the plot, so that they follow every movement.
const FEW = 1500; // dots on a map seen from far; from near there are more, as many to the eye
const FAR = 300; // pixels for a unit of such a map
const CLOSE = 8; // pixels around a dot that count as the dot

let land = null; // the landscape, asked for once; see view.landscape
let level = 0; // whose names are shown: 0 are the broadest regions

const onLand = () => view().frame === "landscape" && !!land?.x;
// Pixels for a unit of the map.
const scale = () => plot.clientWidth / (plot._fullLayout.xaxis.range[1] - plot._fullLayout.xaxis.range[0]);

const contours = () => {
  if (!onLand()) return [];
  return [{
    type: "contour", x: land.density.x, y: land.density.y, z: land.density.z, zmin: 0, zmax: 1,
    showscale: false, hoverinfo: "skip", autocontour: false,
    contours: { start: 0.06, end: 0.9, size: 0.105, coloring: "fill" },
    line: { width: 0.6, color: color("--contour"), smoothing: 1.2 },
    // The ground lies on the canvas below; each height adds a little to the tint of the one under it.
    colorscale: [[0, "rgba(0,0,0,0)"], [0.06, "rgba(0,0,0,0)"], [0.061, color("--height")], [1, color("--height")]],
  }];
};

// Reference sentences. They come in random order, so the first of them are a fair sample.

const sown = () => (onLand() ? Math.min(land.x.length, Math.round(FEW * Math.max(1, scale() / FAR) ** 2)) : 0);
const sow = () => {
  const canvas = find(".ground");
  const ratio = window.devicePixelRatio;
  [canvas.width, canvas.height] = [plot.clientWidth * ratio, plot.clientHeight * ratio];
  if (!onLand()) return;
  const brush = canvas.getContext("2d");
  brush.scale(ratio, ratio);
  brush.fillStyle = color("--reference");
  const toPixels = projector();
  const radius = Math.min(2, 0.9 * Math.sqrt(Math.max(1, scale() / FAR)));
  for (let i = 0; i < sown(); i += 1) {
    const [left, top] = toPixels([land.x[i], land.y[i]]);
    brush.beginPath();
    brush.arc(left, top, radius, 0, 7);
    brush.fill();
  }
};
// The number of the dot at a place of the plot that can be read, or null.
const referenceAt = ([left, top]) => {
  let best = null;
  let least = CLOSE;
  if (!onLand() || !land.texts) return best;
  const toPixels = projector();
  for (let i = 0; i < sown(); i += 1) {
    const [x, y] = toPixels([land.x[i], land.y[i]]);
    const distance = Math.hypot(x - left, y - top);
    if (distance <= least) [best, least] = [i, distance];
  }
  return best;
};
// A reference sentence and where it comes from, as elements.
const cited = (i) => {
  const [credit, licence] = land.sources[land.source[i]];
  return [make("span", { class: "said", lang: land.languages[land.language[i]] }, land.texts[i]), make("span", { class: "source" }, `${credit}; ${licence}`)];
};

// Names of regions, of one level at a time. Where two would overlap, the first stays: the more typical one.

const makeNames = () => {
  const names = land?.labels ?? [];
  find(".regions").replaceChildren(...names.map(([, , text, depth]) => make("span", { class: `region level-${depth}`, "data-level": depth }, text)));
};
const placeNames = () => {
  const layer = find(".regions");
  layer.hidden = !onLand();
  if (layer.hidden) return;
  const deepest = Math.max(0, ...land.labels.map((label) => label[3]));
  // A level that is shown stays a little longer than it would come, so that names do not flicker at the border.
  level = land.scales.reduce((found, least, i) => (i <= deepest && scale() >= least * (i > level ? 1 : 0.9) ? i : found), 0);
  const toPixels = projector();
  const spans = [...layer.children];
  const sizes = spans.map((span) => [span.offsetWidth / 2 + 4, span.offsetHeight / 2 + 1]);
  const boxes = [];
  spans.forEach((span, i) => {
    const [x, y, , depth] = land.labels[i];
    const [left, top] = toPixels([x, y]);
    const [w, h] = sizes[i];
    const free = depth === level && boxes.every(([l, t, v, u]) => Math.abs(l - left) > v + w || Math.abs(t - top) > u + h);
    if (free) boxes.push([left, top, w, h]);
    span.classList.toggle("seen", free);
    span.style.transform = `translate(${left}px, ${top}px) translate(-50%, -50%)`;
  });
};
