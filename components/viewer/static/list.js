import { ask, count, el, percent, slideAddress } from "./page.js";

const STEP = 120;
const CHOICES = [
  ["run", "All runs", (s) => s.run || "no run"],
  ["split", "All splits", (s) => s.split],
  ["label", "All labels", (s) => s.label],
  ["center", "All centers", (s) => s.center],
  ["status", "Any status", (s) => (s.found ? s.status : "file not found")],
  ["called", "Right and wrong", (s) => (s.right === undefined ? undefined : s.right ? "called right" : "called wrong")],
];
const STATUS = { tiled: "", partial: "odd", empty: "odd", failed: "bad" };

let slides = [];
let shown = [];
let drawn = 0;
const words = document.getElementById("words");
const list = document.getElementById("slides");
const more = document.getElementById("more");
const selects = new Map();

start();

async function start() {
  try {
    const [found, runs] = await Promise.all([ask("/api/slides"), ask("/api/runs")]);
    slides = found;
    document.getElementById("to-run").hidden = runs.length === 0;
  } catch (error) {
    document.getElementById("count").textContent = error.message;
    return;
  }
  for (const slide of slides) {
    slide.text = [slide.image_id, slide.patient_id, slide.label, slide.predicted, slide.center, slide.reason].join(" ").toLowerCase();
  }
  addChoices();
  readHash();
  for (const event of ["input", "submit"]) {
    document.getElementById("filters").addEventListener(event, (e) => {
      if (event === "submit") e.preventDefault();
      writeHash();
      filter();
    });
  }
  more.addEventListener("click", draw);
  new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && draw(), { rootMargin: "600px" }).observe(more);
  filter();
}

function addChoices() {
  for (const [name, all, read] of CHOICES) {
    const values = [...new Set(slides.map(read).filter((value) => value))].sort();
    if (values.length < 2) continue;
    const select = el("select", { "aria-label": all, name }, el("option", { value: "" }, all), values.map((v) => el("option", { value: v }, v)));
    selects.set(name, [select, read]);
    document.getElementById("filters").append(select);
  }
}

function readHash() {
  const found = new URLSearchParams(location.hash.slice(1));
  words.value = found.get("q") || "";
  for (const [name, [select]] of selects) select.value = found.get(name) || "";
}

function writeHash() {
  const wanted = new URLSearchParams();
  if (words.value) wanted.set("q", words.value);
  for (const [name, [select]] of selects) if (select.value) wanted.set(name, select.value);
  history.replaceState(null, "", `#${wanted}`);
}

function filter() {
  const parts = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = slides.filter(
    (slide) =>
      parts.every((part) => slide.text.includes(part)) &&
      [...selects.values()].every(([select, read]) => !select.value || read(slide) === select.value),
  );
  document.getElementById("count").textContent =
    shown.length === slides.length ? count(slides.length, "slide", "slides") : `${shown.length} of ${count(slides.length, "slide", "slides")}`;
  list.replaceChildren();
  drawn = 0;
  draw();
  if (!shown.length) list.append(el("li", { class: "empty" }, "No slide fits."));
}

function draw() {
  list.append(...shown.slice(drawn, drawn + STEP).map(card));
  drawn = Math.min(shown.length, drawn + STEP);
  more.hidden = drawn >= shown.length;
}

function card(slide) {
  const picture = el("div", { class: "picture" });
  const image = el("img", { src: `/api/slides/${slide.key}/thumbnail.jpg`, alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => picture.replaceChildren("no picture"));
  picture.append(image);
  return el(
    "li",
    {},
    el(
      "a",
      { href: slideAddress(slide.key) },
      picture,
      el(
        "div",
        { class: "text" },
        el("div", { class: "name", title: slide.image_id }, slide.image_id),
        el(
          "div",
          { class: "chips" },
          slide.label && el("span", { class: "chip", title: "label" }, slide.label),
          slide.split && el("span", { class: "chip soft" }, slide.split),
          slide.predicted &&
            el(
              "span",
              { class: `chip ${slide.right ? "good" : "bad"}`, title: `the patient was called ${slide.predicted}` },
              `${slide.right ? "✓" : "✗"} ${slide.predicted} ${percent(slide.probability, 0)}`,
            ),
          slide.status && slide.status !== "tiled" && el("span", { class: `chip ${STATUS[slide.status] || ""}`, title: slide.reason }, slide.status),
          !slide.found && el("span", { class: "chip odd" }, "file not found"),
        ),
      ),
    ),
  );
}
