"""What the folders of a set mean: splits, classes, defects, masks, or nothing."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TypeAlias

from ...text import writable
from ..source import WHOLE
from .split_names import in_order, split_of
from .tree import Parts, Tree, suffix_of

DEFECTS = "defects"  # the split with all defects of an anomaly-detection layout
_TRUTH = frozenset(["ground_truth", "groundtruth", "ground-truth", "ground truth"])
# pictures beside pictures: dropped only next to a folder of pictures, since a class may be called mask
_MASKS = frozenset(
    ["masks", "mask", "gt", "annotations", "annotation", "labels", "segmentation", "segmentations"]
)
_MASK_STEM = re.compile(r"(.+)[-_. ](?:mask|gt)(?:_?\d+)?", re.IGNORECASE | re.DOTALL)
# folders that hold the pictures and name no class
_WRAPPERS = frozenset(
    [
        "images",
        "image",
        "imgs",
        "img",
        "pictures",
        "photos",
        "jpegimages",
        "data",
        "dataset",
        "rgb",
        "jpg",
        "png",
    ]
)
_NORMAL = frozenset(["good", "normal", "ok", "nominal", "defect_free", "no_defect", "non_defective"])
_DEEPEST_WRAPPER = 4
_NAMED_AT_MOST = 5


@dataclass
class Layout:
    """The meaning of a folder of pictures."""

    files: dict[str, list[Parts]]  # split -> its pictures by path
    class_names: dict[str, tuple[str, ...]]  # split -> the names of its labels, as text
    label_of: dict[Parts, int]  # picture -> label; those without one are unlabelled
    passed_over: Counter[str] = field(default_factory=Counter)  # masks and others, beside those of the tree
    warnings: list[str] = field(default_factory=list)
    offered: tuple[str, ...] = ()  # splits that are another set: those with defects


def understand(tree: Tree, name: str) -> Layout:
    """Tells splits and classes from the folders of a tree; `name` is the top folder's.

    Splits are folders called train, val, test and the like, at the top or once below each class, with classes
    below them. In the anomaly-detection layout (`train/good`, `test/<defect>`, `ground_truth`) "test" has the
    good pictures alone, "defects" all others, and each defect is a split of its own, too.
    """
    files, folders, masks = _without_masks(tree)
    files, beside = _without_masks_beside(files)
    children = _Children(files, folders)
    warnings: list[str] = []
    if beside:
        warnings.append(f"masks beside their pictures, passed over: {len(beside)}, such as {_shown(beside[0])}")
    base, homes = _homes(children, name, warnings)
    if homes is None:
        base = _inner((), children, name)
        made = _classes({WHOLE: [(base, "")]}, files, children)
    else:
        made = _anomalies(homes, files, children, masks) or _classes(homes, files, children)
    made.passed_over += masks
    made.passed_over.update(suffix_of(one[-1]) for one in beside)
    kept = {one for group in made.files.values() for one in group}
    outside = [one for one in files if one not in kept]
    if outside:
        warnings.append(
            f"{_pictures(len(outside))} outside of the splits, such as {_shown(outside[0])}: passed over"
        )
        made.passed_over.update(
            writable(one[len(base)]) if len(one) > len(base) + 1 else suffix_of(one[-1]) for one in outside
        )
    _tell_empty(made, children, homes, warnings)
    made.warnings = warnings
    return made


class _Children:
    """Which folders lie in which."""

    def __init__(self, files: Iterable[Parts], folders: Iterable[Parts]) -> None:
        self._all: dict[Parts, dict[str, int]] = {(): {}}
        self.loose: Counter[Parts] = Counter()
        for one in folders:
            self._all.setdefault(one[:-1], {}).setdefault(one[-1], 0)
        for one in files:
            self.loose[one[:-1]] += 1
            for depth in range(len(one) - 1):
                inside = self._all.setdefault(one[:depth], {})
                inside[one[depth]] = inside.get(one[depth], 0) + 1

    def every(self, parts: Parts) -> dict[str, int]:
        """The folders in a folder -> how many pictures are below each."""
        return self._all.get(parts, {})

    def filled(self, parts: Parts) -> list[str]:
        """The folders in a folder that have pictures below them."""
        return [one for one, n in self.every(parts).items() if n]


# split -> the folders that hold its pictures, each with the class that is above it, "" for none
_Homes: TypeAlias = dict[str, list[tuple[Parts, str]]]


def _without_masks(tree: Tree) -> tuple[list[Parts], list[Parts], Counter[str]]:
    """The pictures and folders that are no masks, and how many pictures each folder of masks has."""
    children = _Children(tree.files, tree.folders)

    def mask_above(parts: Parts) -> str | None:
        for depth, folder in enumerate(parts):
            small = folder.lower()
            beside = {other.lower() for other in children.filled(parts[:depth])}
            if small in _TRUTH or (small in _MASKS and beside & _WRAPPERS):
                return folder
        return None

    # asked once for each folder, since pictures are many
    above = {one: mask_above(one) for one in {*tree.folders, *(file[:-1] for file in tree.files)}}
    dropped = Counter(writable(mask) for one in tree.files if (mask := above[one[:-1]]) is not None)
    files = [one for one in tree.files if above[one[:-1]] is None]
    return files, [one for one in tree.folders if above[one] is None], dropped


def _without_masks_beside(files: Sequence[Parts]) -> tuple[list[Parts], list[Parts]]:
    """The pictures, and those that are masks of another one in the same folder, as 3_mask.png of 3.png."""
    stems = {(*one[:-1], PurePath(one[-1]).stem) for one in files}

    def is_mask(one: Parts) -> bool:
        found = _MASK_STEM.fullmatch(PurePath(one[-1]).stem)
        return found is not None and (*one[:-1], found[1]) in stems

    masks = [one for one in files if is_mask(one)]
    return ([one for one in files if not is_mask(one)] if masks else list(files)), masks


def _homes(children: _Children, name: str, warnings: list[str]) -> tuple[Parts, _Homes | None]:
    """Finds the folders that are splits: below `base`, or below each folder there."""
    base: Parts = ()
    for _ in range(_DEEPEST_WRAPPER):
        at = _split_folders(base, children, warnings)
        if at is not None:
            return base, {split: [((*base, one), "") for one in some] for split, some in at.items()}
        filled = children.filled(base)
        below = {one: _split_folders((*base, one), children, []) for one in filled}
        if len(filled) > 1 and not children.loose[base] and all(below.values()):
            homes: _Homes = {}
            for top, splits in sorted(below.items()):
                for split, some in (splits or {}).items():
                    homes.setdefault(split, []).extend(((*base, top, one), top) for one in some)
            warnings.append(f"the splits lie in {_listed(filled)}: these are the classes")
            return base, homes
        if len(filled) != 1 or children.loose[base]:
            break
        base = (*base, filled[0])
    return (), None


def _split_folders(parts: Parts, children: _Children, warnings: list[str]) -> dict[str, list[str]] | None:
    """split -> its folders, of a folder whose sub-folders are splits; None of any other.

    Train and TRAIN are one split. Of train and training, each is a split with its own name.
    """
    filled = children.filled(parts)
    split_by_folder = {one: split for one in filled if (split := split_of(one)) is not None}
    if not split_by_folder:
        return None
    others = [one for one in filled if one not in split_by_folder and one.lower() not in _MASKS]
    splits = set(split_by_folder.values())
    if others and not ("train" in splits and len(splits) > 1):
        warnings.append(
            f"{_listed(split_by_folder)} counts as class, not as split, since {_listed(others)} is beside it"
        )
        return None
    found: dict[str, list[str]] = {}
    for folder, split in sorted(split_by_folder.items()):
        spellings = {one.lower() for one, other in split_by_folder.items() if other == split}
        found.setdefault(folder.lower() if len(spellings) > 1 else split, []).append(folder)
    return {split: found[split] for split in in_order(found)}


def _inner(parts: Parts, children: _Children, name: str) -> Parts:
    """Goes down through folders that hold all pictures and name no class, such as images/, train/train/."""
    for _ in range(_DEEPEST_WRAPPER):
        filled = children.filled(parts)
        above = parts[-1] if parts else name
        if len(filled) != 1 or children.loose[parts]:
            break
        if filled[0].lower() not in _WRAPPERS and filled[0].lower() != above.lower():
            break
        parts = (*parts, filled[0])
    return parts


def _classes(homes: _Homes, files: Sequence[Parts], children: _Children) -> Layout:
    """The usual layout: in each split, and alike in all, the sub-folders are the classes."""
    inner = {
        split: [(_inner(home, children, home[-1] if home else ""), above) for home, above in places]
        if split != WHOLE
        else places
        for split, places in homes.items()
    }
    names: set[str] = set()
    for places in inner.values():
        for home, above in places:
            names |= {above} if above else set(children.every(home))
    has_classes = any(above or children.filled(home) for places in inner.values() for home, above in places)
    by_text = sorted({writable(one) for one in names}) if has_classes else []
    number = {one: i for i, one in enumerate(by_text)}
    made = Layout({}, dict.fromkeys(inner, tuple(by_text)), {})
    for split, places in inner.items():
        group = made.files[split] = []
        for home, above in places:
            for one in files:
                if one[: len(home)] != home:
                    continue
                group.append(one)
                label = above or (one[len(home)] if len(one) > len(home) + 1 else "")
                if label:
                    made.label_of[one] = number[writable(label)]
        group.sort()
    return made


def _anomalies(
    homes: _Homes, files: Sequence[Parts], children: _Children, masks: Counter[str]
) -> Layout | None:
    """The anomaly-detection layout; None if this is none."""
    if "train" not in homes:
        return None
    truth = any(one.lower() in _TRUTH for one in masks)
    normal = {one for home, _ in homes["train"] for one in children.filled(home)}
    tested = {split: places for split, places in homes.items() if split_of(split) != "train"}
    seen = {one for places in tested.values() for home, _ in places for one in children.filled(home)}
    if not normal:
        normal = {one for one in seen if one.lower() in _NORMAL}
    is_anomaly = truth or (len(normal) == 1 and (normal & seen or min(normal).lower() in _NORMAL))
    if not is_anomaly or not normal or not seen - normal:
        return None
    good: _Homes = {}
    bad: list[tuple[Parts, str, str]] = []  # home, split, class
    for split, places in homes.items():
        for home, above in places:
            inside = children.filled(home)
            keep = [one for one in inside if one in normal]
            good.setdefault(split, []).extend(((*home, one), above or one) for one in keep)
            if split == "train" and children.loose[home]:
                good[split].append((home, above or (min(normal) if len(normal) == 1 else "")))
            bad += [
                ((*home, one), "/".join((split, *kind)), "/".join(kind))
                for one in inside
                if one not in normal and split in tested
                for kind in [(above, one) if above else (one,)]
            ]
    made = _classes({split: places for split, places in good.items() if places}, files, children)
    for split in made.files:
        made.files[split] = sorted(set(made.files[split]))
    kinds = sorted({writable(kind) for _, _, kind in bad})
    made.files[DEFECTS] = []
    for home, split, kind in sorted(bad):
        group = [one for one in files if one[: len(home)] == home]
        made.files.setdefault(writable(split), []).extend(group)
        made.files[DEFECTS] += group
        for one in group:
            made.label_of[one] = kinds.index(writable(kind))
    made.files[DEFECTS].sort()
    made.offered = tuple(split for split in made.files if split not in good)
    made.class_names |= dict.fromkeys(made.offered, tuple(kinds))
    return made


def _tell_empty(made: Layout, children: _Children, homes: _Homes | None, warnings: list[str]) -> None:
    for split, names in made.class_names.items():
        if homes is None or split == "train":
            used = {made.label_of.get(one) for one in made.files[split]}
            empty = [name for i, name in enumerate(names) if i not in used]
            if empty:
                warnings.append(f"without a picture{'' if homes is None else ' in train'}: {_listed(empty)}")


def _listed(names: Iterable[str]) -> str:
    names = [writable(one) for one in sorted(names)]
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _shown(parts: Parts) -> str:
    return writable("/".join(parts))


def _pictures(n: int) -> str:
    return "1 picture lies" if n == 1 else f"{n} pictures lie"
