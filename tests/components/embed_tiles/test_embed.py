import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from components.embed_tiles.embed import embed_tiles
from components.embed_tiles.face import embed_into
from components.embed_tiles.parameters import EmbeddingParameters
from components.mil.bags import TileSource, index_bags
from components.mil.embedding_source import EmbeddingSource, load_encoder
from components.mil.inference import fitting_embeddings, load_bag_model, predict_bags
from components.records.dataset import TiledDataset
from components.records.embedded import EmbeddedDataset, encode_blocks, read_rows
from components.records.errors import InputError, WorkError
from components.train_mil.parameters import TrainingParameters
from components.train_mil.train import train_mil


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.layers.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(6, 3, strides=2, activation="relu"),
            keras.layers.BatchNormalization(),
        ]
    )
    path = str(tmp_path_factory.mktemp("network") / "network.keras")
    model.save(path)
    return path


@pytest.fixture
def parameters(network):
    return EmbeddingParameters(encoder="saved", encoder_path=network, batch_tiles=4)


@pytest.fixture(scope="session")
def made(tiled, network, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("embedded"))
    embed_tiles(tiled, out, EmbeddingParameters(encoder="saved", encoder_path=network, batch_tiles=4))
    return out


def without_notes(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and ".progress" not in path.parts
    }


class TestEmbed:
    def test_every_tile_is_there_with_its_place(self, tiled, made):
        dataset, embedded = TiledDataset(tiled), EmbeddedDataset(made)
        embedded.check_source(dataset)
        encoder = load_encoder(embedded)
        for bag, rows in zip(index_bags(dataset), index_bags(dataset, None, embedded.spans), strict=True):
            tiles = next(TileSource([bag], tile_px=32, side=32).stream(lambda bag=bag: iter(bag.spans), 99))
            found = read_rows(rows.spans, embedded.schema.dim, embedded.schema.dtype)
            np.testing.assert_allclose(found, encoder(tiles), rtol=2e-3, atol=1e-3)
            facts = [embedded.facts(image_id) for image_id in dict.fromkeys(bag.image_ids)]
            assert sum(len(fact["tile/x"]) for fact in facts) == len(bag.spans)
            assert facts[0]["tile/x"].tolist() == [64 * at for at in range(len(facts[0]["tile/x"]))]
            assert set(facts[0]["tile/label"].tolist()) <= {0, 1}

    def test_the_ledger_adds_up(self, tiled, made):
        dataset = TiledDataset(tiled)
        lines = [json.loads(line) for line in Path(made, "ledger.jsonl").read_text().splitlines()]
        assert [line["image_id"] for line in lines] == [row.image_id for row in dataset.manifest.rows]
        assert sum(line["tiles"] for line in lines) == sum(part.tiles for part in dataset.parts)
        assert [line["status"] for line in lines[-2:]] == ["empty", "empty"]
        schema = EmbeddedDataset(made).schema
        assert (schema.dim, schema.dtype, schema.encoder["name"]) == (6, "float16", "saved")
        assert schema.encoder["digest"].startswith("sha256:")

    def test_the_same_call_gives_the_same_bytes_and_shards_do_too(self, tiled, made, parameters, tmp_path):
        first = embed_tiles(tiled, str(tmp_path / "shards"), parameters, shard=1, shards=2)
        assert first.missing > 0
        assert not (tmp_path / "shards" / "schema.json").exists()
        assert embed_tiles(tiled, str(tmp_path / "shards"), parameters, shard=0, shards=2).missing == 0
        assert without_notes(tmp_path / "shards") == without_notes(made)

    def test_what_is_there_is_skipped_and_what_changed_is_not(self, tiled, made, parameters, tmp_path, network):
        out, root = str(tmp_path / "out"), str(tmp_path / "root")
        shutil.copytree(made, out)
        shutil.copytree(tiled, root)
        assert embed_tiles(root, out, parameters).made == 0
        parts = json.loads(Path(root, "parts.json").read_text())
        parts[3]["sha256"] = "0" * 64  # as if that slide had been tiled anew
        gone = parts.pop()
        Path(root, "parts.json").write_text(json.dumps(parts))
        with pytest.raises(InputError, match="are of other records"):
            EmbeddedDataset(out).check_source(TiledDataset(root))
        assert embed_tiles(root, out, parameters).made == 1
        EmbeddedDataset(out).check_source(TiledDataset(root))
        assert not Path(out, gone["path"]).exists()
        Path(out, parts[0]["path"]).write_bytes(b"cut")
        assert embed_tiles(root, out, parameters).made == 1
        other = keras.models.load_model(network)
        other.layers[1].set_weights([weight * 2 for weight in other.layers[1].get_weights()])
        other.save(str(tmp_path / "other.keras"))
        changed = dataclasses.replace(parameters, encoder_path=str(tmp_path / "other.keras"))
        assert embed_tiles(root, out, changed).made == len(parts)

    def test_killed_in_the_middle_it_goes_on(self, tiled, made, parameters, tmp_path, monkeypatch):
        out = tmp_path / "out"
        code = (
            "import sys, time; from components.embed_tiles import embed as e\n"
            "from components.embed_tiles.parameters import EmbeddingParameters as P\n"
            "write = e._write_part\n"
            "e._write_part = lambda *given: (write(*given), time.sleep(0.4))\n"
            f"e.embed_tiles(sys.argv[1], sys.argv[2], P(encoder='saved', encoder_path={parameters.encoder_path!r},"
            " batch_tiles=4))"
        )
        child = subprocess.Popen([sys.executable, "-c", code, tiled, str(out)])
        until = time.monotonic() + 120
        while len(list(out.rglob(".progress/**/*.json"))) < 4 and time.monotonic() < until:
            assert child.poll() is None
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        done = len(list(out.rglob(".progress/**/*.json")))
        assert 4 <= done < len(TiledDataset(tiled).parts)
        assert not (out / "schema.json").exists()
        summary = embed_tiles(tiled, str(out), parameters)
        assert summary.made == summary.parts - done
        assert without_notes(out) == without_notes(made)

    def test_blocks(self):
        rng = np.random.default_rng(0)
        values = rng.normal(size=(2500, 3)).astype(np.float32)
        facts = {name: np.arange(2500) % 100 for name in embedding_facts()}
        content, blocks = encode_blocks(values, facts, {"slide/id": "a"}, "float32")
        assert [tiles for _, tiles, _ in blocks] == [1024, 1024, 452]
        at, tiles, _ = blocks[2]
        found = np.frombuffer(content, "<f4", tiles * 3, at).reshape(-1, 3)
        np.testing.assert_array_equal(found, values[2048:])

    def test_errors(self, tiled, parameters, tmp_path, network):
        out = str(tmp_path / "out")
        with pytest.raises(InputError, match="'small_cnn' is trained along and gives no embeddings"):
            embed_tiles(tiled, out, dataclasses.replace(parameters, encoder="small_cnn", encoder_path=""))
        with pytest.raises(InputError, match="unknown embedding_dtype 'float8'"):
            embed_tiles(tiled, out, dataclasses.replace(parameters, embedding_dtype="float8"))
        with pytest.raises(InputError, match="shard 2 of 2"):
            embed_tiles(tiled, out, parameters, shard=2, shards=2)
        with pytest.raises(InputError, match="holds no embeddings; run `bagline embed` first"):
            EmbeddedDataset(out)
        loud = keras.models.load_model(network)
        loud.layers[-1].set_weights([np.full(6, 1e5, np.float32), *loud.layers[-1].get_weights()[1:]])
        loud.save(str(tmp_path / "loud.keras"))
        with pytest.raises(WorkError, match="not finite as float16; set embedding_dtype=float32"):
            embed_tiles(tiled, out, dataclasses.replace(parameters, encoder_path=str(tmp_path / "loud.keras")))

    def test_a_tile_that_does_not_decode_is_named_by_its_part(self, build, parameters, tmp_path):
        root = Path(build(tmp_path / "root"))
        part = TiledDataset(str(root)).parts[2]
        span = TiledDataset(str(root)).spans_of(part)[0]
        data = bytearray((root / part.path).read_bytes())
        at = data.index(b"\x89PNG", span.offset)
        data[at : at + 4] = b"none"
        (root / part.path).write_bytes(data)
        with pytest.raises(WorkError, match="does not decode"):
            embed_tiles(str(root), str(tmp_path / "out"), parameters)

    def test_not_asked_for(self, tiled, tmp_path):
        assert embed_into(tiled, str(tmp_path), EmbeddingParameters(encoder="small_cnn"), asked=False) is None
        assert [path.name for path in tmp_path.iterdir()] == ["not_asked_for.json"]

    def test_by_way_of_a_work_folder(self, tiled, made, parameters, tmp_path):
        out = tmp_path / "out"
        embed_into(tiled, str(out), parameters, asked=True, work_dir=str(tmp_path / "work"))
        assert without_notes(out) == without_notes(made)


def embedding_facts():
    from components.records.embedded import FACTS

    return FACTS


class TestTrainingOnEmbeddings:
    @pytest.fixture(scope="class")
    def trained(self, tiled, made, network, tmp_path_factory):
        folder = tmp_path_factory.mktemp("trained")
        values = {"encoder": "saved", "encoder_path": network, "embedding_dim": 8, "attention_dim": 4, "epochs": 3}
        values |= {"tiles_per_bag": 4, "augment": False}
        for name in ("tiles", "embeddings"):
            train_mil(
                tiled,
                str(folder / name / "model"),
                str(folder / name / "training"),
                TrainingParameters(**values, embeddings=name == "embeddings"),
                embedded=made,
                work_dir=str(folder / name / "work"),
            )
        return folder

    def test_it_comes_to_what_training_end_to_end_comes_to(self, trained):
        of_tiles, of_embeddings = (
            json.loads((trained / name / "training" / "history.json").read_text())["epochs"]
            for name in ("tiles", "embeddings")
        )
        for one, other in zip(of_tiles, of_embeddings, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=0.02)
            assert one["val_loss"] == pytest.approx(other["val_loss"], rel=0.02)

    def test_one_model_says_the_same_of_tiles_and_of_their_embeddings(self, trained, tiled, made):
        dataset = TiledDataset(tiled)
        for name in ("tiles", "embeddings"):
            model = load_bag_model(str(trained / name / "model"))
            embedded = fitting_embeddings(model, dataset, made)
            assert embedded is not None
            both = zip(predict_bags(model, dataset), predict_bags(model, dataset, embedded=embedded), strict=True)
            for end_to_end, quick in both:
                np.testing.assert_allclose(quick.probabilities, end_to_end.probabilities, atol=2e-3)
                np.testing.assert_allclose(quick.attention, end_to_end.attention, atol=2e-3)
                for field in ("x", "y", "width", "height", "tissue", "tile_labels"):
                    np.testing.assert_array_equal(getattr(quick, field), getattr(end_to_end, field))
                assert (quick.image_ids, quick.spans) == (end_to_end.image_ids, end_to_end.spans)

    def test_the_frozen_encoder_is_not_in_the_checkpoint(self, trained):
        kept = np.load(trained / "tiles" / "work" / "checkpoint.npz")
        shapes = [kept[name].shape for name in kept.files]
        assert (3, 3, 3, 6) not in shapes

    def test_other_embeddings_are_refused_in_training_and_left_alone_in_prediction(
        self, tiled, made, trained, tmp_path, network
    ):
        dataset = TiledDataset(tiled)
        given = TrainingParameters(encoder="resnet50", encoder_path="random", embeddings=True)
        with pytest.raises(InputError, match="are of name 'saved', not 'resnet50'"):
            train_mil(tiled, str(tmp_path / "m"), str(tmp_path / "t"), given, embedded=made)
        with pytest.raises(InputError, match="embeddings are of a frozen encoder"):
            TrainingParameters(embeddings=True).check()
        shutil.copytree(made, tmp_path / "other")
        path = tmp_path / "other" / "schema.json"
        schema = json.loads(path.read_text())
        schema["encoder"]["digest"] = "sha256:0"
        path.write_text(json.dumps(schema))
        model = load_bag_model(str(trained / "embeddings" / "model"))
        assert fitting_embeddings(model, dataset, str(tmp_path / "other")) is None
        assert fitting_embeddings(model, dataset, "") is None
        with pytest.raises(InputError, match="is not the encoder of these embeddings"):
            load_encoder(EmbeddedDataset(str(tmp_path / "other")))

    def test_batches_are_padded_to_their_largest_bag(self, tiled, made):
        dataset, embedded = TiledDataset(tiled), EmbeddedDataset(made)
        bags = index_bags(dataset, None, embedded.spans)
        seen = 0
        for inputs, labels in EmbeddingSource(embedded.schema).batches(
            bags, lambda bag: bag.spans, instances=200_000, bags_per_batch=2
        ):
            sizes = [len(bag.spans) for bag in bags[seen : seen + 2]]
            assert inputs["mask"].numpy().sum(axis=1).tolist() == sizes
            assert inputs["tiles"].shape[1] == 1 << (max(sizes) - 1).bit_length()
            assert labels.numpy().tolist() == [bag.label_index for bag in bags[seen : seen + 2]]
            seen += 2
        assert seen == len(bags)
