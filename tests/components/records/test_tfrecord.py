import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.records.errors import WorkError
from components.records.tfrecord import frame, index_tfrecord, read_tfrecord

RECORDS = [b"", b"a", bytes(range(256)) * 300]


def write(path, records):
    path.write_bytes(b"".join(frame(record) for record in records))
    return path


def test_what_is_written_is_read_and_indexed(tmp_path):
    path = write(tmp_path / "a.tfrecord", RECORDS)
    assert list(read_tfrecord(path)) == RECORDS
    content = path.read_bytes()
    assert [content[offset : offset + length] for offset, length in index_tfrecord(path)] == RECORDS


def test_an_empty_file_holds_no_record(tmp_path):
    path = write(tmp_path / "a.tfrecord", [])
    assert list(read_tfrecord(path)) == []
    assert index_tfrecord(path) == []


def test_a_known_frame():
    """As tf.io.TFRecordWriter of TensorFlow 2.21 writes it."""
    assert frame(b"abc").hex() == "0300000000000000b099490e6162636e57f121"


@given(st.binary(max_size=200), st.data())
def test_no_flipped_bit_goes_unseen(tmp_path_factory, data, draw):
    content = bytearray(frame(data))
    bit = draw.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.mktemp("flip") / "a.tfrecord"
    path.write_bytes(content)
    with pytest.raises(WorkError, match=r"byte 0 (fails its checksum|is cut off)"):
        list(read_tfrecord(path))


@pytest.mark.parametrize("read", [lambda path: list(read_tfrecord(path)), index_tfrecord])
@pytest.mark.parametrize("missing", [1, 4, 5, 12])
def test_a_cut_off_record_is_named_by_its_byte(tmp_path, read, missing):
    path = write(tmp_path / "a.tfrecord", [b"first", b"0123"])
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(WorkError) as error:
        read(path)
    assert "the record at byte 21 is cut off" in str(error.value)
    assert str(path) in str(error.value)


def test_records_before_a_broken_one_are_given(tmp_path):
    path = write(tmp_path / "a.tfrecord", [b"first", b"second"])
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    records = read_tfrecord(path)
    assert next(records) == b"first"
    with pytest.raises(WorkError, match="byte 21 fails its checksum"):
        next(records)
