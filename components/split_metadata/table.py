"""The table of a split: patients and slides per split, label and center, as one self-contained HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2

from components.records.manifest import Row
from components.records.schema import SPLITS
from components.split_metadata.options import SplitOptions

_CENTERS_SHOWN = 500
_WARNINGS_SHOWN = 500


@dataclass
class SplitCounts:
    """Patients and slides of each (group, split), for groups of three kinds: all (`""`), labels and centers.

    A patient with slides at two centers counts at both.
    """

    patients: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    slides: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)

    def total(self, what: str) -> dict[str, int]:
        """`patients` or `slides` of each split in use, in the order train, val, test."""
        counts: Counter[tuple[str, str]] = getattr(self, what)["all"]
        return {split: counts["", split] for split in SPLITS if counts["", split]}


def count_split(rows: Sequence[Row], splits: Mapping[str, str]) -> SplitCounts:
    """Counts patients and slides, given the split of each patient."""
    slides: dict[str, Counter[tuple[str, str]]] = {"all": Counter(), "label": Counter(), "center": Counter()}
    patients: dict[str, Counter[tuple[str, str]]] = {"all": Counter(), "label": Counter(), "center": Counter()}
    first_center: dict[str, str] = {}
    more_centers: set[tuple[str, str]] = set()
    for row in rows:
        patient, split = row.patient_id, splits[row.patient_id]
        slides["label"][row.label, split] += 1
        slides["center"][row.center_id, split] += 1
        center = first_center.get(patient)
        if center is None:
            first_center[patient] = row.center_id
            patients["all"]["", split] += 1
            patients["label"][row.label, split] += 1
            patients["center"][row.center_id, split] += 1
        elif center != row.center_id and (patient, row.center_id) not in more_centers:
            more_centers.add((patient, row.center_id))
            patients["center"][row.center_id, split] += 1
    for (_, split), number in slides["label"].items():
        slides["all"]["", split] += number
    return SplitCounts(patients, slides)


def render_table(
    counts: SplitCounts, options: SplitOptions, manifest_hash: str, given: bool, warnings: Sequence[str]
) -> str:
    """The page. Equal counts, options and warnings give equal bytes; nothing in it is fetched from elsewhere."""
    splits = list(counts.total("patients"))
    centers = sorted({name for name, _ in counts.slides["center"]})
    shown = centers[:_CENTERS_SHOWN]
    return _TEMPLATE.render(
        splits=splits,
        all=_line(counts, "all", "", splits),
        labels=[_line(counts, "label", name, splits) for name in sorted({name for name, _ in counts.slides["label"]})],
        centers=[_line(counts, "center", name, splits) for name in shown] if centers != [""] else [],
        centers_in_all=0 if centers == [""] else len(centers),
        wanted=_wanted(options, splits, given),
        how=list(_how(options, given)),
        manifest_hash=manifest_hash,
        warnings=warnings[:_WARNINGS_SHOWN],
        warnings_in_all=len(warnings),
    )


def _line(counts: SplitCounts, kind: str, name: str, splits: Sequence[str]) -> dict[str, Any]:
    """One table line or bar: a cell a split, and the sums."""
    cells = [(split, counts.patients[kind][name, split], counts.slides[kind][name, split]) for split in splits]
    patients = sum(cell[1] for cell in cells)
    return {
        "name": name,
        "patients": patients,
        "slides": sum(cell[2] for cell in cells),
        "cells": [
            {"split": split, "patients": number, "slides": slides, "percent": 100 * number / max(1, patients)}
            for split, number, slides in cells
        ],
    }


def _wanted(options: SplitOptions, splits: Sequence[str], given: bool) -> dict[str, float]:
    """Percent asked for, by split; empty where the manifest gave the split."""
    if given:
        return {}
    wanted = dict.fromkeys(splits, 0.0)
    for place, share in options.shares.items():
        split = options.split_of(place)
        wanted[split] = wanted.get(split, 0.0) + 100 * share
    return wanted


def _how(options: SplitOptions, given: bool) -> Iterable[tuple[str, str]]:
    if given:
        yield "split", "as given in the manifest"
        return
    yield "split by", options.split_by
    if options.folds:
        yield "fold", f"{options.fold} of {options.folds}"
    yield "seed", str(options.seed)


_ENVIRONMENT = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
)
_ENVIRONMENT.filters["n"] = lambda number: f"{number:,}"
_ENVIRONMENT.filters["percent"] = lambda number: f"{number:.1f}%"
_TEMPLATE = _ENVIRONMENT.from_string(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Split</title>
<style>
  :root { color-scheme: light dark; --ink: #1d2429; --soft: #66727b; --line: #dde3e7; --paper: #fff; --panel: #f5f7f9;
    --train: #2a6f97; --val: #5b8e7d; --test: #c8553d; --note: #fbf1ee; }
  @media (prefers-color-scheme: dark) { :root { --ink: #e5eaee; --soft: #98a5ae; --line: #323b42; --paper: #15191c;
    --panel: #1d2327; --train: #4a94bf; --val: #74a896; --test: #d8735d; --note: #2c2220; } }
  body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0; }
  main { max-width: 1100px; margin: 0 auto; padding: 32px 24px 48px; }
  h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -.01em; }
  h2 { font-size: 17px; margin: 36px 0 10px; }
  p.lead, footer, small { color: var(--soft); }
  p.lead { margin: 0 0 20px; }
  .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; }
  .card { background: var(--panel); border-radius: 10px; padding: 14px 18px; border-top: 4px solid var(--hue); }
  .card b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
  .train { --hue: var(--train); } .val { --hue: var(--val); } .test { --hue: var(--test); }
  .bars { display: grid; grid-template-columns: minmax(60px, max-content) 1fr; gap: 8px 14px; align-items: center; }
  .bars > span { overflow-wrap: anywhere; max-width: 260px; }
  .bar { display: flex; gap: 2px; height: 26px; border-radius: 6px; overflow: hidden; background: var(--panel); }
  .bar i { background: var(--hue); color: #fff; font: 600 12px/26px system-ui, sans-serif; text-align: center;
    min-width: 0; overflow: hidden; font-variant-numeric: tabular-nums; }
  .key { display: flex; gap: 18px; margin: 12px 0 0; color: var(--soft); font-size: 13px; }
  .key span::before { content: ""; display: inline-block; width: 11px; height: 11px; border-radius: 3px;
    background: var(--hue); margin-right: 6px; }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
  th, td { padding: 7px 12px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
  th { font-weight: 600; font-size: 13px; color: var(--soft); }
  th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
  thead tr:first-child th[colspan] { text-align: center; color: var(--hue, var(--soft)); }
  tr.sum td { font-weight: 600; border-bottom: 0; }
  td.none { color: var(--soft); }
  ul.notes { background: var(--note); border-left: 4px solid var(--test); border-radius: 0 8px 8px 0; margin: 0;
    padding: 12px 18px 12px 34px; }
  footer { margin-top: 40px; font-size: 13px; border-top: 1px solid var(--line); padding-top: 12px;
    overflow-wrap: anywhere; }
  footer span { margin-right: 18px; }
</style>
</head>
<body>
<main>
{% macro table(heading, lines, with_sum) %}
<div class="wide"><table>
<thead>
<tr><th rowspan="2">{{ heading }}</th>
{% for split in splits %}<th colspan="2" class="{{ split }}">{{ split }}</th>{% endfor %}
<th colspan="2">all</th></tr>
<tr>{% for split in splits %}<th>patients</th><th>slides</th>{% endfor %}<th>patients</th><th>slides</th></tr>
</thead>
<tbody>
{% for line in lines %}
<tr><td>{% if line.name %}{{ line.name }}{% else %}<small>not given</small>{% endif %}</td>
{%- for cell in line.cells -%}
<td{% if not cell.patients %} class="none"{% endif %}>{{ cell.patients | n }}</td>
{%- if cell.slides %}<td>{{ cell.slides | n }}</td>{% else %}<td class="none">0</td>{% endif %}
{%- endfor -%}
<td>{{ line.patients | n }}</td><td>{{ line.slides | n }}</td></tr>
{% endfor %}
{% if with_sum %}
<tr class="sum"><td>all</td>
{%- for cell in all.cells %}<td>{{ cell.patients | n }}</td><td>{{ cell.slides | n }}</td>{% endfor -%}
<td>{{ all.patients | n }}</td><td>{{ all.slides | n }}</td></tr>
{% endif %}
</tbody>
</table></div>
{% endmacro %}
<h1>Split</h1>
<p class="lead">{{ all.patients | n }} patients, {{ all.slides | n }} slides, {{ labels | length | n }} labels
{%- if centers_in_all %}, {{ centers_in_all | n }} centers{% endif %}. Every patient is in one split only.</p>
<div class="cards">
{% for cell in all.cells %}
<div class="card {{ cell.split }}">{{ cell.split }}<b>{{ cell.patients | n }} patients</b>
<small>{{ cell.slides | n }} slides; {{ cell.percent | percent }} of patients
{%- if wanted %}, {{ wanted[cell.split] | percent }} asked for{% endif %}</small></div>
{% endfor %}
</div>
{% if warnings %}
<h2>Worth a look</h2>
<ul class="notes">
{% for line in warnings %}
<li>{{ line }}</li>
{% endfor %}
{% if warnings_in_all > warnings | length %}
<li>and {{ (warnings_in_all - warnings | length) | n }} more</li>
{% endif %}
</ul>
{% endif %}
<h2>Patients of each label</h2>
<div class="bars">
{% for line in [all] + labels %}
<span>{{ line.name or "all" }}</span><div class="bar">
{%- for cell in line.cells if cell.patients -%}
<i class="{{ cell.split }}" style="flex: {{ cell.patients }}"
 title="{{ cell.split }}: {{ cell.patients | n }} patients, {{ cell.percent | percent }}">{{ cell.patients | n }}</i>
{%- endfor -%}
</div>
{% endfor %}
</div>
<div class="key">{% for split in splits %}<span class="{{ split }}">{{ split }}</span>{% endfor %}</div>
<h2>By label</h2>
{{ table("label", labels, true) }}
{% if centers %}
<h2>By center</h2>
{{ table("center", centers, false) }}
{% if centers_in_all > centers | length %}
<p class="lead">and {{ (centers_in_all - centers | length) | n }} more centers</p>
{% endif %}
{% endif %}
<footer>{% for name, value in how %}<span>{{ name }}: {{ value }}</span>{% endfor %}
<span>manifest: sha256 {{ manifest_hash }}</span></footer>
</main>
</body>
</html>
"""
)
