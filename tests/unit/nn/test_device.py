import pytest
import torch

from sdviz.nn.device import device_name, has_fast_bf16, resolve_device


def test_auto_is_cuda_then_mps_then_cpu() -> None:
    if torch.cuda.is_available():
        expected = "cuda"
    elif torch.backends.mps.is_available():
        expected = "mps"
    else:
        expected = "cpu"
    assert resolve_device().type == resolve_device("auto").type == expected


def test_names_and_devices_are_taken_as_they_are() -> None:
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_where_there_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"device '{name}': this machine has 0 CUDA devices"):
        resolve_device(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_only_the_cuda_devices_there_are() -> None:
    count = torch.cuda.device_count()
    assert resolve_device(f"cuda:{count - 1}").index == count - 1
    with pytest.raises(ValueError, match=f"this machine has {count} CUDA devices"):
        resolve_device(f"cuda:{count}")
    assert device_name(resolve_device("cuda")) == torch.cuda.get_device_name()


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")
def test_mps_where_there_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="device 'mps': this machine has no MPS"):
        resolve_device("mps")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not one of auto, cpu, cuda, cuda:N, mps"):
        resolve_device(name)


def test_bf16_is_fast_only_where_it_says_so() -> None:
    assert has_fast_bf16(torch.device("cpu")) in (True, False)
    assert has_fast_bf16(torch.device("meta")) is False


def test_the_cpu_is_named_with_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for n, name in ((1, "CPU (1 thread)"), (3, "CPU (3 threads)")):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n: n)
        assert device_name(torch.device("cpu")) == name
