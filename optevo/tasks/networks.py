"""Classifiers by name: torchvision's and our own, for images of any size and any number of classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from optevo.errors import UserError
from optevo.naming import hint
from optevo.tasks import models
from optevo.tasks.base import evaluating
from optevo.tasks.efficientnet_lite import efficientnet_lite0
from optevo.tasks.layers import Dropout, StochasticDepth
from optevo.tasks.weights import LITE0, trained

#: Ours. All others are torchvision's.
OWN = ("mlp", "convnet", "small_cnn", "cifar_cnn", LITE0)
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # heads that help in training from scratch; left out here
_fitting: set[tuple[Any, ...]] = set()  # networks and sizes that were tried


def classifier(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    resolution: int,
    weights: str | None = None,
    dropout: float | None = None,
    width: int | None = None,
    generator: torch.Generator,
) -> nn.Module:
    """A network that gives class scores (N, classes) of images (N, channels, resolution, resolution).

    All that it draws, at first and in training, comes from `generator`: torchvision's own initialisation
    runs with the global generator seeded from it, and put back. Dropouts and stochastic depth become those
    of `optevo.tasks.layers`. Auxiliary heads are left out.

    Args:
        name: One of `OWN`, or any classifier of torchvision: "efficientnet_v2_s", "resnet18", ...
        classes: How many classes. The last layer has as many outputs, and is always drawn anew.
        channels: Of the images. Where the network is made for three, its first convolution is replaced: a
            drawn one is drawn anew, as wide as before; a trained one becomes its mean over the channels, so
            that it sees of grey what it saw of grey in RGB. Default: 3.
        resolution: Pixels of the images' sides.
        weights: Trained ones, see `optevo.tasks.weights.trained`. Default: None, all are drawn.
        dropout: The probability of all its dropouts; a network without one gets one before its last layer.
            Stochastic depth stays as it is. Default: None, as the network has them.
        width: Of "convnet", see `optevo.tasks.models.convnet`. Default: None, 32.
        generator: On the CPU.

    Returns:
        The network on the CPU, in training mode.

    Raises:
        UserError: There is no such network, or there are no such weights, or they don't fit; the network
            does not take images of this size.
    """
    check(name, width=width, dropout=dropout)
    try:
        if name in OWN:
            model = _own(
                name, generator, classes=classes, channels=channels, resolution=resolution, width=width or 32
            )
        else:
            model = _torchvisions(name, classes, resolution, generator)
        if weights is not None:
            _take(model, name, trained(name, weights), weights, resolution)
            _draw_head(model, generator)
        _fit_channels(model, channels, generator, drawn=weights is None)
        if dropout is not None:
            _set_dropout(model, dropout, generator)
        if name not in OWN:
            _try(model, (name, classes, channels, resolution))
    except (ValueError, RuntimeError, AssertionError) as error:
        said = str(error).partition("\n")[0]
        size = f"{resolution} x {resolution}"
        raise UserError(f"network {name!r} can't be had for images of {size} pixels: {said}") from error
    return model


def check(name: str, *, width: int | None = None, dropout: float | None = None) -> None:
    """Raise a UserError unless there is a network of this name, with these options."""
    if name not in OWN:
        from torchvision import models as theirs  # noqa: PLC0415 - a second that our own networks don't need

        known = theirs.list_models(module=theirs)
        if name not in known:
            others = f"expected one of {', '.join(OWN)}, or a classifier of torchvision, such as resnet18"
            raise UserError(f"unknown network {name!r}: {hint(name, [*OWN, *known], others)}")
    if width is not None and name != "convnet":
        raise UserError(f"width is for network = 'convnet', not {name!r}")
    if width is not None and (not isinstance(width, int) or width < 1):
        raise UserError(f"width must be a whole number of at least 1, not {width!r}")
    if dropout is not None and not 0 <= dropout < 1:
        raise UserError(f"dropout must be in [0, 1), not {dropout!r}")


def _own(
    name: str, generator: torch.Generator, *, classes: int, channels: int, resolution: int, width: int
) -> nn.Module:
    if name == LITE0:
        return efficientnet_lite0(generator, classes=classes)
    if name == "convnet":
        return models.convnet(generator, classes=classes, channels=channels, width=width)
    if name != "mlp" and resolution < 4:
        raise ValueError("it halves them twice")
    make: Any = getattr(models, name)
    own: nn.Module = make(generator, classes=classes, channels=channels, resolution=resolution)
    return own


def _torchvisions(name: str, classes: int, resolution: int, generator: torch.Generator) -> nn.Module:
    from torchvision import models as theirs  # noqa: PLC0415 - as above
    from torchvision.ops import StochasticDepth as Theirs  # noqa: PLC0415

    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options = {"image_size": resolution}
    elif name == "maxvit_t":
        options = {"input_size": (resolution, resolution)}
    elif name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.random.default_generator.manual_seed(seed)
        model: nn.Module = theirs.get_model(name, weights=None, num_classes=classes, **options)
    for parent in list(model.modules()):
        for key, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(parent, key, Dropout(child.p))
            elif isinstance(child, Theirs):  # by row, in all of these
                setattr(parent, key, StochasticDepth(child.p))
    for module in model.modules():
        if isinstance(module, Dropout):
            module.initialise(generator)
    return model.train()


def head(model: nn.Module) -> str:
    """The name of a network's last layer: that which holds its last parameter."""
    return [name for name, _ in model.named_parameters()][-1].rpartition(".")[0]


def _take(model: Any, name: str, state: dict[str, Tensor], weights: str, resolution: int) -> None:
    """Give a network trained weights, all but those of its last layer.

    Raises:
        UserError: They are not those of such a network.
    """
    positions = "encoder.pos_embedding"
    if positions in state and name.startswith("vit_"):
        from torchvision.models.vision_transformer import interpolate_embeddings  # noqa: PLC0415 - as above

        if state[positions].shape != model.state_dict()[positions].shape:
            state = dict(interpolate_embeddings(resolution, model.patch_size, {**state}))
    own = dict([*model.named_parameters(), *model.named_buffers()])
    last = f"{head(model)}."
    given = {key: value for key, value in state.items() if not key.startswith((last, *_AUXILIARY))}
    wanted = [key for key in own if not key.startswith(last) and not key.endswith("num_batches_tracked")]
    wrong = [f"lacks {key}" for key in wanted if key not in given]
    wrong += [f"has {key}" for key in given if key not in own and not key.endswith("_extra_state")]
    wrong += [
        f"has {key} of shape {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"weights {weights!r} don't fit the network {name!r}: the file {wrong[0]}{more}")
    model.load_state_dict({key: value for key, value in given.items() if key in own}, strict=False)
    if hasattr(model, "transform_input"):  # as torchvision has it with its weights, of other means
        model.transform_input = True


@torch.no_grad()
def _draw_head(model: nn.Module, generator: torch.Generator) -> None:
    """Begin the last layer over trained ones as torch begins a dense layer: uniform in ±1/√inputs.

    Some networks draw it by the number of classes, which with few of them makes the first losses large.
    """
    last = model.get_submodule(head(model))
    if isinstance(last, (nn.Linear, nn.Conv2d)):  # SqueezeNet's is a 1 x 1 convolution
        bound = last.weight[0].numel() ** -0.5
        for parameter in last.parameters():
            parameter.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def _fit_channels(model: Any, channels: int, generator: torch.Generator, *, drawn: bool) -> None:
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels == channels:
        return
    old, made_for = first.weight, first.in_channels
    if drawn:
        new = torch.empty(len(old), channels, *old.shape[2:]).normal_(
            0, float(old.std()), generator=generator
        )
    else:
        new = (old.mean(1, keepdim=True) * (made_for / channels)).repeat(1, channels, 1, 1)
    first.in_channels, first.weight = channels, nn.Parameter(new)
    if hasattr(model, "transform_input"):
        model.transform_input = False


def _set_dropout(model: nn.Module, p: float, generator: torch.Generator) -> None:
    dropouts = [module for module in model.modules() if type(module) is Dropout]
    for module in dropouts:
        module.p = p
    if not dropouts:
        path, _, key = head(model).rpartition(".")
        parent = model.get_submodule(path)
        before = Dropout(p)
        before.initialise(generator)
        setattr(parent, key, nn.Sequential(before, parent.get_submodule(key)))


def _try(model: nn.Module, key: tuple[Any, ...]) -> None:
    """Send an image through a network, once for each of its kind."""
    _, classes, channels, resolution = key
    if key not in _fitting:
        with evaluating(model):
            scores = model(torch.zeros(1, channels, resolution, resolution))
        assert scores.shape == (1, classes)
        _fitting.add(key)
