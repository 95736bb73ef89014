"""Checks the images of a run before it begins."""

from sdviz import data
from sdviz.config.tree import RunConfig
from sdviz.data.check import Check
from sdviz.ui.cache.background import Task, start
from sdviz.ui.cache.kept import Store, store


def start_check(config: RunConfig) -> Task[Check]:
    """Reads the images of a run and finds copies, once for each choice of images; raises as the run would."""
    checks: Store[Task[Check]] = store("checks")
    tree = config.model_dump_json(include={"data", "evaluation", "seed"})
    key = (tree, config.detector is None, str(data.data_root()))
    found = checks.get(key)
    if found is not None and found.error is not None:
        checks.drop(key)  # what was missing may be there now
        found = None
    return found or checks.put(key, start("checks", lambda task: _check(config)))


def _check(config: RunConfig) -> Check:
    from sdviz.pipeline.planning.check import check_config  # slow: it imports accelerate and more

    return check_config(config)
