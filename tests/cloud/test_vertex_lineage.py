"""`bagline lineage` from Vertex ML Metadata: the same tree as from a run's own events."""

import hashlib
import json
from datetime import UTC, datetime

import pytest
from conftest import BUCKET, IMAGES, MANIFEST
from fake_vertex import NUMBER

from components.records import storage
from components.records.manifest import read_manifest
from components.records.provenance import artifact_metadata, code_version
from pipelines.cli import main

SPLITS = ("train", "train", "train", "train", "val", "test")
SPLIT = b"image_id,patient_id,label,split\n" + b"".join(
    b"s%d,p%d,%s,%s\n" % (i, i, b"ab"[i % 2 : i % 2 + 1], split.encode()) for i, split in enumerate(SPLITS)
)
PREDICTIONS = b"patient_id,label,split,prob_a,prob_b\np4,a,val,0.8,0.2\np5,b,test,0.1,0.9\n"


def run(*words):
    try:
        return main(list(words))
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def done(vertex, store, config, monkeypatch):
    """A job that ran to its end, its files in the bucket; gives its id."""
    ledger = [
        {"image_id": f"s{i}", "path": f"s{i}.svs", "digest": storage.stat(f"gs://cohort/s{i}.svs").digest}
        for i in range(6)
    ]
    parts = [{"image_id": "s0", "path": "records/train/s0-00000.tfrecord", "sha256": "0" * 64}]
    contents = {
        "split_manifest": {"": SPLIT},
        "records": {
            "/ledger.jsonl": "".join(json.dumps(line) + "\n" for line in ledger).encode(),
            "/parts.json": json.dumps(parts).encode(),
            "/records/train/s0-00000.tfrecord": b"tiles",
        },
        "model": {"/model.keras": b"weights"},
        "evaluation": {"/predictions.csv": PREDICTIONS, "/metrics.json": b"{}"},
    }

    def put(task, output, uri):
        if task in ("await-tiling", "validate-records") and output in ("records", "dataset"):
            return
        for name, content in contents.get(output, {"": b"a file"}).items():
            store.put(BUCKET, uri.removeprefix(f"gs://{BUCKET}/") + name, content)

    store.clock = datetime(2026, 1, 1, tzinfo=UTC).timestamp  # what tasks write is older than their end
    vertex.on_done = put
    monkeypatch.setenv("BAGLINE_IMAGE", IMAGES["training"])
    facts = artifact_metadata(manifest_hash=hashlib.sha256(MANIFEST).hexdigest(), split="train", patients=6, tiles=9)
    for task in ("split-metadata", "tile-images", "await-tiling", "validate-records", "train-mil", "evaluate"):
        for output in ("split_manifest", "records", "dataset", "validation", "model", "training", "evaluation"):
            vertex.metadata[task, output] = facts
    assert run("submit", "--config", config(), "--set", "head=mean_pooling", "--wait", "--every", "0") == 0
    return vertex.only_job()["name"].rpartition("/")[2]


def ask(capsys, config, target, *words, code=0):
    capsys.readouterr()
    assert run("lineage", target, "--config", config(), *words) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.out + captured.err


def tree(capsys, config, target, *words):
    return json.loads(ask(capsys, config, target, "--json", *words))


def walk(node):
    yield node
    for child in node["inputs"]:
        yield from walk(child)


def artifact(vertex, output, task=""):
    return next(each for each in vertex.artifacts.values() if each["displayName"] == output and task in each["uri"])


def test_a_model_leads_down_to_the_slides_and_the_manifest(vertex, config, done, capsys):
    node = tree(capsys, config, artifact(vertex, "model")["name"])
    names = {each["name"] for each in walk(node)}
    assert names >= {"model", "dataset", "validation", "records", "split", "manifest", "slides"} - {"validation"}
    made = node["made_by"]
    assert made["task"] == "whole-slide.train"
    assert made["run"] == done
    assert made["code_version"] == code_version()
    assert made["image"] == IMAGES["training"]
    assert made["parameters"]["head"] == "mean_pooling"
    slides = next(each for each in walk(node) if each["name"] == "slides")
    assert slides["files"]["s3.svs"] == storage.stat("gs://cohort/s3.svs").digest
    manifest = next(each for each in walk(node) if each["name"] == "manifest")
    digest = read_manifest("gs://cohort/manifest.csv").digest
    assert manifest["files"] == {"gs://cohort/manifest.csv": f"sha256:{digest}"}
    assert not any(each["mismatches"] for each in walk(node))


def test_it_has_the_keys_and_the_look_of_a_run_on_this_machine(vertex, config, done, capsys):
    from pipelines.lineage.artifacts import Traced
    from pipelines.lineage.query import Node

    node = tree(capsys, config, done)
    assert node["name"] == "evaluation"
    assert all(set(each) == set(Node(Traced("a", "b")).to_json()) for each in walk(node))
    made = {"task", "run", "ended", "state", "code_version", "environment_digest", "image", "parameters"}
    assert all(set(each["made_by"]) == made for each in walk(node) if each["made_by"])
    text = ask(capsys, config, done)
    assert "   by whole-slide.split  run " + done in text
    assert "└─ " in text
    assert f"   s3.svs  {storage.stat('gs://cohort/s3.svs').digest}" in text


@pytest.mark.parametrize("form", ["name", "number", "uri", "file", "job"])
def test_an_artifact_is_known_by_name_number_address_and_job(vertex, config, done, capsys, form):
    model = artifact(vertex, "model")
    target = {
        "name": model["name"],
        "number": model["name"].rpartition("/")[2],
        "uri": model["uri"],
        "file": f"{model['uri']}/model.keras",
        "job": "model",
    }[form]
    node = tree(capsys, config, target, *(("--job", done) if form == "job" else ()))
    assert (node["name"], node["root"]) == ("model", model["uri"])
    assert f"/{NUMBER}/{done}/train-mil_-" in node["root"]


def test_a_prediction_leads_to_its_patients_slides_only(config, done, capsys):
    text = ask(capsys, config, "p5", "--job", done)
    assert "prediction of patient p5: label b, split test, prob_a 0.1, prob_b 0.9" in text
    assert "1 of 6 slides" in text
    assert "s5.svs" in text
    assert "s4.svs" not in text


LATER = "2027-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda s, u: s.put("cohort", "s2.svs", b"another slide"), "gs://cohort/s2.svs: changed since"),
        (lambda s, u: s.buckets["cohort"].pop("s2.svs"), "gs://cohort/s2.svs: missing"),
        (lambda s, u: s.put("cohort", "manifest.csv", MANIFEST + b"s9,p9,a\n"), "manifest.csv: changed since"),
        (lambda s, u: s.buckets["cohort"].pop("manifest.csv"), "manifest.csv: missing"),
        (lambda s, u: s.put(BUCKET, f"{u('model')}/model.keras", b"x", created=LATER), "model.keras: changed since"),
        (lambda s, u: s.buckets[BUCKET].pop(f"{u('model')}/model.keras"), "/model: missing"),
        (lambda s, u: s.put(BUCKET, f"{u('records')}/ledger.jsonl", b"", created=LATER), "ledger.jsonl: changed since"),
        (lambda s, u: s.buckets[BUCKET].pop(f"{u('records')}/records/train/s0-00000.tfrecord"),
         "records/train/s0-00000.tfrecord: missing"),
    ],
)  # fmt: skip
def test_what_is_no_longer_what_was_used_is_named(vertex, store, config, done, capsys, change, fact):
    change(store, lambda output: artifact(vertex, output)["uri"].removeprefix(f"gs://{BUCKET}/"))
    model = artifact(vertex, "model")["name"]
    assert fact in ask(capsys, config, model, code=1)
    ask(capsys, config, model, "--no-verify")


def test_records_that_dataflow_wrote_after_the_launch_are_not_changed(vertex, store, config, done, capsys):
    records = artifact(vertex, "records", "tile-images")
    ends = {e["displayName"]: e["updateTime"] for e in vertex.executions.values()}
    assert ends["tile-images"] < ends["await-tiling"] < ends["validate-records"]
    name = f"{records['uri'].removeprefix(f'gs://{BUCKET}/')}/records/train/s0-00000.tfrecord"
    store.put(BUCKET, name, b"tiles", created=ends["await-tiling"])
    ask(capsys, config, records["name"])


def test_outputs_from_the_cache_lead_to_the_job_that_made_them(vertex, config, done, capsys):
    model = artifact(vertex, "model")
    again = dict(next(e for e in vertex.executions.values() if e["displayName"] == "train-mil"))
    again |= {"name": f"{again['name']}9", "state": "CACHED", "createTime": "2026-10-01T00:00:00Z"}
    vertex.executions[again["name"]] = again
    vertex.events.append({"artifact": model["name"], "execution": again["name"], "type": "OUTPUT"})
    made = tree(capsys, config, model["name"])["made_by"]
    assert made["state"] == "COMPLETE"


def test_a_graph_too_large_for_one_answer_is_walked(vertex, config, done, capsys):
    whole = tree(capsys, config, done)
    vertex.max_answer = 8
    assert tree(capsys, config, done) == whole


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("gs://runs-bucket/elsewhere/x",), "gs://runs-bucket/elsewhere/x: no artifact is known there; name an"),
        (("No Such Thing",), "'No Such Thing' is no artifact; name an artifact"),
        (("999",), "artifacts/999 is not found"),
        (("no-such-job",), "no-such-job is not found"),
        (("p99", "--job", "DONE"), "no prediction of patient 'p99'"),
        (("x", "--out", "."), "leave --env or --out out"),
    ],
)
def test_what_is_not_there_is_one_line(config, done, capsys, words, fact):
    words = [done if word == "DONE" else word for word in words]
    error = ask(capsys, config, *words, code=2)
    assert error.count("\n") == 1
    assert fact in error
