"""States of optimisers: PyTorch's, files, the last step taken back; and whole-array classes."""

import copy
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from checks import random_for

import unitstride
from unitstride import (
    LAMB,
    SGD,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
)

CASES: list[tuple[Any, str, dict[str, Any], dict[str, Any]]] = [
    (Adam, "Adam", {}, {}),
    (Adam, "Adam", {"amsgrad": True, "weight_decay": 0.1}, {}),
    (AdamW, "AdamW", {"weight_decay": 0.05}, {}),
    (SGD, "SGD", {"momentum": 0.9, "nesterov": True}, {}),
    (SGD, "SGD", {}, {}),
    (NAdam, "NAdam", {"momentum_decay": 0.01}, {}),
    (RAdam, "RAdam", {}, {}),
    (Adamax, "Adamax", {}, {}),
    (Adagrad, "Adagrad", {"lr_decay": 0.01}, {}),
    (RMSprop, "RMSprop", {"momentum": 0.5, "centered": True}, {}),
    (Adafactor, "Adafactor", {"weight_decay": 0.01}, {}),
    (Muon, "Muon", {"weight_decay": 0.01}, {}),
]
# PyTorch's Muon multiplies in bfloat16.
TOLERANCE = {"Muon": 0.03}


def problem(name: str, seed: str) -> tuple[list[Any], list[list[Any]]]:
    """Return parameters, all of them matrices for Muon, and gradients of 60 steps."""
    random = random_for(name, seed)
    shapes = [(6, 4), (3, 5)] if name == "Muon" else [(6, 4), (7,), (2, 3, 4)]
    params = [random.standard_normal(s) for s in shapes]
    return params, [[random.standard_normal(s) for s in shapes] for _ in range(60)]


def torch_steps(torch: Any, optimizer: Any, tensors: list[Any], grads: list[list[Any]]) -> None:
    for each in grads:
        for tensor, grad in zip(tensors, each, strict=True):
            tensor.grad = torch.tensor(grad)
        optimizer.step()


@pytest.mark.parametrize(("ours", "name", "options", "more"), CASES)
def test_a_run_goes_on_from_torch_and_back(ours: Any, name: str, options: Any, more: Any) -> None:
    torch = pytest.importorskip("torch")
    params, grads = problem(name, "torch")
    tensors = [torch.tensor(p, requires_grad=True) for p in params]
    theirs = getattr(torch.optim, name)(tensors, lr=0.01, **options)
    torch_steps(torch, theirs, tensors, grads[:20])
    own = [t.detach().numpy().copy() for t in tensors]
    optimizer = ours(own, lr=0.5, **options, **more)
    optimizer.from_torch(theirs.state_dict())
    if name not in ("SGD", "Muon"):  # PyTorch counts no steps there
        assert optimizer.step_count == 20
    assert optimizer.param_groups[0]["lr"] == 0.01
    for each in grads[20:40]:
        optimizer.step(each)
    torch_steps(torch, theirs, tensors, grads[20:40])
    tolerance = TOLERANCE.get(name, 1e-9)  # float64, other orders of operations
    for got, want in zip(own, tensors, strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=tolerance, atol=tolerance)
    others = [torch.tensor(p, requires_grad=True) for p in own]
    again = getattr(torch.optim, name)(others, lr=0.5, **options)
    again.load_state_dict(optimizer.to_torch())
    if name == "NAdam":
        tolerance = 1e-6  # its product of momenta is float32 there
    torch_steps(torch, again, others, grads[40:])
    for each in grads[40:]:
        optimizer.step(each)
    for got, want in zip(own, others, strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_states_that_do_not_fit_are_refused() -> None:
    torch = pytest.importorskip("torch")
    tensors = [torch.ones(3, requires_grad=True)]
    theirs = torch.optim.Adam(tensors)
    torch_steps(torch, theirs, tensors, [[np.ones(3, np.float32)]])
    optimizer = Adam([np.ones(3, np.float32), np.ones(2, np.float32)])
    with pytest.raises(ValueError, match="Adam: the state must be of"):
        optimizer.from_torch(theirs.state_dict())
    other = Adam(np.ones(4, np.float32))
    with pytest.raises(ValueError, match="`exp_avg` must be of shape"):
        other.from_torch(theirs)
    with pytest.raises(ValueError, match="`state` and `param_groups`"):
        other.from_torch({"state": {}})
    with pytest.raises(ValueError, match="no states of 8 bits"):
        Adam(np.ones(4, np.float32), state_dtype=np.uint8).to_torch()


@pytest.mark.parametrize(("ours", "name", "options", "more"), [*CASES, (LAMB, "LAMB", {}, {})])
def test_the_last_step_is_taken_back(ours: Any, name: str, options: Any, more: Any) -> None:
    params, grads = problem(name, "back")
    optimizer = ours(params, **options, **more, ema_decay=0.9)
    optimizer.step(grads[0])
    with pytest.raises(RuntimeError, match="no step to take back"):
        optimizer.rollback()
    optimizer.remembers = True
    before = [p.copy() for p in params], optimizer.state_dict()
    optimizer.step(grads[1])
    after = [p.copy() for p in params]
    optimizer.rollback()
    for got, want in zip(params, before[0], strict=True):
        np.testing.assert_array_equal(got, want)
    assert optimizer.step_count == 1
    for got, want in zip(optimizer.state_dict()["state"], before[1]["state"], strict=True):
        for key, array in want.items():
            np.testing.assert_array_equal(got[key], array)
    with pytest.raises(RuntimeError, match=f"{name}: there is no step"):
        optimizer.rollback()
    optimizer.step(grads[1])
    for got, want in zip(params, after, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("ours", [Adam, Adafactor, LAMB])
def test_files(ours: Any, suffix: str, tmp_path: Path) -> None:
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    params, grads = problem("files", suffix)
    bfloat16 = params[0].astype(ml_dtypes.bfloat16)
    params = [bfloat16, *params[1:]]
    optimizer = ours(params, ema_decay=0.5)
    for each in grads[:3]:
        optimizer.step(each)
    path = tmp_path / f"state.{suffix}"
    optimizer.save(path)
    copies = [p.copy() for p in params]
    other = ours(copies, ema_decay=0.5)
    other.load(path)
    third = pickle.loads(pickle.dumps(optimizer))
    fourth = copy.deepcopy(optimizer)
    for each in (optimizer, other, third, fourth):
        each.step(grads[3])
        for got, want in zip(each.params, params, strict=True):
            np.testing.assert_array_equal(got.astype(float), want.astype(float))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[2:], b""):
        path.write_bytes(damaged)
        before = other.state_dict()
        with pytest.raises(ValueError, match="not a saved state"):
            other.load(path)
        assert other.step_count == before["step"]


@pytest.mark.parametrize("ours", [LAMB, Adafactor, Muon])
def test_whole_array_classes_have_the_options_of_others(ours: Any) -> None:
    """Groups, schedules, clipping, skipping, averages, copies, parameters without gradients."""
    random = random_for("whole", ours.__name__)
    a, b, c = (random.standard_normal((4, 3)).astype(np.float32) for _ in range(3))
    optimizer = ours(
        [{"params": [a, b]}, {"params": [c], "lr": lambda t: 0.1 / (t + 1)}],
        lr=0.01,
        max_norm=1.0,
        skip_nonfinite=True,
        ema_decay=0.5,
    )
    start = [x.copy() for x in (a, b, c)]
    copies = [np.zeros((4, 3), np.float16) for _ in range(3)]
    big = np.full((4, 3), 100, np.float32)
    norm, stepped = optimizer.step([big, None, big], grad_scale=2.0, low_precision_copy=copies)
    assert stepped and norm == pytest.approx(50 * np.sqrt(24), rel=1e-6)
    np.testing.assert_array_equal(b, start[1])
    assert not np.array_equal(a, start[0]) and not np.array_equal(c, start[2])
    np.testing.assert_array_equal(copies[0], a.astype(np.float16))
    np.testing.assert_allclose(optimizer.ema[0], 0.5 * start[0] + 0.5 * a, rtol=1e-6)
    before = a.copy(), optimizer.state_dict()
    assert optimizer.step([big, big, big * np.nan])[1] is False
    np.testing.assert_array_equal(a, before[0])
    assert optimizer.step_count == 1
    assert ours.__name__ in repr(optimizer)
    with pytest.raises(ValueError, match="`grads"):
        optimizer.step([big, big, big[:2]])
    assert unitstride.global_norm([big]) > 0


def test_muon_wants_matrices() -> None:
    with pytest.raises(ValueError, match="Muon: `params` must be matrices"):
        Muon(np.ones(3))
