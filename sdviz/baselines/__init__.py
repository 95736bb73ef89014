"""The methods that ours is compared with: one file each (settings, fit, score), in folders by kind.

`BASELINES`, the configuration's `evaluation.baselines` and the tables take every `Baseline` in these folders.

from sdviz.baselines import BASELINES, Images, Reference

method = BASELINES["knn"](k=10).fit(Reference(Images(features=id_features)))
scores = method.score(Images(features=features))  # float64 (N,), higher is more OOD
"""

from ..registry import modules_of
from .interface import Baseline, BaselineError, Images, Reference

BASELINES: dict[str, type[Baseline]] = {
    one.key: one
    for module in modules_of(__name__)
    for one in vars(module).values()
    if isinstance(one, type) and issubclass(one, Baseline) and "key" in vars(one)
}

__all__ = ["BASELINES", "Baseline", "BaselineError", "Images", "Reference"]
