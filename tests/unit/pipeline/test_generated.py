from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from sdviz.bundle import Bundle
from sdviz.bundle.generated import FEATURES, TABLE, decode_pngs, generated_images, has_generated
from sdviz.config.reading import ConfigError, load_config
from sdviz.outliers import draw_target_labels
from sdviz.pipeline import Workspace, generated, stage_names
from tests.stages import begun, everything_in, work_in
from tests.tiny_runs import write_tiny_config, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")

# of three clusters, and more than one shard of 4
SETTINGS = ("diffusion.max_train_timestep=null", "bundle.generated={n_images: 7, num_inference_steps: 3}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Workspace:
    """A complete run with a detector whose U-Net knows the whole schedule."""
    folder = tmp_path_factory.mktemp("generated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generated, "SHARD", 4)
        work = work_in(folder / "run", write_tiny_detector_config(folder), *SETTINGS)
        assert begun(work)[-2:] == [("generated", False), ("bundle", False)]
    return work


def test_images_are_even_over_clusters_with_an_outlier_each(made: Workspace) -> None:
    bundle = Bundle.load(made.folder / "bundle", "cpu")
    assert {TABLE, FEATURES} <= set(bundle.manifest.files) and has_generated(bundle)
    assert bundle.manifest.setting("bundle", "generated", "n_images") == 7
    images = generated_images(bundle)
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2, 0] and len(set(images.ids.tolist())) == 7
    table = pq.read_table(bundle.parts[TABLE]).to_pandas()
    own, of_outliers = (table[table["set"] == name] for name in ("generated", "generated-outliers"))
    assert own["role"].unique().tolist() == ["generated"] and of_outliers["role"].unique().tolist() == ["sd"]
    # 1. clusters are the clusterer's, not those that were asked for
    clusters, confidence = bundle.pseudo_label(images.images)
    assert own["cluster"].tolist() == clusters.tolist() == of_outliers["cluster"].tolist()
    assert np.allclose(own["confidence"], confidence, atol=1e-5)
    # 2. outliers are what the bundle makes of them
    targets = draw_target_labels(clusters, images.ids, 3, 0)
    assert of_outliers["target_label"].tolist() == targets.tolist() and (targets != clusters).all()
    assert of_outliers["id"].tolist() == [f"{one}~0" for one in images.ids]
    again = bundle.generate(images.images, clusters, target_labels=targets, ids=images.ids).outliers
    kept = decode_pngs(of_outliers["png"].tolist(), 8)
    assert np.abs(kept.astype(int) - again.astype(int)).mean() < 1


def test_features_and_scores_are_those_of_the_bundle(made: Workspace) -> None:
    bundle = Bundle.load(made.folder / "bundle", "cpu")
    table, stored = pq.read_table(bundle.parts[TABLE]).to_pandas(), load_file(bundle.parts[FEATURES])
    for name in ("generated", "generated-outliers"):
        rows = table[table["set"] == name]
        features = bundle.features(decode_pngs(rows["png"].tolist(), 8))
        assert np.allclose(stored[name], features, atol=2e-3)
        assert stored[f"{name}.g_in"].shape == (7, 3)
        found = bundle.scorer.score(stored[name].astype(np.float32))
        assert np.allclose(rows["total"], found.total, atol=1e-6)
        assert rows["votes"].tolist() == found.votes.tolist()


def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(
    made: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "SHARD", 4)
    out = made.folder / "generated"
    before, table = everything_in(out), out / TABLE
    shards = sorted(one.name for one in out.glob("0*.safetensors"))
    assert len(shards) == 2
    (out / shards[1]).unlink()
    (out / shards[0]).write_bytes(b"cut")
    table.unlink()
    calls: list[int] = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 1

    cut = Workspace(made.folder, made.config, lambda progress: None, stop)
    assert generated.make(cut) is None and not table.is_file()
    assert (out / shards[0]).read_bytes() == before[shards[0]]
    assert generated.make(made) == {"generated_images": 7}
    assert everything_in(out) == before


def test_without_a_detector_nothing_is_scored(tmp_path: Path) -> None:
    work = work_in(tmp_path / "run", write_tiny_config(tmp_path, 2, 2), *SETTINGS)
    assert begun(work)[-1] == ("bundle", False)
    bundle = Bundle.load(work.folder / "bundle", "cpu")
    assert "total" not in pq.read_table(bundle.parts[TABLE]).column_names
    assert FEATURES not in bundle.parts and len(generated_images(bundle)) == 7


def test_only_a_network_of_the_whole_schedule_makes_images(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    assert "generated" not in stage_names(load_config(path))
    with pytest.raises(ConfigError, match="bundle.generated: a U-Net trained up to S = 400 of 1000 makes no"):
        load_config(path, ["bundle.generated.n_images=1"])
