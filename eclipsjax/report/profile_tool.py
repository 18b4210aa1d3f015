"""The profile tool: a line drawn on the map, heights along it with their standard deviation, steps, a CSV file."""

from __future__ import annotations

import numpy as np

from eclipsjax.report.maps import profile_line
from eclipsjax.report.page import Markup, Picture, escaped, part_html

_NUMBERS = (
    ("ends", "heights at A, B"),
    ("length", "length A to B"),
    ("rise", "B less A"),
    ("angle", "angle from A to B"),
    ("step", "step: mean right of the markers less mean left"),
)


def profile_tool(note: str, static: Picture) -> Markup:
    """HTML of the tool; `scripts()` brings it to life with the maps of the page.

    `note`: about the heights shown, a caption's last sentences. `static`: the profile for print and without scripts.
    """
    numbers = "\n".join(f'<div><dt>{name}</dt><dd data-part="{key}"></dd></div>' for key, name in _NUMBERS)
    return Markup(f"""<div class="tool" id="eclipsjax-profile">
<div class="when-live">
<p>Drag on the map to draw a line, or take it by its ends A and B. In the plot, drag the two markers, which lie
around the clearest step at first: what lies between them does not count for it.</p>
<div class="map-box"><canvas data-part="map" role="img" aria-label="Height map on which a line can be drawn"></canvas>
</div>
<canvas class="plot" data-part="plot" role="img" aria-label="Heights along the line"></canvas>
<dl class="numbers">
{numbers}
</dl>
<div class="controls"><button type="button" data-part="save">download CSV</button>
<button type="button" data-part="whole">steepest line again</button></div>
<figure><figcaption>{escaped(note)}</figcaption></figure>
</div>
<div class="when-dead">{part_html(static)}</div>
</div>""")


def default_line(shape: tuple[int, int], azimuth_deg: float, block: int) -> list[float]:
    """`[x0, y0, x1, y1]` of the line along an azimuth through the middle, in pixels of the map's block means."""
    column, row, _ = profile_line(shape, azimuth_deg)
    most = [max(n // block - 1, 0) for n in (shape[1], shape[0])]
    ends = [((p[k] + 0.5) / block - 0.5, limit) for k in (0, -1) for p, limit in ((column, most[0]), (row, most[1]))]
    return [float(np.clip(place, 0, limit)) for place, limit in ends]
