"""The KFP face of a tile classifier's evaluation."""

from kfp import dsl


@dsl.component(base_image="bagline-training:python3.11", install_kfp_package=False)
def evaluate_tiles(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    training: dsl.Input[dsl.Artifact],
    validation: dsl.Input[dsl.Artifact],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    bootstrap_samples: int = 1000,
    slide_rule: str = "validation",
    detection_radius_um: float = 190.0,
    min_tiles_per_slide: int = 1,
    negative_label: str = "",
    seed: int = 0,
) -> None:
    """Tile and slide AUC, FROC, heatmaps of lesions beside the truth, the report."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from components.evaluate_tiles.evaluation import TileEvaluationParameters, copy_report
    from components.evaluate_tiles.evaluation import evaluate_tiles as run
    from components.evaluate_tiles.provenance import describe_evaluation
    from components.records.storage import write_json

    done = run(
        dataset.path,
        model.path,
        evaluation.path,
        training_dir=training.path,
        validation=validation.path,
        parameters=TileEvaluationParameters(
            bootstrap_samples=bootstrap_samples,
            slide_rule=slide_rule,
            detection_radius_um=detection_radius_um,
            min_tiles_per_slide=min_tiles_per_slide,
            negative_label=negative_label,
            seed=seed,
        ),
    )
    copy_report(done, report.path)
    for artifact in (evaluation, metrics, report):
        artifact.metadata.update(describe_evaluation(dataset.path, done))
    for name, value in done.flat_metrics().items():
        metrics.log_metric(name, value)
    write_json(metrics.path, done.flat_metrics())  # the local cache takes an artifact without a file for lost
