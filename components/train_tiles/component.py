"""KFP face of the tile classifier's training."""

from kfp import dsl


@dsl.component(base_image="bagline-training:python3.11", install_kfp_package=False)
def train_tiles(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    training: dsl.Output[dsl.Artifact],
    encoder: str = "small_cnn",
    encoder_path: str = "",
    freeze_encoder: bool = True,
    embedding_dim: int = 128,
    input_px: int = 64,
    imbalance: str = "oversample",
    lesion_share: float = 0.5,
    focal_gamma: float = 2.0,
    focal_alpha: float = 0.25,
    epochs: int = 20,
    tiles_per_epoch: int = 0,
    validation_tiles: int = 20000,
    batch_tiles: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    dropout: float = 0.0,
    patience: int = 5,
    augment: bool = True,
    hed: float = 0.05,
    min_tiles_per_slide: int = 1,
    negative_label: str = "",
    seed: int = 0,
    cache_mb: int = 1024,
    checkpoint_dir: str = "",
) -> None:
    """Trains a classifier of single tiles on the lesion masks."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from components.records.provenance import artifact_metadata
    from components.train_tiles.parameters import TileTrainingParameters
    from components.train_tiles.train import train_tiles as run

    names = TileTrainingParameters.__dataclass_fields__
    given = {name: value for name, value in locals().items() if name in names}
    summary = run(dataset.path, model.path, training.path, TileTrainingParameters(**given), work_dir=checkpoint_dir)
    facts = artifact_metadata(split="train", **summary.facts())
    model.metadata.update(facts, framework="keras", encoder=encoder)
    training.metadata.update(facts, epochs=summary.epochs, best_epoch=summary.best_epoch, left_out=summary.left_out)
