"""The dictionary learners by name, as pairs (init, step) with one interface.

`online` (Mairal et al. 2009) learns most per batch and is the default everywhere; `lagrange_dual` (Lee
et al. 2006) is the alternation of the self-taught learning papers, for batches so large that their
codes determine the atoms; `projected_gradient` (Olshausen & Field 1996) takes any optax optimizer.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import optax
from jaxtyping import ArrayLike, Real

from lecture4.sparse.dictionary import lagrange_dual, online, projected_gradient

Name = Literal['online', 'lagrange_dual', 'projected_gradient']

# Axis of the atoms in each array of a learner's state and of its optimizer: model parallelism divides it.
MODEL_AXES = {'(^|/)(atoms|A|B|usage|mu|nu|trace)$': -1}


def make(
    name: Name,
    n_atoms: int,
    penalty_weight: Real[ArrayLike, '...'],
    *,
    optimizer: optax.GradientTransformation | None = None,
    **options: Any,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The learner with a name, for `n_atoms` atoms.

    Args:
      name: 'online', 'lagrange_dual' or 'projected_gradient'.
      n_atoms: Number of atoms.
      penalty_weight: Weight of the penalty on the codes, positive.
      optimizer: Optimizer for projected_gradient, which needs one; the others have none.
      **options: Options of the step, such as `penalty` and `n_iterations`.

    Returns:
      init(key, signals) -> state, and step(state, signals, key, *, reduce) -> (state, metrics); every
      state has the fields atoms [d, k] and usage [k].

    Raises:
      ValueError: An unknown name, or projected_gradient without an optimizer.
    """
    modules = {'online': online, 'lagrange_dual': lagrange_dual}
    if name == 'projected_gradient':
        if optimizer is None:
            raise ValueError(
                'projected_gradient needs an optimizer; pass one such as optax.adam(0.02)'
            )
        module, settings = projected_gradient, {'optimizer': optimizer}
    elif name in modules:
        module, settings = modules[name], {}
    else:
        raise ValueError(
            f"learner {name!r}; expected 'online', 'lagrange_dual' or 'projected_gradient'"
        )

    def init(key, signals):
        return module.init(key, signals, n_atoms, **settings)

    return init, functools.partial(
        module.step, penalty_weight=penalty_weight, **settings, **options
    )
