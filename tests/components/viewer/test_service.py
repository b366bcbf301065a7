"""The service as a browser and a monitor see it."""

import io
import json
import logging

import numpy as np
import pytest
import tifffile
from PIL import Image
from viewer_run import SIDE, TILE, paint, write_run, write_slide

from components.viewer.observe import REQUESTS, JsonLines


def test_the_list_has_what_the_run_says(client):
    slides = {slide["image_id"]: slide for slide in client.get("/api/slides").json()}
    assert list(slides) == ["A_0", "B_0", "C_0", "D_0"]
    assert slides["C_0"] | {"key": ""} == {
        "key": "", "image_id": "C_0", "run": "run", "found": True, "patient_id": "C", "label": "normal",
        "split": "test", "center": "c0", "status": "partial", "reason": "a block is damaged", "tiles": 16,
        "predicted": "tumour", "probability": 0.7, "probabilities": {"normal": pytest.approx(0.3), "tumour": 0.7},
        "right": False, "attention": True,
    }  # fmt: skip


def test_a_slide_tells_its_shape_and_overlays(client, keys):
    slide = client.get(f"/api/slides/{keys['D_0']}").json()
    assert (slide["width"], slide["tile_width"], slide["max_level"], slide["mpp"]) == (SIDE, TILE, 11, 0.5)
    assert slide["reader"] == "jpeg-blocks"
    assert slide["overlays"] == {"places": True, "attention": True, "mask": True, "annotations": True}
    assert client.get(f"/api/slides/{keys['A_0']}").json()["overlays"]["attention"] is False


def test_a_whole_level_is_the_slide(client, keys):
    picture = paint(3)
    for level, step in ((11, 1), (10, 2), (8, 8), (6, 32)):
        side = SIDE // step
        whole = np.zeros((side, side, 3), np.uint8)
        for row in range(-(-side // TILE)):
            for column in range(-(-side // TILE)):
                answer = client.get(f"/api/slides/{keys['D_0']}/tiles/{level}/{column}_{row}.jpg")
                assert answer.status_code == 200
                assert answer.headers["content-type"] == "image/jpeg"
                tile = np.asarray(Image.open(io.BytesIO(answer.content)))
                whole[row * TILE : row * TILE + TILE, column * TILE : column * TILE + TILE] = tile
        wanted = np.asarray(Image.fromarray(picture).reduce(step))
        assert np.abs(whole.astype(int) - wanted).mean() < 3, level


def test_stored_blocks_are_sent_as_they_are(client, keys):
    address = f"/api/slides/{keys['D_0']}/tiles/11/3_3.jpg"
    before = _figure(client, 'bagline_viewer_tiles_total{made="stored"}')
    answer = client.get(address)
    assert _figure(client, 'bagline_viewer_tiles_total{made="stored"}') == before + 1
    again = client.get(address, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def _figure(client, name: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


@pytest.mark.parametrize(
    "place",
    ["12/0_0", "-1/0_0", "11/8_0", "11/0_8", "11/-1_0", f"11/{10**30}_0", f"{10**30}/0_0", "9999/0_0"],
)
def test_tiles_that_are_not_there(client, keys, place):
    assert client.get(f"/api/slides/{keys['D_0']}/tiles/{place}.jpg").status_code == 404


@pytest.mark.parametrize("place", ["a/0_0", f"11/{'9' * 5000}_0", "11/0_"])
def test_tiles_that_mean_nothing(client, keys, place):
    assert client.get(f"/api/slides/{keys['D_0']}/tiles/{place}.jpg").status_code in (404, 422)


@pytest.mark.parametrize(
    "address",
    [
        "/static/../service.py",
        "/static/%2e%2e/service.py",
        "/static/..%2fservice.py",
        "/static//etc/passwd",
        "/static/vendor/../../../pyproject.toml",
        "/api/slides/..%2f..%2fetc%2fpasswd",
        "/api/slides/../runs",
        "/api/slides/%00/thumbnail.jpg",
        "/api/runs/..",
        "/api/runs/%2e%2e%2f",
        "/report/..%2fmetrics.json",
        "/api/slides/x/records/-1",
        "/docs",
    ],
)
def test_no_address_becomes_a_path(client, address):
    answer = client.get(address, follow_redirects=False)
    assert answer.status_code in (404, 422) or answer.json() == client.get("/api/runs").json()


def test_places_carry_attention_and_ground_truth(client, keys):
    places = client.get(f"/api/slides/{keys['D_0']}/places").json()
    assert places["count"] == 16
    assert (places["x"][:2], places["y"][:2], places["width"][0]) == ([512, 768], [512, 512], 256)
    assert (places["percentile"][15], places["relative"][8], places["tissue"][0]) == (100.0, 1.0, 0.75)
    assert sum(places["marked"]) == 4
    without = client.get(f"/api/slides/{keys['A_0']}/places").json()
    assert "percentile" not in without
    assert without["count"] == 16


def test_a_record_is_the_very_bytes(client, keys, run_folders):
    answer = client.get(f"/api/slides/{keys['D_0']}/records/5")
    whole = (run_folders[0] / "records/test/D_0-00000.tfrecord").read_bytes()
    assert answer.content in whole
    assert Image.open(io.BytesIO(answer.content)).size == (TILE, TILE)
    for index in (16, -1, 10**9):
        assert client.get(f"/api/slides/{keys['D_0']}/records/{index}").status_code == 404


def test_a_mask_is_clear_but_for_what_it_marks(client, keys):
    picture = Image.open(io.BytesIO(client.get(f"/api/slides/{keys['D_0']}/mask.png").content)).convert("RGBA")
    assert picture.size == (2048, 2048)
    assert np.argwhere(np.asarray(picture)[:, :, 3]).min(axis=0).tolist() == [800, 800]
    assert (np.asarray(picture)[800:1200, 800:1200, 3] == 255).all()
    assert picture.getpixel((1200, 1200))[3] == 0


def test_the_dashboard_has_the_numbers_of_the_files(client, run_folders):
    run = client.get("/api/runs/run").json()
    assert run["metrics"]["test"] == json.loads((run_folders[0] / "metrics.json").read_text())["test"]
    assert run["curves"]["test"]["confusion"] == [[0, 1], [0, 1]]
    assert run["curves"]["test"]["roc"]["fpr"][-1] == 1.0
    assert [row["patient_id"] for row in run["worst"]["test"]] == ["C", "D"]
    assert [(row["center"], row["accuracy"]) for row in run["centers"]["test"]] == [("c0", 0.0), ("c1", 1.0)]
    assert [(row["image_id"], row["status"]) for row in run["failures"]] == [("C_0", "partial")]
    names = {node["id"]: (node["name"], node["depth"]) for node in run["lineage"]["nodes"]}
    assert names["artifact:model:sha256:model"] == ("model", 4)
    assert {"from": "artifact:records:sha256:records", "to": "step:whole-slide.train"} in run["lineage"]["edges"]
    assert client.get("/api/runs/other").status_code == 404


def test_every_answer_carries_the_headers(client, keys):
    for address in ("/", "/slide", "/run", "/api/slides", "/static/slide.js", "/nothing", "/healthz", "/metrics"):
        headers = client.get(address).headers
        assert "default-src 'self'" in headers["content-security-policy"], address
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_pages_have_no_inline_script_and_say_what_they_are_for(client):
    for address in ("/", "/slide", "/run", "/login"):
        page = client.get(address).text
        assert "For research use, not for diagnosis" in page
        assert "<script>" not in page
        assert " style=" not in page
        assert " onclick" not in page
        assert "http://" not in page
        assert "https://" not in page


def test_health_readiness_and_the_description(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "slides": 4, "runs": 1}
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/slides", "/api/slides/{key}/tiles/{level}/{column}_{row}.jpg", "/api/runs/{key}"} <= set(paths)


def test_logs_are_json_and_name_the_slide_by_its_id(client, keys, caplog):
    with caplog.at_level(logging.INFO, REQUESTS):
        client.get(f"/api/slides/{keys['D_0']}/tiles/11/0_0.jpg?token=secret")
    line = json.loads(JsonLines().format(caplog.records[-1]))
    assert line["image_id"] == "D_0"
    assert line["route"] == "/api/slides/{key}/tiles/{level}/{column}_{row}.jpg"
    assert (line["status"], line["severity"]) == (200, "INFO")
    assert "secret" not in json.dumps(line)


def test_a_large_body_is_refused(client):
    assert client.post("/login", content=b"x" * 10_000).status_code == 413


class TestSlidesThatGoWrong:
    @pytest.fixture
    def folder(self, tmp_path):
        from fastapi.testclient import TestClient

        from components.viewer.catalog import read_catalog
        from components.viewer.service import create_app

        write_slide(tmp_path / "whole.tif", paint(1, 1024))
        write_slide(tmp_path / "holed.tif", paint(2, 1024))
        with tifffile.TiffFile(tmp_path / "holed.tif") as tiff:
            offset = tiff.pages[0].dataoffsets[5]
        with (tmp_path / "holed.tif").open("r+b") as stream:
            stream.seek(offset)
            stream.write(bytes(400))
        (tmp_path / "broken.tif").write_bytes(b"II*\0 no slide at all")
        client = TestClient(create_app(read_catalog([str(tmp_path)])), base_url="http://localhost")
        return tmp_path, client, {slide["image_id"]: slide["key"] for slide in client.get("/api/slides").json()}

    def test_a_damaged_block_is_hatched_and_its_neighbours_are_not(self, folder):
        _, client, keys = folder
        bad = client.get(f"/api/slides/{keys['holed.tif']}/tiles/10/1_1.jpg")
        assert (bad.status_code, bad.headers["x-bagline-unreadable"]) == (200, "1")
        assert bad.headers["cache-control"] == "no-store"
        tile = np.asarray(Image.open(io.BytesIO(bad.content))).astype(int)
        assert np.ptp(tile.mean(axis=2)) > 30
        assert np.abs(tile[..., 0] - tile[..., 2]).max() < 10
        assert "x-bagline-unreadable" not in client.get(f"/api/slides/{keys['holed.tif']}/tiles/10/0_0.jpg").headers
        half = client.get(f"/api/slides/{keys['holed.tif']}/tiles/9/0_0.jpg")
        assert half.headers["x-bagline-unreadable"] == "1"
        quarter = np.asarray(Image.open(io.BytesIO(half.content))).astype(int)
        assert np.abs(quarter[:120, :120].mean(axis=(0, 1)) - 242).max() < 30

    def test_a_file_that_is_no_slide_says_so(self, folder):
        _, client, keys = folder
        told = client.get(f"/api/slides/{keys['broken.tif']}")
        assert told.status_code == 200
        assert "can't be shown" in told.json()["problem"]
        assert client.get(f"/api/slides/{keys['broken.tif']}/tiles/3/0_0.jpg").status_code == 422
        assert client.get(f"/api/slides/{keys['broken.tif']}/thumbnail.jpg").status_code == 422

    def test_a_slide_deleted_while_open_is_gone(self, folder):
        root, client, keys = folder
        address = f"/api/slides/{keys['whole.tif']}/tiles/10/0_0.jpg"
        assert client.get(address).status_code == 200
        (root / "whole.tif").unlink()
        answer = client.get(address)
        assert (answer.status_code, answer.json()) == (410, {"detail": "its file is gone"})
        write_slide(root / "whole.tif", paint(9, 1024))
        assert client.get(address).status_code == 200

    def test_no_answer_names_a_folder(self, folder):
        root, client, keys = folder
        (root / "whole.tif").unlink()
        for key in keys.values():
            for end in ("", "/thumbnail.jpg", "/tiles/10/0_0.jpg", "/places", "/mask.png"):
                assert str(root).encode() not in client.get(f"/api/slides/{key}{end}").content


def test_labels_of_a_hostile_manifest_stay_text(tmp_path):
    from fastapi.testclient import TestClient

    from components.viewer.catalog import read_catalog
    from components.viewer.service import create_app

    out, _ = write_run(tmp_path, labels=("</script><script>alert(1)</script>", "tumour"))
    client = TestClient(create_app(read_catalog([str(out)])), base_url="http://localhost")
    answer = client.get("/api/slides")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()[0]["label"] == "</script><script>alert(1)</script>"
