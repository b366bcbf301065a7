"""`bagline diagnose`: why a job failed."""

from __future__ import annotations

import argparse
import json
import os
import sys

from pipelines.commands.options import add_environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "job", metavar="JOB", help="a job's id (with --env), resource name or page; or the OUT of a run on this machine"
    )
    add_environment(parser)
    parser.add_argument("--no-logs", action="store_true", help="don't read the failed tasks' logs")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Prints what failed and the mend."""
    if os.path.isdir(arguments.job):
        from pipelines.local.diagnose import diagnose_out, render_local

        found = diagnose_out(arguments.job)
        _print(found, render_local(found), as_json=arguments.json)
        return 0
    from pipelines.vertex.client import Clients
    from pipelines.vertex.diagnose import diagnose, job_name, render
    from pipelines.vertex.environment import load_config

    named = arguments.env or arguments.config
    environment = load_config(arguments.env, arguments.config).need_environment() if named else None
    name = job_name(arguments.job, environment)
    diagnosis = diagnose(Clients(name.split("/")[3]), name, logs=not arguments.no_logs)
    _print(diagnosis.to_json(), render(diagnosis), as_json=arguments.json)
    return 0


def _print(value: dict[str, object], text: str, *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(value, indent=2, ensure_ascii=False) if as_json else text) + "\n")
