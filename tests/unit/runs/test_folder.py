from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sdviz import runs
from sdviz.config.reading import load_config
from sdviz.runs import Run, RunError


def test_folders_are_numbered_and_named(root: Path, config_path: Path) -> None:
    config = load_config(config_path)
    assert runs.list_runs() == []
    names = [
        runs.create(config).name,
        runs.create(load_config(config_path, ["data.id=shapes", "profile=Big One/../x"])).name,
        runs.create(load_config(config_path, ["data.id=folder:../../Ümläut 鳥", "profile='...'"])).name,
    ]
    assert names == ["00001-pictures-tiny", "00002-shapes-Big-One-x", "00003-ml-ut-x"]
    assert sorted(p.name for p in root.iterdir() if p.is_dir()) == names
    assert [run.name for run in runs.list_runs()] == names
    (root / "00041-mine").mkdir()  # somebody's folder: its number is not given again, and it is no run
    assert runs.create(config).name == "00042-pictures-tiny"
    assert "00041-mine" not in [run.name for run in runs.list_runs()]


def test_a_new_run_has_its_resolved_configuration_and_is_not_running(root: Path, config_path: Path) -> None:
    config = load_config(config_path, ["diffusion.batch_size=5"])
    run = runs.create(config)
    assert run.config() == config
    status = run.status()
    assert (status.state, status.stage, status.pid, status.error) == ("new", "", None, None)
    assert run.status().state != "running"


def test_a_path_to_data_is_made_absolute(
    root: Path, config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config_path.parent)
    run = runs.create(load_config(config_path, ["data.id=folder:pictures"]))
    assert run.config().data.id == f"folder:{config_path.parent}/pictures"


def test_a_run_is_found_by_number_name_and_path(
    root: Path, config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (runs.create(load_config(config_path)) for _ in range(2))
    for text in (
        "2",
        "00002",
        second.name,
        str(second.path),
        f"{second.path}/",
        f"{root}/../runs/{second.name}",
    ):
        assert runs.find(text).path.resolve() == second.path.resolve()
    monkeypatch.chdir(root.parent)
    assert runs.find(f"runs/{first.name}").name == first.name


def test_a_run_outside_the_folder_or_through_a_link_is_refused(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    outside = root.parent / "00009-outside"
    outside.mkdir()
    (outside / "config.yaml").touch()
    (root / "00007-link").symlink_to(outside)
    (root / "00008-empty").mkdir()
    hostile = [
        "../00009-outside",
        str(outside),
        "00007-link",
        "7",
        "9",
        "00008-empty",
        ".",
        "..",
        "",
        "/",
        "nix",
    ]
    for text in hostile:
        with pytest.raises(RunError, match=f"the last ones: {run.name}"):
            runs.find(text)
    assert runs.list_runs() == [run]


def test_stats_skip_a_cut_line_and_steps_done_twice(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    assert run.stats() == []
    lines = [("clusterer", 20, 1.0), ("diffusion", 20, 0.9), ("diffusion", 40, 0.8), ("diffusion", 60, 0.7)]
    text = "".join(json.dumps({"stage": s, "step": n, "loss": x}) + "\n" for s, n, x in lines)
    again = json.dumps({"stage": "diffusion", "step": 40, "loss": 0.5}) + "\n"
    (run.path / "stats.jsonl").write_text(text + '{"stage": "diff\n' + again + '5\n{}\n{"stage"')
    assert [(one["stage"], one["step"], one["loss"]) for one in run.stats()] == [
        ("clusterer", 20, 1.0),
        ("diffusion", 20, 0.9),
        ("diffusion", 40, 0.5),
    ]
    # a stage that ends with a measurement of its own keeps its curve
    end = json.dumps({"stage": "diffusion", "step": 1, "total": 1, "cluster_accuracy": 0.9})
    (run.path / "stats.jsonl").write_text(text + end + "\n")
    assert len(run.stats()) == 5
    # measurements of other kinds at one step stand beside each other, until they are repeated, too
    rank, loss = ({"stage": "c", "step": 52, "total": 52, key: 2} for key in ("rank", "loss"))
    early = [line | {"step": 39} for line in (rank, loss)]
    # so do trainings of one stage that count the same steps
    named = [loss | {"training": name, "step": 20} for name in ("noise", "right_label")]
    with (run.path / "stats.jsonl").open("a") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in (*early, rank, loss, rank, loss, *named))
    of_c = [line for line in run.stats() if line["stage"] == "c"]
    assert of_c == [*early, rank, loss, *named]


def test_delete_takes_the_folder_and_nothing_else(three: list[Run], root: Path) -> None:
    kept = root.parent / "precious"
    kept.mkdir()
    (kept / "file").touch()
    (three[1].path / "link").symlink_to(kept)
    runs.delete(three[1])
    assert [run.name for run in runs.list_runs()] == [three[0].name, three[2].name]
    assert sorted(p.name for p in root.iterdir()) == [".lock", three[0].name, three[2].name]
    assert (kept / "file").is_file()
    with pytest.raises(RunError, match="is not a run in"):
        runs.delete(three[1])


@pytest.mark.parametrize("state", ["running", "queued"])
def test_a_run_at_work_is_not_deleted(three: list[Run], occupied: Callable[..., None], state: str) -> None:
    occupied(three[0], state)
    with pytest.raises(RunError, match=f"{three[0].name} is {state}: stop it first"):
        runs.delete(three[0])
    assert three[0].status().state == state


def test_a_damaged_run_can_be_deleted(three: list[Run]) -> None:
    three[0].status_file.write_text("{")
    runs.delete(three[0])
    assert len(runs.list_runs()) == 2
