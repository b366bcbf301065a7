"""histolab's grid tiler with its tissue mask, as its documentation has it: 256-px PNG files of level 0."""

import sys
from pathlib import Path

from histolab.masks import TissueMask
from histolab.slide import Slide
from histolab.tiler import GridTiler
from timing import Clock

path, out = sys.argv[1:]
clock = Clock()
slide = Slide(path, processed_path=out)
tiler = GridTiler(tile_size=(256, 256), level=0, check_tissue=True, tissue_percent=5, suffix=".png")
tiler.extract(slide, extraction_mask=TissueMask())
clock.tell(len(list(Path(out).glob("*.png"))))
