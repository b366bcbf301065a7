import math

import pytest

from components.records.errors import InputError
from components.split_metadata.options import check_options


def options(**changes):
    return check_options(
        **{"split_by": "patient", "val_share": 0.15, "test_share": 0.15, "folds": 0, "fold": 0, "seed": 0} | changes
    )


def test_shares_leave_out_what_is_not_wanted():
    assert list(options().shares) == ["train", "val", "test"]
    assert list(options(val_share=0).shares) == ["train", "test"]
    assert options(val_share=0, test_share=0).shares == {"train": 1}
    assert math.isclose(sum(options().shares.values()), 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fold": 1}, ["train", "test", "val", "train"]),
        ({"fold": 3}, ["val", "train", "train", "test"]),
        ({"fold": 1, "val_share": 0}, ["train", "test", "train", "train"]),
        ({"fold": 1, "test_share": 0}, ["train", "val", "train", "train"]),
    ],
)
def test_test_is_the_fold_and_val_the_next(changes, expected):
    chosen = options(folds=4, **changes)
    assert [chosen.split_of(place) for place in chosen.shares] == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"split_by": "foo"}, "split_by: 'foo' is neither patient nor center; choose one of the two"),
        ({"val_share": -0.1}, "val_share: -0.1 is no share"),
        ({"test_share": 1.0}, "test_share: 1 is no share; give one from 0 up to but not 1, such as 0.15"),
        ({"test_share": math.nan}, "test_share: nan is no share"),
        ({"val_share": 0.5, "test_share": 0.5}, "0.5 + 0.5 leaves nothing to train on; keep their sum below 1"),
        ({"val_share": 0.7, "test_share": 0.6}, "val_share + test_share: 0.7 + 0.6 leaves nothing"),
        ({"folds": 2}, "folds: 2 folds can't hold train and val and test; take at least 3, or folds=0"),
        ({"folds": 1, "val_share": 0}, "1 folds can't hold train and test; take at least 2"),
        ({"folds": -3}, "-3 folds can't hold"),
        ({"folds": 5, "fold": 5}, "fold: there is no fold 5 of 5; choose 0 to 4"),
        ({"folds": 5, "fold": -1}, "there is no fold -1 of 5"),
        ({"fold": 2}, "fold 2 is asked for without folds; set folds, or fold=0"),
        ({"folds": 5, "val_share": 0, "test_share": 0}, "hold nothing out; give val_share or test_share above 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_mend(changes, expected):
    with pytest.raises(InputError) as caught:
        options(**changes)
    assert expected in str(caught.value)
