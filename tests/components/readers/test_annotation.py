"""Annotations of ASAP and QuPath, as the programs write them, against tiles."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from components.readers.annotation import read_annotation
from components.readers.mask import survey_mask
from components.readers.polygon import Polygon, Regions
from components.records.errors import SlideError

SIZE = (1024, 768)


def asap(*annotations, kind="Polygon"):
    """What ASAP 2.1 saves: coordinates as decimal text, groups after the annotations."""
    lines = ['<?xml version="1.0"?>', "<ASAP_Annotations>", "\t<Annotations>"]
    for number, (group, points) in enumerate(annotations):
        lines.append(f'\t\t<Annotation Name="Annotation {number}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">')
        lines.append("\t\t\t<Coordinates>")
        lines += [f'\t\t\t\t<Coordinate Order="{at}" X="{x}" Y="{y}" />' for at, (x, y) in enumerate(points)]
        lines += ["\t\t\t</Coordinates>", "\t\t</Annotation>"]
    lines += ["\t</Annotations>", "\t<AnnotationGroups>"]
    lines += [f'\t\t<Group Name="{g}" PartOfGroup="None" Color="#64FE2E"><Attributes /></Group>' for g in ("_0", "_2")]
    return "\n".join([*lines, "\t</AnnotationGroups>", "</ASAP_Annotations>", ""])


def qupath(*features):
    """What QuPath 0.5 exports as a feature collection."""
    return json.dumps(
        {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "id": f"0a5e3b0c-0000-4000-8000-{number:012d}",
                    "geometry": {"type": kind, "coordinates": coordinates},
                    "properties": {"objectType": "annotation", **({"classification": named} if named else {})},
                }
                for number, (kind, coordinates, named) in enumerate(features)
            ],
        }
    )


def box(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def closed(ring):
    return [*ring, ring[0]]


def corners(side, size=SIZE):
    xs, ys = np.arange(0, size[0] - side + 1, side), np.arange(0, size[1] - side + 1, side)
    return np.tile(xs, len(ys)), np.repeat(ys, len(xs))


def survey(tmp_path, name, content, side=64, **more):
    (tmp_path / name).write_text(content)
    x, y = corners(side)
    found = survey_mask(str(tmp_path / name), SIZE, x, y, side, 8.0, **more)
    return {(int(a), int(b)): area for a, b, area in zip(x, y, found.areas, strict=True) if area > 0}, found.drawn


TUMOUR = {"name": "Tumor", "color": [200, 0, 0]}


def test_a_rectangle_marks_the_tiles_it_covers_and_none_that_share_an_edge(tmp_path):
    ring = box(64, 128, 192, 192)
    wanted = {(64, 128): 4096.0, (128, 128): 4096.0}
    for name, content in (("a.xml", asap(("_0", ring))), ("q.geojson", qupath(("Polygon", [closed(ring)], TUMOUR)))):
        found, drawn = survey(tmp_path, name, content)
        assert found == pytest.approx(wanted)
        assert drawn.sum() == 16 * 8
        assert drawn[16:24, 8:24].all()


def test_a_lesion_thinner_than_a_px_is_not_lost(tmp_path):
    found, drawn = survey(tmp_path, "a.xml", asap(("Tumor", [(70.1, 10), (70.3, 10), (300.3, 700), (300.1, 700)])))
    assert len(found) > 10
    assert sum(found.values()) == pytest.approx(0.2 * 690)
    assert drawn.any(axis=1)[2:87].all()
    found, _ = survey(tmp_path, "b.xml", asap(("Tumor", [(10, 63.9), (600, 63.9), (600, 64.05), (10, 64.05)])))
    assert {y for _, y in found} == {0, 64}


def test_exclusions_of_camelyon_are_taken_away(tmp_path):
    text = asap(("_0", box(0, 0, 256, 256)), ("_1", box(512, 512, 576, 576)), ("_2", box(60, 60, 132, 132)))
    found, _ = survey(tmp_path, "a.xml", text)
    assert (64, 64) not in found
    assert found[128, 128] == pytest.approx(4096 - 16, abs=1)
    assert found[0, 0] == pytest.approx(4096 - 16, abs=1)
    assert found[512, 512] == pytest.approx(4096)
    for name in ("Exclusion", "normal"):
        same, _ = survey(tmp_path, "b.xml", text.replace('PartOfGroup="_2"', f'PartOfGroup="{name}"'))
        assert same == found


def test_overlapping_annotations_count_once(tmp_path):
    found, _ = survey(tmp_path, "a.xml", asap(("_0", box(0, 0, 40, 64)), ("_0", box(20, 0, 64, 64))))
    assert found == pytest.approx({(0, 0): 4096})


def test_holes_and_multipolygons_of_qupath(tmp_path):
    ring, hole = closed(box(64, 64, 320, 320)), closed(box(128, 128, 256, 256))
    far = closed(box(600, 600, 610, 605))
    found, drawn = survey(tmp_path, "q.geojson", qupath(("MultiPolygon", [[ring, hole], [far]], TUMOUR)))
    assert (128, 128) not in found
    assert (192, 192) not in found
    assert found[64, 64] == pytest.approx(4096)
    assert found[576, 576] == pytest.approx(50)
    assert not drawn[16:32, 16:32].any()


def test_classes_choose_what_is_a_lesion(tmp_path):
    features = (
        ("Polygon", [closed(box(0, 0, 64, 64))], TUMOUR),
        ("Polygon", [closed(box(128, 0, 192, 64))], {"name": "Stroma"}),
        ("Polygon", [closed(box(256, 0, 320, 64))], {"names": ["Tumor", "Positive"]}),
        ("Polygon", [closed(box(0, 0, 32, 64))], {"name": "Ignore*"}),
        ("Polygon", [closed(box(384, 0, 448, 64))], None),
        ("Point", [500.0, 10.0], TUMOUR),
        ("LineString", [[500.0, 10.0], [600.0, 20.0]], None),
    )
    found, _ = survey(tmp_path, "q.json", qupath(*features))
    assert found == pytest.approx({(0, 0): 2048, (128, 0): 4096, (256, 0): 4096, (384, 0): 4096})
    found, _ = survey(tmp_path, "q.json", qupath(*features), classes=["tumor", " Tumor: Positive"])
    assert found == pytest.approx({(0, 0): 2048, (256, 0): 4096})
    one = json.loads(qupath(*features))["features"]
    assert survey(tmp_path, "list.json", json.dumps(one))[0] == survey(tmp_path, "q.json", qupath(*features))[0]
    assert survey(tmp_path, "one.json", json.dumps(one[1]))[0] == pytest.approx({(128, 0): 4096})


def test_dots_mark_nothing_and_coordinates_follow_their_order(tmp_path):
    assert survey(tmp_path, "a.xml", asap(("_0", [(10, 10)]), kind="Dot"))[0] == {}
    text = asap(("_0", box(64, 64, 128, 128)))
    lines = text.splitlines()
    first = next(at for at, line in enumerate(lines) if "<Coordinate " in line)
    lines[first], lines[first + 1] = lines[first + 1], lines[first]
    assert survey(tmp_path, "b.xml", "\n".join(lines).replace('"64"', '"64,0"'))[0] == pytest.approx({(64, 64): 4096})


def test_an_annotation_and_the_mask_painted_from_it_label_the_same_tiles(tmp_path):
    rng = np.random.default_rng(3)
    cells = rng.random((12, 16)) < 0.2
    rings = [box(x * 64, y * 64, x * 64 + 64, y * 64 + 64) for y, x in np.argwhere(cells).tolist()]
    tifffile.imwrite(tmp_path / "m.tif", np.kron(cells, np.ones((2, 2), np.uint8)), tile=(16, 16), metadata=None)
    for side in (64, 48, 100):
        x, y = corners(side)
        painted = survey_mask(str(tmp_path / "m.tif"), SIZE, x, y, side, 8.0)
        (tmp_path / "a.xml").write_text(asap(*(("Tumor", ring) for ring in rings)))
        drawn = survey_mask(str(tmp_path / "a.xml"), SIZE, x, y, side, 8.0)
        assert ((painted.areas > 0) == (drawn.areas > 0)).all()
        assert np.abs(painted.areas - drawn.areas).max() < 0.02 * side**2
        assert (painted.drawn == drawn.drawn).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=3, max_size=3, unique=True))
def test_areas_of_triangles_are_right(points):
    (x0, y0), (x1, y1), (x2, y2) = points
    area = abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)) / 2
    x, y = corners(16, (256, 256))
    found = Regions([Polygon(np.array(points, np.float64))]).measure(x, y, 16)
    assert found.sum() == pytest.approx(area, abs=1e-6)
    canvas = Image.new("L", (1024, 1024))
    ImageDraw.Draw(canvas).polygon([(4 * a, 4 * b) for a, b in points], fill=255)
    painted = (np.asarray(canvas) > 0).reshape(16, 64, 16, 64).sum((1, 3)).ravel() / 16
    assert np.abs(painted - found).max() < 16  # a painted outline is a quarter of a px wide


ENTITY = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><ASAP_Annotations/>'
BAD = [
    ("a.xml", ENTITY, "a.xml, line 1: a document type is not allowed"),
    ("a.xml", "<ASAP_Annotations>\n<Annotations>", "a.xml, line 2: is no whole XML"),
    ("a.xml", "<svg/>", "holds no ASAP_Annotations"),
    ("a.xml", asap(("_0", [(1, 2), (3, 4)])), "line 4: an area of 2 points"),
    ("a.xml", asap(("_0", box(1, 2, 3, "much"))), "line 8: a Coordinate without a number"),
    ("a.xml", asap(("_0", box(1, 2, 3, "nan"))), "line 8: a Coordinate without a number"),
    ("a.xml", asap(("_0", box(1, 2, 3, 4)), kind="Star"), "line 4: unknown type 'Star'"),
    ("a.xml", asap(("_0", box(5000, 0, 5100, 90))), "outside the slide; give coordinates in level-0 px"),
    ("q.geojson", '{"type": "FeatureCollection",\n "features": [', "q.geojson, line 2: is no JSON"),
    ("q.geojson", "[" * 100_000, "is no JSON"),
    ("q.geojson", "3", "holds no features"),
    ("q.geojson", '[{"type": "Feature"}]', "feature 1: has no geometry"),
    ("q.geojson", qupath(("Polygon", [], None)), "feature 1: a Polygon without rings"),
    ("q.geojson", qupath(("Polygon", [[[1, 2], [3, 4]]], None)), "a ring of 2 points"),
    ("q.geojson", qupath(("Polygon", [[[1, 2], [3, "x"], [4, 5]]], None)), "a point that is no x and y"),
    ("q.geojson", qupath(("Circle", [], None)), "unknown geometry 'Circle'"),
]


@pytest.mark.parametrize(("name", "content", "told"), BAD)
def test_a_file_that_does_not_do_is_refused_with_its_place(tmp_path, name, content, told):
    with pytest.raises(SlideError) as caught:
        survey(tmp_path, name, content)
    assert told in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_annotation_is_named(tmp_path):
    with pytest.raises(SlideError, match="the mask is missing"):
        read_annotation(str(tmp_path / "none.xml"))
