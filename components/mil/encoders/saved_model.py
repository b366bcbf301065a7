"""A SavedModel inside a Keras model, which carries it along where it is saved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from components.records.errors import InputError
from components.records.provenance import tree_digest

SIGNATURE = "serving_default"
_MEND = "give encoder_path a SavedModel that maps pictures [n, side, side, 3] to vectors [n, values]"


@keras.saving.register_keras_serializable(package="bagline")
class SavedModelEncoder(layers.Layer):
    """The signature `serving_default` of a SavedModel, its weights as they are.

    Pictures of values 0–255 are brought to 0–1 for a float input and left alone for an integer one. The model's
    files are saved with the Keras model that holds this layer, and come back with it.

    Args:
        values: length of the vector it gives.
        digest: of the SavedModel's files.
        folder: where they are; empty where Keras brings them (`load_assets`).
    """

    def __init__(self, values: int, digest: str, folder: str = "", **options: Any) -> None:
        super().__init__(**{**options, "dtype": "float32", "trainable": False, "autocast": False})
        self.values, self.digest = values, digest
        self._held: list[Any] = []
        if folder:
            self.load_assets(folder)

    def call(self, pictures: Any) -> Any:
        """float32 [n, side, side, 3], 0–255, to float32 [n, values]."""
        serve, name, given, made = self._held[0]["parts"]
        pictures = tf.cast(pictures, given.dtype)
        pictures = pictures / 255 if given.dtype.is_floating else pictures
        return tf.ensure_shape(tf.cast(serve(**{name: pictures})[made], tf.float32), [None, self.values])

    def compute_output_spec(self, pictures: Any) -> Any:
        """What `call` gives."""
        return keras.KerasTensor((pictures.shape[0], self.values), "float32")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments but the folder."""
        return {**super().get_config(), "values": self.values, "digest": self.digest}

    def save_assets(self, folder: str) -> None:
        """Copies the SavedModel's files."""
        shutil.copytree(self._held[0]["folder"], folder, dirs_exist_ok=True)

    def load_assets(self, folder: str) -> None:
        """Opens the SavedModel; raises InputError where it isn't the one this layer was saved with."""
        if tree_digest(folder) != self.digest:
            raise InputError("is not the SavedModel that was saved here", where=folder, mend="copy the model again")
        # a plain dict in a list that Keras does not look into: the variables in it are not its own
        self._held = [_Opaque(parts=open_saved_model(folder), folder=folder)]


class _Opaque:
    """Values that no framework walks through."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]


def open_saved_model(folder: str) -> tuple[Any, str, Any, str]:
    """(signature, its input's name, its input's spec, its output's name) of the SavedModel in `folder`.

    Raises:
        InputError: it does not open, or its signature takes no picture or gives no single vector.
    """
    try:
        loaded = tf.saved_model.load(folder)
    except (OSError, ValueError, TypeError, AttributeError, tf.errors.OpError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"is no SavedModel that opens here ({reason})", where=folder, mend=_MEND) from None
    serve = loaded.signatures.get(SIGNATURE) if hasattr(loaded, "signatures") else None
    if serve is None:
        raise InputError(f"has no signature {SIGNATURE!r}", where=folder, mend=_MEND)
    given = serve.structured_input_signature[1]
    outputs = sorted(serve.structured_outputs)
    made = outputs[0] if len(outputs) == 1 else "output_0" if "output_0" in outputs else ""
    if len(given) != 1 or not made:
        told = f"takes {', '.join(sorted(given))} and gives {', '.join(outputs)}, not one picture and one vector"
        raise InputError(told, where=folder, mend=_MEND)
    name, spec = next(iter(given.items()))
    shape, vector = spec.shape.as_list() if spec.shape.rank else None, serve.structured_outputs[made].shape
    if not shape or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise InputError(f"takes {shape}, not square RGB pictures [n, h, w, 3]", where=folder, mend=_MEND)
    if vector.rank != 2 or vector[1] is None:
        raise InputError(f"gives {vector}, not one vector a picture", where=folder, mend=_MEND)
    keep = _Keep(loaded, serve)
    return keep, name, spec, made


class _Keep:
    """A signature that keeps the model it is of: without it, its variables are gone."""

    def __init__(self, loaded: Any, serve: Any) -> None:
        self.loaded, self.serve = loaded, serve

    def __call__(self, **inputs: Any) -> Any:
        return self.serve(**inputs)


def encode_with(folder: str) -> tuple[SavedModelEncoder, int | None]:
    """The layer of a SavedModel, and the side it takes, px (None where that is open)."""
    keep, _, spec, made = open_saved_model(folder)
    values = int(keep.serve.structured_outputs[made].shape[1])
    side = spec.shape[1]
    return SavedModelEncoder(values, tree_digest(folder), folder, name="saved_model"), None if side is None else int(
        side
    )


def is_saved_model(path: str) -> bool:
    """Whether `path` is a folder with a SavedModel."""
    return os.path.isdir(path) and Path(path, "saved_model.pb").exists()
