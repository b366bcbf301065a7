"""The KFP face of split_metadata."""

from typing import Any

from kfp import dsl

from components.records.generated import define_function
from components.split_metadata.options import fold_names


@dsl.component(base_image="bagline-pipeline:python3.11", install_kfp_package=False)
def split_metadata(
    manifest: str,
    images_root: str,
    split_manifest: dsl.Output[dsl.Dataset],
    split_table: dsl.Output[dsl.HTML],
    split_by: str = "patient",
    val_share: float = 0.15,
    test_share: float = 0.15,
    folds: int = 0,
    fold: int = 0,
    seed: int = 0,
    previous_split: str = "",
    manifest_hash: str = "",
    images_fingerprint: str = "",
) -> None:
    """Checks the manifest and gives every patient a split.

    Args:
        manifest: CSV of one row an image.
        images_root: folder or bucket prefix of the images.
        split_manifest: the manifest with `split` on every row.
        split_table: patients and slides per split, label and center.
        split_by: `patient`, or `center` to hold out whole centers.
        val_share: share of each label's patients for validation; 0 for none.
        test_share: share of each label's patients for the test; 0 for none.
        folds: number of folds, 0 for a split by shares.
        fold: which fold is the test split; the next one is val.
        seed: of the placement.
        previous_split: split manifest of an earlier run, whose patients stay where they were.
        manifest_hash: sha256 hex of the manifest's bytes; part of the cache key, and checked.
        images_fingerprint: of the images' listing; unused, it is part of the cache key only.
    """
    from components.records.provenance import artifact_metadata
    from components.split_metadata.split import split_metadata as split

    summary = split(
        manifest,
        images_root,
        split_manifest.path,
        split_table.path,
        split_by=split_by,
        val_share=val_share,
        test_share=test_share,
        folds=folds,
        fold=fold,
        seed=seed,
        previous_split=previous_split,
        manifest_hash=manifest_hash,
    )
    shares = ",".join(f"{name}:{number}" for name, number in summary.split_patients.items())
    for artifact in (split_manifest, split_table):
        artifact.metadata.update(
            artifact_metadata(
                manifest_hash=summary.manifest_hash,
                split=shares,
                patients=summary.patients,
                slides=summary.slides,
                same_content=summary.same_content,
            )
        )


_FOLDS = '''
def split_folds(
    manifest: str,
    images_root: str,
    cohort: dsl.Output[dsl.Dataset],
    split_table: dsl.Output[dsl.HTML],
{outputs}
    folds: int = {folds},
    repeats: int = {repeats},
    split_by: str = "patient",
    test_share: float = 0.0,
    seed: int = 0,
    manifest_hash: str = "",
    images_fingerprint: str = "",
) -> None:
    """Checks the manifest and gives every patient a split in every fold of every repeat."""
    from components.records.provenance import artifact_metadata
    from components.split_metadata.folds import split_folds as split

    found = {{artifact.name: artifact for artifact in ({names},)}}
    summary = split(
        manifest,
        images_root,
        cohort.path,
        split_table.path,
        {{name: artifact.path for name, artifact in found.items()}},
        folds=folds,
        repeats=repeats,
        split_by=split_by,
        test_share=test_share,
        seed=seed,
        manifest_hash=manifest_hash,
    )
    facts = {{"manifest_hash": summary.manifest_hash, "patients": summary.patients, "slides": summary.slides}}
    for artifact in (cohort, split_table, *found.values()):
        artifact.metadata.update(artifact_metadata(**facts, held_out=summary.held_out))
'''


def define_split_folds(folds: int, repeats: int) -> Any:
    """The component of one output a fold, named as `fold_names` does."""
    names = fold_names(folds, repeats)
    outputs = "\n".join(f"    {name}: dsl.Output[dsl.Dataset]," for name in names)
    source = _FOLDS.format(outputs=outputs, names=", ".join(names), folds=folds, repeats=repeats)
    function = define_function(source, "split_folds", {"dsl": dsl})
    return dsl.component(function, base_image="bagline-pipeline:python3.11", install_kfp_package=False)
