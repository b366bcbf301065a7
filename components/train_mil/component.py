"""KFP face of the training step."""

from kfp import dsl


@dsl.component(base_image="bagline-training:python3.11", install_kfp_package=False)
def train_mil(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    training: dsl.Output[dsl.Artifact],
    split_table: dsl.Input[dsl.Dataset] = None,
    embedded: dsl.Input[dsl.Dataset] = None,
    head: str = "gated_attention",
    encoder: str = "small_cnn",
    encoder_path: str = "",
    freeze_encoder: bool = True,
    embedding_dim: int = 128,
    attention_dim: int = 64,
    input_px: int = 0,
    epochs: int = 30,
    tiles_per_bag: int = 128,
    validation_tiles: int = 128,
    bags_per_batch: int = 4,
    learning_rate: float = 5e-4,
    weight_decay: float = 1e-2,
    dropout: float = 0.0,
    patience: int = 10,
    augment: bool = True,
    stain_normalisation: str = "none",
    class_weights: str = "balanced",
    seed: int = 0,
    cache_mb: int = 1024,
    mixed_precision: bool = False,
    embeddings: bool = False,
    grid: list = [],  # type: ignore[type-arg]  # noqa: B006 - KFP reads the default and never changes it
    checkpoint_dir: str = "",
) -> None:
    """Trains a multiple-instance model on patients' bags of tiles; of a grid of parameters the best on validation."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from components.records.provenance import artifact_metadata
    from components.train_mil.choice import train_best
    from components.train_mil.parameters import TrainingParameters

    names = TrainingParameters.__dataclass_fields__
    given = {name: value for name, value in locals().items() if name in names}
    summary = train_best(
        dataset.path,
        model.path,
        training.path,
        TrainingParameters(**given),
        grid,
        work_dir=checkpoint_dir,
        split_table=split_table.path if split_table else "",
        embedded=embedded.path if embedded else "",
    )
    facts = artifact_metadata(split="train", **summary.facts())
    model.metadata.update(facts, framework="keras", head=head, encoder=encoder)
    training.metadata.update(facts, epochs=summary.epochs, best_epoch=summary.best_epoch, head=head, encoder=encoder)
