"""Measures whether a detector tells lossless pictures from the same pictures after JPEG.

python bench/compression.py [--bundle checkpoints/cifar10] [--images shapes:test] [--n 1000] [--quality 75]

A detector trained on JPEG images may learn to detect JPEG. Both sides have the same content, so an AUROC of
50 % means that the detector does not see compression. Above 50 %, lossless pictures look more OOD.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdviz import data  # noqa: E402
from sdviz.bundle import Bundle  # noqa: E402
from sdviz.data.decode import through_jpeg  # noqa: E402
from sdviz.detection.metrics import auroc  # noqa: E402
from sdviz.nn.detector import detector_outputs  # noqa: E402


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", default=str(ROOT / "checkpoints" / "cifar10"))
    parser.add_argument("--images", default="shapes:test", help="lossless images")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--quality", type=int, default=75)
    args = parser.parse_args()
    bundle = Bundle.load(args.bundle)
    name, split = data.parse_source(args.images)
    images = data.load(name, split, limit=args.n)
    if images.jpeg_share:
        raise SystemExit(f"{args.images}: {images.jpeg_share:.0%} of the images are JPEG already")
    assert bundle.detector is not None
    sides = [images.images, through_jpeg(images.images, args.quality, "4:2:0")]
    scores = [bundle.scorer.score(bundle.features(one)) for one in sides]
    # g_bin's column 1 is "outlier"
    heads = [detector_outputs(bundle.detector, one, bundle.device).g_bin for one in sides]
    margins = [one[:, 1] - one[:, 0] for one in heads]
    print(f"{len(images)} images of {args.images}, lossless against JPEG {args.quality} 4:2:0 of the same.\n")
    print("| what | AUROC, % |\n|---|--:|")
    for what, lossless, jpeg in (
        ("score", scores[0].total, scores[1].total),
        ("distance", scores[0].distance, scores[1].distance),
        ("votes", scores[0].votes, scores[1].votes),
        ("g_bin", margins[0], margins[1]),
    ):
        print(f"| {what} | {100 * auroc(jpeg, lossless):.1f} |")


if __name__ == "__main__":
    main()
