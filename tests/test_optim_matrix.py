"""LAMB, Adafactor and Muon against PyTorch or the formulas, layouts, errors."""

from typing import Any

import numpy as np
import pytest
from checks import random_for
from numpy.typing import NDArray

from unitstride import adafactor_step, lamb_step, muon_step

Array = NDArray[Any]


def test_lamb_is_its_formula() -> None:
    random = random_for("lamb")
    shapes = ((5, 3), (7,), ())
    params = [np.asarray(random.standard_normal(shape)) for shape in shapes]
    expected = [p.copy() for p in params]
    m, v = ([np.zeros(shape) for shape in shapes] for _ in range(2))
    em, ev = ([np.zeros(shape) for shape in shapes] for _ in range(2))
    for step in range(1, 6):
        grads = [np.asarray(random.standard_normal(shape)) for shape in shapes]
        lamb_step(params, grads, m, v, step, lr=0.1, weight_decay=0.01)
        for k, g in enumerate(grads):
            em[k] = 0.9 * em[k] + 0.1 * g
            ev[k] = 0.999 * ev[k] + 0.001 * g**2
            r = em[k] / (1 - 0.9**step) / (np.sqrt(ev[k] / (1 - 0.999**step)) + 1e-6)
            r = r + 0.01 * expected[k]
            trust = np.sqrt((expected[k] ** 2).sum() / (r**2).sum())
            expected[k] = expected[k] - 0.1 * trust * r
    for got, wanted in zip(params, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_lamb_of_zeros_steps_as_adam_does() -> None:
    x = np.zeros(3, np.float32)
    lamb_step(x, np.ones(3, np.float32), np.zeros(3, "f4"), np.zeros(3, "f4"), 1, lr=0.5)
    np.testing.assert_allclose(x, -0.5, rtol=1e-5)
    lamb_step(x, np.zeros(3, np.float32), np.zeros(3, "f4"), np.zeros(3, "f4"), 1)
    np.testing.assert_allclose(x, -0.5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 2), (7,)])
def test_adafactor_agrees_with_pytorch(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    random = random_for("adafactor", shape)
    x = random.standard_normal(shape)
    tensor = torch.from_numpy(x.copy()).requires_grad_(True)
    theirs = torch.optim.Adafactor([tensor], lr=0.05, weight_decay=0.1)
    factored = len(shape) > 1
    rows = np.zeros((*shape[:-1], 1)) if factored else None
    columns = np.zeros((*shape[:-2], 1, shape[-1])) if factored else None
    variance = None if factored else np.zeros(shape)
    for step in range(1, 8):
        g = random.standard_normal(shape)
        tensor.grad = torch.from_numpy(g)
        theirs.step()
        adafactor_step(x, g, [rows], [columns], [variance], step, lr=0.05, weight_decay=0.1)
        np.testing.assert_allclose(x, tensor.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (6, 6)])
def test_muon_agrees_with_pytorch(shape: tuple[int, int], adjust: str) -> None:
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    random = random_for("muon", shape)
    x = random.standard_normal(shape).astype(np.float32)
    tensor = torch.from_numpy(x.copy()).requires_grad_(True)
    theirs = torch.optim.Muon([tensor], lr=0.02, adjust_lr_fn=adjust)
    buffer = np.zeros_like(x)
    for _ in range(3):
        g = random.standard_normal(shape).astype(np.float32)
        tensor.grad = torch.from_numpy(g)
        theirs.step()
        muon_step(x, g, buffer, lr=0.02, adjust_lr=adjust)
        # PyTorch iterates in bfloat16: 2^-8 of each entry of a step, which is at most about one
        # times lr and the adjustment (0.2 sqrt 8), some times over.
        np.testing.assert_allclose(x, tensor.detach().numpy(), rtol=0, atol=0.02 * 0.1)


def test_muon_brings_singular_values_near_one() -> None:
    random = random_for("muon", "values")
    x = np.zeros((12, 30))
    muon_step(x, random.standard_normal((12, 30)), np.zeros((12, 30)), lr=1.0, weight_decay=0.0)
    values = np.linalg.svd(x, compute_uv=False)
    # Five steps of the quintic leave them between 0.68 and 1.13.
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_layouts_and_narrow_types() -> None:
    random = random_for("matrix steps", "layouts")
    x, g = (random.standard_normal((6, 4)).astype(np.float32) for _ in range(2))
    plain, turned = x.copy(), np.asfortranarray(x)
    half = np.zeros((6, 8), np.float16)[:, ::2]
    half[...] = x
    for target in (plain, turned, half):
        buffer = np.zeros_like(target)
        muon_step(target, g.astype(target.dtype), buffer)
        adafactor_step(
            target,
            g.astype(target.dtype),
            [np.zeros((6, 1), np.float32)],
            [np.zeros((1, 4), np.float32)],
            [None],
            1,
        )
        m, v = np.zeros((6, 4), np.float32), np.zeros((6, 4), np.float32)
        lamb_step(target, g.astype(target.dtype), m, v, 1)
    np.testing.assert_allclose(turned, plain, rtol=1e-5, atol=1e-6)
    # float16 rounds parameters and gradients at each of three steps.
    np.testing.assert_allclose(half, plain, rtol=0, atol=0.02)


def test_errors_come_before_anything_is_written() -> None:
    x, g = np.ones((3, 2)), np.ones((3, 2))
    rows, columns = [np.zeros((3, 1))], [np.zeros((1, 2))]
    for call, text in (
        (lambda: muon_step(np.ones(3), np.ones(3), np.zeros(3)), "must have 2 dimensions"),
        (lambda: muon_step(x, g, np.zeros((2, 3))), "must have shape (3, 2)"),
        (lambda: muon_step(x, g, x), "muon_step: "),
        (lambda: muon_step(x, g, np.zeros((3, 2)), adjust_lr="other"), "`adjust_lr` must be"),
        (lambda: lamb_step(x, g, np.zeros((3, 2)), np.zeros((3, 2)), 0), "`step` must be"),
        (lambda: lamb_step(x, g, np.zeros((3, 2)), np.zeros(3), 1), "must have shape (3, 2)"),
        (lambda: adafactor_step(x, g, [None], columns, [None], 1), "`row_var[0]` must be"),
        (lambda: adafactor_step(x, g, rows, rows, [None], 1), "`col_var[0]` must have shape"),
        (lambda: adafactor_step(x, g, rows, columns, [], 1), "`variance` must have 1"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert text in str(caught.value)
    np.testing.assert_array_equal(x, 1.0)
