"""The choice among hyper-parameters: by validation alone, and with the errors a user can make."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from components.records.dataset import TiledDataset
from components.records.errors import InputError
from components.records.manifest import read_manifest, write_manifest
from components.train_mil.choice import read_grid, train_best
from components.train_mil.parameters import TrainingParameters

TINY = TrainingParameters(input_px=16, embedding_dim=8, attention_dim=4, epochs=2, tiles_per_bag=4)
GRID = [{"learning_rate": 1e-5}, {"learning_rate": 0.01}]


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.suffix in (".h5", ".json")
    }


@pytest.mark.slow
def test_the_lowest_validation_loss_wins_and_the_test_split_has_no_say(tiled: str, tmp_path: Path) -> None:
    best = train_best(tiled, str(tmp_path / "m"), str(tmp_path / "t"), TINY, GRID)
    choice = json.loads((tmp_path / "t" / "choice.json").read_text())
    losses = [candidate["val_loss"] for candidate in choice["candidates"]]
    assert choice["chosen"] == losses.index(min(losses))
    assert choice["parameters"] == GRID[choice["chosen"]]
    assert best.val_loss == min(losses)
    history = json.loads((tmp_path / "t" / "history.json").read_text())
    assert history["parameters"]["learning_rate"] == GRID[choice["chosen"]]["learning_rate"]
    card = json.loads((tmp_path / "m" / "bagline.json").read_text())
    assert card["parameters"]["learning_rate"] == GRID[choice["chosen"]]["learning_rate"]
    # the same again where every test record is rubbish
    build = runpy.run_path(str(Path(__file__).parent.parent / "mil" / "tiny_dataset.py"))["build_dataset"]
    other = Path(build(tmp_path / "rubbish"))
    for path in (other / "records" / "test").iterdir():
        path.write_bytes(b"")
    train_best(str(other), str(tmp_path / "m2"), str(tmp_path / "t2"), TINY, GRID)
    again = json.loads((tmp_path / "t2" / "choice.json").read_text())
    assert [c["val_loss"] for c in again["candidates"]] == losses


@pytest.mark.slow
def test_without_a_grid_it_is_a_plain_training_on_the_given_split(tiled: str, tmp_path: Path) -> None:
    table = tmp_path / "fold.csv"
    manifest = read_manifest(f"{tiled}/split.csv")
    turned = {"train": "train", "val": "test", "test": "val"}
    write_manifest(str(table), manifest.columns, [_with_split(row, turned[row.split]) for row in manifest.rows])
    summary = train_best(
        tiled, str(tmp_path / "m"), str(tmp_path / "t"), TINY, work_dir=str(tmp_path / "w"), split_table=str(table)
    )
    assert not (tmp_path / "t" / "choice.json").exists()
    assert summary.manifest_hash == TiledDataset(tiled, str(table)).manifest.digest
    assert len(list((tmp_path / "w").iterdir())) == 1


def _with_split(row, split):
    from dataclasses import replace

    return replace(row, split=split)


def test_a_split_table_must_be_of_the_tiled_slides(tiled: str, tmp_path: Path) -> None:
    manifest = read_manifest(f"{tiled}/split.csv")
    write_manifest(str(tmp_path / "short.csv"), manifest.columns, manifest.rows[:-1])
    with pytest.raises(InputError, match="is not a split of the tiled slides"):
        TiledDataset(tiled, str(tmp_path / "short.csv"))


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ([{"lerning_rate": 0.1}], "grid, set 1: unknown parameter 'lerning_rate'; did you mean learning_rate?"),
        ([{"epochs": 2}, {"epochs": "many"}], "grid, set 2: epochs is 'many', which is no int"),
        ([{"epochs": True}], "which is no int"),
        ([{}], "is no set of parameters"),
        (["epochs"], "is no set of parameters"),
        ([{"epochs": 0}], "epochs 0 is below 1"),
        ([{"learning_rate": "fast"}], "which is no float"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(grid, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_grid(grid, TINY)
    assert words in str(caught.value)


def test_a_grid_is_laid_over_the_parameters() -> None:
    (made,) = read_grid([{"epochs": 3.0, "learning_rate": "1e-4", "weight_decay": 0}], TINY)
    assert (made.epochs, made.learning_rate, made.weight_decay) == (3, 1e-4, 0.0)
    assert made.attention_dim == TINY.attention_dim
