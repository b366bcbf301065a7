"""The parameters of a training, checked before anything is read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from components.records.errors import InputError, name_first

STAIN_NORMALISATIONS = ("none", "macenko", "reinhard")
CLASS_WEIGHTS = ("balanced", "none")


@dataclass(frozen=True)
class TrainingParameters:
    """How to train.

    Attributes:
        head: name in `components.mil.heads.registry`.
        encoder: name in `components.mil.encoders.registry`.
        encoder_path: the saved model, or the weights of a network by name; a path or `gs://`.
        freeze_encoder: keep such an encoder's weights; what is trained then is a projection after it, and the head.
        embedding_dim, attention_dim: length of what the head sees; rows of the attention's V and U.
        input_px: side the tiles are brought to before the encoder, px; 0 for its own (64 of the small one).
        epochs: at most; a cosine takes the learning rate down over them.
        tiles_per_bag: tiles drawn of each bag and epoch.
        validation_tiles: tiles of each validation bag, spread over it, the same in every epoch.
        bags_per_batch: bags a step.
        learning_rate, weight_decay: of AdamW.
        dropout: share of the pooled values dropped.
        patience: epochs without a better validation loss before training stops.
        augment: flips, quarter turns, brightness, contrast and colour.
        stain_normalisation: `none`, or `macenko` or `reinhard`: the model brings tiles to the train slides' colours.
        class_weights: `balanced` or `none`.
        seed: everything random comes from it.
        cache_mb: memory the decoded tiles may take; where they need more, they are decoded anew each epoch.
        mixed_precision: float16 (on a GPU; else bfloat16) with float32 weights.
        embeddings: train on embeddings that were made before, see `embed_tiles`; the encoder must be frozen.
    """

    head: str = "gated_attention"
    encoder: str = "small_cnn"
    encoder_path: str = ""
    freeze_encoder: bool = True
    embedding_dim: int = 128
    attention_dim: int = 64
    input_px: int = 0
    epochs: int = 30
    tiles_per_bag: int = 128
    validation_tiles: int = 128
    bags_per_batch: int = 4
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    dropout: float = 0.0
    patience: int = 10
    augment: bool = True
    stain_normalisation: str = "none"
    class_weights: str = "balanced"
    seed: int = 0
    cache_mb: int = 1024
    mixed_precision: bool = False
    embeddings: bool = False

    def check(self) -> None:
        """Raises InputError that lists every value out of its range at once, or an unknown name with the nearest."""
        from components.mil.encoders.registry import ENCODERS, TRAINED_ALONG
        from components.mil.heads.registry import HEADS
        from components.mil.naming import check_name

        check_name("head", self.head, HEADS)
        check_name("encoder", self.encoder, ENCODERS)
        check_name("stain_normalisation", self.stain_normalisation, STAIN_NORMALISATIONS)
        check_name("class_weights", self.class_weights, CLASS_WEIGHTS)
        problems = []
        for name in (
            "embedding_dim",
            "attention_dim",
            "epochs",
            "tiles_per_bag",
            "validation_tiles",
            "bags_per_batch",
            "patience",
        ):
            if getattr(self, name) < 1:
                problems.append(f"{name} {getattr(self, name)} is below 1")
        if self.input_px and self.input_px < 16:
            problems.append(f"input_px {self.input_px} is below 16")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            problems.append(f"learning_rate {self.learning_rate} is not above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            problems.append(f"weight_decay {self.weight_decay} is below 0")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout {self.dropout} is not in 0–1")
        if self.encoder_path and self.encoder in TRAINED_ALONG:
            problems.append(f"encoder_path is given, but the encoder {self.encoder!r} is trained from nothing")
        if self.embeddings and (self.encoder in TRAINED_ALONG or not self.freeze_encoder):
            others = ", ".join(sorted(set(ENCODERS) - set(TRAINED_ALONG)))
            problems.append(f"embeddings are of a frozen encoder ({others}), but {self.encoder!r} is trained along")
        if problems:
            raise InputError(name_first(problems, limit=len(problems)), where="training", mend="correct the parameters")

    def to_json(self) -> dict[str, Any]:
        """Every parameter by name."""
        return asdict(self)
