"""The methods that stand beside the paper's: one file each, one interface.

from sdviz.baselines import BASELINES, Images, Reference

method = BASELINES["knn"]().fit(Reference(Images(features=id_features)))
scores = method.score(Images(features=features))  # float64 (N,), higher is more OOD
"""

from .dn2 import DN2
from .energy import Energy
from .entropy import Entropy
from .fake_it import FakeIt
from .input_complexity import InputComplexity
from .interface import Baseline, BaselineError, Images, Reference
from .knn import KNN
from .mscl import MSCL
from .msp import MSP
from .multiclass_ad import MulticlassAD
from .png_size import PNGSize
from .rot import Rot
from .ssd import SSD

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
