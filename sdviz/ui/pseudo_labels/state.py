"""The clusters of training or generated images, as Pseudo-labels shows them."""

from dataclasses import dataclass

from sdviz.analysis import PseudoLabels
from sdviz.analysis.clusters import ClusterFacts
from sdviz.ui.cluster_names import cluster_before
from sdviz.ui.library import BundleView


@dataclass(frozen=True, eq=False)
class ClusterView(BundleView):
    """A bundle's clusters."""

    labels: PseudoLabels
    facts: ClusterFacts
    row_of: dict[str, int]  # the row of each image by its id
    generated: bool  # these are the generated images, not the training images

    @property
    def kind(self) -> str:
        """What the images are, as in "training image"."""
        return "generated" if self.generated else "training"

    def title(self, cluster: int, word: str = "cluster ") -> str:
        """The name of a cluster in a sentence, with a word before it where it does not begin with "cluster"."""
        return cluster_before(self.names[cluster], word) + self.names[cluster]
