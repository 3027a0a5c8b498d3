"""Steps as functions: the same bits as the classes, and their errors."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checks import random_for

import unitstride as us

Array = np.ndarray[Any, Any]
Step = Callable[[Array, Array, Array, int], Any]

# Class, its options, and the function with the states s[0], s[1], s[2].
CASES: dict[str, tuple[Any, dict[str, Any], Step]] = {
    "sgd": (us.SGD, {"weight_decay": 0.1}, lambda x, g, s, t: us.sgd_step(x, g, weight_decay=0.1)),
    "momentum": (
        us.SGD,
        {"momentum": 0.9, "dampening": 0.1},
        lambda x, g, s, t: us.sgd_step(
            x, g, momentum=0.9, dampening=0.1, momentum_buffer=s[0], first_step=t == 1
        ),
    ),
    "lion": (us.Lion, {}, lambda x, g, s, t: us.lion_step(x, g, s[0], decoupled=True)),
    "nadam": (us.NAdam, {}, lambda x, g, s, t: us.nadam_step(x, g, s[0], s[1], t)),
    "radam": (us.RAdam, {}, lambda x, g, s, t: us.radam_step(x, g, s[0], s[1], t)),
    "adamax": (us.Adamax, {}, lambda x, g, s, t: us.adamax_step(x, g, s[0], s[1], t)),
    "adagrad": (
        us.Adagrad,
        {"lr_decay": 0.1},
        lambda x, g, s, t: us.adagrad_step(x, g, s[0], t, lr_decay=0.1),
    ),
    "rmsprop": (
        us.RMSprop,
        {"centered": True, "momentum": 0.9},
        lambda x, g, s, t: us.rmsprop_step(
            x, g, s[0], momentum=0.9, momentum_buffer=s[1], grad_avg=s[2]
        ),
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_a_function_is_a_step_of_its_class(isa: str, name: str, dtype: Any) -> None:
    kind, options, step = CASES[name]
    random = random_for(name)
    x = random.standard_normal((7, 11)).astype(dtype)
    y, states = x.copy(), np.zeros((3, 7, 11), dtype)
    lr = kind([np.zeros(1)]).param_groups[0]["lr"]
    assert lr > 0
    optimizer = kind([y], **options)
    for t in range(1, 12):
        g = random.standard_normal((7, 11)).astype(dtype)
        norm, stepped = step(x, g, states, t)
        assert (norm, stepped) == optimizer.step([g])
        assert stepped
        assert x.tobytes() == y.tobytes(), t


def test_a_list_is_its_arrays(isa: str) -> None:
    random = random_for("functions")
    shapes = ((3,), (40, 30), ())
    p, g, m = ([np.asarray(random.standard_normal(s)) for s in shapes] for _ in range(3))
    q, n = [x.copy() for x in p], [x.copy() for x in m]
    us.lion_step(p, g, m)
    for x, h, state in zip(q, g, n, strict=True):
        us.lion_step(x, h, state)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(p + m, q + n, strict=True))


def test_errors_name_function_and_argument() -> None:
    x, g = np.ones(3), np.ones(3)
    for call, error, message in (
        (lambda: us.lion_step(x, g, None), TypeError, "lion_step: `exp_avg` must be"),
        (lambda: us.adam_step(x, g, g * 1, None, 1), TypeError, "adam_step: `exp_avg_sq` must be"),
        (lambda: us.adam_step(x, None, g * 1, g * 2, 1), TypeError, "adam_step: `grads` must be"),
        (lambda: us.adam_step(None, g, g * 1, g * 2, 1), TypeError, "adam_step: `params` must be"),
        (lambda: us.adamax_step(x, g, g * 1, None, 1), TypeError, "adamax_step: `exp_inf` must"),
        (lambda: us.sgd_step(x, g, momentum=0.9), ValueError, "sgd_step: `momentum_buffer` must"),
        (lambda: us.sgd_step(x, g, nesterov=True), ValueError, "sgd_step: `nesterov` needs"),
        (lambda: us.sgd_step(x, np.ones(4)), ValueError, "sgd_step: `grads` must have shape (3,)"),
        (lambda: us.radam_step(x, g, g * 1, g * 2, 0), ValueError, "radam_step: `step` must"),
        (lambda: us.rmsprop_step(x, g, g), ValueError, "`square_avg` must not share memory"),
        (lambda: us.nadam_step(x, g, g * 1, g * 1, 1, lr=-1.0), ValueError, "nadam_step: `lr`"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            call()
    assert (x == 1).all()


def test_the_gradient_of_a_number_may_be_a_scalar() -> None:
    """Arithmetic on arrays without axes gives scalars."""
    for grad in (np.float64(2.0), np.array(2.0)):
        x, m, v = np.array(3.0), np.array(0.0), np.array(0.0)
        assert us.adam_step(x, grad, m, v, 1, lr=0.5) == (2.0, True)
        assert float(x) == pytest.approx(2.5)
        x, y = np.array(3.0), np.ones(2)
        assert us.sgd_step([x, y], [grad, np.ones(2)], lr=0.5)[1]
        assert float(x) == 2.0
        assert us.global_norm([grad, np.zeros(3)]) == 2.0
    with pytest.raises(TypeError, match=r"`params` must be a NumPy array, got float64"):
        us.sgd_step(np.float64(1.0), np.float64(1.0), lr=0.5)
