"""Runs: trainings in numbered folders, which outlive their process and are read by others.

A run is `runs/<number>-<dataset>-<profile>/`, or in the folder SDVIZ_RUNS instead of `runs`, with

    config.yaml     the resolved configuration, which must not be changed
    status.json     `Status`: state, stage, step, ETA, process, place in the queue, error
    stats.jsonl     measurements, one line each: stage, step, total, values, training
    log.txt         events, one line each, and the traceback of a failure
    output.txt      stdout and stderr of a process that `launch` started

and the files of `sdviz.pipeline`. config.yaml and status.json are replaced whole; the others grow by lines.

The pipeline imports torch. Only functions that need it import it, so that listing runs is quick.
"""

from .control import launch, stop
from .folder import Run, create, delete, find, list_runs, runs_root
from .status import OlderFormatError, RunError, Status
from .work import execute

__all__ = [
    "Run",
    "OlderFormatError",
    "RunError",
    "Status",
    "create",
    "delete",
    "execute",
    "find",
    "launch",
    "list_runs",
    "runs_root",
    "stop",
]
