from __future__ import annotations

from sdviz.data.layouts.folders import Layout, understand
from sdviz.data.layouts.tree import Tree


def layout(*paths: str, empty: tuple[str, ...] = ()) -> Layout:
    """The layout of pictures at these paths; `empty` are folders without any."""
    files = sorted(tuple(path.split("/")) for path in paths)
    folders = {file[:depth] for file in files for depth in range(1, len(file))}
    return understand(Tree(files, sorted(folders | {tuple(one.split("/")) for one in empty})), "top")


def told(found: Layout, split: str) -> dict[str, str | None]:
    """Picture -> its class, None for none."""
    names = found.class_names[split]
    labels = {"/".join(one): found.label_of.get(one) for one in found.files[split]}
    return {one: None if label is None else names[label] for one, label in labels.items()}


def test_sub_folders_are_classes_and_empty_ones_too() -> None:
    found = layout("cat/1.png", "cat/2020/05/2.png", "dog/3.png", "loose.png", empty=("fox",))
    assert found.class_names == {"all": ("cat", "dog", "fox")}
    assert told(found, "all") == {
        "cat/1.png": "cat", "cat/2020/05/2.png": "cat", "dog/3.png": "dog", "loose.png": None
    }  # fmt: skip
    assert found.warnings == ["without a picture: fox"]


def test_splits_in_any_capitals_share_their_classes() -> None:
    found = layout(
        "Train/cat/1.png", "Train/dog/2.png", "VALID/dog/3.png", "testing/cat/4.png", "testing/5.png"
    )
    assert list(found.files) == ["train", "val", "test"]
    assert set(found.class_names.values()) == {("cat", "dog")}
    assert told(found, "train") == {"Train/cat/1.png": "cat", "Train/dog/2.png": "dog"}
    assert told(found, "val") == {"VALID/dog/3.png": "dog"}
    assert told(found, "test") == {"testing/cat/4.png": "cat", "testing/5.png": None}


def test_two_spellings_of_a_split() -> None:
    found = layout("Train/cat/1.png", "train/dog/2.png", "test/cat/3.png")
    assert told(found, "train") == {"Train/cat/1.png": "cat", "train/dog/2.png": "dog"}
    assert not found.warnings and not found.passed_over
    # a word of its own is a split of its own, and its classes are no defects
    found = layout("train/cat/1.png", "training/dog/2.png", "test/cat/3.png")
    assert list(found.files) == ["train", "test", "training"] and not found.offered
    assert told(found, "training") == {"training/dog/2.png": "dog"}


def test_masks_beside_their_pictures_are_no_pictures() -> None:
    found = layout(
        "benign/b (1).png", "benign/b (1)_mask.png", "benign/b (1)_mask_1.png", "face/2.jpg", "face/2-GT.png",
        "face/red_mask.png",
    )  # fmt: skip
    kept = {"benign/b (1).png": "benign", "face/2.jpg": "face", "face/red_mask.png": "face"}
    assert told(found, "all") == kept and found.passed_over == {".png": 3}
    assert found.warnings == ["masks beside their pictures, passed over: 3, such as benign/b (1)_mask.png"]


def test_a_flat_train_folder_beside_defects_has_the_good_class() -> None:
    found = layout("train/1.png", "train/2.png", "test/good/3.png", "test/bad/4.png")
    assert told(found, "train") == {"train/1.png": "good", "train/2.png": "good"}
    assert told(found, "defects") == {"test/bad/4.png": "bad"} and not found.warnings


def test_a_class_called_train_is_no_split() -> None:
    found = layout("train/1.png", "bus/2.png", "car/3.png")
    assert list(found.files) == ["all"] and found.class_names["all"] == ("bus", "car", "train")
    assert found.warnings == ["train counts as class, not as split, since bus, car is beside it"]
    # two splits are no accident: what is beside them is left out, and told
    found = layout("train/cat/1.png", "test/cat/2.png", "sample/3.png")
    assert list(found.files) == ["train", "test"] and found.passed_over == {"sample": 1}
    assert "1 picture lies outside of the splits, such as sample/3.png: passed over" in found.warnings


def test_wrapping_folders_are_no_classes() -> None:
    # Kaggle's double folders
    found = layout("seg_train/seg_train/sea/1.png", "seg_test/seg_test/sea/2.png")
    assert told(found, "train") == {"seg_train/seg_train/sea/1.png": "sea"}
    assert told(found, "test") == {"seg_test/seg_test/sea/2.png": "sea"}
    found = layout("archive/pets/train/cat/1.png", "archive/pets/val/cat/2.png")
    assert told(found, "val") == {"archive/pets/val/cat/2.png": "cat"}
    # detection exports: pictures without classes
    found = layout("train/images/1.png", "valid/images/2.png", empty=("train/labels",))
    assert told(found, "train") == {"train/images/1.png": None} and found.class_names["val"] == ()
    found = layout("images/cat/1.png", "images/dog/2.png")
    assert told(found, "all") == {"images/cat/1.png": "cat", "images/dog/2.png": "dog"}


def test_splits_below_each_class() -> None:
    found = layout("cat/train/1.png", "cat/test/2.png", "dog/train/3.png", "dog/test/4.png")
    assert told(found, "train") == {"cat/train/1.png": "cat", "dog/train/3.png": "dog"}
    assert told(found, "test") == {"cat/test/2.png": "cat", "dog/test/4.png": "dog"}


MVTEC = (
    "train/good/0.png", "train/good/1.png", "test/good/0.png", "test/crack/0.png", "test/hole/0.png",
    "ground_truth/crack/0_mask.png", "ground_truth/hole/0_mask.png",
)  # fmt: skip


def test_defects_are_another_set_and_masks_no_pictures() -> None:
    found = layout(*MVTEC)
    assert told(found, "train") == {"train/good/0.png": "good", "train/good/1.png": "good"}
    assert told(found, "test") == {"test/good/0.png": "good"} and found.class_names["test"] == ("good",)
    assert told(found, "defects") == {"test/crack/0.png": "crack", "test/hole/0.png": "hole"}
    assert told(found, "test/hole") == {"test/hole/0.png": "hole"}
    assert found.offered == ("defects", "test/crack", "test/hole")
    assert found.passed_over == {"ground_truth": 2}


def test_defects_of_several_products_and_of_other_spellings() -> None:
    found = layout(*(f"{product}/{path}" for product in ("bottle", "cable") for path in MVTEC))
    assert found.class_names["train"] == ("bottle", "cable") and len(found.files["train"]) == 4
    assert told(found, "test/cable/hole") == {"cable/test/hole/0.png": "cable/hole"}
    assert len(found.files["defects"]) == 4 and found.passed_over == {"ground_truth": 4}
    # without masks: one class to train on, and it is in the test split beside others
    found = layout("train/ok/1.png", "test/ok/2.png", "test/ko/3.png")
    assert list(found.files) == ["train", "test", "defects", "test/ko"]
    # 3-D scans keep masks beside the pictures of each defect
    found = layout("train/good/rgb/1.png", "test/good/rgb/2.png", "test/hole/rgb/3.png", "test/hole/gt/3.png")
    assert told(found, "defects") == {"test/hole/rgb/3.png": "hole"} and found.passed_over == {"gt": 1}


def test_classes_that_only_the_test_split_has_are_no_defects() -> None:
    found = layout("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/fox/4.png")
    assert found.offered == () and found.class_names["train"] == ("cat", "dog", "fox")
    assert "without a picture in train: fox" in found.warnings


def test_masks_go_only_beside_pictures() -> None:
    found = layout("images/1.png", "masks/1.png")
    assert told(found, "all") == {"images/1.png": None} and found.passed_over == {"masks": 1}
    found = layout("mask/1.png", "no_mask/2.png")
    assert found.class_names["all"] == ("mask", "no_mask")
