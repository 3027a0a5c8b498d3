"""Optimisers: steps in one pass over memory, on plain NumPy arrays and lists of them."""

from unitstride._optim_adam import adam_step
from unitstride._optim_classes import Adam, AdamW
from unitstride._optim_clip import clip_grad_norm_, clip_grad_value_, ema_update, global_norm

__all__ = [
    "Adam",
    "AdamW",
    "adam_step",
    "clip_grad_norm_",
    "clip_grad_value_",
    "ema_update",
    "global_norm",
]
