"""The form of a new run: profile, images, main settings, estimated time, and the start."""

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import streamlit as st
import torch

from sdviz import data
from sdviz.config.nodes import ConfigError
from sdviz.config.reading import MAX_TEXT, load_config, to_yaml
from sdviz.config.tree import RunConfig
from sdviz.runs import Run, Status
from sdviz.runs.status import duration
from sdviz.ui.cache.background import Task
from sdviz.ui.cache.checks import start_check
from sdviz.ui.cache.estimates import Estimate, start_estimate
from sdviz.ui.components.stage_strip import stage_title
from sdviz.ui.guests import may_name_paths
from sdviz.ui.page import ROOT
from sdviz.ui.text import about, in_bytes, plain
from sdviz.ui.training import actions
from sdviz.ui.training.check import show_copies, show_summary
from sdviz.ui.training.fields import Setting, limits, settings_of, value_of
from sdviz.ui.training.state import RUN_KEY, VIEW_KEY, WATCH, attempt, status_of
from sdviz.ui.widgets import IN_LINK

COLUMNS = 6
# how long the page waits for an estimate, and how often it checks later
AT_ONCE_SEC = 0.3
POLL_SEC = 0.5
# these come first, for newcomers
FIRST_PROFILES = ("shapes-quick", "shapes-tiny")


def show_new_run(found: list[Run]) -> None:
    """Shows the form. `found`: all runs, to say which use the device."""
    profiles = find_profiles()
    if not profiles:
        st.info(f"There are no profiles: they are YAML files in `{ROOT / 'configs'}`.")
        return
    columns = st.columns([1.3, 1.3, 1, 1])
    with columns[0]:
        name = st.selectbox(
            "Profile",
            list(profiles),
            key="profile",
            help="A configuration to begin with: a file in configs/.",
            **IN_LINK,
        )
    path = profiles[name]
    try:
        base = load_config(path)
    except ConfigError as error:
        st.error(plain(str(error)))
        return
    overrides: list[str] = []
    with columns[1]:
        source = _images(name, base)
    if source != base.data.id:
        overrides.append(f"data.id={json.dumps(source)}")
    with columns[2]:
        devices = _devices()
        device = st.selectbox(
            "Device",
            devices,
            index=devices.index(base.device) if base.device in devices else 0,
            key=f"device {name}",
            persist_state="session",
            help="auto takes CUDA, then MPS, then the CPU.",
        )
    if device != base.device:
        overrides.append(f"device={device}")
    title = columns[3].text_input(
        "Name",
        base.profile,
        max_chars=40,
        key=f"title {name}",
        persist_state="session",
        help="Name of the run's folder.",
    )
    if title.strip() and title != base.profile:
        overrides.append(f"profile={json.dumps(title.strip())}")
    if description := _description(path):
        st.caption(description)
    top = st.container()

    for group, settings in settings_of(base).items():
        st.markdown(f"**{group}**")
        for first in range(0, len(settings), COLUMNS):
            row = st.columns(COLUMNS, vertical_alignment="bottom")
            for column, setting in zip(row, settings[first:], strict=False):
                with column:
                    value = _widget(name, setting, value_of(base, setting.key))
                if value != value_of(base, setting.key):
                    overrides.append(f"{setting.key}={json.dumps(value)}")
    more = ""
    with st.expander("Advanced: any other key of the configuration"):
        if may_name_paths():  # a value may be a path
            more = st.text_area(
                "One a line, as in detector.zero_heads=false",
                key=f"more {name}",
                persist_state="session",
                height=100,
                max_chars=MAX_TEXT,
                help="Every key is listed under Its configuration of any run.",
            )
        now = st.checkbox(
            "Start at once, even while another run is at work on the device",
            key="now",
            help="Both get slower, and a GPU may run out of memory.",
        )
    overrides += [line for line in map(str.strip, more.splitlines()) if line and not line.startswith("#")]
    with top:
        config = _check_and_start(path, overrides, found, now)
    if config is not None:
        with st.expander("The whole configuration, as it will be written"):
            st.code(to_yaml(config), language="yaml", height=360)


def find_profiles() -> dict[str, Path]:
    """Returns name and file of each profile, `FIRST_PROFILES` first."""
    files = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
    return {name: files[name] for name in dict.fromkeys((*FIRST_PROFILES, *files)) if name in files}


def _check_and_start(path: Path, overrides: list[str], found: list[Run], now: bool) -> RunConfig | None:
    try:
        config = load_config(path, overrides)
    except ConfigError as error:
        st.error(plain(str(error).removeprefix("--set ")), icon=":material/error:")
        st.button("Start", icon=":material/play_arrow:", type="primary", key="start", disabled=True)
        return None
    columns = st.columns([1, 4.2], vertical_alignment="center")
    columns[0].button(
        "Start",
        icon=":material/play_arrow:",
        type="primary",
        key="start",
        help="Writes the configuration into a new folder and launches the process.",
        on_click=attempt,
        args=(_start_and_watch, config, now),
        width="stretch",
    )
    with columns[1]:
        check = start_check(config)
        show_summary(check)
        estimate = start_estimate(config)
        is_done = estimate.wait(AT_ONCE_SEC)
        st.fragment(_say_how_long, run_every=None if is_done else POLL_SEC)(estimate, is_done)
        if busy := _at_work(found):
            st.caption(f"At work now: {plain(', '.join(busy))}. A run on the same device waits for its turn.")
    show_copies(config, check, str(estimate.error or ""))
    return config


def _start_and_watch(config: RunConfig, now: bool) -> None:
    st.session_state[RUN_KEY] = actions.start(config, now).name
    st.session_state[VIEW_KEY] = WATCH


def _say_how_long(estimate: Task[Estimate], was_done: bool) -> None:
    if not estimate.is_done:
        st.caption("Timing a few images to say how long it will take …")
        return
    if not was_done:
        st.rerun()  # ends the polling
    try:
        parts = estimate.result()
    except (ValueError, OSError) as error:  # the run would stop at it too
        st.error(plain(str(error)), icon=":material/error:")
        return
    seconds, size = sum(sec for _, sec, _ in parts), sum(n for *_, n in parts)
    longest = sorted(parts, key=lambda part: -part[1])[:3]
    stages = ", ".join(f"{stage_title(name).lower()} {duration(sec)}" for name, sec, _ in longest)
    st.markdown(
        f"**{about(seconds).capitalize()}** by this machine's speed just now ({stages}), "
        f"{in_bytes(size)} on the disk."
    )


def _at_work(found: list[Run]) -> list[str]:
    return [run.name for run in found if isinstance(status := status_of(run), Status) and status.is_active]


def _images(profile: str, base: RunConfig) -> str:
    kind_of = {f"{title} …": kind for kind, (title, _) in data.ON_FORM.items()}
    known = [*data.names(), *(kind_of if may_name_paths() else ())]
    options = list(dict.fromkeys([base.data.id, *known]))
    choice = st.selectbox(
        "Images",
        options,
        key=f"images {profile}",
        persist_state="session",
        format_func=lambda one: one if one in known or ":" in one else f"{one} (not here yet)",
        help="What to train on: a set on this machine, or your own.",
    )
    if choice not in kind_of:
        return choice
    kind = kind_of[choice]
    text = st.text_input(
        "Its path on this machine",
        key=f"path {profile} {kind}",
        persist_state="session",
        placeholder=data.ON_FORM[kind][1],
    )
    return kind + (text.strip() or "?")


def _widget(profile: str, setting: Setting, default: Any) -> Any:  # noqa: ANN401
    rule = limits(setting.key)
    common: dict[str, Any] = {
        "key": f"{profile} {setting.key}",
        "persist_state": "session",
        "help": " ".join(filter(None, [setting.help, rule.description.capitalize(), f"`{setting.key}`"])),
    }
    if rule.kind == "choice":
        return st.selectbox(setting.label, rule.choices, rule.choices.index(default), **common)
    if rule.kind == "bool":
        return st.toggle(setting.label, default, **common)
    whole = rule.kind == "int"

    def number(value: float | None) -> Any:  # noqa: ANN401
        return value if value is None else int(value) if whole else float(value)

    if rule.optional:  # only a field that begins empty can be emptied
        st.session_state.setdefault(common["key"], number(default))
    value = st.number_input(
        setting.label,
        number(rule.low),
        number(rule.high),
        None if rule.optional else number(default),
        number(1 if whole else 10.0 ** _magnitude(default or 1.0)),
        "%d" if whole else "%g",
        placeholder=setting.empty if rule.optional else None,
        **common,
    )
    return default if value is None and not rule.optional else value


def _magnitude(value: float) -> int:
    """Returns the exponent of a step for this value: 2e-4 steps by 1e-5."""
    return int(f"{abs(value):e}".partition("e")[2]) - 1


def _devices() -> list[str]:
    found = ["auto", "cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _description(path: Path) -> str:
    lines = takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines())
    return " ".join(line.lstrip("# ") for line in lines)
