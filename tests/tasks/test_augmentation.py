"""What training images go through."""

from __future__ import annotations

import pytest
import torch
from small_tasks import seeded
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.tasks import Split, get_task
from optevo.tasks.augmentation import (
    _STRENGTHS,
    _operations,
    augmentation,
    crop_and_flip,
    cut_out,
    mix_up,
    randaugment,
)


def pixels(count: int = 16, channels: int = 3, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=seeded(7))


def test_steps_are_taken_in_order_with_their_options() -> None:
    steps = augmentation(
        "crop_flip(padding=3) + randaugment(magnitude=5, operations=1) + cutout + mixup(alpha=1)"
    )
    raw, generator = pixels(), seeded(1)
    expected = randaugment(crop_and_flip(raw, generator, padding=3), generator, magnitude=5, operations=1)
    ours = seeded(1)
    assert torch.equal(steps.raw(raw, ours), expected)
    targets = torch.arange(16) % 5
    mixed = mix_up(cut_out(expected.float(), generator, size=4), targets, generator, classes=5, alpha=1)
    for got, wanted in zip(steps.prepared(expected.float(), targets, ours, classes=5), mixed, strict=True):
        assert torch.equal(got, wanted)


def test_none_changes_and_draws_nothing() -> None:
    generator = seeded()
    before = generator.get_state()
    raw, targets = pixels(), torch.zeros(16, dtype=torch.int64)
    steps = augmentation("none")
    assert steps.raw(raw, generator) is raw
    assert steps.prepared(raw.float(), targets, generator, classes=2)[1] is targets
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crop_flop", "unknown step 'crop_flop': did you mean 'crop_flip'"),
        ("crop_flip + none", "unknown step 'none'"),
        ("randaugment(9)", r"'randaugment\(9\)' can't be read"),
        ("mixup(alpha=", r"'mixup\(alpha=' can't be read"),
        ("cutout(side=8)", "cutout has no 'side'"),
        ("randaugment(magnitude=31)", "magnitude must be a whole number from 0 to 30, not 31"),
        ("mixup(alpha=2)", "alpha must be a number from 0.001 to 1, not 2"),
        ("crop_flip(padding=True)", "padding must be a whole number"),
        ("", "'' can't be read"),
    ],
)
def test_another_text_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        augmentation(text)


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugments_operations_are_torchvisions(channels: int) -> None:
    """By its own table, which is private: so far as it is there."""
    v2 = pytest.importorskip("torchvision.transforms.v2")
    theirs = v2.RandAugment()
    images = pixels(4, channels)
    for (ours, strength), (name, (strengths, signed)) in zip(
        _STRENGTHS.items(), theirs._AUGMENTATION_SPACE.items(), strict=True
    ):
        levels = strengths(31, 16, 16)
        for magnitude, sign in ((30, 1), (30, -1), (10, 1)):
            level = 0.0 if levels is None else float(levels[magnitude]) * (sign if signed else 1)
            expected = theirs._apply_image_or_video_transform(
                images, name, level, interpolation=theirs.interpolation, fill=theirs._fill
            )
            got = _operations()[ours](images, sign * strength * magnitude / 30)
            assert (got.int() - expected.int()).abs().max() <= 1, name  # factors differ in rounding


def test_randaugment_draws_anew_for_each_image() -> None:
    before = torch.random.get_rng_state()
    same = pixels(1).expand(64, -1, -1, -1)
    out = randaugment(same, seeded(), magnitude=20)
    assert len(out.flatten(1).unique(dim=0)) > 40
    assert out.dtype == torch.uint8
    assert torch.equal(out, randaugment(same, seeded(), magnitude=20))
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(UserError, match="1 or 3 channels, not of 2"):
        randaugment(pixels(4, 2), seeded())


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0])
def test_mix_up_has_betas_shares(alpha: float) -> None:
    generator, targets = seeded(), torch.arange(4)
    inputs = F.one_hot(targets, 4).float()  # so that inputs and targets are mixed alike
    shares = []
    for _ in range(400):
        mixed, soft = mix_up(inputs, targets, generator, classes=4, alpha=alpha)
        torch.testing.assert_close(mixed, soft)
        torch.testing.assert_close(soft.sum(1), torch.ones(4))
        shares.append(soft[0, 0])
    # Of Beta(a, a) with the chance of one in four to be mixed with itself.
    share = torch.stack(shares).double()
    variance = 1 / (4 * (2 * alpha + 1))
    moved = share[share < 1 - 1e-9] if alpha == 1 else share
    assert abs(moved.mean() - (0.5 if alpha == 1 else 0.5 * 0.75 + 0.25)) < 0.07
    if alpha == 1:
        assert abs(moved.var() - variance) < 0.02


def test_a_task_trains_on_mixed_targets() -> None:
    task = get_task("cifar10", network="convnet", width=4, augmentation="crop_flip + mixup")
    split = Split(pixels(32, size=32), torch.arange(32) % 10)
    inputs, targets = next(task.batches(split, 8, seeded()))
    assert targets.shape == (8, 10)
    loss = task.loss(task.model(seeded()), (inputs, targets))
    loss.backward()
    assert loss.isfinite()
