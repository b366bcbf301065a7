from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from components.split_metadata.placement import place_patients, share_out

shares = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(
    lambda parts: {
        place: share
        for place, share in zip(
            ("train", "val", "test"),
            ((40 - sum(parts)) / 40, parts[0] / 40, parts[1] / 40),
            strict=True,
        )
        if share
    }
)
patients = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), st.sampled_from("ABC"), min_size=1, max_size=60)
seeds = st.integers(0, 1000)


@settings(max_examples=150, deadline=None)
@given(patients, shares, seeds)
def test_every_label_is_within_one_patient_of_its_share_and_in_every_split(labels, wanted, seed):
    places = place_patients(labels, wanted, {}, seed)
    assert places.keys() == labels.keys()
    counts = Counter((labels[patient], place) for patient, place in places.items())
    for label, size in Counter(labels.values()).items():
        enough = size >= len(wanted)
        lifted = sum(1 for share in wanted.values() if size * share < 1)
        for place, share in wanted.items():
            assert counts[label, place] >= enough
            away = counts[label, place] - size * share
            assert away < 1
            # a place gives up more than its remainder only to lift a small one to its first patient
            assert away > -1 or (lifted and away > -1 - lifted)


@settings(max_examples=60, deadline=None)
@given(patients, shares, seeds, st.randoms())
def test_the_order_of_rows_does_not_matter(labels, wanted, seed, random):
    shuffled = list(labels.items())
    random.shuffle(shuffled)
    assert place_patients(dict(shuffled), wanted, {}, seed) == place_patients(labels, wanted, {}, seed)


@settings(max_examples=100, deadline=None)
@given(patients, patients, shares, seeds, seeds)
def test_patients_stay_where_they_were_and_new_ones_mend_the_shares(before, added, wanted, seed, other_seed):
    earlier = place_patients(before, wanted, {}, seed)
    labels = added | before
    later = place_patients(labels, wanted, earlier, other_seed)
    assert {patient: later[patient] for patient in before} == earlier
    counts = Counter((labels[patient], place) for patient, place in later.items())
    for label, size in Counter(labels.values()).items():
        for place, share in wanted.items():
            old = sum(1 for patient in before if labels[patient] == label and earlier[patient] == place)
            assert counts[label, place] <= max(old, 1, size * share + 1)


def test_seeds_differ_and_repeat():
    labels = {f"p{number}": "AB"[number % 2] for number in range(40)}
    wanted = {"train": 0.7, "val": 0.15, "test": 0.15}
    places = [place_patients(labels, wanted, {}, seed) for seed in (0, 0, 1)]
    assert places[0] == places[1]
    assert places[0] != places[2]


def test_ties_between_labels_balance_the_cohort():
    labels = {f"{label}{number}": label for label in "ABCD" for number in range(5)}
    places = place_patients(labels, {"train": 0.5, "test": 0.5}, {}, 0)
    assert Counter(places.values()) == {"train": 10, "test": 10}


def test_largest_remainder_by_hand():
    quotas = {"train": 4.9, "val": 1.05, "test": 1.05}
    none = dict.fromkeys(quotas, 0)
    assert share_out(quotas, none, 7, dict.fromkeys(quotas, 0.0)) == {"train": 5, "val": 1, "test": 1}
    assert share_out(quotas, {"train": 0, "val": 4, "test": 0}, 3, dict.fromkeys(quotas, 0.0)) == {
        "train": 2,
        "val": 4,
        "test": 1,
    }


def test_places_that_are_no_longer_wanted_are_kept():
    labels = {"a": "A", "b": "A", "c": "A"}
    assert place_patients(labels, {"train": 0.5, "test": 0.5}, {"a": "val"}, 0)["a"] == "val"
