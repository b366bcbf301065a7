"""The KFP face of validate_records."""

from kfp import dsl


@dsl.component(base_image="bagline-pipeline:python3.11", install_kfp_package=False)
def validate_records(
    records: dsl.Input[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
    table: dsl.Output[dsl.HTML],
    dataset: dsl.Output[dsl.Dataset],
    max_blank_share: float = 0.5,
    blank_deviation: float = 6.0,
    max_duplicates_across_splits: int = 0,
    max_duplicates_within_split: int = 0,
    max_colour_drift: float = 0.8,
    colour_drift_fails: bool = False,
    min_patients_per_class: int = 1,
    max_mpp_deviation: float = 0.1,
    workers: int = 1,
) -> None:
    """Checks every record, and hands the same folder on as the authoritative dataset, or stops the pipeline."""
    from components.records.provenance import artifact_metadata
    from components.validate_records.outcome import Thresholds
    from components.validate_records.validate import validate_records as validate

    thresholds = Thresholds(
        max_blank_share=max_blank_share,
        blank_deviation=blank_deviation,
        max_duplicates_across_splits=max_duplicates_across_splits,
        max_duplicates_within_split=max_duplicates_within_split,
        max_colour_drift=max_colour_drift,
        colour_drift_fails=colour_drift_fails,
        min_patients_per_class=min_patients_per_class,
        max_mpp_deviation=max_mpp_deviation,
    )
    found = validate(records.path, validation.path, table.path, thresholds, workers)
    facts = artifact_metadata(
        manifest_hash=found.dataset["manifest_hash"],
        split=",".join(sorted({row["split"] for row in found.counts if row["split"]})),
        patients=found.totals["patients"],
        slides=found.totals["slides"],
        tiles=found.totals["tiles"],
        mpp=found.dataset["mpp"],
        tile_px=found.dataset["tile_px"],
        verdict=found.verdict,
    )
    dataset.uri = records.uri
    for artifact in (validation, table, dataset):
        artifact.metadata.update(facts)
    found.raise_on_failure(where="validate_records")
