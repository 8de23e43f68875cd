"""The contract of torch.optim.Optimizer, for any optimizer: errors, directions, groups, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from contract import (
    Contract,
    Subject,
    assert_close,
    assert_equal,
    feed,
    parameters,
    run,
    values,
)
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

BAD_NUMBERS = [-0.1, math.nan, math.inf, 10**400, "fast", None, [0.1, 0.2], 1j]
# What a hyperparameter, where an optimizer has it, must not be.
BAD: dict[str, list[Any]] = {
    "lr": [*BAD_NUMBERS, torch.tensor([0.1, 0.2]), torch.tensor(-1.0), np.float32("nan")],
    "weight_decay": [*BAD_NUMBERS, torch.tensor([0.1, 0.2])],
    "eps": [*BAD_NUMBERS, torch.tensor([0.1, 0.2]), (1e-8,)],
    "betas": [(0.9, 1.5), (-0.1, 0.9), (math.nan, 0.9), (0.9, 1.0), (0.9,), 0.9, "ab", ("a", "b"), None],
    "momentum": [-0.1, math.nan, math.inf, "fast"],
    "alpha": [-0.1, math.nan, 1.5],
    "momentum_decay": [-0.1, math.nan],
    "beta2_decay": [0.5, math.nan],
    "d": [0.5, math.nan],
}
REFUSED = (ValueError, TypeError, RuntimeError)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.t().contiguous().t(),
    "strided": lambda t: torch.empty(t.shape[0], 2 * t.shape[1], dtype=t.dtype)[:, ::2].copy_(t),
    "channels_last": lambda t: t.reshape(2, 2, 2, 3).contiguous(memory_format=torch.channels_last),
    "0-dim": lambda t: t[0, 0].clone(),
    "empty": lambda t: t[:0].flatten(),
    "empty with a shape": lambda t: t[:0].reshape(3, 0, 2),
    "one element": lambda t: t[0, :1].clone(),
}


def descend(
    subject: Subject, dtype: torch.dtype, *, maximize: bool, chained: tuple[Any, ...] = ()
) -> tuple[float, float]:
    """torch's own toy: one linear layer in two groups, twenty steps; the loss before and after."""
    rng = torch.Generator().manual_seed(0)
    weight, bias = (
        nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(dtype)) for s in ((10, 5), (10,))
    )
    x = torch.randn(5, generator=rng, dtype=torch.float64).to(dtype)
    groups = [{"params": [weight]}, {"params": [bias], "lr": subject.lr / 2}]
    optimizer = subject.make(groups, **({"maximize": True} if maximize else {}))
    made = [make(optimizer) for make in chained]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight.mv(x) + bias).pow(2).sum()
        loss.backward()
        return loss

    first = closure().item()
    for _ in range(20):
        loss = optimizer.step(closure)
        for scheduler in made:
            plateau = isinstance(scheduler, schedulers.ReduceLROnPlateau)
            scheduler.step(loss.detach()) if plateau else scheduler.step()
    return first, closure().item()


class Updates(Contract):
    """Errors, direction, groups, gradients and closures."""

    def test_errors_on_wrong_parameters(self, subject: Subject) -> None:
        with pytest.raises(TypeError, match=r"params argument"):
            subject.make(torch.ones(2, requires_grad=True))
        with pytest.raises(ValueError, match="empty parameter list"):
            subject.make([])
        for wrong in ([1.0], "ab", 5, None):
            with pytest.raises(TypeError):
                subject.make(wrong)
        p = nn.Parameter(torch.ones(2))
        with pytest.raises(ValueError, match="non-leaf"):
            subject.make([p * 2])
        with pytest.raises(ValueError, match="more than one parameter group"):
            subject.make([{"params": [p]}, {"params": [p]}])
        with pytest.warns(UserWarning, match="duplicate parameters"):
            subject.make([p, p])

    def test_errors_on_hyperparameters(self, subject: Subject) -> None:
        """As an argument, in a group, in a later group, in a checkpoint; and all stays as it was."""
        params = parameters()
        optimizer = subject.make(params)
        names = [name for name in BAD if name in optimizer.defaults]
        assert names[:1] == ["lr"]
        assert "weight_decay" in names
        for name in names:
            for bad in BAD[name]:
                if name == "eps" and isinstance(optimizer.defaults["eps"], tuple):
                    bad = (bad, 1e-3)  # noqa: PLW2901  Adafactor's, of which the first may be None
                    if bad[0] is None:
                        continue
                if not (bad is None and subject.optional):
                    with pytest.raises(REFUSED, match=r"\w"):
                        subject.make(parameters(), **{name: bad})
                with pytest.raises(REFUSED, match=r"\w"):
                    subject.make([{"params": parameters(), name: bad}])
                with pytest.raises(ValueError, match=r"Invalid|1-element"):
                    optimizer.add_param_group({"params": parameters(), name: bad})
                state = optimizer.state_dict()
                state["param_groups"][0][name] = bad
                with pytest.raises(ValueError, match=r"Invalid|1-element"):
                    optimizer.load_state_dict(state)
        assert len(optimizer.param_groups) == 1
        twins = parameters()
        assert_equal(run(optimizer, params, 2), run(subject.make(twins), twins, 2))

    def test_a_learning_rate_is_named_as_torch_names_it(self, subject: Subject) -> None:
        with pytest.raises(ValueError, match=r"Invalid learning rate: -0\.1"):
            subject.make(parameters(), lr=-0.1)
        with pytest.raises(ValueError, match="Tensor lr must be 1-element"):
            subject.make(None, lr=torch.tensor([0.1, 0.1]))
        with pytest.raises(ValueError, match=r"(?i)invalid weight.decay.*-0\.1|weight_decay should be"):
            subject.make(parameters(), weight_decay=-0.1)

    def test_a_refused_group_leaves_the_optimizer_as_it_was(self, subject: Subject) -> None:
        params = parameters()
        optimizer = subject.make(params)
        for bad in ({"params": params}, {"params": parameters(), "lr": math.nan}, {"params": ["x"]}, 3):
            with pytest.raises(REFUSED):
                optimizer.add_param_group(bad)
        assert len(optimizer.param_groups) == 1
        run(optimizer, params, 2)

    def test_numbers_of_numpy_and_whole_ones_are_pythons(self, subject: Subject) -> None:
        for lr, decay, same in (
            (np.float64(0.01), np.float64(0.25), (0.01, 0.25)),
            (np.float32(0.5), np.float32(0.25), (0.5, 0.25)),
            (1, 0, (1.0, 0.0)),
        ):
            ours, theirs = parameters(), parameters()
            run(subject.make(ours, lr=lr, weight_decay=decay), ours, 3)
            run(subject.make(theirs, lr=same[0], weight_decay=same[1]), theirs, 3)
            assert_close(values(ours), values(theirs), rtol=1e-6, atol=1e-9)

    def test_complex_parameters_are_refused_or_pairs_of_reals(self, subject: Subject) -> None:
        """Never squared along the wrong axis (pytorch#59998)."""
        ends = []
        for real in (False, True):
            start = torch.tensor([1 + 2j, 3 - 1j])
            w = nn.Parameter(torch.view_as_real(start).clone() if real else start)
            try:
                optimizer = subject.make([w], weight_decay=0.0)
                for _ in range(3):
                    g = torch.tensor([0.5 + 0.5j, 1j])
                    w.grad = torch.view_as_real(g).clone() if real else g
                    optimizer.step()
            except REFUSED as error:
                assert not real
                assert "complex" in str(error).lower()  # noqa: PT017  either outcome is right
                return
            ends.append(w.detach() if real else torch.view_as_real(w.detach()))
        assert_close(ends[:1], ends[1:], rtol=1e-5, atol=1e-6)

    def test_sparse_gradients_are_refused_or_taken(self, subject: Subject) -> None:
        p, dense = nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(4, 2))
        optimizer = subject.make([p])
        p.grad, dense.grad = torch.ones(4, 2).to_sparse(), torch.ones(4, 2)
        if subject.takes_sparse:
            optimizer = subject.make([p], weight_decay=0.0)
            optimizer.step()
            subject.make([dense], weight_decay=0.0).step()
            assert_close([p.detach()], [dense.detach()], rtol=1e-6)
            return
        with pytest.raises(RuntimeError, match=r"(?i)sparse"):
            optimizer.step()
        assert torch.equal(p, torch.ones(4, 2))

    # --- direction ----------------------------------------------------------------------------

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_forloop_goes_right_direction(self, subject: Subject, dtype: torch.dtype) -> None:
        before, after = descend(subject, dtype, maximize=False)
        assert after < before
        if subject.maximize:
            before, after = descend(subject, dtype, maximize=True)
            assert after > before

    def test_param_group_with_lrscheduler_goes_right_direction(self, subject: Subject) -> None:
        chains: list[tuple[Any, ...]] = [
            (
                lambda o: schedulers.ExponentialLR(o, gamma=0.9),
                lambda o: schedulers.ReduceLROnPlateau(o, patience=0, threshold=1e6),
            ),
            (lambda o: schedulers.StepLR(o, step_size=5, gamma=0.5),),
            (
                lambda o: schedulers.SequentialLR(
                    o,
                    [schedulers.LinearLR(o, 0.1, total_iters=5), schedulers.CosineAnnealingLR(o, T_max=15)],
                    [5],
                ),
            ),
        ]
        for chained in chains:
            before, after = descend(subject, torch.float64, maximize=False, chained=chained)
            assert after < before

    # --- groups -------------------------------------------------------------------------------

    def test_every_group_has_its_own_numbers(self, subject: Subject) -> None:
        params, alone = parameters(), parameters()
        settings = [{"lr": 0.03}, {"weight_decay": 0.3}, {"lr": 0.01, "weight_decay": 0.0}]
        together = subject.make([{"params": [p], **s} for p, s in zip(params, settings, strict=True)])
        apart = [subject.make([p], **s) for p, s in zip(alone, settings, strict=True)]
        for k in range(4):
            feed(params, k)
            feed(alone, k)
            together.step()
            for optimizer in apart:
                optimizer.step()
        assert_equal(values(params), values(alone))
        assert len(together.param_groups) == 3

    def test_a_group_may_be_added_after_steps_were_taken(self, subject: Subject) -> None:
        params, late = parameters(), parameters()[1:]
        optimizer = subject.make(params[:1])
        run(optimizer, params[:1], 3)
        optimizer.add_param_group({"params": params[1:], "lr": 0.5 * subject.lr})
        assert len(optimizer.param_groups) == 2
        alone = subject.make(late, lr=0.5 * subject.lr)
        for k in range(3, 6):
            feed(params, k)
            feed([*parameters()[:1], *late], k)
            optimizer.step()
            alone.step()
        assert_equal(values(params)[1:], values(late))

    def test_tensor_lr(self, subject: Subject) -> None:
        plain, tensor = parameters(), parameters()
        run(subject.make(plain, lr=2.0**-10), plain, 4)
        lr = torch.tensor(2.0**-10)
        optimizer = subject.make(tensor, lr=lr)
        scheduler = schedulers.ExponentialLR(optimizer, gamma=0.5)
        run(optimizer, tensor, 4)
        assert optimizer.param_groups[0]["lr"] is lr
        assert_close(values(tensor), values(plain), rtol=1e-6, atol=1e-9)
        scheduler.step()  # in place
        assert optimizer.param_groups[0]["lr"] is lr
        assert lr.item() == 2.0**-11

    # --- gradients ----------------------------------------------------------------------------

    def test_a_parameter_without_gradient_is_skipped_and_its_step_not_counted(self, subject: Subject) -> None:
        params, alone = parameters(), parameters()
        optimizer, apart = subject.make(params), [subject.make([p]) for p in alone]
        for k in range(6):
            for ps in (params, alone):
                feed(ps, k)
                ps[1].grad = ps[1].grad if k % 2 else None
                ps[2].grad = ps[2].grad if k > 3 else None
            before = values(params)
            optimizer.step()
            for p, was, own in zip(alone, before, apart, strict=True):
                if p.grad is not None:
                    own.step()
                else:
                    assert torch.equal(p, was)
        assert_equal(values(params), values(alone))

    def test_a_step_without_any_gradient_does_nothing(self, subject: Subject) -> None:
        params = parameters()
        before = values(params)
        optimizer = subject.make(params)
        optimizer.step()
        assert_equal(values(params), before)
        assert not any(optimizer.state[p] for p in params)

    def test_mixed_dtypes_in_one_optimizer_step_as_in_one_each(self, subject: Subject) -> None:
        if not subject.apart:
            pytest.skip("random numbers go to the parameters one after the other")
        dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
        together = [parameters((12,), dtype=d, seed=3)[0] for d in dtypes]
        apart = [parameters((12,), dtype=d, seed=3)[0] for d in dtypes]
        optimizer, alone = subject.make(together), [subject.make([p]) for p in apart]
        for k in range(4):
            for ps in (together, apart):
                for p in ps:
                    feed([p], k)
            optimizer.step()
            for o in alone:
                o.step()
        assert_equal(values(together), values(apart))
        assert [p.dtype for p in together] == list(dtypes)

    def test_parameters_of_any_layout_step_as_contiguous_ones(self, subject: Subject) -> None:
        rng = torch.Generator().manual_seed(0)
        start = torch.randn(4, 6, generator=rng, dtype=torch.float64)
        for layout in LAYOUTS.values():
            odd = nn.Parameter(layout(start))
            if not subject.takes_empty and not odd.numel():
                continue
            plain = nn.Parameter(odd.detach().clone(memory_format=torch.contiguous_format))
            stride = odd.stride()
            ours, theirs = subject.make([odd]), subject.make([plain])
            for k in range(3):
                gradient = torch.randn(plain.shape, generator=rng, dtype=torch.float64)
                # A gradient's strides need not be its parameter's: autograd's often are not.
                odd.grad = gradient.clone() if k % 2 else torch.empty_like(odd).copy_(gradient)
                plain.grad = gradient
                ours.step()
                theirs.step()
            # Muon's products are bfloat16, of which another order of memory is another rounding.
            torch.testing.assert_close(odd.detach(), plain.detach(), rtol=1e-3, atol=1e-4)
            assert odd.stride() == stride

    def test_an_expanded_gradient_is_read_and_not_written(self, subject: Subject) -> None:
        p = nn.Parameter(torch.ones(3, 4))
        optimizer = subject.make([p], **({"maximize": True} if subject.maximize else {}))
        row = torch.tensor([1.0, -2.0, 0.25, 0.5])
        p.grad = row.expand(3, 4)
        optimizer.step()
        assert row.tolist() == [1.0, -2.0, 0.25, 0.5]
        assert not torch.equal(p, torch.ones(3, 4))

    def test_a_closure_runs_once_with_grad_and_its_loss_is_returned(self, subject: Subject) -> None:
        (p,) = parameters((3,))
        optimizer = subject.make([p])
        calls = []

        def closure() -> Tensor:
            calls.append(torch.is_grad_enabled())
            optimizer.zero_grad()
            loss = p.square().sum()
            loss.backward()
            return loss

        expected = p.detach().square().sum().item()
        with torch.no_grad():
            loss = optimizer.step(closure)
        assert loss.item() == expected
        assert calls == [True]
        assert optimizer.step() is None
        assert optimizer.step(lambda: 3.5) == 3.5
        assert p.is_leaf
        assert p.grad_fn is None
        assert not any(isinstance(t, Tensor) and t.requires_grad for t in optimizer.state[p].values())

    def test_frozen_and_thawed_parameters_are_welcome(self, subject: Subject) -> None:
        params = parameters()
        params[0].requires_grad_(False)
        optimizer = subject.make(params)
        before = values(params)
        for p in params[1:]:
            p.grad = torch.ones_like(p)
        optimizer.step()
        assert torch.equal(params[0], before[0])
        params[0].requires_grad_(True)
        run(optimizer, params, 1)
        assert not torch.equal(params[0], before[0])
