"""The contact sheet of a cohort: every slide small, with what was kept of it and what each filter took."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence

from PIL import Image, UnidentifiedImageError

from components.records import storage
from components.records.errors import InputError
from components.records.ledger import LedgerEntry
from components.tile_images.qc_sheet import FOLDER, sheet_path

PAGE_SLIDES = 250
MOST_SLIDES = 2000
_PICTURE_PX = 260
_FILTERS = (("tiles_on_pen", "pen"), ("tiles_folded", "folds"), ("tiles_blurred", "blur"))
_TROUBLE = ("failed", "partial", "empty")

_BLUR_NOTE = (
    "<p>Sheets are drawn before tiles are decoded, so they show tiles that were left out as blurred among those kept; "
    "how many of each slide is told beside it and in the ledger.</p>"
)

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2a33;--soft:#5d6b75;--line:#d9e0e5;--card:#fff;--page:#f5f7f8;
--blue:#2a6f97;--red:#c8553d;--green:#5b8e7d}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf1;--soft:#9fb0bb;--line:#33414b;--card:#1c252b;--page:#12181c}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1100px;margin:0 auto;padding:32px 20px 60px}h1{font-size:26px;margin:0 0 4px}
p{margin:0 0 10px;color:var(--soft)}nav a{color:var(--blue);margin-right:10px}
.legend span{margin-right:16px;white-space:nowrap}.legend i{display:inline-block;width:11px;height:11px;
border-radius:2px;margin-right:5px;vertical-align:-1px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:16px;margin-top:20px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;overflow:hidden}
figure .picture{height:220px;display:flex;align-items:center;justify-content:center;background:#8881;
border-bottom:1px solid var(--line)}figure img{max-width:100%;max-height:100%;display:block}
figcaption{padding:10px 12px 12px}figcaption b{overflow-wrap:anywhere}
figcaption div{font-size:13px;color:var(--soft)}figcaption .reason{color:var(--red)}
.status{float:right;font-size:12px;padding:1px 8px;border-radius:9px;color:#fff;background:var(--green)}
.status.empty{background:#6b7a85}.status.partial,.status.failed{background:var(--red)}
.bar{height:6px;border-radius:3px;background:#8883;overflow:hidden;margin:7px 0 5px;display:flex}
"""


def write_contact_sheet(out: str, entries: Sequence[LedgerEntry]) -> list[str]:
    """Writes `qc/index.html`, further pages beside it where there are many slides, each a page in itself.

    Of more than 2000 slides, those with trouble come first and of the others an even share is shown.

    Args:
        out: the dataset.
        entries: its ledger.

    Returns:
        The pages, relative to OUT.
    """
    chosen = choose_slides(entries)
    pages = max(1, math.ceil(len(chosen) / PAGE_SLIDES))
    names = [f"{FOLDER}/{_page_name(number)}" for number in range(pages)]
    for number, name in enumerate(names):
        cards = [_card(out, entry) for entry in chosen[number * PAGE_SLIDES : (number + 1) * PAGE_SLIDES]]
        storage.write_text(storage.join(out, *name.split("/")), _page(entries, len(chosen), cards, number, pages))
    return names


def choose_slides(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """All slides, or of very many the troubled ones and an even share of the rest, in the ledger's order."""
    if len(entries) <= MOST_SLIDES:
        return list(entries)
    trouble = [number for number, entry in enumerate(entries) if entry.status in _TROUBLE][:MOST_SLIDES]
    rest = [number for number, entry in enumerate(entries) if entry.status not in _TROUBLE]
    room = min(MOST_SLIDES - len(trouble), len(rest))
    return [entries[number] for number in sorted([*trouble, *(rest[at * len(rest) // room] for at in range(room))])]


def _page_name(number: int) -> str:
    return "index.html" if number == 0 else f"page-{number + 1:03d}.html"


def _page(entries: Sequence[LedgerEntry], shown: int, cards: list[str], number: int, pages: int) -> str:
    counts = {status: sum(entry.status == status for entry in entries) for status in ("tiled", *_TROUBLE)}
    tiles = sum(entry.tiles for entry in entries)
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
    lost = [f"{sum(e.details.get(key, 0) for e in entries):,} to {name}" for key, name in _FILTERS]
    blurred = any(entry.details.get("tiles_blurred") for entry in entries)
    some = "" if shown == len(entries) else f" Shown: {shown:,}, those with trouble first of all."
    links = "".join(
        f"<b>{page + 1}</b> " if page == number else f'<a href="{_page_name(page)}">{page + 1}</a>'
        for page in range(pages)
    )
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{name}</span>'
        for colour, name in (
            ("#5b8e7d", "outline of tissue"),
            ("#2a6f97", "tile kept"),
            ("#c8553d", "pen"),
            ("#e9aa28", "fold"),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>Tissue of every slide</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>Tissue of every slide</h1>"
        f"<p>{len(entries):,} slides: {told}. {tiles:,} tiles kept; tiles with tissue lost {', '.join(lost)}.{some}</p>"
        f'<p class="legend">{legend}</p>{_BLUR_NOTE if blurred else ""}{f"<nav>{links}</nav>" if pages > 1 else ""}'
        f'<div class="cards">{"".join(cards)}</div></main></body></html>\n'
    )


def _card(out: str, entry: LedgerEntry) -> str:
    lost = [(name, int(entry.details.get(key, 0))) for key, name in _FILTERS]
    total = entry.tiles + entry.tiles_failed + sum(count for _, count in lost)
    bar = ""
    if total:
        parts = (
            (entry.tiles, "#2a6f97"),
            (lost[0][1], "#c8553d"),
            (lost[1][1], "#e9aa28"),
            (lost[2][1] + entry.tiles_failed, "#6b7a85"),
        )
        spans = "".join(f'<i style="width:{100 * n / total:.1f}%;background:{c}"></i>' for n, c in parts if n)
        bar = f'<div class="bar">{spans}</div>'
    facts = [f"{entry.tiles:,} tiles"]
    if "tissue_share" in entry.details:
        facts.append(f"{100 * entry.details['tissue_share']:.1f}% tissue")
    facts += [f"{count:,} lost to {name}" for name, count in lost if count]
    reason = f'<div class="reason">{html.escape(entry.reason)}</div>' if entry.reason else ""
    return (
        f'<figure><div class="picture">{_picture(out, entry.image_id)}</div><figcaption>'
        f'<span class="status {entry.status}">{entry.status}</span><b>{html.escape(entry.image_id)}</b>'
        f"{bar}<div>{' · '.join(facts)}</div>{reason}</figcaption></figure>"
    )


def _picture(out: str, image_id: str) -> str:
    try:
        content = storage.read_bytes(storage.join(out, *sheet_path(image_id).split("/")))
        picture = Image.open(io.BytesIO(content))
        picture.draft("RGB", (_PICTURE_PX, _PICTURE_PX))
        picture.thumbnail((_PICTURE_PX, _PICTURE_PX), Image.Resampling.BILINEAR)
    except (InputError, UnidentifiedImageError, OSError):
        return "<p>no picture</p>"
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=72)
    data = base64.b64encode(small.getvalue()).decode()
    return f'<img loading="lazy" alt="{html.escape(image_id)}" src="data:image/jpeg;base64,{data}">'
