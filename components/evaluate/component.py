"""The KFP face of evaluation."""

from kfp import dsl


@dsl.component(base_image="bagline-training:python3.11", install_kfp_package=False)
def evaluate(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    training: dsl.Input[dsl.Artifact],
    validation: dsl.Input[dsl.Artifact],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    roc: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    split_table: dsl.Input[dsl.Dataset] = None,
    embedded: dsl.Input[dsl.Dataset] = None,
    bootstrap_samples: int = 1000,
    gate_metric: str = "auc",
    gate_split: str = "test",
    gate_threshold: float = 0.0,
    previous_metrics: str = "",
    calibration: str = "temperature",
    threshold_rule: str = "youden",
    wanted_sensitivity: float = 0.95,
    seed: int = 0,
) -> None:
    """Metrics, predictions, heatmaps, the run report, and whether the model is blessed."""
    from components.evaluate.evaluation import EvaluationParameters, copy_report
    from components.evaluate.evaluation import evaluate as run
    from components.evaluate.provenance import describe_evaluation
    from components.records.storage import write_json

    done = run(
        dataset.path,
        model.path,
        evaluation.path,
        training_dir=training.path,
        validation=validation.path,
        split_table=split_table.path if split_table else "",
        embedded=embedded.path if embedded else "",
        parameters=EvaluationParameters(
            bootstrap_samples=bootstrap_samples,
            gate_metric=gate_metric,
            gate_split=gate_split,
            gate_threshold=gate_threshold,
            previous_metrics=previous_metrics,
            calibration=calibration,
            threshold_rule=threshold_rule,
            wanted_sensitivity=wanted_sensitivity,
            seed=seed,
        ),
    )
    copy_report(done, report.path)
    carried = describe_evaluation(dataset.path, done)
    for artifact in (evaluation, metrics, roc, report):
        artifact.metadata.update(carried)
    for name, value in done.flat_metrics().items():
        metrics.log_metric(name, value)
    if done.curves.roc["fpr"]:
        roc.log_roc_curve(done.curves.roc["fpr"], done.curves.roc["tpr"], done.curves.roc["threshold"])
    roc.log_confusion_matrix(list(done.curves.labels), done.curves.confusion)
    for artifact in (metrics, roc):
        write_json(artifact.path, done.flat_metrics())  # the local cache takes an artifact without a file for lost
