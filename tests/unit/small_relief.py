"""A relief of 5 x 7 pixels with holes, shared by the tests of exports and of meshes."""

import numpy as np

PIXEL = 2.5
ROW, COLUMN = np.mgrid[:5, :7]
HEIGHT = 3.0 * np.sin(0.9 * COLUMN) + 0.7 * ROW**1.5 - 1.3 * (COLUMN > 3)
STD = 0.1 + 0.01 * HEIGHT**2
HOLES = HEIGHT.copy()
HOLES[0, 0] = HOLES[2, 3] = HOLES[4, 6] = np.nan
NOTES = {"sample": "grid \u00b5", "settings": {"radius_px": 32, "list": [1, 2.5]}, "line": "a\nb"}
MESHES = ("stl", "ply", "glb")
