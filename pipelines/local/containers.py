"""Runs a task's container for `kfp.local.DockerRunner`, and knows how it ended.

KFP lets the engine remove a container when it ends, and looks at it afterwards: one that is gone by then counts as
done, or is an error of the engine (500), whatever became of it. Here a container is removed after it was asked.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from components.records.errors import InputError, WorkError

_KILLED = 137


@contextmanager
def own_containers() -> Iterator[None]:
    """While the block runs, `kfp.local` starts its containers with `run_container`.

    Raises:
        InputError: no engine answers, or an image can't be had. WorkError: the engine refused.
    """
    from docker.errors import DockerException, ImageNotFound
    from kfp.local import docker_task_handler

    theirs = docker_task_handler.run_docker_container
    docker_task_handler.run_docker_container = run_container
    try:
        yield
    except ImageNotFound as error:
        raise InputError(
            f"an image can't be had: {_words(error)}", where="--images", mend="run `make images`, or pull it"
        ) from None
    except DockerException as error:
        if "fetching server API version" in str(error):
            raise InputError(
                "no container engine answers", where="--engine docker", mend="start it, or set DOCKER_HOST"
            ) from None
        raise WorkError(f"the container engine refused: {_words(error)}", where="--engine docker") from None
    finally:
        docker_task_handler.run_docker_container = theirs


def run_container(client: Any, image: str, command: Sequence[str], volumes: Mapping[str, Any], **options: Any) -> int:
    """Runs a container to its end, prints what it says, and removes it.

    Args:
        client: of the engine.
        image: by tag, digest or id; pulled where the engine doesn't have it.
        command: what runs in it.
        volumes: host folder → where it is mounted, as docker-py has it.
        options: of `client.containers.create`.

    Returns:
        Its exit code.
    """
    from docker.errors import ImageNotFound

    try:
        client.images.get(image)
    except ImageNotFound:
        client.images.pull(image)
    container = client.containers.create(image=image, command=list(command), volumes=dict(volumes), **options)
    try:
        container.start()
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for chunk in container.logs(stream=True, follow=True):
            print(decoder.decode(chunk), end="")  # noqa: T201 - standard output is what KFP's runner is heard by
        code = int(container.wait()["StatusCode"])
        if code == _KILLED:
            print("it was killed: out of memory, or by hand")  # noqa: T201
        return code
    finally:
        container.remove(force=True)


def _words(error: Exception) -> str:
    return " ".join(str(getattr(error, "explanation", "") or error).split())[:400]
