// Small pictures in SVG: lines over axes, and the graph of a lineage.

import { el, svg } from "./page.js";

const BOX = { width: 440, height: 300, left: 46, right: 14, top: 12, bottom: 42 };

export function ticks(low, high, most = 5) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / most));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => span / n <= most);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, n) => Number(((first + n) * step).toPrecision(10)));
}

// lines: { name, points: [[x, y]…], color (0-3), dashed, spots: [{x, y, size, tip}] }
export function plot({ title, x, y, xRange = [0, 1], yRange = [0, 1], lines, diagonal, mark }) {
  const atX = (value) => BOX.left + ((value - xRange[0]) / (xRange[1] - xRange[0] || 1)) * (BOX.width - BOX.left - BOX.right);
  const atY = (value) => BOX.height - BOX.bottom - ((value - yRange[0]) / (yRange[1] - yRange[0] || 1)) * (BOX.height - BOX.top - BOX.bottom);
  const frame = svg(
    "g",
    { class: "frame" },
    ticks(...yRange).map((value) => [
      svg("line", { x1: BOX.left, x2: BOX.width - BOX.right, y1: atY(value), y2: atY(value) }),
      svg("text", { x: BOX.left - 7, y: atY(value) + 4, "text-anchor": "end" }, String(value)),
    ]),
    ticks(...xRange, 6).map((value) => svg("text", { x: atX(value), y: BOX.height - BOX.bottom + 17, "text-anchor": "middle" }, String(value))),
    svg("text", { x: (BOX.left + BOX.width - BOX.right) / 2, y: BOX.height - 6, "text-anchor": "middle" }, x),
  );
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", "aria-label": title }, frame);
  if (diagonal) picture.append(svg("line", { class: "faint", x1: atX(0), y1: atY(0), x2: atX(1), y2: atY(1) }));
  if (mark !== undefined && mark !== null) {
    picture.append(svg("line", { class: "faint", x1: atX(mark), x2: atX(mark), y1: BOX.top, y2: BOX.height - BOX.bottom }));
  }
  for (const line of lines) {
    const points = line.points.map(([px, py]) => `${atX(px).toFixed(1)},${atY(py).toFixed(1)}`).join(" ");
    const group = svg("g", { class: `c${line.color % 4}` });
    group.append(svg("polyline", { class: `value${line.dashed ? " dashed" : ""}`, points }));
    for (const spot of line.spots || []) {
      group.append(svg("circle", { class: "spot", cx: atX(spot.x), cy: atY(spot.y), r: spot.size }, svg("title", {}, spot.tip)));
    }
    picture.append(group);
  }
  const key = lines.filter((line) => line.name);
  return el(
    "div",
    { class: "chart-card" },
    el("h3", {}, title),
    picture,
    el("div", { class: "key" }, el("span", {}, y), key.map((line) => el("span", { class: `c${line.color % 4}` }, el("i", { class: "dot" }), line.name + (line.dashed ? " (dashed)" : "")))),
  );
}

const NODE = { width: 128, height: 42, gapX: 34, gapY: 16 };

// Steps and artifacts from left to right; a click lights what a thing was made from, and tells of it.
export function graph({ nodes, edges }) {
  const columns = [];
  for (const node of nodes) (columns[node.depth] ||= []).push(node);
  const tallest = Math.max(...columns.map((column) => column?.length || 0));
  const height = tallest * (NODE.height + NODE.gapY) + NODE.gapY;
  const place = new Map();
  columns.forEach((column, n) =>
    column.forEach((node, m) => {
      const free = height - column.length * (NODE.height + NODE.gapY);
      place.set(node.id, { x: 8 + n * (NODE.width + NODE.gapX), y: free / 2 + NODE.gapY / 2 + m * (NODE.height + NODE.gapY) });
    }),
  );
  const width = 16 + columns.length * (NODE.width + NODE.gapX) - NODE.gapX;
  const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Lineage" });
  const drawn = edges.map((edge) => {
    const from = place.get(edge.from);
    const to = place.get(edge.to);
    const [x1, y1, x2, y2] = [from.x + NODE.width, from.y + NODE.height / 2, to.x, to.y + NODE.height / 2];
    const bend = Math.max(18, (x2 - x1) / 2);
    const path = svg("path", { class: "edge", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` });
    picture.append(path);
    return { ...edge, path };
  });
  const told = el("div", { class: "told soft" }, "Click a step or an artifact to see what it was made from.");
  const boxes = new Map();
  for (const node of nodes) {
    const { x, y } = place.get(node.id);
    const under = node.kind === "step" ? (node.failed ? "failed" : "step") : node.digest.replace("sha256:", "").slice(0, 12);
    const box = svg(
      "g",
      { class: `node ${node.kind}${node.failed ? " failed" : ""}`, transform: `translate(${x} ${y})`, tabindex: 0, role: "button" },
      svg("rect", { width: NODE.width, height: NODE.height, rx: node.kind === "step" ? 8 : 3 }),
      svg("text", { x: NODE.width / 2, y: 18, "text-anchor": "middle" }, node.name.length > 17 ? `${node.name.slice(0, 16)}…` : node.name),
      svg("text", { class: "under", x: NODE.width / 2, y: 33, "text-anchor": "middle" }, under),
      svg("title", {}, node.name),
    );
    const choose = () => {
      const lit = ancestors(node.id, edges);
      for (const [id, other] of boxes) other.classList.toggle("lit", lit.has(id));
      for (const edge of drawn) edge.path.classList.toggle("lit", lit.has(edge.from) && lit.has(edge.to));
      told.classList.remove("soft");
      told.replaceChildren(...tell(node));
    };
    box.addEventListener("click", choose);
    box.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), choose()));
    boxes.set(node.id, box);
    picture.append(box);
  }
  return el("div", { class: "graph" }, picture, told);
}

function ancestors(id, edges) {
  const found = new Set([id]);
  const pending = [id];
  while (pending.length) {
    const here = pending.pop();
    for (const edge of edges) {
      if (edge.to === here && !found.has(edge.from)) {
        found.add(edge.from);
        pending.push(edge.from);
      }
    }
  }
  return found;
}

function tell(node) {
  const facts =
    node.kind === "step"
      ? [["ended", node.ended], ["code", node.code], ...Object.entries(node.parameters)]
      : [["content", node.digest], ["files", node.files]];
  return [
    el("b", {}, node.name),
    el("dl", {}, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))])),
  ];
}
