"""Pipelines by the clock: one schedule of a name, tied to digests of code and images, never two at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from components.records.errors import InputError, WorkError
from pipelines.vertex.client import TIMEOUT, Clients, explain, patiently
from pipelines.vertex.environment import Environment
from pipelines.vertex.preflight import check_readiness
from pipelines.vertex.request import Order, build_request, images_of

_CRON = re.compile(r"^((CRON_)?TZ=[\w+/-]+ )?(\S+ ){4}\S+$")
_FIELD = re.compile(r"^[\dA-Za-z*,/?-]+$")


@dataclass(frozen=True)
class Scheduled:
    """A schedule: resource name, what it is called, state, cron and when it runs next (ISO, or empty)."""

    name: str
    title: str
    state: str
    cron: str
    next_run: str

    def to_json(self) -> dict[str, str]:
        """As plain values."""
        return {
            "schedule": self.name,
            "name": self.title,
            "state": self.state,
            "cron": self.cron,
            "next_run": self.next_run,
        }


def check_cron(text: str) -> str:
    """The cron expression with single spaces; raises InputError where it has not five fields."""
    tidy = " ".join(text.split())
    fields = [part for part in tidy.split(" ") if "TZ=" not in part]
    if not _CRON.match(tidy) or not all(_FIELD.match(part) for part in fields):
        mend = "write minute, hour, day, month, weekday: '0 3 * * 1', or 'TZ=Europe/Berlin 0 3 * * 1'"
        raise InputError(f"{text!r} is no cron expression", where="--cron", mend=mend)
    return tidy


def replace_schedule(
    clients: Clients, order: Order, cron: str, title: str, *, preflight: bool = True
) -> tuple[Scheduled, list[str]]:
    """Makes a schedule in the place of those of the same name.

    The old ones pause first, and go when the new one is there; where it can't be made they go on as before. So there
    are never two at work.

    Returns:
        The new schedule, and the resource names of those it replaced.

    Raises:
        InputError: something doesn't fit; nothing was changed. WorkError: Vertex AI refused or was away.
    """
    environment, body, cron = order.environment, scheduled_body(order), check_cron(cron)
    if preflight:
        check_readiness(environment, body["pipelineSpec"])
    old = find_schedules(clients, environment, title)
    paused = [each.name for each in old if each.state == "ACTIVE"]
    with explain(f"schedule {title}"):
        for name in paused:
            clients.schedules.pause_schedule(name=name, timeout=TIMEOUT)
        try:
            made = clients.schedules.create_schedule(
                parent=environment.parent,
                schedule=_schedule(environment, body, cron, title),
                timeout=TIMEOUT,
            )
        except BaseException:
            for name in paused:
                clients.schedules.resume_schedule(name=name, catch_up=False, timeout=TIMEOUT)
            raise
    for each in old:
        _delete(clients, each)
    return _scheduled(made), [each.name for each in old]


def scheduled_body(order: Order) -> dict[str, Any]:
    """The body of the jobs that a schedule makes; raises InputError where it is not tied to digests."""
    if order.pinned:
        raise ValueError("a schedule's order is not pinned to the inputs as they are now")
    body = build_request(order).body
    loose = [image for image in images_of(body["pipelineSpec"]) if "@sha256:" not in image]
    if loose:
        raise InputError(f"image {loose[0]} has no digest", where="schedule", mend="pass --images images.json")
    return body


def find_schedules(clients: Clients, environment: Environment, title: str = "") -> list[Scheduled]:
    """The schedules of the region, newest first; with `title` those of that name."""
    wanted = f'display_name="{title}"' if title else ""
    with explain("schedules"):
        found = clients.schedules.list_schedules(
            request={"parent": environment.parent, "filter": wanted, "order_by": "create_time desc"},
            retry=patiently(),
            timeout=TIMEOUT,
        )
        schedules = [_scheduled(each) for each in found]
    return [each for each in schedules if not title or each.title == title]


def change_schedule(clients: Clients, environment: Environment, title: str, change: str) -> list[Scheduled]:
    """Does `pause`, `resume` or `delete` to the schedules of a name.

    Raises:
        InputError: there is none of that name.
    """
    found = find_schedules(clients, environment, title)
    if not found:
        raise InputError(f"there is no schedule {title!r}", where="--name", mend="see `bagline schedule --list`")
    for each in found:
        if change == "delete":
            _delete(clients, each)
            continue
        with explain(f"schedule {title}"):
            if change == "pause" and each.state == "ACTIVE":
                clients.schedules.pause_schedule(name=each.name, timeout=TIMEOUT)
            elif change == "resume" and each.state == "PAUSED":
                clients.schedules.resume_schedule(name=each.name, catch_up=False, timeout=TIMEOUT)
    return find_schedules(clients, environment, title) if change != "delete" else found


def _delete(clients: Clients, schedule: Scheduled) -> None:
    from google.api_core.exceptions import GoogleAPICallError

    try:
        clients.schedules.delete_schedule(name=schedule.name, timeout=TIMEOUT).result(timeout=300)
    except GoogleAPICallError as error:
        raise WorkError(
            f"could not be deleted: {' '.join(str(error).split())}",
            where=f"schedule {schedule.name}",
            mend="it is paused and starts nothing; delete it in the console",
        ) from None


def _schedule(environment: Environment, body: dict[str, Any], cron: str, title: str) -> Any:
    import json

    from google.cloud.aiplatform_v1.types import Schedule

    content = {
        "displayName": title,
        "cron": cron,
        "maxConcurrentRunCount": "1",
        "createPipelineJobRequest": {"parent": environment.parent, "pipelineJob": body},
    }
    return Schedule.from_json(json.dumps(content), ignore_unknown_fields=False)


def _scheduled(found: Any) -> Scheduled:
    next_run = found.next_run_time.isoformat() if found.next_run_time else ""
    return Scheduled(found.name, found.display_name, found.state.name, found.cron, next_run)
