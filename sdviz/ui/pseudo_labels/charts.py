"""The two charts of the page Pseudo-labels: sizes and confidences."""

import streamlit as st

from sdviz.analysis.clusters import confidence_histogram
from sdviz.analysis.provenance import provenance
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Bars
from sdviz.ui.pictures import ID_COLOUR, NEUTRAL_COLOUR
from sdviz.ui.pseudo_labels.state import ClusterView
from sdviz.ui.text import plain
from sdviz.ui.theme import cluster_colour


def show_charts(clusters: ClusterView, cluster: int) -> None:
    """Shows charts of the clusters' sizes and of the confidence in one cluster, or in all for -1."""
    bundle, labels, names = clusters.bundle, clusters.labels, clusters.names
    if not len(labels.ids):
        return
    columns = st.columns(2, gap="medium")
    with columns[0]:
        st.markdown("**Size of each cluster**")
        even = len(labels.ids) / len(names)
        colours = [
            cluster_colour(one) if cluster == one or cluster < 0 else NEUTRAL_COLOUR
            for one in range(len(names))
        ]
        show_chart(
            Chart(
                "Size of each cluster",
                "cluster",
                "training images",
                [Bars("images", list(names), clusters.facts.sizes, colours)],
                height=300,
            ),
            provenance(bundle),
            key="pseudo_labels_sizes",
            caption=f"Images in each cluster. {even:,.0f} each would be even; one that is much bigger may "
            "hold two kinds of object, one that is empty was never used.",
        )
    with columns[1]:
        of = "all images" if cluster < 0 else clusters.title(cluster, "the cluster ")
        st.markdown("**Confidence**")
        edges, counts = confidence_histogram(
            labels.confidence if cluster < 0 else labels.confidence[labels.labels == cluster]
        )
        bins = [f"{100 * low:.0f}-{100 * high:.0f}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
        show_chart(
            Chart(
                f"Confidence of {of}",
                "confidence, %",
                "training images, logarithmic",
                [Bars("images", bins, counts, ID_COLOUR if cluster < 0 else cluster_colour(cluster), True)],
                log_y=True,
                height=300,
            ),
            provenance(bundle, cluster=None if cluster < 0 else names[cluster]),
            key="pseudo_labels_confidence",
            caption=f"How sure the clusterer is of {plain(of)}; chance is {100 / len(names):.3g} %. The scale "
            "is logarithmic, so that the few unsure ones can be seen.",
        )
