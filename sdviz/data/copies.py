"""Finds pictures that repeat another one: exactly, by their pixels, or nearly, by a perceptual hash.

The hash is pHash (Zauner 2010). Pictures of 32 px have the bits of imagehash's `phash`, in a fifth of its time.
Pictures with at most `MOST_BITS` other bits are near copies if their thumbnails correlate and have one colour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .decode import resized

_HASHED_PX, _FREQUENCIES, _THUMBNAIL_PX = 32, 8, 8
# A copy that is encoded, resized or brightened again is within all three. Of the 1.2e9 pairs of CIFAR-10's
# training pictures 479 are, and nearly all of these show one object twice.
MOST_BITS, LEAST_CORRELATION, MOST_SHIFT = 6, 0.9, 40  # the shift in grey levels, of the mean of a channel
# grey levels; below it a thumbnail has no structure to compare
_LEAST_DEVIATION = 1.0
_HASHED_AT_ONCE, _QUERIES_AT_ONCE = 4096, 256


def contents(images: np.ndarray) -> list[bytes]:
    """The SHA-256 of each picture's pixels, uint8 (N,H,W,3)."""
    return [hashlib.sha256(one.tobytes()).digest() for one in images]


@dataclass(frozen=True, eq=False)
class Looks:
    """What is compared of pictures."""

    hashes: np.ndarray  # uint8 (N,8), 64 bits each
    colours: np.ndarray  # float32 (N,3), means of the channels
    thumbnails: np.ndarray  # float32 (N,192) without them, of length 1; zeros if there is no structure

    def __len__(self) -> int:
        return len(self.hashes)

    def near(self, row: int, others: Looks, rows: np.ndarray) -> np.ndarray:
        """Those of some rows of others that look like one row of these."""
        correlation = others.thumbnails[rows] @ self.thumbnails[row]
        shift = np.abs(others.colours[rows] - self.colours[row]).max(1)
        return rows[(correlation >= LEAST_CORRELATION) & (shift <= MOST_SHIFT)]


def look_at(images: np.ndarray) -> Looks:
    """Hashes pictures, uint8 (N,H,H,3), and makes their thumbnails."""
    hashes = np.empty((len(images), _FREQUENCIES**2 // 8), np.uint8)
    colours = np.empty((len(images), 3), np.float32)
    thumbnails = np.empty((len(images), 3 * _THUMBNAIL_PX**2), np.float32)
    # the rows of the DCT-II for the lowest frequencies
    angles = np.pi * np.outer(np.arange(_FREQUENCIES), np.arange(_HASHED_PX) + 0.5) / _HASHED_PX
    dct = np.cos(angles)
    for start in range(0, len(images), _HASHED_AT_ONCE):
        some = slice(start, start + _HASHED_AT_ONCE)
        pictures = resized(images[some], _HASHED_PX)
        # 1. the bits: which low frequencies of the grey picture (as Pillow makes it) are above their median
        red, green, blue = (pictures[..., channel].astype(np.uint32) for channel in range(3))
        grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000 >> 16).astype(np.float64)
        found = (dct @ grey @ dct.T).reshape(len(pictures), -1)
        hashes[some] = np.packbits(found > np.median(found, axis=1, keepdims=True), axis=1)
        # 2. the thumbnail: means of blocks, each channel around its own mean
        edge = _HASHED_PX // _THUMBNAIL_PX
        strips = pictures.reshape(len(pictures), _THUMBNAIL_PX, edge, -1).sum(2, dtype=np.uint16)
        blocks = strips.reshape(len(pictures), _THUMBNAIL_PX, _THUMBNAIL_PX, edge, 3).sum(3, dtype=np.uint16)
        small = blocks.astype(np.float32) / edge**2
        colours[some] = small.mean((1, 2))
        small = (small - colours[some, None, None]).reshape(len(pictures), -1)
        length = np.linalg.norm(small, axis=1, keepdims=True)
        is_flat = length < _LEAST_DEVIATION * np.sqrt(small.shape[1])
        thumbnails[some] = np.where(is_flat, 0, small / np.maximum(length, 1e-6))
    return Looks(hashes, colours, thumbnails)


def near_groups(looks: Looks) -> np.ndarray:
    """The row of the first picture of each one's group of near copies, int64 (N,): its own if it is the first.

    The time grows with the square of N: 1.3 s for 50,000 pictures on one core, 5 s for 100,000.
    """
    first = np.arange(len(looks))
    for row, hits in _hits(looks, looks):
        others = looks.near(row, looks, hits[first[hits] != first[row]])
        if len(others):
            together = np.unique(first[[row, *others]])
            first[np.isin(first, together)] = together[0]
    return first


def near_matches(looks: Looks, others: Looks) -> np.ndarray:
    """The row in `others` of the picture that each one is nearly a copy of, int64 (N,); -1 for none."""
    rows = np.full(len(looks), -1, np.int64)
    for row, hits in _hits(looks, others):
        near = looks.near(row, others, hits)
        if len(near):
            rows[row] = near[(others.thumbnails[near] @ looks.thumbnails[row]).argmax()]
    return rows


def _hits(looks: Looks, others: Looks) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the row of each picture with structure, and rows of others whose hashes are close to its own."""
    import faiss  # takes a third of a second

    rows, columns = (np.flatnonzero(one.thumbnails.any(1)) for one in (looks, others))
    index = faiss.IndexBinaryFlat(_FREQUENCIES**2)
    index.add(others.hashes[columns])
    for start in range(0, len(rows), _QUERIES_AT_ONCE):
        some = rows[start : start + _QUERIES_AT_ONCE]
        ends, _, found = index.range_search(looks.hashes[some], MOST_BITS + 1)
        for i, row in enumerate(some.tolist()):
            hits = columns[found[ends[i] : ends[i + 1]]]
            if len(hits) > (looks is others):  # a picture is close to itself
                yield row, hits
