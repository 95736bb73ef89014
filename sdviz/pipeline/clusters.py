"""The stages from images to labelled images: encoder, pseudo_labels, clusterer."""

from __future__ import annotations

import csv
import logging
import re
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from .. import data
from ..config import EncoderConfig, RunConfig
from ..data import DataError, ImageSet
from ..nn.batches import encode, predict
from ..nn.classifier import Classifier, Projection, ScanClassifier, SmallClassifier
from ..nn.encoder import Encoder, build_encoder
from ..nn.unet import build_noise_predictor, n_parameters
from ..scan.classifier_training import accuracy, train_classifier
from ..scan.clustering import kmeans_labels, neighbours_of, train_scan, train_self_labels
from ..scan.metrics import agreement
from ..scan.simclr import train_simclr, train_supervised
from .workspace import Metrics, Progress, Workspace, read_cluster_names, read_labels, write_labels

# of SCAN's evenness, what self-labelling may leave of it
COLLAPSED = 0.85
log = logging.getLogger(__name__)

# --- encoder ----------------------------------------------------------------------------------------


def make_encoder(work: Workspace) -> Metrics | None:
    """Stage `encoder`: the network that clusters are found with; a detector's, too, where that has no own.

    Pre-trained weights first, then labels of another set, then SimCLR on the training images; each where
    the configuration asks for it.

    Raises:
        EncoderError: An unknown network, or weights that cannot be had.
        DataError: Labels that are given and cannot be used: found here, and not behind hours of training.
    """
    if work.config.labels.source in ("ground_truth", "file"):
        _given_labels(work)
    return _train_encoder(work, "encoder", _encoder_config(work))


def make_backbone(work: Workspace) -> Metrics | None:
    """Stage `backbone`: the network that the detector starts from, made as `make_encoder` makes the encoder.

    Raises:
        EncoderError, DataError: As `make_encoder`.
    """
    return _train_encoder(work, "backbone", backbone_config(work.config))


def _train_encoder(work: Workspace, stage: str, config: EncoderConfig) -> Metrics | None:
    """A network by its configuration, in <stage>/encoder.safetensors."""
    out = work.stage_folder(stage)
    encoder = build_encoder(config)
    steps_before = config.pretraining.total_steps if config.pretraining else 0
    total = steps_before + (config.simclr.total_steps if config.simclr else 0)

    # 1. labels of another set
    done_before = out / "pretrained.safetensors"
    if config.pretraining is not None and done_before.is_file():
        encoder.load_state_dict(load_file(done_before))
    elif config.pretraining is not None:
        p = config.pretraining
        other = _labelled(data.load(p.data, p.split, size_px=work.config.data.size_px), p.labels)
        loss = train_supervised(
            encoder,
            other.images,
            other.labels,
            p.views or work.config.views,
            p,
            config.seed,
            out / "pretraining.state.pt",
            work.config.device,
            work.reporter(stage, total),
            work.should_stop,
        )
        if loss is None:
            return None
        _save(encoder, done_before)
    # 2. the images themselves
    if config.simclr is not None:
        projection = train_simclr(
            encoder,
            work.images.images,
            work.config.views,
            config.simclr,
            config.seed,
            out / "simclr.state.pt",
            work.config.device,
            work.reporter(stage, total, steps_before),
            work.should_stop,
        )
        if projection is None:
            return None
        _save(projection, out / "projection.safetensors")
    _save(encoder, out / "encoder.safetensors")
    return {f"{stage}_parameters": n_parameters(encoder), f"{stage}_images_seen": _images_seen(config)}


def backbone_config(config: RunConfig) -> EncoderConfig:
    """The configuration of the network that the detector starts from.

    Raises:
        DataError: There is none.
    """
    own = config.detector.backbone if config.detector is not None else None
    if own is None and config.encoder is None:
        raise DataError("this configuration has no encoder")
    return own or config.encoder or EncoderConfig()


def load_backbone(work: Workspace) -> Encoder:
    """The network that the detector starts from, in eval mode on the CPU."""
    if work.config.detector is None or work.config.detector.backbone is None:
        return load_encoder(work)
    return _load_trained(work, "backbone", work.config.detector.backbone)


def load_encoder(work: Workspace) -> Encoder:
    """The network that stage `encoder` made, in eval mode on the CPU."""
    return _load_trained(work, "encoder", _encoder_config(work))


def _load_trained(work: Workspace, stage: str, c: EncoderConfig) -> Encoder:
    encoder = Encoder(c.arch, c.width, c.input_px)
    encoder.load_state_dict(load_file(work.folder / stage / "encoder.safetensors"))
    return encoder.eval()


def _encoder_config(work: Workspace) -> EncoderConfig:
    if work.config.encoder is None:
        raise DataError("this configuration has no encoder")
    return work.config.encoder


def _images_seen(config: EncoderConfig) -> int:
    return sum(p.total_steps * p.batch_size for p in (config.pretraining, config.simclr) if p is not None)


def _labelled(images: ImageSet, labels: tuple[int, int] | None) -> ImageSet:
    low, high = labels or (0, len(images.class_names) - 1)
    chosen = images.take((images.labels >= low) & (images.labels <= high))
    if not len(chosen):
        raise DataError(f"{images.name}: no image with a label in {low}..{high} to pre-train on")
    shifted = chosen.labels - low
    return ImageSet(
        chosen.name, chosen.split, chosen.images, shifted, chosen.ids, chosen.class_names[low : high + 1]
    )


# --- pseudo_labels ------------------------------------------------------------------------------------


def make_pseudo_labels(work: Workspace) -> Metrics | None:
    """Stage `pseudo_labels`: the training label y~ of each image.

    Where classes are known, how well the labels agree with them is reported, and used for nothing.

    Raises:
        DataError: Labels that are asked for and not there, fewer than two of them, or one without an image.
        ValueError: An image size that the U-Net cannot take.
    """
    images, source = work.images, work.config.labels.source
    confidence = np.ones(len(images), np.float32)
    metrics: Metrics = {"images": len(images)}
    if source in ("ground_truth", "file"):
        labels, names = _given_labels(work)
    else:
        names = tuple(f"cluster {i}" for i in range(work.config.labels.n_clusters or 0))
        if source == "kmeans":
            features = encode(load_encoder(work), images.images, work.config.device)
            labels = kmeans_labels(features, len(names), work.config.labels.seed)
        else:
            found = _scan(work, metrics)
            if found is None:
                return None
            labels, confidence = found
        if len(set(labels.tolist())) < len(names):
            raise DataError(
                f"{images.name}: a cluster of {len(names)} is empty: start a new run with a lower"
                f" labels.n_clusters, or another labels.seed (now {work.config.labels.seed})"
            )
    with torch.device("meta"):  # a network that cannot be is found here, not after an hour
        network = build_noise_predictor(work.config.diffusion.unet, len(names), work.config.data.size_px)
    write_labels(work, labels, confidence, names)
    metrics |= {"clusters": len(names), "diffusion_parameters": n_parameters(network)}
    if source != "ground_truth" and (images.labels >= 0).any():
        found_in_train = agreement(labels, images.labels, len(names), len(images.class_names))
        metrics |= {"cluster_accuracy_train": found_in_train.accuracy}
    test = labelled_test(work)
    if source == "scan" and test is not None:
        clusters, _ = predict(load_clusterer(work), test.images, work.config.device)
        a = agreement(clusters, test.labels, len(names), len(test.class_names))
        metrics |= {
            "cluster_accuracy": a.accuracy,
            "cluster_nmi": a.nmi,
            "cluster_ari": a.ari,
            "cluster_test_images": a.n_images,
        }
        work.on_progress(Progress("pseudo_labels", 1, 1, 1.0, 0.0, {"cluster_accuracy": a.accuracy}))
    return metrics


def _scan(work: Workspace, metrics: Metrics) -> tuple[np.ndarray, np.ndarray] | None:
    """SCAN and self-labelling: label and confidence of each training image."""
    config, images, device = work.config.labels, work.images, work.config.device
    out = work.stage_folder("pseudo_labels")
    encoder = load_encoder(work)
    n_clusters = config.n_clusters or 0
    total = config.scan.total_steps + (config.self_label.total_steps if config.self_label else 0)

    # 1. neighbours, by the projection that SimCLR trained to tell images apart
    scanned = out / "scan.safetensors"
    projection = load_projection(work)
    model = ScanClassifier(encoder, n_clusters, projection)
    if scanned.is_file():
        model.load_state_dict(load_file(scanned))
        with safe_open(scanned, "pt") as file:
            kept = file.metadata() or {}
        if "scan_loss" in kept:
            metrics["scan_loss"] = float(kept["scan_loss"])
    else:
        network = encoder if projection is None else nn.Sequential(encoder, projection)
        features = encode(network, images.images, device)
        near = neighbours_of(features, min(config.scan.neighbours, len(images) - 1), device)
        # 2. the SCAN loss
        trained = train_scan(
            encoder,
            images.images,
            near,
            n_clusters,
            work.config.views,
            config.scan,
            config.seed,
            out / "scan.state.pt",
            device,
            work.reporter("pseudo_labels", total),
            work.should_stop,
            projection,
        )
        if trained is None:
            return None
        model, metrics["scan_loss"] = trained
        # with the loss, for a run that is resumed behind this
        _save(model, scanned, {"scan_loss": repr(metrics["scan_loss"])})
    # 3. self-labelling
    if config.self_label is not None:
        done = train_self_labels(
            model,
            images.images,
            work.config.views,
            config.self_label,
            config.seed,
            out / "self_label.state.pt",
            device,
            work.reporter("pseudo_labels", total, config.scan.total_steps),
            work.should_stop,
        )
        if not done:
            return None
        # 4. where it collapsed, which cluster sizes show without any label, SCAN's own clusters stay
        labels, confidence = predict(model, images.images, device)
        before = ScanClassifier(load_encoder(work), n_clusters, load_projection(work))
        before.load_state_dict(load_file(scanned))
        scan_labels, scan_confidence = predict(before.eval(), images.images, device)
        fewer = len(np.unique(labels)) < len(np.unique(scan_labels))
        if fewer or evenness(labels, n_clusters) < COLLAPSED * evenness(scan_labels, n_clusters):
            log.warning("self-labelling collapsed into few clusters: those of SCAN are kept")
            metrics["self_label_collapsed"] = True
            model, labels, confidence = before, scan_labels, scan_confidence
        _save(model, clusterer_path(work))
        return labels, confidence
    _save(model, clusterer_path(work))
    return predict(model, images.images, device)


def evenness(labels: np.ndarray, n_clusters: int) -> float:
    """The entropy of cluster sizes over that of equal ones, 0..1.

    Args:
        labels: int64 (N,), 0..C-1.
        n_clusters: C, at least 2.
    """
    share = np.bincount(labels, minlength=n_clusters) / len(labels)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() / np.log(n_clusters))


def load_projection(work: Workspace) -> Projection | None:
    """SimCLR's projection; None where the encoder was trained otherwise."""
    file = work.folder / "encoder" / "projection.safetensors"
    if not file.is_file():
        return None
    state = load_file(file)
    hidden, dim = state["0.weight"].shape
    projection = Projection(dim, hidden, len(state["2.weight"]))
    projection.load_state_dict(state)
    return projection.eval()


def _given_labels(work: Workspace) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of a data set, or of a file, and the names of their classes."""
    images = work.images
    if work.config.labels.source == "file":
        labels, names = _from_file(work)
    else:
        labels, names = _ground_truth(images), images.class_names
    _check_labels(images, labels, names)
    return labels, names


def _ground_truth(images: ImageSet) -> np.ndarray:
    unlabelled = int((images.labels < 0).sum())
    if unlabelled:
        raise DataError(
            f"{images.name}: {unlabelled} of {len(images)} images have no label, and labels.source is"
            " ground_truth"
        )
    return images.labels


def _from_file(work: Workspace) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels by id from a table of the user's; words become numbers in alphabetical order."""
    path = Path(work.config.labels.path or "").expanduser()
    known = read_label_table(path)
    ids = work.images.ids.tolist()
    missing = [one for one in ids if one not in known]
    if missing:
        raise DataError(f"{path}: no label for {len(missing)} of {len(ids)} images, as {missing[0]}")
    for one in ids:
        where, label = known[one]
        if not label or (_NUMBER.fullmatch(label) and not label.isdecimal()):
            fault = f"is {label or 'empty'}, not a word or a whole number from 0"
            raise DataError(f"{path}, {where}: the label of {one} {fault}")
    words = [known[one][1] for one in ids]
    numeric = all(word.isdecimal() for word in words)
    if numeric:  # 07 is 7
        words = [str(int(word)) for word in words]
    values = sorted(set(words), key=int if numeric else str)
    names = tuple(f"cluster {v}" if numeric else v for v in values)
    number = {word: i for i, word in enumerate(values)}
    return np.array([number[word] for word in words], np.int64), names


# what a table of numbers may hold where a label is missing or was made a decimal number
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?|nan", re.IGNORECASE)


def read_label_table(path: Path) -> dict[str, tuple[str, str]]:
    """The rows of a user's table of labels, a Parquet or CSV file: id -> (line or row, label).

    Raises:
        DataError: There is none with columns id and label.
    """
    try:
        if path.suffix == ".parquet":
            columns = pq.read_table(path, columns=["id", "label"]).to_pydict()
            rows = zip(columns["id"], columns["label"], strict=True)
            found = [(str(one), f"row {i}", label) for i, (one, label) in enumerate(rows, 1)]
        else:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream)
                found = [(row["id"], f"line {reader.line_num}", row["label"]) for row in reader]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a table with columns id and label") from error
    return {one: (where, "" if label is None else str(label).strip()) for one, where, label in found}


def _check_labels(images: ImageSet, labels: np.ndarray, names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise DataError(f"{images.name}: outliers need at least 2 classes, there is {len(names)}")
    counts = np.bincount(labels, minlength=len(names))
    if not counts.all():
        missing = names[int(counts.argmin())]
        raise DataError(f"{images.name}: no image of class {missing!r} among the {len(images)} to train on")


def labelled_test(work: Workspace) -> ImageSet | None:
    """The test images, where they have labels of the training set's classes."""
    test = work.test
    if test is None or test.class_names != work.images.class_names or not (test.labels >= 0).any():
        return None
    return test


# --- clusterer ----------------------------------------------------------------------------------------


def make_clusterer(work: Workspace) -> Metrics | None:
    """Stage `clusterer`, where SCAN made none: a classifier of the labels, measured on the test images.

    It restarts from its beginning when it was interrupted: it takes a few minutes at most.
    """
    started = time.monotonic()
    labels, names = read_labels(work), read_cluster_names(work)
    config = work.config.clusterer

    def report(step: int, loss: float) -> None:
        eta = (time.monotonic() - started) / step * (config.total_steps - step)
        share = step / config.total_steps
        work.on_progress(Progress("clusterer", step, config.total_steps, share, eta, {"loss": loss}))

    clusterer = train_classifier(
        work.images.images,
        labels,
        len(names),
        config,
        work.config.seed,
        work.config.device,
        report,
        work.should_stop,
    )
    if clusterer is None:
        return None
    metrics: Metrics = {"clusterer_training_sec": round(time.monotonic() - started, 1)}
    test = labelled_test(work)
    if test is not None and names == test.class_names:
        share, n = accuracy(clusterer, test.images, test.labels)
        metrics |= {"clusterer_accuracy": share, "clusterer_test_images": n}
    work.stage_folder("clusterer")
    _save(clusterer, clusterer_path(work))
    return metrics


def clusterer_path(work: Workspace) -> Path:
    """Where the clusterer's weights are."""
    stage = "pseudo_labels" if work.config.labels.source == "scan" else "clusterer"
    return work.folder / stage / "clusterer.safetensors"


def load_clusterer(work: Workspace) -> Classifier:
    """The network that names the cluster of any image, in eval mode on the CPU."""
    state = load_file(clusterer_path(work))
    n_clusters = len(state["head.bias"])
    if work.config.labels.source == "scan":
        encoder = load_encoder(work)
        model: Classifier = ScanClassifier(encoder, n_clusters, load_projection(work))
    else:
        model = SmallClassifier(n_clusters, work.config.clusterer.width)
    model.load_state_dict(state)
    return model.eval()


def _save(module: nn.Module, path: Path, metadata: dict[str, str] | None = None) -> None:
    partial = path.with_name(path.name + ".partial")
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, partial, metadata)
    partial.replace(path)
