"""The parameters of a tile classifier's training, checked before anything is read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from components.records.errors import InputError, name_first

IMBALANCE = ("oversample", "undersample", "class_weights", "focal", "none")


@dataclass(frozen=True)
class TileTrainingParameters:
    """How to train.

    Attributes:
        encoder: name in `components.mil.encoders.registry`; `saved` takes the Keras model at `encoder_path`.
        freeze_encoder: keep a saved encoder's weights.
        embedding_dim: length of an embedding.
        input_px: side the tiles are shrunk to before the encoder, px.
        imbalance: `oversample` repeats the marked tiles and `undersample` leaves out others until `lesion_share` of an
            epoch is marked; `class_weights` weights both kinds alike; `focal` is the focal loss; `none`.
        lesion_share: of an epoch's tiles, 0–1, with `oversample` and `undersample`.
        focal_gamma, focal_alpha: of the focal loss; alpha weights marked tiles, 1 - alpha the others.
        epochs: at most; a cosine takes the learning rate down over them.
        tiles_per_epoch: at most, other ones each epoch; 0 for all that `imbalance` gives.
        validation_tiles: at most, spread evenly over the validation slides, the same in every epoch.
        batch_tiles: tiles a step.
        learning_rate, weight_decay: of AdamW.
        dropout: share of the embedding dropped.
        patience: epochs without a better validation AUC before training stops.
        augment: flips, quarter turns, brightness, contrast and colour.
        hed: strength of the stain augmentation, 0 for none; 0.05 is light, 0.2 strong.
        min_tiles_per_slide: slides with fewer have too little tissue and are left out.
        negative_label: slides of this patient label without a mask hold no lesion; empty leaves them out.
        seed: everything random comes from it.
        cache_mb: memory the decoded tiles may take; where they need more, they are decoded anew each epoch.
    """

    encoder: str = "small_cnn"
    encoder_path: str = ""
    freeze_encoder: bool = True
    embedding_dim: int = 128
    input_px: int = 64
    imbalance: str = "oversample"
    lesion_share: float = 0.5
    focal_gamma: float = 2.0
    focal_alpha: float = 0.25
    epochs: int = 20
    tiles_per_epoch: int = 0
    validation_tiles: int = 20000
    batch_tiles: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    dropout: float = 0.0
    patience: int = 5
    augment: bool = True
    hed: float = 0.05
    min_tiles_per_slide: int = 1
    negative_label: str = ""
    seed: int = 0
    cache_mb: int = 1024

    def check(self) -> None:
        """Raises InputError that lists every value out of its range at once, or an unknown name with the nearest."""
        from components.mil.encoders.registry import ENCODERS
        from components.mil.naming import check_name

        check_name("encoder", self.encoder, ENCODERS)
        check_name("imbalance", self.imbalance, IMBALANCE)
        wholes = ("embedding_dim", "epochs", "validation_tiles", "batch_tiles", "patience", "min_tiles_per_slide")
        problems = [f"{name} {getattr(self, name)} is below 1" for name in wholes if getattr(self, name) < 1]
        if self.input_px < 16:
            problems.append(f"input_px {self.input_px} is below 16")
        if self.tiles_per_epoch < 0:
            problems.append(f"tiles_per_epoch {self.tiles_per_epoch} is below 0")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            problems.append(f"learning_rate {self.learning_rate} is not above 0")
        for name in ("weight_decay", "focal_gamma"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                problems.append(f"{name} {getattr(self, name)} is below 0")
        for name in ("dropout", "hed"):
            if not 0 <= getattr(self, name) < 1:
                problems.append(f"{name} {getattr(self, name)} is not in 0–1")
        for name in ("lesion_share", "focal_alpha"):
            if not 0 < getattr(self, name) < 1:
                problems.append(f"{name} {getattr(self, name)} is not between 0 and 1")
        if self.encoder_path and self.encoder != "saved":
            problems.append(f"encoder_path is given, but encoder is {self.encoder!r} and not 'saved'")
        if problems:
            raise InputError(name_first(problems, limit=len(problems)), where="training", mend="correct the parameters")

    def to_json(self) -> dict[str, Any]:
        """Every parameter by name."""
        return asdict(self)
