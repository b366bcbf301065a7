"""The KFP face of predict_bags."""

from kfp import dsl


@dsl.component(base_image="bagline-training:python3.11", install_kfp_package=False)
def predict_bags(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    predictions: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    heatmaps: bool = True,
) -> None:
    """A trained model's predictions on new slides, with heatmaps and a report."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from components.predict_bags.predict import predict_slides
    from components.records.provenance import artifact_metadata
    from components.records.storage import read_bytes, write_bytes

    registered = model.metadata.get("resourceName", "")
    done = predict_slides(dataset.path, model.path, predictions.path, heatmaps=heatmaps, registered=registered)
    write_bytes(report.path, read_bytes(done.report))
    for artifact in (predictions, report):
        artifact.metadata.update(artifact_metadata(**done.facts(), registered_model=registered))
