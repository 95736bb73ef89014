"""The clusters of the training images, as Pseudo-labels shows them."""

from dataclasses import dataclass

from sdviz.analysis import PseudoLabels
from sdviz.analysis.clusters import ClusterFacts
from sdviz.ui.cluster_names import cluster_before
from sdviz.ui.library import BundleView


@dataclass(frozen=True, eq=False)
class ClusterView(BundleView):
    """A bundle's clusters."""

    labels: PseudoLabels  # of the training images
    facts: ClusterFacts
    row_of: dict[str, int]  # the row of each training image by its id

    def title(self, cluster: int, word: str = "cluster ") -> str:
        """The name of a cluster in a sentence, with a word before it where it does not begin with "cluster"."""
        return cluster_before(self.names[cluster], word) + self.names[cluster]
