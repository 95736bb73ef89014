"""Names of splits as people write them: in folders, file names, arrays and columns."""

import re
from collections.abc import Iterable

ORDER = ("train", "val", "test", "extra")
_WORDS = {
    "train": "train", "training": "train", "trainset": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "valset": "val", "eval": "val",
    "test": "test", "testing": "test", "testset": "test",
    "extra": "extra",
}  # fmt: skip
# words that say nothing more beside a split's name, as in Training_Set or seg_train
_FILLERS = frozenset(
    "set data dataset images image imgs img pics pictures photos samples split seg folder public".split()
)


def split_of(name: str) -> str | None:
    """The split that a folder's name means, as train for Training_set or train2017; None if it means none."""
    words = [word for word in re.split(r"[\W_]+", re.sub(r"(19|20)\d\d$", "", name.lower())) if word]
    named = [_WORDS[word] for word in words if word in _WORDS]
    others = [word for word in words if word not in _WORDS and word not in _FILLERS]
    return named[0] if len(named) == 1 and not others else None


def split_within(text: str) -> tuple[str, str | None]:
    """What is left of a longer name without the word for a split, and that split if there is exactly one."""
    parts = re.split(r"([\W_]+)", text)
    places = [i for i, part in enumerate(parts) if part.lower() in _WORDS]
    if len(places) != 1:
        return text, None
    (place,) = places
    rest = "".join((*parts[:place], *parts[place + 1 :]))
    return rest.strip("-_. "), _WORDS[parts[place].lower()]


def in_order(splits: Iterable[str]) -> tuple[str, ...]:
    """Splits in the order train, val, test, extra, others by name."""
    return tuple(sorted(splits, key=lambda one: (ORDER.index(one) if one in ORDER else len(ORDER), one)))


def meant(asked: str, present: Iterable[str]) -> str | None:
    """The split among `present` that is asked for, in any spelling; None if there is none or several."""
    present = tuple(present)
    if asked in present:
        return asked
    small = [one for one in present if one.lower() == asked.lower()]
    same = [one for one in present if split_of(asked) is not None and split_of(one) == split_of(asked)]
    found = small or same
    return found[0] if len(found) == 1 else None
