import json
import uuid
from pathlib import Path

import pytest

from components.records.errors import InputError
from components.records.provenance import file_digest
from pipelines.cli import main
from pipelines.lineage.artifacts import trace_artifact, trace_manifest, trace_slides
from pipelines.lineage.events import TaskRecord, now, write_events
from pipelines.lineage.query import Lineage, find_out, render_tree


@pytest.fixture
def run(tmp_path):
    """A run's folder with the events of split, tile and train, over two slides of two patients."""
    out, slides = tmp_path / "out", tmp_path / "slides"
    for path, content in {
        slides / "a.tif": "pixels of a",
        slides / "b.tif": "pixels of b",
        tmp_path / "manifest.csv": "image_id,patient_id,label\na,pa,x\nb,pb,y\n",
        out / "split.csv": "image_id,patient_id,label,split\na,pa,x,train\nb,pb,y,test\n",
        out / "schema.json": "{}",
        out / "parts.json": "[]",
        out / "model/model.json": "weights",
        out / "predictions.csv": "patient_id,label,split,prob_x,prob_y\npb,y,test,0.1,0.9\n",
        out / "metrics.json": "{}",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    ledger = [
        {"image_id": name, "path": f"{name}.tif", "digest": file_digest(slides / f"{name}.tif")} for name in ("a", "b")
    ]
    (out / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ledger))
    manifest = trace_manifest(str(tmp_path / "manifest.csv"), file_digest(tmp_path / "manifest.csv")[7:])
    flow = {
        "split": ([manifest], "split"),
        "tile": ([trace_artifact(str(out), "split"), trace_slides(str(out), str(slides))], "records"),
        "train": ([trace_artifact(str(out), "records")], "model"),
        "evaluate": ([trace_artifact(str(out), "records"), trace_artifact(str(out), "model")], "evaluation"),
    }
    for step, (inputs, made) in flow.items():
        outputs = [trace_artifact(str(out), made)]
        write_events(
            str(out),
            TaskRecord(f"whole-slide.{step}", {"seed": 3}, inputs, outputs, now(), now(), parent=str(uuid.uuid4())),
        )
    return tmp_path


def names(node):
    return {node.artifact.name} | {name for child in node.inputs for name in names(child)}


def test_a_model_leads_down_to_the_bytes_of_its_slides(run):
    tree = Lineage(str(run / "out")).tree("model")
    assert names(tree) == {"model", "records", "split", "manifest", "slides"}
    assert tree.all_mismatches() == []
    text = render_tree(tree)
    assert file_digest(run / "slides/a.tif") in text
    assert "seed=3" in text
    assert "whole-slide.train" in text


def test_a_prediction_leads_to_its_patients_slides_only(run):
    tree = Lineage(str(run / "out")).tree("pb")
    text = render_tree(tree)
    assert "prediction of patient pb" in text
    assert "b.tif" in text
    assert "a.tif" not in text


@pytest.mark.parametrize("changed", ["slides/a.tif", "out/model/model.json", "manifest.csv", "out/split.csv"])
def test_a_changed_file_is_named(run, changed, capsys):
    Path(run, changed).write_text("tampered")
    assert main(["lineage", str(run / "out/model")]) == 1
    captured = capsys.readouterr()
    assert Path(changed).name in captured.err
    assert "changed since" in captured.err
    assert captured.err.count("\n") == 1


def test_a_removed_file_is_named(run):
    (run / "slides/b.tif").unlink()
    assert Lineage(str(run / "out")).tree("model").all_mismatches() == [f"{run}/slides/b.tif: missing"]


def test_without_verification_nothing_is_hashed(run):
    (run / "slides/b.tif").unlink()
    assert Lineage(str(run / "out"), verify=False).tree("model").all_mismatches() == []


def test_json_holds_the_same_tree(run, capsys):
    assert main(["lineage", str(run / "out/model/model.json"), "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["name"] == "model"
    assert tree["inputs"][0]["inputs"][1]["files"]["a.tif"].startswith("sha256:")


def test_an_id_is_found_below_out_and_with_out(run):
    assert find_out(str(run / "out/pb")) == (str(run / "out"), "pb")
    assert find_out("pb", str(run / "out")) == (str(run / "out"), "pb")


@pytest.mark.parametrize("target", ["nobody", "a@1,x", "a@1"])
def test_what_is_not_there_is_refused(run, target):
    with pytest.raises(InputError, match="no artifact, patient or tile"):
        Lineage(str(run / "out")).tree(target)


def test_a_folder_without_events_is_refused(tmp_path):
    with pytest.raises(InputError, match="no run found"):
        find_out(str(tmp_path / "x"))
    with pytest.raises(InputError, match="holds no lineage events"):
        find_out("x", str(tmp_path))


def test_events_are_openlineage(run):
    events = [json.loads(path.read_text()) for path in sorted((run / "out/lineage").glob("*.json"))]
    assert [event["eventType"] for event in events].count("START") == 4
    assert [event["eventType"] for event in events].count("COMPLETE") == 4
    for event in events:
        assert event["schemaURL"].startswith("https://openlineage.io/spec/")
        assert {"eventTime", "run", "job", "inputs", "outputs", "producer"} <= set(event)
