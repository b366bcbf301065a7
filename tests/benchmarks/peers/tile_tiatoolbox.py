"""tiatoolbox's Otsu mask and sliding-window extractor, as its documentation has them: 256-px JPEG q90 of level 0."""

import sys
from pathlib import Path

from PIL import Image
from tiatoolbox.tools.patchextraction import get_patch_extractor
from tiatoolbox.wsicore.wsireader import WSIReader
from timing import Clock

path, out = sys.argv[1:]
Path(out).mkdir(parents=True, exist_ok=True)
clock = Clock()
reader = WSIReader.open(path)
mask = reader.tissue_mask(method="otsu", resolution=8, units="mpp")
patches = get_patch_extractor(
    "slidingwindow", input_img=reader, input_mask=mask, patch_size=(256, 256), stride=(256, 256),
    resolution=0, units="level", min_mask_ratio=0.05,
)  # fmt: skip
for index, patch in enumerate(patches):
    Image.fromarray(patch).save(f"{out}/{index}.jpg", quality=90)
clock.tell(index + 1)
