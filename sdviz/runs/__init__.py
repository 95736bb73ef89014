"""Runs: training as numbered folders that survive their process, and that other processes read.

A run is `runs/<number>-<dataset>-<profile>/` (SDVIZ_RUNS names another place than `runs`) with

    config.yaml     the resolved configuration; a changed one is refused
    status.json     `Status`: state, stage, step, ETA, the process at it, its place in the queue, the reason
    stats.jsonl     one line a report: stage, step, total, and what was measured
    log.txt         one line an event, and the traceback of a failure
    output.txt      stdout and stderr of a process that `launch` started

and what `sdviz.pipeline` writes. Files that others read are replaced whole; the others grow by lines.

The pipeline brings torch with it and is imported only where a run is made or worked on, so that looking
at runs is quick.
"""

from .control import launch, stop
from .folder import Run, create, delete, find, list_runs, runs_root
from .status import RunError, RunState, Status
from .work import RESERVE_BYTES, execute

__all__ = [
    "RESERVE_BYTES",
    "Run",
    "RunError",
    "RunState",
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
