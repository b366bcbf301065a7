import errno
import os
import threading

import pytest

from components.records import storage
from components.records.errors import InputError, WorkError


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(("mode", "content"), [("wb", b"a\r\n\xff"), ("w", "größe\n")])
def test_a_file_appears_whole_and_only_at_the_end(tmp_path, mode, content):
    path = tmp_path / "new" / "folder" / "file"
    with storage.open_atomic(path, mode) as stream:
        stream.write(content)
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == (content if mode == "wb" else content.encode())
    assert names(path.parent) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def write_half(path, error):
    with storage.open_atomic(path) as stream:
        stream.write(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_inside_the_block_leaves_nothing_new(tmp_path, error):
    with pytest.raises(error):
        write_half(tmp_path / "file", error)
    assert names(tmp_path) == []


def test_an_error_inside_the_block_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(ValueError, match="stop"):
        write_half(tmp_path / "file", ValueError("stop"))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_writers_of_one_name_never_mix(tmp_path):
    contents = [bytes([letter]) * 100_000 for letter in b"abcdef"]
    threads = [threading.Thread(target=storage.write_bytes, args=(tmp_path / "f", one)) for one in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "f").read_bytes() in contents
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, WorkError, "no space left"),
        (errno.EDQUOT, WorkError, "no space left"),
        (errno.EACCES, InputError, "may not be written"),
        (errno.EROFS, InputError, "read-only"),
        (errno.ENOTDIR, InputError, "in the way"),
    ],
)
def test_what_the_disk_refuses_has_a_mend(tmp_path, number, kind, text):
    with pytest.raises(kind, match=text) as error, storage.open_atomic(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "file") in str(error.value)
    assert error.value.mend
    assert names(tmp_path) == []


def test_another_disk_error_is_not_hidden(tmp_path):
    with pytest.raises(OSError, match="5"), storage.open_atomic(tmp_path / "file"):
        raise OSError(errno.EIO, "5")


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="in the way"):
        storage.write_text(tmp_path / "a" / "b", "")
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match="in the way"):
        storage.write_text(tmp_path / "c", "")
    assert names(tmp_path) == ["a", "c"]


def test_json_is_the_same_whatever_the_order(tmp_path):
    storage.write_json(tmp_path / "a", {"b": 1, "a": "ö"})
    storage.write_json(tmp_path / "b", {"a": "ö", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert storage.read_json(tmp_path / "a") == {"a": "ö", "b": 1}


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "a", {"x": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json_lines(tmp_path / "a", [{"x": 1}, {"x": float("inf")}])
    assert names(tmp_path) == []


def test_json_lines_come_back_whatever_the_text(tmp_path):
    lines = [{"reason": "a\u2028b\u2029c\x85d\x0be\nf\r"}, {"n": 1}]
    storage.write_json_lines(tmp_path / "a", iter(lines))
    assert storage.read_json_lines(tmp_path / "a") == lines


def test_a_bad_line_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b'{"a": 1}\n\n{"a":\n')
    with pytest.raises(InputError, match="line 3 is not JSON"):
        storage.read_json_lines(tmp_path / "a")
    (tmp_path / "a").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(InputError, match="line 1 is not JSON"):
        storage.read_json_lines(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"{")
    with pytest.raises(InputError, match="is not JSON"):
        storage.read_json(tmp_path / "a")


def test_what_can_not_be_read(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such file"):
        storage.read_bytes(tmp_path / "none")
    with pytest.raises(InputError, match="is a folder"):
        storage.read_bytes(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        storage.list_files(str(tmp_path / "none"))

    def refuse(path):
        raise PermissionError

    monkeypatch.setattr(storage.os, "scandir", refuse)
    with pytest.raises(InputError, match="may not be read"):
        storage.list_files(str(tmp_path))


def test_files_are_listed_with_forward_slashes_and_links_do_not_loop(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f.txt").write_text("12")
    (tmp_path / "g").write_text("")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "twin").symlink_to(tmp_path / "a" / "b")
    found = storage.list_files(str(tmp_path))
    assert set(found) == {"a/b/f.txt", "g", "twin/f.txt"}
    assert found["a/b/f.txt"].size == 2


def test_stat_and_join(tmp_path):
    assert storage.stat(str(tmp_path / "none")) is None
    (tmp_path / "f").write_text("123")
    assert storage.stat(str(tmp_path / "f")).size == 3
    assert storage.stat(str(tmp_path / "f" / "g")) is None
    assert storage.join("gs://bucket/a/", "b", "/c") == "gs://bucket/a/b/c"
    assert storage.join("/a", "b") == "/a/b"
    assert storage.is_remote("gs://b/o")
    assert not storage.is_remote("/gcs/b/o")
    assert storage.object_name("gs://b/o/p") == "o/p"


def test_a_local_copy_of_a_local_file_is_the_file(tmp_path):
    (tmp_path / "f").write_text("1")
    with storage.local_copy(str(tmp_path / "f")) as path:
        assert path == str(tmp_path / "f")
    assert (tmp_path / "f").exists()


def test_what_the_caller_fails_to_read_is_no_write_error(tmp_path):
    locked = tmp_path / "other"
    with pytest.raises(PermissionError) as error, storage.open_atomic(tmp_path / "file"):
        raise PermissionError(errno.EACCES, "Permission denied", str(locked))
    assert error.value.filename == str(locked)
    with pytest.raises(FileNotFoundError, match="nowhere"), storage.open_atomic(tmp_path / "file"):
        (tmp_path / "nowhere").read_bytes()
    assert list(tmp_path.iterdir()) == []
