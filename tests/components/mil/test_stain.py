"""Stain normalisation: against NumPy, on mixed stains, and inside a saved model."""

import numpy as np
import pytest

from components.mil.inference import load_bag_model
from components.mil.model import create_bag_model, save_bag_model
from components.mil.stain import NormaliseStain, _measure_stains, fit_reference, normalise_macenko, normalise_reinhard
from components.records.errors import InputError

import tensorflow as tf  # isort: skip

H_AND_E = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
OTHER = np.array([[0.55, 0.76, 0.35], [0.16, 0.93, 0.32]])


def unit(stains):
    return stains / np.linalg.norm(stains, axis=1, keepdims=True)


def stain(amounts, stains):
    """Amounts [n, s, s, 2] to tiles by Beer and Lambert."""
    return np.clip(np.rint(240 * np.exp(-amounts @ unit(stains)) - 1), 0, 255).astype(np.uint8)


def draw_amounts(n=4, side=64, seed=0):
    """Nuclei of haematoxylin on eosin, and some glass."""
    rng = np.random.default_rng(seed)
    nuclei = rng.random((n, side, side)) < 0.3
    amounts = np.stack(
        [
            np.where(nuclei, rng.uniform(0.6, 1.4, nuclei.shape), 0.02),
            np.where(nuclei, 0.03, rng.uniform(0.3, 1.0, nuclei.shape)),
        ],
        axis=-1,
    )
    amounts[:, :8] = 0
    return amounts


def macenko_in_numpy(tile, stains, strengths):
    """As the paper and its usual scripts have it."""
    density = -np.log((tile.reshape(-1, 3).astype(np.float64) + 1) / 240)
    stained = density.max(axis=1) >= 0.15
    held = density[stained]
    vectors = np.linalg.eigh(np.cov(held.T))[1][:, 1:]
    vectors *= np.where(vectors[0] < 0, -1, 1)
    along = held @ vectors
    angle = np.arctan2(along[:, 0], along[:, 1])
    ends = []
    for share in (1, 99):
        at = np.percentile(angle, share, method="nearest")
        end = vectors @ np.array([np.sin(at), np.cos(at)])
        ends.append(end if end.sum() > 0 else -end)
    own = np.array(sorted(ends, key=lambda end: -end[0]))
    amounts = np.linalg.lstsq(own.T, density.T, rcond=None)[0]
    most = np.percentile(amounts[:, stained], 99, axis=1, method="nearest")
    made = 240 * np.exp(-(amounts * (np.array(strengths) / most)[:, None]).T @ np.array(stains)) - 1
    return np.clip(made, 0, 255).reshape(tile.shape), own


def reinhard_in_numpy(tile, means, deviations):
    lms = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
    lab = np.diag(1 / np.sqrt([3, 6, 2])) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
    pixels = tile.reshape(-1, 3).astype(np.float64)
    values = np.log10(np.maximum(pixels, 1) @ lms.T) @ lab.T
    density = (-np.log((pixels + 1) / 240)).max(axis=1)
    held = values[density >= 0.15]
    moved = (values - held.mean(0)) * (np.array(deviations) / held.std(0)) + np.array(means)
    made = np.clip(10 ** (moved @ np.linalg.inv(lab).T) @ np.linalg.inv(lms).T, 0, 255)
    weight = np.clip(density / 0.15, 0, 1)[:, None]
    return (weight * made + (1 - weight) * pixels).reshape(tile.shape)


def test_known_stains_are_recovered():
    for known in (H_AND_E, OTHER):
        vectors, _, good = _measure_stains(tf.cast(tf.reshape(stain(draw_amounts(), known), (4, -1, 3)), tf.float32))
        assert good.numpy().all()
        for at in (0, 1):
            cosine = vectors.numpy()[:, :, at] @ unit(known)[at]
            assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 3


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_tensorflow_and_numpy_agree(method):
    reference = fit_reference(method, stain(draw_amounts(8, seed=5), H_AND_E))
    tiles = stain(draw_amounts(), OTHER)
    if method == "macenko":
        made = normalise_macenko(tiles, **reference).numpy()
        expected = np.stack([macenko_in_numpy(tile, **reference)[0] for tile in tiles])
    else:
        made = normalise_reinhard(tiles, **reference).numpy()
        expected = np.stack([reinhard_in_numpy(tile, **reference) for tile in tiles])
    assert np.abs(made - expected).max() < 1.0


@pytest.mark.parametrize(("method", "least"), [("macenko", 6), ("reinhard", 1.8)])
def test_two_stainings_of_the_same_tissue_come_close(method, least):
    amounts = draw_amounts()
    one, other = stain(amounts, H_AND_E), stain(amounts * (1.3, 0.7), OTHER)
    layer = NormaliseStain(method, fit_reference(method, stain(draw_amounts(8, seed=5), H_AND_E)))
    before = np.abs(one.astype(float) - other).mean()
    after = np.abs(layer(one).numpy() - layer(other).numpy()).mean()
    assert after < before / least
    assert np.abs(layer(one).numpy() - one).mean() < 4


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_tiles_without_enough_stain_pass_unchanged(method):
    layer = NormaliseStain(method, fit_reference(method, stain(draw_amounts(8), H_AND_E)))
    rng = np.random.default_rng(0)
    blank = rng.integers(238, 250, (1, 64, 64, 3)).astype(np.uint8)
    tiles = np.concatenate([blank, np.zeros_like(blank), np.full_like(blank, 255), stain(draw_amounts(1), OTHER)])
    made = layer(tiles).numpy()
    np.testing.assert_array_equal(made[0], tiles[0])
    np.testing.assert_array_equal(made[2], tiles[2])
    assert np.isfinite(made).all()
    assert made.min() >= 0
    assert made.max() <= 255
    assert (made[3] != tiles[3]).any()
    if method == "macenko":
        np.testing.assert_array_equal(made[1], tiles[1])
    np.testing.assert_array_equal(layer(tiles[3:]).numpy()[0], made[3])


def test_glass_stays_glass():
    layer = NormaliseStain("macenko", fit_reference("macenko", stain(draw_amounts(8), H_AND_E)))
    tiles = stain(draw_amounts(), OTHER)
    tiles[:, :8] = 245
    assert np.abs(layer(tiles).numpy()[:, :8] - 245).max() < 6


def test_a_sample_without_stain_is_refused():
    with pytest.raises(InputError, match="no tile of the train slides holds enough stain to fit a reference"):
        fit_reference("macenko", np.full((3, 32, 32, 3), 245, np.uint8))


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_the_saved_model_carries_its_reference(method, tmp_path):
    reference = fit_reference(method, stain(draw_amounts(8), H_AND_E))
    model = create_bag_model(
        head="mean_pooling",
        encoder="small_cnn",
        tile_px=64,
        label_names=["a", "b"],
        input_px=32,
        embedding_dim=4,
        stain_normalisation=method,
        stain_reference=reference,
    )
    save_bag_model(model, str(tmp_path / "model"))
    again = load_bag_model(str(tmp_path / "model"))
    assert again.encoder.get_layer("stain").reference == reference
    tiles = stain(draw_amounts(), OTHER)
    np.testing.assert_allclose(model.encoder(tiles), again.encoder(tiles), rtol=1e-5)
    plain = create_bag_model(
        head="mean_pooling", encoder="small_cnn", tile_px=64, label_names=["a", "b"], input_px=32, embedding_dim=4
    )
    plain.set_weights(model.get_weights())
    assert np.abs(plain.encoder(tiles).numpy() - model.encoder(tiles).numpy()).max() > 1e-3
