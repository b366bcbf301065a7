"""`bagline cross-validate`: every fold trained and evaluated on this machine, and one result of all."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from pipelines.commands.options import add_images, add_parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_images(parser)
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="number of folds (default %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=1, metavar="R", help="how often patients are dealt out (default %(default)s)"
    )
    parser.add_argument(
        "--grid", default="", metavar="FILE", help="YAML list of parameter sets; validation chooses one in each fold"
    )
    add_parameters(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.epilog = "Patients whose split is `test` in the manifest are held out: all folds' models meet them together."


def execute(arguments: argparse.Namespace) -> int:
    """Runs, publishes and sums up."""
    from components.records import storage
    from pipelines.console import ProgressHandler
    from pipelines.local.inputs import absolute
    from pipelines.local.run import RunOptions, run_locally

    _check_shape(arguments.folds, arguments.repeats)
    options = RunOptions(
        manifest=absolute(arguments.manifest),
        images_root=absolute(arguments.images_root),
        out=os.path.abspath(arguments.out),
        config=arguments.config or "",
        assignments=tuple(arguments.assignments),
        beam_options=tuple(arguments.beam_options),
        debug=arguments.debug,
        pipeline="cross-validate",
        values={"grid": read_grid_file(arguments.grid)} if arguments.grid else {},
        folds=arguments.folds,
        repeats=arguments.repeats,
    )
    console = ProgressHandler()
    result = run_locally(options, lambda step, line, moving: console.write(f"{step:<14} {line}", moving=moving))
    if result.error:
        sys.stderr.write(f"bagline cross-validate: {result.error}\n")
        return result.exit_code
    metrics = storage.read_json(os.path.join(options.out, "metrics.json"))
    report = os.path.join(options.out, "report", "index.html")
    if arguments.json:
        facts = {"out": options.out, "seconds": result.seconds, "total_seconds": result.total_seconds, "report": report}
        sys.stdout.write(json.dumps({**facts, "metrics": metrics}, indent=2, sort_keys=True) + "\n")
    else:
        sys.stdout.write("\n".join([*render_result(metrics), "", f"  report: {report}"]) + "\n")
    return 0


def read_grid_file(path: str) -> list[dict[str, Any]]:
    """The sets of parameters of a grid, checked.

    Raises:
        InputError: no YAML, no list, no set, or a set that doesn't fit the training.
    """
    import yaml

    from components.records import storage
    from components.records.errors import InputError
    from components.train_mil.choice import read_grid
    from components.train_mil.parameters import TrainingParameters

    try:
        found = yaml.safe_load(storage.read_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"is not YAML ({problem})", where=path, mend="correct the line") from None
    if not isinstance(found, list) or not found:
        raise InputError(
            "is no list of parameter sets", where=path, mend="write `- learning_rate: 0.001`, a set a line"
        )
    read_grid(found, TrainingParameters())
    return found


def render_result(metrics: dict[str, Any]) -> list[str]:
    """The figures of a cross-validation, a line each."""
    lines = [f"  {'fold':<10}{'patients':>9}{'AUC':>8}{'accuracy':>10}{'log loss':>10}"]
    for fold in metrics["folds"]:
        numbers = [_number(fold[name], width) for name, width in (("auc", 8), ("accuracy", 10), ("log_loss", 10))]
        lines.append(f"  {fold['name']:<10}{fold['n_patients']:>9}{''.join(numbers)}")
    over = metrics["over_folds"]
    for kind, name in (("mean", "mean"), ("sd", "deviation")):
        numbers = [_number(over[key][kind], width) for key, width in (("auc", 8), ("accuracy", 10), ("log_loss", 10))]
        lines.append(f"  {name:<19}{''.join(numbers)}")
    for name, section in (("pooled", metrics["test"]), ("held out, ensemble", metrics["held_out"])):
        if section:
            interval = section["auc_ci95"]
            told = f" (95% interval {interval[0]:.3f}–{interval[1]:.3f})" if interval else ""
            lines.append(f"  {name}: AUC{_number(section['auc'], 6)}{told}, {section['n_patients']} patients")
    return lines


def _check_shape(folds: int, repeats: int) -> None:
    from components.records.errors import InputError

    if folds < 3:
        raise InputError(f"{folds} folds can't hold train, val and test", where="--folds", mend="take 3 or more")
    if repeats < 1 or folds * repeats > 100:
        raise InputError(
            f"{folds} folds, {repeats} times, are {folds * repeats} models",
            where="--repeats",
            mend="want 1 to 100 models",
        )


def _number(value: float | None, width: int) -> str:
    return f"{'–' if value is None else f'{value:.3f}':>{width}}"
