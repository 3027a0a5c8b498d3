"""Lazy steps of rows: the bits of the dense step on them, duplicates, faults, PyTorch."""

import importlib
import importlib.util

import numpy as np
import pytest

from unitstride import adam_rows_step, adam_step, sgd_rows_step


def test_rows_have_the_bits_of_the_dense_step() -> None:
    random = np.random.default_rng(1)
    x, m, v = random.standard_normal((9, 4)), np.zeros((9, 4)), np.zeros((9, 4))
    rows = np.array([7, 2, 7, 0])
    for step in (1, 2, 3):
        g = random.standard_normal((4, 4))
        dense = np.stack([g[3], g[1], g[0] + g[2]])
        want = [array[[0, 2, 7]] for array in (x, m, v)]
        before = [np.delete(array, rows, axis=0) for array in (x, m, v)]
        norm = adam_step(want[0], dense, want[1], want[2], step, compat="tensorflow")
        assert adam_rows_step(x, rows, g, m, v, step) == norm
        for got, fresh, rest in zip((x, m, v), want, before, strict=True):
            assert got[[0, 2, 7]].tobytes() == fresh.tobytes()
            assert np.delete(got, rows, axis=0).tobytes() == rest.tobytes()
    old = x.copy()
    assert sgd_rows_step(x, rows, np.ones((4, 4)), lr=0.5)[1]
    np.testing.assert_array_equal(old[7] - 1.0, x[7])
    assert sgd_rows_step(x, [], np.ones((0, 4))) == (0.0, True)


def test_faults_leave_everything() -> None:
    x, m, v = np.ones((3, 2)), np.zeros((3, 2)), np.zeros((3, 2))
    g = np.ones((1, 2))
    with pytest.raises(ValueError, match="`indices` must be at least 0 and below 3, got 3"):
        adam_rows_step(x, [3], g, m, v, 1)
    with pytest.raises(ValueError, match=r"`values` must have shape \(2, 2\), got \(1, 2\)"):
        adam_rows_step(x, [0, 1], g, m, v, 1)
    with pytest.raises(TypeError, match="`indices` must be integers"):
        sgd_rows_step(x, [0.5], g)
    with pytest.raises(ValueError, match="`exp_avg` must not share memory with `param`"):
        adam_rows_step(x, [0], g, x, v, 1)
    g[0, 0] = np.nan
    assert not adam_rows_step(x, [0], g, m, v, 1, skip_nonfinite=True)[1]
    assert (x == 1).all() and not m.any() and not v.any()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_trajectory_of_sparse_adam() -> None:
    torch = importlib.import_module("torch")
    random = np.random.default_rng(2)
    x, m, v = random.standard_normal((20, 3)), np.zeros((20, 3)), np.zeros((20, 3))
    theirs = torch.nn.Parameter(torch.tensor(x.copy()))
    optimizer = torch.optim.SparseAdam([theirs], lr=0.01)
    for step in range(1, 201):
        rows, g = random.integers(0, 20, 8), random.standard_normal((8, 3))
        theirs.grad = torch.sparse_coo_tensor(
            rows[None], torch.tensor(g), (20, 3), check_invariants=True
        )
        optimizer.step()
        adam_rows_step(x, rows, g, m, v, step, lr=0.01)
    # 200 steps of a few roundings of 1e-16 each, which small divisors amplify.
    np.testing.assert_allclose(x, theirs.detach().numpy(), rtol=1e-11, atol=1e-12)
