"""Downloads of the lab: a labelled PNG sheet, or a ZIP of PNGs with a manifest."""

import io
import zipfile

import numpy as np

from sdviz.outliers import manifest_csv, manifest_row
from sdviz.ui.lab.state import LabState, guidance_text
from sdviz.ui.pictures import contact_sheet, difference, heat_map, png_bytes


def export_png(state: LabState) -> bytes:
    """Returns the pictures on show as one labelled sheet, PNG."""
    r, names = state.settings.recipe, state.names
    originals = np.stack([s.image for s in state.sources])
    outliers = np.stack([e.image for e in state.outliers])
    rows = [
        (state.sources[0].row_name, originals),
        ("outlier", outliers),
        ("control", np.stack([e.image for e in state.controls])),
        (f"noised, S={r.start_timestep}", np.stack([e.noised for e in state.outliers])),
        ("difference", heat_map(difference(originals, outliers))),
    ]
    captions = [
        f"{names[s.label]}, told {names[int(t)]}" for s, t in zip(state.sources, state.targets, strict=True)
    ]
    sigma = state.bundle.schedule.sigma(r.start_timestep)
    footer = (
        f"S={r.start_timestep} (sigma {sigma:.3f}), w={r.guidance_scale:g}{guidance_text(r)}, {r.solver}, "
        f"{min(r.num_inference_steps, r.start_timestep)} steps, eta {r.eta:g}, seed {r.seed}, "
        f"bundle {state.bundle.hash[:12]}. Control: the same noise under the right label."
        f"{' Generated: by this network, from noise, no real image.' * state.sources[0].is_generated} sdviz"
    )
    return png_bytes(contact_sheet(rows, captions, footer))


def export_zip(state: LabState) -> bytes:
    """Returns a ZIP of original, noised image, outlier and control of each source, and manifest.csv."""
    r, stream = state.settings.recipe, io.BytesIO()
    lines: list[dict[str, str | int | float]] = []
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for i, source in enumerate(state.sources):
            outlier, control = state.outliers[i], state.controls[i]
            archive.writestr(f"{source.row_name}/{i:02d}.png", png_bytes(source.image))
            archive.writestr(f"noised/{i:02d}.png", png_bytes(outlier.noised))
            for folder, made, target in (
                ("outlier", outlier, int(state.targets[i])),
                ("control", control, source.label),
            ):
                name = f"{folder}/{i:02d}.png"
                archive.writestr(name, png_bytes(made.image))
                row = manifest_row(
                    r, state.bundle.schedule, state.names, source.id, source.label, target, state.bundle.hash
                )
                lines.append({"file": name, "role": folder, **row})
        archive.writestr("manifest.csv", manifest_csv(lines))
    return stream.getvalue()
