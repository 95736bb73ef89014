"""Measures whether SD outliers change the object and keep the background, on shapes with known masks.

python bench/shapes_quality.py [--bundle checkpoints/shapes] [--n 1000] [--out docs] [--check]

A judge (a classifier trained here, at least 98 % right on the test split) classifies outliers over a grid of S
and w, made of test images that it classifies right. The control is the same images and noise under the RIGHT
label. The background is compared outside the object's mask, widened by 2 px. Writes quality.md, quality.json
and quality.svg. An interrupted sweep continues.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdviz import data  # noqa: E402
from sdviz.bundle import Bundle  # noqa: E402
from sdviz.bundle.labels import source_labels  # noqa: E402
from sdviz.config.nodes import ClustererConfig  # noqa: E402
from sdviz.evaluation import background_psnr, share_changed  # noqa: E402
from sdviz.nn.batches import predict  # noqa: E402
from sdviz.nn.classifier import SmallClassifier  # noqa: E402
from sdviz.nn.loop import Execution  # noqa: E402
from sdviz.nn.supervised import train_classifier  # noqa: E402
from sdviz.outliers import draw_target_labels  # noqa: E402
from sdviz.scan.metrics import agreement  # noqa: E402

JUDGE = ClustererConfig(width=24, total_steps=900, max_shift_px=2, colour_jitter=0.3)
JUDGE_SEED = 77
MIN_JUDGE_ACCURACY = 0.98
S_GRID = (50, 100, 150, 200, 300, 400, 600)
W_GRID = (0.0, 1.0, 2.0, 4.0)
BARS = {"shift": 0.80, "control_shift": 0.06, "psnr_db": 25.0}
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sdviz"


class Judge:
    """Classifies images by their object."""

    def __init__(self) -> None:
        key = hashlib.sha256(f"{JUDGE.model_dump_json()} {JUDGE_SEED} 1".encode()).hexdigest()[:12]
        file = CACHE / f"shapes-judge-{key}.safetensors"
        if file.is_file():
            self.network = SmallClassifier(10, JUDGE.width)
            self.network.load_state_dict(load_file(file))
            self.network.eval()
        else:
            train = data.load("shapes", "train")
            print("Training the judge ...", flush=True)
            network = train_classifier(train.images, train.labels, 10, JUDGE, Execution(), JUDGE_SEED)
            assert network is not None
            self.network = network
            CACHE.mkdir(parents=True, exist_ok=True)
            save_file(network.state_dict(), file)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The object in each image, int64 (N,), of images uint8 (N,32,32,3)."""
        return predict(self.network, images)[0]


def measure(
    bundle: Bundle, judge: Judge, images: data.ImageSet, s: int, w: float, solver: str, steps: int
) -> dict[str, Any]:
    """Makes outliers and controls of all images at one S and w: one row of the table."""
    # the bundle's clusters, matched to the judge's ten objects
    labels, _ = source_labels(bundle, images)
    object_of = agreement(labels, images.labels, bundle.n_clusters, len(images.class_names)).matching
    targets = draw_target_labels(labels, images.ids, bundle.n_clusters, seed=0)
    masks = data.masks(images.ids)
    recipe = {"start_timestep": s, "guidance_scale": w, "solver": solver, "num_inference_steps": steps}
    started = time.perf_counter()
    wrong, right = (
        bundle.generate(images.images, labels, target_labels=t, ids=images.ids, **recipe).outliers
        for t in (targets, labels)
    )
    seconds = time.perf_counter() - started
    seen = judge(wrong)
    # infinite for an unchanged background, which does not occur from S=50 on
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
        "control_shift": share_changed(images.labels, judge(right)),
        "psnr_db": float(psnr.mean()),
        "psnr_p5_db": float(np.percentile(psnr, 5)),
        "control_psnr_db": float(control_psnr.mean()),
        "images_per_sec": 2 * len(images) / seconds,
    }


def markdown(result: dict[str, Any]) -> str:
    """Writes the report as Markdown."""
    d, n = result["defaults"], result["n_images"]
    lines = [
        "# What the outliers of the shipped bundle keep and change",
        "",
        f"`python bench/shapes_quality.py --bundle {result['bundle']}` over the first {n:,} images of a fixed",
        "permutation of `shapes` test that the judge classifies right. The judge, a classifier trained by the",
        f"script, is {result['judge_accuracy']:.2%} right on the 4,000 test images.",
        f"Bundle `{result['bundle_sha256'][:12]}`, {d['solver']} with {d['steps']} steps, {result['device']}.",
        "",
        "- **shift**: outliers whose class by the judge is not that of the original.",
        "- **called c_r**: outliers whose class by the judge is their wrong label.",
        "- **control**: the shift of the same images with the same noise under the RIGHT label.",
        "- **background**: PSNR outside the object's mask widened by 2 px, mean over the images, and the fifth",
        "  percentile; for the control the mean.",
        "",
        "At the bundle's own defaults, against the bars:",
        "",
        "| | measured | bar | |",
        "|---|---|---|---|",
        f"| S, w | {d['S']}, {d['w']:g} | | |",
        f"| shift | {d['shift']:.1%} | at least {BARS['shift']:.0%} | {_holds(d['shift'] >= BARS['shift'])} |",
        f"| control | {d['control_shift']:.1%} | at most {BARS['control_shift']:.0%} |"
        f" {_holds(d['control_shift'] <= BARS['control_shift'])} |",
        f"| background | {d['psnr_db']:.1f} dB | at least {BARS['psnr_db']:.0f} dB |"
        f" {_holds(d['psnr_db'] >= BARS['psnr_db'])} |",
        "",
        "![shift, control and background over S](quality.svg)",
        "",
        "| S | sigma | w | shift | called c_r | control | background | 5 % | control's |",
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
            "| solver | steps | shift | called c_r | control | background |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {r['solver']} | {r['steps']} | {r['shift']:.1%} | {r['called_target']:.1%} |"
            f" {r['control_shift']:.1%} | {r['psnr_db']:.1f} dB |"
            for r in result["solvers"]
        ]
    return "\n".join(lines) + "\n"


def _holds(value: bool) -> str:
    return "holds" if value else "MISSED"


def plot_svg(rows: list[dict[str, Any]], defaults: dict[str, Any]) -> str:
    """Shift and control over S for each w (left), background PSNR over S (right), as an SVG."""
    colours = dict(zip(W_GRID, ("#56B4E9", "#0072B2", "#009E73", "#D55E00"), strict=True))
    panels = [("shift (solid) and control (dotted), %", 0, 100, 60), ("background PSNR, dB", 15, 45, 500)]
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


def main() -> int:
    """Runs the sweep; with --check the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="checkpoints/shapes")
    parser.add_argument("--n", type=int, default=1000, help="test images")
    parser.add_argument("--out", default="docs", help="folder of the report")
    parser.add_argument("--defaults-only", action="store_true", help="only the bundle's own S and w")
    parser.add_argument("--solvers", action="store_true", help="also other solvers at the defaults")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a bar is missed")
    args = parser.parse_args()

    bundle, judge = Bundle.load(ROOT / args.bundle if not Path(args.bundle).exists() else args.bundle), Judge()
    test = data.load("shapes", "test", limit=4_000)
    right = judge(test.images) == test.labels
    accuracy = float(right.mean())
    print(f"The judge is {accuracy:.2%} right on {len(test):,} test images.")
    if accuracy < MIN_JUDGE_ACCURACY:
        print(f"That is below {MIN_JUDGE_ACCURACY:.0%}, too low for a judge.")
        return 2
    images = test.take(np.flatnonzero(right)[: args.n])
    d = bundle.manifest.defaults
    solver, steps = d.solver, d.num_inference_steps

    # rows measured before for these weights and images are read from a log
    weights = bundle.manifest.files["unet/diffusion_pytorch_model.safetensors"]
    log = CACHE / f"shapes-quality-{weights[:16]}-{len(images)}.jsonl"

    def row(s: int, w: float, solver: str, steps: int) -> dict[str, Any]:
        # read each time, because another process may add rows
        for r in [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []:
            if (r["S"], r["w"], r["solver"], r["steps"]) == (s, w, solver, steps):
                return r
        r = measure(bundle, judge, images, s, w, solver, steps)
        with log.open("a") as stream:
            stream.write(json.dumps(r) + "\n")
        print(
            f"S={s:3d} w={w:g} {solver} {steps}: shift {r['shift']:.1%}, called c_r {r['called_target']:.1%}, "
            f"control {r['control_shift']:.1%}, background {r['psnr_db']:.1f} dB, "
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
            "bundle": args.bundle,
            "bundle_sha256": bundle.hash,
            "n_images": len(images),
            "judge_accuracy": accuracy,
            "device": f"{bundle.device.type.upper()}, {bundle.inference.description}",
            "defaults": at_defaults,
            "bars": BARS,
            "rows": rows,
            "solvers": solvers,
        }
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "quality.md").write_text(markdown(result))
        (out / "quality.json").write_text(json.dumps(result, indent=1) + "\n")
        (out / "quality.svg").write_text(plot_svg(rows, at_defaults))
        print(f"Written: {out}/quality.md, quality.json, quality.svg")
    holds = (
        at_defaults["shift"] >= BARS["shift"]
        and at_defaults["control_shift"] <= BARS["control_shift"]
        and at_defaults["psnr_db"] >= BARS["psnr_db"]
    )
    print("The bars hold." if holds else "A bar is missed.")
    return 0 if holds or not args.check else 1


if __name__ == "__main__":
    sys.exit(main())
