"""The mathematics of machine learning as fast, accurate, strided CPU kernels on NumPy arrays.

>>> import numpy as np
>>> import unitstride
>>> unitstride.softmax(np.zeros((2, 4), dtype=np.float32), axis=0)
array([[0.5, 0.5, 0.5, 0.5],
       [0.5, 0.5, 0.5, 0.5]], dtype=float32)
"""

from unitstride._kv_cache import KVCache
from unitstride._multi_head import (
    MultiHeadGradients,
    multi_head_attention,
    multi_head_attention_vjp,
)
from unitstride._multi_head_layer import MultiHeadWeights, multi_head_weights
from unitstride._rotary import rotary
from unitstride._runtime import release_memory, show_config, show_runtime
from unitstride._threads import get_num_threads, set_num_threads, threads
from unitstride.attention import (
    AttentionStatistics,
    attention,
    attention_statistics,
    attention_vjp,
    attention_weights,
    merge_attention,
)
from unitstride.conv import causal_conv1d, conv1d, conv1d_vjp, conv2d, conv2d_vjp
from unitstride.convolution import convolve, convolve_vjp, correlate, correlate_vjp
from unitstride.convolution2d import convolve2d, convolve2d_vjp, correlate2d, correlate2d_vjp
from unitstride.einsum import (
    ContractExpression,
    contract_expression,
    einsum,
    einsum_path,
    einsum_vjp,
)
from unitstride.long_convolution import ConvolutionPlan, long_convolve, long_convolve_vjp
from unitstride.optim import (
    LAMB,
    SGD,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    BlockwiseState,
    GradientReport,
    Lion,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
    adafactor_step,
    adagrad_step,
    adam_rows_step,
    adam_step,
    adamax_step,
    check_gradient,
    clip_grad_norm_,
    clip_grad_value_,
    constant_schedule,
    cosine_schedule,
    cyclical_schedule,
    ema_update,
    exponential_schedule,
    global_norm,
    hessian,
    inverse_time_schedule,
    jacobian,
    join_schedules,
    lamb_step,
    linear_schedule,
    lion_step,
    muon_step,
    nadam_step,
    numerical_gradient,
    one_cycle_schedule,
    polynomial_schedule,
    radam_step,
    rmsprop_step,
    sgd_rows_step,
    sgd_step,
    step_schedule,
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
from unitstride.toeplitz import Toeplitz, toeplitz, toeplitz_matmul, toeplitz_matmul_vjp
from unitstride.views import diagonal, trace, transpose

__all__ = [  # noqa: RUF022
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "AttentionStatistics",
    "BlockwiseState",
    "ContractExpression",
    "ConvolutionPlan",
    "GradientReport",
    "KVCache",
    "LAMB",
    "Lion",
    "LogSumExp",
    "MultiHeadGradients",
    "MultiHeadWeights",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "SGD",
    "Toeplitz",
    "adafactor_step",
    "adagrad_step",
    "adam_rows_step",
    "adam_step",
    "adamax_step",
    "attention",
    "attention_statistics",
    "attention_vjp",
    "attention_weights",
    "causal_conv1d",
    "check_gradient",
    "clip_grad_norm_",
    "clip_grad_value_",
    "constant_schedule",
    "contract_expression",
    "conv1d",
    "conv1d_vjp",
    "conv2d",
    "conv2d_vjp",
    "convolve",
    "convolve2d",
    "convolve2d_vjp",
    "convolve_vjp",
    "correlate",
    "correlate2d",
    "correlate2d_vjp",
    "correlate_vjp",
    "cosine_schedule",
    "cyclical_schedule",
    "diagonal",
    "einsum",
    "einsum_path",
    "einsum_vjp",
    "ema_update",
    "exponential_schedule",
    "get_num_threads",
    "global_norm",
    "hessian",
    "inner",
    "inverse_time_schedule",
    "jacobian",
    "join_schedules",
    "lamb_step",
    "linear_schedule",
    "lion_step",
    "log_softmax",
    "log_softmax_vjp",
    "logsumexp",
    "logsumexp_vjp",
    "long_convolve",
    "long_convolve_vjp",
    "matmul",
    "merge_attention",
    "multi_head_attention",
    "multi_head_attention_vjp",
    "multi_head_weights",
    "muon_step",
    "nadam_step",
    "numerical_gradient",
    "one_cycle_schedule",
    "outer",
    "polynomial_schedule",
    "radam_step",
    "release_memory",
    "rmsprop_step",
    "rotary",
    "set_num_threads",
    "sgd_rows_step",
    "sgd_step",
    "show_config",
    "show_runtime",
    "softmax",
    "softmax_vjp",
    "step_schedule",
    "tensordot",
    "threads",
    "toeplitz",
    "toeplitz_matmul",
    "toeplitz_matmul_vjp",
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
