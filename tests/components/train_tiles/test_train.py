"""A tile classifier is trained, saved, loaded, and goes on where it was killed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from components.mil.tile_model import load_tile_model
from components.mil.tiles import TileTable, index_slides
from components.records.dataset import TiledDataset
from components.records.errors import InputError
from components.train_tiles.loop import TileReader, TileTrainer
from components.train_tiles.parameters import TileTrainingParameters
from components.train_tiles.train import train_tiles

import keras  # isort: skip

QUICK = TileTrainingParameters(epochs=3, input_px=32, embedding_dim=16, batch_tiles=16)


@pytest.fixture(scope="module")
def root(build_tiny, tmp_path_factory):
    return build_tiny(tmp_path_factory.mktemp("tiny"))


def weights(folder):
    return [value.copy() for value in load_tile_model(str(folder))[0].get_weights()]


def same(one, other):
    return all((a == b).all() for a, b in zip(weights(one), weights(other), strict=True))


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, train_tiles(root, str(folder / "model"), str(folder / "training"), QUICK)


def test_lesions_are_learnt_and_the_model_loads_by_keras_alone(trained):
    folder, summary = trained
    assert summary.val_auc == 1.0
    assert (summary.slides, summary.patients, summary.left_out) == (12, 6, 2)
    model = keras.models.load_model(folder / "model")
    tiles = np.full((2, 32, 32, 3), 160, np.uint8)
    tiles[1, ..., 1:] //= 4
    other, lesion = model.predict(tiles, verbose=0)[:, 0]
    assert lesion > 0.5 > other
    card = json.loads((folder / "model" / "bagline.json").read_text())
    assert card["kind"] == "tile_classifier"
    assert card["parameters"]["imbalance"] == "oversample"
    history = json.loads((folder / "training" / "history.json").read_text())
    assert len(history["epochs"]) == summary.epochs
    assert all(entry["lesion_share"] == pytest.approx(0.5) for entry in history["epochs"])


def test_every_slide_that_is_not_used_is_listed_with_its_reason(root, trained, tmp_path):
    listed = [json.loads(line) for line in (trained[0] / "training" / "left_out.jsonl").read_text().splitlines()]
    assert [(slide["image_id"], slide["reason"]) for slide in listed] == [
        ("p10_0", "has no tile"),
        ("p10_1", "has no tile"),
    ]
    few = replace(QUICK, epochs=1, min_tiles_per_slide=4)
    summary = train_tiles(root, str(tmp_path / "m"), str(tmp_path / "t"), few)
    listed = [json.loads(line) for line in (tmp_path / "t" / "left_out.jsonl").read_text().splitlines()]
    assert summary.left_out == len(listed) > 2
    assert "has too little tissue: 3 tiles, fewer than 4" in {slide["reason"] for slide in listed}


def test_the_same_seed_gives_the_same_model_whether_tiles_are_kept_or_streamed(root, trained, tmp_path):
    train_tiles(root, str(tmp_path / "m"), str(tmp_path / "t"), replace(QUICK, cache_mb=0))
    assert same(trained[0] / "model", tmp_path / "m")
    assert (tmp_path / "m" / "config.json").read_bytes() == (trained[0] / "model" / "config.json").read_bytes()


def test_a_killed_training_goes_on_to_the_same_weights(root, trained, tmp_path, monkeypatch):
    run = TileTrainer._run_epoch

    def die(self, epoch, state):
        if epoch == 3:
            raise KeyboardInterrupt
        return run(self, epoch, state)

    monkeypatch.setattr(TileTrainer, "_run_epoch", die)
    places = str(tmp_path / "m"), str(tmp_path / "t")
    with pytest.raises(KeyboardInterrupt):
        train_tiles(root, *places, QUICK, work_dir=str(tmp_path / "work"))
    epochs = []
    monkeypatch.setattr(
        TileTrainer, "_run_epoch", lambda self, epoch, state: epochs.append(epoch) or run(self, epoch, state)
    )
    train_tiles(root, *places, QUICK, work_dir=str(tmp_path / "work"))
    assert epochs == [3]
    assert same(trained[0] / "model", tmp_path / "m")


@pytest.mark.parametrize("imbalance", ["focal", "class_weights", "undersample"])
def test_every_way_with_imbalance_trains(root, tmp_path, imbalance):
    summary = train_tiles(root, str(tmp_path / "m"), str(tmp_path / "t"), replace(QUICK, imbalance=imbalance))
    assert summary.val_auc > 0.9


def test_tiles_come_in_the_order_asked_for(root):
    slides, _ = index_slides(TiledDataset(root), ("train",))
    table = TileTable(slides)
    numbers = np.random.default_rng(0).permutation(len(table))
    kept, streamed = (TileReader(table, 32, 32, room) for room in (1 << 20, 0))
    assert kept.bytes > 0 == streamed.bytes
    one, other = (np.concatenate(list(reader.stream(numbers, 7))) for reader in (kept, streamed))
    assert (one == other).all()
    red = one[..., 1].mean((1, 2)) < 60
    assert (red == (table.labels[numbers] == 1)).all()


def test_records_without_masks_are_refused_or_taken_as_normal(build_tiny, tmp_path):
    root = build_tiny(tmp_path / "d", masks=False)
    with pytest.raises(
        InputError, match=r"no train slide can be used; the first is p00_0 \(has no lesion mask\)"
    ) as caught:
        train_tiles(root, str(tmp_path / "m"), str(tmp_path / "t"), QUICK)
    assert "give mask_path in the manifest" in str(caught.value)
    with pytest.raises(InputError, match="has no marked tile"):
        train_tiles(root, str(tmp_path / "m"), str(tmp_path / "t"), replace(QUICK, negative_label="normal"))


@pytest.mark.parametrize("missing", ["model.weights.h5", "bagline.json"])
def test_a_folder_without_a_tile_classifier_is_refused(trained, tmp_path, missing):
    for path in (trained[0] / "model").rglob("*"):
        if path.is_file() and path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="holds no model"):
        load_tile_model(str(tmp_path))
    (tmp_path / missing).write_text("{}")
    with pytest.raises(InputError, match="holds no"):
        load_tile_model(str(tmp_path))
