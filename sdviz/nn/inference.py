"""Prepares the noise predictor for fast inference on a device.

The copy made here computes the same function as the trained network in less time: on a CPU in the fastest of
several forms, measured once on the machine; on CUDA as a replayed graph of kernels. A compiler would take a
minute before the first picture on a CPU and be no faster.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional as F

from .device import has_fast_bf16
from .fastest import fastest
from .unet import NoisePredictor

# A batch of up to this many rows is padded to a multiple and replayed as a CUDA graph; with more rows the
# kernels run long enough to hide the cost of launching them.
MAX_GRAPH_ROWS = 128
GRAPH_ROWS_MULTIPLE = 8

# The batch that the forms for a CPU are timed with: four pictures, with and without the condition.
TRIAL_ROWS = 8


@dataclass(frozen=True, eq=False)
class InferenceModel:
    """A noise predictor ready to sample with; any thread may call it.

    Attributes:
        network: On its device, in eval mode, with faster parts.
        description: Precision and form in words, for captions and benches.
        graphs: Replays the network as CUDA graphs; None without them.
    """

    network: NoisePredictor
    dtype: torch.dtype
    description: str
    graphs: CudaGraphs | None = None

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        """Predicts the noise in x, float (N,3,H,W) on the network's device; float32, contiguous.

        Timesteps are 0-based, int64 (N,), class labels int64 (N,), 0..C-1 or null. A row depends on no other
        row, up to rounding.
        """
        run = self.network if self.graphs is None else self.graphs
        x = x.to(self.dtype, memory_format=torch.channels_last)
        return run(x, timesteps, class_labels).to(torch.float32, memory_format=torch.contiguous_format)


def prepare_for_inference(model: NoisePredictor, device: torch.device) -> InferenceModel:
    """Copies the model to the device: on a CPU in its fastest form, elsewhere in bfloat16 if that is fast."""
    if device.type == "cpu":
        forms = {form.description: form for form in cpu_forms()}
        architecture = f"{model} {model.unet.config['sample_size']}"
        subject = f"noise predictor {hashlib.sha256(architecture.encode()).hexdigest()[:16]}"
        name = fastest(subject, {name: partial(_trial, model, form) for name, form in forms.items()})
        return in_form(model, forms[name])
    dtype = torch.bfloat16 if has_fast_bf16(device) else torch.float32
    precision = "bfloat16" if dtype == torch.bfloat16 else "float32 (the device has no fast bfloat16)"
    network = copy.deepcopy(model).eval().requires_grad_(False)
    network = network.to(device, dtype).to(memory_format=torch.channels_last)
    if device.type != "cuda":
        return InferenceModel(network, dtype, precision)
    graphs = CudaGraphs(network, device, dtype)
    try:
        graphs.warm_up()
    except RuntimeError as error:
        # a driver, an allocator or a profiler allows no capture: the same pictures, but slower
        reason = str(error).splitlines()[0]
        return InferenceModel(network, dtype, f"{precision}, no CUDA graphs ({reason})")
    return InferenceModel(network, dtype, f"{precision}, CUDA graphs", graphs)


# --------------------------------------------------------------------------------------------------
# CPU
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """A way to compute the network on a CPU.

    Attributes:
        blocks: "plain", as trained; "rebuilt", with fewer passes over the pictures; "packed", rebuilt with
            oneDNN's packed convolutions.
    """

    dtype: torch.dtype
    blocks: str

    @property
    def description(self) -> str:
        """Precision and blocks, in words."""
        blocks = "packed convolutions" if self.blocks == "packed" else f"{self.blocks} blocks"
        return f"{str(self.dtype).removeprefix('torch.')}, {blocks}"


def cpu_forms() -> list[Form]:
    """The forms that this CPU supports; the first is seldom much slower than the fastest."""
    packed = ["packed"] if has_packed_convolutions() else []
    forms = [Form(torch.float32, blocks) for blocks in ["rebuilt", "plain", *packed]]
    if has_fast_bf16(torch.device("cpu")):
        forms = [Form(torch.bfloat16, blocks) for blocks in [*packed, "rebuilt", "plain"]] + forms
    return forms


def has_packed_convolutions() -> bool:
    """Whether this PyTorch runs oneDNN on an x86 CPU."""
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")


def in_form(model: NoisePredictor, form: Form) -> InferenceModel:
    """A copy of the model on the CPU in that form."""
    network = copy.deepcopy(model).to("cpu").eval().requires_grad_(False)
    # rebuild before rounding, because some parts add weights up
    if form.blocks == "rebuilt":
        _rebuild(network, lambda conv: conv)
    elif form.blocks == "packed":
        _rebuild(network, lambda conv: _PackedConv(conv, form.dtype))
    network = network.to(form.dtype).to(memory_format=torch.channels_last)
    return InferenceModel(network, form.dtype, form.description)


def _trial(model: NoisePredictor, form: Form) -> Callable[[], torch.Tensor]:
    """One call of the model in that form."""
    side = model.unet.config["sample_size"] * model.pixel_unshuffle
    channels = model.unet.config["in_channels"] // model.pixel_unshuffle**2
    zeros = torch.zeros(TRIAL_ROWS, dtype=torch.int64)
    return partial(in_form(model, form), torch.zeros(TRIAL_ROWS, channels, side, side), zeros, zeros)


def _rebuild(module: nn.Module, convolution: Callable[[nn.Conv2d], nn.Module]) -> None:
    """Replaces the parts of a U-Net that have a faster form, in place and recursively.

    Args:
        convolution: Gives the replacement of a convolution. A later `module.to(dtype)` leaves its plain
            tensor attributes as they are.
    """
    for name, part in module.named_children():
        if isinstance(part, ResnetBlock2D) and _is_plain_residual(part):
            setattr(module, name, _Residual(part, convolution))
        elif isinstance(part, Upsample2D) and _is_plain_upsample(part):
            setattr(module, name, _Upsample(part, convolution))
        elif isinstance(part, nn.Conv2d):
            setattr(module, name, convolution(part))
        else:
            _rebuild(part, convolution)
    norm, act = getattr(module, "conv_norm_out", None), getattr(module, "conv_act", None)
    if isinstance(norm, nn.GroupNorm) and isinstance(act, nn.SiLU):
        module.conv_norm_out, module.conv_act = _NormSiLU(norm), nn.Identity()


def _is_plain_residual(block: ResnetBlock2D) -> bool:
    return (
        block.time_embedding_norm == "default"
        and block.time_emb_proj is not None
        and not block.skip_time_act
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1
    )


def _is_plain_upsample(block: Upsample2D) -> bool:
    conv = getattr(block, "conv", None)
    return (
        isinstance(conv, nn.Conv2d)
        and (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
        and block.norm is None
        and block.interpolate
    )


class _PackedConv(nn.Module):
    """A channels-last convolution with weights in oneDNN's own layout.

    `nn.Conv2d` reorders them in every call, which takes longer than the arithmetic of a small batch.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        assert not isinstance(conv.padding, str)
        self.geometry = [list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups]
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight.to(dtype), *self.geometry, None)
        self.bias = None if conv.bias is None else conv.bias.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.geometry, "none", [], ""
        )


class _NormSiLU(nn.Module):
    """Group normalisation, then SiLU, of channels-last pictures.

    PyTorch's channels-last kernel takes several times as long for groups of few channels.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.scale = norm.weight.float().view(1, self.groups, -1)
        self.offset = norm.bias.float().view(1, self.groups, -1)

    def forward(self, x: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        """SiLU(GroupNorm(x + shift)) of x (N,C,H,W); shift is float32 (N,C), one for each channel."""
        n, c, h, w = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        # 1. mean and mean square of each channel; those of x + shift follow without touching a pixel
        mean, square = _channel_means(x), _channel_means(x.square())
        if shift is not None:
            square = torch.addcmul(square, shift, torch.add(shift, mean, alpha=2))
            mean = mean + shift
        # 2. of each group
        mean, square = (m.view(n, self.groups, -1).mean(2, keepdim=True) for m in (mean, square))
        variance = torch.addcmul(square, mean, mean, value=-1).clamp_min_(0)
        # 3. normalisation, affine map and shift are one factor and one summand a channel
        factor = torch.mul((variance + self.eps).rsqrt_(), self.scale)
        summand = torch.addcmul(self.offset, mean, factor, value=-1).view(n, 1, c)
        factor = factor.view(n, 1, c)
        if shift is not None:
            summand.addcmul_(shift[:, None], factor)
        pixels = x.permute(0, 2, 3, 1).view(n, h * w, c)
        y = torch.addcmul(summand.to(x.dtype), pixels, factor.to(x.dtype))
        return F.silu(y, inplace=True).view(n, h, w, c).permute(0, 3, 1, 2)


def _channel_means(x: torch.Tensor) -> torch.Tensor:
    """Means over the pixels, float32 (N,C); of 4x4 blocks first if they fit, which saves a float32 copy."""
    if x.shape[2] % 4 == 0 and x.shape[3] % 4 == 0:
        x = F.avg_pool2d(x, 4)
    return x.mean((2, 3), dtype=torch.float32)


class _Residual(nn.Module):
    """A `ResnetBlock2D` in fewer passes over the pictures."""

    def __init__(self, block: ResnetBlock2D, convolution: Callable[[nn.Conv2d], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = _NormSiLU(block.norm1), _NormSiLU(block.norm2)
        self.conv1, self.conv2 = convolution(block.conv1), convolution(block.conv2)
        self.shortcut = None if block.conv_shortcut is None else convolution(block.conv_shortcut)
        self.time_emb_proj = block.time_emb_proj

    def forward(self, x: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        shift = self.time_emb_proj(F.silu(temb)).float()
        h = self.norm2(self.conv1(self.norm1(x)), shift)
        return self.conv2(h).add_(x if self.shortcut is None else self.shortcut(x))


class _Upsample(nn.Module):
    """Nearest-neighbour upsampling and its 3x3 convolution as four 2x2 ones on the small picture.

    A pixel of the large picture depends on 2x2 pixels of the small one through 3x3 weights. Adding up the
    weights of the same pixel beforehand leaves 4/9 of the multiplications.
    """

    def __init__(self, block: Upsample2D, convolution: Callable[[nn.Conv2d], nn.Module]) -> None:
        super().__init__()
        self.channels = block.conv.weight.shape[0]
        self.phases = nn.ModuleList()
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = _merge_taps(_merge_taps(block.conv.weight, 2, down), 3, right)
            # skip_init: initial weights would be drawn from the global generator
            conv = nn.utils.skip_init(nn.Conv2d, weight.shape[1], weight.shape[0], 2)
            conv.weight = nn.Parameter(weight, requires_grad=False)
            conv.bias = block.conv.bias
            self.phases.append(convolution(conv))

    def forward(self, x: torch.Tensor, output_size: None = None) -> torch.Tensor:
        n, _, h, w = x.shape
        c = self.channels
        large = torch.empty(n, h, 2, w, 2, c, dtype=x.dtype)
        for conv, (down, right) in zip(self.phases, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
            y = conv(F.pad(x, (1 - right, right, 1 - down, down)))
            large[:, :, down, :, right] = y.permute(0, 2, 3, 1)
        return large.view(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


def _merge_taps(weight: torch.Tensor, dim: int, phase: int) -> torch.Tensor:
    """Merges 3 taps over doubled pixels into 2: large pixel 2i sees small i-1, i, i, and 2i+1 i, i, i+1."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([first, middle + last] if phase == 0 else [first + middle, last], dim)


# --------------------------------------------------------------------------------------------------
# CUDA
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Capture:
    """One recorded call: fill the inputs, replay, read `eps`."""

    graph: torch.cuda.CUDAGraph
    x: torch.Tensor
    timesteps: torch.Tensor
    class_labels: torch.Tensor
    eps: torch.Tensor


class CudaGraphs:
    """Replays a network as CUDA graphs, one for each number of rows, recorded at first use.

    A U-Net of this size has some hundred short kernels; launching them one by one keeps the GPU waiting.
    """

    def __init__(self, network: NoisePredictor, device: torch.device, dtype: torch.dtype) -> None:
        self.network, self.device, self.dtype = network, device, dtype
        self._lock = threading.Lock()
        self._captures: dict[tuple[int, ...], _Capture] = {}
        # one memory pool for all: they are never replayed at the same time
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        """As `NoisePredictor.forward`; the result is the caller's own."""
        n = len(x)
        # padding rows keep old inputs, and their results are not read
        rows = -(-n // GRAPH_ROWS_MULTIPLE) * GRAPH_ROWS_MULTIPLE
        if rows > MAX_GRAPH_ROWS:
            return self.network(x, timesteps, class_labels)
        # one lock from inputs to result, so that callers do not mix
        with self._lock, torch.cuda.device(self.device):
            capture = self._capture((rows, *x.shape[1:]))
            capture.x[:n].copy_(x)
            capture.timesteps[:n].copy_(timesteps)
            capture.class_labels[:n].copy_(class_labels)
            capture.graph.replay()
            return capture.eps[:n].clone()

    @torch.no_grad()
    def warm_up(self) -> None:
        """Records the smallest graph; RuntimeError if graphs cannot be recorded."""
        config = self.network.unet.config
        side = config["sample_size"] * self.network.pixel_unshuffle
        channels = config["in_channels"] // self.network.pixel_unshuffle**2
        with self._lock, torch.cuda.device(self.device):
            self._capture((GRAPH_ROWS_MULTIPLE, channels, side, side))

    def _capture(self, shape: tuple[int, ...]) -> _Capture:
        if shape in self._captures:
            return self._captures[shape]
        x = torch.zeros(shape, dtype=self.dtype, device=self.device)
        x = x.contiguous(memory_format=torch.channels_last)
        timesteps = torch.zeros(shape[0], dtype=torch.int64, device=self.device)
        class_labels = torch.zeros_like(timesteps)
        # the first calls choose kernels and allocate workspaces, which is not allowed while recording
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.network(x, timesteps, class_labels)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            eps = self.network(x, timesteps, class_labels)
        self._captures[shape] = _Capture(graph, x, timesteps, class_labels, eps)
        return self._captures[shape]
