import copy
import pickle

import pytest

from components.records.errors import BaglineError, InputError, SlideError, WorkError, name_first


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("is empty", where="m.csv", mend="add a row"), "m.csv: is empty; add a row"),
        (InputError("is empty", where="m.csv"), "m.csv: is empty"),
        (InputError("is empty"), "is empty"),
        (InputError("two\nlines\tand  blanks", mend="a\r\nb"), "two lines and blanks; a b"),
    ],
)
def test_an_error_is_one_line(error, line):
    assert str(error) == line


@pytest.mark.parametrize(("kind", "code"), [(BaglineError, 1), (InputError, 2), (WorkError, 1), (SlideError, 1)])
def test_errors_survive_pickling_and_copying(kind, code):
    error = kind("what", where="where", mend="mend")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(twin), str(twin), twin.what, twin.where, twin.mend) == (kind, str(error), "what", "where", "mend")
        assert twin.exit_code == code


def test_name_first_says_how_many_are_left():
    assert name_first([1, 2]) == "1, 2"
    assert name_first(iter(range(7)), 5) == "0, 1, 2, 3, 4 and 2 more"
    assert name_first([]) == ""
