"""KFP face of the embedding step."""

from kfp import dsl


@dsl.component(base_image="bagline-training:python3.11", install_kfp_package=False)
def embed_tiles(
    dataset: dsl.Input[dsl.Dataset],
    embedded: dsl.Output[dsl.Dataset],
    embeddings: bool = False,
    encoder: str = "small_cnn",
    encoder_path: str = "",
    input_px: int = 0,
    stain_normalisation: str = "none",
    embedding_dtype: str = "float16",
    seed: int = 0,
    checkpoint_dir: str = "",
) -> None:
    """Every tile through a frozen encoder once, for training and evaluation; nothing where not asked for."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from components.embed_tiles.face import describe, embed_into
    from components.embed_tiles.parameters import EmbeddingParameters

    names = EmbeddingParameters.__dataclass_fields__
    given = {name: value for name, value in locals().items() if name in names}
    summary = embed_into(
        dataset.path, embedded.path, EmbeddingParameters(**given), asked=embeddings, work_dir=checkpoint_dir
    )
    embedded.metadata.update(describe(summary))
