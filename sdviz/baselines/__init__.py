"""The methods that stand beside the paper's: one file each, one interface.

from sdviz.baselines import BASELINES, Images, Reference

method = BASELINES["knn"]().fit(Reference(Images(features=id_features)))
scores = method.score(Images(features=features))  # float64 (N,), higher is more OOD
"""

from .complexity.input_complexity import InputComplexity
from .complexity.png_size import PNGSize
from .distance.dn2 import DN2
from .distance.knn import KNN
from .distance.ssd import SSD
from .interface import Baseline, BaselineError, Images, Reference
from .logits.energy import Energy
from .logits.entropy import Entropy
from .logits.msp import MSP
from .trained.fake_it import FakeIt
from .trained.mscl import MSCL
from .trained.multiclass_ad import MulticlassAD
from .trained.rot import Rot

_ALL: tuple[type[Baseline], ...] = (
    DN2,
    KNN,
    SSD,
    MulticlassAD,
    MSCL,
    FakeIt,
    Rot,
    MSP,
    Energy,
    Entropy,
    PNGSize,
    InputComplexity,
)
BASELINES: dict[str, type[Baseline]] = {one.key: one for one in _ALL}

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineError",
    "Images",
    "Reference",
    *sorted(one.__name__ for one in _ALL),
]
