"""bfloat16 on CPUs without instructions for it: torch's autocast, up to the order of sums."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from optevo.training import precision
from optevo.training.precision import RoundedProducts, autocast

CPU = torch.device("cpu")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


PRODUCTS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "linear": (F.linear, [(5, 8), (3, 8), (3,)]),
    "conv1d": (F.conv1d, [(2, 4, 9), (6, 4, 3), (6,)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, bias=b, padding=1), [(2, 4, 6, 6), (5, 4, 3, 3), (5,)]),
    "conv_transpose2d": (F.conv_transpose2d, [(2, 4, 5, 5), (4, 3, 2, 2), (3,)]),
    "@": (lambda a, b: a @ b, [(2, 3, 4), (2, 4, 5)]),
    "matmul": (torch.matmul, [(3, 4), (4, 5)]),
    "bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
    "addmm": (torch.addmm, [(5,), (3, 4), (4, 5)]),
    "einsum": (lambda a, b: torch.einsum("bij,bjk->bik", a, b), [(2, 3, 4), (2, 4, 5)]),
}


def gradients(function: Callable[..., Tensor], shapes: list[tuple[int, ...]]) -> tuple[Tensor, list[Tensor]]:
    """The product under autocast, and the gradients of a weighted sum of it."""
    inputs = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    with torch.autocast("cpu", torch.bfloat16):
        product = function(*inputs)
        loss = (product.float() * draw(*product.shape, seed=9).detach()).sum()
    loss.backward()
    return product, [one.grad for one in inputs]


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_and_its_gradients_are_those_of_torchs_autocast(name: str):
    function, shapes = PRODUCTS[name]
    expected, theirs = gradients(function, shapes)
    with RoundedProducts():
        product, ours = gradients(function, shapes)
    assert product.dtype == expected.dtype == torch.bfloat16
    # Sums in another order differ by a rounding to eight bits, of terms that may cancel; torch's own sum of
    # an image's gradient is in bfloat16 itself where the CPU has no instructions.
    torch.testing.assert_close(product, expected, rtol=2**-7, atol=2**-6)
    for mine, one in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, one, rtol=2**-7, atol=2**-6 * float(one.abs().max()))
        assert torch.equal(mine, mine.to(torch.bfloat16).float())  # as rounded as theirs


def test_it_is_no_float32_product():
    x, w = draw(5, 8), draw(3, 8)
    with torch.autocast("cpu", torch.bfloat16), RoundedProducts():
        product = F.linear(x, w)
    assert not torch.equal(product.float(), x @ w.T)


def test_a_model_may_switch_autocast_off_for_a_part_of_itself():
    x, w = draw(5, 8), draw(3, 8)
    expected = F.linear(x, w)
    with RoundedProducts():
        assert torch.equal(F.linear(x, w), expected)
        with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
            assert torch.equal(F.linear(x, w), expected)


def test_double_precision_stays_as_torchs_autocast_leaves_it():
    x, w = draw(5, 8).double(), draw(3, 8).double()
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.linear(x, w)
        with RoundedProducts():
            assert torch.equal(F.linear(x, w), expected)


def test_under_vmap_torch_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    """It takes a batch norm of float32's statistics and bfloat16's images there for an error."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    state = {key: torch.stack([one, one]) for key, one in net.state_dict().items()}
    images = draw(2, 3, 6, 6).detach()
    with autocast(CPU, "bfloat16", mapped=True):
        both = vmap(lambda state: functional_call(net, state, (images,)))(state)
    torch.testing.assert_close(both[0].float(), net(images), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("native", [True, False])
def test_cpus_without_bfloat16_get_it_all_the_same(native: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: native)
    seen = []
    inner = RoundedProducts.__torch_function__
    monkeypatch.setattr(
        RoundedProducts, "__torch_function__", lambda *a, **k: seen.append(a[1]) or inner(*a, **k)
    )
    x, w = draw(5, 8), draw(3, 8)
    with autocast(CPU, "bfloat16"):
        assert F.linear(x, w).dtype == torch.bfloat16
    assert bool(seen) is not native
    del seen[:]
    with torch.autocast("cpu", torch.bfloat16), autocast(CPU, "float32"):  # a caller's own is shut out
        assert F.linear(x, w).dtype == torch.float32
    assert not seen


@pytest.mark.parametrize("device", ["cuda"])
def test_other_devices_keep_torchs_own(device: str, monkeypatch: pytest.MonkeyPatch):
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    monkeypatch.delattr(precision, "RoundedProducts")  # it would be a NameError
    x, w = draw(5, 8).to(device), draw(3, 8).to(device)
    with autocast(torch.device(device), "bfloat16"):
        assert F.linear(x, w).dtype == torch.bfloat16
