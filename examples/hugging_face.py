"""A model of Hugging Face's transformers, with random weights: is there more of token 1 or of token 2?

Needs ``pip install transformers``. `load` gives token numbers, `model` a small BERT that returns its logits.
The library draws weights from torch's global generator, so `model` lends it a seed and puts the generator
back. Dropout is 0, since it draws from there too. The study::

    name = "hugging_face"
    sampler = { kind = "genetic", population_size = 6, n_generations = 2, n_elites = 1 }
    evaluation = { tasks = ["hugging_face:MoreOnes"], steps = 60, batch_size = 32, seeds = [0] }
    rerun = { candidates = 1, seeds = 2 }
"""

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from optevo.tasks import Split, Task


class Logits(nn.Module):
    """What a task's loss and score take: a network that returns a tensor."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(input_ids=tokens).logits


class MoreOnes(Task):
    name = "more_ones"

    def load(self, root):
        tokens = torch.randint(1, 5, (1_200, 12), generator=torch.Generator().manual_seed(0))
        tokens = tokens.unique(dim=0)  # no sentence twice, so none in two splits
        tokens = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(1))]
        labels = ((tokens == 1).sum(dim=1) > (tokens == 2).sum(dim=1)).long()
        parts = {"train": slice(0, 800), "validation": slice(800, 1_000), "test": slice(1_000, None)}
        return {name: Split(tokens[part], labels[part]) for name, part in parts.items()}

    def model(self, generator):
        config = BertConfig(
            vocab_size=5,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=12,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        seed = int(torch.randint(2**31, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            return Logits(BertForSequenceClassification(config)).train()
