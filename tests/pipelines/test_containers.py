"""How a task's container is run, and what is made of an engine that refuses; with a client that stands in for one."""

import docker
import pytest
from docker.errors import APIError, DockerException, ImageNotFound
from kfp.local import docker_task_handler

from components.records.errors import InputError, WorkError
from pipelines.local.containers import own_containers, run_container


class Container:
    def __init__(self, code=0, said=(b"hello\n",), error=None):
        self.code, self.said, self.error = code, said, error
        self.calls = []

    def start(self):
        self.calls.append("start")

    def logs(self, **_):
        self.calls.append("logs")
        yield from self.said
        if self.error:
            raise self.error

    def wait(self):
        self.calls.append("wait")
        return {"StatusCode": self.code}

    def remove(self, force):
        assert force
        self.calls.append("remove")


class Client:
    def __init__(self, container, known=("image",)):
        self.container, self.known, self.pulled, self.created = container, known, [], {}
        self.images = self.containers = self

    def get(self, image):
        if image not in self.known:
            raise ImageNotFound(f"no such image: {image}")

    def pull(self, image):
        if image == "nowhere":
            raise ImageNotFound("manifest unknown")
        self.pulled.append(image)

    def create(self, **options):
        assert "auto_remove" not in options
        self.created = options
        return self.container


def test_a_container_is_removed_after_it_was_asked_how_it_ended():
    container = Container(code=3)
    client = Client(container)
    assert run_container(client, "image", ["sh"], {"/a": {"bind": "/a", "mode": "rw"}}, user="1:1") == 3
    assert container.calls == ["start", "logs", "wait", "remove"]
    assert client.created == {
        "image": "image", "command": ["sh"], "volumes": {"/a": {"bind": "/a", "mode": "rw"}}, "user": "1:1",
    }  # fmt: skip
    assert not client.pulled


def test_a_letter_that_is_cut_in_two_is_read_as_one(capsys):
    word = "Größe\n".encode()
    run_container(Client(Container(said=(word[:3], word[3:]))), "image", [], {})
    assert capsys.readouterr().out == "Größe\n"


def test_a_killed_container_says_so(capsys):
    assert run_container(Client(Container(code=137)), "image", [], {}) == 137
    assert "it was killed" in capsys.readouterr().out


def test_an_interrupted_container_does_not_go_on():
    container = Container(error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_container(Client(container), "image", [], {})
    assert container.calls[-1] == "remove"


def test_an_image_by_digest_or_id_is_found_and_another_one_pulled():
    client = Client(Container(), known=("host/a@sha256:0", "sha256:1"))
    for image in ("host/a@sha256:0", "sha256:1", "host/b:tag"):
        run_container(client, image, [], {})
    assert client.pulled == ["host/b:tag"]


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (ImageNotFound("no such image", explanation="manifest unknown"), InputError, "an image can't be had"),
        (DockerException("Error while fetching server API version: 2"), InputError, "no container engine answers"),
        (APIError("500", explanation="no space left on device"), WorkError, "no space left on device"),
    ],
)  # fmt: skip
def test_what_the_engine_refuses_is_one_line(error, kind, told):
    theirs = docker_task_handler.run_docker_container

    def refuse():
        assert docker_task_handler.run_docker_container is run_container
        raise error

    with pytest.raises(kind, match=told), own_containers():
        refuse()
    assert docker_task_handler.run_docker_container is theirs


def test_no_engine_at_all_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    with pytest.raises(InputError, match="no container engine answers"), own_containers():
        docker.from_env()
