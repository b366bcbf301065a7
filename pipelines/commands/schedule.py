"""`bagline schedule`: a pipeline on Vertex AI by the clock."""

from __future__ import annotations

import argparse
import json
import sys

from pipelines.commands.options import add_order, parse_order

_CHANGES = ("pause", "resume", "delete")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--cron", default="", metavar="'M H D M W'", help="when; `TZ=Europe/Berlin` may stand before it"
    )
    parser.add_argument(
        "--name", default="", metavar="NAME", help="the schedule's name; an older one of it is replaced"
    )
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--list", action="store_true", help="print the schedules")
    for change in _CHANGES:
        actions.add_argument(f"--{change}", action="store_true", help=f"{change} the schedule --name")
    add_order(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent, and send nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Makes, lists or changes schedules."""
    from components.records.errors import InputError
    from pipelines.vertex.client import Clients
    from pipelines.vertex.environment import load_config
    from pipelines.vertex.schedule import change_schedule, check_cron, find_schedules, replace_schedule, scheduled_body

    change = next((name for name in _CHANGES if getattr(arguments, name)), "")
    if not arguments.list and not arguments.name:
        raise InputError("the schedule has no name", where="--name", mend="pass --name NAME")
    if arguments.list or change:
        environment = load_config(arguments.env, arguments.config).need_environment()
        clients = Clients(environment.region)
        if change:
            found = change_schedule(clients, environment, arguments.name, change)
            if change == "delete":
                sys.stdout.write("".join(f"deleted {each.name}\n" for each in found))
                return 0
        else:
            found = find_schedules(clients, environment, arguments.name)
        if arguments.json:
            sys.stdout.write(json.dumps([each.to_json() for each in found], indent=2) + "\n")
        else:
            lines = [f"{each.title}  {each.state}  {each.cron}  next {each.next_run or '–'}\n" for each in found]
            sys.stdout.write("".join(lines) or "no schedules\n")
        return 0
    if not arguments.cron:
        raise InputError("no time is given", where="--cron", mend="pass --cron '0 3 * * 1'")
    order = parse_order(arguments, pinned=False)
    if arguments.dry_run:
        shown = {
            "displayName": arguments.name,
            "cron": check_cron(arguments.cron),
            "pipelineJob": scheduled_body(order),
        }
        sys.stdout.write(json.dumps(shown, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        return 0
    clients = Clients(order.environment.region)
    made, replaced = replace_schedule(
        clients, order, arguments.cron, arguments.name, preflight=not arguments.no_preflight
    )
    if arguments.json:
        sys.stdout.write(json.dumps({**made.to_json(), "replaced": replaced}, indent=2) + "\n")
        return 0
    from pipelines.vertex.links import schedules_link

    sys.stdout.write(f"{made.name}\n{schedules_link(order.environment.project)}\n")
    sys.stdout.write(
        f"next run {made.next_run or '–'}" + (f"; replaced {', '.join(replaced)}" if replaced else "") + "\n"
    )
    return 0
