"""A bundle with a detector: what it holds, what it says of images, and the commands score, report and run."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from sdviz import data
from sdviz.bundle import Bundle, BundleError
from sdviz.cli import app
from sdviz.evaluation import id_recall_threshold, ood_reference
from sdviz.pipeline import PipelineError
from sdviz.pipeline.any_images.scoring import id_reference, score_images, write_scores
from sdviz.projection import LayoutSettings, compute_layouts
from sdviz.runs.status import Status, write_status
from sdviz.table_files import read_csv
from tests.tiny_runs import write_pictures


@pytest.fixture
def bundle(scored_run: Path) -> Bundle:
    return Bundle.load(scored_run / "bundle", device="cpu")


@pytest.fixture
def near(scored_run: Path) -> data.ImageSet:
    return data.load(f"folder:{scored_run.parent / 'near'}", size_px=8)


@pytest.fixture
def cli(one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args])


def one_line_error(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


# --- the bundle -----------------------------------------------------------------------------------


def test_the_banks_are_of_the_images_that_they_name(bundle: Bundle, scored_run: Path) -> None:
    banks = bundle.banks()
    assert banks.id_features.shape == banks.outlier_features.shape == (len(banks.id_ids), 16)
    assert banks.id_features.dtype == np.float32
    images = data.load(f"folder:{scored_run.parent / 'pictures'}", size_px=8)
    by_id = dict(zip(images.ids.tolist(), images.images, strict=True))
    again = bundle.features(np.stack([by_id[one] for one in banks.id_ids.tolist()]))
    assert np.abs(again - banks.id_features).max() < 2e-3 * np.abs(again).max()  # kept in float16
    table = pq.read_table(bundle.parts["outliers.parquet"])
    assert table["id"].to_pylist() == banks.outlier_ids.tolist()
    assert table["label"].to_pylist() == banks.outlier_labels.tolist()
    assert table["source_id"].to_pylist() == banks.id_ids.tolist()
    assert (np.array(table["label"]) != np.array(table["target_label"])).all()


def test_clusters_of_known_classes_are_shown_by_their_names(bundle: Bundle) -> None:
    assert bundle.manifest.labels_from == "SCAN"
    assert set(bundle.class_names) == {"blue", "green", "red"}


def test_an_outlier_of_the_table_can_be_made_again(bundle: Bundle, scored_run: Path) -> None:
    table = pq.read_table(bundle.parts["outliers.parquet"])
    rows = table.slice(0, 10).to_pylist()
    assert sum(row["png"] is not None for row in table.to_pylist()) == 10
    images = data.load(f"folder:{scored_run.parent / 'pictures'}", size_px=8)
    by_id = dict(zip(images.ids.tolist(), images.images, strict=True))
    made = bundle.generate(
        np.stack([by_id[row["source_id"]] for row in rows]),
        labels=[row["label"] for row in rows],
        start_timestep=rows[0]["start_timestep"],
        guidance_scale=rows[0]["guidance_scale"],
        num_inference_steps=rows[0]["num_inference_steps"],
        solver=rows[0]["solver"],
        seed=rows[0]["seed"],
        ids=[row["source_id"] for row in rows],
    )
    assert made.target_labels.tolist() == [row["target_label"] for row in rows]
    kept = np.stack([np.asarray(Image.open(io.BytesIO(row["png"]))) for row in rows])
    assert np.abs(kept.astype(int) - made.outliers.astype(int)).mean() < 1


def test_a_bundle_without_a_detector_features_by_its_encoder_and_scores_nothing(
    scored_run: Path, near: data.ImageSet, tmp_path: Path
) -> None:
    whole = Bundle.load(scored_run / "bundle", device="cpu")
    whole._networks["detector"] = None
    part = whole.save(tmp_path / "part")
    assert part.features(near.images).shape == (len(near), 16)
    with pytest.raises(ValueError, match="no detector"):
        _ = part.scorer
    part._networks["encoder"] = None
    with pytest.raises(ValueError, match="neither a detector nor an encoder"):
        part.features(near.images)


@pytest.mark.parametrize("name", ["detector.safetensors", "features.safetensors", "scores.parquet"])
def test_a_changed_part_is_refused_by_its_name(scored_run: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(scored_run / "bundle", folder)
    with (folder / name).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match=f"{name} was changed or cut"):
        Bundle.load(folder, "cpu")


# --- numbers --------------------------------------------------------------------------------------


def test_scores_of_the_test_images_are_those_of_the_report(bundle: Bundle, scored_run: Path) -> None:
    kept = pq.read_table(bundle.parts["scores.parquet"])
    inside = kept.filter(pc.equal(kept["role"], "id"))
    images = data.load(f"folder:{scored_run.parent / 'pictures'}", size_px=8)
    row = {one: i for i, one in enumerate(images.ids.tolist())}
    test = images.take(np.array([row[one] for one in inside["id"].to_pylist()]))
    table = score_images(bundle, test)
    assert table["id"].to_pylist() == inside["id"].to_pylist()
    # the report's features went through float16
    assert np.allclose(table["distance"].to_numpy(), inside["distance"].to_numpy(), atol=5e-3)
    assert id_reference(bundle).threshold == sorted(inside["total"].to_pylist())[-1]


def test_a_training_image_is_not_its_own_neighbour(bundle: Bundle, scored_run: Path) -> None:
    banks = bundle.banks()
    images = data.load(f"folder:{scored_run.parent / 'pictures'}", size_px=8)
    trained = images.take(np.isin(images.ids, banks.id_ids))
    for row in score_images(bundle, trained).to_pylist():
        assert row["id"] not in row["nearest_ids"]
        assert row["distance"] > 0


def test_a_bundle_that_was_never_measured_knows_no_threshold(bundle: Bundle, near: data.ImageSet) -> None:
    bundle.parts = {name: path for name, path in bundle.parts.items() if name != "scores.parquet"}
    with pytest.raises(PipelineError, match="never measured"):
        score_images(bundle, near)


def test_scores_are_written_whole(bundle: Bundle, near: data.ImageSet, tmp_path: Path) -> None:
    table = score_images(bundle, near)
    write_scores(table, tmp_path / "deep" / "scores.parquet")
    assert pq.read_table(tmp_path / "deep" / "scores.parquet").equals(table)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["scores.parquet"]
    write_scores(table, tmp_path / "loud" / "SCORES.PARQUET")
    assert pq.read_table(tmp_path / "loud" / "SCORES.PARQUET").equals(table)
    with pytest.raises(PipelineError, match="a table of scores is .csv or .parquet"):
        write_scores(table, tmp_path / "x.txt")


def test_a_file_named_by_any_bytes_has_a_row(bundle: Bundle, tmp_path: Path) -> None:
    (red,) = (write_pictures(tmp_path / "new", 1) / "red").iterdir()
    red.rename(red.parent / os.fsdecode(b"caf\xe9.png"))
    table = score_images(bundle, data.load(f"folder:{tmp_path}/new", size_px=8))
    assert table["path"].to_pylist()[-1] == f"{tmp_path}/new/red/caf%E9.png"
    write_scores(table, tmp_path / "scores.csv")
    assert read_csv(tmp_path / "scores.csv").column("path") == table["path"].to_pylist()


# --- commands -------------------------------------------------------------------------------------


COLUMNS = ["id", "path", "score", "distance", "votes", "nearest_ids", "quantile", "threshold", "verdict"]


def test_score_writes_a_table(cli: Callable[..., Result], scored_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    folder = scored_run.parent / "near"
    common = ("score", "--bundle", scored_run / "bundle", "--images", f"folder:{folder}", "--device", "cpu")
    result = cli(*common, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    table = read_csv(out)
    rows, told = table.records(), json.loads(result.stdout)
    assert table.header == COLUMNS
    assert (told["images"], told["flagged"]) == (8, sum(row["verdict"] == "OOD" for row in rows))
    kept = pq.read_table(scored_run / "bundle" / "scores.parquet")
    known = kept.filter(pc.equal(kept["role"], "id"))["total"].to_numpy()
    assert told["threshold"] == ood_reference(known).threshold
    for row in rows:
        assert len(json.loads(row["nearest_ids"])) == 3
        assert float(row["score"]) == pytest.approx(float(row["distance"]) + 0.3 * int(row["votes"]))
        assert float(row["quantile"]) == (known < float(row["score"])).mean()
        assert float(row["threshold"]) == told["threshold"]
        assert (row["verdict"] == "OOD") == (float(row["score"]) > told["threshold"])
        assert Path(row["path"]).is_file() and Path(row["path"]).is_relative_to(folder)
    assert cli(*common, "--out", out, "--limit", 2).exit_code == 0
    assert len(out.read_text().splitlines()) == 3
    # a set that is drawn has no files; lists stay lists
    assert cli(*common[:3], "--images", "digits", "--limit", 2, "--out", tmp_path / "s.parquet").exit_code == 0
    written = pq.read_table(tmp_path / "s.parquet")
    assert written["path"].to_pylist() == ["", ""]
    assert written.schema.field("nearest_ids").type.equals(pa.list_(pa.string()))


def test_a_threshold_of_ones_own_is_kept_in_the_bundle(
    cli: Callable[..., Result], scored_run: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "bundle", tmp_path / "scores.csv"
    shutil.copytree(scored_run / "bundle", folder)
    before = Bundle.load(folder, "cpu", lazy=True)
    common = ("score", "--bundle", folder, "--images", f"folder:{scored_run.parent / 'near'}", "--out", out)

    def scored(*more: object) -> tuple[set[str], set[str]]:
        result = cli(*common, *more)
        assert result.exit_code == 0, result.output
        table = read_csv(out)
        return set(table.column("threshold")), set(table.column("verdict"))

    assert scored("--threshold", 0) == ({"0.0"}, {"OOD"})
    assert scored() == ({"0.0"}, {"OOD"})
    kept = Bundle.load(folder, "cpu", lazy=True)
    assert kept.hash == before.hash and id_reference(kept).threshold == 0
    assert scored("--threshold", 1e6) == ({"1000000.0"}, {"ID"})
    known = id_reference(before).id_scores
    for said in (50, 0.5):
        (threshold,), _ = scored("--id-recall", said)
        assert float(threshold) == id_recall_threshold(known, 50)
    (threshold,), _ = scored("--id-recall", 95)
    assert float(threshold) == id_reference(before).threshold


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (("--threshold", "nan"), "--threshold nan: a score is a number from 0 up"),
        (("--threshold", -1), "--threshold -1: a score is"),
        (("--id-recall", 0), "--id-recall 0: must be above 0, up to 100 %"),
        (("--id-recall", 101), "--id-recall 101: must be"),
        (("--id-recall", 95, "--threshold", 1), "give one"),
    ],
)
def test_a_threshold_out_of_range_is_refused(
    cli: Callable[..., Result], tmp_path: Path, said: tuple[object, ...], message: str
) -> None:
    common = ("score", "--bundle", tmp_path, "--images", "digits", "--out", tmp_path / "s.csv")
    assert message in one_line_error(cli(*common, *said))


def test_score_by_a_bundle_that_cannot(
    cli: Callable[..., Result], tiny_bundle: Callable[..., Bundle], scored_run: Path, tmp_path: Path
) -> None:
    tiny_bundle().save(tmp_path / "small")
    images = f"folder:{scored_run.parent / 'near'}"
    result = cli("score", "--bundle", tmp_path / "small", "--images", images, "--out", tmp_path / "s.csv")
    assert "has no detector" in one_line_error(result).splitlines()[-1]
    assert not (tmp_path / "s.csv").exists()


def test_layouts_are_made_once_next_to_the_bundle(
    cli: Callable[..., Result],
    tiny_bundle: Callable[..., Bundle],
    scored_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "sdviz.analysis.stored_layouts.compute_layouts",
        lambda features, how: compute_layouts(features, LayoutSettings("pca", how.dims)),
    )
    shutil.copytree(scored_run / "bundle", tmp_path / "bundles" / "one")
    first = cli("layouts", "--bundle", tmp_path / "bundles" / "one")
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    assert lines[0].startswith("tsne through training, ") and all(": made, " in line for line in lines)
    assert len(list((tmp_path / "bundles" / ".layouts").iterdir())) == len(lines)
    second = cli("layouts", "--bundle", tmp_path / "bundles" / "one")
    assert second.stdout.replace(": there, ", ": made, ") == first.stdout
    tiny_bundle().save(tmp_path / "small")
    assert "no features to lay out" in one_line_error(cli("layouts", "--bundle", tmp_path / "small"))
    assert "no/where" in one_line_error(cli("layouts", "--bundle", tmp_path / "no/where"))


def test_report_shows_the_tables(cli: Callable[..., Result], scored_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "00001-pictures-tiny"
    shutil.copytree(scored_run, run)
    shutil.copyfile(scored_run.parent / "tiny.yaml", run / "config.yaml")
    shown = cli("report", "1")
    assert shown.exit_code == 0, shown.output
    assert "python -m sdviz report 00001-pictures-tiny" in shown.stdout
    assert "right label" in shown.stdout
    assert cli("report", "1", "--out", tmp_path / "docs" / "t.md").stdout == ""
    assert "--out" in (tmp_path / "docs" / "t.md").read_text()
    page = cli("report", "1", "--paper")
    assert page.exit_code == 0, page.output
    assert "python -m sdviz report 00001-pictures-tiny --paper" in page.stdout
    assert "## Table 4" in page.stdout and "control: noise alone" in page.stdout
    assert "given twice" in one_line_error(cli("report", "1", "1", "--paper"))
    (run / "evaluation" / "report.json").unlink()
    assert "no report there" in one_line_error(cli("report", "1"))
    write_status(run / "status.json", Status("cancelled", "", stage="diffusion"))
    assert "has no report yet: it is cancelled at the stage diffusion" in one_line_error(cli("report", "1"))


def test_runs_of_the_same_seeds_are_told_apart_by_their_settings(
    cli: Callable[..., Result], scored_run: Path, tmp_path: Path
) -> None:
    tree = yaml.safe_load((scored_run.parent / "tiny.yaml").read_text())
    names = ("00001-pictures-tiny", "00002-pictures-tiny")
    for name in names:
        shutil.copytree(scored_run, tmp_path / "runs" / name)
        (tmp_path / "runs" / name / "config.yaml").write_text(yaml.safe_dump(tree))
    # the same settings: there is nothing to name
    assert "two of the runs have the same seeds" in one_line_error(cli("report", "1", "2"))
    other = tmp_path / "runs" / names[1] / "config.yaml"
    other.write_text(yaml.safe_dump(tree | {"profile": "another", "device": "cpu"}))
    assert "two of the runs have the same seeds" in one_line_error(cli("report", "1", "2"))

    changed = json.loads(json.dumps(tree))
    changed["outliers"]["guidance_scale"] = 7
    other.write_text(yaml.safe_dump(changed))
    message = one_line_error(cli("report", "1", "2"))
    assert f"{names[0]} and {names[1]} have the same seeds and differ in " in message
    assert "differ in outliers.guidance_scale (None and 7.0): " in message and "--paper shows them" in message

    changed["detector"] |= {"epochs": 9, "outlier_weight": 0.9, "frozen_blocks": 1, "zero_heads": False}
    other.write_text(yaml.safe_dump(changed))
    message = one_line_error(cli("report", "1", "2"))
    assert " and 1 more: " in message and "outliers.guidance_scale" in message


@pytest.mark.parametrize("name", ["x.txt", "scores", "x.csv.gz", ".csv"])
def test_a_table_of_another_kind_is_refused_before_anything_is_scored(
    cli: Callable[..., Result], tmp_path: Path, name: str
) -> None:
    result = cli("score", "--bundle", tmp_path / "none", "--images", "digits", "--out", tmp_path / name)
    assert f"{tmp_path / name}: a table of scores is .csv or .parquet" in one_line_error(result)
    assert not (tmp_path / name).exists()


def test_a_dry_run_shows_the_plan_and_starts_nothing(
    cli: Callable[..., Result], scored_run: Path, tmp_path: Path
) -> None:
    result = cli("run", scored_run.parent / "tiny.yaml", "--dry-run", "--set", "detector.epochs=7")
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout)["detector"]["epochs"] == 7
    stages = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("#   ")]
    assert stages[:3] == ["encoder", "pseudo_labels", "diffusion"]
    assert stages[-2:] == ["bundle", "in"]
    # a set that can be fetched keeps nobody from the time
    result = cli("run", scored_run.parent / "tiny.yaml", "--dry-run", "--set", "evaluation.far=[svhn]")
    assert result.exit_code == 0, result.output
    (line,) = [one for one in result.stdout.splitlines() if one.startswith("# left out below")]
    assert "svhn is not on this machine" in line and "download svhn" in line
    assert yaml.safe_load(result.stdout)["evaluation"]["far"] == ["svhn"]
    assert "#   in all" in result.stdout
    # without the images no time can be said, but what would be done can
    missing = ("--set", "evaluation.far=[folder:/no/such/place]", "--set", "data.limit=8")
    result = cli("run", scored_run.parent / "tiny.yaml", "--dry-run", *missing)
    assert result.exit_code == 2 and "/no/such/place" in result.stderr
    assert "# stages: encoder, pseudo_labels, diffusion" in result.stdout
    assert not (tmp_path / "runs").exists()


def test_a_run_in_parts_and_one_that_takes_stages_over(
    cli: Callable[..., Result], scored_run: Path, tmp_path: Path
) -> None:
    config = scored_run.parent / "tiny.yaml"
    assert "no such stage" in one_line_error(cli("run", config, "--until", "lunch"))
    first = cli("run", config, "--until", "pseudo_labels")
    assert first.exit_code == 0, first.output
    run = Path(first.stdout.strip())
    assert (run / "pseudo_labels.done.json").is_file()
    assert not (run / "diffusion").exists()

    second = cli("run", config, "--from", "1", "--set", "labels.scan.heads=3", "--until", "pseudo_labels")
    assert second.exit_code == 0, second.output
    assert "taken from 00001-pictures-tiny: encoder\n" in second.stderr
    other = Path(second.stdout.strip())
    same = "encoder/encoder.safetensors"
    assert (other / same).read_bytes() == (run / same).read_bytes()
    assert "no run" in one_line_error(cli("run", config, "--from", "77"))


def test_scores_of_a_bundle_that_are_none_are_refused_by_name(bundle: Bundle, tmp_path: Path) -> None:
    table = pq.read_table(bundle.parts["scores.parquet"])
    pq.write_table(table.drop_columns(["total"]), tmp_path / "scores.parquet")
    bundle.parts = {"scores.parquet": tmp_path / "scores.parquet"}
    with pytest.raises(BundleError, match=r"scores\.parquet cannot be read: .*total"):
        id_reference(bundle)
