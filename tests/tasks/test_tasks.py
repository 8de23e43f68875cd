"""The contract of every registered task, and the networks. No real data needed but scikit-learn's digits."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from small_tasks import DEVICES, seeded
from torch import nn

from optevo.errors import UserError
from optevo.tasks import TASKS, Split, Task, get_task, vision
from optevo.tasks.orders import fixed_order, stratified_order
from optevo.tasks.vision import crop_and_flip

#: Options for the small made-up sets below; a task that is registered without a line here fails a test.
_FEW = {"train_examples": 40, "validation_examples": 20, "width": 4}
_SMALL = {"width": 8, "layers": 1, "window": 8}
OPTIONS: dict[str, dict[str, int]] = {
    "digits": {},
    "mnist": {"train_examples": 40, "validation_examples": 20},
    "fashion_mnist": {"train_examples": 40, "validation_examples": 20},
    "cifar10": {"train_examples": 40, "validation_examples": 20},
    "cifar100": _FEW,
    "tiny_imagenet": _FEW | {"resolution": 8},
    "flowers102": _FEW | {"resolution": 8},
    "stanford_cars": _FEW | {"resolution": 8},
    "caltech101": _FEW | {"resolution": 8},
    "char_lm": {},
    "shakespeare": _SMALL,
    "ptb": _SMALL,
}
BATCH = 16


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    return get_task(request.param, **OPTIONS[request.param])


def train(task: Task, root: Path, *, steps: int, device: str = "cpu") -> tuple[list[float], nn.Module]:
    split = task.load(root)["train"].to(device)
    model = task.model(seeded(1)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    losses = []
    for batch in islice(task.batches(split, BATCH, seeded(2, device)), steps):
        loss = task.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist(), model


def test_every_registered_task_has_options_here() -> None:
    assert set(OPTIONS) == set(TASKS)


def test_a_task_is_named_as_it_is_registered(task: Task) -> None:
    assert TASKS[task.name] == f"{type(task).__module__}:{type(task).__name__}"


def test_loading_twice_gives_equal_splits_on_the_cpu(task: Task, root: Path) -> None:
    first = task.load(root)
    torch.manual_seed(99)  # the split may not depend on global state
    second = task.load(root)
    assert list(first) == ["train", "validation", "test"]
    for key, split in first.items():
        assert split.device.type == "cpu"
        assert split.inputs.dtype == (torch.int16 if task.name == "ptb" else torch.uint8)
        assert torch.equal(split.inputs, second[key].inputs)
        assert torch.equal(split.targets, second[key].targets)


def test_splits_share_no_example(task: Task, root: Path) -> None:
    if task.name == "ptb":  # of files of their own
        return
    if task.name in ("char_lm", "shakespeare"):
        text = (root / "tinyshakespeare" / "input.txt").read_bytes()
        parts = [bytes(split.inputs.tolist()) for split in task.load(root).values()]
        assert [len(part) + 1 for part in parts] == [7_200, 400, 400]
        assert (text[:7_199], text[7_200:7_599], text[7_600:7_999]) == tuple(parts)
        return
    seen = [{bytes(image.flatten().tolist()) for image in split.inputs} for split in task.load(root).values()]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]


def test_equal_seeds_give_equal_models_and_other_seeds_others(task: Task) -> None:
    first, second, third = (task.model(seeded(seed)).state_dict() for seed in (3, 3, 4))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)


@pytest.mark.parametrize("device", DEVICES)
def test_equal_seeds_give_equal_batches_and_other_seeds_others(task: Task, root: Path, device: str) -> None:
    split = task.load(root)["train"].to(device)
    first, second, third = (
        list(islice(task.batches(split, BATCH, seeded(seed, device)), 6)) for seed in (3, 3, 4)
    )
    for (inputs, targets), (same_inputs, same_targets) in zip(first, second, strict=True):
        assert inputs.device.type == device
        assert len(inputs) == len(targets) == BATCH
        assert torch.equal(inputs, same_inputs)
        assert torch.equal(targets, same_targets)
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(first, third, strict=True))


def test_training_twice_gives_the_same_losses_to_the_last_bit(task: Task, root: Path) -> None:
    assert train(task, root, steps=3)[0] == train(task, root, steps=3)[0]


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_leaves_every_global_generator_alone(task: Task, root: Path, device: str) -> None:
    split = task.load(root)["validation"].to(device)
    before = torch.random.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    on_device = torch.cuda.get_rng_state() if device == "cuda" else None
    _, model = train(task, root, steps=2, device=device)
    task.score(model, split)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == str(np.random.get_state())  # noqa: NPY002
    if on_device is not None:
        assert torch.equal(on_device, torch.cuda.get_rng_state())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_and_loss_never_wait_for_the_device(task: Task, root: Path) -> None:
    split = task.load(root)["train"].to("cuda")
    model = task.model(seeded()).to("cuda")
    batches = task.batches(split, BATCH, seeded(0, "cuda"))
    task.loss(model, next(batches)).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in islice(batches, 5):
            task.loss(model, batch).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_scoring_is_repeatable_and_restores_every_modules_mode(task: Task, root: Path) -> None:
    split = task.load(root)["validation"]
    model = task.model(seeded())
    frozen = next(module for module in model.modules() if module is not model)
    frozen.eval()
    first = task.score(model, split)
    assert -1e9 < first < 0 if task.metric == "-perplexity" else 0 <= first <= 1
    assert task.score(model, split) == first
    assert model.training
    assert not frozen.training
    assert torch.is_grad_enabled()


def test_a_batch_larger_than_the_split_is_refused(task: Task, root: Path) -> None:
    split = task.load(root)["train"]
    with pytest.raises(UserError, match="batch_size"):
        next(task.batches(split, len(split) + 1, seeded()))


def test_an_epoch_visits_no_example_twice() -> None:
    task = get_task("digits")
    numbers = torch.arange(100, dtype=torch.float32)
    drawn = [int(x) for x, _ in islice(task.batches(Split(numbers, numbers), 30, seeded()), 3) for x in x]
    assert len(set(drawn)) == len(drawn) == 90


def test_accuracy_counts_every_example_once() -> None:
    task = get_task("digits")
    split = task.load(Path())["train"]
    task.score_batch_size = 100  # leaves a partial last batch of 77
    model = task.model(seeded())
    with torch.no_grad():
        images = (split.inputs.float() / 255 - task.normalise.mean[0]) / task.normalise.std[0]
        expected = (model(images).argmax(1) == split.targets).double().mean().item()
    assert task.score(model, split) == pytest.approx(expected, abs=1e-12)


def test_normalised_images_are_float_and_channels_last() -> None:
    task = get_task("cifar10")
    raw = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=seeded())
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    )
    prepared = task.prepare(raw)
    torch.testing.assert_close(prepared, (raw.float() / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    assert prepared.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
def test_augmentation_equals_cropping_and_flipping_image_by_image(device: str) -> None:
    images = torch.randint(1, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=seeded()).to(device)
    result = crop_and_flip(images, seeded(5, device))
    generator = seeded(5, device)  # the same draws, in the same order
    tops, lefts = torch.randint(0, 9, (2, 64), generator=generator, device=device).tolist()
    flips = torch.randint(0, 2, (64,), generator=generator, device=device).tolist()
    for image, top, left, flip, got in zip(images, tops, lefts, flips, result, strict=True):
        padded = torch.zeros(3, 40, 40, dtype=torch.uint8, device=device)
        padded[:, 4:36, 4:36] = image
        expected = padded[:, top : top + 32, left : left + 32]
        assert torch.equal(got, expected.flip(2) if flip else expected)
    assert len(set(zip(tops, lefts, strict=True))) > 30
    assert 15 < sum(flips) < 49
    assert {min(tops), max(tops), min(lefts), max(lefts)} == {0, 8}


def test_photographs_are_augmented_and_nothing_else_is(task: Task, root: Path) -> None:
    split = task.load(root)["train"]
    if split.inputs.dim() == 4:
        photographs = split.inputs.shape[1] == 3
        assert torch.equal(task.augment(split.inputs, seeded()), split.inputs) != photographs


def test_the_fixed_subsets_never_change() -> None:
    """Results of years may be compared on them: these hashes are not to be updated."""

    def digest(numbers: list[int]) -> str:
        return hashlib.sha256(",".join(map(str, numbers)).encode()).hexdigest()[:16]

    digits = stratified_order(_digit_labels(), "digits")
    assert digest(digits[:1077]) == "bad4e2253f13754f"
    assert digest(fixed_order(60_000, "mnist")[:15_000]) == "905516a98b2de3f5"
    assert digest(fixed_order(60_000, "fashion_mnist")[:15_000]) == "18de3b52c71c40f4"
    assert digest(fixed_order(50_000, "cifar10")[:15_000]) == "05a01cbb31a99a1b"


def _digit_labels() -> list[int]:
    from sklearn.datasets import load_digits  # noqa: PLC0415

    return [int(label) for label in load_digits().target]


def test_digits_are_1077_360_and_360_with_each_class_in_proportion() -> None:
    splits = get_task("digits").load(Path())
    assert [len(split) for split in splits.values()] == [1077, 360, 360]
    whole = torch.tensor(_digit_labels()).bincount(minlength=10) / 1797
    for split in splits.values():
        assert (split.targets.bincount(minlength=10) - whole * len(split)).abs().max() <= 1.01


def test_subsets_hold_each_class_about_equally() -> None:
    labels = torch.arange(50_000) // 5_000  # CIFAR-10's folders: 5,000 a class, in order
    counts = labels[torch.tensor(fixed_order(50_000, "cifar10")[:15_000])].bincount(minlength=10)
    assert (counts - 1_500).abs().max() < 150  # four standard deviations of a random subset


def test_validation_stays_the_same_when_less_is_trained_on(root: Path) -> None:
    few = get_task("mnist", train_examples=10, validation_examples=20).load(root)
    many = get_task("mnist", train_examples=40, validation_examples=20).load(root)
    assert torch.equal(few["validation"].inputs, many["validation"].inputs)
    assert torch.equal(few["train"].inputs, many["train"].inputs[:10])


def test_adam_learns_the_digits_in_150_steps() -> None:
    task = get_task("digits")
    splits = task.load(Path())
    model = task.model(seeded())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for batch in islice(task.batches(splits["train"], 128, seeded(1)), 150):
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
    assert task.score(model, splits["validation"]) > 0.9


# --- names ------------------------------------------------------------------------------------------------

OWN = """
from torch import nn
import torch
from optevo.tasks import Split, Task, build

class Rings(Task):
    name = "rings"
    def __init__(self, count=300):
        self.count = count
    def load(self, root):
        points = torch.randn(self.count, 2, generator=torch.Generator().manual_seed(0))
        split = Split(points, (points.norm(dim=1) > 1.2).long())
        return {"train": split, "validation": split, "test": split}
    def model(self, generator):
        return build(lambda: nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)), generator)

def make(count=300):
    return Rings(count)

def wrong():
    return 3

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_rings.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import no_such_dependency\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
    yield "own_rings"
    sys.modules.pop("own_rings", None)


@pytest.mark.parametrize("attribute", ["make", "Rings"])
def test_a_users_own_task_trains(own: str, attribute: str) -> None:
    task = get_task(f"{own}:{attribute}", count=200)
    losses, model = train(task, Path(), steps=60)
    assert losses[-1] < losses[0]
    assert task.score(model, task.load(Path())["test"]) > 0.5


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("minst", "unknown task 'minst'.*mnist"),
        ("no_such_module:f", "no module 'no_such_module'"),
        ("own_rings:nothing", "has no 'nothing'"),
        ("own_rings:number", "is of type int, not a function"),
        ("own_rings:wrong", "returned a int"),
        ("own_rings:", "module:NAME"),
    ],
)
def test_a_wrong_name_is_explained(own: str, reference: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        get_task(reference)


def test_a_fault_inside_a_users_module_is_told_and_its_traceback_kept(own: str) -> None:
    with pytest.raises(UserError, match=r"own_broken:f.*no_such_dependency.*own_broken.py, line 1") as told:
        get_task("own_broken:f")
    assert isinstance(told.value.__cause__, ModuleNotFoundError)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(UserError, match="examples_to_train"):
        get_task("mnist", examples_to_train=3)


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_an_impossible_size_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="train_examples"):
        get_task("mnist", train_examples=value)


def test_too_few_images_for_the_split_are_reported(root: Path) -> None:
    with pytest.raises(UserError, match=r"is 61, but the train part .* has 60 images"):
        get_task("mnist", train_examples=41, validation_examples=20).load(root)


def test_a_split_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(UserError, match="3 inputs but 2 targets"):
        Split(torch.zeros(3), torch.zeros(2))


def test_digits_are_scikit_learns_own():
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    pixels, labels = vision._read_digits()
    assert torch.equal(pixels, torch.from_numpy(bunch.data))
    assert torch.equal(labels, torch.from_numpy(bunch.target))
