"""Optimisers: steps in one pass over memory, on plain NumPy arrays and lists of them."""

from unitstride._optim_adam import adam_step
from unitstride._optim_classes import Adam, AdamW
from unitstride._optim_clip import clip_grad_norm_, clip_grad_value_, ema_update, global_norm
from unitstride._optim_momenta import SGD, Lion, NAdam, RAdam
from unitstride._optim_scaled import Adagrad, Adamax, RMSprop

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "RAdam",
    "RMSprop",
    "adam_step",
    "clip_grad_norm_",
    "clip_grad_value_",
    "ema_update",
    "global_norm",
]
