"""The plain way to evaluate a genome: what one writes first, to measure ours against.

torchvision's data sets with their transforms image by image, a `DataLoader` with two worker processes, the
published networks in torch's own modules, an update that goes through the parameters one by one and through
the terms one by one, `loss.item()` every step, float32 and two threads. Written anew from the published
description; what makes it slow is what everybody's first version has, nothing is slowed down on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

from optevo.optim import TermGenome
from optevo.tasks.orders import fixed_order

THREADS = 2
# Forked, as a program on Linux has them: one that was itself spawned would spawn them, which takes seconds.
LOADERS: dict[str, Any] = {"num_workers": 2, "multiprocessing_context": "fork"}
BATCH = 128
TRAIN, VALIDATION = 15_000, 5_000
STATISTICS = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


class SmallCNN(nn.Module):
    """The published network for MNIST and Fashion-MNIST."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(64 * 7 * 7, 256)
        self.dropout = nn.Dropout(0.3)
        self.fc2 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        return self.fc2(self.dropout(torch.relu(self.fc1(x.flatten(1)))))


class CifarCNN(nn.Module):
    """The published network for CIFAR-10, batch norm after the first convolution of each block."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2), nn.Dropout(0.25)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(64 * 8 * 8, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class PlainOptimizer(torch.optim.Optimizer):
    """A genome's six steps as they are published, the schedule included; `total_steps` is T."""

    def __init__(self, params: Iterable[Any], genome: TermGenome, total_steps: int) -> None:
        super().__init__(params, {"lr": genome.lr})
        self.genome, self.total_steps, self.t = genome, total_steps, 0

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        genome = self.genome
        warmup = genome.warmup_steps if genome.warmup else 0
        for group in self.param_groups:
            lr = group["lr"] * min(1.0, (self.t + 1) / max(1, warmup))
            if genome.cosine_decay:
                lr *= 0.5 * (1 + math.cos(math.pi * self.t / self.total_steps))
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, lr)
        self.t += 1

    def update(self, p: Tensor, g: Tensor, lr: float) -> None:
        """One parameter tensor."""
        genome, state = self.genome, self.state[p]
        if not state:
            state["step"], state["m"], state["v"] = 0, torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        if genome.gradient_clipping:
            g = g.clamp(-genome.clip_value, genome.clip_value)
        p.mul_(1 - lr * genome.weight_decay)
        m, v = g, g * g
        if genome.use_momentum:
            m = state["m"].mul_(genome.beta1).add_(g, alpha=1 - genome.beta1)
        if genome.use_second_moment:
            v = state["v"].mul_(genome.beta2).addcmul_(g, g, value=1 - genome.beta2)
        if genome.bias_correction:
            m = m / (1 - genome.beta1 ** state["step"]) if genome.use_momentum else m
            v = v / (1 - genome.beta2 ** state["step"]) if genome.use_second_moment else v
        delta = torch.zeros_like(p)
        for term, alpha in zip(genome.terms, genome.alphas, strict=True):
            delta.add_(self.term(term, g, m, v), alpha=alpha)
        p.sub_(delta, alpha=lr)

    def term(self, name: str, g: Tensor, m: Tensor, v: Tensor) -> Tensor:
        """One term's value."""
        eps = self.genome.eps
        match name:
            case "GRAD":
                value = g
            case "MOMENTUM":
                value = m
            case "RMS_NORM":
                value = g / (v.sqrt() + eps)
            case "ADAM_TERM":
                value = m / (v.sqrt() + eps)
            case "SIGN_GRAD":
                value = g.sign()
            case "UNIT_GRAD":
                value = g / (g.abs() + eps)
            case "NESTEROV":
                value = m + self.genome.beta1 * (g - m)
        return value


def load(
    task: str, root: Path, training: int = TRAIN, validation: int = VALIDATION
) -> tuple[Dataset[Any], Dataset[Any]]:
    """The same examples to train on as ours, and the same to validate on."""
    plain = [transforms.ToTensor(), transforms.Normalize(*STATISTICS[task])]
    varied = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *plain]

    def dataset(steps: list[Any]) -> Any:
        transform = transforms.Compose(steps)
        if task == "cifar10":
            return datasets.ImageFolder(str(root / "cifar10" / "train"), transform)
        kind = datasets.MNIST if task == "mnist" else datasets.FashionMNIST
        return kind(str(root), train=True, transform=transform, download=False)

    whole = dataset(plain)
    order = fixed_order(len(whole), task)
    varying = dataset(varied) if task == "cifar10" else whole
    return Subset(varying, order[:training]), Subset(whole, order[-validation:])


def train(
    task: str,
    data: tuple[Dataset[Any], Dataset[Any]],
    genome: TermGenome,
    *,
    seed: int,
    steps: int,
    check: Callable[[], None] = lambda: None,
) -> float:
    """Train and score one model; returns its accuracy. `check` is called before each step, as in ours."""
    torch.manual_seed(seed)
    model = CifarCNN() if task == "cifar10" else SmallCNN()
    optimizer = PlainOptimizer(model.parameters(), genome, steps)
    criterion = nn.CrossEntropyLoss()
    # Kept alive from epoch to epoch, or starting them anew would count four times in 500 steps.
    loader = DataLoader(data[0], BATCH, shuffle=True, drop_last=True, persistent_workers=True, **LOADERS)
    model.train()
    losses: list[float] = []
    while len(losses) < steps:
        for inputs, targets in loader:
            check()
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    del loader
    return score(model, data[1])


def score(model: nn.Module, data: Dataset[Any]) -> float:
    """Accuracy, batch by batch through a loader of the same kind."""
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for inputs, targets in DataLoader(data, 250, **LOADERS):
            correct += (model(inputs).argmax(dim=1) == targets).sum().item()
            total += len(targets)
    return correct / total
