"""The parameters of an embedding, checked before anything is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from components.records.embedded import DTYPES
from components.records.errors import InputError, name_first

STAIN_NORMALISATIONS = ("none", "macenko", "reinhard")


@dataclass(frozen=True)
class EmbeddingParameters:
    """How to embed.

    Attributes:
        encoder: name in `components.mil.encoders.registry`, but none that is trained along.
        encoder_path: its weights, or the saved model: a path or `gs://`.
        input_px: side the tiles are brought to before the encoder, px; 0 for the encoder's own.
        stain_normalisation: `none`, or `macenko` or `reinhard`: tiles are brought to the train slides' colours.
        embedding_dtype: `float16` or `float32`, of what is stored.
        batch_tiles: tiles a step of the encoder.
        seed: everything random comes from it.
    """

    encoder: str
    encoder_path: str = ""
    input_px: int = 0
    stain_normalisation: str = "none"
    embedding_dtype: str = "float16"
    batch_tiles: int = 64
    seed: int = 0

    def check(self) -> None:
        """Raises InputError that names what is out of its range, or the nearest of an unknown name."""
        from components.mil.encoders.registry import ENCODERS, TRAINED_ALONG
        from components.mil.naming import check_name

        check_name("encoder", self.encoder, ENCODERS)
        check_name("stain_normalisation", self.stain_normalisation, STAIN_NORMALISATIONS)
        check_name("embedding_dtype", self.embedding_dtype, DTYPES)
        problems = []
        if self.encoder in TRAINED_ALONG:
            others = ", ".join(sorted(set(ENCODERS) - set(TRAINED_ALONG)))
            problems.append(f"the encoder {self.encoder!r} is trained along and gives no embeddings (others: {others})")
        if self.batch_tiles < 1:
            problems.append(f"batch_tiles {self.batch_tiles} is below 1")
        if self.input_px and self.input_px < 16:
            problems.append(f"input_px {self.input_px} is below 16")
        if problems:
            raise InputError(
                name_first(problems, limit=len(problems)), where="embedding", mend="correct the parameters"
            )

    def to_json(self) -> dict[str, Any]:
        """Every parameter by name."""
        return asdict(self)
