from __future__ import annotations

import errno

import pytest
import torch

from sdviz.config.tree import RunConfig
from sdviz.data import DataError
from sdviz.runs.reasons import reason

CONFIG = RunConfig.model_validate({"data": {"id": "shapes"}, "encoder": {}, "detector": {"batch_size": 96}})


def an_allocation_that_cannot_be() -> BaseException:
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("stage", "helps"),
    [
        ("encoder", "encoder.simclr.batch_size (now 256)"),
        ("pseudo_labels", "labels.scan.batch_size (now 256)"),
        ("diffusion", "diffusion.batch_size (now 64)"),
        ("outliers", "outliers.batch_size (now 64)"),
        ("detector", "detector.batch_size (now 96)"),
        ("features", "data.limit"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        an_allocation_that_cannot_be(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_says_what_to_lower(error: BaseException, stage: str, helps: str) -> None:
    assert reason(error, stage, CONFIG) == (
        f"out of memory in stage {stage}: start a new run with a lower {helps}, or on another device"
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a/state.pt"),
            "no space left on the disk for a/state.pt: make room, then resume",
        ),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "no space left on the disk: make room, then resume",
        ),
        (
            RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/3"),
            "the state could not be written whole, as on a full disk: make room, then resume",
        ),
        (DataError("pets: no image\nat all"), "pets: no image at all"),
        (ValueError("odd value"), "ValueError: odd value"),
        (KeyError("loss"), "KeyError: 'loss'"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_other_reasons(error: BaseException, expected: str) -> None:
    assert reason(error, "diffusion", CONFIG) == expected
