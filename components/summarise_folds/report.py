"""The page of a cross-validation: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from components.explain.page import read_style
from components.records import storage
from components.statistics.charts import Plot, draw_abstention, draw_calibration, nice_ticks
from components.statistics.curves import Curves

_NAMES = {
    "auc": ("AUC", "share of patient pairs in the right order; 0.5 is chance"),
    "accuracy": ("Accuracy", "share of patients whose most probable label is right"),
    "balanced_accuracy": ("Balanced accuracy", "mean of the labels' recalls"),
    "f1": ("F1", "harmonic mean of precision and recall"),
    "log_loss": ("Log loss", "lower is better"),
    "weighted_log_loss": ("Weighted log loss", "mean of the labels' log losses; 0.693 knows nothing"),
    "brier": ("Brier score", "lower is better"),
    "ece": ("Calibration error", "ECE, 10 bins; lower is better"),
}
_JUDGED = ("sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value")
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def write_report(
    path: str, metrics: Mapping[str, Any], curves: Curves, fold_curves: Sequence[Mapping[str, list[float]]]
) -> None:
    """Writes the page; the same inputs give the same bytes.

    Args:
        path: the HTML file.
        metrics: what `metrics.json` holds.
        curves: of the pooled patients.
        fold_curves: each fold's ROC curve.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = lambda value, digits=3: "–" if value is None else f"{value:.{digits}f}"
    judged = metrics["test"]["at_threshold"]
    page = environment.get_template("report.html.j2").render(
        style=read_style(),
        m=metrics,
        rows=[(*names, metrics["over_folds"][key], key) for key, names in _NAMES.items()],
        judged=[(name.replace("_", " "), judged[name], judged[f"{name}_ci95"]) for name in _JUDGED] if judged else [],
        fold_plot=_draw_spread(metrics["folds"]),
        roc=_draw_roc(curves, fold_curves),
        reliability=draw_calibration(curves),
        abstention=draw_abstention(curves),
        chosen=any(fold["chosen"] for fold in metrics["folds"]),
    )
    storage.write_text(path, page)


def _draw_spread(folds: Sequence[Mapping[str, Any]]) -> Markup:
    """Each fold's AUC as a dot, and their mean as a line."""
    known = [(number, fold) for number, fold in enumerate(folds, start=1) if fold["auc"] is not None]
    if not known:
        return Markup("")
    step = max(1, len(folds) // 10)
    plot = Plot(
        "AUC of each fold",
        "fold",
        "AUC on its test patients",
        [0.0, *(float(number) for number in range(1, len(folds) + 1, step)), len(folds) + 1.0],
        nice_ticks(min(0.5, *(fold["auc"] for _, fold in known)), 1.0),
    )
    mean = sum(fold["auc"] for _, fold in known) / len(known)
    plot.line([0.0, len(folds) + 1.0], [mean, mean], "blue")
    for number, fold in known:
        plot.point(number, fold["auc"], "blue", f"{fold['name']}: {fold['auc']:.3f}, {fold['n_patients']} patients", 5)
    return plot.svg()


def _draw_roc(curves: Curves, fold_curves: Sequence[Mapping[str, list[float]]]) -> Markup:
    if not curves.roc["fpr"]:
        return Markup("")
    plot = Plot("ROC curve", "false positive rate", "true positive rate", _TICKS, _TICKS)
    plot.line([0, 1], [0, 1], "faint")
    for roc in fold_curves:
        if roc["fpr"]:
            plot.line(roc["fpr"], roc["tpr"], "thin")
    plot.area(curves.roc["fpr"], curves.roc["tpr"], "blue")
    plot.line(curves.roc["fpr"], curves.roc["tpr"], "blue")
    return plot.svg()
