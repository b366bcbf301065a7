"""The bag model: an encoder, a head, and what one must know to use them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import keras
from keras import ops

from components.mil.encoders import registry as encoders
from components.mil.encoders.dense import build_dense
from components.mil.encoders.frozen import join_projection, split_projection
from components.mil.heads import registry as heads
from components.records import storage
from components.records.errors import InputError

CARD = "bagline.json"


@keras.saving.register_keras_serializable(package="bagline")
class BagModel(keras.Model):
    """Tiles of a bag to class probabilities and attention; carries its own preprocessing.

    Args:
        encoder: Keras model, uint8 [n, h, w, 3] to float32 [n, d].
        head: `heads.protocol.BagHead`.
        label_names: the classes in the order of the logits.
        metadata: what a user of the model needs: tile_px, mpp, schema version, code version, manifest hash, parameters.
    """

    def __init__(
        self,
        encoder: keras.Model,
        head: keras.layers.Layer,
        label_names: list[str],
        metadata: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.encoder = encoder
        self.head = head
        self.label_names = list(label_names)
        self.metadata = dict(metadata or {})
        if not head.built:
            head.build((None, None, encoder.output_shape[-1]))
        self.built = True

    @property
    def input_px(self) -> int:
        """Side in px that the encoder shrinks its tiles to."""
        return encoders.input_side(self.encoder)

    @property
    def tile_px(self) -> int:
        """Side in px of the tiles it was made for."""
        return int(self.metadata["tile_px"])

    def without_frozen(self) -> BagModel:
        """The model of embeddings that a frozen encoder gave: projection and head, the same weights; else itself."""
        parts = split_projection(self.encoder)
        return self if parts is None else BagModel(parts[1], self.head, self.label_names, self.metadata)

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """A batch of padded bags.

        Args:
            inputs: `tiles` uint8 [b, n, h, w, 3] (of a model of embeddings these, [b, n, d]) and `mask` bool [b, n],
                False where a tile is padding.
            training: whether dropout is on.

        Returns:
            `probabilities` float32 [b, c], `logits` float32 [b, c], `attention` float32 [b, n]; and what else the
            head gives.
        """
        tiles, mask = inputs["tiles"], ops.cast(inputs["mask"], "bool")
        bags, instances = ops.shape(tiles)[0], ops.shape(tiles)[1]
        flat = ops.reshape(tiles, (-1, *tiles.shape[2:]))
        embeddings = self.encoder(flat, training=training)
        embeddings = ops.reshape(embeddings, (bags, instances, self.encoder.output_shape[-1]))
        out = dict(self.head(embeddings, mask, training=training))
        out["probabilities"] = ops.softmax(out["logits"], axis=-1)
        return out

    def get_config(self) -> dict[str, Any]:
        """Everything that rebuilds the model but its weights."""
        return {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": keras.saving.serialize_keras_object(self.head),
            "label_names": self.label_names,
            "metadata": self.metadata,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> BagModel:
        """The model of `get_config`, with fresh weights."""
        parts = {key: keras.saving.deserialize_keras_object(config[key], custom_objects) for key in ("encoder", "head")}
        return cls(**{**config, **parts})


def create_bag_model(
    *,
    head: str,
    encoder: str,
    tile_px: int,
    label_names: list[str],
    metadata: dict[str, Any] | None = None,
    frozen: keras.Model | None = None,
    **options: Any,
) -> BagModel:
    """A fresh bag model of a head and an encoder by name; `options` go to the one that knows them.

    A frozen encoder is followed by a projection that is trained: standardised values, then a dense layer of
    `embedding_dim`.

    Args:
        head: name in the registry.
        encoder: name in the registry.
        tile_px: side of the tiles, px.
        label_names: the classes in the order of the logits.
        metadata: see `BagModel`.
        frozen: takes the place of the encoder by name: the one that embeddings were made with.
        options: of head and encoder.

    Raises:
        InputError: an unknown name (with the nearest), or an encoder that can't be loaded.
    """
    built = frozen or encoders.create_encoder(encoder, tile_px, **options)
    if encoder not in encoders.TRAINED_ALONG and options.get("freeze_encoder", True):
        built = join_projection(built, build_dense(built.output_shape[-1], options.get("embedding_dim", 128)))
    made = heads.create_head(head, len(label_names), **options)
    return BagModel(built, made, label_names, {**(metadata or {}), "tile_px": tile_px}, name="bag_model")


def save_bag_model(model: BagModel, folder: str) -> None:
    """Saves as a Keras model folder with `bagline.json` beside the weights; replaces what is there."""
    save_model(model, folder, {**model.metadata, "label_names": model.label_names})


def save_model(model: keras.Model, folder: str, card: dict[str, Any]) -> None:
    """Saves a Keras model as a folder, with `card` as `bagline.json` beside the weights; replaces what is there.

    The date that Keras writes is taken out and its memory addresses are renumbered: equal models are equal files.
    """
    target = Path(folder)
    fresh = target.parent / f".{target.name}.{os.getpid()}.tmp"
    with storage.translate_os_errors(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
    try:
        with storage.translate_os_errors(folder):
            model.save(str(fresh), zipped=False)
            about = storage.read_json(fresh / "metadata.json")
            about.pop("date_saved", None)
            storage.write_json(fresh / "metadata.json", about)
            config = storage.read_json(fresh / "config.json")
            _renumber_shared(config, {})
            storage.write_json(fresh / "config.json", config)
            storage.write_json(fresh / CARD, card)
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(fresh, target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _renumber_shared(config: Any, numbers: dict[int, int]) -> None:
    """Replaces the ids of shared objects, which Keras takes from memory addresses, by their order of appearance."""
    if isinstance(config, dict):
        if "shared_object_id" in config:
            config["shared_object_id"] = numbers.setdefault(config["shared_object_id"], len(numbers))
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            _renumber_shared(value, numbers)


def load_bag_model(folder: str) -> BagModel:
    """Loads what `save_bag_model` wrote.

    Raises:
        InputError: there is no bag model in `folder`, or it was cut short.
    """
    mend = "train one with `bagline train`"
    if not all(os.path.exists(os.path.join(folder, name)) for name in ("config.json", "model.weights.h5")):
        raise InputError("holds no model", where=folder, mend=mend)
    try:
        model = keras.models.load_model(folder, compile=False)
    except (ValueError, TypeError, OSError, KeyError, UnboundLocalError) as error:  # the last: Keras on a cut file
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"holds no model that opens ({reason})", where=folder, mend=mend) from None
    if not isinstance(model, BagModel):
        raise InputError(f"holds a {type(model).__name__}, not a bag model", where=folder, mend=mend)
    return model
