// The document's path on the map: its shapes, as Plotly draws them.
const NUMBERED = 80; // longer paths show numbers only where selected
const BENT = 150; // longer paths are drawn straight
const POINTED = 400; // longer paths have no arrows

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
