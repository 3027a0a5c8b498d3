"""The mathematics of machine learning as fast, accurate, strided CPU kernels on NumPy arrays.

>>> import numpy as np
>>> import unitstride
>>> unitstride.softmax(np.zeros((2, 4), dtype=np.float32), axis=0)
array([[0.5, 0.5, 0.5, 0.5],
       [0.5, 0.5, 0.5, 0.5]], dtype=float32)
"""

from unitstride._runtime import release_memory, show_config, show_runtime
from unitstride._threads import get_num_threads, set_num_threads, threads
from unitstride.einsum import (
    ContractExpression,
    contract_expression,
    einsum,
    einsum_path,
    einsum_vjp,
)
from unitstride.optim import (
    SGD,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Lion,
    NAdam,
    RAdam,
    RMSprop,
    adam_step,
    clip_grad_norm_,
    clip_grad_value_,
    ema_update,
    global_norm,
)
from unitstride.products import inner, matmul, outer, tensordot
from unitstride.softmax import (
    LogSumExp,
    log_softmax,
    log_softmax_vjp,
    logsumexp,
    logsumexp_vjp,
    softmax,
    softmax_vjp,
)
from unitstride.views import diagonal, trace, transpose

__all__ = [  # noqa: RUF022
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ContractExpression",
    "Lion",
    "LogSumExp",
    "NAdam",
    "RAdam",
    "RMSprop",
    "SGD",
    "adam_step",
    "clip_grad_norm_",
    "clip_grad_value_",
    "contract_expression",
    "diagonal",
    "einsum",
    "einsum_path",
    "einsum_vjp",
    "ema_update",
    "get_num_threads",
    "global_norm",
    "inner",
    "log_softmax",
    "log_softmax_vjp",
    "logsumexp",
    "logsumexp_vjp",
    "matmul",
    "outer",
    "release_memory",
    "set_num_threads",
    "show_config",
    "show_runtime",
    "softmax",
    "softmax_vjp",
    "tensordot",
    "threads",
    "trace",
    "transpose",
]

__version__: str


def __getattr__(name: str) -> str:
    """Look the version up when it is asked for: reading the metadata is slow."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unitstride._runtime import package_version

    version = globals()["__version__"] = package_version()
    return version
