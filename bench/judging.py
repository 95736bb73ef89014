"""What shapes_quality.py and cifar10_quality.py share: outliers before a judge, over S and w.

A judge is a supervised classifier that no part of a bundle has seen. It classifies outliers of test images that
it classifies right. The control is the same images and noise under the RIGHT label. Writes a table as Markdown,
its numbers as JSON and its curves as SVG. An interrupted sweep continues.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdviz import data  # noqa: E402
from sdviz.bundle import Bundle  # noqa: E402
from sdviz.bundle.labels import source_labels  # noqa: E402
from sdviz.evaluation import background_psnr, share_changed  # noqa: E402
from sdviz.outliers import draw_target_labels  # noqa: E402
from sdviz.scan.metrics import agreement  # noqa: E402

S_GRID = (50, 100, 150, 200, 300, 400, 600)
W_GRID = (0.0, 1.0, 2.0, 4.0)
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sdviz"


@dataclass(frozen=True)
class Study:
    """One set and its judge.

    Attributes:
        name: Of the set, of the bundle in checkpoints/ and of the files.
        title: Of the report.
        judge: Classifies images uint8 (N,H,W,3): int64 (N,).
        min_accuracy: Of the judge on the test images, a share.
        masks: The object in the images with these ids, bool (N,H,W); None without masks.
        distance: What `psnr_db` is of, for the report's list.
        bars: At least this shift, at most this control_shift, at least this psnr_db, each where it is named.
    """

    name: str
    title: str
    judge: Callable[[np.ndarray], np.ndarray]
    min_accuracy: float
    masks: Callable[[np.ndarray], np.ndarray] | None
    distance: str
    bars: dict[str, float]

    def holds(self, row: dict[str, Any]) -> dict[str, bool]:
        """Which bars hold."""
        at_most = ("control_shift",)
        return {k: row[k] <= bar if k in at_most else row[k] >= bar for k, bar in self.bars.items()}


def measure(
    study: Study, bundle: Bundle, images: data.ImageSet, s: int, w: float, solver: str, steps: int
) -> dict[str, Any]:
    """Makes outliers and controls of all images at one S and w: one row of the table."""
    # the bundle's clusters, matched to the judge's classes
    labels, _ = source_labels(bundle, images)
    object_of = agreement(labels, images.labels, bundle.n_clusters, len(images.class_names)).matching
    targets = draw_target_labels(labels, images.ids, bundle.n_clusters, seed=0)
    none = np.zeros(images.images.shape[:3], bool)
    masks = study.masks(images.ids) if study.masks else none
    recipe = {"start_timestep": s, "guidance_scale": w, "solver": solver, "num_inference_steps": steps}
    started = time.perf_counter()
    wrong, right = (
        bundle.generate(images.images, labels, target_labels=t, ids=images.ids, **recipe).outliers
        for t in (targets, labels)
    )
    seconds = time.perf_counter() - started
    seen = study.judge(wrong)
    # infinite for what is unchanged, which does not occur from S=50 on
    psnr, control_psnr = (background_psnr(images.images, x, masks) for x in (wrong, right))
    assert np.isfinite(psnr).all() and np.isfinite(control_psnr).all()
    return {
        "S": s,
        "sigma": round(bundle.schedule.sigma(s), 3),
        "w": w,
        "solver": solver,
        "steps": steps,
        "shift": share_changed(images.labels, seen),
        "called_target": float((seen == object_of[targets]).mean()),
        "control_shift": share_changed(images.labels, study.judge(right)),
        "psnr_db": float(psnr.mean()),
        "psnr_p5_db": float(np.percentile(psnr, 5)),
        "control_psnr_db": float(control_psnr.mean()),
        "images_per_sec": 2 * len(images) / seconds,
    }


def markdown(study: Study, result: dict[str, Any]) -> str:
    """Writes the report as Markdown."""
    d, n = result["defaults"], result["n_images"]
    holds = study.holds(d)
    texts = {
        "shift": ("shift", "at least {:.0%}", "{:.1%}"),
        "control_shift": ("control", "at most {:.0%}", "{:.1%}"),
        "psnr_db": ("distance", "at least {:.0f} dB", "{:.1f} dB"),
    }
    lines = [
        f"# {study.title}",
        "",
        f"`python bench/{study.name}_quality.py --bundle {result['bundle']}` over the first {n:,} images of a",
        f"fixed permutation of `{study.name}` test that the judge classifies right. The judge, a classifier",
        f"of this script, is {result['judge_accuracy']:.2%} right on the {result['n_judged']:,} test images.",
        f"Bundle `{result['bundle_sha256'][:12]}`, {d['solver']} with {d['steps']} steps, {result['device']}.",
        "",
        "- **shift**: outliers whose class by the judge is not that of the original.",
        "- **called c_r**: outliers whose class by the judge is their wrong label.",
        "- **control**: the shift of the same images with the same noise under the RIGHT label.",
        f"- **distance**: PSNR to the original {study.distance}, mean over the images, and the fifth",
        "  percentile; for the control the mean.",
        "",
        "At the bundle's own defaults, against the bars:",
        "",
        "| | measured | bar | |",
        "|---|---|---|---|",
        f"| S, w | {d['S']}, {d['w']:g} | | |",
    ]
    for key, bar in study.bars.items():
        title, wanted, text = texts[key]
        verdict = "holds" if holds[key] else "MISSED"
        lines.append(f"| {title} | {text.format(d[key])} | {wanted.format(bar)} | {verdict} |")
    lines += [
        "",
        f"![shift, control and distance over S]({result['file']}.svg)",
        "",
        "| S | sigma | w | shift | called c_r | control | distance | 5 % | control's |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in result["rows"]:
        lines.append(
            f"| {r['S']} | {r['sigma']:.2f} | {r['w']:g} | {r['shift']:.1%} | {r['called_target']:.1%} |"
            f" {r['control_shift']:.1%} | {r['psnr_db']:.1f} dB | {r['psnr_p5_db']:.1f} dB |"
            f" {r['control_psnr_db']:.1f} dB |"
        )
    if result["solvers"]:
        lines += [
            "",
            "The same S and w by other solvers and numbers of steps:",
            "",
            "| solver | steps | shift | called c_r | control | distance |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {r['solver']} | {r['steps']} | {r['shift']:.1%} | {r['called_target']:.1%} |"
            f" {r['control_shift']:.1%} | {r['psnr_db']:.1f} dB |"
            for r in result["solvers"]
        ]
    return "\n".join(lines) + "\n"


def plot_svg(rows: list[dict[str, Any]], defaults: dict[str, Any]) -> str:
    """Shift and control over S for each w (left), PSNR over S (right), as an SVG."""
    colours = dict(zip(W_GRID, ("#56B4E9", "#0072B2", "#009E73", "#D55E00"), strict=True))
    panels = [("shift (solid) and control (dotted), %", 0, 100, 60), ("PSNR to the original, dB", 15, 45, 500)]
    width, height, top = 360, 240, 40
    max_s = max(r["S"] for r in rows)
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 340" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="900" height="340" fill="white"/>',
    ]

    def place(left: int, low: float, high: float, s: float, value: float) -> str:
        y = top + height * (1 - (min(max(value, low), high) - low) / (high - low))
        return f"{left + width * s / max_s:.1f},{y:.1f}"

    for title, low, high, left in panels:
        parts.append(f'<text x="{left}" y="{top - 14}" font-weight="bold" fill="#1B2430">{title}</text>')
        for k in range(6):
            value = low + (high - low) * k / 5
            y = top + height * (1 - k / 5)
            parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="#E1E6EB"/>')
            parts.append(
                f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#5A6572">{value:.0f}</text>'
            )
        for s in sorted({r["S"] for r in rows}):
            x = left + width * s / max_s
            parts.append(
                f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle" fill="#5A6572">{s}</text>'
            )
        x = left + width * defaults["S"] / max_s
        parts.append(f'<path d="M{x:.1f} {top}v{height}" stroke="#1B2430" stroke-dasharray="4 4"/>')
    for w, colour in colours.items():
        mine = sorted((r for r in rows if r["w"] == w), key=lambda r: r["S"])
        for key, factor, panel, dash in (
            ("shift", 100, 0, ""),
            ("control_shift", 100, 0, ' stroke-dasharray="2 4"'),
            ("psnr_db", 1, 1, ""),
        ):
            _, low, high, left = panels[panel]
            points = " ".join(place(left, low, high, r["S"], factor * r[key]) for r in mine)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"{dash}/>'
            )
    for i, (w, colour) in enumerate(colours.items()):
        x = 60 + 90 * i
        parts.append(f'<path d="M{x} 326h22" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 28}" y="330" fill="#1B2430">w = {w:g}</text>')
    parts.append('<text x="500" y="330" fill="#1B2430">S, noising steps; dashed: the bundle\'s default</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def run(study: Study, doc: str, file: str) -> int:
    """Runs the sweep, writes `file`.md, .json and .svg; with --check the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--bundle", default=f"checkpoints/{study.name}")
    parser.add_argument("--n", type=int, default=1000, help="test images")
    parser.add_argument("--out", default="docs", help="folder of the report")
    parser.add_argument("--defaults-only", action="store_true", help="only the bundle's own S and w")
    parser.add_argument("--solvers", action="store_true", help="also other solvers at the defaults")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a bar is missed")
    args = parser.parse_args()

    bundle = Bundle.load(ROOT / args.bundle if not Path(args.bundle).exists() else args.bundle)
    test = data.load(study.name, "test", limit=4_000)
    right = study.judge(test.images) == test.labels
    accuracy = float(right.mean())
    print(f"The judge is {accuracy:.2%} right on {len(test):,} test images.")
    if accuracy < study.min_accuracy:
        print(f"That is below {study.min_accuracy:.0%}, too low for a judge.")
        return 2
    images = test.take(np.flatnonzero(right)[: args.n])
    d = bundle.manifest.defaults
    solver, steps = d.solver, d.num_inference_steps

    # rows measured before for these weights and images are read from a log
    weights = bundle.manifest.files["unet/diffusion_pytorch_model.safetensors"]
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / f"{study.name}-quality-{weights[:16]}-{len(images)}.jsonl"

    def row(s: int, w: float, solver: str, steps: int) -> dict[str, Any]:
        # read each time, because another process may add rows
        for r in [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []:
            if (r["S"], r["w"], r["solver"], r["steps"]) == (s, w, solver, steps):
                return r
        r = measure(study, bundle, images, s, w, solver, steps)
        with log.open("a") as stream:
            stream.write(json.dumps(r) + "\n")
        print(
            f"S={s:3d} w={w:g} {solver} {steps}: shift {r['shift']:.1%}, called c_r {r['called_target']:.1%}, "
            f"control {r['control_shift']:.1%}, distance {r['psnr_db']:.1f} dB, "
            f"{r['images_per_sec']:.0f} images/s",
            flush=True,
        )
        return r

    at_defaults = row(d.start_timestep, d.guidance_scale, solver, steps)
    others = (("dpmpp_2m", 5), ("dpmpp_2m", 10), ("dpmpp_2m", 20), ("ddim", 10), ("ddim", 20), ("ddpm", 20))
    solvers = [row(d.start_timestep, d.guidance_scale, *o) for o in others] if args.solvers else []
    grid = [] if args.defaults_only else [s for s in S_GRID if s <= bundle.manifest.max_train_timestep]
    rows = [row(s, w, solver, steps) for s in grid for w in W_GRID]
    if rows:
        result = {
            "file": file,
            "bundle": args.bundle,
            "bundle_sha256": bundle.hash,
            "n_images": len(images),
            "n_judged": len(test),
            "judge_accuracy": accuracy,
            "device": f"{bundle.device.type.upper()}, {bundle.inference.description}",
            "defaults": at_defaults,
            "bars": study.bars,
            "rows": rows,
            "solvers": solvers,
        }
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{file}.md").write_text(markdown(study, result))
        (out / f"{file}.json").write_text(json.dumps(result, indent=1) + "\n")
        (out / f"{file}.svg").write_text(plot_svg(rows, at_defaults))
        print(f"Written: {out}/{file}.md, {file}.json, {file}.svg")
    holds = all(study.holds(at_defaults).values())
    print("The bars hold." if holds else "A bar is missed.")
    return 0 if holds or not args.check else 1
