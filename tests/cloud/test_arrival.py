"""Slides that arrive in a bucket start one run, when all of them are whole; against the real forms of the events."""

import base64
import json
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import pytest
from conftest import IMAGES
from fastapi.testclient import TestClient

from components.records.errors import InputError, WorkError
from pipelines.arrival import start
from pipelines.arrival.events import Arrived, BadEventError, read_event
from pipelines.arrival.service import create_app
from pipelines.arrival.start import Settings, job_id_of, read_settings
from pipelines.arrival.upload import check_upload

BUCKET, FOLDER = "incoming-bucket", "incoming/2026-11"
PREFIX = f"gs://{BUCKET}/incoming"
SLIDES = {f"images/s{n}.svs": b"slide %d" % n * (n + 1) for n in range(4)}


def storage_object(name, bucket=BUCKET):
    """The data of a storage event, as Cloud Storage describes an object."""
    return {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/1763683200000000",
        "selfLink": f"https://www.googleapis.com/storage/v1/b/{bucket}/o/{name}",
        "name": name,
        "bucket": bucket,
        "generation": "1763683200000000",
        "metageneration": "1",
        "contentType": "application/octet-stream",
        "timeCreated": "2026-11-21T00:00:00.000Z",
        "updated": "2026-11-21T00:00:00.000Z",
        "storageClass": "STANDARD",
        "size": "352",
        "md5Hash": "bWQ1",
        "crc32c": "AAAAAA==",
        "etag": "CICAgICAgICAEAE=",
    }


def cloud_event(name, kind="google.cloud.storage.object.v1.finalized", bucket=BUCKET):
    return {
        "specversion": "1.0",
        "id": "12345678901234567",
        "type": kind,
        "source": f"//storage.googleapis.com/projects/_/buckets/{bucket}",
        "subject": f"objects/{name}",
        "time": "2026-11-21T00:00:00.000000Z",
        "datacontenttype": "application/json",
    }


def binary(name, **more):
    headers = {f"ce-{key}": value for key, value in cloud_event(name, **more).items() if key != "datacontenttype"}
    return {**headers, "content-type": "application/json"}, json.dumps(storage_object(name)).encode()


def structured(name, **more):
    event = {**cloud_event(name, **more), "data": storage_object(name)}
    return {"Content-Type": "application/cloudevents+json; charset=utf-8"}, json.dumps(event).encode()


def structured_base64(name, **more):
    data = base64.b64encode(json.dumps(storage_object(name)).encode()).decode()
    event = {**cloud_event(name, **more), "data_base64": data}
    return {"Content-Type": "application/cloudevents+json"}, json.dumps(event).encode()


def envelope(name, kind="OBJECT_FINALIZE", payload="JSON_API_V1"):
    message = {
        "attributes": {
            "bucketId": BUCKET,
            "eventTime": "2026-11-21T00:00:00.000000Z",
            "eventType": kind,
            "notificationConfig": f"projects/_/buckets/{BUCKET}/notificationConfigs/1",
            "objectGeneration": "1763683200000000",
            "objectId": name,
            "payloadFormat": payload,
        },
        "messageId": "9876543210",
        "message_id": "9876543210",
        "publishTime": "2026-11-21T00:00:00Z",
        "publish_time": "2026-11-21T00:00:00Z",
    }
    if payload != "NONE":
        message["data"] = base64.b64encode(json.dumps(storage_object(name)).encode()).decode()
    return {"message": message, "subscription": "projects/proj-123/subscriptions/arrivals"}


def push(name, **more):
    return {"Content-Type": "application/json"}, json.dumps(envelope(name, **more)).encode()


def push_without_data(name):
    return push(name, payload="NONE")


def published(name):
    headers = {
        "ce-specversion": "1.0", "ce-id": "1", "ce-type": "google.cloud.pubsub.topic.v1.messagePublished",
        "ce-source": "//pubsub.googleapis.com/projects/proj-123/topics/arrivals", "content-type": "application/json",
    }  # fmt: skip
    return headers, json.dumps(envelope(name)).encode()


FORMS = [binary, structured, structured_base64, push, push_without_data, published]


def checksum(content, form="base64"):
    value = google_crc32c.value(content)
    return f"{value:08x}" if form == "hex" else base64.b64encode(value.to_bytes(4, "big")).decode()


def manifest(slides=SLIDES, form="base64", masks=False):
    lines = ["image_id,patient_id,label,image_path,mask_path,bytes,crc32c"]
    for n, (name, content) in enumerate(sorted(slides.items())):
        mask = f"masks/s{n}.tif" if masks else ""
        lines.append(f"s{n},p{n},{'ab'[n % 2]},{name},{mask},{len(content)},{checksum(content, form)}")
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture
def upload(store):
    """Puts objects of the upload into the bucket: `upload("images/s0.svs")`, `upload("manifest.csv", b"…")`."""
    store.buckets[BUCKET] = {}

    def put(name, content=None):
        store.put(BUCKET, f"{FOLDER}/{name}", SLIDES[name] if content is None else content)
        return f"{FOLDER}/{name}"

    return put


class Starts(list):
    """Stands for the submit call, and for what Vertex AI knows already."""

    error = None

    def __call__(self, upload, settings):
        if self.error:
            raise self.error
        job = job_id_of(upload)
        known = job in self
        self.append(job)
        return job, not known


@pytest.fixture
def starts():
    return Starts()


@pytest.fixture
def client(starts):
    with TestClient(create_app(Settings(PREFIX, env="dev"), starts)) as client:
        yield client


def send(client, event):
    headers, body = event
    answer = client.post("/", headers=headers, content=body)
    return answer.status_code, answer.json()["outcome"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_names_the_object(form):
    found = read_event(*form("incoming/a b/ü.svs"))
    assert found == Arrived(BUCKET, "incoming/a b/ü.svs", "1763683200000000")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_starts_the_run(form, client, upload, starts):
    for name in SLIDES:
        upload(name)
    assert send(client, form(upload("manifest.csv", manifest()))) == (200, "started")
    assert len(starts) == 1


@pytest.mark.parametrize(
    "event",
    [
        binary("x", kind="google.cloud.storage.object.v1.deleted"),
        structured("x", kind="google.cloud.storage.object.v1.metadataUpdated"),
        push("x", kind="OBJECT_DELETE"),
    ],
)
def test_an_event_of_another_kind_is_dealt_with(event, client, starts):
    assert send(client, event) == (200, "ignored")
    assert not starts


BAD = {
    "not json": ({"content-type": "application/json"}, b"{"),
    "not text": ({"content-type": "application/json"}, b"\xff\xfe"),
    "a list": ({"content-type": "application/json"}, b"[]"),
    "nothing known": ({"content-type": "application/json"}, b'{"a": 1}'),
    "no bucket": (binary("x")[0], b'{"name": "x"}'),
    "a number for a name": (binary("x")[0], b'{"bucket": "b", "name": 5}'),
    "another version": ({**binary("x")[0], "ce-specversion": "0.3"}, binary("x")[1]),
    "no data": ({"content-type": "application/cloudevents+json"}, json.dumps(cloud_event("x")).encode()),
    "bad base64": (
        {"content-type": "application/cloudevents+json"},
        json.dumps({**cloud_event("x"), "data_base64": "*"}).encode(),
    ),
    "a message of no bucket": ({"content-type": "application/json"}, b'{"message": {"data": "aGk="}}'),
    "a message that is text": ({"content-type": "application/json"}, b'{"message": "hi"}'),
    "a batch": ({"content-type": "application/cloudevents-batch+json"}, b"{}"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_event_is_refused_for_good(name, client, starts):
    with pytest.raises(BadEventError):
        read_event(*BAD[name])
    assert send(client, BAD[name]) == (400, "refused")
    assert not starts


def test_a_body_larger_than_any_event_is_refused(client):
    assert send(client, ({"content-type": "application/json"}, b" " * (1 << 20) + b"{}")) == (413, "refused")


def test_the_run_starts_with_the_last_piece_whatever_the_order(client, upload, starts):
    assert send(client, push(upload("images/s2.svs"))) == (200, "waiting")
    assert send(client, push(upload("manifest.csv", manifest()))) == (200, "waiting")
    assert send(client, push(upload("images/s0.svs"))) == (200, "waiting")
    assert send(client, push(upload("images/s3.svs"))) == (200, "waiting")
    assert not starts
    assert send(client, push(upload("images/s1.svs"))) == (200, "started")


def test_late_and_repeated_events_start_nothing_twice(client, upload, starts):
    names = [upload(name) for name in SLIDES]
    last = upload("manifest.csv", manifest())
    assert send(client, push(last)) == (200, "started")
    for name in [*names, last]:
        assert send(client, binary(name)) == (200, "known")
    upload("images/s1.svs")  # again, with the same content
    assert send(client, binary(names[1])) == (200, "known")
    assert len(set(starts)) == 1


def test_another_upload_is_another_run(client, upload, starts):
    for name in SLIDES:
        upload(name)
    send(client, push(upload("manifest.csv", manifest())))
    changed = {**SLIDES, "images/s0.svs": b"scanned again"}
    upload("images/s0.svs", changed["images/s0.svs"])
    assert send(client, push(upload("manifest.csv", manifest(changed)))) == (200, "started")
    assert len(set(starts)) == 2


@pytest.mark.parametrize("content", [b"slide", b"SLIDE 1SLIDE 1"], ids=["another size", "another checksum"])
def test_what_is_not_whole_starts_nothing_until_it_is_sent_again(content, client, upload, starts, caplog):
    for name in SLIDES:
        upload(name)
    upload("images/s1.svs", content)
    assert send(client, push(upload("manifest.csv", manifest()))) == (200, "broken")
    assert not starts
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "s1: images/s1.svs has" in said
    assert send(client, push(upload("images/s1.svs"))) == (200, "started")


def test_checksums_may_be_hex_and_masks_have_to_come_too(client, upload, starts):
    for name in SLIDES:
        upload(name)
    assert send(client, push(upload("manifest.csv", manifest(form="hex", masks=True)))) == (200, "waiting")
    for n in range(3):
        assert send(client, push(upload(f"masks/s{n}.tif", b"mask"))) == (200, "waiting")
    assert send(client, push(upload("masks/s3.tif", b"mask"))) == (200, "started")


def test_files_that_nobody_asked_for_are_ignored_with_a_line(client, upload, starts, caplog):
    caplog.set_level(logging.INFO)
    for name in SLIDES:
        upload(name)
    upload("manifest.csv", manifest())
    assert send(client, push(upload("notes.txt", b"hello"))) == (200, "ignored")
    assert send(client, push("elsewhere/s0.svs")) == (200, "ignored")
    assert send(client, push("incoming-not/manifest.csv")) == (200, "ignored")
    assert not starts
    assert "notes.txt is not listed" in caplog.text
    assert "elsewhere/s0.svs is not below" in caplog.text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"image_id,patient_id,label\ns0,p0,a\n", "no column 'bytes'"),
        (manifest().replace(b",7,", b",many,"), "bytes 'many'"),
        (manifest().replace(checksum(SLIDES["images/s0.svs"]).encode(), b"zz"), "crc32c 'zz'"),
        (b"\xff\x00", ""),
    ],
)
def test_a_manifest_that_is_wrong_is_said_and_not_sent_again(content, told, client, upload, starts):
    for name in SLIDES:
        upload(name)
    answer = client.post("/", headers=push("x")[0], content=push(upload("manifest.csv", content))[1])
    assert (answer.status_code, answer.json()["outcome"]) == (200, "refused")
    assert told in answer.json()["detail"]
    assert not starts


@pytest.mark.parametrize("error", [WorkError("Vertex AI is away"), InputError("you lack a role")])
def test_a_run_that_can_not_be_started_is_tried_again(error, client, upload, starts):
    for name in SLIDES:
        upload(name)
    starts.error = error
    event = push(upload("manifest.csv", manifest()))
    assert send(client, event) == (503, "failed")
    starts.error = None
    assert send(client, event) == (200, "started")


def test_the_key_depends_on_what_is_stored_alone(upload, store):
    for name in SLIDES:
        upload(name)
    upload("manifest.csv", manifest())
    first = check_upload(f"gs://{BUCKET}/{FOLDER}/manifest.csv")
    upload("notes.txt", b"beside it")
    again = check_upload(f"gs://{BUCKET}/{FOLDER}/manifest.csv")
    assert first.whole
    assert first.key == again.key
    assert len(job_id_of(first)) <= 63


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "BAGLINE_ARRIVALS"),
        ({"BAGLINE_ARRIVALS": "/data"}, "BAGLINE_ARRIVALS"),
        ({"BAGLINE_ARRIVALS": "gs://"}, "BAGLINE_ARRIVALS"),
        ({"BAGLINE_ARRIVALS": PREFIX}, "BAGLINE_ENV"),
    ],
)
def test_settings_that_are_missing_are_said(variables, told):
    with pytest.raises(InputError, match=told):
        read_settings(variables)


def test_an_upload_becomes_one_job_on_vertex_ai(vertex, config, upload):
    """Through the true client library; four deliveries of the same event at once."""
    settings = Settings(PREFIX, config=config(), template="")
    for name in SLIDES:
        upload(name)
    event = binary(upload("manifest.csv", manifest()))
    with TestClient(create_app(settings)) as client:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: send(client, event), range(4)))
        assert sorted(answers) == [(200, "known")] * 3 + [(200, "started")]
        assert send(client, event) == (200, "known")
    job = vertex.only_job()
    assert job["name"].rpartition("/")[2].startswith("arrival-")
    values = job["runtimeConfig"]["parameterValues"]
    assert values["manifest"] == f"gs://{BUCKET}/{FOLDER}/manifest.csv"
    assert values["images_root"] == f"gs://{BUCKET}/{FOLDER}"
    assert {body["container"]["image"] for body in job["pipelineSpec"]["deploymentSpec"]["executors"].values()} & set(
        IMAGES.values()
    )


def test_the_same_event_at_two_services_at_once_starts_one_job(vertex, config, upload, monkeypatch):
    settings = Settings(PREFIX, config=config(), template="")
    for name in SLIDES:
        upload(name)
    event = binary(upload("manifest.csv", manifest()))
    with TestClient(create_app(settings)) as client:
        assert send(client, event) == (200, "started")
        looks, true_look = [], start._is_there

        def look_too_early(clients, name):
            looks.append(name)
            return len(looks) > 1 and true_look(clients, name)

        monkeypatch.setattr(start, "_is_there", look_too_early)
        assert send(client, event) == (200, "known")
    assert len(looks) == 2
    vertex.only_job()


def test_the_service_runs_as_a_process(store, upload, tmp_path):
    """As Cloud Run starts it: settings in the environment, a port, one event over HTTP."""

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {**os.environ, "BAGLINE_ARRIVALS": PREFIX, "BAGLINE_ENV": "dev", "PORT": str(port)}
    service = subprocess.Popen([sys.executable, "-m", "pipelines.arrival"], env=variables)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                    assert json.load(answer) == {"watched": PREFIX}
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        headers, body = push(upload("images/s0.svs"))
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["outcome"] == "waiting"
    finally:
        service.terminate()
        service.wait(20)


def test_a_service_without_settings_ends_in_one_line():
    variables = {key: value for key, value in os.environ.items() if not key.startswith("BAGLINE_")}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.arrival"], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("bagline arrivals: BAGLINE_ARRIVALS")
