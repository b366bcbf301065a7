import json
import os
from pathlib import Path

import pytest

from components.records.errors import InputError
from pipelines.local.cache import RunCache
from pipelines.local.lock import hold
from pipelines.local.publish import publish


def make(root, files):
    for name, content in files.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(root)


def listing(root):
    return {str(p.relative_to(root)): p.read_text() for p in Path(root).rglob("*") if p.is_file()}


def test_a_folder_is_spread_over_out_as_hard_links(tmp_path):
    source = make(tmp_path / "a", {"records/train/x.tfrecord": "1", "ledger.jsonl": "2", ".tiling/plan": "3"})
    publish(source, str(tmp_path / "out"), ".")
    assert listing(tmp_path / "out") == {"records/train/x.tfrecord": "1", "ledger.jsonl": "2"}
    assert os.path.samefile(tmp_path / "a/ledger.jsonl", tmp_path / "out/ledger.jsonl")


def test_what_a_later_run_does_not_make_goes_and_the_rest_stays(tmp_path):
    out = tmp_path / "out"
    publish(make(tmp_path / "a", {"records/val/x": "1", "records/train/y": "1"}), str(out), ".")
    make(out, {"mine.txt": "kept"})
    publish(make(tmp_path / "b", {"records/train/y": "2"}), str(out), ".")
    assert listing(out) == {"records/train/y": "2", "mine.txt": "kept"}
    assert not (out / "records/val").exists()


def test_a_folder_in_the_way_is_a_clear_error(tmp_path):
    out = tmp_path / "out"
    (out / "split.csv").mkdir(parents=True)
    source = make(tmp_path / "a", {"split": "1"})
    with pytest.raises(InputError, match="in the way"):
        publish(os.path.join(source, "split"), str(out), "split.csv")


def entry(cache, key, uri):
    os.makedirs(cache.cache, exist_ok=True)
    content = {"records": {"__kfp_artifact__": True, "uri": uri, "metadata": {}}, "n": 3}
    Path(cache.cache, f"{key}.json").write_text(json.dumps(content))


def test_an_entry_whose_file_changed_is_dropped(tmp_path):
    cache = RunCache(str(tmp_path))
    uri = make(Path(cache.runs, "run/tile-images/records"), {"x": "1"})
    entry(cache, "abc", uri)
    assert cache.drop_changed() == 1, "an unsealed entry is not trusted"
    entry(cache, "abc", uri)
    cache.seal(uri)
    assert cache.drop_changed() == 0
    assert cache.outputs("ab")["records"]["uri"] == uri
    Path(uri, "x").write_text("2")
    assert cache.drop_changed() == 1
    assert cache.outputs("ab") == {}


def test_only_what_the_last_run_used_is_kept(tmp_path):
    cache = RunCache(str(tmp_path))
    old = make(Path(cache.runs, "run-1/tile-images/records"), {"x": "1"})
    new = make(Path(cache.runs, "run-2/tile-images/records"), {"x": "1"})
    for key, uri in (("old", old), ("new", new)):
        entry(cache, key, uri)
        cache.seal(uri)
    cache.forget_all_but({new})
    assert not os.path.exists(old)
    assert os.path.exists(new)
    assert cache.outputs("old") == {}
    assert cache.outputs("new")
    assert cache.drop_changed() == 0


def test_a_second_run_in_the_same_out_is_refused(tmp_path):
    with hold(str(tmp_path)), pytest.raises(InputError, match="another bagline works in it"), hold(str(tmp_path)):
        pass
    with hold(str(tmp_path)):
        pass
