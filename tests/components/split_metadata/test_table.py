import re

from components.records.manifest import Row
from components.split_metadata.options import check_options
from components.split_metadata.table import count_split, render_table

OPTIONS = check_options("patient", 0.25, 0.25, 0, 0, 7)


def rows():
    return [
        Row("a1", "a", "<CE>", 2, "north"),
        Row("a2", "a", "<CE>", 3, "south"),
        Row("a3", "a", "<CE>", 4, "south"),
        Row("b1", "b", "LAA", 5, "north"),
        Row("c1", "c", "<CE>", 6, ""),
    ]


SPLITS = {"a": "train", "b": "test", "c": "val"}


def cells(page, name):
    line = re.search(rf"<tr[^>]*><td>(?:<small>)?{re.escape(name)}.*?</tr>", page).group()
    return [int(number) for number in re.findall(r"<td[^>]*>(\d+)</td>", line)]


def test_patients_and_slides_of_each_group():
    counts = count_split(rows(), SPLITS)
    assert counts.total("patients") == {"train": 1, "val": 1, "test": 1}
    assert counts.total("slides") == {"train": 3, "val": 1, "test": 1}
    page = render_table(counts, OPTIONS, "abc", False, [])
    assert cells(page, "&lt;CE&gt;") == [1, 3, 1, 1, 0, 0, 2, 4]
    assert cells(page, "LAA") == [0, 0, 0, 0, 1, 1, 1, 1]
    assert cells(page, "north") == [1, 1, 0, 0, 1, 1, 2, 2]
    assert cells(page, "south") == [1, 2, 0, 0, 0, 0, 1, 2]
    assert cells(page, "not given") == [0, 0, 1, 1, 0, 0, 1, 1]
    assert cells(page, "all") == [1, 3, 1, 1, 1, 1, 3, 5]


def test_the_page_is_self_contained_and_escaped():
    page = render_table(count_split(rows(), SPLITS), OPTIONS, "abc", False, ["<b>odd</b> patient"])
    assert "<CE>" not in page
    assert "&lt;b&gt;odd" in page
    assert "http" not in page
    assert "<script" not in page
    assert "25.0% asked for" in page
    assert "seed: 7" in page
    assert "manifest: sha256 abc" in page


def test_without_centers_there_is_no_table_of_them():
    plain = [Row(row.image_id, row.patient_id, row.label, row.line) for row in rows()]
    assert "By center" not in render_table(count_split(plain, SPLITS), OPTIONS, "abc", False, [])


def test_long_lists_are_cut_and_counted():
    many = [Row(f"i{n}", f"p{n}", "A", n + 2, f"c{n:04d}") for n in range(502)]
    counts = count_split(many, {row.patient_id: "train" for row in many})
    page = render_table(counts, OPTIONS, "abc", True, [f"warning {n}" for n in range(510)])
    assert "and 2 more centers" in page
    assert "and 10 more" in page
    assert "as given in the manifest" in page
    assert "asked for" not in page


def test_numbered_centers_are_in_the_order_of_their_numbers():
    many = [Row(f"i{n}", f"p{n}", "A", n + 2, name) for n, name in enumerate(("10", "b", "9", "", "2"))]
    page = render_table(count_split(many, {row.patient_id: "train" for row in many}), OPTIONS, "abc", False, [])
    table = page.partition("By center")[2]
    assert re.findall(r"<tr><td>(?:<small>)?(.*?)<", table) == ["2", "9", "10", "not given", "b"]
