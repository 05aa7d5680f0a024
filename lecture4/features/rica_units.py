"""What single units of a network of reconstruction-ICA layers respond to, and what they are invariant to."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.autoencoder import rica
from lecture4.features import selectivity, stimulus

# {transform: (amounts, (image, amount) -> image)}
TRANSFORMS = {
    'shift, pixels': (np.arange(-8, 9), lambda x, t: stimulus.translate(x, jnp.zeros_like(t), t)),
    'rotation, degrees': (np.arange(-90, 91, 10), lambda x, t: stimulus.rotate(x, jnp.deg2rad(t))),
    'scale': (np.geomspace(0.5, 2, 13), stimulus.scale),
}


def sublayer_outputs(
    layers: Sequence[rica.Layer],
    x: Float[ArrayLike, 'n h w c'],
    stages: Sequence[rica.Stage],
    *,
    min_std: float = 0.01,
    tile: int = 64,
) -> dict[str, Float[np.ndarray, 'n _units']]:
    """Outputs of all units, by sublayer: 'pixels', 'filters 1', 'pooled 1', 'filters 2', ...

    Args:
      layers: Weights of the layers.
      x: Images.
      stages: Sizes of the layers.
      min_std: As in `rica.apply`.
      tile: Number of images in memory at a time.
    """

    @jax.jit
    def run(x):
        return rica.apply(layers, x, stages, min_std=min_std)

    x = np.asarray(x)
    parts = [run(x[i : i + tile]) for i in range(0, len(x), tile)]
    outputs = {'pixels': x.reshape(len(x), -1)}
    for i in range(len(layers)):
        for kind in ('filters', 'pooled'):
            whole = np.concatenate([np.asarray(part[i][kind]) for part in parts])
            outputs[f'{kind} {i + 1}'] = whole.reshape(len(x), -1)
    return outputs


def shift_invariance(
    layers: Sequence[rica.Layer],
    images: Float[np.ndarray, 'n h w c'],
    stages: Sequence[rica.Stage],
    shifts: Sequence[int],
    *,
    size: int,
    min_std: float = 0.01,
) -> dict[str, list[float]]:
    """Invariance (`selectivity.invariance`) to horizontal shifts, mean over the units of a sublayer.

    Args:
      layers: Weights of the layers.
      images: Larger than the network's input by the largest shift at least.
      stages: Sizes of the layers.
      shifts: In pixels.
      size: Height and width of the network's input.
      min_std: As in `rica.apply`.

    Returns:
      {sublayer: invariance for each shift}.
    """
    run = functools.partial(sublayer_outputs, stages=stages, min_std=min_std)
    before = run(layers, images[:, :size, :size])
    shifted = [run(layers, images[:, :size, s : s + size]) for s in shifts]
    return {
        name: [float(np.nanmean(selectivity.invariance(a, after[name]))) for after in shifted]
        for name, a in before.items()
    }


def best_stimuli(
    layers: Sequence[rica.Layer],
    stages: Sequence[rica.Stage],
    kind: str,
    crops: Float[Array, 'n h w c'],
    *,
    num_units: int,
    num_steps: int,
    num_starts: int = 3,
    min_std: float = 0.01,
) -> tuple[
    Float[np.ndarray, 'm h w c'],
    dict[str, tuple[Real[np.ndarray, ' _t'], Float[np.ndarray, ' _t']]],
]:
    """Best stimuli of central units of the last of these layers, and tuning curves around them.

    The search starts from the crops with the strongest responses. Pixels of a stimulus have variance 1, as
    whitened ones have.

    Args:
      layers: Weights of the layers up to the one in question.
      stages: Sizes of these layers.
      kind: Sublayer, 'filters' or 'pooled'.
      crops: Images to start from, square.
      num_units: Number of units m, one per feature map, the first ones.
      num_steps: Steps of `stimulus.maximize`.
      num_starts: Crops that each search starts from.
      min_std: As in `rica.apply`.

    Returns:
      (stimuli, {transform: (amounts, responses relative to the best stimulus, mean over units)}).
    """

    @jax.jit
    def search(layers, feature_map):
        response = rica.unit_response(layers, stages, kind, feature_map, min_std=min_std)
        responses = jax.lax.map(response, crops, batch_size=64)
        starts = crops[jax.lax.top_k(responses, num_starts)[1]]
        norm = crops.shape[1]
        best = stimulus.maximize(response, starts, norm=norm, n_steps=num_steps).stimuli[0]
        curves = {
            name: stimulus.tuning_curve(response, best, transform, jnp.float32(amounts))
            for name, (amounts, transform) in TRANSFORMS.items()
        }
        return best, curves

    optima = [search(tuple(layers), m) for m in range(num_units)]
    stimuli, tunings = jax.tree.map(lambda *values: np.stack(values), *optima)
    return stimuli, {name: (TRANSFORMS[name][0], v.mean(0)) for name, v in tunings.items()}


def invariant_paths(
    layer: rica.Layer,
    stage: rica.Stage,
    best: Float[Array, 'h w c'],
    angles: Float[ArrayLike, ' m'],
    *,
    min_std: float = 0.01,
) -> dict[str, tuple[Float[np.ndarray, 'm rows cols c'], Float[np.ndarray, ' m']]]:
    """Great circles from a pool's best stimulus along the least and the most curved directions.

    Args:
      layer: The first layer.
      stage: Its sizes.
      best: Best stimulus of the central pool of the first feature map.
      angles: Radians along the circle.
      min_std: As in `rica.apply`.

    Returns:
      {'flattest', '2nd', '3rd' or 'steepest': (stimuli, cut to the pool's receptive field, responses
      relative to the best stimulus)}.
    """
    response = rica.unit_response((layer,), (stage,), 'pooled', 0, min_std=min_std)
    values, directions = jax.jit(functools.partial(stimulus.invariant_directions, response))(best)
    h, w, _ = rica.shapes(best.shape, (stage,))[1]
    field = rica.receptive_field((stage,), (h // 2, w // 2))
    paths = {}
    for name, j in (('flattest', 0), ('2nd', 1), ('3rd', 2), ('steepest', len(values) - 1)):
        path = stimulus.great_circle(best, directions[j], angles)
        relative = jax.vmap(response)(path) / response(best)
        paths[name] = np.asarray(path[:, *field]), np.asarray(relative)
    return paths
