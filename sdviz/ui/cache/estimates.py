"""Estimates how long a run will take."""

from typing import TypeAlias

from sdviz import data
from sdviz.config.tree import RunConfig
from sdviz.text import LineError
from sdviz.ui.cache.background import Task, start
from sdviz.ui.cache.kept import Store, store

# (stage, seconds, bytes on the disk)
Estimate: TypeAlias = list[tuple[str, float, int]]


def start_estimate(config: RunConfig) -> Task[Estimate]:
    """Times a few images on the run's device, once for each configuration; raises what the run would."""
    estimates: Store[Task[Estimate]] = store("estimates")
    key = (config.model_dump_json(), str(data.data_root()))
    found = estimates.get(key)
    if found is not None and found.error is not None:
        estimates.drop(key)  # what was missing may be there now
        found = None
    return found or estimates.put(key, start("estimates", lambda task: _measure(config)))


def _measure(config: RunConfig) -> Estimate:
    from sdviz.pipeline import estimate  # slow: it imports accelerate and more

    # without the device's lock: pages go on meanwhile
    try:
        return [(part.stage, part.seconds, part.bytes) for part in estimate(config)]
    except (OSError, RuntimeError, MemoryError, OverflowError) as error:  # as of networks too large to be made
        raise LineError(error) from error
