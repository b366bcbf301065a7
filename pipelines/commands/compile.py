"""`bagline compile`: the spec that Vertex AI takes."""

from __future__ import annotations

import argparse
import sys

from pipelines.commands.options import add_environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--pipeline", default="whole-slide", metavar="NAME", help="which pipeline (default %(default)s)"
    )
    parser.add_argument("--images", default="", metavar="images.json", help="image references by digest")
    parser.add_argument("--allow-tags", action="store_true", help="accept images by tag: their content may change")
    add_environment(parser)
    parser.add_argument("--to", required=True, metavar="FILE.json", help="file to write")
    parser.add_argument(
        "--push",
        nargs="?",
        const="environment",
        default="",
        metavar="REPOSITORY",
        help="also push it as a template: to https://REGION-kfp.pkg.dev/PROJECT/REPOSITORY, or the environment's",
    )
    parser.add_argument(
        "--tag", action="append", default=[], metavar="TAG", help="tag of the template, beside latest; repeatable"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Compiles and writes the spec; with --push, uploads it."""
    from components.records import storage
    from components.records.errors import InputError
    from pipelines.compile import compile_pipeline, render

    if not arguments.to.endswith(".json"):
        raise InputError(f"{arguments.to} is no .json file", where="--to", mend="name it FILE.json")
    if arguments.tag and not arguments.push:
        raise InputError("a tag is a pushed template's", where="--tag", mend="add --push")
    repository = _repository(arguments) if arguments.push else ""
    spec = compile_pipeline(
        arguments.pipeline,
        images=arguments.images,
        allow_tags=arguments.allow_tags,
        config=arguments.config,
        env=arguments.env,
    )
    storage.write_text(arguments.to, render(spec))
    sys.stdout.write(f"{arguments.to}\n")
    if repository:
        from pipelines.vertex.template import push_template

        address, tags = push_template(spec, repository, arguments.tag)
        sys.stdout.write(f"{address}\n")
        sys.stderr.write(f"tagged {', '.join(tags)}\n")
    return 0


def _repository(arguments: argparse.Namespace) -> str:
    from components.records.errors import InputError
    from pipelines.vertex.environment import load_config
    from pipelines.vertex.template import check_repository

    if arguments.push != "environment":
        return check_repository(arguments.push)
    environment = load_config(arguments.env, arguments.config).need_environment()
    if not environment.template_repository:
        raise InputError("no template_repository is named", where="environment", mend="pass --push https://…")
    return environment.template_repository
