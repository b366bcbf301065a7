import hashlib
import os
import subprocess
import sys
from pathlib import Path

import components
from components.records import provenance


def test_digests_are_of_content(tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    assert provenance.file_digest(tmp_path / "f") == f"sha256:{hashlib.sha256(b'x' * 3_000_000).hexdigest()}"
    assert provenance.tree_digest(tmp_path / "f") == provenance.file_digest(tmp_path / "f")


def test_a_tree_digest_sees_names_and_bytes_and_no_order_or_time(tmp_path):
    for root, names in (("one", ("a/b", "c")), ("two", ("c", "a/b"))):
        for name in names:
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    os.utime(tmp_path / "one" / "c", (0, 0))
    digest = provenance.tree_digest(tmp_path / "one")
    assert digest == provenance.tree_digest(tmp_path / "two")
    (tmp_path / "two" / "c").rename(tmp_path / "two" / "d")
    assert provenance.tree_digest(tmp_path / "two") != digest


def test_versions_are_the_same_in_another_process_and_folder(tmp_path):
    code = "from components.records import provenance as p; print(p.code_version(), p.environment_digest())"
    home = str(Path(components.__file__).parent.parent)
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": home, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for folder, seed in ((tmp_path, "1"), ("/", "2"))
    ]
    assert said[0] == said[1]
    assert said[0] == [provenance.code_version(), provenance.environment_digest()]
    assert "+" in said[0][0]


def test_seeds_depend_on_every_key():
    seeds = {provenance.derive_seed(*keys) for keys in ((0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "ab"))}
    assert len(seeds) == 6
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert provenance.derive_seed(7, "split", 3) == provenance.derive_seed(7, "split", 3)


def test_shuffling_is_a_permutation_of_the_seed_alone():
    items = list(range(50))
    once = provenance.shuffled(items, 1, "a")
    assert once == provenance.shuffled(iter(items), 1, "a") != provenance.shuffled(items, 2, "a")
    assert sorted(once) == items == list(range(50))


def test_every_artifact_carries_the_same_keys(monkeypatch):
    monkeypatch.setenv("BAGLINE_IMAGE", "sha256:1")
    facts = provenance.artifact_metadata(manifest_hash="h", patients=2, mpp=None, auc=0.5)
    assert set(facts) == {
        "schema_version", "code_version", "image_digest", "manifest_hash", "split", "patients", "slides", "tiles",
        "mpp", "tile_px", "auc",
    }  # fmt: skip
    assert (facts["image_digest"], facts["mpp"], facts["patients"], facts["auc"]) == ("sha256:1", 0.0, 2, 0.5)
