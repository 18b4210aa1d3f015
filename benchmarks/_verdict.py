"""From the cells to tables and to bars that are met or missed."""

from __future__ import annotations

import math
from typing import Any

from _looped import BOTH, LOOP, ONE_PASS
from _scenes import CONDITIONS, HIDING
from _scores import CLOSED, FIGURES, METHODS, PEERS, REFINED, SINGULAR

Cells = dict[tuple[str, str], dict[str, Any]]
LEAST_GAIN = 4.0
HIDING_RATIO = 30.0
# What is asked of Refined: a cell's figure, and its name.
ASKED = {"plane": "heights", "normals": "normals", "steps": "steps", "facets": "facets"}
# Ratios this little above 1 are as good.
_ALIKE = 1.005
# What learns, and beside what it is asked.
_LEARNED = ((ONE_PASS, CLOSED), (LOOP, ONE_PASS), (BOTH, REFINED))


def summary(cells: Cells, names: list[str], condition: str) -> list[str]:
    """Scenes by methods: height error, plane removed (the singular vectors told scale and parabola), %."""
    lines = [
        f"| scene | hidden | {' | '.join(METHODS)} | Refined / best peer |",
        "|---|---|" + "---|" * (len(METHODS) + 1),
    ]
    for name in names:
        if (found := cells.get((name, condition))) is None:
            continue
        scores = [found["scores"][m]["told" if m == SINGULAR else "plane"] for m in METHODS]
        figures = [f"**{v:.3f}**" if v == min(scores) else f"{v:.3f}" for v in scores]
        share = f"{100 * found['hidden_share']:.0f} %"
        lines.append(f"| {name} | {share} | {' | '.join(figures)} | {ratio(found)[0]:.2f} |")
    return lines


def ratio(found: dict[str, Any], figure: str = "plane") -> tuple[float, str]:
    """Refined's error over that of the best peer, and which that is.

    The singular vectors, which were told the truth's scale and parabola, count in heights alone, against Refined told
    the same."""
    scores = found["scores"]
    own = scores[REFINED].get(figure, math.nan)
    others = {m: _over(own, scores[m].get(figure, math.nan)) for m in PEERS if m != SINGULAR}
    if figure == "plane":
        others[SINGULAR] = _over(scores[REFINED]["told"], scores[SINGULAR]["told"])
    known = {m: v for m, v in others.items() if not math.isnan(v)}
    if not known:
        return math.nan, ""
    best = max(known, key=known.__getitem__)
    return known[best], best


def _over(one: float, other: float) -> float:
    """Below .001 (% or deg), where the tables end, all are equal."""
    return math.nan if math.isnan(one) or math.isnan(other) else max(one, 1e-3) / max(other, 1e-3)


def ratios(cells: Cells, names: list[str]) -> list[str]:
    """Refined / best other, in height: scenes by conditions."""
    conditions = [c.label for c in CONDITIONS if any((name, c.label) in cells for name in names)]
    lines = [f"| scene | {' | '.join(conditions)} | least | most |", "|---|" + "---|" * (len(conditions) + 2)]
    for name in names:
        values = [ratio(cells[name, c])[0] if (name, c) in cells else math.nan for c in conditions]
        if all(math.isnan(v) for v in values):
            continue
        told = ["" if math.isnan(v) else f"{v:.2f}" if v <= _ALIKE else f"**{v:.2f}**" for v in values]
        known = [v for v in values if not math.isnan(v)]
        lines.append(f"| {name} | {' | '.join(told)} | {min(known):.2f} | {max(known):.2f} |")
    return lines


def bars(cells: Cells) -> list[str]:
    """What is asked of Refined and of what learns, and where it is missed, by how much."""
    lines = []
    for figure, what in ASKED.items():
        found = {f"{name}, {condition}": ratio(cell, figure) for (name, condition), cell in cells.items()}
        found = {where: v for where, v in found.items() if not math.isnan(v[0])}
        out = [f"{where} ({value:.2f} x {best})" for where, (value, best) in found.items() if value > _ALIKE]
        told = f"- Refined at least as good as the best of the peers in {what}: {len(found) - len(out)} of {len(found)}"
        lines.append(told + " cells" + (f"; **missed**: {'; '.join(out)}" if out else ", met"))
    gains = {
        f"{name}, {c.label}": _over(scores[CLOSED]["plane"], scores[REFINED]["plane"])
        for name in HIDING
        for c in CONDITIONS
        if c.ratio == HIDING_RATIO and (name, c.label) in cells
        for scores in [cells[name, c.label]["scores"]]
    }
    out = [f"{where} ({gain:.1f})" for where, gain in gains.items() if gain < LEAST_GAIN]
    told = f"- Closed form / Refined >= {LEAST_GAIN:g} where relief hides ({', '.join(HIDING)}) at S/N {HIDING_RATIO:g}"
    lines.append(
        f"{told}: {len(gains) - len(out)} of {len(gains)} cells"
        + (f"; **missed**: {'; '.join(out)}" if out else ", met")
    )
    ended = [
        f"{name}, {condition}: {cell['refined']['outcome']} after {cell['refined']['steps']} steps"
        for (name, condition), cell in cells.items()
        if cell["refined"]["outcome"] != "CONVERGED"
    ]
    lines.append(
        f"- Refined converged in {len(cells) - len(ended)} of {len(cells)} cells"
        + (f"; not: {'; '.join(ended)}" if ended else "")
    )
    return lines + [line for one, other in _LEARNED for line in _beside(cells, one, other)]


def _beside(cells: Cells, one: str, other: str) -> list[str]:
    """In how many cells a method is at least as good as another, and how it compares on average."""
    lines = []
    for figure, what in ASKED.items():
        pairs = [
            (c["scores"][one].get(figure, math.nan), c["scores"][other].get(figure, math.nan)) for c in cells.values()
        ]
        overs = [over for pair in pairs if not math.isnan(over := _over(*pair))]
        if overs:
            alike = sum(over <= _ALIKE for over in overs)
            mean = math.exp(sum(map(math.log, overs)) / len(overs))
            told = f"- {one} at least as good as {other} in {what}: {alike} of {len(overs)} cells"
            lines.append(f"{told}; ratio {mean:.2f} (geometric mean), worst {max(overs):.2f}")
    return lines


def missed(cells: Cells) -> dict[tuple[str, str], list[str]]:
    """Scene and condition of the cells in which a peer is nearer -> in which figures."""
    found = {key: [figure for figure in ASKED if ratio(cell, figure)[0] > _ALIKE] for key, cell in cells.items()}
    return {key: figures for key, figures in found.items() if figures}


# What more draws are made with.
MORE_DRAWN = (*(m for m in PEERS if m != SINGULAR), REFINED)


def draws_table(cells: Cells, draws: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    """Root mean square over several draws of the figures that were missed; first, in how many they are missed still."""
    lines = [
        f"| figure | scene | condition | {' | '.join(MORE_DRAWN)} | Refined / best peer |",
        "|---|---|---|" + "---|" * (len(MORE_DRAWN) + 1),
    ]
    lost: dict[str, list[bool]] = {}
    for key, figures in missed(cells).items():
        for figure in figures:
            rms = {m: _rms([entry["scores"][m][figure] for entry in draws[key]]) for m in MORE_DRAWN}
            over = _over(rms[REFINED], min(v for m, v in rms.items() if m != REFINED))
            lost.setdefault(figure, []).append(over > _ALIKE)
            values = " | ".join(f"{rms[m]:.3f}" for m in MORE_DRAWN)
            lines.append(f"| {FIGURES[figure]} | {key[0]} | {key[1]} | {values} | {over:.2f} |")
    told = ", ".join(f"{sum(still)} of {len(still)} in {ASKED[figure]}" for figure, still in lost.items())
    return [f"Missed over these draws as well: {told}.", "", *lines]


def _rms(values: list[float]) -> float:
    return math.sqrt(sum(v**2 for v in values) / len(values))


def full_table(cells: Cells, names: list[str], condition: str) -> list[str]:
    """Every figure of every method under one condition."""
    lines = [f"| scene | method | {' | '.join(FIGURES.values())} |", "|---|---|" + "---|" * len(FIGURES)]
    for name in names:
        if (found := cells.get((name, condition))) is None:
            continue
        for method in METHODS:
            figures = [_written(found["scores"][method].get(figure, math.nan)) for figure in FIGURES]
            lines.append(f"| {name} | {method} | {' | '.join(figures)} |")
    return lines


def _written(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def bound_table(rows: list[dict[str, Any]]) -> list[str]:
    """The Cramer-Rao bound and what is reached."""
    lines = [
        f"| scene | hidden | bound nm | {REFINED} nm | {CLOSED} nm | Refined / bound |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = f"{row['bound']:.4f} | {row[REFINED]:.4f} | {row[CLOSED]:.4f} | {row[REFINED] / row['bound']:.2f}"
        lines.append(f"| {row['scene']} | {100 * row['hidden_share']:.0f} % | {numbers} |")
    return lines
