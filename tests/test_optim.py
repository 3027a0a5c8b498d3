"""Steps of optimisers: NumPy's bits, layouts, overlap, threads, faults, trajectories of PyTorch."""

import importlib
import importlib.util
import itertools
from typing import Any

import numpy as np
import pytest
from checks import needs_core
from numpy.typing import NDArray

import unitstride
from unitstride import _optim_lists, _optim_rules, _records, adam_step
from unitstride._reference import optim as twin

Array = NDArray[Any]

# Around vectors of 4, 8 and 16 lanes, scratch batches (512) and pieces (16384).
LENGTHS = (0, 1, 3, 4, 5, 15, 16, 17, 33, 511, 513, 4097, 16385, 40001)
RULES = range(_optim_rules.AVERAGE + 1)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled": True, "maximize": True},
    {"nesterov": True, "grad_scale": 3.0, "clip_factor": 0.7},
    {"bias_correction": False, "compat": "tensorflow"},
    {"compat": "onnx", "max_norm": 0.5},
    {"compat": "optax", "max_norm": 0.5, "skip_nonfinite": True},
    {"eps": 0.0, "betas": (0.0, 0.5)},
)


def find_dtypes() -> list[np.dtype[Any]]:
    names = ("float32", "float64", "float16", "bfloat16")
    return [dtype for dtype in map(_records.find_dtype, names) if dtype is not None]


def make(random: np.random.Generator, shape: Any, dtype: Any, count: int = 4) -> list[Array]:
    """Return a parameter, a gradient and states, which are not negative."""
    arrays = [np.asarray(random.standard_normal(shape)) for _ in range(2)]
    arrays += [np.asarray(random.random(shape) * 0.1) for _ in range(count - 2)]
    return [array.astype(dtype) for array in arrays]


def lay_out(array: Array, layout: str) -> Array:
    """Return a copy of an array in a layout, between elements that must not change."""
    if layout == "transposed":
        return np.array(array.T, order="C").T
    if layout == "step 2":
        host = np.full((*array.shape[:-1], 2 * array.shape[-1]), 77, array.dtype)
        host[..., ::2] = array
        return host[..., ::2]
    if layout == "reversed":
        return array[::-1, ::-1].copy()[::-1, ::-1]
    if layout == "unaligned":
        memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
        view = memory.view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    return array.copy()


LAYOUTS = ("plain", "transposed", "step 2", "reversed", "unaligned")


def bits(arrays: Any) -> list[bytes]:
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


def twin_of(arrays: list[Array | None], step: int, **options: Any) -> tuple[float, bool]:
    """Take a step of Adam with the twin."""
    option: dict[str, Any] = {
        "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "decoupled": False,
        "nesterov": False, "maximize": False, "bias_correction": True, "compat": "torch",
        "grad_scale": None, "clip_factor": None, "max_norm": None, "skip_nonfinite": False,
        "ema_decay": 0.999, **options,
    }  # fmt: skip
    numbers = _optim_rules.adam(
        step, *(option[k] for k in ("lr", "betas", "eps", "nesterov", "bias_correction", "compat"))
    )
    shared = _optim_rules.common(
        "twin",
        *(option[k] for k in ("lr", "weight_decay", "decoupled", "maximize", "grad_scale")),
        *(option[k] for k in ("clip_factor", "max_norm")),
        option["compat"] == "optax",
        option["ema_decay"],
        numbers,
    )
    lists = [None if array is None else [array] for array in arrays]
    return twin.optim_step(0, lists, *shared, option["skip_nonfinite"], True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_adam_has_the_bits_of_numpy(dtype: str, options: dict[str, Any]) -> None:
    random = np.random.default_rng(1)
    for length in LENGTHS:
        ours = make(random, length, dtype, 6)
        theirs: list[Array | None] = [array.copy() for array in ours]
        for step in (1, 2, 1000):
            p, g, m, v, highest, ema = ours
            got = adam_step(p, g, m, v, step, lr=0.01, max_exp_avg_sq=highest, ema=ema, **options)
            want = twin_of([*theirs[:5], theirs[5], None], step, lr=0.01, **options)
            assert got == want
            assert bits(ours) == bits(theirs), (length, step)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_the_bits_of_numpy(rule: int) -> None:
    random = np.random.default_rng(2)
    numbers = _optim_rules.padded(0.9, 0.1, 0.99, 0.01, 0.7, 1e-3, 0.9, 1e-8, 0.01, 1.1, 0.1)
    constants = (0.5, 0.01, 0.02, 0.9, 0.1, *numbers)
    for dtype, length, states in itertools.product(("f4", "f8"), (17, 5003), (1, 2, 3)):
        if states < 2 and rule in (_optim_rules.ADAM, _optim_rules.ADAMAX):
            continue
        ours = make(random, length, dtype, 2 + states)
        theirs = [array.copy() for array in ours]
        empty = [None] * (5 - states)
        for mine, call in ((ours, "run"), (theirs, "twin")):
            lists = (*([array] for array in mine), *empty)
            if call == "run":
                _optim_lists.run_step("rule", rule, "abcdefg", lists, constants)
            else:
                twin.optim_step(rule, lists, constants, 1.0, 0, 0.0, False, True)
        assert bits(ours) == bits(theirs), (dtype, length, states)


@pytest.mark.parametrize("dtype", find_dtypes(), ids=str)
def test_layouts_and_dtypes_have_the_same_bits(dtype: np.dtype[Any]) -> None:
    random = np.random.default_rng(3)
    for shape in ((37, 530), (5, 3), (1200, 2)):
        p, g, m, v = make(random, shape, dtype)
        m, v = m.astype("f4"), v.astype("f4")
        want: list[Array | None] = [p.copy(), g, m.copy(), v.copy(), None, None, None]
        norm = twin_of(want, 3, lr=0.1, max_norm=1.0)
        for layouts in (*zip(LAYOUTS, LAYOUTS, LAYOUTS, LAYOUTS, strict=True),
                        ("plain", "transposed", "plain", "plain"),
                        ("transposed", "plain", "step 2", "reversed")):  # fmt: skip
            got = [lay_out(a, layout) for a, layout in zip((p, g, m, v), layouts, strict=True)]
            assert adam_step(*got, 3, lr=0.1, max_norm=1.0) == norm
            assert bits(got) == bits(want[:4]), (shape, layouts)
            for array, layout in zip(got, layouts, strict=True):
                if layout == "step 2":
                    assert (array.base[..., 1::2] == 77).all()


def test_lists_threads_and_pieces() -> None:
    random = np.random.default_rng(4)
    shapes = [(200, 300), (7,), (0, 3), (), (64, 1030), *[(50,)] * 40]
    arrays = [make(random, shape, "f4") for shape in shapes]
    want = [[array.copy() for array in each] for each in arrays]
    for each in want:
        adam_step(*each, 1)
    for threads in (1, 2, 3):
        with unitstride.threads(threads):
            ours = [[array.copy() for array in each] for each in arrays]
            lists = [list(kind) for kind in zip(*ours, strict=True)]
            norm, stepped = adam_step(*lists, 1)
        assert stepped and norm == unitstride.global_norm(lists[1])
        assert all(bits(a) == bits(b) for a, b in zip(ours, want, strict=True))


def test_low_precision_copy_is_the_rounded_parameter() -> None:
    random = np.random.default_rng(5)
    for dtype in find_dtypes():
        p, g, m, v = make(random, (40, 33), "f4")
        copy = np.zeros((33, 40), dtype).T
        adam_step(p, g, m, v, 1, low_precision_copy=copy)
        assert bits([copy]) == bits([p.astype(dtype)])


def test_the_norm_is_that_of_the_exact_sum() -> None:
    random = np.random.default_rng(6)
    from fractions import Fraction

    for dtype, scale in (("f4", 1.0), ("f8", 1.0), ("f8", 1e200), ("f8", 1e-200), ("f4", 1e-30)):
        x = (random.standard_normal(501) * scale).astype(dtype)
        exact = sum(Fraction(float(value)) ** 2 for value in x)
        got = Fraction(unitstride.global_norm(x))
        # Half an ULP of each square and one of the root: two parts in 2^52.
        assert abs(got * got - exact) <= exact * Fraction(4, 2**52)
        assert unitstride.global_norm(x[::-1]) == unitstride.global_norm(x)
    assert unitstride.global_norm([]) == 0.0
    for dtype in find_dtypes():
        assert unitstride.global_norm(np.array([np.inf, 1.0]).astype(dtype)) == np.inf
    tiny = unitstride.global_norm([np.array([1e-200]), np.zeros(3, "f4")])
    assert tiny == pytest.approx(1e-200, rel=1e-15)
    assert np.isnan(unitstride.global_norm([np.array([1.0]), np.array([np.nan], "f4")]))


# Faults.


def test_a_nonfinite_gradient_leaves_everything() -> None:
    for value, dtype in itertools.product((np.nan, np.inf), find_dtypes()):
        lists = [list(kind) for kind in zip(*(make(np.random.default_rng(7), n, dtype)
                                              for n in (5, 1000, 3)), strict=True)]  # fmt: skip
        lists[1][1][500] = value
        before = [bits(kind) for kind in lists]
        norm, stepped = adam_step(*lists, 1, skip_nonfinite=True, max_norm=1.0)
        assert not stepped and not np.isfinite(norm)
        assert [bits(kind) for kind in lists] == before


@pytest.mark.parametrize("dtype", find_dtypes(), ids=str)
def test_a_zero_gradient_and_eps_zero_never_give_nan(dtype: np.dtype[Any]) -> None:
    for eps in (0.0, 1e-8):
        p, g, m, v = (np.zeros(100, dtype) for _ in range(4))
        p[:] = 1
        for step in (1, 2, 10**9):
            assert adam_step(p, g, m, v, step, eps=eps) == (0.0, True)
        assert (p == 1).all() and not m.any() and not v.any()


def test_decay_that_rounds_away_as_a_factor_still_works() -> None:
    p, g, m, v = (np.full(3, x, np.float32) for x in (1.9, 1.0, 0.0, 0.0))
    assert np.float32(1) - np.float32(2e-8) == 1
    adam_step(p, g, m, v, 1, lr=1.6e-7, weight_decay=0.125, decoupled=True)
    q, h, a, b = (np.full(3, x, np.float32) for x in (1.9, 1.0, 0.0, 0.0))
    adam_step(q, h, a, b, 1, lr=1.6e-7)
    assert (p < q).all()


def test_overlap_is_refused_before_anything_is_written() -> None:
    host = np.arange(40.0)
    p, g, m, v = make(np.random.default_rng(8), 20, "f8")
    cases: list[tuple[list[Any], str]] = [
        ([host[:20], g, host[10:30], v], "`exp_avg` must not share memory with `params`"),
        ([p, p, m, v], "`grads` must not share memory with `params`"),
        ([[p, p], [g, g], [m, m], [v, v]], r"`params\[1\]` must not share memory with"),
        ([np.lib.stride_tricks.as_strided(host, (20,), (0,)), g, m, v], "must not overlap itself"),
        ([np.lib.stride_tricks.as_strided(host, (4, 5), (8, 8)), *(x.reshape(4, 5) for x in
          (g, m, v))], "`params` must not overlap itself"),
    ]  # fmt: skip
    for arrays, message in cases:
        before = bits([host, p, g, m, v])
        with pytest.raises(ValueError, match=message):
            adam_step(*arrays, 1)
        assert bits([host, p, g, m, v]) == before
    # Views that interleave share no element.
    even, odd = host[::2], host[1::2]
    adam_step([even, odd], [g, p], [m, v], [np.zeros(20), np.zeros(20)], 1)
    assert np.isfinite(host).all()


def test_errors_name_the_offender() -> None:
    p, g, m, v = make(np.random.default_rng(9), (2, 3), "f4")
    frozen = p.copy()
    frozen.flags.writeable = False
    cases: list[tuple[list[Any], type[Exception], str]] = [
        ([p, g.T, m, v], ValueError, r"`grads` must have shape \(2, 3\), got \(3, 2\)"),
        ([[p], [g, g], [m], [v]], ValueError, "`grads` must have 1 arrays, got 2"),
        ([[p], [g], [m], [v.astype(int)]], TypeError, r"`exp_avg_sq\[0\]` must be float16, .* int"),
        ([p, g.tolist(), m, v], ValueError, "`grads` must have 1 arrays, got 2"),
        ([[p], [g.tolist()], [m], [v]], TypeError, r"`grads\[0\]` must be a NumPy array, got list"),
        ([frozen, g, m, v], ValueError, "`params` must be writeable, got a read-only array"),
        ([p, 3, m, v], TypeError, "`grads` must be an array or a list of arrays, got int"),
    ]
    for arrays, error, message in cases:
        with pytest.raises(error, match="adam_step: " + message):
            adam_step(*arrays, 1)
    for key, value, error, message in (
        ("lr", -1.0, ValueError, "`lr` must be at least 0 and finite, got -1.0"),
        ("lr", "x", TypeError, "`lr` must be a number, got 'x'"),
        ("betas", (1.0, 0.5), ValueError, r"`betas\[0\]` must be at least 0 and below 1, got 1.0"),
        ("betas", 0.9, TypeError, "`betas` must be two numbers, got 0.9"),
        ("eps", np.nan, ValueError, "`eps` must be at least 0 and finite, got nan"),
        ("compat", "jax", ValueError, "`compat` must be torch, optax, tensorflow or onnx, got"),
        ("grad_scale", 0.0, ValueError, "`grad_scale` must be above 0 and finite, got 0.0"),
    ):
        with pytest.raises(error, match="adam_step: " + message):
            adam_step(p, g, m, v, 1, **{key: value})
    with pytest.raises(ValueError, match="adam_step: `step` must be at least 1, got 0"):
        adam_step(p, g, m, v, 0)


def test_memmap_and_foreign_byte_order(tmp_path: Any) -> None:
    p, g, m, v = make(np.random.default_rng(10), 300, "f4")
    want = [array.copy() for array in (p, g, m, v)]
    adam_step(*want, 1)
    mapped = np.memmap(tmp_path / "p", np.float32, "w+", shape=(300,))
    mapped[:] = p
    adam_step(mapped, g.astype(">f4"), m.astype(">f4"), v, 1)
    assert bits([mapped, v]) == bits([want[0], want[3]])


@needs_core
def test_the_core_and_the_small_call_agree() -> None:
    """The small call of one array and the call of a list are two ways to the same bits."""
    for dtype, n in itertools.product(("f4", "f8"), (1, 100, 4096)):
        arrays = make(np.random.default_rng(11), n, dtype)
        single = [array.copy() for array in arrays]
        listed = [[array.copy()] for array in arrays]
        for decoupled in (False, True):
            options: dict[str, Any] = {"weight_decay": 0.3, "decoupled": decoupled}
            assert adam_step(*single, 7, **options) == adam_step(*listed, 7, **options)
        assert bits(single) == bits(each[0] for each in listed)


# Trajectories.

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


TRAJECTORIES: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    *((name, options, options) for name in ("Adam", "AdamW")
      for options in ({}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True},
                      {"eps": 1e-3, "betas": (0.5, 0.9)})),
    *(("SGD", options, options)
      for options in ({}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3},
                      {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True})),
    *((name, {"weight_decay": 0.1, "decoupled": decoupled},
       {"weight_decay": 0.1, "decoupled_weight_decay": decoupled})
      for name in ("NAdam", "RAdam") for decoupled in (False, True)),
    *((name, {"weight_decay": 0.1}, {"weight_decay": 0.1})
      for name in ("Adamax", "Adagrad", "RMSprop")),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5},
     {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("RMSprop", {"momentum": 0.9, "centered": True}, {"momentum": 0.9, "centered": True}),
)  # fmt: skip


@needs_torch
@pytest.mark.parametrize(("name", "mine", "other"), TRAJECTORIES, ids=str)
def test_trajectories_of_torch(name: str, mine: dict[str, Any], other: dict[str, Any]) -> None:
    torch: Any = importlib.import_module("torch")
    random = np.random.default_rng(12)
    start = [random.standard_normal(shape) for shape in ((4, 5), (3,))]
    ours = [array.copy() for array in start]
    theirs = [torch.tensor(array, requires_grad=True) for array in start]
    own = getattr(unitstride, name)(ours, lr=0.05, **mine)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # in which NAdam keeps the product of its momenta
    try:
        peer = getattr(torch.optim, name)(theirs, lr=0.05, **other)
        for _ in range(200):
            grads = [np.cos(array) + random.standard_normal(array.shape) for array in ours]
            for tensor, grad in zip(theirs, grads, strict=True):
                tensor.grad = torch.tensor(grad)
            own.step(grads)
            peer.step()
    finally:
        torch.set_default_dtype(before)
    for array, tensor in zip(ours, theirs, strict=True):
        # 200 steps of a few roundings each; the variance of RMSprop cancels.
        np.testing.assert_allclose(array, tensor.detach().numpy(), rtol=1e-10, atol=1e-12)


OPTAX: tuple[tuple[str, dict[str, Any], str, dict[str, Any]], ...] = (
    ("Adam", {"compat": "optax"}, "adam", {}),
    ("Adam", {"compat": "optax", "nesterov": True}, "nadam", {}),
    ("AdamW", {"compat": "optax", "weight_decay": 0.1}, "adamw", {"weight_decay": 0.1}),
    ("Adam", {"compat": "optax", "amsgrad": True}, "amsgrad", {}),
    ("Lion", {"weight_decay": 0.1}, "lion", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}, "sgd", {"momentum": 0.9, "nesterov": True}),
)


@pytest.mark.skipif(importlib.util.find_spec("optax") is None, reason="optax is not installed")
@pytest.mark.slow
@pytest.mark.parametrize(("name", "mine", "peer", "other"), OPTAX, ids=str)
def test_trajectories_of_optax(
    name: str, mine: dict[str, Any], peer: str, other: dict[str, Any]
) -> None:
    jax: Any = importlib.import_module("jax")
    optax: Any = importlib.import_module("optax")
    random = np.random.default_rng(13)
    start = random.standard_normal((4, 5))
    ours = start.copy()
    own = getattr(unitstride, name)(ours, lr=0.05, **mine)
    with jax.enable_x64(True):
        rule = getattr(optax, peer)(0.05, **other)
        theirs = jax.numpy.asarray(start)
        state = rule.init(theirs)
        update = jax.jit(rule.update)
        for _ in range(200):
            grad = np.cos(ours) + random.standard_normal(ours.shape)
            own.step(grad)
            change, state = update(jax.numpy.asarray(grad), state, theirs)
            theirs = optax.apply_updates(theirs, change)
        # 200 steps of a few roundings each.
        np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-10, atol=1e-12)
