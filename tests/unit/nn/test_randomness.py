import hashlib

import numpy as np
import pytest
import torch

from sdviz.nn.randomness import content_ids, derive_seed, image_noise, step_generator

SHAPE = (3, 8, 8)


def test_noise_depends_on_seed_id_and_purpose_and_on_nothing_else() -> None:
    alone = image_noise(["b"], SHAPE, 0, "start")
    torch.manual_seed(123)
    torch.rand(7)
    among = image_noise(["a", "b", "c"], SHAPE, 0, "start")
    assert torch.equal(among[1], alone[0])
    assert torch.equal(image_noise(["c", "b"], SHAPE, 0, "start")[1], alone[0])
    for other in (
        image_noise(["b"], SHAPE, 1, "start"),
        image_noise(["B"], SHAPE, 0, "start"),
        image_noise(["b"], SHAPE, 0, "step 50"),
    ):
        assert not torch.equal(other[0], alone[0])
    assert alone.dtype == torch.float32
    assert alone.device.type == "cpu"


def test_noise_does_not_disturb_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    image_noise(["a"], SHAPE, 0, "start")
    assert torch.equal(torch.rand(3), expected)


def test_noise_of_each_timestep_is_its_own() -> None:
    steps = [image_noise(["a"], SHAPE, 0, f"step {t}").flatten() for t in range(100)]
    assert len({tuple(s.tolist()) for s in steps}) == 100
    correlation = torch.corrcoef(torch.stack(steps)) - torch.eye(100)
    # 192 numbers each: a standard error of 0.072
    assert correlation.abs().max() < 0.4


def test_noise_is_standard_normal_over_images() -> None:
    noise = image_noise([f"shapes:test:{i}" for i in range(1000)], SHAPE, 0, "start")
    n = noise.numel()
    assert abs(noise.mean().item()) < 4 / n**0.5
    assert abs(noise.var().item() - 1) < 4 * (2 / n) ** 0.5
    # a pixel over images, not only the pixels of one image
    assert noise.mean(0).abs().max() < 5 / 1000**0.5


def test_seeds_are_63_bits_and_the_parts_cannot_run_together() -> None:
    seeds = [
        derive_seed(s, i, p) for s in (0, 1, 11) for i in ("", "1", "11", "a\nb") for p in ("", "1", "start")
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    assert max(seeds) > 2**61


def test_seeds_stay_the_same_over_versions() -> None:
    # pictures in papers and manifests are made again from these: a change here breaks every one of them
    assert derive_seed(0, "shapes:test:7", "start") == (
        int.from_bytes(hashlib.sha256(b"0\x1fstart\x1fshapes:test:7").digest()[:8], "little") >> 1
    )
    assert derive_seed(np.int64(3), "a", "target") == derive_seed(3, "a", "target")


def test_content_ids_are_the_sha_256_of_the_bytes() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
    images[2] = images[0]
    ids = content_ids(images)
    assert ids[0] == hashlib.sha256(images[0].tobytes()).hexdigest()
    assert ids[0] == ids[2] != ids[1]
    # a view in another memory order is the same picture
    flipped = np.ascontiguousarray(images[:, :, ::-1])[:, :, ::-1]
    assert (content_ids(flipped) == ids).all()


def test_as_many_ids_as_rows() -> None:
    assert image_noise([], SHAPE, 0, "start").shape == (0, *SHAPE)
    with pytest.raises(TypeError):
        image_noise(None, SHAPE, 0, "start")  # type: ignore[arg-type]


def test_the_draws_of_a_step_depend_on_seed_step_and_purpose_alone() -> None:
    def draw(seed: int, step: int, purpose: str) -> tuple[float, ...]:
        return tuple(torch.rand(4, generator=step_generator(seed, step, purpose)).tolist())

    assert draw(1, 2, "a") == draw(1, 2, "a")
    keys = [(s, t, p) for s in (0, 1, 11, 2**32, 2**33 + 1) for t in (0, 1, 11) for p in ("", "a", "1")]
    assert len({draw(*key) for key in keys}) == len(keys)
