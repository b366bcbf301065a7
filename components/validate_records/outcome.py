"""What validation finds: offenders, checks, thresholds, and the verdict over all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from components.records.errors import InputError, WorkError, name_first

PASS, WARN, FAIL, NOT_APPLICABLE = "pass", "warn", "fail", "not applicable"
MAX_OFFENDERS = 20


@dataclass(frozen=True)
class Thresholds:
    """What a dataset may show before it is refused.

    Attributes:
        max_blank_share: share of near-blank tiles, 0-1, above which the dataset fails.
        blank_deviation: a tile is near-blank where no colour channel's standard deviation over its px
            reaches this (of 255).
        max_duplicates_across_splits: tiles whose pixels also stand in another patient of another split; more fail.
        max_duplicates_within_split: the same between patients of one split; more warn.
        max_colour_drift: standardised mean difference (Cohen's d) of a colour statistic; above it a split or center
            is named. 0.8 is what Cohen calls large.
        colour_drift_fails: colour drift fails instead of warning.
        min_patients_per_class: patients with tiles that every class needs in every split.
        max_mpp_deviation: relative difference between a slide's mpp and the one asked for; above it warns. The
            tiling step takes a stored level that is off by up to 0.1 as it is.

    Raises:
        InputError: a threshold outside its range.
    """

    max_blank_share: float = 0.5
    blank_deviation: float = 6.0
    max_duplicates_across_splits: int = 0
    max_duplicates_within_split: int = 0
    max_colour_drift: float = 0.8
    colour_drift_fails: bool = False
    min_patients_per_class: int = 1
    max_mpp_deviation: float = 0.1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            top = 1.0 if name == "max_blank_share" else float("inf")
            if not 0 <= value <= top:
                limits = "between 0 and 1" if top == 1.0 else "0 or more"
                raise InputError(f"{value} is out of range", where=name, mend=f"give a number {limits}")


@dataclass(frozen=True)
class Offender:
    """One thing that is wrong, and where: what does not apply is empty or None. `record` counts from 0 in its part."""

    what: str
    image_id: str = ""
    part: str = ""
    record: int | None = None
    x: int | None = None
    y: int | None = None

    def __str__(self) -> str:
        place = [f"{self.image_id}"] if self.image_id else []
        if self.part:
            place.append(self.part if self.record is None else f"{self.part} record {self.record}")
        if self.x is not None and self.y is not None:
            place.append(f"x {self.x} y {self.y}")
        return f"{', '.join(place)}: {self.what}" if place else self.what

    def to_json(self) -> dict[str, Any]:
        """Only the keys that apply."""
        return {key: value for key, value in asdict(self).items() if value not in ("", None)}


@dataclass
class Tally:
    """Offenders counted, the first `MAX_OFFENDERS` of them kept."""

    count: int = 0
    first: list[Offender] = field(default_factory=list)

    def add(self, offender: Offender) -> None:
        """Counts one more."""
        self.count += 1
        if len(self.first) < MAX_OFFENDERS:
            self.first.append(offender)

    def merge(self, other: Tally) -> None:
        """Counts the other's too, after one's own."""
        self.count += other.count
        self.first += other.first[: MAX_OFFENDERS - len(self.first)]


@dataclass(frozen=True)
class Check:
    """One question to the dataset and its answer.

    Attributes:
        status: `pass`, `warn`, `fail` or `not applicable`.
        measured: what was found, in words with numbers.
        threshold: what it was held against.
        count: offenders in all; `offenders` are the first `MAX_OFFENDERS` of them.
    """

    name: str
    status: str
    measured: str
    threshold: str
    count: int = 0
    offenders: tuple[Offender, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The check as it stands in `validation.json`."""
        return {**asdict(self), "offenders": [offender.to_json() for offender in self.offenders]}


def judge(name: str, tally: Tally, measured: str, threshold: str, *, otherwise: str = FAIL, allowed: int = 0) -> Check:
    """A check that passes while its tally counts no more than `allowed`, and is `otherwise` beyond that."""
    status = PASS if tally.count <= allowed else otherwise
    return Check(name, status, measured, threshold, tally.count, tuple(tally.first))


@dataclass(frozen=True)
class Validation:
    """Everything validation found.

    Attributes:
        dataset: schema version, code version, manifest hash, tile size, mpp and labels of what was checked.
        totals: true counts: patients and slides with tiles, tiles, near-blank tiles, parts, bytes.
        counts: one row a split, center and label: patients, slides, tiles, near-blank tiles.
        colours: one row a split, and one a center: tiles, mean and deviation of R, G and B (0-255), and the largest
            standardised mean difference against the reference.
    """

    dataset: dict[str, Any]
    thresholds: Thresholds
    totals: dict[str, int]
    checks: tuple[Check, ...]
    counts: tuple[dict[str, Any], ...]
    colours: tuple[dict[str, Any], ...]

    @property
    def verdict(self) -> str:
        """`fail` where a check fails, else `warn` where one warns, else `pass`."""
        found = {check.status for check in self.checks}
        return FAIL if FAIL in found else WARN if WARN in found else PASS

    def to_json(self) -> dict[str, Any]:
        """What `validation.json` holds."""
        return {
            "verdict": self.verdict,
            "dataset": self.dataset,
            "totals": self.totals,
            "thresholds": asdict(self.thresholds),
            "checks": [check.to_json() for check in self.checks],
            "counts": list(self.counts),
            "colours": list(self.colours),
        }

    def __str__(self) -> str:
        return self.format_table()

    def format_table(self) -> str:
        """The checks as lines of text, for a terminal."""
        width = max(len(check.name) for check in self.checks)
        lines = [f"{check.status:<14}  {check.name:<{width}}  {check.measured}" for check in self.checks]
        lines += [f"  {check.name}: {o}" for check in self.checks if check.status == FAIL for o in check.offenders[:5]]
        return "\n".join([*lines, f"verdict: {self.verdict}"])

    def raise_on_failure(self, where: str) -> None:
        """Stops the pipeline where the verdict is `fail`.

        Raises:
            WorkError: names every failed check with its first offenders.
        """
        failed = [check for check in self.checks if check.status == FAIL]
        if failed:
            found = "; ".join(
                f"{check.name} ({check.count}): {name_first(check.offenders, 3)}"
                if check.offenders
                else f"{check.name}: {check.measured}, threshold {check.threshold}"
                for check in failed
            )
            mend = "see validation.json; run the tiling step again, or raise the threshold"
            raise WorkError(f"validation failed: {found}", where=where, mend=mend)
