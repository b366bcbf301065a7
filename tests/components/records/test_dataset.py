from pathlib import Path

import pytest

from components.records import storage
from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError
from components.records.example import parse_example
from components.records.ledger import LedgerEntry, read_ledger, write_ledger
from components.records.schema import FEATURES, DatasetSchema


def read_span(span):
    with open(span.path, "rb") as stream:
        stream.seek(span.offset)
        return parse_example(stream.read(span.length))


def test_spans_lead_to_every_record_in_order(tiled_dataset):
    dataset = TiledDataset(tiled_dataset(patients=2, slides=2, tiles=5, parts=2))
    for row in dataset.manifest.rows:
        records = [read_span(span) for span in dataset.spans(row.image_id)]
        assert [record["slide/id"] for record in records] == [[row.image_id.encode()]] * 5
        assert [(r["tile/x"][0] // 64, r["tile/y"][0] // 64) for r in records] == [
            (0, 0),
            (1, 0),
            (2, 0),
            (0, 1),
            (1, 1),
        ]
    assert dataset.spans("nobody") == []


def test_a_part_that_is_missing_or_of_another_length(tiled_dataset):
    dataset = TiledDataset(tiled_dataset(patients=2))
    path = Path(dataset.path(*dataset.parts[0].path.split("/")))
    image_id = dataset.parts[0].image_id
    content = path.read_bytes()
    path.write_bytes(content + content)
    with pytest.raises(WorkError, match="holds 8 records, not 4"):
        dataset.spans(image_id)
    path.unlink()
    with pytest.raises(WorkError, match="is missing") as error:
        dataset.spans(image_id)
    assert str(path) in str(error.value)


def test_patients_are_bags_in_manifest_order(tiled_dataset):
    dataset = TiledDataset(tiled_dataset(patients=6, slides=2))
    bags = dataset.patients()
    assert list(bags) == [f"p{n:02d}" for n in range(6)]
    assert [row.image_id for row in bags["p03"]] == ["p03_0", "p03_1"]
    assert list(dataset.patients("val")) == ["p02", "p03"]


def test_thumbnails_summary_and_ledger(tiled_dataset):
    dataset = TiledDataset(tiled_dataset(patients=2))
    thumbnail = dataset.thumbnails["p00_0"]
    assert (thumbnail.width, thumbnail.height, thumbnail.downsample) == (128, 128, 4.0)
    assert storage.stat(dataset.path(*thumbnail.path.split("/")))
    assert dataset.summary == {"tiles": 8}
    assert [entry.image_id for entry in dataset.ledger] == ["p00_0", "p01_0"]


def test_a_folder_without_records(tmp_path):
    with pytest.raises(InputError, match="holds no tiled records") as error:
        TiledDataset(str(tmp_path))
    assert "bagline tile" in str(error.value)


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"path": "a"}]', "null"])
def test_a_parts_json_of_another_shape(tiled_dataset, content):
    root = tiled_dataset(patients=2)
    (Path(root) / "parts.json").write_text(content)
    if content == "{}":
        assert TiledDataset(root).parts == []
        return
    with pytest.raises(InputError, match="no list of parts"):
        TiledDataset(root)


def test_a_schema_says_how_to_read_the_records(tmp_path):
    schema = DatasetSchema(("CE", "LAA"), 256, None, {"stride": 256}, "1+abc")
    schema.save(str(tmp_path / "schema.json"))
    assert DatasetSchema.load(str(tmp_path / "schema.json")) == schema
    written = storage.read_json(tmp_path / "schema.json")
    assert written["features"]["tile/mpp"] == {"kind": "float", "required": False}
    assert set(written["features"]) == set(FEATURES)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ('{"schema_version": "9"}', "'9'"),
        ("[]", "None"),
        ("{}", "None"),
        ("{", "not JSON"),
        ('{"schema_version": "1", "labels": []}', "lacks 'tile_px'"),
    ],
)
def test_a_schema_that_can_not_be_read(tmp_path, content, fact):
    (tmp_path / "schema.json").write_text(content)
    with pytest.raises(InputError) as error:
        DatasetSchema.load(str(tmp_path / "schema.json"))
    assert fact in str(error.value)


ENTRIES = [
    LedgerEntry("b", "tiled", "", 3, 0, 0.5, "b.svs", "sha256:1", "openslide", 0.25, "file", {"tissue_share": 0.5}),
    LedgerEntry("a", "failed", "größe\u2028?", 0, 0, 0.0, "a.svs", "", "", None, "unknown", {}),
]


def test_a_ledger_comes_back_with_its_order_and_details(tmp_path):
    write_ledger(str(tmp_path / "l"), ENTRIES)
    assert read_ledger(str(tmp_path / "l")) == ENTRIES
    assert storage.read_json_lines(tmp_path / "l")[0]["tissue_share"] == 0.5


def test_details_never_hide_a_key_of_the_interface():
    entry = LedgerEntry("b", "tiled", "", 3, 0, 0.5, "b", "", "", None, "unknown", {"tiles": 9})
    assert entry.to_json()["tiles"] == 3


@pytest.mark.parametrize("line", ['{"image_id": "a"}', "[]", "1"])
def test_a_ledger_line_of_another_shape(tmp_path, line):
    (tmp_path / "l").write_text(line)
    with pytest.raises(InputError) as error:
        read_ledger(str(tmp_path / "l"))
    assert str(tmp_path / "l") in str(error.value)
