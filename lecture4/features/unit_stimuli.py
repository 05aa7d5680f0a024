"""Best stimuli of a network's units, tuning curves around them, and paths along which units are invariant."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.features import stimulus

# {transform: (amounts, (image, amount) -> image)}
TRANSFORMS = {
    'shift, pixels': (np.arange(-8, 9), lambda x, t: stimulus.translate(x, jnp.zeros_like(t), t)),
    'rotation, degrees': (np.arange(-90, 91, 10), lambda x, t: stimulus.rotate(x, jnp.deg2rad(t))),
    'scale': (np.geomspace(0.5, 2, 13), stimulus.scale),
}

ANGLES = np.linspace(
    -np.pi / 3, np.pi / 3, 7
)  # radians along a great circle, the best stimulus in the middle


def best_stimuli(
    response: Callable[[Any, Any, Any], Any],
    params: Any,
    crops: Float[Array, 'n h w c'],
    *,
    num_units: int,
    num_steps: int,
    num_starts: int = 3,
) -> tuple[
    Float[np.ndarray, 'm h w c'],
    dict[str, tuple[Real[np.ndarray, ' _t'], Float[np.ndarray, ' _t']]],
]:
    """Best stimuli of units, and tuning curves around them.

    The search starts from the crops with the strongest responses. Pixels of a stimulus have variance 1, like whitened
    pixels.

    Args:
      response: (params, unit, image [h, w, c]) -> scalar; the number of the unit is traced.
      params: Parameters of the network.
      crops: Images to start from, square.
      num_units: Number of units m, the first ones.
      num_steps: Steps of `stimulus.maximize`.
      num_starts: Number of crops that each search starts from.

    Returns:
      (stimuli, {transform: (amounts, responses relative to the best stimulus, mean over units)}).
    """

    @jax.jit
    def search(params, unit):
        def one(x):
            return response(params, unit, x)

        responses = jax.lax.map(one, crops, batch_size=64)
        starts = crops[jax.lax.top_k(responses, num_starts)[1]]
        norm = crops.shape[1]
        best = stimulus.maximize(one, starts, norm=norm, n_steps=num_steps).stimuli[0]
        curves = {
            name: stimulus.tuning_curve(one, best, transform, jnp.float32(amounts))
            for name, (amounts, transform) in TRANSFORMS.items()
        }
        return best, curves

    optima = [search(params, unit) for unit in range(num_units)]
    stimuli, tunings = jax.tree.map(lambda *values: np.stack(values), *optima)
    return stimuli, {
        name: (amounts, tunings[name].mean(0)) for name, (amounts, _) in TRANSFORMS.items()
    }


def search_all(
    units: Mapping[str, tuple[Callable[[Any, Any, Any], Any], int]],
    params: Any,
    crops: Float[Array, 'n h w c'],
    *,
    max_units: int,
    num_steps: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`best_stimuli` of several kinds of units.

    Args:
      units: Kind -> ((params, unit, image [h, w, c]) -> scalar, number of units).
      params: Parameters of the network.
      crops: Images to start from, square.
      max_units: Largest number of units of a kind, the first ones.
      num_steps: Steps of `stimulus.maximize`.

    Returns:
      ({kind: stimuli}, {kind: tuning curves}), each as `best_stimuli` returns them.
    """
    results = {
        kind: best_stimuli(
            response, params, crops, num_units=min(max_units, n), num_steps=num_steps
        )
        for kind, (response, n) in units.items()
    }
    stimuli = {kind: best for kind, (best, _) in results.items()}
    return stimuli, {kind: curves for kind, (_, curves) in results.items()}


def invariant_paths(
    response: Callable[[Any], Any],
    best: Float[ArrayLike, 'h w c'],
    angles: Float[ArrayLike, ' m'] = ANGLES,
    field: tuple[slice, slice] = (slice(None), slice(None)),
) -> dict[str, tuple[Float[np.ndarray, 'm rows cols c'], Float[np.ndarray, ' m']]]:
    """Great circles from a unit's best stimulus along the least and the most curved directions.

    Args:
      response: [h, w, c] -> scalar.
      best: The unit's best stimulus.
      angles: Radians along the circle.
      field: Rows and columns of the stimuli that are returned: the unit's receptive field.

    Returns:
      {'flattest', '2nd', '3rd' or 'steepest': (stimuli, responses relative to the best stimulus)}.
    """
    best = jnp.asarray(best)
    find = jax.jit(lambda x: stimulus.invariant_directions(response, x))
    values, directions = find(best)

    @jax.jit
    def relative_responses(path):
        return jax.vmap(response)(path) / response(best)

    paths = {}
    for name, j in (('flattest', 0), ('2nd', 1), ('3rd', 2), ('steepest', len(values) - 1)):
        path = stimulus.great_circle(best, directions[j], angles)
        paths[name] = np.asarray(path[:, *field]), np.asarray(relative_responses(path))
    return paths
