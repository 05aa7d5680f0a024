"""SGD as in published recipes: momentum in two conventions, schedules, weight decay by kind of parameter."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import optax

from lecture4.train.config import Config
from lecture4.train.fields import Fraction, FractionBelow1, NonNegative, Positive

Convention = Literal['torch', 'caffe']
ScheduleKind = Literal['piecewise', 'staircase', 'polynomial']
Decayed = Literal['kernels', 'all']


@dataclasses.dataclass(frozen=True)
class SGDRecipe(Config):
    """SGD with momentum and weight decay, as in papers on image networks."""

    # Initial learning rate.
    learning_rate: Positive = 0.05
    # Learning rate schedule: multiplied by --decay_rate at --boundaries (piecewise) or every --decay_steps
    # (staircase), or proportional to the square root of the remaining fraction of steps (polynomial).
    schedule: ScheduleKind = 'piecewise'
    # Fractions of the steps at which the learning rate decays, with --schedule piecewise.
    boundaries: tuple[Fraction, ...] = (0.5, 0.75)
    # Interval between decays as a fraction of the steps, with --schedule staircase.
    decay_steps: Positive = 0.1
    # Factor of each decay of the learning rate.
    decay_rate: Positive = 0.1
    # Momentum of gradients (torch) or of updates (caffe).
    momentum: FractionBelow1 = 0.9
    # Whether the learning rate multiplies the momentum buffer (torch) or the gradients before it (caffe).
    convention: Convention = 'torch'
    # Weight decay, added to the gradients.
    weight_decay: NonNegative = 1e-4
    # Parameters with weight decay: kernels only, or all, including biases and batch norm parameters.
    weight_decay_mask: Decayed = 'all'
    # Multiplier of the learning rate of biases.
    bias_lr_multiplier: Positive = 1.0


def sgd_recipe(config: SGDRecipe) -> optax.GradientTransformation:
    """The optimizer that a config describes: weight decay, multiplier of biases, SGD with its schedule."""
    if config.schedule == 'piecewise':
        schedule = piecewise_constant(
            config.learning_rate, config.steps, config.boundaries, config.decay_rate
        )
    elif config.schedule == 'staircase':
        interval = max(round(config.decay_steps * config.steps), 1)
        schedule = optax.exponential_decay(
            config.learning_rate, interval, config.decay_rate, staircase=True
        )
    else:
        schedule = optax.polynomial_schedule(config.learning_rate, 0.0, 0.5, config.steps)
    mask = functools.partial(weight_decay_mask, which=config.weight_decay_mask)
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask),
        bias_lr_multiplier(config.bias_lr_multiplier),
        sgd(schedule, config.momentum, config.convention),
    )


def sgd(
    learning_rate: optax.ScalarOrSchedule, momentum: float, convention: Convention = 'torch'
) -> optax.GradientTransformation:
    """Gradient descent with momentum; the conventions differ where the learning rate changes.

    'torch' (and `optax.sgd`): v <- momentum v + g, w <- w - learning_rate v.
    'caffe': v <- momentum v + learning_rate g, w <- w - v; earlier gradients keep the learning rate of their step.

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
    """The learning rate times `decay_rate` from each of the fractions `boundaries` of all steps on.

    `optax.piecewise_constant_schedule` with boundaries as fractions of the run: the first step n with
    n / steps >= boundary is the first with the lower learning rate.
    """
    return optax.piecewise_constant_schedule(
        learning_rate, {math.ceil(b * steps - 1e-6): decay_rate for b in boundaries}
    )


def weight_decay_mask(params: Mapping[str, Any], which: Decayed = 'kernels') -> dict[str, Any]:
    """Mask for optax's weight decay: a tree of booleans, True for what is decayed.

    Args:
      params: Parameters of a flax network.
      which: 'kernels' leaves out biases and the scales and shifts of batch normalization (Caffe's recipes:
        AlexNet, GoogLeNet); 'all' decays everything (Torch's: ResNet, VGG).
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: which == 'all' or path[-1].key == 'kernel', params
    )


def bias_lr_multiplier(multiplier: float) -> optax.GradientTransformation:
    """Multiplies the gradients of biases: Caffe's recipes train them at twice the learning rate."""

    def update(updates, state, params=None):
        del params

        def scale(path, g):
            return g * multiplier if path[-1].key == 'bias' else g

        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
