import os

from components.records.manifest import Row
from components.records.storage import FileInfo
from components.split_metadata.same_content import find_same_content


def rows(*ids):
    return [Row(name, f"p-{name}", "A", line) for line, name in enumerate(ids, start=2)]


def ids(groups):
    return [[row.image_id for row in group] for group in groups]


def on_disk(folder, contents):
    files = {}
    for name, content in contents.items():
        path = folder / f"{name}.tif"
        path.write_bytes(content)
        files[name] = FileInfo(str(path), len(content))
    return files


def test_equal_bytes_are_found_and_near_copies_are_not(tmp_path):
    content = os.urandom(100_000)
    near = content[:50_001] + bytes([content[50_001] ^ 1]) + content[50_002:]
    files = on_disk(tmp_path, {"a": content, "b": near, "c": content, "d": content + b"x", "e": b"", "f": b""})
    groups, unread = find_same_content(rows(*"abcdef"), files)
    assert ids(groups) == [["a", "c"]]
    assert unread == []


def test_only_files_of_equal_size_are_read(tmp_path):
    files = on_disk(tmp_path, {"a": b"one", "b": b"three"})
    os.unlink(files["a"].path)
    assert find_same_content(rows(*"ab"), files) == ([], [])


def test_two_rows_may_name_one_file_that_has_a_copy_elsewhere(tmp_path):
    files = on_disk(tmp_path, {"a": b"same", "c": b"same", "x": b"lone file"})
    files |= {"b": files["a"], "y": files["x"]}
    assert ids(find_same_content(rows(*"abcxy"), files)[0]) == [["a", "b", "c"], ["x", "y"]]


def test_a_store_s_own_digest_is_enough():
    files = {
        "a": FileInfo("gs://b/a", 5, "md5:00"),
        "b": FileInfo("gs://b/b", 5, "md5:00"),
        "c": FileInfo("gs://b/c", 6, "md5:00"),
        "d": FileInfo("gs://b/d", 5, "crc32c:00"),
        "e": FileInfo("gs://b/e", 5),
        "f": FileInfo("gs://b/f", 5),
    }
    assert ids(find_same_content(rows(*"abcdef"), files)[0]) == [["a", "b"]]


def test_a_file_that_can_t_be_read_is_told(tmp_path, caplog):
    files = on_disk(tmp_path, {"a": b"same", "b": b"same"})
    os.unlink(files["b"].path)
    groups, unread = find_same_content(rows(*"ab"), files)
    assert groups == []
    assert unread == ["b"]
    assert "b can't be compared with other images: No such file or directory" in caplog.text
