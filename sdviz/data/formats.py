"""Which files are pictures that can be read here, and what to do about those that cannot."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

# from a stranger: kinds whose decoders are fast and well tried
UPLOADED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF", "JXL")

# Pillow starts another program for these, reads them on one system alone, or finds only what they are
_NOT_READ = frozenset(["BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF"])
_PLUGINS = ("pillow_heif", "pillow_jxl", "pillow_avif")
_RAW = "camera raw: export it as TIFF or JPEG"
_DRAWING = "no pixels: export it as PNG"
_VIDEO = "a film: export its frames as PNG"
# suffixes of pictures that no decoder here may read -> what helps
_HELP: Mapping[str, str] = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "no decoder; pip install pillow-heif"),
    **dict.fromkeys((".avif", ".avifs"), "no decoder; pip install pillow-avif-plugin"),
    ".jxl": "no decoder; pip install pillow-jxl-plugin",
    **dict.fromkeys(
        (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2", ".pef", ".srw", ".raw"), _RAW
    ),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".ai", ".wmf", ".emf"), _DRAWING),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v"), _VIDEO),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM: export it as PNG of 16 bits"),
    **dict.fromkeys((".nii", ".mhd", ".mha", ".nrrd", ".czi", ".lif", ".svs", ".exr", ".hdr"), "no decoder"),
    **dict.fromkeys((".npy", ".npz", ".parquet"), "arrays and tables are opened by themselves, as {kind}:PATH"),
    **dict.fromkeys((".csv", ".tsv"), "if it lists pictures, it is opened by itself, as {kind}:PATH"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "an archive: unpack it"),
}


@dataclass(frozen=True)
class Formats:
    """The kinds of picture files that are read on this machine."""

    names: tuple[str, ...]  # Pillow's names of them
    suffixes: frozenset[str]  # such as .jpg, in small letters


def readable() -> Formats:
    """Asks Pillow, with those of its plugins that are installed."""
    for plugin in _PLUGINS:
        try:
            module = importlib.import_module(plugin)
        except ImportError:
            continue
        # the others register themselves
        for register in ("register_heif_opener", "register_avif_opener"):
            getattr(module, register, lambda: None)()
    suffixes = Image.registered_extensions()  # loads all of Pillow's own, too
    others = sorted(set(Image.OPEN) - _NOT_READ - set(UPLOADED))
    # in the order in which they are tried
    names = (*(one for one in UPLOADED if one in Image.OPEN), *others)
    # MPO, several JPEGs in a file, is opened as JPEG
    return Formats(names, frozenset(one for one, name in suffixes.items() if name in (*names, "MPO")))


def what_helps(suffix: str) -> str | None:
    """What to do about files of this suffix that are passed over; None if they are no pictures."""
    return _HELP[suffix].format(kind=suffix[1:]) if suffix in _HELP else None
