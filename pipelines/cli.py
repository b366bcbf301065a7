"""The console script `bagline`: one module in `pipelines.commands` a command, one line an error."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import re
import sys
from typing import NoReturn

from components.records.errors import BaglineError
from pipelines.console import configure_logging

COMMANDS = {
    "run": "the whole pipeline on this machine: split, tile, validate, train, evaluate",
    "split": "give every patient a split",
    "tile": "cut the slides of a manifest into records",
    "validate": "check the records in a folder",
    "embed": "put every tile through a frozen encoder once",
    "train": "train a model on the records in a folder",
    "evaluate": "score a trained model, draw heatmaps, write the report",
    "cross-validate": "split into folds, train and evaluate each, and sum up",
    "predict": "a trained model over new slides: predictions, heatmaps, a report",
    "compile": "write the compiled spec that Vertex AI takes",
    "check": "compile every pipeline and hold every config file against it",
    "view": "runs and slides in the browser: deep zoom, heatmaps, a dashboard",
    "lineage": "what an artifact was made from, down to the slides' bytes",
    "submit": "run the pipeline on Vertex AI",
    "schedule": "run the pipeline on Vertex AI again and again, by the clock",
    "diagnose": "why a job failed, and what to do about it",
}
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest right word where there is one."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        sys.stderr.write(f"{self.prog}: {message}{self._suggest(message)}; see `{self.prog} --help`\n")
        raise SystemExit(2)

    def _suggest(self, message: str) -> str:
        wrong = re.findall(r"invalid choice: '([^']+)'|(--[\w-]+)", message)
        right = [*self._option_string_actions, *(COMMANDS if self.prog == "bagline" else ())]
        for word in (choice or option for choice, option in wrong):
            near = difflib.get_close_matches(word, right, n=1, cutoff=0.6)
            if near and word not in right:
                return f" (did you mean {near[0]}?)"
        return ""


def build_parser(command: str | None) -> Parser:
    """The parser; only the named command's module is imported, so that `--help` stays light."""
    parser = Parser(
        prog="bagline",
        description="Whole-slide images to trained, explained, traceable multiple-instance models.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and what code it is")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
        )
        if name == command:
            subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
            importlib.import_module(_module_of(name)).add_arguments(subparser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0: done; 1: the work or a gate failed; 2: the call or its input is wrong; 130: interrupted.
    """
    words = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in words if not word.startswith("-")), None)
    words, beam_options = _cut_beam_options(words, command)
    parser = build_parser(command)
    parsed = parser.parse_args(words)
    if parsed.version:
        from components.records.provenance import code_version

        sys.stdout.write(f"bagline {code_version()}\n")
        return 0
    if parsed.command is None:
        parser.print_help()
        return 2
    parsed.beam_options = beam_options
    configure_logging(debug=parsed.debug)
    try:
        return int(importlib.import_module(_module_of(parsed.command)).execute(parsed))
    except BaglineError as error:
        return _report(f"bagline {parsed.command}: {error}", error.exit_code, parsed.debug)
    except KeyboardInterrupt:
        return _report(f"bagline {parsed.command}: interrupted", INTERRUPTED, parsed.debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: no user is shown a bare traceback
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return _report(
            f"bagline {parsed.command}: unexpected {line}; run again with --debug and report it", 1, parsed.debug
        )


def _module_of(command: str) -> str:
    return f"pipelines.commands.{command.replace('-', '_')}"


def _cut_beam_options(words: list[str], command: str | None) -> tuple[list[str], list[str]]:
    if command in ("tile", "run", "predict", "cross-validate") and "--" in words:
        cut = words.index("--")
        return words[:cut], words[cut + 1 :]
    return words, []


def _report(line: str, code: int, debug: bool) -> int:
    if debug:
        logging.getLogger(__name__).exception("traceback")
    sys.stderr.write(f"{line}\n")
    return code
