"""Registers a model that passed the gate, and decides whether it takes the place of the blessed version."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, field
from typing import Any

from components.records import storage
from components.records.errors import InputError, WorkError
from components.records.provenance import artifact_metadata
from components.register_model.metrics import describe_classification, describe_slices
from components.registry.client import BLESSED, CANDIDATE, Registry, Version, make_model_id

log = logging.getLogger(__name__)

BLESSINGS = ("not_worse", "always", "never")
LOWER_IS_BETTER = ("log_loss", "weighted_log_loss", "brier", "ece")
FACTS = "bagline"
_LABEL_CHARACTERS = 63


@dataclass(frozen=True)
class Registration:
    """How a model is registered.

    Attributes:
        project, location: of the registry.
        name: the model's display name; where it is empty, nothing is registered.
        image: a serving container for the version; without one it is its files alone.
        blessing: when the version becomes the `blessed` one: `not_worse` than the one that is, `always` or `never`.
        labels: further labels of the version.
        endpoint: of a stand-in for the registry.
    """

    project: str
    location: str
    name: str = ""
    image: str = ""
    blessing: str = "not_worse"
    labels: dict[str, str] = field(default_factory=dict)
    endpoint: str = ""

    def check(self) -> None:
        """Raises InputError where a value makes no sense."""
        if self.blessing not in BLESSINGS:
            raise InputError(
                f"{self.blessing!r} is unknown", where="register_blessing", mend=f"choose {', '.join(BLESSINGS)}"
            )
        if not self.project or not self.location:
            raise InputError("no project or location", where="register_as", mend="give both, or register nothing")


def register(
    model_uri: str,
    model_dir: str,
    evaluation_dir: str,
    dataset_root: str,
    registration: Registration,
    *,
    images: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Uploads the model as a new version, imports its evaluation, and moves the alias `blessed` where it may.

    Args:
        model_uri: the model's folder as the registry reaches it.
        model_dir: the same folder as this process reads it.
        evaluation_dir: what evaluation wrote: `metrics.json` and `predictions.csv`.
        dataset_root: the tiled dataset, for the slices by center.
        registration: where and how.
        images: image references that made the model, by name.

    Returns:
        What the artifact of this step carries: `resourceName`, `version`, `aliases`, `blessed`, `reason`, and the
        metadata of every artifact.

    Raises:
        WorkError: the model did not pass the gate, or the registry failed.
        InputError: a parameter makes no sense.
    """
    metrics = storage.read_json(storage.join(evaluation_dir, "metrics.json"))
    card = storage.read_json(storage.join(model_dir, "bagline.json"))
    gate = metrics.get("gate") or {}
    if not gate.get("blessed"):
        raise WorkError(
            f"the model did not pass the gate: {gate.get('reason') or 'it was not asked'}",
            where="register",
            mend="train a better one, or change gate_metric or gate_threshold",
        )
    carried = artifact_metadata(
        manifest_hash=str(card.get("manifest_hash", "")), mpp=card.get("mpp"), tile_px=int(card.get("tile_px", 0))
    )
    if not registration.name:
        log.info("not registered: register_as is empty")
        return {**carried, "resourceName": "", "version": "", "blessed": False, "reason": "register_as is empty"}
    registration.check()
    facts = {
        "gate": {key: gate.get(key) for key in ("metric", "split", "value", "reason")},
        "metrics": {split: _plain(metrics[split]) for split in ("train", "val", "test") if split in metrics},
        "code_version": str(card.get("code_version", "")),
        "manifest_hash": str(metrics.get("manifest_hash") or card.get("manifest_hash", "")),
        "images": {name: reference for name, reference in (images or {}).items() if reference},
    }
    registry = Registry(registration.project, registration.location, registration.endpoint)
    model_id = make_model_id(registration.name)
    current = registry.find(registry.name(model_id).at(BLESSED))
    version = registry.upload(
        model_id,
        display_name=registration.name,
        artifact_uri=model_uri,
        description=describe_version(facts),
        labels=make_labels({**registration.labels, **lineage_labels(facts)}),
        aliases=(CANDIDATE,),
        image=registration.image,
    )
    split = str(gate["split"])
    evaluation = registry.import_evaluation(
        version,
        f"{registration.name} v{version.name.version} {split}",
        describe_classification(evaluation_dir, metrics, split),
        {FACTS: facts},
    )
    registry.import_slices(evaluation, describe_slices(evaluation_dir, dataset_root, metrics, split))
    blessed, reason = decide(registration.blessing, facts, current, registry)
    if blessed:
        registry.move_alias(version, BLESSED)
        registry.move_alias(version, "default")
    aliases = [CANDIDATE, *([BLESSED] if blessed else [])]
    log.info("%s: %s, %s", version.name, " and ".join(aliases), reason)
    return {
        **carried,
        "resourceName": str(version.name),
        "version": version.name.version,
        "aliases": ",".join(aliases),
        "evaluation": evaluation,
        "blessed": blessed,
        "reason": reason,
    }


def decide(blessing: str, facts: dict[str, Any], current: Version | None, registry: Registry) -> tuple[bool, str]:
    """Whether a new version becomes the blessed one, and why; the metric is the gate's.

    Args:
        blessing: one of `BLESSINGS`.
        facts: of the new version's evaluation.
        current: the version that is blessed now.
        registry: that knows its evaluation.
    """
    if blessing == "never":
        return False, "blessing is left to people"
    if current is None:
        return True, "there is no blessed version yet"
    known = [found[FACTS] for found in registry.evaluation_facts(current) if isinstance(found.get(FACTS), dict)]
    metric, split = str(facts["gate"]["metric"]), str(facts["gate"]["split"])
    old = _number(known[0]["metrics"].get(split, {}).get(metric)) if known else None
    new, name = float(facts["gate"]["value"]), f"version {current.name.version}"
    if known and known[0].get("manifest_hash") != facts["manifest_hash"]:
        log.warning("%s was evaluated on another split manifest: its %s %s is of other patients", name, split, metric)
    if blessing == "always":
        return True, f"asked for whatever {name} has"
    if old is None:
        return False, f"{name} has no {split} {metric} to compare with"
    worse = new > old if metric in LOWER_IS_BETTER else new < old
    told = f"its {split} {metric} {new:.4f} is {'worse' if worse else 'not worse'} than the {old:.4f} of {name}"
    return not worse, told


def describe_version(facts: dict[str, Any]) -> str:
    """The version's description: the gate's word, and what made it."""
    made = [f"{name} image {reference}" for name, reference in sorted(facts["images"].items())]
    lines = [facts["gate"]["reason"], f"code {facts['code_version']}", f"manifest sha256:{facts['manifest_hash']}"]
    return "; ".join([*lines, *made])


def lineage_labels(facts: dict[str, Any]) -> dict[str, str]:
    """What made the version, as labels that can be searched for; a hash by its first digits."""
    labels = {"bagline-code": facts["code_version"], "bagline-manifest": facts["manifest_hash"][:32]}
    for name, reference in facts["images"].items():
        labels[f"bagline-image-{name}"] = reference.rpartition("sha256:")[2][:32]
    return labels


def make_labels(labels: dict[str, str]) -> dict[str, str]:
    """Labels as Google Cloud takes them: lower case, `a-z0-9_-`, at most 63 characters.

    Raises:
        InputError: a key that gives no label key.
    """
    made = {}
    for key, value in labels.items():
        name = _label(key)
        if not name or not name[0].isalpha():
            raise InputError(f"{key!r} is no label", where="register_labels", mend="begin it with a letter")
        made[name] = _label(str(value))
    return made


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower())[:_LABEL_CHARACTERS]


def _plain(section: dict[str, Any]) -> dict[str, float]:
    found = {name: _number(value) for name, value in section.items()}
    return {name: value for name, value in found.items() if value is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
