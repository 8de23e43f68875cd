"""A LightningModule as it is: its `training_step` is the loss. No Trainer is needed.

Needs ``pip install lightning``. Its `configure_optimizers` is not called: a search brings the optimizer.
The study::

    name = "lightning_module"
    sampler = { kind = "genetic", population_size = 6, n_generations = 2, n_elites = 1 }
    evaluation = { tasks = ["lightning_module:Digits"], steps = 60, batch_size = 64, seeds = [0] }
    rerun = { candidates = 1, seeds = 2 }
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from optevo.tasks import Split, Task


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y, label_smoothing=0.1)


class Digits(Task):
    name = "lightning_digits"

    def load(self, root):
        data = load_digits()
        x, y = torch.tensor(data.data).float() / 16, torch.tensor(data.target)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        parts = {"train": order[:1_200], "validation": order[1_200:1_500], "test": order[1_500:]}
        return {name: Split(x[part], y[part]) for name, part in parts.items()}

    def model(self, generator):
        seed = int(torch.randint(2**31, (), generator=generator))
        with torch.random.fork_rng(devices=[]):  # its layers draw from torch's global generator
            torch.random.default_generator.manual_seed(seed)
            return Classifier()

    def loss(self, model, batch):
        return model.training_step(batch, 0)
