"""The contract of torch.optim.Optimizer, for any optimizer: state, checkpoints, narrow dtypes, hooks."""

from __future__ import annotations

import copy
import math
import pickle
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
    through_a_file,
    values,
)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

NARROW = (torch.float16, torch.bfloat16)


def small_gradients(steps: int) -> list[Tensor]:
    """Gradients of about 1e-4, whose squares float16 has no number for; the same in every dtype."""
    rng = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 6, generator=rng) * 1e-4).half().bfloat16().half().float() for _ in range(steps)]


class State(Contract):
    """State, checkpoints and whatever wraps an optimizer."""

    def test_state_dict_deterministic(self, subject: Subject) -> None:
        """torch's test: load into a fresh optimizer, go on, and both stay the same to the last bit."""
        params = parameters()
        optimizer = subject.make(params)
        run(optimizer, params, 4)
        twins = [nn.Parameter(p.detach().clone()) for p in params]
        twin = subject.make(twins)
        twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert_equal(run(optimizer, params, range(4, 9)), run(twin, twins, range(4, 9)))
        assert str(optimizer.state_dict()) == str(twin.state_dict())

    def test_save_load_equality_with_weights_only(self, subject: Subject) -> None:
        for dtype in (torch.float32, torch.float64, *NARROW):
            whole, params = parameters(dtype=dtype), parameters(dtype=dtype)
            expected = run(subject.make(whole), whole, 9)
            optimizer = subject.make(params)
            run(optimizer, params, 4)
            resumed = subject.make(params)
            resumed.load_state_dict(through_a_file(optimizer.state_dict()))
            assert_equal(run(resumed, params, range(4, 9)), expected)

    def test_numpys_numbers_are_numbers(self, subject: Subject) -> None:
        """As arguments and in groups; a checkpoint holds them as Python's."""
        for kind in (np.float64, np.float32):
            params, others = parameters(), parameters()
            optimizer = subject.make([{"params": params, "lr": kind(2**-10)}], weight_decay=kind(2**-5))
            expected = run(subject.make(others, lr=2**-10, weight_decay=2**-5), others, 3)
            assert_equal(run(optimizer, params, 3), expected)
            (group,) = through_a_file(optimizer.state_dict())["param_groups"]
            assert (type(group["lr"]), type(group["weight_decay"])) == (float, float)

    def test_a_checkpoint_of_another_size_is_refused(self, subject: Subject) -> None:
        optimizer = subject.make(parameters())
        with pytest.raises(ValueError, match=r"parameter group.*size|match the size"):
            optimizer.load_state_dict(subject.make(parameters((2,))).state_dict())

    def test_can_load_older_state_dict(self, subject: Subject) -> None:
        """A checkpoint from before a group knew one of its keys loads, and steps."""
        whole = parameters()
        expected = run(subject.make(whole), whole, 3)
        keys = set(subject.make(parameters()).state_dict()["param_groups"][0]) - {"params"}
        for key in sorted(keys):
            params = parameters()
            optimizer = subject.make(params)
            run(optimizer, params, 2)
            state = copy.deepcopy(optimizer.state_dict())
            del state["param_groups"][0][key]
            resumed = subject.make(params)
            resumed.load_state_dict(state)
            assert_equal(run(resumed, params, range(2, 3)), expected)

    def test_load_nontensor_step(self, subject: Subject) -> None:
        whole, params = parameters(), parameters()
        expected = run(subject.make(whole), whole, 5)
        optimizer = subject.make(params)
        run(optimizer, params, 3)
        state = copy.deepcopy(optimizer.state_dict())
        for entry in state["state"].values():
            if "step" in entry:
                entry["step"] = float(entry["step"])
        resumed = subject.make(params)
        resumed.load_state_dict(state)
        assert_equal(run(resumed, params, range(3, 5)), expected)

    @pytest.mark.parametrize(("named_before", "named_after"), [(True, True), (True, False), (False, True)])
    def test_can_load_from_to_named_state_dict(
        self, subject: Subject, named_before: bool, named_after: bool
    ) -> None:
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
        with torch.no_grad():
            for p, start in zip(model.parameters(), parameters((4, 3), (4,), (2, 4), (2,)), strict=True):
                p.copy_(start)
        take = {True: model.named_parameters, False: model.parameters}
        optimizer = subject.make(take[named_before]())
        params = list(model.parameters())
        run(optimizer, params, 3)
        twins = copy.deepcopy(params)
        resumed, twin = subject.make(take[named_after]()), subject.make(twins)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        if named_after:
            assert resumed.param_groups[0]["param_names"] == [n for n, _ in model.named_parameters()]
        state = copy.deepcopy(optimizer.state_dict())
        for group in state["param_groups"]:
            group.pop("param_names", None)
        twin.load_state_dict(state)
        assert_equal(run(resumed, params, range(3, 6)), run(twin, twins, range(3, 6)))

    @pytest.mark.parametrize(
        "clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
    )
    def test_a_copied_optimizer_goes_on_with_its_copied_parameters(
        self, subject: Subject, clone: Callable[[Any], Any]
    ) -> None:
        for dtype in (torch.float64, torch.float16):
            params = parameters(dtype=dtype)
            optimizer = subject.make(params)
            run(optimizer, params, 3)
            twin = clone(optimizer)
            twins = twin.param_groups[0]["params"]
            before = values(params)
            ours = run(twin, twins, range(3, 6))
            assert_equal(values(params), before)
            assert_equal(ours, run(optimizer, params, range(3, 6)))
            assert "lr" in repr(twin)
            assert "exp_avg" not in repr(twin)

    # --- where numbers are kept ---------------------------------------------------------------

    def test_counters_stay_off_the_default_device(self, subject: Subject) -> None:
        """torch.set_default_device must not move what is read at every step."""
        ours, theirs = parameters(), parameters()
        expected = run(subject.make(theirs), theirs, 3)
        optimizer = subject.make(ours)
        for k in range(3):
            feed(ours, k)
            torch.set_default_device("meta")
            try:
                optimizer.step()
                if k == 1:
                    state = copy.deepcopy(optimizer.state_dict())
                    for entry in state["state"].values():
                        if "step" in entry:
                            entry["step"] = float(entry["step"])
                    optimizer.load_state_dict(state)
            finally:
                torch.set_default_device(None)
        assert_equal(values(ours), expected)
        kept = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, Tensor)]
        assert {t.device.type for t in kept} <= {"cpu"}

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_step_waits_for_no_device(self, subject: Subject, dtype: torch.dtype) -> None:
        """Fake tensors of a GPU have no values: whoever reads one raises."""
        if subject.waits:
            pytest.skip(subject.waits)
        with FakeTensorMode():
            params = [nn.Parameter(torch.ones(s, device="cuda", dtype=dtype)) for s in ((3, 4), (5,))]
            optimizer = subject.make(params)
            for _ in range(3):
                for p in params:
                    p.grad = torch.ones_like(p)
                optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
            optimizer.step()

    # --- float16 and bfloat16 -----------------------------------------------------------------

    @pytest.mark.parametrize("dtype", NARROW, ids=str)
    def test_narrow_parameters_are_updated_in_float32_and_rounded_once(
        self, subject: Subject, dtype: torch.dtype
    ) -> None:
        """Bit for bit those of float32 parameters that are rounded after each of 150 steps."""
        narrow, wide = nn.Parameter(torch.zeros(4, 6, dtype=dtype)), nn.Parameter(torch.zeros(4, 6))
        ours, theirs = subject.make([narrow]), subject.make([wide])
        for gradient in small_gradients(150):
            narrow.grad, wide.grad = gradient.to(dtype), gradient.clone()
            ours.step()
            theirs.step()
            with torch.no_grad():
                wide.copy_(wide.to(dtype))
        assert torch.equal(narrow.float(), wide)
        assert torch.isfinite(wide).all()
        assert wide.any()
        kept = [t for name, t in ours.state[narrow].items() if name != "step" and isinstance(t, Tensor)]
        assert {t.dtype for t in kept} <= {torch.float32}
        assert (narrow.dtype, narrow.grad.dtype) == (dtype, dtype)
        assert set(ours.state) == {narrow}

    @pytest.mark.parametrize("dtype", NARROW, ids=str)
    def test_narrow_parameters_go_on_from_a_checkpoint_to_the_last_bit(
        self, subject: Subject, dtype: torch.dtype
    ) -> None:
        ends = []
        for broken in (False, True):
            p = nn.Parameter(torch.zeros(4, 6, dtype=dtype))
            optimizer = subject.make([p])
            for k, gradient in enumerate(small_gradients(40)):
                if broken and k == 20:
                    saved = through_a_file(optimizer.state_dict())
                    optimizer = subject.make([p])
                    optimizer.load_state_dict(saved)
                p.grad = gradient.to(dtype)
                optimizer.step()
            ends.append(p.detach().clone())
        assert_equal(ends[:1], ends[1:])

    def test_state_of_narrow_parameters_is_widened_where_it_was_kept_narrow(self, subject: Subject) -> None:
        """As by an older version, in a checkpoint and in a pickle."""
        p = nn.Parameter(torch.ones(4, 6, dtype=torch.float16))
        optimizer = subject.make([p])
        run(optimizer, [p], 2)
        state = optimizer.state[p]
        for name, value in state.items():
            if name != "step" and isinstance(value, Tensor):
                state[name] = value.half()
        pickled = pickle.loads(pickle.dumps(optimizer))
        (twin,) = pickled.param_groups[0]["params"]
        loaded = subject.make([p])
        loaded.load_state_dict(through_a_file(optimizer.state_dict()))
        for held in (pickled.state[twin], loaded.state[p]):
            assert {t.dtype for t in held.values() if isinstance(t, Tensor)} <= {torch.float32}
        assert_equal(run(loaded, [p], 2), run(pickled, [twin], 2))

    # --- hooks, scaling, averaging ------------------------------------------------------------

    def test_step_hooks_run_once_before_and_after_each_step(self, subject: Subject) -> None:
        """Also where torch has made an optimizer of the class that an exported one is made of."""
        for parent in type(subject.make(parameters())).__mro__[1:]:
            if parent.__module__.startswith(("torch.optim.", "pytorch_optimizer.")):
                try:
                    parent(parameters(), lr=0.1)
                except (TypeError, NotImplementedError):
                    continue
        for dtype in (torch.float64, torch.float16):
            params = parameters(dtype=dtype)
            optimizer = subject.make(params)
            seen: list[str] = []
            first = optimizer.register_step_pre_hook(lambda o, args, kwargs, seen=seen: seen.append("pre"))
            optimizer.register_step_post_hook(lambda o, args, kwargs, seen=seen: seen.append("post"))
            run(optimizer, params, 2)
            first.remove()
            run(optimizer, params, 1)
            assert seen == ["pre", "post", "pre", "post", "post"]

    def test_state_dict_hooks_run(self, subject: Subject) -> None:
        optimizer = subject.make(parameters())
        seen: list[str] = []
        optimizer.register_state_dict_pre_hook(lambda o: seen.append("pre"))
        optimizer.register_state_dict_post_hook(lambda o, state: seen.append("post"))
        optimizer.register_load_state_dict_pre_hook(lambda o, state: seen.append("load pre"))
        optimizer.register_load_state_dict_post_hook(lambda o: seen.append("load post"))
        for _ in range(2):
            optimizer.load_state_dict(optimizer.state_dict())
        assert seen == ["pre", "post", "load pre", "load post"] * 2

    def test_a_grad_scaler_unscales_and_skips_overflows(self, subject: Subject) -> None:
        model, plain = nn.Linear(4, 2), nn.Linear(4, 2)
        with torch.no_grad():
            for p, start in zip(model.parameters(), parameters((2, 4), (2,)), strict=True):
                p.copy_(start)
        plain.load_state_dict(model.state_dict())
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        scaled, unscaled = subject.make(model.parameters()), subject.make(plain.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for k in range(4):
            scaled.zero_grad()
            loss = model(x).square().mean()
            scaler.scale(loss).backward()
            if k == 1:
                model.weight.grad[0, 0] = math.inf
            scaler.step(scaled)
            scaler.update()
            if k != 1:
                unscaled.zero_grad()
                plain(x).square().mean().backward()
                unscaled.step()
        assert scaler.get_scale() == 512.0
        assert_close(values(list(model.parameters())), values(list(plain.parameters())), 1e-4, 1e-5)

    def test_it_can_step_in_backward_hooks(self, subject: Subject) -> None:
        """One optimizer a parameter, stepped as its gradient arrives: torch's memory-saving recipe."""
        if not subject.apart:
            pytest.skip("random numbers go to the parameters one after the other")
        start = parameters((2, 3), (2,))
        model, plain = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
        for one in (model, plain):
            one.load_state_dict({"weight": start[0].detach(), "bias": start[1].detach()})
        optimizers = {p: subject.make([p]) for p in model.parameters()}

        def step(p: nn.Parameter) -> None:
            optimizers[p].step()
            optimizers[p].zero_grad()

        for p in model.parameters():
            p.register_post_accumulate_grad_hook(step)
        whole = subject.make(plain.parameters())
        for k in range(3):
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
            model(x).square().sum().backward()
            whole.zero_grad()
            plain(x).square().sum().backward()
            whole.step()
        assert_close(values(list(model.parameters())), values(list(plain.parameters())))
