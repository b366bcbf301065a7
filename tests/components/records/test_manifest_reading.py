"""Manifest reading: what is taken, and the facts that each refusal names."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.records.errors import InputError
from components.records.manifest import read_manifest, resolve_images, write_manifest

HEADER = "image_id,patient_id,label"
FULL = "image_id,patient_id,label,center_id,image_num,image_path,mask_path,mpp,split,age"


def read(tmp_path, content):
    path = tmp_path / "manifest.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_manifest(str(path))


def test_every_column_is_read(tmp_path):
    manifest = read(tmp_path, f"{FULL}\na_0,a,CE,c1,0,s/a.svs,m/a.png,0.25,train,64\nb_0,b,LAA,,,,,,,\n")
    first, second = manifest.rows
    assert (first.image_id, first.patient_id, first.label, first.center_id, first.image_num) == (
        "a_0",
        "a",
        "CE",
        "c1",
        "0",
    )
    assert (first.image_path, first.mask_path, first.mpp, first.split) == ("s/a.svs", "m/a.png", 0.25, "train")
    assert first.extra == {"age": "64"}
    assert (second.mpp, second.split, second.center_id, second.extra) == (None, "", "", {"age": ""})
    assert manifest.columns == tuple(FULL.split(","))
    assert manifest.labels == ("CE", "LAA")


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeff{HEADER}\na,p,CE\n",
        f"{HEADER}\r\na,p,CE\r\n",
        f"{HEADER}\n\n  \n,,\na,p,CE\n\n",
        f"{HEADER}\na,p,CE",
        " image_id , patient_id,label \n a ,\tp, CE \n",
        '"image_id","patient_id","label"\n"a","p","CE"\n',
    ],
    ids=["BOM", "CRLF", "blank lines", "no last line end", "blanks around cells", "quotes"],
)
def test_what_spreadsheets_write_is_read(tmp_path, content):
    (row,) = read(tmp_path, content).rows
    assert (row.image_id, row.patient_id, row.label) == ("a", "p", "CE")


def test_quoted_commas_quotes_and_line_breaks_in_other_columns(tmp_path):
    manifest = read(tmp_path, f'{HEADER},note\na,p,"CE, late","said ""so""\nand left"\nb,p,"CE, late",x\n')
    assert [row.label for row in manifest.rows] == ["CE, late"] * 2
    assert manifest.rows[0].extra["note"] == 'said "so"\nand left'


def test_ids_of_other_scripts(tmp_path):
    (row,) = read(tmp_path, f"{HEADER}\nпрепарат 1,größe,组织\n").rows
    assert (row.image_id, row.patient_id, row.label) == ("препарат 1", "größe", "组织")


REFUSALS = [
    ("", ["image_id, patient_id, label"]),
    ("image_id,patient\na,p\n", ["patient_id", "label"]),
    (f"{HEADER},label\na,p,x,y\n", ["label", "twice"]),
    (f"{HEADER}\n", ["no rows"]),
    (f"{HEADER}\n\n,,\n", ["no rows"]),
    (f"{HEADER}\na,p\nb,p,x,y\n", ["line 2", "2 cells", "line 3", "4 cells"]),
    (f"{HEADER}\n,p,x\na,,x\nb,p,\n", ["line 2", "image_id", "line 3", "patient_id", "line 4", "label"]),
    (f"{HEADER}\na,p,x\nb,p,x\na,q,x\nb,q,x\n", ["line 4", "line 5", "line 2", "line 3", " a ", " b "]),
    (f"{HEADER}\na/b,p,x\n", ["line 2", "a/b"]),
    (f"{HEADER}\na\\b,p,x\n", ["line 2"]),
    (f"{HEADER}\n.a,p,x\n..,p,x\n", ["line 2", "line 3", ".a"]),
    (f"{HEADER}\na\x07,p,x\n", ["line 2", "image_id"]),
    (f'{HEADER}\na,"p\nq",x\n', ["patient_id", "control character"]),
    (f"{HEADER},image_path\na,p,x,/etc/passwd\nb,p,x,../b\n", ["line 2", "line 3", "image_path"]),
    (f"{HEADER},mask_path\na,p,x,m/../../b\n", ["line 2", "mask_path"]),
    (f"{HEADER},mpp\na,p,x,big\nb,p,x,-1\nc,p,x,0\nd,p,x,nan\ne,p,x,inf\n", [f"line {n}" for n in range(2, 7)]),
    (f"{HEADER},split\na,p,x,Train\nb,p,x,dev\n", ["line 2", "'Train'", "line 3", "'dev'", "train, val, test"]),
    (f"{HEADER}\na,p,\xff\n".encode("latin-1"), ["UTF-8"]),
    (f"{HEADER}\na,p,x\0\n", ["NUL"]),
    (f"{HEADER}\na,p,{'x' * 140_000}\n", ["line 2", "CSV"]),
]


@pytest.mark.parametrize(("content", "facts"), REFUSALS)
def test_a_refusal_names_every_offending_row(tmp_path, content, facts):
    with pytest.raises(InputError) as error:
        read(tmp_path, content)
    line = str(error.value)
    assert [fact for fact in facts if fact not in line] == [], line
    assert str(tmp_path / "manifest.csv") in line
    assert "\n" not in line
    assert error.value.mend


def test_a_manifest_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_manifest(str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="folder"):
        read_manifest(str(tmp_path))


def test_the_digest_is_of_the_bytes(tmp_path):
    plain = read(tmp_path, f"{HEADER}\na,p,x\n").digest
    assert plain == read(tmp_path, f"{HEADER}\na,p,x\n").digest
    assert plain != read(tmp_path, f"\ufeff{HEADER}\na,p,x\n").digest


CELLS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs"]), min_size=1, max_size=9
)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6))
def test_what_is_written_is_read_again(tmp_path_factory, cells):
    folder = tmp_path_factory.mktemp("m")
    rows = [(f"{number}{a}".replace("/", "").replace("\\", ""), b, c) for number, (a, b, c) in enumerate(cells)]
    with open(folder / "a.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([HEADER.split(","), *rows])
    manifest = read_manifest(str(folder / "a.csv"))
    assert [(row.image_id, row.patient_id, row.label) for row in manifest.rows] == rows
    write_manifest(str(folder / "b.csv"), manifest.columns, list(manifest.rows))
    assert read_manifest(str(folder / "b.csv")).rows == manifest.rows


def test_other_columns_are_carried_along_in_place(tmp_path):
    content = f"{FULL}\na_0,a,CE,c1,0,s/a.svs,m/a.png,0.25,train,64\nb_0,b,LAA,,,,,,,\n"
    manifest = read(tmp_path, content)
    write_manifest(str(tmp_path / "again.csv"), manifest.columns, list(manifest.rows))
    assert (tmp_path / "again.csv").read_text() == content


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    for name in ("a.svs", "deep/b.tif", "b2.tif", "c.tif", "deep/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    return root


def test_images_are_found_by_path_and_by_stem(tmp_path, images):
    manifest = read(tmp_path, f"{HEADER},image_path\na,p,x,\nb,p,x,\nz,p,x,./deep/c.png\n")
    found, problems = resolve_images(manifest, str(images))
    assert {key: info.path for key, info in found.items()} == {
        "a": str(images / "a.svs"),
        "b": str(images / "deep/b.tif"),
        "z": str(images / "deep/c.png"),
    }
    assert problems == []


def test_every_image_that_is_not_one_file_is_named(tmp_path, images):
    manifest = read(tmp_path, f"{HEADER},image_path\nc,p,x,\nnone,p,x,\na,p,x,b.svs\nb,p,x,\n")
    found, problems = resolve_images(manifest, str(images))
    assert set(found) == {"b"}
    assert ["line 2" in problems[0], "c.tif" in problems[0], "deep/c.png" in problems[0]] == [True] * 3
    assert "line 3" in problems[1]
    assert "none" in problems[1]
    assert "line 4" in problems[2]
    assert "b.svs" in problems[2]


def test_an_images_root_without_files(tmp_path):
    manifest = read(tmp_path, f"{HEADER}\na,p,x\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty folder"):
        resolve_images(manifest, str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no such folder"):
        resolve_images(manifest, str(tmp_path / "none"))
