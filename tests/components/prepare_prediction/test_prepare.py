"""What a batch prediction starts from: a model that says how to tile, and a manifest that may have no labels."""

import pytest

from components.prepare_prediction.prepare import TILING, copy_model, prepare_prediction
from components.records import storage
from components.records.errors import InputError
from components.records.manifest import read_manifest
from components.tile_images.parameters import TilingParameters

TILED = TilingParameters(tile_px=224, mpp=1.0, max_pen=0.5).record_parameters()


@pytest.fixture
def prepare(tmp_path):
    """Runs the step on a manifest's text; three slides lie in the folder."""
    storage.write_json(tmp_path / "model" / "bagline.json", {"label_names": ["CE", "LAA"], "tiling": TILED})
    for name in ("a_0", "a_1", "b_0"):
        storage.write_bytes(tmp_path / "images" / f"{name}.tif", name.encode())

    def run(text, **options):
        storage.write_text(tmp_path / "new.csv", text)
        given = {"model": str(tmp_path / "model"), **options}
        model, out = given.pop("model"), str(tmp_path / "out.csv")
        done = prepare_prediction(model, str(tmp_path / "new.csv"), str(tmp_path / "images"), out, **given)
        return done, read_manifest(out)

    return run


def test_slides_without_labels_are_prepared_as_the_model_says(prepare, tmp_path):
    done, slides = prepare("image_id,patient_id,stain\na_0,a,HE\na_1,a,HE\nb_0,b,HE\n")
    assert {row.label for row in slides.rows} == {"unknown"}
    assert slides.columns == ("image_id", "patient_id", "stain", "label")
    assert [row.extra["stain"] for row in slides.rows] == ["HE"] * 3
    assert (done.patients, done.slides, done.model.uri) == (2, 3, str(tmp_path / "model"))
    assert done.tiling == {name: TILED[name] for name in TILING}
    assert (done.tiling["tile_px"], done.tiling["mpp"], done.tiling["max_pen"]) == (224, 1.0, 0.5)


def test_a_label_that_is_known_is_kept_for_the_whole_patient_and_splits_go(prepare):
    _, slides = prepare("image_id,patient_id,label,split\na_0,a,,test\na_1,a,CE,test\nb_0,b,,\n")
    assert [row.label for row in slides.rows] == ["CE", "CE", "unknown"]
    assert "split" not in slides.columns


@pytest.mark.parametrize(
    ("text", "options", "fact"),
    [
        ("image_id,patient_id\na_0,a\n", {"tile_px": 256}, "tile_px: 256 is not the model's 224; leave it out"),
        ("image_id,patient_id\na_0,a\n", {"mpp": 0.5}, "mpp: 0.5 is not the model's 1"),
        ("image_id,patient_id\na_0,a\n", {"manifest_hash": "0"}, "changed since the run was started"),
        ("image_id,patient_id\nc_0,c\n", {}, "line 2: c_0: no file of that stem"),
        ("image_id,label\na_0,CE\n", {}, "lacks the column patient_id"),
        ("image_id,patient_id,label\na_0,a,CE\na_1,a,LAA\n", {}, "patients with two labels: a"),
        ("image_id,patient_id\na_0,a\n", {"model": "/nowhere"}, "/nowhere: holds no bagline.json"),
    ],
)
def test_what_does_not_fit_is_refused(prepare, text, options, fact):
    with pytest.raises(InputError) as caught:
        prepare(text, **options)
    assert fact in str(caught.value)


def test_what_the_user_believes_may_be_right(prepare):
    done, _ = prepare("image_id,patient_id\na_0,a\n", tile_px=224, mpp=1.0)
    assert done.tiling["tile_px"] == 224


def test_a_model_that_does_not_say_how_it_was_tiled_is_refused(prepare, tmp_path):
    storage.write_json(tmp_path / "old" / "bagline.json", {"tile_px": 224, "mpp": 1.0})
    with pytest.raises(InputError, match=r"does not say how its slides were tiled.*train it again"):
        prepare("image_id,patient_id\na_0,a\n", model=str(tmp_path / "old"))


def test_a_model_is_copied_whole(tmp_path):
    storage.write_text(tmp_path / "model" / "assets" / "x.txt", "x")
    storage.write_text(tmp_path / "model" / "bagline.json", "{}")
    copy_model(str(tmp_path / "model"), str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "assets" / "x.txt").read_text() == "x"
    assert (tmp_path / "copy" / "bagline.json").read_text() == "{}"


def test_every_tiling_parameter_is_the_models_or_the_users():
    """A new parameter of the tiling step has to be put on one side or the other."""
    from pipelines.catalog import load_pipeline
    from pipelines.compile import build_spec, signature_of

    offered = set(signature_of(build_spec(load_pipeline("batch-predict").build())))
    assert set(TilingParameters.__dataclass_fields__) - set(TILING) <= offered
