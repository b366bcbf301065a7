import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.records import storage
from components.records.errors import InputError
from components.records.manifest import (
    RowProblem,
    read_manifest,
    refuse_rows,
    resolve_images,
    scan_manifest,
    write_manifest,
)


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_reads_every_column_and_carries_others_untouched(tmp_path):
    text = (
        "\ufeffpatient_id, image_id ,label,note,mpp,split,line\r\n"
        " p1 ,a,CE,  two spaces ,0.50,train,x\r\n,,,,,,\r\np2,b,LAA,,,,y\r\n"
    )
    manifest = read_manifest(write(tmp_path / "m.csv", text))
    first, second = manifest.rows
    assert (first.image_id, first.patient_id, first.label, first.mpp, first.split) == ("a", "p1", "CE", 0.5, "train")
    assert first.extra == {"note": "  two spaces ", "line": "x"}
    assert (first.line, second.line) == (2, 4)
    assert (second.mpp, second.center_id, second.split) == (None, "", "")
    assert manifest.labels == ("CE", "LAA")


def test_every_row_problem_is_named_in_line_order_with_each_mend_once(tmp_path):
    text = (
        "image_id,patient_id,label,image_path,mask_path,mpp,split,center_id\n"
        "a,p,CE,,,,,\n"
        "a,p,CE,,,,,\n"
        ",p,CE,,,,,\n"
        "b,,,,,,,\n"
        ".c,p,CE,,,,,\n"
        "d/e,p,CE,,,,,\n"
        "f\\g,p,CE,,,,,\n"
        "h,p\x01,CE,,,,,\n"
        "i,p,CE,/etc/x,,,,\n"
        "j,p,CE,,x/../../y,,,\n"
        "k,p,CE,,,minus,,\n"
        "l,p,CE,,,nan,,\n"
        "m,p,CE,,,-1,,\n"
        "n,p,CE,,,,holdout,\n"
        "o,p,CE\n"
        "q,p,CE,x..y/z.tif,,,,\n"
    )
    path = write(tmp_path / "m.csv", text)
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    message = str(caught.value)
    for part in (
        "line 3: image_id a is already on line 2",
        "line 4: empty image_id",
        "line 5: empty patient_id",
        "line 5: empty label",
        "line 6: image_id '.c' can't be a file name",
        "line 7: image_id 'd/e' can't be a file name",
        r"line 8: image_id 'f\\g' can't be a file name",
        "line 9: patient_id holds a control character",
        "line 10: image_path '/etc/x' leaves --images-root",
        "line 11: mask_path 'x/../../y' leaves --images-root",
        "line 12: mpp 'minus' is not a positive number",
        "line 13: mpp 'nan' is not a positive number",
        "line 14: mpp '-1' is not a positive number",
        "line 15: split 'holdout' is none of train, val, test",
        "line 16: 3 cells where the header has 8",
    ):
        assert part in message
    assert "line 2:" not in message
    assert "line 17" not in message
    assert message.count("correct these rows") == 1
    assert message.startswith(f"{path}: line 3")
    manifest, problems = scan_manifest(path)
    assert len(manifest.rows) == 15, "faulty rows stay, for checks that go on; a row of another length can't"
    assert {problem.line for problem in problems} == set(range(3, 17))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image_id,label\na,CE\n", "lacks the column patient_id (it has image_id, label); add it"),
        ("", "lacks the column image_id, patient_id, label; add it"),
        ("image_id,patient_id,label,label\n", "has the column label twice; remove one of the two"),
        ("image_id,patient_id,label\n\n,,\n", "has no rows; add one row an image"),
        ("image_id,patient_id,label\n\0", "holds a NUL byte; save it as UTF-8 CSV"),
        ('image_id,patient_id,label\n"' + "x" * 140_000, "is not CSV"),
    ],
)
def test_unusable_files_are_refused(tmp_path, text, expected):
    path = write(tmp_path / "m.csv", text)
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    assert expected in str(caught.value)
    with pytest.raises(InputError):
        scan_manifest(path)


def test_another_encoding_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not UTF-8 \(byte 28\); save it as UTF-8 CSV"):
        read_manifest(write(tmp_path / "m.csv", "image_id,patient_id,label\na,ü,CE\n", "latin-1"))


def test_a_flood_of_problems_is_cut_but_counted():
    with pytest.raises(InputError, match="line 10000: x and 1 more; mend"):
        refuse_rows("m.csv", [RowProblem(line, "x", "mend it") for line in range(1, 10_002)])
    refuse_rows("m.csv", [])


cells = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
def test_written_manifests_read_back_the_same(tmp_path_factory, extras):
    folder = tmp_path_factory.mktemp("manifest")
    source, copy = folder / "m.csv", folder / "copy.csv"
    with open(source, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerow(["note", "image_id", "patient_id", "label", "mpp", "line"])
        for number, (note, more) in enumerate(extras):
            writer.writerow([note, f"i{number}", f"p{number}", "CE", "0.25", more])
    manifest = read_manifest(str(source))
    assert [(row.extra["note"], row.extra["line"]) for row in manifest.rows] == extras
    write_manifest(str(copy), manifest.columns, iter(manifest.rows))
    again = read_manifest(str(copy))
    assert [row.extra for row in again.rows] == [row.extra for row in manifest.rows]
    assert [(row.image_id, row.mpp) for row in again.rows] == [(row.image_id, row.mpp) for row in manifest.rows]
    assert copy.read_bytes().count(b"\r\n") == 0 or any("\r\n" in a + b for a, b in extras)


def test_images_are_found_by_path_or_by_stem(tmp_path):
    root = tmp_path / "images"
    for name in ("a.svs", "deep/er/b.ome.tif", "c.tif", "c.svs", "d.tif", "noext", ".hidden"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    text = "image_id,patient_id,label,image_path\n" + "".join(
        f"{image},p,CE,{path}\n"
        for image, path in (
            ("a", ""),
            ("b.ome", ""),
            ("c", ""),
            ("e", "./d.tif"),
            ("noext", ""),
            ("f", "no.tif"),
            ("g", ""),
        )
    )
    found, problems = resolve_images(read_manifest(write(tmp_path / "m.csv", text)), str(root))
    assert {image: info.path.removeprefix(f"{root}/") for image, info in found.items()} == {
        "a": "a.svs",
        "b.ome": "deep/er/b.ome.tif",
        "e": "d.tif",
        "noext": "noext",
    }
    assert problems == [
        "line 4: c: several files fit (c.svs, c.tif)",
        "line 7: f: no file no.tif",
        "line 8: g: no file of that stem",
    ]


def test_a_folder_is_walked_only_for_rows_without_a_path(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.svs").write_bytes(b"a")
    text = f"image_id,patient_id,label,image_path\na,p,x,in//a.svs\nb,q,x,in\nc,r,x,in/a.svs/c\nd,s,x,{'d' * 300}\n"
    manifest = read_manifest(write(tmp_path / "m.csv", text))
    found, problems = resolve_images(manifest, str(tmp_path), storage.list_files(str(tmp_path)))
    monkeypatch.setattr(storage, "list_files", lambda root: pytest.fail(f"walked {root}"))
    assert resolve_images(manifest, str(tmp_path)) == (found, problems)
    assert list(found) == ["a"]


def test_no_images_at_all(tmp_path):
    manifest = read_manifest(write(tmp_path / "m.csv", "image_id,patient_id,label\na,p,CE\n"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is an empty folder; point --images-root at the images"):
        resolve_images(manifest, str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no such folder"):
        resolve_images(manifest, str(tmp_path / "missing"))


def test_an_image_id_that_no_file_name_can_hold_is_refused(tmp_path):
    fits, long, wide = "i" * 220, "i" * 221, "ä" * 111
    text = f"image_id,patient_id,label\n{fits},p,CE\n{long},q,CE\n{wide},r,CE\n"
    with pytest.raises(InputError) as error:
        read_manifest(write(tmp_path / "m.csv", text))
    assert "line 2" not in str(error.value)
    assert f"line 3: image_id {'i' * 32!r}… is 221 bytes long, 220 is the most that fits a file name" in str(
        error.value
    )
    assert "line 4: image_id" in str(error.value)
    assert "is 222 bytes long" in str(error.value)
    name = tmp_path / f"{fits}-00000.tfrecord"
    storage.write_bytes(name, b"x")
    assert name.exists()
