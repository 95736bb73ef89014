"""Checks the images of a run before it begins."""

from sdviz import data
from sdviz.config.tree import RunConfig
from sdviz.data.check import Check
from sdviz.ui.cache.background import Task, start
from sdviz.ui.cache.kept import Store, store


def start_check(config: RunConfig) -> Task[Check]:
    """Reads the images of a run and finds copies, once for each choice of images until `forget_check`."""
    checks: Store[Task[Check]] = store("checks")
    key = _key(config)
    return checks.get(key) or checks.put(key, start("checks", lambda task: _check(config)))


def forget_check(config: RunConfig) -> None:
    """Makes the next `start_check` read the images again."""
    store("checks").drop(_key(config))


def _key(config: RunConfig) -> tuple[str, bool, str]:
    tree = config.model_dump_json(include={"data", "evaluation", "seed"})
    return tree, config.detector is None, str(data.data_root())


def _check(config: RunConfig) -> Check:
    from sdviz.pipeline.planning.check import check_config  # slow: it imports accelerate and more

    return check_config(config)
