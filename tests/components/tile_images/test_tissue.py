"""The tissue mask on drawn slides."""

import time

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from components.tile_images.tissue import (
    examine_picture,
    find_border,
    find_tissue_and_pen,
    is_dark_field,
    tissue_mask,
)

H_AND_E = np.array([205, 130, 180])


def draw_glass(colour=(243, 243, 243), size=(300, 400), seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.integers(-2, 3, (*size, 1))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def draw_tissue(picture, box, colour=H_AND_E, seed=1, contrast=40, absorb=True):
    """Textured tissue over the glass that is there: it takes away light."""
    top, left, bottom, right = box
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(0, 1, (bottom - top, right - left)), 1.5)
    texture = texture / texture.std() * contrast / 3
    tissue = np.clip(np.array(colour) + texture[..., None], 0, 255)
    if absorb:
        tissue = tissue * picture[top:bottom, left:right] / 243
    picture[top:bottom, left:right] = np.clip(tissue, 0, 255).astype(np.uint8)
    truth = np.zeros(picture.shape[:2], bool)
    truth[top:bottom, left:right] = True
    return truth


def agree(mask, truth, least=0.95):
    recall = mask[truth].mean()
    away = ~ndimage.binary_dilation(truth, iterations=5)
    assert recall >= least, f"recall {recall:.3f}"
    assert mask[away].mean() < 0.002, f"false {mask[away].mean():.4f}"


@pytest.mark.parametrize(
    "glass", [(243, 243, 243), (255, 255, 255), (225, 230, 222), (170, 215, 175), (235, 230, 205), (200, 215, 240)]
)
def test_tissue_on_glass_of_any_tint(glass):
    picture = draw_glass(glass)
    truth = draw_tissue(picture, (80, 100, 220, 300))
    agree(tissue_mask(picture), truth)


def test_faint_tissue():
    picture = draw_glass()
    truth = draw_tissue(picture, (80, 100, 220, 300), colour=(238, 226, 236), contrast=4)
    agree(tissue_mask(picture), truth)


@pytest.mark.parametrize("colour", [(140, 90, 50), (120, 120, 190), (235, 215, 190)])
def test_other_stains(colour):
    picture = draw_glass()
    truth = draw_tissue(picture, (80, 100, 220, 300), colour=colour, contrast=30)
    agree(tissue_mask(picture), truth)


@pytest.mark.parametrize("glass", [(243, 243, 243), (170, 215, 175), (255, 255, 255)])
def test_bare_glass_is_empty(glass):
    assert not tissue_mask(draw_glass(glass)).any()


def test_shade_and_dust_on_glass_are_no_tissue():
    picture = draw_glass().astype(float) * np.linspace(0.93, 1.0, 400)[None, :, None]
    picture = picture.astype(np.uint8)
    picture[50:52, 60:62] = 100
    assert tissue_mask(picture).mean() < 0.001


def test_a_slide_full_of_tissue_is_kept():
    picture = draw_glass()
    draw_tissue(picture, (0, 0, 300, 400), contrast=60)
    assert tissue_mask(picture).mean() > 0.97


@pytest.mark.parametrize(
    "ink", [(40, 60, 190), (20, 30, 120), (30, 140, 60), (0, 160, 140), (210, 20, 30), (25, 25, 28), (60, 60, 60)]
)
@pytest.mark.parametrize("glass", [(243, 243, 243), (170, 215, 175)])
def test_pen_is_no_tissue(ink, glass):
    picture = draw_glass(glass)
    truth = draw_tissue(picture, (120, 150, 240, 330))
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    draw.line([(20, 30), (380, 60)], fill=ink, width=12)
    draw.ellipse([(20, 150), (110, 260)], outline=ink, width=9)
    agree(tissue_mask(np.asarray(canvas)), truth)


def test_black_scanner_borders_are_no_tissue():
    picture = draw_glass()
    truth = draw_tissue(picture, (80, 100, 220, 300))
    picture[:25] = 3
    picture[:, 370:] = 8
    agree(tissue_mask(picture), truth)


def test_no_border_is_found_inside():
    planes = tuple(np.full((50, 60), 240, np.uint8) for _ in range(3))
    for plane in planes:
        plane[20:30, 20:30] = 0
    assert not find_border(planes).any()


def test_fluorescence_on_black():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 4, (300, 400, 3)).astype(np.uint8)
    truth = draw_tissue(picture, (80, 100, 220, 300), colour=(5, 10, 90), contrast=30, absorb=False)
    assert is_dark_field(picture)
    agree(tissue_mask(picture), truth)


def test_all_black_is_empty():
    assert not tissue_mask(np.zeros((200, 300, 3), np.uint8)).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2), (9, 300)])
def test_tiny_pictures(shape):
    mask = tissue_mask(np.full((*shape, 3), 200, np.uint8))
    assert mask.shape == shape
    assert mask.dtype == bool


def test_the_same_picture_gives_the_same_mask():
    picture = draw_glass()
    draw_tissue(picture, (80, 100, 220, 300))
    before = picture.copy()
    assert (tissue_mask(picture) == tissue_mask(picture)).all()
    assert (picture == before).all()


@pytest.mark.parametrize("ink", [(250, 220, 20), (150, 25, 150), (0, 110, 190)])
def test_rarer_inks_are_no_tissue(ink):
    picture = draw_glass()
    truth = draw_tissue(picture, (120, 150, 240, 330))
    picture[20:40, 20:380] = ink
    agree(tissue_mask(picture), truth)


@pytest.mark.parametrize("colour", [(165, 35, 65), (190, 70, 90), (95, 60, 120), (60, 55, 125), (105, 70, 45)])
def test_smooth_dense_tissue_is_no_pen(colour):
    picture = draw_glass(size=(600, 800))
    truth = draw_tissue(picture, (200, 200, 500, 600), colour=colour, contrast=5)
    tissue, pen = find_tissue_and_pen(picture)
    assert not pen.any()
    agree(tissue, truth)


def test_pen_is_found_on_large_pictures_too():
    picture = draw_glass(size=(1200, 2100))
    picture[100:135, :700] = (40, 60, 190)
    tissue, pen = find_tissue_and_pen(picture)
    assert not tissue.any()
    assert pen[100:135, :695].all()
    assert pen.mean() < 0.02


def test_methods_and_thresholds():
    picture = draw_glass()
    faint = draw_tissue(picture, (20, 20, 100, 120), colour=(225, 200, 222), contrast=4)
    dense = draw_tissue(picture, (150, 150, 250, 300), contrast=4)
    agree(tissue_mask(picture), faint | dense)
    agree(examine_picture(picture, "otsu").tissue, dense)
    agree(examine_picture(picture, "fixed", 0.3).tissue, dense)
    agree(examine_picture(picture, "fixed", 0.1).tissue, faint | dense)
    assert examine_picture(picture, "all").tissue.all()
    assert not examine_picture(draw_glass((243, 243, 243)), "fixed", 0.2).tissue.any()


@pytest.mark.parametrize("method", ["otsu", "fixed", "all"])
def test_methods_on_black(method):
    picture = np.zeros((300, 400, 3), np.uint8)
    truth = draw_tissue(picture, (80, 100, 220, 300), colour=(5, 10, 120), contrast=3, absorb=False)
    found = examine_picture(picture, method, 40).tissue
    assert found.all() if method == "all" else (found == truth).mean() > 0.99


@pytest.mark.parametrize("size", [(300, 400), (900, 1300)])
def test_folds_are_the_doubled_part(size):
    picture = draw_glass(size=size)
    draw_tissue(picture, (50, 50, size[0] - 50, size[1] - 50))
    middle = size[0] // 2
    fold = picture[middle - 20 : middle + 20, 100:-100]
    fold[:] = (fold.astype(float) ** 3 / 243**2).astype(np.uint8)
    found = examine_picture(picture, folds=True).fold
    assert found[middle - 12 : middle + 12, 110:-110].mean() > 0.95
    found[middle - 26 : middle + 26] = False
    assert found.mean() < 0.001
    assert not examine_picture(picture).fold.any()


def test_gaps_up_to_the_given_width_are_tissue():
    picture = draw_glass()
    truth = draw_tissue(picture, (50, 50, 250, 350))
    glass = draw_glass()
    picture[100:124, 100:124] = glass[100:124, 100:124]
    picture[150:210, 200:260] = glass[150:210, 200:260]
    mask = examine_picture(picture, gap=32).tissue
    assert mask[100:124, 100:124].all()
    assert not mask[155:205, 205:255].any()
    truth[150:210, 200:260] = False
    agree(mask, truth)
    assert not examine_picture(picture).tissue[105:119, 105:119].any()


def test_gaps_are_closed_neither_over_pen_nor_between_far_pieces():
    picture = draw_glass()
    draw_tissue(picture, (50, 50, 250, 150))
    draw_tissue(picture, (50, 200, 250, 350))
    picture[120:150, 50:350] = (40, 60, 190)
    found = examine_picture(picture, gap=32)
    assert found.pen[122:148, 55:345].all()
    assert not (found.tissue & found.pen).any()
    assert not found.tissue[55:110, 158:192].any()


@pytest.mark.parametrize("glass", [(243, 243, 243), (170, 215, 175)])
def test_the_mask_ends_where_the_tissue_ends(glass):
    picture = draw_glass(glass)
    truth = draw_tissue(picture, (80, 100, 220, 300))
    mask = tissue_mask(picture)
    assert not mask[~truth].any()
    assert mask[84:216, 104:296].all()


def test_gaps_on_black_are_closed_too():
    picture = np.zeros((300, 400, 3), np.uint8)
    draw_tissue(picture, (80, 100, 220, 300), colour=(5, 10, 120), contrast=3, absorb=False)
    picture[120:140, 150:170] = 0
    assert not examine_picture(picture).tissue[123:137, 153:167].any()
    assert examine_picture(picture, gap=30).tissue[120:140, 150:170].all()


def test_a_megapixel_costs_little():
    picture = draw_glass(size=(1000, 1000))
    draw_tissue(picture, (200, 200, 700, 800))
    image = Image.fromarray(picture)

    def measure(work):
        costs = []
        for _ in range(4):
            start = time.process_time()
            work()
            costs.append(time.process_time() - start)
        return min(costs)

    # a busy machine slows both alike; one small blur is 0.03 s of CPU
    blur = measure(lambda: image.filter(ImageFilter.BoxBlur(1)))
    assert measure(lambda: tissue_mask(picture)) < 5 * blur
