"""A regression on a table: scikit-learn's diabetes data.

A loss and a metric have names. Save the study below as ``tabular_regression.toml`` in this folder, then
``optevo task check tabular_regression.toml`` and ``optevo run tabular_regression.toml``::

    name = "tabular_regression"
    sampler = { kind = "genetic", population_size = 6, n_generations = 2, n_elites = 1 }
    evaluation = { tasks = ["tabular_regression:Diabetes"], steps = 100, batch_size = 50, seeds = [0] }
    rerun = { candidates = 1, seeds = 2 }
"""

import torch
from sklearn.datasets import load_diabetes
from torch import nn

from optevo.tasks import Split, Task, build


class Diabetes(Task):
    name = "diabetes"
    loss = "mse"
    metric = "r2"

    def load(self, root):
        data = load_diabetes()
        x, y = torch.tensor(data.data).float(), torch.tensor(data.target).float()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        parts = {"train": order[:300], "validation": order[300:370], "test": order[370:]}
        train = parts["train"]  # scales come from it alone
        x, y = x / x[train].std(dim=0), (y - y[train].mean()) / y[train].std()
        return {name: Split(x[part], y[part, None]) for name, part in parts.items()}

    def model(self, generator):
        return build(lambda: nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1)), generator)
