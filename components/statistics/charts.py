"""Small SVG charts written by hand: crisp at any size, coloured by the page's own styles, the same bytes every time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from components.statistics.curves import Curves

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that cover low to high, about `wanted` of them."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


class Plot:
    """Axes with room for lines, points and bars; `svg()` gives the finished picture."""

    def __init__(
        self, title: str, x_label: str, y_label: str, x_ticks: Sequence[float], y_ticks: Sequence[float]
    ) -> None:
        self._x_range, self._y_range = (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1])
        self._parts = [f'<g class="grid">{self._grid(x_ticks, y_ticks)}</g>']
        self._title = title
        middle = (LEFT + WIDTH - RIGHT) / 2
        self._parts.append(f'<text class="name" x="{middle:g}" y="{HEIGHT - 8}">{escape(x_label)}</text>')
        centre = (TOP + HEIGHT - BOTTOM) / 2
        self._parts.append(
            f'<text class="name" transform="translate(13 {centre:g}) rotate(-90)">{escape(y_label)}</text>'
        )

    def x(self, value: float) -> float:
        """Where a value stands on the horizontal axis, in SVG units."""
        low, high = self._x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Where a value stands on the vertical axis, in SVG units."""
        low, high = self._y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def line(self, xs: Sequence[float], ys: Sequence[float], css: str) -> None:
        """A line through the points; a dot where there is one only."""
        if len(xs) == 1:
            self.point(xs[0], ys[0], css, "")
            return
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        self._parts.append(f'<polyline class="line {css}" points="{points}"/>')

    def area(self, xs: Sequence[float], ys: Sequence[float], css: str) -> None:
        """What lies below a line, tinted."""
        base = self.y(self._y_range[0])
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        points = f"{self.x(xs[0]):.1f},{base:.1f} {points} {self.x(xs[-1]):.1f},{base:.1f}"
        self._parts.append(f'<polygon class="area {css}" points="{points}"/>')

    def point(self, x: float, y: float, css: str, tip: str, radius: float = 4) -> None:
        """A dot; `tip` shows on hovering."""
        self._parts.append(
            f'<circle class="dot {css}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius:.1f}">'
            f"<title>{escape(tip)}</title></circle>"
        )

    def bar(self, x0: float, x1: float, y: float, css: str, tip: str) -> None:
        """A bar from the axis up to `y`; `tip` shows on hovering."""
        left, right, top = self.x(x0), self.x(x1), self.y(y)
        height = max(self.y(self._y_range[0]) - top, 0.8)
        self._parts.append(
            f'<rect class="column {css}" x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0.8):.1f}" '
            f'height="{height:.1f}"><title>{escape(tip)}</title></rect>'
        )

    def mark(self, x: float, text: str) -> None:
        """A dashed upright line with a word beside it."""
        at = self.x(x)
        anchor, offset = ("end", -5) if at > WIDTH * 0.7 else ("start", 5)
        self._parts.append(
            f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text class="note" x="{at + offset:.1f}" y="{TOP + 11}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def svg(self) -> Markup:
        """The finished picture, scaling with its place on the page."""
        return Markup(  # noqa: S704 - every text in it went through escape()
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self._title)}">'
            f"<title>{escape(self._title)}</title>{''.join(self._parts)}</svg>"
        )

    def _grid(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
        parts = []
        for value in y_ticks:
            at = self.y(value)
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{LEFT - 7}" y="{at + 3.5:.1f}" text-anchor="end">{value:g}</text>')
        for value in x_ticks:
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
            )
        return "".join(parts)


_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def draw_roc(curves: Curves) -> Markup:
    """The ROC curve as an SVG picture; empty where it is not defined."""
    if not curves.roc["fpr"]:
        return Markup("")
    plot = Plot("ROC curve", "false positive rate", "true positive rate", _SHARES, _SHARES)
    plot.line([0, 1], [0, 1], "faint")
    plot.area(curves.roc["fpr"], curves.roc["tpr"], "blue")
    plot.line(curves.roc["fpr"], curves.roc["tpr"], "blue")
    if curves.threshold:
        fpr, tpr = curves.threshold["fpr"], curves.threshold["tpr"]
        plot.point(fpr, tpr, "red", f"decision threshold: sensitivity {tpr:.2f}, specificity {1 - fpr:.2f}", 6)
    return plot.svg()


def draw_calibration(curves: Curves) -> Markup:
    """The reliability diagram, as the model is (blue) and calibrated (green): dots grow with the patients of a bin."""
    if not curves.calibration:
        return Markup("")
    x_label = f"predicted probability of {curves.labels[1]}" if len(curves.labels) == 2 else "predicted probability"
    plot = Plot("Calibration curve", x_label, "observed share", _SHARES, _SHARES)
    plot.line([0, 1], [0, 1], "faint")
    for css, name, bins in (("blue", "before", curves.calibration), ("green", "after", curves.calibrated)):
        if not bins:
            continue
        plot.line([b["predicted"] for b in bins], [b["observed"] for b in bins], css)
        most = max(b["patients"] for b in bins)
        for b in bins:
            tip = f"{name}, {b['patients']:g} patients: predicted {b['predicted']:.2f}, observed {b['observed']:.2f}"
            plot.point(b["predicted"], b["observed"], css, tip, 3.5 + 5 * math.sqrt(b["patients"] / most))
    return plot.svg()


def draw_abstention(curves: Curves) -> Markup:
    """Share of wrong calls against the share of patients called, the surest first."""
    coverage, risk = curves.abstention.get("coverage", []), curves.abstention.get("risk", [])
    if not coverage:
        return Markup("")
    plot = Plot(
        "Risk against coverage",
        "coverage: share of patients called, the surest first",
        "risk: wrong among them",
        _SHARES,
        nice_ticks(0, max(0.1, *risk)),
    )
    plot.line([0, 1], [risk[-1], risk[-1]], "faint")
    plot.area(coverage, risk, "red")
    plot.line(coverage, risk, "red")
    return plot.svg()


def draw_history(name: str, curves: dict[str, list[float]], best: int | None) -> Markup:
    """Training curves of one quantity over the epochs; `best` marks an epoch (from 1)."""
    values = [value for series in curves.values() for value in series if math.isfinite(value)]
    if not values:
        return Markup("")
    epochs = max(len(series) for series in curves.values())
    x_ticks = nice_ticks(1, max(epochs, 2), 6) if epochs > 6 else [float(n) for n in range(1, max(epochs, 2) + 1)]
    x_ticks = [max(tick, 0.0) for tick in x_ticks if tick == int(tick)]
    plot = Plot(f"{name} by epoch", "epoch", name, x_ticks, nice_ticks(min(0.0, min(values)), max(values)))
    for key, series in curves.items():
        shown = [(number, value) for number, value in enumerate(series, start=1) if math.isfinite(value)]
        if shown:
            css = "red" if key.startswith("val_") else "blue"
            plot.line([number for number, _ in shown], [value for _, value in shown], css)
    if best is not None:
        plot.mark(best, f"lowest: epoch {best}")
    return plot.svg()


def draw_tile_counts(counts: Sequence[tuple[str, int]], most_bars: int = 80) -> Markup:
    """Tiles of every slide as bars, largest first; a histogram where there are more slides than `most_bars`."""
    if not counts:
        return Markup("")
    if len(counts) <= most_bars:
        ordered = sorted(counts, key=lambda pair: (-pair[1], pair[0]))
        y_ticks = nice_ticks(0, max(1, ordered[0][1]))
        plot = Plot("Tiles per slide", "slides, largest first", "tiles", [0, len(ordered)], y_ticks)
        for number, (image_id, tiles) in enumerate(ordered):
            plot.bar(number + 0.12, number + 0.88, tiles, "blue" if tiles else "red", f"{image_id}: {tiles} tiles")
        return plot.svg()
    x_ticks = nice_ticks(0, max(1, max(tiles for _, tiles in counts)), 6)
    bins, width = [0] * 24, x_ticks[-1] / 24
    for _, tiles in counts:
        bins[min(int(tiles / width), 23)] += 1
    plot = Plot("Slides by number of tiles", "tiles", "slides", x_ticks, nice_ticks(0, max(bins)))
    for number, slides in enumerate(bins):
        if slides:
            tip = f"{number * width:.0f} to {(number + 1) * width:.0f} tiles: {slides} slides"
            plot.bar((number + 0.06) * width, (number + 0.94) * width, slides, "blue", tip)
    return plot.svg()
