"""The 3D view of a relief: WebGL in the page itself, and a shaded picture where there is none."""

from __future__ import annotations

import math

from eclipsjax.report.page import Markup, Picture, escaped, part_html


def relief_view(exaggeration: float, note: str, fallback: Picture) -> Markup:
    """HTML of the view; `scripts()` brings it to life with the maps of the page.

    - `exaggeration`: vertical factor at the beginning. `note`: about the heights shown, a caption's last sentences.
    - `fallback`: what stands there without WebGL or without scripts, and in what mail programs make of the page.
    """
    high = max(math.log2(exaggeration) + 3.0, 4.0)
    return Markup(f"""<div class="tool" id="eclipsjax-relief">
<div class="when-dead"><p>This browser shows no WebGL here, so the relief cannot be turned: the shaded relief stands in
for it. <span data-part="why"></span></p>{part_html(fallback)}</div>
<div class="when-live">
<div class="stage" data-part="stage" tabindex="0" role="img" aria-label="Relief that can be turned; arrow keys turn it,
plus and minus zoom"><canvas data-part="picture"></canvas><canvas data-part="labels"></canvas></div>
<div class="controls">
<label>heights <input type="range" data-part="factor" min="0" max="{high:.6g}" step="0.02"
value="{math.log2(exaggeration):.6g}"> <output data-part="factor-text"></output></label>
<label><input type="radio" name="eclipsjax-colour" value="height" checked> colour by height</label>
<label><input type="radio" name="eclipsjax-colour" value="grey"> mean image</label>
<button type="button" data-part="above">from above</button>
<button type="button" data-part="reset">reset</button>
</div>
<figure><figcaption>Drag to turn; two fingers, or the wheel after a click, to zoom; drag with Shift or two fingers to
move; double click to reset. From above the picture is the flat map: x to the right, y up the image, nothing mirrored.
Lit from the upper left of the screen. {escaped(note)}</figcaption></figure>
</div>
</div>""")
