"""The validation as one HTML page."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, StrictUndefined

from components.validate_records.outcome import Check, Validation

_QUESTIONS = {
    "files": "Are all parts there, and no others?",
    "checksums": "Are the bytes those that were written?",
    "schema": "Does every record carry what the schema asks for?",
    "decode": "Does every tile decode to its last pixel?",
    "size": "Is every tile as large as it says?",
    "identity": "Does every record name its slide, patient and file content?",
    "places": "Does every tile lie inside its slide, once?",
    "values": "Are tissue shares and flags in range?",
    "mpp": "Does the scale of every tile follow from its slide's?",
    "unknown_features": "Does a record carry what nobody reads?",
    "counts": "Do records, ledger and summary add up?",
    "lost": "Did slides or patients get lost on the way?",
    "labels": "Are the labels the manifest's?",
    "split_leakage": "Is every patient in one split only?",
    "classes": "Is every class in every split?",
    "mpp_asked": "Are all slides at the scale asked for?",
    "blank_tiles": "How many tiles show next to nothing?",
    "duplicates_across_splits": "Do patients of different splits share tiles?",
    "duplicates_within_split": "Do patients of one split share tiles?",
    "colour_drift_splits": "Are the colours of val and test those of train?",
    "colour_drift_centers": "Are the colours of a center those of the others?",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Validation: {{ v.verdict }}</title>
<style>
:root { color-scheme: light dark; --ink: #1d2b36; --soft: #5f6f7a; --line: #d9e0e5; --paper: #fff; --band: #f4f7f9;
  --blue: #2a6f97; --red: #c8553d; --green: #5b8e7d; --amber: #b7791f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf2; --soft: #9fb0bc; --line: #33424d; --paper: #141b20;
  --band: #1c262d; --blue: #6fb1d6; --red: #e58a75; --green: #8fc1b0; --amber: #e0b060; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 32px 24px 64px; }
header { border-left: 6px solid var(--tone); background: var(--band); padding: 18px 24px; border-radius: 4px; }
header h1 { margin: 0; font-size: 26px; font-weight: 600; color: var(--tone); }
header p { margin: 4px 0 0; color: var(--soft); }
.pass { --tone: var(--green); } .warn { --tone: var(--amber); } .fail { --tone: var(--red); }
.none { --tone: var(--soft); }
h2 { font-size: 18px; font-weight: 600; margin: 36px 0 8px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: 12px; font-weight: 600; letter-spacing: .03em; color: var(--soft); white-space: nowrap; }
td.n, th.n { text-align: right; }
.badge { display: inline-block; min-width: 44px; text-align: center; padding: 0 8px; border-radius: 10px;
  font-size: 12px; font-weight: 600; color: var(--tone); border: 1px solid var(--tone); white-space: nowrap; }
code { font: 12px ui-monospace, monospace; color: var(--soft); overflow-wrap: anywhere; }
small { color: var(--soft); }
.swatch { display: inline-block; width: 54px; height: 22px; border-radius: 3px; border: 1px solid var(--line);
  vertical-align: middle; }
.bar { display: inline-block; height: 8px; border-radius: 4px; background: var(--tone); vertical-align: middle; }
.totals { display: flex; flex-wrap: wrap; gap: 12px 40px; margin: 20px 0 0; }
.totals div { font-size: 13px; color: var(--soft); } .totals b { display: block; font-size: 24px; font-weight: 600;
  color: var(--ink); font-variant-numeric: tabular-nums; }
ul { margin: 6px 0 0; padding-left: 18px; } li { overflow-wrap: anywhere; }
</style>
</head>
<body><main>
<header class="{{ v.verdict }}">
<h1>{{ headline }}</h1>
<p>{{ summary }}</p>
</header>
<div class="totals">
{% for name in ("patients", "slides", "tiles", "blank", "parts") %}
<div><b>{{ "{:,}".format(v.totals[name]) }}</b>{{ "near-blank tiles" if name == "blank" else name }}</div>
{% endfor %}
<div><b>{{ "{:,.1f}".format(v.totals.bytes / 1e6) }}</b>MB of records</div>
</div>

<h2>Checks</h2>
<div class="scroll"><table>
<tr><th>status</th><th>question</th><th>measured</th><th>held against</th><th class="n">offenders</th></tr>
{% for check in v.checks %}
<tr><td><span class="badge {{ tone(check.status) }}">{{ "n/a" if check.status == "not applicable" else check.status }}
</span></td><td>{{ questions[check.name] }}<br><code>{{ check.name }}</code></td><td>{{ check.measured }}</td>
<td>{{ check.threshold }}</td><td class="n">{{ "{:,}".format(check.count) if check.count else "" }}</td></tr>
{% endfor %}
</table></div>

{% if offending %}
<h2>First offenders</h2>
{% for check in offending %}
<p><span class="badge {{ tone(check.status) }}">{{ check.status }}</span> <b>{{ questions[check.name] }}</b>
<small>{{ "the first %d of %s" % (check.offenders | length, "{:,}".format(check.count))
  if check.count > check.offenders | length else "" }}</small></p>
<div class="scroll"><table>
{% set columns = shown(check) %}
<tr>{% for name in columns %}
<th{% if name in numbers %} class="n"{% endif %}>{{ name.replace("_id", "") }}</th>{% endfor %}<th>what</th></tr>
{% for o in check.offenders %}
<tr>{% for name in columns %}
<td{% if name in numbers %} class="n"{% endif %}>{{ "" if o[name] is none else o[name] }}</td>{% endfor %}
<td>{{ o.what }}</td></tr>
{% endfor %}
</table></div>
{% endfor %}
{% endif %}

<h2>Patients, slides and tiles</h2>
<div class="scroll"><table>
<tr><th>split</th><th>center</th><th>label</th>
<th class="n">patients</th><th class="n">slides</th><th class="n">tiles</th>
<th class="n">near-blank</th></tr>
{% for row in v.counts %}
<tr><td>{{ row.split or "–" }}</td><td>{{ row.center or "–" }}</td><td>{{ row.label }}</td>
<td class="n">{{ row.patients }}</td><td class="n">{{ row.slides }}</td>
<td class="n">{{ "{:,}".format(row.tiles) }}</td>
<td class="n">{{ "{:.1%}".format(row.blank / row.tiles) if row.tiles else "–" }}</td></tr>
{% endfor %}
</table></div>

{% if v.colours %}
<h2>Colours</h2>
<p><small>Mean colour of the tiles that are not near-blank; contrast is the mean standard deviation inside a tile.
The difference is Cohen's d of the farthest statistic: a split against train, a center against the others.</small></p>
<div class="scroll"><table>
<tr><th></th><th></th><th>mean colour</th><th class="n">R</th><th class="n">G</th><th class="n">B</th>
<th class="n">contrast</th><th class="n">tiles</th><th>difference</th></tr>
{% for row in v.colours %}
{% set far = row.largest_difference is not none and row.largest_difference > v.thresholds.max_colour_drift %}
<tr><td><small>{{ row.kind }}</small></td><td>{{ row.name }}</td>
<td><span class="swatch" style="background: rgb({{ row.mean | map('round') | map('int') | join(', ') }})"></span></td>
{% for value in row.mean %}<td class="n">{{ "%.1f" | format(value) }}</td>{% endfor %}
<td class="n">{{ "%.1f" | format((row.deviation | sum) / 3) }}</td><td class="n">{{ "{:,}".format(row.tiles) }}</td>
<td class="{{ 'warn' if far else 'pass' }}">{% if row.largest_difference is none %}<small>reference</small>{% else %}
<span class="bar" style="width: {{ [row.largest_difference * 50, 150] | min | round(1) }}px"></span>
{{ "%.2f" | format(row.largest_difference) }} <small>{{ row.statistic }}</small>{% endif %}</td></tr>
{% endfor %}
</table></div>
{% endif %}

<h2>What was checked</h2>
<div class="scroll"><table>
{% for name, value in details %}
<tr><td>{{ name }}</td><td><code>{{ value }}</code></td></tr>
{% endfor %}
</table></div>
</main></body></html>
"""

_HEADLINES = {
    "pass": "These records can be trained on",
    "warn": "These records can be trained on, with care",
    "fail": "These records must not be trained on",
}


_PLACE = ("image_id", "part", "record", "x", "y")


def _columns(check: Check) -> list[str]:
    return [name for name in _PLACE if any(getattr(o, name) not in ("", None) for o in check.offenders)]


def _tone(status: str) -> str:
    return status if status in _HEADLINES else "none"


def render_table(validation: Validation) -> str:
    """The page: verdict, checks, first offenders, counts and colours; no script, nothing from elsewhere."""
    tally = {status: sum(check.status == status for check in validation.checks) for status in ("fail", "warn", "pass")}
    details: list[tuple[str, Any]] = [
        (name.replace("_", " "), ", ".join(value) if isinstance(value, list) else value)
        for name, value in validation.dataset.items()
    ]
    details += [(name.replace("_", " "), value) for name, value in validation.to_json()["thresholds"].items()]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return (
        environment.from_string(_PAGE).render(
            v=validation,
            headline=_HEADLINES[validation.verdict],
            summary=f"{tally['pass']} checks pass, {tally['warn']} warn, {tally['fail']} fail.",
            questions=_QUESTIONS,
            offending=[check for check in validation.checks if check.offenders and check.status in ("fail", "warn")],
            tone=_tone,
            shown=_columns,
            numbers=("record", "x", "y"),
            details=[(name, "–" if value is None else value) for name, value in details],
        )
        + "\n"
    )
