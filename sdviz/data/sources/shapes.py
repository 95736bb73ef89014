"""The built-in drawn sets: ten flat object classes in random scenes, and other objects or none in such scenes.

Every value is drawn by a hash of (DRAW_SEED, set, split, index, slot), so splits share no draw and an image
depends only on its id. The bytes are the same on every machine: pixels are computed only by + - * / and sqrt
(which IEEE arithmetic rounds alike everywhere), sines are rounded to multiples of 2^-24 before use, and grey
levels to multiples of 2^-8 before they become uint8.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, reduce

import numpy as np

from ..decode import resized
from ..imageset import DataError, ImageSet, hash_numbers
from ..source import Choose, Source, no_pictures, row_ids
from ..stack import Reading

SIZE_PX = 32
DRAW_SEED = 20261
BATCH = 100  # images; keeps the working arrays in the processor's cache

F32 = np.float32
Sdf = Callable[[np.ndarray, np.ndarray], np.ndarray]


# --- signed distances of the objects: local coordinates, unit radius, negative inside -------------


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)


def _disk(x: np.ndarray, y: np.ndarray, cx: float, cy: float, r: float) -> np.ndarray:
    return _length(x - F32(cx), y - F32(cy)) - F32(r)


def _box(x: np.ndarray, y: np.ndarray, cx: float, cy: float, hx: float, hy: float) -> np.ndarray:
    return np.maximum(np.abs(x - F32(cx)) - F32(hx), np.abs(y - F32(cy)) - F32(hy))


def _convex(x: np.ndarray, y: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    """A convex polygon as the intersection of half-planes; corners counter-clockwise, y up."""
    half_planes = []
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        norm = (ex * ex + ey * ey) ** 0.5
        half_planes.append((x - F32(ax)) * F32(ey / norm) - (y - F32(ay)) * F32(ex / norm))
    return reduce(np.maximum, half_planes)


def _circle_points(n: int, r: float) -> list[tuple[float, float]]:
    angles = np.pi / 2 + 2 * np.pi * np.arange(n) / n
    return [(float(_snap(r * np.cos(a))), float(_snap(r * np.sin(a)))) for a in angles]


def _snap(value: np.ndarray | float) -> np.ndarray:
    """Rounds to multiples of 2^-24, because the last bits of a sine differ between machines."""
    return np.round(np.asarray(value, np.float64) * 2.0**24) / 2.0**24


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The union of five kites that overlap in the middle."""
    outer, inner = _circle_points(5, 1.0), _circle_points(10, 0.44)
    kites = []
    for i, tip in enumerate(outer):
        left, right = inner[(2 * i + 1) % 10], inner[(2 * i - 1) % 10]
        kites.append(_convex(x, y, [(-0.35 * tip[0], -0.35 * tip[1]), right, tip, left]))
    return reduce(np.minimum, kites)


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    body = _convex(x, y, [(0.0, -0.92), (0.87, 0.18), (0.0, 0.62), (-0.87, 0.18)])
    lobes = np.minimum(_disk(x, y, -0.45, 0.42, 0.49), _disk(x, y, 0.45, 0.42, 0.49))
    return np.minimum(body, lobes)


def _arrow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    head = _convex(x, y, [(-0.8, 0.08), (0.8, 0.08), (0.0, 1.0)])
    return np.minimum(head, _box(x, y, 0, -0.45, 0.23, 0.55))


def _bolt(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    upper = _convex(x, y, [(-0.55, -0.12), (0.18, -0.12), (0.42, 1.0), (-0.05, 1.0)])
    lower = _convex(x, y, [(0.55, 0.12), (-0.18, 0.12), (-0.42, -1.0), (0.05, -1.0)])
    return np.minimum(upper, lower)


def _drop(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    tip = _convex(x, y, [(-0.53, -0.12), (0.53, -0.12), (0.0, 1.0)])
    return np.minimum(_disk(x, y, 0, -0.36, 0.58), tip)


def _clover(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    ax, ay = np.abs(x), np.abs(y)
    return np.minimum(_disk(ax, ay, 0.48, 0.48, 0.43), _box(x, y, 0, 0, 0.3, 0.3))


def _chevron(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    ax = np.abs(x)
    return np.maximum(np.abs(y + F32(0.9) * ax - F32(0.4)) * F32(0.743) - F32(0.28), ax - F32(0.88))


ID_OBJECTS: dict[str, Sdf] = {
    "disk": lambda x, y: _disk(x, y, 0, 0, 0.84),
    "ring": lambda x, y: np.abs(_length(x, y) - F32(0.7)) - F32(0.23),
    "square": lambda x, y: _box(x, y, 0, 0, 0.74, 0.74),
    "triangle": lambda x, y: _convex(x, y, _circle_points(3, 1.0)),
    "star": _star,
    "cross": lambda x, y: np.minimum(_box(x, y, 0, 0, 0.94, 0.27), _box(x, y, 0, 0, 0.27, 0.94)),
    "crescent": lambda x, y: np.maximum(_disk(x, y, 0, 0, 0.92), -_disk(x, y, 0.46, 0, 0.74)),
    "heart": _heart,
    "arrow": _arrow,
    "hourglass": lambda x, y: np.maximum(
        (np.abs(x) - F32(0.82) * np.abs(y) - F32(0.07)) * F32(0.77), np.abs(y) - F32(0.86)
    ),
}
NOVEL_OBJECTS: dict[str, Sdf] = {
    "bolt": _bolt,
    "drop": _drop,
    "letter L": lambda x, y: np.minimum(_box(x, y, -0.42, 0, 0.25, 0.9), _box(x, y, 0.05, -0.65, 0.72, 0.25)),
    "letter T": lambda x, y: np.minimum(_box(x, y, 0, 0.62, 0.84, 0.25), _box(x, y, 0, -0.1, 0.25, 0.86)),
    "half disk": lambda x, y: np.maximum(_disk(x, y, 0, -0.35, 0.95), -(y + F32(0.35))),
    "clover": _clover,
}
NOVEL_VAL_OBJECTS: dict[str, Sdf] = {
    "pill": lambda x, y: _length(x, np.maximum(np.abs(y) - F32(0.55), F32(0))) - F32(0.38),
    "chevron": _chevron,
    "letter H": lambda x, y: np.minimum(_box(np.abs(x), y, 0.6, 0, 0.21, 0.86), _box(x, y, 0, 0, 0.5, 0.2)),
    "frame": lambda x, y: np.abs(np.maximum(np.abs(x), np.abs(y)) - F32(0.64)) - F32(0.18),
}

_OBJECTS: dict[str, dict[str, Sdf]] = {
    "shapes": ID_OBJECTS,
    "shapes-novel": NOVEL_OBJECTS,
    "shapes-novel-val": NOVEL_VAL_OBJECTS,
    "shapes-empty": {},
}
SIZES: dict[str, dict[str, int]] = {
    "shapes": {"train": 20_000, "test": 4_000},
    "shapes-novel": {"test": 2_000},
    "shapes-novel-val": {"val": 2_000},
    "shapes-empty": {"test": 2_000},
}
_SET_KEYS = {
    ("shapes", "train"): 1,
    ("shapes", "test"): 2,
    ("shapes-novel", "test"): 3,
    ("shapes-novel-val", "val"): 4,
    ("shapes-empty", "test"): 5,
}


# --- drawing --------------------------------------------------------------------------------------


def _stream_key(name: str, split: str, slot: int) -> int:
    return (DRAW_SEED << 32) + (_SET_KEYS[name, split] << 16) + slot


class _Draws:
    """Uniform draws for some images; each slot is an independent stream."""

    def __init__(self, name: str, split: str, index: np.ndarray) -> None:
        self.name, self.split, self.index = name, split, index.astype(np.uint64)

    def uniform(self, slot: int, width: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """float32 (N,width) in [low,high), from the top 24 bits of each hash, which float32 holds exactly."""
        counters = self.index[:, None] * np.uint64(4096) + np.arange(width, dtype=np.uint64)
        hashes = hash_numbers(counters, _stream_key(self.name, self.split, slot))
        unit = (hashes >> np.uint64(40)).astype(F32) * F32(2.0**-24)
        return unit * F32(high - low) + F32(low)

    def angle(self, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosine and sine of a uniform angle, each float32 (N,1,1)."""
        a = self.uniform(slot, 1)[:, 0].astype(np.float64) * (2 * np.pi)
        return tuple(_snap(f(a)).astype(F32)[:, None, None] for f in (np.cos, np.sin))  # type: ignore[return-value]

    def noise(self, slot: int) -> np.ndarray:
        """float32 (N,32,32,3), mean 0, variance 1: the sum of the four 16-bit parts of a hash."""
        width = SIZE_PX * SIZE_PX * 3
        counters = self.index[:, None] * np.uint64(4096) + np.arange(width, dtype=np.uint64)
        hashes = hash_numbers(counters, _stream_key(self.name, self.split, slot))
        parts = hashes.view(np.uint16).reshape(len(self.index), width, 4)
        total = parts[..., 0].astype(F32)
        for i in (1, 2, 3):
            total += parts[..., i]
        # four uniforms on 0..65535 have the sum's mean 2*65535 and variance 4 * 65536^2 / 12
        return ((total - F32(131070.0)) * F32(3**0.5 / 65536.0)).reshape(-1, SIZE_PX, SIZE_PX, 3)


@lru_cache(maxsize=1)
def _cloud_weights() -> np.ndarray:
    """Smoothstep interpolation weights of five knots at each of 32 pixels: float32 (32,5)."""
    cells = 4
    position = np.arange(SIZE_PX) / (SIZE_PX - 1) * cells
    knot = np.minimum(position.astype(int), cells - 1)
    t = position - knot
    s = t * t * (3 - 2 * t)
    weights = np.zeros((SIZE_PX, cells + 1))
    weights[np.arange(SIZE_PX), knot] = 1 - s
    weights[np.arange(SIZE_PX), knot + 1] = s
    return _snap(weights).astype(F32)


def _clouds(draws: _Draws) -> np.ndarray:
    """A soft random field, interpolated between 5 x 5 knots: float32 (N,32,32) in [-1,1]."""
    knots = draws.uniform(10, 25, -1, 1).reshape(-1, 5, 5)
    w = _cloud_weights()
    # sums in a fixed order: a matrix product may add in another order on another machine
    rows = np.zeros((len(knots), SIZE_PX, 5), F32)
    for j in range(5):
        rows += w[None, :, j, None] * knots[:, j, None, :]
    field = np.zeros((len(knots), SIZE_PX, SIZE_PX), F32)
    for j in range(5):
        field += rows[:, :, j, None] * w[None, None, :, j]
    return field


_GRID = (np.arange(SIZE_PX, dtype=F32) - F32(15.5)) / F32(16)


def _object_sdf_px(
    name: str, draws: _Draws, labels: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Signed distance to each image's object in pixels, float32 (N,32,32), and local coordinates."""
    objects = list(_OBJECTS[name].values())
    radius = draws.uniform(1, 1, 6.5, 10.0)[:, 0]
    room = F32(14.5) - radius
    centre = draws.uniform(2, 2, -1, 1) * np.minimum(room, F32(6.0))[:, None]
    cos, sin = draws.angle(3)
    pixel = np.arange(SIZE_PX, dtype=F32) - F32(15.5)
    dx = (pixel[None, None, :] - centre[:, 0, None, None]) / radius[:, None, None]
    dy = (centre[:, 1, None, None] - pixel[None, :, None]) / radius[:, None, None]
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    sdf = np.empty(u.shape, F32)
    for label, fn in enumerate(objects):
        rows = np.flatnonzero(labels == label)
        if len(rows):
            sdf[rows] = fn(u[rows], v[rows])
    return sdf * radius[:, None, None], (u, v)


def _labels(name: str, draws: _Draws) -> np.ndarray:
    n_classes = len(_OBJECTS[name])
    if not n_classes:
        return np.full(len(draws.index), -1, np.int64)
    return np.minimum((draws.uniform(0, 1)[:, 0] * n_classes).astype(np.int64), n_classes - 1)


def _background(draws: _Draws) -> tuple[np.ndarray, np.ndarray]:
    """A two-colour gradient with soft clouds: float32 (N,32,32,3) in 0..1, and its mean colour (N,3)."""
    ends = draws.uniform(4, 6, 0.1, 0.9).reshape(-1, 2, 3)
    cos, sin = draws.angle(5)
    ramp = (_GRID[None, None, :] * cos + _GRID[None, :, None] * sin) * F32(0.36) + F32(0.5)
    ramp = ramp[..., None]
    base = ends[:, 0, None, None, :] * (F32(1) - ramp) + ends[:, 1, None, None, :] * ramp
    tint = draws.uniform(6, 3, -0.16, 0.16)
    return base + _clouds(draws)[..., None] * tint[:, None, None, :], (ends[:, 0] + ends[:, 1]) * F32(0.5)


def _object_colour(draws: _Draws, background: np.ndarray) -> np.ndarray:
    """Of six random colours the one furthest from the mean background: float32 (N,3)."""
    candidates = draws.uniform(7, 18, 0.03, 0.97).reshape(-1, 6, 3)
    d = candidates - background[:, None, :]
    distance = d[..., 0] * d[..., 0] + d[..., 1] * d[..., 1] + d[..., 2] * d[..., 2]
    return candidates[np.arange(len(d)), distance.argmax(1)]


def _draw(name: str, split: str, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws the images at `index`: uint8 (N,32,32,3), and their labels int64 (N,)."""
    draws = _Draws(name, split, index)
    labels = _labels(name, draws)
    image, mean_colour = _background(draws)
    if _OBJECTS[name]:
        sdf, (u, v) = _object_sdf_px(name, draws, labels)
        colour = _object_colour(draws, mean_colour)
        shade = draws.uniform(8, 2, -0.16, 0.16)
        light = F32(1) + u * shade[:, 0, None, None] + v * shade[:, 1, None, None]
        painted = colour[:, None, None, :] * light[..., None]
        alpha = np.clip(F32(0.5) - sdf, 0, 1)[..., None]
        image = image + (painted - image) * alpha
    level = image * F32(255) + draws.noise(9) * F32(2.0)
    snapped = np.round(level * F32(256)) * F32(1 / 256)
    return np.clip(np.round(snapped), 0, 255).astype(np.uint8), labels


# --- the sets -------------------------------------------------------------------------------------


@lru_cache(maxsize=len(_SET_KEYS))
def _draw_all(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = _draw_rows(name, split, np.arange(SIZES[name][split]))
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def _draw_rows(name: str, split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_draw`, in batches."""
    parts = [_draw(name, split, rows[i : i + BATCH]) for i in range(0, max(len(rows), 1), BATCH)]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


class Shapes(Source):
    """The drawn sets."""

    order = 0
    built_in = tuple(SIZES)
    mask_px = SIZE_PX
    shades: Mapping[str, int] = {"shapes-novel": 0, "shapes-novel-val": 0, "shapes-empty": 0}

    def splits(self, name: str) -> tuple[str, ...]:
        return tuple(SIZES[name])

    def load(self, name: str, split: str, choose: Choose, reading: Reading) -> ImageSet:
        n = SIZES[name][split]
        rows = choose(n)
        if not reading.pictures:
            images, labels = no_pictures(len(rows)), _labels(name, _Draws(name, split, rows))
        elif np.array_equal(rows, np.arange(n)):
            images, labels = _draw_all(name, split)
        else:
            images, labels = _draw_rows(name, split, rows)
        if reading.pictures:
            images = resized(images, reading.size_px)
        ids = row_ids(self.id_prefix(name, split), rows)
        return ImageSet(name, split, images, labels, ids, tuple(_OBJECTS[name]), 0.0)

    def count(self, name: str, split: str) -> int:
        return SIZES[name][split]

    def masks(self, ids: np.ndarray) -> np.ndarray:
        """True where the object covers at least half of the pixel; `shapes-empty` has empty masks."""
        out = np.zeros((len(ids), SIZE_PX, SIZE_PX), bool)
        rows: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for at, one in enumerate(ids.tolist()):
            name, _, rest = one.partition("/")
            split, _, number = rest.partition("/")
            if split not in SIZES.get(name, {}) or not (number.isascii() and number.isdigit()):
                raise DataError(f"no mask for {one!r}: only the drawn sets {', '.join(SIZES)} have masks")
            if int(number) >= SIZES[name][split]:
                raise DataError(f"no such image: {one!r} (there are {SIZES[name][split]})")
            rows.setdefault((name, split), []).append((at, int(number)))
        for (name, split), pairs in rows.items():
            if not _OBJECTS[name]:
                continue
            at_rows, index = np.array(pairs).T
            for i in range(0, len(index), BATCH):
                draws = _Draws(name, split, index[i : i + BATCH])
                out[at_rows[i : i + BATCH]] = _object_sdf_px(name, draws, _labels(name, draws))[0] <= 0
        return out


SOURCE = Shapes()
