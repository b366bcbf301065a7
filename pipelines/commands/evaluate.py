"""`bagline evaluate`: scores the model in OUT on the records in OUT."""

from __future__ import annotations

import argparse
import os
import sys

from pipelines.commands.options import add_out, add_parameters, parse_step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_out(parser)
    parser.add_argument("--model", default="", metavar="DIR", help="model folder (default OUT/model)")
    add_parameters(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Writes metrics, predictions, heatmaps and the report; 1 where the gate doesn't bless the model."""
    from components.evaluate.evaluation import EvaluationParameters
    from components.records.dataset import TiledDataset
    from components.records.errors import InputError
    from pipelines.local.run import RunResult
    from pipelines.local.step import step_alone
    from pipelines.local.summary import render_metrics, summarise
    from pipelines.parameters import signature_of_dataclass

    values = parse_step(arguments, signature_of_dataclass(EvaluationParameters))
    out = os.path.abspath(arguments.out)
    TiledDataset(out)
    model = os.path.abspath(arguments.model or os.path.join(out, "model"))
    if not os.path.isdir(model):
        raise InputError("holds no model", where=model, mend="run `bagline train` first")
    from components.evaluate.evaluation import evaluate

    with step_alone(out, "evaluate", values):
        evaluation = evaluate(
            out,
            model,
            out,
            training_dir=_where(out, "training"),
            validation=_where(out, "validation.json"),
            embedded=_where(out, "embeddings"),
            parameters=EvaluationParameters(**values),
        )
    summary = summarise(RunResult(out, seconds={"evaluate": 0.0}))
    sys.stdout.write("\n".join(render_metrics(summary)) + "\n")
    if not evaluation.blessed:
        sys.stderr.write(f"bagline evaluate: the model is not blessed: {evaluation.verdict.reason}\n")
        return 1
    return 0


def _where(out: str, name: str) -> str:
    path = os.path.join(out, name)
    return path if os.path.exists(path) else ""
