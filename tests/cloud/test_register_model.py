"""Registration through the true client library, against a registry that checks what it is sent."""

import json
import logging

import numpy as np
import pytest
from fake_models import FakeModels, RefusedError

from components.prepare_prediction.prepare import find_model
from components.records import storage
from components.records.errors import InputError, WorkError
from components.register_model.metrics import area_under_roc, average_precision, measure
from components.register_model.register import Registration, make_labels, register
from components.registry.client import make_model_id, parse_model_name

MODEL = "projects/proj-123/locations/europe-west4/models/stroke-origin"
IMAGES = {"training": f"europe-docker.pkg.dev/p/r/training@sha256:{'b' * 64}"}


@pytest.fixture
def registry(monkeypatch):
    fake = FakeModels()
    server = fake.start()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture
def finished(tmp_path):
    """What a run leaves: a model's card, an evaluation and a split manifest; `auc` is the gate's value."""

    def build(auc=0.8, blessed=True, manifest_hash="c" * 64, metric="auc"):
        storage.write_json(
            tmp_path / "model" / "bagline.json",
            {"code_version": "0.1+abc", "manifest_hash": manifest_hash, "tile_px": 256, "mpp": 0.5},
        )
        gate = {"metric": metric, "split": "test", "value": auc, "blessed": blessed, "reason": f"test {metric} {auc}"}
        storage.write_json(
            tmp_path / "metrics.json",
            {
                "gate": gate,
                "labels": ["CE", "LAA"],
                "manifest_hash": manifest_hash,
                "test": {metric: auc, "n_patients": 4, "ci95": {}, "undefined": None},
            },
        )
        rows = [
            "a,CE,test,0.9,0.1",
            "b,CE,test,0.4,0.6",
            "c,LAA,test,0.3,0.7",
            "d,LAA,test,0.2,0.8",
            "e,LAA,val,0.5,0.5",
        ]
        storage.write_text(
            tmp_path / "predictions.csv", "\n".join(["patient_id,label,split,prob_CE,prob_LAA", *rows, ""])
        )
        places = ["a,a,CE,c1,test", "b,b,CE,c2,test", "c,c,LAA,c1,test", "d,d,LAA,c2,test", "e,e,LAA,c3,val"]
        storage.write_text(
            tmp_path / "split.csv", "\n".join(["image_id,patient_id,label,center_id,split", *places, ""])
        )
        return tmp_path

    return build


def run(root, fake, name="Stroke origin", **options):
    asked = Registration("proj-123", "europe-west4", name, endpoint=fake.url, **options)
    return register("gs://bucket/run/model", str(root / "model"), str(root), str(root), asked, images=IMAGES)


def test_the_first_version_is_blessed_and_carries_evaluation_slices_and_lineage(registry, finished):
    done = run(finished(), registry, image="europe-docker.pkg.dev/p/r/serve@sha256:1", labels={"Team": "Neuro"})
    assert (done["resourceName"], done["blessed"]) == (f"{MODEL}@1", True)
    (version,) = registry.models[MODEL]
    assert version["displayName"] == "Stroke origin"
    assert version["artifactUri"] == "gs://bucket/run/model"
    assert version["containerSpec"]["imageUri"].startswith("europe-docker")
    assert set(version["versionAliases"]) == {"candidate", "blessed", "default"}
    assert version["labels"] == {
        "team": "neuro",
        "bagline-code": "0-1-abc",
        "bagline-manifest": "c" * 32,
        "bagline-image-training": "b" * 32,
    }
    for fact in ("test auc 0.8", "code 0.1+abc", f"sha256:{'c' * 64}", IMAGES["training"]):
        assert fact in version["versionDescription"]
    ((name, kept),) = registry.evaluations.items()
    assert done["evaluation"] == name
    assert kept["version"] == "1"
    sent = kept["evaluation"]
    assert sent["metricsSchemaUri"].endswith("classification_metrics_1.0.0.yaml")
    assert sent["metrics"]["auRoc"] == pytest.approx(1.0)
    assert sent["metrics"]["confusionMatrix"]["rows"] == [[1, 1], [0, 2]]
    assert sent["metadata"]["bagline"]["metrics"]["test"] == {"auc": 0.8, "n_patients": 4}
    assert sent["metadata"]["bagline"]["images"] == IMAGES
    slices = {one["slice"]["value"]: one for one in kept["slices"]}
    assert set(slices) == {"CE", "LAA", "center_id=c1", "center_id=c2"}
    assert slices["CE"]["slice"]["dimension"] == "annotationSpec"
    config = slices["center_id=c2"]["slice"]["sliceSpec"]["configs"]["center_id"]
    assert config == {"value": {"stringValue": "c2"}}
    assert slices["center_id=c2"]["metrics"]["confusionMatrix"]["rows"] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("old", "new", "metric", "blessing", "blessed", "fact"),
    [
        (0.8, 0.9, "auc", "not_worse", True, "not worse than the 0.8000 of version 1"),
        (0.8, 0.8, "auc", "not_worse", True, "not worse"),
        (0.8, 0.7, "auc", "not_worse", False, "0.7000 is worse than the 0.8000 of version 1"),
        (0.3, 0.4, "log_loss", "not_worse", False, "is worse"),
        (0.4, 0.3, "log_loss", "not_worse", True, "not worse"),
        (0.8, 0.7, "auc", "always", True, "whatever version 1 has"),
        (0.8, 0.9, "auc", "never", False, "left to people"),
    ],
)
def test_a_new_version_is_blessed_only_where_it_may(
    registry, finished, caplog, old, new, metric, blessing, blessed, fact
):
    caplog.set_level(logging.INFO, logger="components")
    run(finished(old, metric=metric), registry)
    done = run(finished(new, metric=metric), registry, blessing=blessing)
    assert done["resourceName"] == f"{MODEL}@2"
    assert fact in done["reason"]
    first, second = registry.models[MODEL]
    assert "candidate" in second["versionAliases"]
    assert ("blessed" in second["versionAliases"]) is ("default" in second["versionAliases"]) is blessed
    assert ("blessed" in first["versionAliases"]) is not blessed
    uploads = [body for _, path, body in registry.calls if path.endswith("models:upload")]
    assert [body.get("parentModel") for body in uploads] == [None, MODEL]
    assert any(fact in line and f"{MODEL}@2" in line for line in caplog.messages)


def test_a_comparison_over_other_patients_is_told(registry, finished, caplog):
    run(finished(0.7), registry)
    run(finished(0.8, manifest_hash="d" * 64), registry)
    assert any("evaluated on another split manifest" in line for line in caplog.messages)


def test_a_blessed_version_without_a_known_metric_is_not_replaced(registry, finished):
    run(finished(0.7), registry)
    registry.evaluations.clear()
    done = run(finished(0.9), registry)
    assert not done["blessed"]
    assert "has no test auc to compare with" in done["reason"]


def test_a_model_that_did_not_pass_the_gate_is_refused_and_nothing_is_sent(registry, finished):
    with pytest.raises(WorkError, match=r"did not pass the gate: test auc 0\.4"):
        run(finished(0.4, blessed=False), registry)
    assert not registry.calls


def test_nothing_is_registered_without_a_name(registry, finished, caplog):
    caplog.set_level(logging.INFO, logger="components")
    done = run(finished(), registry, name="")
    assert done["resourceName"] == ""
    assert not registry.calls
    assert "not registered: register_as is empty" in caplog.messages


@pytest.mark.parametrize(
    ("refused", "kind", "fact"),
    [
        (RefusedError(403, "PERMISSION_DENIED", "no way"), WorkError, "aiplatform.user"),
        (RefusedError(400, "INVALID_ARGUMENT", "bad"), InputError, "is refused"),
        (RefusedError(500, "INTERNAL", "oops"), WorkError, "the registry failed"),
    ],
)
def test_what_the_registry_refuses_is_one_line(registry, finished, refused, kind, fact):
    registry.refuse = refused
    with pytest.raises(kind, match=fact) as caught:
        run(finished(), registry)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"blessing": "maybe"}, "choose not_worse, always, never"),
        ({"name": "!!"}, "gives no model id"),
        ({"labels": {"1st": "x"}}, "'1st' is no label"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(registry, finished, options, fact):
    with pytest.raises(InputError, match=fact):
        run(finished(), registry, **options)


def test_a_prediction_finds_a_registered_model_by_its_alias(registry, finished, monkeypatch):
    run(finished(), registry)
    monkeypatch.setattr(storage, "stat", lambda path: path)
    monkeypatch.setattr(storage, "read_json", lambda path: {"read": path})
    found = find_model(f"{MODEL}@blessed", registry.url)
    assert (found.uri, str(found.version.name)) == ("gs://bucket/run/model", f"{MODEL}@1")
    assert found.card == {"read": "gs://bucket/run/model/bagline.json"}
    with pytest.raises(InputError, match="is not registered"):
        find_model(f"{MODEL}@prod", registry.url)


@pytest.mark.parametrize("name", ["projects/p/models/m", "projects/p/locations/l/models/m@", "projects/p"])
def test_a_name_of_no_model_is_refused(name):
    with pytest.raises(InputError, match="names no model"):
        parse_model_name(name)


def test_model_ids_and_labels_are_as_google_cloud_takes_them():
    assert make_model_id("Stroke origin (CE/LAA)") == "stroke-origin-ce-laa"
    assert make_model_id("3 classes") == "m-3-classes"
    assert len(make_model_id("x" * 90)) == 63
    assert make_labels({"Site": "A & B" * 30})["site"].startswith("a-b")


def test_areas_agree_with_scikit_learn():
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 12, 80) / 12, rng.random(80) < 0.4
    assert area_under_roc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    assert average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))
    assert average_precision(scores, np.zeros(80, bool)) is None


def test_every_metric_is_finite_and_json_whatever_the_patients():
    probabilities = np.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    for truth in ([0, 2], [1, 1], []):
        found = measure(np.array(truth, np.int64), probabilities[: len(truth)], ["a", "b", "c"])
        json.dumps(found, allow_nan=False)
        assert len(found["confidenceMetrics"]) == 21
