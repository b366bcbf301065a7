from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from components.split_metadata.centers import CenterGroup, place_centers, tie_centers

WANTED = {"train": 0.6, "val": 0.2, "test": 0.2}


def test_shared_patients_tie_centers():
    centers = {"p": ["1", "2"], "q": ["3"], "r": ["2", "4"], "s": ["5", "3"], "t": ["6"]}
    assert tie_centers(centers) == [("1", "2", "4"), ("3", "5"), ("6",)]
    assert tie_centers({"p": ["b", "a"], "q": ["c", "b"]}) == [("a", "b", "c")]


def test_a_perfect_split_of_whole_centers_is_found():
    sizes = {"a": (6, 0), "b": (0, 6), "c": (3, 3), "d": (3, 3), "e": (1, 1), "f": (1, 1), "g": (1, 1), "h": (3, 3)}
    groups = [CenterGroup((name,), Counter(A=one, B=two)) for name, (one, two) in sizes.items()]
    places = place_centers(groups, {"train": 1 / 3, "val": 1 / 3, "test": 1 / 3}, 0)
    for place in ("train", "val", "test"):
        total = sum((group.patients for group, at in zip(groups, places, strict=True) if at == place), Counter())
        assert total == Counter(A=6, B=6)


def test_a_label_at_three_centers_reaches_three_splits():
    groups = [CenterGroup((f"c{number:02d}",), Counter(A=50)) for number in range(20)]
    groups += [CenterGroup((f"d{number}",), Counter(A=40, B=1)) for number in range(3)]
    places = place_centers(groups, WANTED, 3)
    assert set(places[-3:]) == {"train", "val", "test"}


def test_fixed_groups_stay_and_order_does_not_matter():
    groups = [CenterGroup((f"c{number}",), Counter(A=number + 1, B=9 - number)) for number in range(9)]
    groups[4].fixed = "test"
    places = place_centers(groups, WANTED, 5)
    assert places[4] == "test"
    assert place_centers(groups[::-1], WANTED, 5) == places[::-1]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=3, max_size=12),
    st.integers(0, 50),
)
def test_every_split_has_every_label_where_every_center_has(sizes, seed):
    groups = [CenterGroup((f"c{number:02d}",), Counter(A=a, B=b)) for number, (a, b) in enumerate(sizes)]
    places = place_centers(groups, WANTED, seed)
    assert set(places) == set(WANTED)
    assert places == place_centers(groups, WANTED, seed)


def test_many_centers_are_placed_close_to_the_shares():
    groups = [CenterGroup((f"c{number:04d}",), Counter({"AB"[number % 2]: 1 + number % 7})) for number in range(3000)]
    places = place_centers(groups, WANTED, 0)
    for label in "AB":
        total = sum(group.patients[label] for group in groups)
        for place, share in WANTED.items():
            found = sum(group.patients[label] for group, at in zip(groups, places, strict=True) if at == place)
            assert abs(found - share * total) <= 7
