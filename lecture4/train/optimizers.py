"""Momentum in two conventions, torch's and Caffe's; schedules are optax's own."""

from typing import Literal

import optax

Convention = Literal['torch', 'caffe']


def sgd(
    learning_rate: optax.ScalarOrSchedule, momentum: float, convention: Convention = 'torch'
) -> optax.GradientTransformation:
    """Gradient descent with momentum; the conventions differ where the learning rate changes.

    'torch' (and `optax.sgd`): v <- momentum v + g, w <- w - learning_rate v.
    'caffe': v <- momentum v + learning_rate g, w <- w - v; old steps keep the rate they had.

    Args:
      learning_rate: A number, or an optax schedule.
      momentum: In [0, 1).
      convention: 'torch' or 'caffe'.

    Raises:
      ValueError: Another convention.

    References:
      Krizhevsky et al. 2012, section 5 (Caffe's convention).
    """
    if convention == 'torch':
        return optax.sgd(learning_rate, momentum)
    if convention == 'caffe':
        return optax.chain(optax.scale_by_learning_rate(learning_rate), optax.trace(momentum))
    raise ValueError(f"convention: expected 'torch' or 'caffe', got {convention!r}")


def piecewise_constant(
    learning_rate: float, steps: int, boundaries: tuple[float, ...], decay_rate: float = 0.1
) -> optax.Schedule:
    """The learning rate times `decay_rate` at each of the fractions `boundaries` of all steps.

    `optax.piecewise_constant_schedule` with boundaries as fractions of the run.
    """
    return optax.piecewise_constant_schedule(
        learning_rate, {round(boundary * steps): decay_rate for boundary in boundaries}
    )
