"""The ways to colour the points of Embeddings, and the text of each point's hover card."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from sdviz.analysis.tables import OUTLIERS
from sdviz.bundle.generated import GENERATED_OUTLIERS
from sdviz.ui.components.scatter import Colouring, Group, Ramp
from sdviz.ui.embeddings.state import ALARM, MISSED, RIGHT, UNSCORED, Known
from sdviz.ui.pictures import NEUTRAL_COLOUR
from sdviz.ui.theme import cluster_colour, is_dark

BY_SET, BY_CLUSTER, BY_CLASS, FIGURE_3 = "set", "cluster", "class", "as in Figure 3"
BY_SCORE, BY_VOTES, BY_S, BY_VERDICT = "score", "votes", "S of outliers", "right or wrong"
# blue, teal, green, amber: ever lighter, each visible on white and on near-black
RAMP = ("#3A5FB0", "#2A8C9E", "#55AE5B", "#B9BE3C", "#F2B134")
_VERDICT_COLOURS = {RIGHT: NEUTRAL_COLOUR, MISSED: "#AA3377", ALARM: "#56B4E9"}
# the colours of points without a value, close to the background of each theme
_PALE, _DIM = "#C9CFD6", "#4A5563"
# with more different numbers than this there is a ramp instead of groups
MOST_GROUPS = 12

HELP = {
    BY_SET: "Where an image comes from.",
    BY_CLUSTER: "The pseudo-label of a training image or of an outlier's source; for other images the choice "
    "of the head g_in.",
    BY_CLASS: "An image's own class, which training never sees. Outliers have none.",
    FIGURE_3: "As the paper draws them: ID blue, OOD in its set's colour, SD outliers by the cluster of their "
    "source.",
    BY_SCORE: "Eq. 6 under the settings in use: higher is more OOD.",
    BY_VOTES: "How many of the k nearest of ID images and outliers together are outliers.",
    BY_S: "How far an outlier's source was noised: the step S, of 1,000.",
    BY_VERDICT: "Whether the detector calls an image rightly at the threshold in use.",
}


def score_of(name: str) -> str:
    """The way to colour by the scores of an import."""
    return f"score of {name}"


def colour_points(known: Known, way: str) -> Colouring:
    """Colours, groups and legend of all points, for one of `WAYS`, or `score_of` an import."""
    if way in _WAYS:
        return _WAYS[way](known)
    scores = next(scores for name, scores in known.imported_scores.items() if score_of(name) == way)
    return _by_number(way, way, scores, UNSCORED, False, "")


def texts_of(known: Known) -> list[str]:
    """The text of each point's hover card, several lines."""
    p, limit = known.points, known.now.threshold
    scores, votes, verdicts = known.scores, known.votes, known.verdicts
    k = known.settings.k if known.settings else 0
    texts = []
    for i, (one, name) in enumerate(zip(p.ids.tolist(), p.sets.tolist(), strict=True)):
        own, cluster = str(known.classes[i]), known.cluster_name(int(p.clusters[i]))
        if name in (OUTLIERS, GENERATED_OUTLIERS):
            target = known.cluster_name(int(p.target_labels[i]))
            lines = [f"{cluster}, told {target}" if cluster and target else "SD outlier"]
            if p.start_timesteps[i] >= 0:
                lines.append(f"S = {p.start_timesteps[i]}")
        else:
            lines = [own or known.title_of(name)]
            if cluster:
                lines.append(f"{'taken for' if p.scored_rows[i] >= 0 else 'cluster'} {cluster}")
        if not np.isnan(scores[i]):
            above = "" if limit is None else f", {'above' if scores[i] > limit else 'below'} {limit:.3g}"
            lines.append(f"score {scores[i]:.3g}{above}")
            lines.append(f"{int(votes[i])} of {k} votes: {verdicts[i]}")
        theirs = known.imported_scores.items()
        lines += [f"{score_of(name)} {values[i]:.3g}" for name, values in theirs if not np.isnan(values[i])]
        texts.append("\n".join([*lines, known.title_of(name), one]))
    return texts


def _unknown_colour() -> str:
    return _DIM if is_dark() else _PALE


def edges_of(known: Known) -> np.ndarray:
    """The colour of each point's set, uint8 (N,3)."""
    names, inverse = np.unique(known.points.sets, return_inverse=True)
    if not len(names):
        return np.empty((0, 3), np.uint8)
    return np.array([_rgb(known.colour_of(str(name))) for name in names], np.uint8)[inverse]


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _grouped(way: str, labels: Sequence[str], legend: Mapping[str, str]) -> Colouring:
    """Colours points by label. The legend lists the labels that have points."""
    names = np.asarray(labels, dtype=str)
    assert set(names.tolist()) <= legend.keys(), "a label without a place in the legend"
    group = np.zeros(len(names), np.int64)
    rgb = np.zeros((len(names), 3), np.uint8)
    groups: list[Group] = []
    for name, colour in legend.items():
        here = names == name
        if here.any():
            group[here], rgb[here] = len(groups), _rgb(colour)
            groups.append(Group(name, colour, int(here.sum())))
    return Colouring(way, rgb, group, tuple(groups))


def _set_legend(known: Known, sets: Iterable[str]) -> dict[str, str]:
    return {known.title_of(one): known.colour_of(one) for one in sets}


def _by_set(known: Known) -> Colouring:
    sets = known.points.sets.tolist()
    return _grouped(BY_SET, [*map(known.title_of, sets)], _set_legend(known, dict.fromkeys(sets)))


def _by_cluster(known: Known) -> Colouring:
    names, colours = _cluster_legend(known)
    labels = [names[c] for c in known.points.clusters.tolist()]
    return _grouped(BY_CLUSTER, labels, dict(zip(names, colours, strict=True)))


def _cluster_legend(known: Known) -> tuple[list[str], list[str]]:
    """The name and colour of each cluster; the unknown cluster, -1, comes last."""
    # clusters that share a name get their numbers
    names = [f"{n} ({row})" if known.names.count(n) > 1 else n for row, n in enumerate(known.names)]
    return [*names, "unknown"], [*map(cluster_colour, range(len(names))), _unknown_colour()]


def _by_class(known: Known) -> Colouring:
    unknown = "no class known"
    labels = [one or unknown for one in known.classes.tolist()]
    legend = {one: cluster_colour(i) for i, one in enumerate(sorted(set(labels) - {unknown}))}
    return _grouped(BY_CLASS, labels, legend | {unknown: _unknown_colour()})


def _figure_3(known: Known) -> Colouring:
    names, colours = _cluster_legend(known)
    of_outliers = [f"outlier of {name}" for name in names]
    sets = known.points.sets.tolist()
    labels = [
        of_outliers[c] if name == OUTLIERS else known.title_of(name)
        for name, c in zip(sets, known.points.clusters.tolist(), strict=True)
    ]
    legend = _set_legend(known, (one for one in dict.fromkeys(sets) if one != OUTLIERS))
    return _grouped(FIGURE_3, labels, legend | dict(zip(of_outliers, colours, strict=True)))


def _by_number(way: str, title: str, values: np.ndarray, nothing: str, whole: bool, unit: str) -> Colouring:
    """Colours numbers by a ramp, or as groups where there are few whole numbers; NaN is grey."""
    have = ~np.isnan(values)
    some = np.unique(values[have])
    rgb = np.tile(np.array(_rgb(_unknown_colour()), np.uint8), (len(values), 1))
    without = [Group(nothing, _unknown_colour(), int((~have).sum()))] * bool((~have).any())
    if not len(some):
        return Colouring(way, rgb, np.zeros(len(values), np.int64), tuple(without))
    if whole and len(some) <= MOST_GROUPS:
        colours = [f"#{bytes(rgb).hex()}" for rgb in _on_ramp(np.linspace(0, 1, len(some)))]
        legend = {f"{unit}{int(v)}": colour for v, colour in zip(some, colours, strict=True)}
        labels = [nothing if np.isnan(v) else f"{unit}{int(v)}" for v in values]
        return _grouped(way, labels, legend | {nothing: _unknown_colour()})
    # a few extreme values would stretch the ramp
    low, high = np.quantile(values[have], [0.02, 0.98])
    rgb[have] = _on_ramp(np.clip((values[have] - low) / max(high - low, 1e-12), 0, 1))
    groups = (Group("with a score", RAMP[2], int(have.sum())), *without)
    ramp = Ramp(title, f"≤ {low:.3g}", f"≥ {high:.3g}", RAMP)
    return Colouring(way, rgb, (~have).astype(np.int64), groups, ramp)


def _on_ramp(share: np.ndarray) -> np.ndarray:
    stops = np.array([_rgb(one) for one in RAMP], float)
    at = share * (len(stops) - 1)
    low = np.minimum(at.astype(int), len(stops) - 2)
    part = (at - low)[:, None]
    return np.round(stops[low] * (1 - part) + stops[low + 1] * part).astype(np.uint8)


def _by_score(known: Known) -> Colouring:
    limit = known.now.threshold
    title = "score" if limit is None else f"score, threshold {limit:.3g}"
    return _by_number(BY_SCORE, title, known.scores, UNSCORED, False, "")


def _by_s(known: Known) -> Colouring:
    values = np.where(known.points.start_timesteps >= 0, known.points.start_timesteps, np.nan)
    return _by_number(BY_S, "S", values.astype(float), "no outlier", True, "S = ")


def _by_verdict(known: Known) -> Colouring:
    colours = _VERDICT_COLOURS | {UNSCORED: _unknown_colour()}
    return _grouped(BY_VERDICT, known.verdicts.tolist(), colours)


_WAYS: dict[str, Callable[[Known], Colouring]] = {
    BY_SET: _by_set,
    FIGURE_3: _figure_3,
    BY_CLUSTER: _by_cluster,
    BY_CLASS: _by_class,
    BY_SCORE: _by_score,
    BY_VOTES: lambda known: _by_number(BY_VOTES, "votes", known.votes, UNSCORED, True, "votes: "),
    BY_S: _by_s,
    BY_VERDICT: _by_verdict,
}
WAYS = tuple(_WAYS)
