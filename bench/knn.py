"""Times exact nearest neighbours against faiss's flat index.

    python bench/knn.py [--queries 10000] [--references 100000] [--dim 384] [--k 10] [--repeats 5] [--json FILE]

The peer is `faiss.IndexFlatL2.search` over the same float32 features, in the same process, on the same threads.
It computes squared distances in float32 as |q|^2 + |r|^2 - 2 <q, r>; ours are computed again from the
differences. The two sides take turns, with new queries for each pair, and a ratio is the median over the pairs.
Building the index is not timed. Wall time and processor time (of all threads) must both meet the bar; other
work on the machine moves processor time less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import in_own_process, load_average, process_memory, summary, write_json

from sdviz.detection.knn import NeighbourSearch
from sdviz.nn.device import device_name

CPU_BAR, CUDA_BAR = 1.1, 20
# kinds of unit features, and the spread of their clusters: no clusters, and ten tight ones as after training
KINDS = {"spread": None, "clusters": 0.01}
N_CLUSTERS = 10
MEMORY_QUERIES = (1_000, 10_000)


def draw(kind: str, n: int, dim: int, seed: int) -> np.ndarray:
    """Unit features, float32 (n,dim)."""
    rng = np.random.default_rng([seed, n])
    spread = KINDS[kind]
    x = rng.standard_normal((n, dim), np.float32)
    if spread is not None:
        centres = np.random.default_rng(0).standard_normal((N_CLUSTERS, dim), np.float32)
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        x *= spread
        x += centres[rng.integers(N_CLUSTERS, size=n)]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


@dataclass(frozen=True)
class Pairs:
    """Times of the two sides, and the difference of their answers.

    Attributes:
        cpu_ratio: Of processor time.
        wrong_rows: Share of the peer's neighbours that are not ours.
        peer_error: The largest error of the peer's distances.
        our_error: The largest error of ours.
    """

    kind: str
    peer_sec: float
    ours_sec: float
    ratio: float
    ratio_min: float
    ratio_max: float
    cpu_ratio: float
    repeats: int
    wrong_rows: float
    peer_error: float
    our_error: float


def seconds(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall time and processor time of a call, and its result."""
    started, worked = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - started, time.process_time() - worked, result


def error(distances: np.ndarray, rows: np.ndarray, queries: np.ndarray, references: np.ndarray) -> float:
    """The largest difference to the distances in float64."""
    worst = 0.0
    for i in range(0, len(queries), 512):
        there = references[rows[i : i + 512]].astype(np.float64)
        true = np.sqrt(((queries[i : i + 512, None] - there) ** 2).sum(2))
        worst = max(worst, float(np.abs(true - distances[i : i + 512]).max()))
    return worst


def compare(args: argparse.Namespace, kind: str, device: str) -> Pairs:
    """Times both sides on the same queries; they begin in turn."""
    references = draw(kind, args.references, args.dim, 1)
    index = faiss.IndexFlatL2(args.dim)
    index.add(references)
    search = NeighbourSearch(references, device=device)
    warm = draw(kind, 64, args.dim, 2)
    index.search(warm, args.k), search.search(warm, args.k)
    times, works, wrong, errors = [], [], [], []
    for i in range(args.repeats):
        queries = draw(kind, args.queries, args.dim, 3 + i)
        sides: dict[str, Callable[..., Any]] = {"faiss": index.search, "ours": search.search}
        taken, worked, answers = {}, {}, {}
        for name in sorted(sides, reverse=i % 2 == 1):
            call = partial(sides[name], queries, args.k)
            taken[name], worked[name], answers[name] = seconds(call)
        times.append((taken["faiss"], taken["ours"]))
        works.append(worked["ours"] / worked["faiss"])
        (squares, theirs), (distances, rows) = answers["faiss"], answers["ours"]
        if i == 0:
            wrong = [len(set(a) - set(b)) / args.k for a, b in zip(theirs.tolist(), rows.tolist(), strict=True)]
            errors = [
                error(np.sqrt(squares), theirs, queries, references),
                error(distances, rows, queries, references),
            ]
    works = statistics.median(works)
    return Pairs(kind, *summary(times), works, len(times), statistics.mean(wrong), *errors)


# --------------------------------------------------------------------------------------------------
# Memory
# --------------------------------------------------------------------------------------------------


def probe_memory(args: argparse.Namespace) -> None:
    """Prints, as JSON, the peak memory of one search above idle; for a process of its own."""
    references = draw("spread", args.references, args.dim, 1)
    queries = draw("spread", args.queries, args.dim, 3)
    if args.probe_memory == "faiss":
        index = faiss.IndexFlatL2(args.dim)
        index.add(references)
        search: Callable[..., Any] = index.search
    else:
        search = NeighbourSearch(references, device="cpu").search
    search(queries[:64], args.k)  # libraries allocate buffers in the first call
    idle = process_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    search(queries, args.k)
    peak = process_memory("VmHWM") - idle
    print(json.dumps({"side": args.probe_memory, "queries": args.queries, "bytes": peak}))


def memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """`probe_memory` of both sides with several numbers of queries."""
    sizes = f"--references={args.references}", f"--dim={args.dim}", f"--k={args.k}"
    return [
        in_own_process(__file__, "--probe-memory", side, *sizes, f"--queries={n}")
        for side in ("faiss", "ours")
        for n in MEMORY_QUERIES
    ]


# --------------------------------------------------------------------------------------------------
# The figures
# --------------------------------------------------------------------------------------------------


def print_pairs(pairs: Pairs, bar: str, met: bool) -> None:
    """One row of the table."""
    print(
        f"| {pairs.kind} | {pairs.peer_sec:.2f} s | {pairs.ours_sec:.2f} s | **{pairs.ratio:.3g}** |"
        f" {pairs.ratio_min:.3g} .. {pairs.ratio_max:.3g} | {pairs.cpu_ratio:.3g} | {pairs.repeats} |"
        f" {pairs.wrong_rows:.2%} | {pairs.peer_error:.1e} | {pairs.our_error:.1e} |"
        f" {bar}: {'met' if met else 'MISSED'} |",
        flush=True,
    )


def main() -> int:
    """Measures and prints; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--references", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5, help="number of pairs")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--probe-memory", choices=("faiss", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.probe_memory:
        probe_memory(args)
        return 0
    print(
        f"{args.queries:,} queries, {args.references:,} references of {args.dim} numbers, k={args.k}."
        f" faiss {faiss.__version__} on {faiss.omp_get_max_threads()} threads, torch {torch.__version__},"
        f" {device_name(torch.device('cpu'))}{load_average()}.\n"
    )
    header = (
        "faiss | ours | ratio | min .. max | of processor time | pairs |"
        " faiss's rows that are not the nearest | faiss's error of distance | ours | bar |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"
    )
    bars, rows = {}, []
    print(f"| CPU | {header}")
    for kind in KINDS:
        pairs = compare(args, kind, "cpu")
        bars[kind] = max(pairs.ratio, pairs.cpu_ratio) <= CPU_BAR
        rows.append(pairs)
        print_pairs(pairs, f"both at most {CPU_BAR:g}", bars[kind])

    memories: list[dict[str, Any]] = []
    if Path("/proc/self/clear_refs").exists():
        memories = memory(args)
        print(
            "\n| peak of a search above idle | " + " | ".join(f"{n:,} queries" for n in MEMORY_QUERIES) + " |"
        )
        print("|---|" + "--:|" * len(MEMORY_QUERIES))
        for side in ("faiss", "ours"):
            cells = [f"{m['bytes'] / 2**20:.0f} MiB" for m in memories if m["side"] == side]
            print(f"| {side} | " + " | ".join(cells) + " |")
        whole = 4 * args.queries * args.references
        print(f"\nAll distances at once would be {whole / 2**20:,.0f} MiB.")
    else:
        print("\nPeak memory: not measured: this system has no /proc/self/clear_refs.")

    cuda = None
    if torch.cuda.is_available():
        print(f"\n| {torch.cuda.get_device_name()} | {header}")
        torch.cuda.reset_peak_memory_stats()
        cuda = compare(args, "spread", "cuda")
        bars["cuda"] = 1 / cuda.ratio >= CUDA_BAR
        print_pairs(cuda, f"{1 / cuda.ratio:.0f} times as fast, at least {CUDA_BAR}", bars["cuda"])
        print(f"\nPeak GPU memory: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB.")
    else:
        print("\nCUDA: not measured: no CUDA.")

    tree = {
        "faiss": faiss.__version__,
        "torch": torch.__version__,
        "threads": faiss.omp_get_max_threads(),
        "sizes": {name: getattr(args, name) for name in ("queries", "references", "dim", "k")},
        "cpu": [asdict(pairs) for pairs in rows],
        "memory": memories,
        "cuda": None if cuda is None else asdict(cuda),
        "bars": bars,
    }
    write_json(args.json, tree)
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
