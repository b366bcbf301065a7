"""Temperature scaling: one number, fitted on validation, that makes probabilities bolder or more careful."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.statistics.metrics import Array, Indices, normalise_probabilities

METHODS = ("temperature", "none")
FITTED_ON = "val"
LOWEST, HIGHEST = 0.05, 20.0
PRIOR_DEVIATION = 1.0
_SMALLEST = 1e-300
_GRID, _ROUNDS = 101, 7


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature: calibrated probabilities are softmax(ln p / temperature).

    Attributes:
        method: `temperature` or `none`.
        temperature: the one to use, held near 1 where patients are few; None where there is none, `reason` says why.
        likelihood_temperature: the one that maximises the likelihood alone.
        at_bound: whether that ran into the bound, as it does where every patient is called right.
        split, patients: what it was fitted on.
        nll_before, nll_after: mean -ln p of the true label there.
    """

    method: str
    temperature: float | None = None
    likelihood_temperature: float | None = None
    at_bound: bool = False
    split: str = FITTED_ON
    patients: int = 0
    nll_before: float | None = None
    nll_after: float | None = None
    reason: str = ""

    def apply(self, probabilities: NDArray[np.floating[Any]]) -> Array | None:
        """Calibrated probabilities of [patients, classes], in the same order; None without a temperature."""
        return None if self.temperature is None else scale_probabilities(probabilities, self.temperature)

    def to_json(self) -> dict[str, Any]:
        """What `calibration.json` holds."""
        return {
            **asdict(self),
            "formula": "calibrated = softmax(ln(probability) / temperature)",
            "bounds": [LOWEST, HIGHEST],
            "prior": f"ln(temperature) is normal with mean 0 and deviation {PRIOR_DEVIATION:g}",
        }


def fit_temperature(labels: Indices, probabilities: NDArray[np.floating[Any]]) -> Calibration:
    """Fits a temperature to validation patients (Guo et al. 2017, section 4.2, eq. 9), of any number of classes.

    The sum of -ln p is minimised with (ln T)² / 2 added, a normal prior on ln T: of few patients, who may all be
    called right, the likelihood alone would have T go to 0. With hundreds of patients the prior no longer shows.

    Args:
        labels: [patients], class indices.
        probabilities: [patients, classes].

    Returns:
        The calibration; without a temperature where there are no patients, or of one label only.
    """
    patients = len(labels)
    if not patients:
        return Calibration("temperature", reason="there is no validation patient")
    if len(np.unique(labels)) < 2:
        return Calibration("temperature", patients=patients, reason="the validation patients are of one label only")
    logits = _logits(probabilities)

    def likelihood(log_temperature: float) -> float:
        return _mean_nll(labels, logits, math.exp(log_temperature))

    def posterior(log_temperature: float) -> float:
        return likelihood(log_temperature) + (log_temperature / PRIOR_DEVIATION) ** 2 / (2 * patients)

    low, high = math.log(LOWEST), math.log(HIGHEST)
    alone, chosen = _minimise(likelihood, low, high), _minimise(posterior, low, high)
    return Calibration(
        "temperature",
        temperature=math.exp(chosen),
        likelihood_temperature=math.exp(alone),
        at_bound=min(alone - low, high - alone) < 1e-6,
        patients=patients,
        nll_before=likelihood(0.0),
        nll_after=likelihood(chosen),
    )


def scale_probabilities(probabilities: NDArray[np.floating[Any]], temperature: float) -> Array:
    """softmax(ln p / temperature) of [patients, classes]: float64, rows summing to 1.

    Softmax forgets a constant, so ln p does what the model's logits would do.
    """
    scaled = _logits(probabilities) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True)) if len(scaled) else scaled
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def _logits(probabilities: NDArray[np.floating[Any]]) -> Array:
    return np.asarray(np.log(np.maximum(normalise_probabilities(probabilities), _SMALLEST)), np.float64)


def _mean_nll(labels: Indices, logits: Array, temperature: float) -> float:
    scaled = logits / temperature
    highest = scaled.max(axis=1)
    total = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
    return float((total - scaled[np.arange(len(labels)), labels]).mean())


def _minimise(function: Callable[[float], float], low: float, high: float) -> float:
    """The lowest point between two bounds, by grids that close in on it; of equal ones the nearest to 0."""
    start, end = low, high
    best = 0.0
    for _ in range(_ROUNDS):
        grid = np.linspace(start, end, _GRID)
        values = np.array([function(float(point)) for point in grid])
        ties = np.flatnonzero(values <= values.min())
        best = float(min(grid[ties], key=abs))
        step = (end - start) / (_GRID - 1)
        start, end = max(low, best - step), min(high, best + step)
    return best
