// What is laid over a slide, drawn on a canvas above the tiles in level-0 px.

const STOPS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
const RAMP = ramp(64);

function ramp(steps) {
  const stops = STOPS.map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: steps }, (_, n) => {
    const at = (n / (steps - 1)) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    return `rgb(${stops[low].map((c, i) => Math.round(c + (stops[low + 1][i] - c) * (at - low))).join(",")})`;
  });
}

export const LAYERS = [
  { name: "attention", title: "Attention", key: "h", on: true, opacity: 55 },
  { name: "tissue", title: "Tissue, share of tile", key: "t", on: false, opacity: 50 },
  { name: "grid", title: "Tile grid", key: "g", on: false, opacity: 60 },
  { name: "marked", title: "Tiles in ground truth", key: "l", on: false, opacity: 80 },
  { name: "mask", title: "Ground truth", key: "m", on: false, opacity: 45 },
  { name: "annotations", title: "Annotations", key: "a", on: true, opacity: 90 },
];

// Which layers this slide can have at all.
export function layersOf({ places, mask, annotations }) {
  const has = {
    attention: Boolean(places?.percentile),
    tissue: Boolean(places?.tissue?.some((value) => value !== null)),
    grid: Boolean(places?.count),
    marked: Boolean(places?.marked?.some((value) => value === 1)),
    mask: Boolean(mask),
    annotations: Boolean(annotations),
  };
  return LAYERS.filter((layer) => has[layer.name]);
}

// view: { left, top, right, bottom, scale (screen px a level-0 px), x(px), y(px) }
export function drawLayers(context, view, data, settings, selected) {
  for (const layer of data.layers || []) {
    const setting = settings[layer.name];
    if (!setting?.on) continue;
    context.globalAlpha = setting.opacity / 100;
    PAINTERS[layer.name](context, view, data);
  }
  context.globalAlpha = 1;
  if (selected >= 0 && data.places) outline(context, view, data.places, selected);
}

function* visible(view, places) {
  for (let i = 0; i < places.count; i++) {
    const x = places.x[i];
    const y = places.y[i];
    if (x < view.right && y < view.bottom && x + places.width[i] > view.left && y + places.height[i] > view.top) yield i;
  }
}

function fillTiles(context, view, places, values, most, color) {
  const buckets = new Map();
  for (const i of visible(view, places)) {
    const value = values[i];
    if (value === null || value === undefined) continue;
    const step = Math.max(0, Math.min(RAMP.length - 1, Math.round((value / most) * (RAMP.length - 1))));
    if (!buckets.has(step)) buckets.set(step, []);
    buckets.get(step).push(i);
  }
  for (const [step, tiles] of buckets) {
    context.fillStyle = color(step);
    for (const i of tiles) {
      const left = Math.round(view.x(places.x[i]));
      const top = Math.round(view.y(places.y[i]));
      context.fillRect(
        left,
        top,
        Math.max(1, Math.round(view.x(places.x[i] + places.width[i])) - left),
        Math.max(1, Math.round(view.y(places.y[i] + places.height[i])) - top),
      );
    }
  }
}

function strokeTiles(context, view, places, wanted, color, width) {
  context.strokeStyle = color;
  context.lineWidth = width;
  context.beginPath();
  for (const i of visible(view, places)) {
    if (!wanted(i)) continue;
    context.rect(view.x(places.x[i]), view.y(places.y[i]), places.width[i] * view.scale, places.height[i] * view.scale);
  }
  context.stroke();
}

const PAINTERS = {
  attention: (context, view, data) => fillTiles(context, view, data.places, data.places.percentile, 100, (step) => RAMP[step]),
  tissue: (context, view, data) =>
    fillTiles(context, view, data.places, data.places.tissue, 1, (step) => `hsl(165 65% ${88 - (step / RAMP.length) * 58}%)`),
  grid: (context, view, data) => strokeTiles(context, view, data.places, () => true, "#1d5f86", 1),
  marked: (context, view, data) => strokeTiles(context, view, data.places, (i) => data.places.marked[i] === 1, "#c8553d", 2),
  mask: (context, view, data) => {
    if (!data.mask?.complete || !data.mask.naturalWidth) return;
    context.imageSmoothingEnabled = false;
    context.drawImage(data.mask, view.x(0), view.y(0), data.width * view.scale, data.height * view.scale);
  },
  annotations: (context, view, data) => {
    for (const shape of data.annotations?.shapes || []) drawShape(context, view, shape);
  },
};

function drawShape(context, view, shape) {
  const color = shape.color ? `rgb(${shape.color.join(",")})` : "#c8553d";
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = 2;
  context.beginPath();
  for (const line of shape.lines) {
    if (shape.type.endsWith("Point")) {
      for (const [x, y] of line) {
        context.moveTo(view.x(x) + 5, view.y(y));
        context.arc(view.x(x), view.y(y), 5, 0, 2 * Math.PI);
      }
      continue;
    }
    line.forEach(([x, y], n) => (n ? context.lineTo(view.x(x), view.y(y)) : context.moveTo(view.x(x), view.y(y))));
    if (shape.type.endsWith("Polygon")) context.closePath();
  }
  context.stroke();
  const [x, y] = shape.lines[0][0];
  if (shape.name && view.x(x) > -200 && view.y(y) > -50) {
    context.font = "600 12px system-ui, sans-serif";
    context.lineWidth = 3;
    context.strokeStyle = "rgba(255,255,255,.85)";
    context.strokeText(shape.name, view.x(x) + 6, view.y(y) - 6);
    context.fillText(shape.name, view.x(x) + 6, view.y(y) - 6);
  }
}

function outline(context, view, places, i) {
  for (const [color, width] of [["#ffffff", 5], ["#c8553d", 2.5]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.strokeRect(view.x(places.x[i]), view.y(places.y[i]), places.width[i] * view.scale, places.height[i] * view.scale);
  }
}

// The tile at a point of the slide; of overlapping ones the one whose middle is nearest. -1 where there is none.
export function tileAt(places, x, y) {
  let best = -1;
  let least = Infinity;
  for (let i = 0; i < (places?.count || 0); i++) {
    const dx = x - places.x[i];
    const dy = y - places.y[i];
    if (dx < 0 || dy < 0 || dx >= places.width[i] || dy >= places.height[i]) continue;
    const away = (dx - places.width[i] / 2) ** 2 + (dy - places.height[i] / 2) ** 2;
    if (away < least) [best, least] = [i, away];
  }
  return best;
}
