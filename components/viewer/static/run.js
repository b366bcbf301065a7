import { graph, plot, ticks } from "./charts.js";
import { ask, count, el, percent, runAddress, show, slideAddress } from "./page.js";

const METRICS = [
  ["auc", "AUC", "share of patient pairs in the right order; 0.5 is chance"],
  ["accuracy", "Accuracy", "share of patients whose most probable label is right"],
  ["balanced_accuracy", "Balanced accuracy", "mean of the labels' recalls"],
  ["precision", "Precision", "of the patients called positive, how many are"],
  ["recall", "Recall", "of the positive patients, how many were found"],
  ["f1", "F1", "harmonic mean of precision and recall"],
  ["log_loss", "Log loss", "lower is better; punishes sure mistakes"],
  ["weighted_log_loss", "Weighted log loss", "mean of the labels' log losses; 0.693 knows nothing"],
  ["brier", "Brier score", "mean squared error of the probability; lower is better"],
  ["ece", "Calibration error", "ECE, 10 bins; lower is better"],
  ["ece_adaptive", "Adaptive calibration error", "the same with equally many patients a bin"],
];
const SPLITS = { train: "Training", val: "Validation", test: "Test" };

const page = document.getElementById("page");
let runs = [];
let chosen = [];
let split = "";
const described = new Map();

start();

async function start() {
  try {
    runs = await ask("/api/runs");
  } catch (error) {
    page.replaceChildren(el("p", { class: "empty" }, error.message));
    return;
  }
  window.addEventListener("hashchange", read);
  await read();
}

async function read() {
  const found = new URLSearchParams(location.hash.slice(1));
  const keys = (found.get("r") || "").split(",").map(decode).filter((key) => runs.some((run) => run.key === key));
  chosen = keys.length ? keys : runs.slice(0, 4).map((run) => run.key);
  split = found.get("split") || "";
  await draw();
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function write() {
  history.replaceState(null, "", `${runAddress(chosen)}${split ? `&split=${split}` : ""}`);
  draw();
}

async function draw() {
  if (!runs.length) {
    page.replaceChildren(el("h1", {}, "Runs"), el("p", { class: "empty" }, "There is no run here, only slides."));
    return;
  }
  let shown;
  try {
    shown = await Promise.all(chosen.map(fetchRun));
  } catch (error) {
    page.replaceChildren(el("p", { class: "empty" }, error.message));
    return;
  }
  const splits = Object.keys(SPLITS).filter((name) => shown.some((run) => run.splits.includes(name)));
  const now = splits.includes(split) ? split : splits.at(-1);
  document.title = `${chosen.join(", ")} · bagline`;
  page.replaceChildren(
    el("h1", {}, chosen.length === 1 ? chosen[0] : "Runs, side by side"),
    picker(splits, now),
    ...shown.map((run, n) => verdict(run, n)),
    ...(now ? [metrics(shown, splits), ...curves(shown, now), ...tables(shown, now)] : [el("p", { class: "soft" }, "Not evaluated yet.")]),
    ...training(shown),
    ...failures(shown),
    ...lineage(shown),
  );
}

async function fetchRun(key) {
  if (!described.has(key)) described.set(key, await ask(`/api/runs/${encodeURIComponent(key)}`));
  return described.get(key);
}

function picker(splits, now) {
  const boxes = runs.length < 2 ? [] : runs.map((run) => {
    const box = el("input", { type: "checkbox" });
    box.checked = chosen.includes(run.key);
    box.addEventListener("change", () => {
      const next = runs.map((one) => one.key).filter((key) => (key === run.key ? box.checked : chosen.includes(key)));
      if (next.length) chosen = next;
      write();
    });
    return el("label", { class: `c${Math.max(0, chosen.indexOf(run.key)) % 4}` }, box, chosen.includes(run.key) && el("i", { class: "dot" }), run.key);
  });
  if (splits.length < 2) return el("div", { class: "pick" }, boxes);
  const select = el("select", { "aria-label": "Split", id: "split" }, splits.map((name) => el("option", { value: name }, SPLITS[name])));
  select.value = now;
  select.addEventListener("change", () => {
    split = select.value;
    write();
  });
  return el("div", { class: "pick" }, boxes, el("label", {}, "Curves and tables of", select));
}

function verdict(run, n) {
  const { totals, gate, facts } = run;
  const status = Object.entries(totals.status).map(([name, number]) => `${number} ${name}`).join(", ");
  return el(
    "div",
    { class: `verdict${gate && !gate.blessed ? " no" : ""}` },
    chosen.length > 1 && el("b", { class: `c${n % 4}` }, el("i", { class: "dot" }), ` ${run.key}: `),
    gate ? `${gate.blessed ? "Passed the gate" : "Did not pass the gate"}: ${gate.reason}.` : "Not evaluated.",
    el(
      "div",
      { class: "small soft" },
      `${count(totals.patients, "patient", "patients")}, ${count(totals.slides, "slide", "slides")}${status ? ` (${status})` : ""}, ` +
        `${count(totals.tiles, "tile", "tiles")} of ${facts.tile_px} px${facts.mpp ? ` at ${facts.mpp} µm/px` : ""} · ${run.labels.join(", ")} · ${facts.code_version}`,
      run.report && [" · ", el("a", { href: `/report/${encodeURIComponent(run.key)}` }, "the report")],
    ),
  );
}

function metrics(shown, splits) {
  const columns = shown.flatMap((run, n) => splits.filter((name) => run.splits.includes(name)).map((name) => ({ run, name, n })));
  const cell = ({ run, name }, key) => {
    const value = run.metrics[name][key];
    const interval = run.metrics[name].ci95?.[key];
    return el("td", { class: "number" }, show(value), interval && el("div", { class: "small soft" }, `${show(interval[0])} – ${show(interval[1])}`));
  };
  const rows = METRICS.filter(([key]) => columns.some(({ run, name }) => typeof run.metrics[name][key] === "number"));
  return el(
    "section",
    { id: "metrics" },
    el("h2", {}, "Metrics"),
    el("p", { class: "small soft" }, `A patient counts once. Below each value its 95% interval over patients${shown[0].bootstrap_samples ? `, ${shown[0].bootstrap_samples} bootstrap samples` : ""}.`),
    el(
      "div",
      { class: "scroll" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, el("th", {}), columns.map(({ run, name, n }) => el("th", { class: "number" }, shown.length > 1 && el("div", { class: `c${n % 4}` }, el("i", { class: "dot" }), ` ${run.key}`), SPLITS[name])))),
        el(
          "tbody",
          {},
          el("tr", {}, el("td", {}, "Patients"), columns.map(({ run, name }) => el("td", { class: "number" }, String(run.metrics[name].n_patients)))),
          rows.map(([key, title, meaning]) => el("tr", {}, el("td", {}, title, el("div", { class: "small soft" }, meaning)), columns.map((column) => cell(column, key)))),
        ),
      ),
    ),
  );
}

function curves(shown, now) {
  const having = shown.map((run, n) => ({ run, n, curves: run.curves[now] })).filter((one) => one.curves);
  const roc = having.filter((one) => one.curves.roc.fpr.length);
  const reliability = having.filter((one) => one.curves.calibration.length);
  const named = (one, more = "") => (shown.length > 1 ? one.run.key : "") + more;
  const charts = [];
  if (roc.length) {
    charts.push(
      plot({
        title: "ROC curve",
        x: "false positive rate",
        y: "up: true positive rate",
        diagonal: true,
        lines: roc.map((one) => {
          const at = one.run.metrics[now].at_threshold;
          const spots =
            typeof at?.sensitivity === "number" && typeof at?.specificity === "number"
              ? [{ x: 1 - at.specificity, y: at.sensitivity, size: 5, tip: `decision threshold: sensitivity ${show(at.sensitivity, 2)}, specificity ${show(at.specificity, 2)}` }]
              : [];
          return { name: named(one, ` AUC ${show(one.run.metrics[now].auc)}`).trim(), color: one.n, points: one.curves.roc.fpr.map((x, i) => [x, one.curves.roc.tpr[i]]), spots };
        }),
      }),
    );
  }
  if (reliability.length) {
    const line = (one, bins, dashed, more) => {
      const most = Math.max(...bins.map((bin) => bin.patients));
      return {
        name: named(one, more).trim(),
        color: one.n,
        dashed,
        points: bins.map((bin) => [bin.predicted, bin.observed]),
        spots: bins.map((bin) => ({ x: bin.predicted, y: bin.observed, size: 3 + 4 * Math.sqrt(bin.patients / most), tip: `${count(bin.patients, "patient", "patients")}: predicted ${show(bin.predicted, 2)}, observed ${show(bin.observed, 2)}` })),
      };
    };
    charts.push(
      plot({
        title: "Calibration",
        x: "predicted probability",
        y: "up: observed share",
        diagonal: true,
        lines: reliability.flatMap((one) => [
          line(one, one.curves.calibration, false, one.curves.calibrated.length ? " before" : " predicted"),
          ...(one.curves.calibrated.length ? [line(one, one.curves.calibrated, true, " after")] : []),
        ]),
      }),
    );
  }
  return [el("h2", {}, `Curves, ${SPLITS[now].toLowerCase()}`), el("div", { class: "pair", id: "curves" }, charts, having.map((one) => confusion(one, shown.length > 1)))];
}

function confusion({ run, curves: { confusion: counts } }, many) {
  return el(
    "div",
    { class: "chart-card" },
    el("h3", {}, `Confusion matrix${many ? `, ${run.key}` : ""}`),
    el(
      "table",
      { class: "matrix" },
      el("thead", {}, el("tr", {}, el("th", {}, "is ↓ called →"), run.labels.map((label) => el("th", {}, label)))),
      el(
        "tbody",
        {},
        counts.map((row, n) => {
          const all = row.reduce((sum, number) => sum + number, 0);
          return el(
            "tr",
            {},
            el("th", {}, run.labels[n]),
            row.map((number) => {
              const cell = el("td", { class: all && number / all > 0.6 ? "much" : "" }, String(number), el("div", { class: "small" }, all ? percent(number / all, 0) : "–"));
              cell.style.setProperty("--share", all ? number / all : 0);
              return cell;
            }),
          );
        }),
      ),
    ),
  );
}

function table(head, rows, title) {
  return el(
    "div",
    { class: "chart-card" },
    title && el("h3", {}, title),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, head.map((name, n) => el("th", { class: n && name !== "Why" ? "number" : "" }, name)))), el("tbody", {}, rows))),
  );
}

function tables(shown, now) {
  const many = shown.length > 1;
  const found = [];
  const centers = shown.filter((run) => run.centers[now]?.length);
  if (centers.length) {
    found.push(
      el("h2", {}, `By center, ${SPLITS[now].toLowerCase()}`),
      el("div", { class: "pair", id: "centers" }, centers.map((run) =>
        table(
          ["Center", "Patients", "Accuracy", "AUC", "Log loss", "ECE"],
          run.centers[now].map((row) => el("tr", {}, el("td", {}, row.center || "none"), [String(row.patients), ...["accuracy", "auc", "log_loss", "ece"].map((key) => show(row[key]))].map((value) => el("td", { class: "number" }, value)))),
          many && run.key,
        ))),
    );
  }
  const worst = shown.filter((run) => run.worst[now]?.length);
  if (worst.length) {
    found.push(
      el("h2", {}, `The patients it got most wrong, ${SPLITS[now].toLowerCase()}`),
      el("div", { class: "pair", id: "worst" }, worst.map((run) =>
        table(
          ["Patient", "Is", "Called", "P(true label)", "Loss"],
          run.worst[now].slice(0, 10).map((row) =>
            el(
              "tr",
              {},
              el("td", {}, row.patient_id, el("div", { class: "small" }, links(run, row.image_ids))),
              el("td", { class: "number" }, row.label),
              el("td", { class: "number" }, el("span", { class: `chip ${row.right ? "good" : "bad"}` }, `${row.right ? "✓" : "✗"} ${row.predicted}`)),
              el("td", { class: "number" }, show(row.of_truth)),
              el("td", { class: "number" }, show(row.loss)),
            )),
          many && run.key,
        ))),
    );
  }
  return found;
}

function links(run, ids) {
  return ids.flatMap((id, n) => [n ? ", " : "", run.slides[id] ? el("a", { href: slideAddress(run.slides[id]) }, id) : id]);
}

function training(shown) {
  const having = shown.map((run, n) => ({ run, n, epochs: run.history.epochs })).filter((one) => one.epochs.length);
  if (!having.length) return [];
  const many = shown.length > 1;
  const charts = ["loss", "accuracy", "auc"].map((name) => {
    const lines = having.flatMap(({ run, n, epochs }) =>
      [["", false], ["val_", true]].map(([kind, dashed]) => ({
        name: `${many ? `${run.key} ` : ""}${kind ? "validation" : "training"}`,
        color: many ? n : kind ? 1 : 0,
        dashed: many && dashed,
        points: epochs.filter((one) => Number.isFinite(one[kind + name])).map((one) => [one.epoch, one[kind + name]]),
      })),
    ).filter((line) => line.points.length);
    if (!lines.length) return null;
    const values = lines.flatMap((line) => line.points.map(([, y]) => y));
    const last = Math.max(...lines.flatMap((line) => line.points.map(([x]) => x)), 2);
    const top = Math.max(...values, name === "loss" ? 0 : 1);
    return plot({
      title: { loss: "Loss", accuracy: "Accuracy", auc: "AUC" }[name],
      x: "epoch",
      y: name === "loss" ? "lower is better" : "higher is better",
      xRange: [1, last],
      yRange: [0, Math.max(top, ticks(0, top).at(-1))],
      lines,
      mark: many ? null : having[0].run.history.best_epoch,
    });
  });
  return [el("h2", {}, "Training"), el("div", { class: "pair", id: "training" }, charts)];
}

function failures(shown) {
  const parts = shown.map((run) => {
    const rows = run.failures.map((row) =>
      el(
        "tr",
        {},
        el("td", {}, links(run, [row.image_id])),
        el("td", { class: "number" }, el("span", { class: `chip ${row.status === "failed" ? "bad" : "odd"}` }, row.status)),
        el("td", { class: "number" }, `${row.tiles} / ${row.tiles_failed}`),
        el("td", {}, row.reason),
      ));
    const title = shown.length > 1 && run.key;
    if (!rows.length) return el("div", { class: "chart-card" }, title && el("h3", {}, title), el("p", { class: "soft" }, "Every slide was tiled, and no tile was lost."));
    return table(["Slide", "Status", "Tiles / lost", "Why"], rows, title);
  });
  return [el("h2", {}, "Slides that failed, or in part"), el("div", { class: "pair", id: "failures" }, parts)];
}

function lineage(shown) {
  const having = shown.filter((run) => run.lineage.nodes.length);
  if (!having.length) return [];
  return [el("h2", {}, "Lineage"), el("div", { id: "lineage" }, having.map((run) => [shown.length > 1 && el("h3", {}, run.key), graph(run.lineage)]))];
}
