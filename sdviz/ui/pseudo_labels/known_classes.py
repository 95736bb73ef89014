"""Clusters against the images' own classes on Pseudo-labels. Nothing is chosen by them."""

import numpy as np
import streamlit as st

from sdviz.analysis import Evidence
from sdviz.analysis.clusters import AgainstClasses, against_classes
from sdviz.analysis.provenance import provenance
from sdviz.analysis.same_images import find_images
from sdviz.bundle import Bundle
from sdviz.ui.cache.kept import kept
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Heat
from sdviz.ui.pseudo_labels.state import ClusterView
from sdviz.ui.text import plain


@kept("known classes")
def known_classes(evidence: Evidence, ids: np.ndarray) -> np.ndarray:
    """The class of each training image, str (N,), "" where it is unknown."""
    return find_images(evidence.bundle, ids, evidence.sources, False).class_names


@kept("agreement")
def _against(bundle: Bundle, clusters: np.ndarray, classes: np.ndarray) -> AgainstClasses | None:
    return against_classes(clusters, classes, bundle.n_clusters)


def show_truth(clusters: ClusterView, classes: np.ndarray) -> None:
    """Shows accuracy, NMI, ARI and the confusion matrix against the training images' classes, str (N,)."""
    bundle, names = clusters.bundle, clusters.names
    st.subheader("Against the known classes")
    found = _against(bundle, clusters.labels.labels, classes)
    if found is None:
        st.info(
            "No class of a training image is known on this machine: the set has no labels, or is not here. "
            "The clusters do not need any."
        )
        return
    a = found.agreement
    st.caption(
        "Nothing is chosen by these numbers: no cluster, image, setting or threshold. Clusters come from "
        f"{plain(bundle.manifest.labels_from)}"
        + (
            ", so here they only repeat the classes that they were made of."
            if bundle.manifest.labels_from == "ground truth"
            else "; classes are looked at here, and for the names that clusters are shown by."
        )
    )
    columns = st.columns(4)
    columns[0].metric(
        "Accuracy", f"{a.accuracy:.2%}", help="Share of images in the cluster matched to their class."
    )
    columns[1].metric(
        "NMI", f"{a.nmi:.4f}", help="Normalised mutual information, 0 (none) to 1 (the same groups)."
    )
    columns[2].metric("ARI", f"{a.ari:.4f}", help="Adjusted Rand index: 0 by chance, 1 for the same groups.")
    columns[3].metric("Images", f"{a.n_images:,}", help=f"With a known class, of {len(classes):,}.")
    table = found.confusion.astype(np.float64)
    show_chart(
        Chart(
            "Clusters against known classes",
            "known class",
            "cluster",
            [Heat("images", found.class_names, list(names), table, ",.0f", from_top=True)],
            height=max(320, 60 + 30 * len(names)),
        ),
        provenance(bundle),
        key="pseudo_labels_confusion",
        caption="Rows are clusters, columns known classes, numbers are images. Clusters are matched to classes "
        "one to one so that most images agree (Hungarian method); the matched pairs stand on the diagonal.",
    )
    wrong = a.n_images - round(a.accuracy * a.n_images)
    spare = [name for name, match in zip(names, found.matched, strict=True) if not match]
    extra = f" No class is left for {', '.join(plain(one) for one in spare)}." if spare else ""
    st.caption(
        f"{wrong:,} of {a.n_images:,} images are in a cluster that is not matched to their class.{extra}"
    )
