"""The report of a tile classifier: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from PIL import Image

from components.evaluate_tiles.slides import RULES, SlideRule, SlideScore
from components.explain.page import read_style
from components.explain.pictures import heatmap_uri
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.provenance import code_version
from components.statistics.charts import Plot, draw_history
from components.statistics.froc import FALSE_POSITIVES, Froc

if TYPE_CHECKING:
    from components.evaluate_tiles.evaluation import Found

SHOWN_SLIDES = 12
_PICTURE_SIDE = 1040
_MOST_ROWS = 60
_CURVE_POINTS = 400
_SPLITS = ("val", "test")
_NAMES = {"val": "Validation", "test": "Test"}
_RULE_NAMES = {
    "max": "the highest tile",
    "mean_top_5": "the mean of the 5 highest tiles",
    "mean_top_20": "the mean of the 20 highest tiles",
}


def write_report(
    path: str,
    dataset: TiledDataset,
    found: Found,
    metrics: dict[str, Any],
    curves: Mapping[str, Froc],
    rule: SlideRule,
    *,
    training_dir: str = "",
    validation: str = "",
) -> None:
    """Writes the report; the same inputs give the same bytes.

    Args:
        path: of the HTML file.
        dataset: that was evaluated.
        found: the slides.
        metrics: what `metrics.json` holds.
        curves: FROC of each split.
        rule: from tiles to a slide's score.
        training_dir: folder with `history.json`, empty where there is none.
        validation: path of `validation.json`, empty where there is none.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["count"] = lambda value: f"{value:,}".replace(",", "\u202f")
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["interval"] = lambda value: f"{value[0]:.3f}–{value[1]:.3f}" if value else ""
    splits = [split for split in _SPLITS if split in metrics]
    shown = splits[-1]
    here = [slide for slide in found.slides if slide.split == shown]
    page = environment.get_template("report.html.j2").render(
        style=read_style(),
        facts=_facts(dataset),
        lead=metrics[shown],
        lead_name=_NAMES[shown].lower(),
        splits=[{"name": _NAMES[split], **metrics[split]} for split in splits],
        limits=[f"{limit:g}" for limit in FALSE_POSITIVES],
        froc=_draw_froc({split: curves[split] for split in splits}),
        rule={"told": _RULE_NAMES[rule.name], "how": rule.how, "aucs": _rule_aucs(rule)},
        samples=metrics["bootstrap_samples"],
        training=_training(training_dir),
        verdict=_verdict(validation),
        slides=[_figure(slide, found, rule) for slide in _pick(here, rule)],
        more=max(0, len(here) - SHOWN_SLIDES),
        left_out=metrics["left_out"][:_MOST_ROWS],
        more_left_out=max(0, len(metrics["left_out"]) - _MOST_ROWS),
    )
    storage.write_text(path, page)


def _facts(dataset: TiledDataset) -> list[tuple[str, str]]:
    schema = dataset.schema
    least = float(schema.parameters.get("min_lesion", 0.0))
    asked = "any bit of it" if not least else f"{least:.3g} of it" if least < 1 else f"{least:g} px of it"
    return [
        ("Records", f"sha256:{dataset.manifest.digest[:16]}…"),
        ("Tile", f"{schema.tile_px} px" + (f" at {schema.mpp:g} µm/px" if schema.mpp else "")),
        ("A tile is a lesion's where the mask marks", asked),
        ("Made by", code_version()),
    ]


def _rule_aucs(rule: SlideRule) -> list[tuple[str, float]]:
    return [(_RULE_NAMES[name], auc) for name in RULES if (auc := rule.validation_auc.get(name)) is not None]


def _draw_froc(curves: Mapping[str, Froc]) -> str:
    drawn = {split: curve for split, curve in curves.items() if curve.score is not None}
    if not drawn:
        return ""
    shares = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    plot = Plot("FROC", "false positives a slide", "share of lesions found", (0.0, 2.0, 4.0, 6.0, 8.0), shares)
    for split, curve in drawn.items():
        css = "blue" if split == "test" else "green"
        inside = curve.false_positives <= 8
        xs = np.append(curve.false_positives[inside], 8.0)
        ys = np.append(curve.sensitivity[inside], np.interp(8.0, curve.false_positives, curve.sensitivity))
        kept = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), _CURVE_POINTS)).round().astype(int))
        plot.line(xs[kept].tolist(), ys[kept].tolist(), css)
        for limit, value in (curve.at or {}).items():
            plot.point(float(limit), value, css, f"{_NAMES[split]}: {value:.2f} at {limit} a slide", 3.5)
    return plot.svg()


def _training(folder: str) -> dict[str, Any] | None:
    path = storage.join(folder, "history.json") if folder else ""
    if not path or storage.stat(path) is None:
        return None
    history = storage.read_json(path)
    epochs = history["epochs"]
    charts = []
    for title, names in (("loss", ("loss", "val_loss")), ("validation AUC of tiles", ("val_auc",))):
        series = {name: [float(entry[name]) for entry in epochs] for name in names if all(name in e for e in epochs)}
        if series and epochs:
            charts.append({"name": title, "svg": draw_history(title, series, None)})
    chosen = history["parameters"]
    told = ("encoder", "imbalance", "learning_rate", "augment", "hed", "seed")
    return {
        "epochs": len(epochs),
        "best": history["best_epoch"],
        "charts": charts,
        "parameters": [(name, str(chosen[name])) for name in told if name in chosen],
    }


def _verdict(path: str) -> str:
    if not path or storage.stat(path) is None:
        return ""
    return str(storage.read_json(path).get("verdict", ""))


def _pick(slides: list[SlideScore], rule: SlideRule) -> list[SlideScore]:
    """Slides with a lesion first, then others, each by score: what was found, and what was taken for a lesion."""
    order = sorted(slides, key=lambda slide: (not slide.lesion, -slide.scores[rule.name], slide.image_id))
    ill = [slide for slide in order if slide.lesion]
    well = [slide for slide in order if not slide.lesion]
    half = SHOWN_SLIDES // 2
    of_ill = min(len(ill), SHOWN_SLIDES - min(len(well), half))
    evenly = [ill[at * len(ill) // of_ill] for at in range(of_ill)]
    return evenly + well[: SHOWN_SLIDES - of_ill]


def _figure(slide: SlideScore, found: Found, rule: SlideRule) -> dict[str, Any]:
    path = found.heatmaps[slide.image_id]
    with Image.open(path) as picture:
        wide = picture.width
    return {
        "image_id": slide.image_id,
        "label": slide.label,
        "lesion": slide.lesion,
        "tiles": slide.tiles,
        "marked": slide.marked,
        "score": slide.scores[rule.name],
        "uri": heatmap_uri(path, None, min(wide, _PICTURE_SIDE)),
    }
