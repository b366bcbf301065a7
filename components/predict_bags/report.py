"""The report of a batch prediction: one HTML file that opens offline."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from PIL import Image

from components.explain.heatmaps import load_thumbnail
from components.explain.page import read_style
from components.explain.pictures import crop_around, data_uri, heatmap_uri
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.manifest import UNKNOWN_LABEL
from components.records.provenance import code_version

if TYPE_CHECKING:
    from components.predict_bags.predict import PatientPrediction, Predicted

_SHOWN_PATIENTS = 4
_SHOWN_SLIDES = 2
_PICTURE_SIDE = 520
_MOST_ROWS = 2000
_MOST_PROBLEMS = 40


def write_report(
    done: Predicted, dataset: TiledDataset, card: dict[str, Any], heatmaps: str, registered: str = ""
) -> None:
    """Writes `done.report`; the same inputs give the same bytes.

    Args:
        done: what was predicted.
        dataset: of the new slides.
        card: the model's `bagline.json`.
        heatmaps: folder of the heatmaps just drawn, empty where there are none.
        registered: the model's resource name, where it is registered.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["count"] = lambda value: f"{value:,}".replace(",", "\u202f")
    ledger = dataset.ledger
    problems = [entry for entry in ledger if entry.status != "tiled"]
    called = Counter(patient.predicted for patient in done.patients)
    surest = sorted(done.patients, key=lambda patient: (-max(patient.probabilities), patient.patient_id))
    shown, unsure = surest[:_SHOWN_PATIENTS], surest[_SHOWN_PATIENTS:][::-1][:_SHOWN_PATIENTS]
    page = environment.get_template("report.html.j2").render(
        style=read_style(),
        done=done,
        facts=_facts(dataset, card, registered),
        called=[(label, called[label]) for label in done.labels],
        tones=("blue", "red", "green", "amber"),
        known=any(patient.label != UNKNOWN_LABEL for patient in done.patients),
        status=sorted(Counter(entry.status for entry in ledger).items()),
        problems=problems[:_MOST_PROBLEMS],
        more_problems=max(0, len(problems) - _MOST_PROBLEMS),
        surest=[_card(patient, done, dataset, heatmaps) for patient in shown],
        unsure=[_card(patient, done, dataset, heatmaps) for patient in unsure],
        table=surest[:_MOST_ROWS],
        more=max(0, len(surest) - _MOST_ROWS),
        heatmaps=bool(heatmaps),
    )
    storage.write_text(done.report, page)


def _facts(dataset: TiledDataset, card: dict[str, Any], registered: str) -> list[tuple[str, str]]:
    schema, chosen = dataset.schema, card.get("parameters") or {}
    facts = [
        ("Model", registered),
        ("Head", str(chosen.get("head", ""))),
        ("Encoder", str(chosen.get("encoder", ""))),
        ("Trained by", str(card.get("code_version", ""))),
        ("Trained on", f"sha256:{card['manifest_hash'][:16]}…" if card.get("manifest_hash") else ""),
        ("New slides", f"sha256:{dataset.manifest.digest[:16]}…"),
        ("Tile", f"{schema.tile_px} px" + (f" at {schema.mpp:g} µm/px" if schema.mpp else "")),
        ("Predicted by", code_version()),
    ]
    return [(name, value) for name, value in facts if value]


def _card(patient: PatientPrediction, done: Predicted, dataset: TiledDataset, heatmaps: str) -> dict[str, Any]:
    thumbnails, slides = dataset.thumbnails, []
    for slide in patient.slides[:_SHOWN_SLIDES] if heatmaps else ():
        thumbnail, plain, box = thumbnails.get(slide.image_id), None, None
        if thumbnail is not None:
            picture = Image.fromarray(load_thumbnail(dataset.root, thumbnail))
            box = crop_around(slide.box, thumbnail.downsample, picture.size)
            plain = data_uri(picture.crop(box), _PICTURE_SIDE)
        drawn = heatmap_uri(storage.join(heatmaps, f"{slide.image_id}.png"), box, _PICTURE_SIDE)
        slides.append({"image_id": slide.image_id, "share": slide.share, "plain": plain, "heatmap": drawn})
    return {
        "patient": patient,
        "bars": list(zip(done.labels, patient.probabilities, strict=True)),
        "slides": slides,
        "more": max(0, len(patient.slides) - _SHOWN_SLIDES),
    }
