"""Optimisers: steps in one pass over memory, on plain NumPy arrays and lists of them."""

from unitstride._optim_adam import adam_step
from unitstride._optim_adam_steps import nadam_step, radam_step
from unitstride._optim_check import (
    GradientReport,
    check_gradient,
    hessian,
    jacobian,
    numerical_gradient,
)
from unitstride._optim_classes import Adam, AdamW
from unitstride._optim_clip import clip_grad_norm_, clip_grad_value_, ema_update, global_norm
from unitstride._optim_cycles import (
    cosine_schedule,
    cyclical_schedule,
    join_schedules,
    one_cycle_schedule,
)
from unitstride._optim_formats import BlockwiseState
from unitstride._optim_matrices import LAMB, Adafactor, Muon
from unitstride._optim_matrix_steps import adafactor_step, lamb_step, muon_step
from unitstride._optim_momenta import SGD, Lion, NAdam, RAdam
from unitstride._optim_momentum_steps import lion_step, sgd_step
from unitstride._optim_rows import adam_rows_step, sgd_rows_step
from unitstride._optim_scaled import Adagrad, Adamax, RMSprop
from unitstride._optim_scaled_steps import adagrad_step, adamax_step, rmsprop_step
from unitstride._optim_schedules import (
    constant_schedule,
    exponential_schedule,
    inverse_time_schedule,
    linear_schedule,
    polynomial_schedule,
    step_schedule,
)

__all__ = [
    "LAMB",
    "SGD",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "BlockwiseState",
    "GradientReport",
    "Lion",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "adafactor_step",
    "adagrad_step",
    "adam_rows_step",
    "adam_step",
    "adamax_step",
    "check_gradient",
    "clip_grad_norm_",
    "clip_grad_value_",
    "constant_schedule",
    "cosine_schedule",
    "cyclical_schedule",
    "ema_update",
    "exponential_schedule",
    "global_norm",
    "hessian",
    "inverse_time_schedule",
    "jacobian",
    "join_schedules",
    "lamb_step",
    "linear_schedule",
    "lion_step",
    "muon_step",
    "nadam_step",
    "numerical_gradient",
    "one_cycle_schedule",
    "polynomial_schedule",
    "radam_step",
    "rmsprop_step",
    "sgd_rows_step",
    "sgd_step",
    "step_schedule",
]
