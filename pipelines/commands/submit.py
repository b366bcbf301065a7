"""`bagline submit`: a pipeline on Vertex AI."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from pipelines.commands.options import add_order, parse_order

if TYPE_CHECKING:
    from pipelines.vertex.client import Clients
    from pipelines.vertex.request import Request

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_order(parser)
    parser.add_argument("--wait", action="store_true", help="follow the job until it ends; 1 where it fails")
    parser.add_argument("--cancel-on-interrupt", action="store_true", help="with --wait: Ctrl-C stops the job too")
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent, and send nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--every", type=float, default=15.0, metavar="SECONDS", help="between two looks (%(default)s)")


def execute(arguments: argparse.Namespace) -> int:
    """Sends the job; with --wait, follows it."""
    from components.records.errors import InputError

    if arguments.cancel_on_interrupt and not arguments.wait:
        raise InputError("nothing to interrupt", where="--cancel-on-interrupt", mend="add --wait")
    order = parse_order(arguments)
    if arguments.dry_run:
        from pipelines.vertex.request import build_request

        request = build_request(order)
        shown = {"parent": request.environment.parent, "pipelineJobId": request.job_id, "pipelineJob": request.body}
        sys.stdout.write(json.dumps(shown, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        return 0
    from pipelines.vertex.client import Clients
    from pipelines.vertex.links import job_link
    from pipelines.vertex.submit import join_experiment, submit

    clients = Clients(order.environment.region)
    request = submit(order, preflight=not arguments.no_preflight, clients=clients)
    link = job_link(request.name)
    if not arguments.json:
        sys.stdout.write(f"{request.name}\n{link}\n")
        sys.stdout.flush()
    state = "PENDING"
    try:
        if request.environment.experiment:
            join_experiment(clients, request.environment, request.name)
        if arguments.wait:
            state = _follow(clients, request, arguments.every)
    except KeyboardInterrupt:
        return _leave(clients, request, cancel=arguments.cancel_on_interrupt)
    finally:
        if arguments.json:
            sys.stdout.write(json.dumps({"job": request.name, "console": link, "state": state}, indent=2) + "\n")
    return 0


def _follow(clients: Clients, request: Request, every: float) -> str:
    from components.records.errors import WorkError
    from pipelines.console import ProgressHandler
    from pipelines.vertex.watch import watch

    console = ProgressHandler()
    outcome = watch(
        clients,
        request.name,
        lambda step, line, moving: console.write(f"{step:<9} {line}", moving=moving),
        every=every,
    )
    if outcome.state != "SUCCEEDED":
        failed = f" in {', '.join(outcome.failed)}" if outcome.failed else ""
        raise WorkError(
            f"the job ended as {outcome.state}{failed}",
            where=request.job_id,
            mend=f"see why: bagline diagnose {request.name}",
        )
    console.write(f"done in {outcome.seconds:.0f} s")
    return outcome.state


def _leave(clients: Clients, request: Request, *, cancel: bool) -> int:
    from pipelines.vertex.client import TIMEOUT, explain

    if cancel:
        with explain(f"cancelling {request.job_id}"):
            clients.pipelines.cancel_pipeline_job(name=request.name, timeout=TIMEOUT)
        sys.stderr.write(f"bagline submit: interrupted; {request.job_id} is asked to stop\n")
    else:
        sys.stderr.write(
            f"bagline submit: interrupted; {request.job_id} goes on running, see its page or "
            f"`bagline diagnose {request.name}`\n"
        )
    return INTERRUPTED
