"""Whether the training image can do its work: imports, the command line, a small model saved and opened.

A plot is drawn too, so that the list of fonts is in the image's cache afterwards.
"""

import os
import subprocess
import tempfile
from pathlib import Path

import kfp.dsl.executor_main  # noqa: F401
import numpy as np
import sklearn.metrics  # noqa: F401

import components.evaluate.evaluation
import components.train_mil.train  # noqa: F401
from components.mil.inference import load_bag_model
from components.mil.model import create_bag_model, save_bag_model


def main() -> None:
    """Makes a model, saves it, opens it, and asks both about one bag."""
    from matplotlib import font_manager  # noqa: F401

    subprocess.run(["bagline", "--help"], check=True, stdout=subprocess.DEVNULL)
    model = create_bag_model(
        head="gated_attention",
        encoder="small_cnn",
        tile_px=32,
        label_names=["normal", "tumour"],
        input_px=16,
        embedding_dim=8,
        attention_dim=4,
    )
    bag = {"tiles": np.zeros((1, 2, 32, 32, 3), np.uint8), "mask": np.ones((1, 2), bool)}
    with tempfile.TemporaryDirectory() as folder:
        save_bag_model(model, folder + "/model")
        again = load_bag_model(folder + "/model")
    np.testing.assert_allclose(model(bag)["probabilities"], again(bag)["probabilities"], rtol=1e-5)
    assert list(Path(os.environ["MPLCONFIGDIR"]).glob("fontlist*")), "the list of fonts is not in the cache"


if __name__ == "__main__":
    main()
