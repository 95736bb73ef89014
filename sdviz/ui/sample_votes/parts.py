"""The parts of Sample votes: the score and its terms, the neighbours, the heads, the map."""

from dataclasses import replace
from html import escape

import streamlit as st

from sdviz.analysis import MissingPart
from sdviz.analysis.provenance import provenance
from sdviz.analysis.rescoring import SetScores
from sdviz.analysis.tables import HALVES, OUTLIERS, TRAIN, or_none
from sdviz.analysis.votes import OTHER, probabilities, shares_below
from sdviz.bundle.generated import GENERATED_OUTLIERS
from sdviz.ui.assets import style
from sdviz.ui.cache.evidence import SEARCHING, start_search
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Bars, Dots
from sdviz.ui.cluster_names import cluster_before
from sdviz.ui.components.picture_grid import Cell, Label, picture_grid
from sdviz.ui.library import uri_of
from sdviz.ui.missing import say_missing
from sdviz.ui.page import EMBEDDINGS, open_page
from sdviz.ui.pictures import ID_COLOUR, OUTLIER_COLOUR, TRAIN_COLOUR, crisp_px, data_uri
from sdviz.ui.sample_votes.state import PAGE, SampleView, group_colour, group_titles, is_own, map_of, source_of
from sdviz.ui.scores import SetsNow
from sdviz.ui.session import opener, set_shared
from sdviz.ui.text import counted, ordinal, plain, short_of_all
from sdviz.ui.theme import mark_colour

BIG_PX, NEIGHBOUR_PX = 192, 96
FREE_PLACE = Cell("", "", "transparent")
POLL_SEC = 0.4


# --- the verdict ----------------------------------------------------------------------------------


def show_verdict(view: SampleView, now: SetsNow) -> None:
    """Shows the picture, the terms of its score by Eq. 6, and what the score means."""
    st.html(style(__name__))
    row = st.container(horizontal=True, gap="medium")
    px = crisp_px(BIG_PX, view.bundle.manifest.image_size)
    left, right = row.container(width=px + 22), row.container(width="stretch")
    with left:
        _picture(view)
    with right:
        if view.parts is None:
            st.info(view.problem)
            return
        _sentence(view, now)
        _sum(view, now.threshold)
        if now.scores is not None:
            _shares_below(view, now.scores)
        elif not now.problem:
            _wait(view)


def _picture(view: SampleView) -> None:
    s = view.sample
    picture = data_uri(view.picture) if view.has_picture else ""
    cell = Cell(picture, s.id, group_colour(view.evidence, s.group))
    picture_grid([cell], 1, key=f"{PAGE}_picture", size_px=BIG_PX)
    title = group_titles(view.evidence).get(s.group, s.group)
    if s.group == OTHER:
        title = "an image of your own" if is_own(s.id) else f"{source_of(s.id)}, no set of this bundle"
    st.caption("  \n".join([plain(title), *_about(view)]))
    if not view.has_picture:
        say_missing(view)


def _about(view: SampleView) -> list[str]:
    s, lines = view.sample, []
    if view.class_name:
        lines.append(f"class: {plain(view.class_name)}")
    if s.group == TRAIN and view.banks is not None:
        name = view.names[int(view.banks.id_labels[s.row])]
        lines.append(cluster_before(name, "cluster: ") + plain(name))
    if s.group in HALVES:
        was, told, target = (plain(view.cluster_name(c)) for c in view.evidence.generated_clusters[s.id])
        if s.group == GENERATED_OUTLIERS:
            lines.append(f"{was}, told {target}")
        else:
            lines += [cluster_before(was, "cluster: ") + was, f"made under the label {told}"]
    if s.group == OUTLIERS:
        lines += [plain(text) for text in outlier_text(view, s.row) if text]
    return lines


def outlier_text(view: SampleView, row: int) -> tuple[str, str]:
    """An outlier's source cluster and wrong label, as "cross, told crescent", and its S and w."""
    banks = view.banks
    assert banks is not None
    was = view.names[int(banks.outlier_labels[row])]
    table = or_none(lambda: view.evidence.outliers)
    if table is None:
        return f"of {was}", ""
    recipe, target = table.recipe(row), view.names[int(table.target_labels[row])]
    how = f"S {recipe.start_timestep} (σ {table.sigma(row):.2f}), w {recipe.guidance_scale:g}"
    return f"{was}, told {target}", how


def _sentence(view: SampleView, now: SetsNow) -> None:
    assert view.parts is not None
    limit, why = now.threshold, now.problem
    total, role = view.parts.total, view.sample.role
    if limit is None:
        st.markdown(f"### Score {total:.4f}")
        if why:
            st.caption(f"No threshold to read it by: {why}.")
        return
    is_flagged = total > limit
    if role == "generated":
        truth = f"{'though ' * is_flagged}made from noise to look like ID"
    elif role == "id":
        truth = "a **false alarm**: it is ID" if is_flagged else "rightly: it is ID"
    elif role in ("near", "far", "validation", "sd"):
        truth = "rightly: it is OOD" if is_flagged else "a **miss**: it is OOD"
    else:
        truth = {"train": "it is of the ID bank", "outlier": "it is of the outlier bank"}.get(role, "")
    verdict = ":red[Called OOD]" if is_flagged else ":blue[Passes as ID]"
    st.markdown(f"### {verdict}{f' · {truth}' if truth else ''}")
    side = (
        f"{total - limit:.4f} above" if is_flagged else f"{limit - total:.4f} below" if total < limit else "at"
    )
    what = now.threshold_means
    st.markdown(f"Its score of **{total:.4f}** is {side} the threshold of **{limit:.4f}** {what}.")


def _sum(view: SampleView, limit: float | None) -> None:
    parts, k = view.parts, view.settings.k
    assert parts is not None
    terms = (
        ("", f"{parts.distance:.4f}", "distance part", f"Σ d² over the {k} nearest ID images, from 0 up"),
        (
            "+",
            f"{parts.alpha * parts.votes:.4f}",
            "vote part",
            f"α × votes = {parts.alpha:g} × {parts.votes}, votes from 0 to {k}",
        ),
        ("=", f"{parts.total:.4f}", "score, Eq. 6", "higher is more OOD"),
        ("", "..." if limit is None else f"{limit:.4f}", "threshold", "above it an image is called OOD"),
    )
    st.html(
        '<div class="votes-sum">'
        + "".join(
            # a sign stays with its number where the window is too narrow for one line
            f"<section>{sign and f'<i>{sign}</i>'}<div><b>{number}</b><span>{name}</span>"
            f"<small>{escape(about)}</small></div></section>"
            for sign, number, name, about in terms
        )
        + "</div>"
    )


def _shares_below(view: SampleView, scores: dict[str, SetScores]) -> None:
    assert view.parts is not None
    shares = shares_below({name: one.total for name, one in scores.items()}, view.parts.total)
    titles = group_titles(view.evidence)
    rows = "".join(
        f"<span>{escape(titles.get(name, name))}</span>"
        f'<div class="bar"><div style="--share:{share:.2f}%;--set:{group_colour(view.evidence, name)}"></div>'
        f"</div><b>{short_of_all(share)}</b>"
        for name, share in shares.items()
    )
    st.html(f'<div class="votes-places">{rows}</div>')
    st.caption("How much of each set it is more OOD than: the share of its scores that lie below this one.")


def _wait(view: SampleView) -> None:
    """Shows the progress of the search that the threshold waits for; reruns the page when it is done."""
    search = start_search(view.evidence, view.settings.normalize)

    def wait() -> None:
        if search.is_done:
            st.rerun()
        st.progress(search.share, f"{SEARCHING}: then the threshold")

    st.fragment(wait, run_every=POLL_SEC, key=f"{PAGE}_wait")()


# --- neighbours -----------------------------------------------------------------------------------


def show_neighbours(view: SampleView) -> None:
    """Shows the k nearest ID images, and the k nearest of ID images and outliers together."""
    banks, near, k = view.banks, view.near, view.settings.k
    if banks is None:
        st.info("This bundle has no banks of features, so it knows no neighbours.")
        return
    if near is None or view.parts is None:
        return
    s = near.scores(k, 0.0)
    id_rows, id_d = s.id_indices[0].tolist(), s.id_distances[0]
    shown = view.show_pictures(banks.id_ids[id_rows].tolist())
    st.markdown(f"##### The {k} nearest ID images make the distance part")
    cells = [
        Cell(
            uri_of(shown, i),
            f"{ordinal(i + 1)}: {banks.id_ids[row]}",
            TRAIN_COLOUR,
            view.names[int(banks.id_labels[row])],
            f"d {id_d[i]:.3f}, d² {id_d[i] ** 2:.4f}",
            id=str(banks.id_ids[row]),
        )
        for i, row in enumerate(id_rows)
    ]
    picture_grid(
        cells, len(cells), key=f"{PAGE}_near_id", size_px=NEIGHBOUR_PX, on_click=opener(f"{PAGE}_near_id")
    )
    st.caption(
        "Training images in the order of their distance d between features, with the cluster of each; "
        f"the d² add up to {view.parts.distance:.4f}. Click one to open it."
    )
    say_missing(shown)
    _show_mixed(view, k, shown.missing)


def _show_mixed(view: SampleView, k: int, said: tuple[str, ...]) -> None:
    banks, near = view.banks, view.near
    assert banks is not None and near is not None
    s = near.scores(k, 0.0)
    votes = int(s.votes[0])
    st.markdown(f"##### {counted(votes, 'vote')} among the {k} nearest of ID images and outliers together")
    if not len(banks.outlier_ids):
        st.caption("This bundle has no outliers in its bank, so there are no votes.")
        return
    neighbours = list(zip(s.mixed_indices[0].tolist(), s.mixed_is_outlier[0].tolist(), strict=True))
    ids = [str((banks.outlier_ids if out else banks.id_ids)[row]) for row, out in neighbours]
    table = or_none(lambda: view.evidence.outliers)
    sources = {row: str(table.source_ids[row]) for row, out in neighbours if out} if table is not None else {}
    shown = view.show_pictures([*ids, *sources.values()])
    images = zip([*ids, *sources.values()], shown.images, shown.found, strict=True)
    picture = {one: data_uri(image) if found else "" for one, image, found in images}
    above, below = [], []
    for i, (row, out) in enumerate(neighbours):
        d = f"d {s.mixed_distances[0, i]:.3f}"
        if out:
            what, how = outlier_text(view, row)
            alt, colour, text, small = f"vote: {ids[i]}", OUTLIER_COLOUR, f"✓ vote: {what}", f"{d}, {how}"
        else:
            alt, colour, text, small = ids[i], TRAIN_COLOUR, view.names[int(banks.id_labels[row])], d
        above.append(Cell(picture[ids[i]], alt, colour, text, small, id=ids[i]))
        source = sources.get(row, "") if out else ""
        below.append(
            Cell(picture[source], source, TRAIN_COLOUR, "its source", id=source) if source else FREE_PLACE
        )
    first = next((outlier_text(view, row)[0] for row, out in neighbours if out), "")
    was, has_target, _ = first.partition(", told ")
    example = f" “{plain(first)}” was made of an image of {plain(was)}." if has_target else ""
    key = f"{PAGE}_near_mixed"
    has_sources = bool(votes and sources)
    picture_grid(
        [*above, *(below if has_sources else [])],
        k,
        key=key,
        size_px=NEIGHBOUR_PX,
        column_names=[Label(ordinal(i + 1)) for i in range(k)],
        on_click=opener(key),
    )
    st.caption(
        "Green outliers are votes that the image is OOD, blue ID images are none. An outlier is a training "
        f"image, noised to step S and denoised under a wrong label.{example}"
    )
    say_missing(replace(shown, missing=tuple(line for line in shown.missing if line not in said)))


# --- heads and place ------------------------------------------------------------------------------


def show_heads(view: SampleView) -> None:
    """Shows the outputs of the three heads as probabilities."""
    st.markdown("##### What the detector's three heads say")
    if not view.heads:
        st.caption("The heads' outputs are not kept for it, and without its picture they cannot be computed.")
        return
    outlier = 100 * float(probabilities(view.heads["g_bin"])[1])
    g_in, g_out = (100 * probabilities(view.heads[name]) for name in ("g_in", "g_out"))
    st.markdown(
        f"**g_bin**: {outlier:.1f} % outlier, {100 - outlier:.1f} % ID  \n"
        f"**g_in**, if it were ID: {plain(view.names[int(g_in.argmax())])}, {g_in.max():.1f} %  \n"
        f"**g_out**, if it were an outlier: of {plain(view.names[int(g_out.argmax())])}, {g_out.max():.1f} %"
    )
    chart = Chart(
        f"Heads for {view.sample.id}",
        "cluster",
        "probability, %",
        [Bars("g_in", view.names, g_in, ID_COLOUR), Bars("g_out", view.names, g_out, OUTLIER_COLOUR)],
        y_range=(0, 105),
        height=340,
    )
    show_chart(
        chart,
        provenance(view.bundle, image=view.sample.id),
        key=f"{PAGE}_heads",
        caption="Softmax of the heads' outputs. They trained the features; the score itself does not use them.",
    )


def show_place(view: SampleView) -> None:
    """Shows the image and its neighbours in the plane of the first two principal components."""
    st.markdown("##### Where it lies among all")
    banks, near = view.banks, view.near
    if banks is None or near is None or view.parts is None:
        st.caption("Without banks of features there is no map.")
        return
    try:
        plane = map_of(view.evidence, view.settings.normalize)
    except MissingPart as error:
        st.caption(f"No map: {error}.")
        return
    titles = group_titles(view.evidence)
    parts = [
        Dots(
            titles.get(name, name),
            xy[:, 0],
            xy[:, 1],
            group_colour(view.evidence, name),
            5,
            texts=plane.ids[name].tolist(),
        )
        for name, xy in plane.places.items()
    ]
    s = near.scores(view.settings.k, 0.0)
    rows, out = s.mixed_indices[0], s.mixed_is_outlier[0]
    for title, chosen, features, ids, colour in (
        ("nearest: ID", rows[~out], banks.id_features, banks.id_ids, TRAIN_COLOUR),
        ("nearest: votes", rows[out], banks.outlier_features, banks.outlier_ids, OUTLIER_COLOUR),
    ):
        if len(chosen):
            xy = plane.place(features[chosen])
            parts.append(Dots(title, xy[:, 0], xy[:, 1], colour, 9, True, texts=ids[chosen].tolist()))
    assert view.features is not None
    xy = plane.place(view.features[None])
    parts.append(
        Dots("this image", xy[:, 0], xy[:, 1], mark_colour(), 15, True, "star", texts=[view.sample.id])
    )
    shares = 100 * plane.explained
    chart = Chart(
        f"Place of {view.sample.id}",
        f"1st principal component, {shares[0]:.0f} %",
        f"2nd, {shares[1]:.0f} %",
        parts,
        height=470,
    )
    n = sum(len(xy) for xy in plane.places.values())
    show_chart(
        chart,
        provenance(view.bundle, image=view.sample.id, k=view.settings.k, unit_length=view.settings.normalize),
        key=f"{PAGE}_map",
        caption=f"The star is this image, ringed are its k nearest of both banks. {n:,} images stand for all. "
        "Two axes do not show all: what is close here need not be a neighbour.",
    )
    if st.button("Open it in Embeddings", key=f"{PAGE}_embeddings", icon=":material/scatter_plot:"):
        set_shared("sample", view.sample.id)
        open_page(EMBEDDINGS)
