"""Stochastic gradient descent as the papers ran it: momentum in two conventions, schedules, averages."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax


def momentum(
    rate, decay: float, convention: Literal['torch', 'caffe']
) -> optax.GradientTransformation:
    """Gradient descent with momentum; the two conventions differ where the rate changes.

    convention  'torch'  v <- decay v + g,         w <- w - rate v
                'caffe'  v <- decay v + rate g,    w <- w - v: old steps keep the rate they had
                         (Krizhevsky et al. 2012, section 5)
    rate        a number, or a function of the step.
    Errors      ValueError for another convention.
    """
    if convention not in ('torch', 'caffe'):
        raise ValueError(f"convention {convention!r}; 'torch' or 'caffe' is wanted")
    parts = [optax.trace(decay), optax.scale_by_learning_rate(rate)]
    return optax.chain(*(parts if convention == 'torch' else parts[::-1]))


def schedule(
    kind: Literal['drops', 'staircase', 'polynomial'],
    rate,
    steps: int,
    *,
    drops: tuple[float, ...] = (),
    every: float = 1.0,
    factor: float = 0.1,
    power: float = 0.5,
):
    """The learning rate as a function of the step.

    kind  'drops'       times `factor` at each of the shares `drops` of all steps
          'staircase'   times `factor` whenever a share `every` of all steps has passed
          'polynomial'  rate (1 - step / steps) ^ power
    Errors  ValueError for another kind.
    """
    if kind not in ('drops', 'staircase', 'polynomial'):
        raise ValueError(f'schedule {kind!r}; drops, staircase or polynomial is wanted')

    def at(step):
        share = jnp.asarray(step, jnp.float32) / steps
        if kind == 'polynomial':
            return rate * jnp.maximum(1 - share, 0) ** power
        if kind == 'staircase':
            n_passed = jnp.floor(share / every + 1e-5)
        else:
            n_passed = sum((share >= drop).astype(jnp.float32) for drop in drops) + jnp.float32(0)
        return rate * jnp.float32(factor) ** n_passed

    return at


def averaged(mean, new, n):
    """The mean of a sequence of pytrees with one more: `mean` that of n before, or anything where n < 1.

    Polyak's average of the parameters of all steps, with n counted from where averaging begins.
    Shapes  n an int scalar, may be traced.
    Source  Polyak & Juditsky 1992.
    """
    share = 1 / (jnp.maximum(jnp.asarray(n, jnp.float32), 0) + 1)
    return jax.tree.map(lambda m, x: m + share.astype(x.dtype) * (x - m), mean, new)
