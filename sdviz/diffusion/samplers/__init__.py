"""The solvers: each file in this folder has one, as `SAMPLER`."""

from __future__ import annotations

from ...registry import modules_of
from ..sampling import Sampler

SAMPLERS: dict[str, Sampler] = {one.SAMPLER.key: one.SAMPLER for one in modules_of(__name__)}
