import { LAYERS, layersOf, tileAt } from "./layers.js";
import { ask, count, el, percent, runAddress, show, svg } from "./page.js";
import { Pane } from "./pane.js";

const ICONS = {
  in: "M8 3v10M3 8h10",
  out: "M3 8h10",
  home: "M2.5 8 8 3l5.5 5M4.5 7v6h7V7",
  full: "M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3",
  two: "M3 3h4v10H3zM9 3h4v10H9z",
  link: "M6.5 9.5l3-3M7.5 5l1.6-1.6a2.5 2.5 0 0 1 3.5 3.5L11 8.5M8.5 11l-1.6 1.6a2.5 2.5 0 0 1-3.5-3.5L5 7.5",
  keys: "M6 6a2 2 0 1 1 2.6 1.9c-.5.2-.6.5-.6 1.1M8 11.7v.1",
  panel: "M3 4h10M3 8h10M3 12h10",
};

const stage = document.getElementById("stage");
const work = document.getElementById("work");
const panes = [];
let all = [];
let leader = null;
let linked = true;
let relation = null;
let written = "";
const settings = Object.fromEntries(LAYERS.map((layer) => [layer.name, { on: layer.on, opacity: layer.opacity }]));
const buttons = {};
const handlers = { moved: settle, led: follow, clicked: pick };

async function start() {
  addTools();
  addKeys();
  panes.push(new Pane(stage, handlers));
  leader = panes[0];
  panes[0].settings = settings;
  try {
    all = await ask("/api/slides");
  } catch (error) {
    panes[0].tell(error.message);
    return;
  }
  window.addEventListener("hashchange", () => location.hash !== written && readHash());
  window.addEventListener("resize", () => panes.forEach((pane) => pane.draw()));
  await readHash();
}

// The address after # holds the slide, the place, the layers, and the second slide.
async function readHash() {
  const found = new URLSearchParams(location.hash.slice(1));
  const layers = found.get("o");
  if (layers !== null) {
    for (const layer of LAYERS) settings[layer.name].on = false;
    for (const part of layers.split(",")) {
      const [name, opacity] = part.split(".");
      if (!Object.hasOwn(settings, name)) continue;
      const value = Number(opacity);
      settings[name] = { on: true, opacity: value >= 0 && value <= 100 ? value : settings[name].opacity };
    }
  }
  const key = found.get("s") || all[0]?.key;
  if (!key) return panes[0].tell("There is no slide.");
  linked = found.get("link") !== "0";
  await show1(key, placeOf(found, ""));
  const other = found.get("with");
  if (other) await showTwo(other, placeOf(found, "2"));
  else closeTwo();
  const tile = found.get("t");
  if (tile !== null && panes[0].data.places) select(Number(tile));
  return undefined;
}

function placeOf(found, end) {
  const place = { x: found.get(`x${end}`), y: found.get(`y${end}`), r: found.get(`r${end}`) };
  if (Object.values(place).some((value) => value === null || value === "" || !Number.isFinite(Number(value)))) return null;
  return { x: Number(place.x), y: Number(place.y), r: Number(place.r) };
}

function settle() {
  if (!relation) relate();
  writeHash();
}

function writeHash() {
  const wanted = new URLSearchParams();
  panes.forEach((pane, n) => {
    const end = n ? "2" : "";
    wanted.set(n ? "with" : "s", pane.key);
    const place = pane.place();
    if (!place) return;
    wanted.set(`x${end}`, place.x.toFixed(1));
    wanted.set(`y${end}`, place.y.toFixed(1));
    wanted.set(`r${end}`, place.r.toPrecision(5));
  });
  wanted.set("o", LAYERS.filter((l) => settings[l.name].on).map((l) => `${l.name}.${settings[l.name].opacity}`).join(","));
  if (panes[0].selected >= 0) wanted.set("t", panes[0].selected);
  if (panes.length > 1 && !linked) wanted.set("link", "0");
  written = `#${wanted}`;
  if (location.hash !== written) history.replaceState(null, "", written);
}

async function show1(key, place) {
  const pane = panes[0];
  if (pane.key === key && pane.ready) {
    if (place) pane.goTo(place, true);
    drawPanel();
    pane.draw();
    return;
  }
  relation = null;
  try {
    const slide = await pane.open(key, place);
    if (!slide) return;
    describe(slide);
    await load(pane);
  } catch (error) {
    pane.tell(error.message);
  }
  drawPanel();
}

async function load(pane) {
  const { slide, data } = pane;
  if (slide.problem) return;
  const below = `/api/slides/${slide.key}`;
  if (slide.overlays.mask) {
    data.mask = new Image();
    data.mask.addEventListener("load", () => pane.draw());
    data.mask.src = `${below}/mask.png`;
  }
  const [places, annotations] = await Promise.all([
    slide.overlays.places ? ask(`${below}/places`).catch(() => null) : null,
    slide.overlays.annotations ? ask(`${below}/annotations`).catch(() => null) : null,
  ]);
  Object.assign(data, { places, annotations });
  data.layers = layersOf(data);
  pane.draw();
}

function describe(slide) {
  document.title = `${slide.image_id} · bagline`;
  const chips = [
    slide.label && el("span", { class: "chip", title: "label" }, slide.label),
    slide.predicted &&
      el(
        "span",
        { class: `chip ${slide.right ? "good" : "bad"}`, title: "what the patient was called" },
        `${slide.right ? "✓" : "✗"} ${slide.predicted} ${percent(slide.probability, 0)}`,
      ),
  ];
  document.getElementById("title").replaceChildren(el("b", { title: slide.image_id }, slide.image_id), ...chips.filter(Boolean));
  const run = document.getElementById("to-run");
  run.hidden = !slide.run;
  if (slide.run) run.href = runAddress([slide.run]);
}

// ---- the panel

function drawPanel() {
  const pane = panes[0];
  const slide = pane.slide;
  if (!slide) return;
  const layers = pane.data.layers || [];
  document.getElementById("layers").hidden = !layers.length;
  document.getElementById("layer-list").replaceChildren(...layers.flatMap(layerRow));
  drawTop();
  const mm = (px) => (slide.mpp ? `${((px * slide.mpp) / 1000).toFixed(1)} mm` : `${px} px`);
  const facts = [
    ["Patient", slide.patient_id],
    ["Run", slide.run],
    ["Split", slide.split],
    ["Center", slide.center],
    ["Size", slide.width && `${slide.width} × ${slide.height} px`],
    ["", slide.width && slide.mpp && `${mm(slide.width)} × ${mm(slide.height)}`],
    ["Scale", slide.width && (slide.mpp ? `${Number(slide.mpp.toPrecision(4))} µm/px (${slide.mpp_source})` : "unknown")],
    ["Levels", slide.levels],
    ["Read by", slide.reader],
    ["Tiles", slide.tiles],
    ["Status", slide.status && slide.status !== "tiled" && `${slide.status}: ${slide.reason}`],
    ["Annotations", pane.data.annotations && count(pane.data.annotations.shapes.length, "shape", "shapes")],
    ...Object.entries(slide.probabilities || {}).map(([label, value]) => [`P(${label})`, percent(value)]),
  ];
  document
    .getElementById("facts")
    .replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

function layerRow(layer) {
  const setting = settings[layer.name];
  const id = `layer-${layer.name}`;
  const box = el("input", { type: "checkbox", id });
  box.checked = setting.on;
  const slider = el("input", { type: "range", min: 0, max: 100, step: 5, "aria-label": `${layer.title}: opacity` });
  slider.value = setting.opacity;
  box.addEventListener("change", () => toggle(layer.name, box.checked));
  slider.addEventListener("input", () => {
    setting.opacity = Number(slider.value);
    toggle(layer.name, true);
  });
  const row = el("div", { class: "layer" }, box, el("label", { for: id, title: `${layer.title} (${layer.key})` }, layer.title), slider);
  if (layer.name !== "attention") return [row];
  return [row, el("div", { class: "legend" }), el("div", { class: "ends" }, el("span", {}, "least"), el("span", {}, "most of the patient"))];
}

function toggle(name, on) {
  settings[name].on = on;
  const box = document.getElementById(`layer-${name}`);
  if (box) box.checked = on;
  panes.forEach((pane) => pane.draw());
  writeHash();
}

function drawTop() {
  const { places } = panes[0].data;
  const section = document.getElementById("top");
  section.hidden = !places?.relative;
  if (section.hidden) return;
  const order = places.relative.map((value, i) => [value ?? -1, i]).sort((a, b) => b[0] - a[0]);
  document.getElementById("top-list").replaceChildren(
    ...order.slice(0, 8).map(([value, i]) =>
      el(
        "button",
        { type: "button", "data-tile": i, title: `${value.toFixed(1)} times the patient's mean`, onclick: () => visit(i) },
        el("img", { src: recordOf(i), alt: `tile ${i}`, loading: "lazy" }),
      ),
    ),
  );
}

const recordOf = (i) => `/api/slides/${panes[0].key}/records/${i}`;

function visit(i) {
  const { places } = panes[0].data;
  const r = Math.max(places.width[i], places.height[i]) / 300;
  panes[0].goTo({ x: places.x[i] + places.width[i] / 2, y: places.y[i] + places.height[i] / 2, r });
  select(i);
}

function pick(pane, x, y) {
  if (pane === panes[0]) select(tileAt(pane.data.places, x, y));
}

function select(i) {
  const { places } = panes[0].data;
  const found = Number.isInteger(i) && i >= 0 && i < (places?.count || 0);
  panes[0].selected = found ? i : -1;
  panes[0].draw();
  document.getElementById("tile").hidden = !found;
  for (const button of document.querySelectorAll("#top-list button")) button.setAttribute("aria-pressed", Number(button.dataset.tile) === i);
  if (found) {
    tellTile(places, i);
    setPanel(true);
    document.getElementById("tile").scrollIntoView({ block: "nearest" });
  }
  writeHash();
}

function tellTile(places, i) {
  const mpp = panes[0].slide.mpp;
  const at = (name) => places[name]?.[i] ?? null;
  const facts = [
    ["Attention, rank", at("percentile") !== null && `${at("percentile").toFixed(1)} of 100`],
    ["to patient's mean", at("relative") !== null && `${show(at("relative"), 2)} ×`],
    ["of the patient's", at("attention") !== null && percent(at("attention"), 3)],
    ["Tissue", at("tissue") !== null && percent(at("tissue"), 0)],
    ["Ground truth", at("marked") !== null && (at("marked") ? "marked" : "not marked")],
    ["Patient's label", panes[0].slide.label],
    ["Corner", `${places.x[i]}, ${places.y[i]} px`],
    ["Covers", `${places.width[i]} × ${places.height[i]} px`],
    ["", mpp && `${Math.round(places.width[i] * mpp)} × ${Math.round(places.height[i] * mpp)} µm`],
    ["Record", `${i + 1} of ${places.count}`],
  ];
  document.getElementById("tile-told").replaceChildren(
    el("img", { src: recordOf(i), alt: "the tile as the model was given it" }),
    el("dl", {}, facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])),
  );
}

// ---- two slides that move together

async function showTwo(key, place) {
  const known = all.some((slide) => slide.key === key);
  if (panes.length < 2) {
    const pane = new Pane(stage, handlers);
    pane.settings = settings;
    panes.push(pane);
    stage.classList.add("two");
  }
  const pane = panes[1];
  drawNames(key);
  try {
    if (!known) throw new Error("There is no such slide.");
    if (pane.key !== key || !pane.ready) {
      relation = null;
      await pane.open(key, place);
      await load(pane);
      if (!place && !pane.slide.problem) await match(pane);
    } else if (place) {
      pane.goTo(place, true);
      relate();
    }
  } catch (error) {
    pane.tell(error.message);
  }
  press();
  writeHash();
}

// The second slide begins at the same magnification, at its own middle.
async function match(pane) {
  const first = panes[0].place();
  for (let n = 0; n < 100 && !pane.ready; n++) await new Promise((done) => setTimeout(done, 30));
  if (!first || !pane.ready) return;
  const same = panes[0].slide.mpp && pane.slide.mpp ? panes[0].slide.mpp / pane.slide.mpp : pane.slide.width / panes[0].slide.width;
  pane.goTo({ x: (first.x / panes[0].slide.width) * pane.slide.width, y: (first.y / panes[0].slide.height) * pane.slide.height, r: first.r * same }, true);
  relate();
}

function drawNames(key) {
  const select = el("select", { "aria-label": "Second slide" }, all.map((slide) => el("option", { value: slide.key }, slide.image_id)));
  select.value = key;
  select.addEventListener("change", () => {
    showTwo(select.value, null);
  });
  panes[1].name.replaceChildren(select);
  panes[1].name.hidden = false;
}

function closeTwo() {
  if (panes.length > 1) panes.pop().remove();
  stage.classList.remove("two");
  leader = panes[0];
  relation = null;
  press();
  requestAnimationFrame(() => panes[0].draw());
}

// The pane that was touched last leads; the other keeps the offset and the ratio that both had when they were linked.
function relate() {
  const places = panes.map((pane) => pane.place());
  relation = places.length > 1 && places.every(Boolean) ? places : null;
}

function follow(pane, taken = false) {
  if (taken) leader = pane;
  if (taken || !linked || !relation || panes.length < 2 || pane !== leader) return;
  const at = panes.indexOf(pane);
  const other = panes[1 - at];
  const here = pane.place();
  if (!here || !other.ready) return;
  const [from, to] = [relation[at], relation[1 - at]];
  const ratio = to.r / from.r;
  other.goTo({ x: to.x + (here.x - from.x) * ratio, y: to.y + (here.y - from.y) * ratio, r: here.r * ratio }, true);
}

// ---- tools and keys

function addTools() {
  const tools = document.getElementById("tools");
  const add = (name, title, act) => {
    const icon = svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
    buttons[name] = el("button", { type: "button", title, "aria-label": title, id: `tool-${name}`, onclick: act }, icon);
    tools.append(buttons[name]);
  };
  add("in", "Closer (+)", () => leader.zoomBy(1.6));
  add("out", "Farther (-)", () => leader.zoomBy(1 / 1.6));
  add("home", "Whole slide (0)", () => leader.home());
  add("two", "Two slides side by side (s)", toggleTwo);
  add("link", "Move together", toggleLink);
  add("full", "Full screen (f)", toggleFull);
  add("keys", "Keys (?)", () => document.getElementById("help").showModal());
  add("panel", "Details (d)", togglePanel);
  work.classList.toggle("with-panel", window.innerWidth > 760);
  press();
}

function press() {
  buttons.two.setAttribute("aria-pressed", panes.length > 1);
  buttons.link.hidden = panes.length < 2;
  buttons.link.setAttribute("aria-pressed", linked);
  buttons.panel.setAttribute("aria-pressed", work.classList.contains("with-panel"));
}

function toggleTwo() {
  if (panes.length > 1) {
    closeTwo();
    writeHash();
    return;
  }
  const here = all.findIndex((slide) => slide.key === panes[0].key);
  const mine = all[here];
  const other = all.find((slide) => slide !== mine && slide.found && slide.run === mine?.run && slide.patient_id === mine?.patient_id);
  const next = other || all[(here + 1) % all.length];
  if (next) showTwo(next.key, null);
}

function toggleLink() {
  linked = !linked;
  relate();
  press();
  writeHash();
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else work.requestFullscreen?.().catch(() => {});
}

function togglePanel() {
  setPanel(!work.classList.contains("with-panel"));
}

function setPanel(on) {
  work.classList.toggle("with-panel", on);
  press();
  panes.forEach((pane) => pane.draw());
}

function step(by) {
  const at = all.findIndex((slide) => slide.key === panes[0].key);
  const next = all[at + by];
  if (!next) return;
  select(-1);
  show1(next.key, null).then(writeHash);
}

const KEYS = [
  ["+", "=", "closer", () => leader.zoomBy(1.6)],
  ["-", "_", "farther", () => leader.zoomBy(1 / 1.6)],
  ["0", null, "the whole slide", () => leader.home()],
  ["ArrowLeft", null, "left", () => leader.panBy(-1, 0)],
  ["ArrowRight", null, "right", () => leader.panBy(1, 0)],
  ["ArrowUp", null, "up", () => leader.panBy(0, -1)],
  ["ArrowDown", null, "down", () => leader.panBy(0, 1)],
  ["n", null, "next slide", () => step(1)],
  ["p", null, "slide before", () => step(-1)],
  ["s", null, "two slides side by side", toggleTwo],
  ["f", null, "full screen", toggleFull],
  ["d", null, "details", togglePanel],
  ["Escape", null, "no tile chosen", () => select(-1)],
  ["?", null, "these keys", () => document.getElementById("help").showModal()],
];

function addKeys() {
  const layers = LAYERS.map((layer) => [
    layer.key,
    null,
    layer.title.toLowerCase(),
    () => document.getElementById(`layer-${layer.name}`) && toggle(layer.name, !settings[layer.name].on),
  ]);
  const keys = [...KEYS.slice(0, 7), ...layers, ...KEYS.slice(7)];
  const name = (key) => ({ ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" })[key] || key;
  document.getElementById("keys").replaceChildren(...keys.flatMap(([key, , told]) => [el("dt", {}, el("kbd", {}, name(key))), el("dd", {}, told)]));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("help").open) return;
    if (event.target.matches("input, select, textarea") && event.target.type !== "checkbox") return;
    const found = keys.find(([key, other]) => event.key === key || event.key === other);
    if (!found) return;
    event.preventDefault();
    found[3]();
  });
}

start();
