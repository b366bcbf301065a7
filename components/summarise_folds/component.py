"""The KFP face of the summary of folds: one input a fold."""

from collections.abc import Sequence
from typing import Any

from kfp import dsl

from components.records.generated import define_function

_SOURCE = '''
def summarise_folds(
{inputs}
    summary: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    roc: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> None:
    """Mean, spread and pooled intervals over all folds, and the folds as an ensemble."""
    from components.records import storage
    from components.summarise_folds.summarise import summarise_folds as run

    given = {{{names}}}
    folders = {{name: artifact.path for name, artifact in given.items()}}
    done = run(folders, summary.path, bootstrap_samples=bootstrap_samples, seed=seed)
    page = storage.join(summary.path, "report", "index.html")
    storage.write_bytes(report.path, storage.read_bytes(page))
    carried = dict(next(iter(given.values())).metadata)
    for name in ("blessed", "gate_reason"):
        carried.pop(name, None)
    for artifact in (summary, metrics, roc, report):
        artifact.metadata.update(carried, folds=len(given))
    for name, value in done.flat_metrics().items():
        metrics.log_metric(name, value)
    if done.curves.roc["fpr"]:
        roc.log_roc_curve(done.curves.roc["fpr"], done.curves.roc["tpr"], done.curves.roc["threshold"])
    roc.log_confusion_matrix(list(done.curves.labels), done.curves.confusion)
    for artifact in (metrics, roc):
        storage.write_json(artifact.path, done.flat_metrics())  # the local cache takes one without a file for lost
'''


def define_summarise_folds(names: Sequence[str]) -> Any:
    """The component of one input a fold: the evaluation of each of `names`."""
    inputs = "\n".join(f"    {name}: dsl.Input[dsl.Artifact]," for name in names)
    source = _SOURCE.format(inputs=inputs, names=", ".join(f'"{name}": {name}' for name in names))
    function = define_function(source, "summarise_folds", {"dsl": dsl})
    return dsl.component(function, base_image="bagline-training:python3.11", install_kfp_package=False)
