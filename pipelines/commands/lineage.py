"""`bagline lineage`: what an artifact was made from."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from pipelines.commands.options import add_environment

if TYPE_CHECKING:
    from pipelines.lineage.query import Node


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "target",
        metavar="PATH_OR_ID",
        help="a file or folder of a run, a patient id, or a tile <image_id>@<x>,<y>; OUT/<id> works too. "
        "With --env: an artifact of Vertex ML Metadata, a gs:// address below one, or a pipeline job",
    )
    add_environment(parser)
    parser.add_argument(
        "--job", default="", metavar="JOB", help="with --env: the job whose artifact or patient is meant"
    )
    parser.add_argument("--out", default="", metavar="OUT", help="the run, where an id alone is given")
    parser.add_argument("--no-verify", action="store_true", help="don't hash the files again")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Prints the tree; 1 where a file no longer matches its hash."""
    from pipelines.lineage.query import Lineage, find_out, render_tree, summarise_mismatches

    if arguments.env or arguments.config:
        tree = _ask_vertex(arguments)
    else:
        out, target = find_out(arguments.target, arguments.out)
        tree = Lineage(out, verify=not arguments.no_verify).tree(target)
    if arguments.json:
        sys.stdout.write(json.dumps(tree.to_json(), indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(render_tree(tree) + "\n")
    problem = summarise_mismatches(tree)
    if problem:
        sys.stderr.write(f"bagline lineage: {problem}\n")
        return 1
    return 0


def _ask_vertex(arguments: argparse.Namespace) -> Node:
    from components.records.errors import InputError
    from pipelines.vertex.client import Clients
    from pipelines.vertex.environment import load_config
    from pipelines.vertex.graph import Graph
    from pipelines.vertex.lineage import VertexLineage

    if arguments.out:
        raise InputError("a run on this machine has no environment", where="--out", mend="leave --env or --out out")
    environment = load_config(arguments.env, arguments.config).need_environment()
    graph = Graph(Clients(environment.region), environment)
    return VertexLineage(graph, verify=not arguments.no_verify).tree(arguments.target, arguments.job)
