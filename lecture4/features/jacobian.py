"""Measures of an encoder's Jacobian: how many directions the code keeps, and how it contracts the others.

"An encoder" is a function of ONE example, f: [d] -> [k]; the functions map it over x [n, d].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key, Real

# Caption of a table of `sensitivity`'s metrics.
CAPTION = 'Contraction ratio |f(x + u) - f(x)| for random u of length 1; saturated: units below .05 or above .95.'
RADII = np.geomspace(0.05, 10, 14).astype(np.float32)


def singular_values(encode: Callable[[Any], Any], x: Float[Array, 'n d']) -> Float[Array, 'n m']:
    """Singular values of df/dx at every x, descending: [n, min(d, k)].

    The few large ones span the directions of the data that the code keeps; a contractive code
    shrinks all others.
    """
    return jnp.linalg.svd(_jacobian(encode, x), compute_uv=False)


def effective_rank(
    values: Float[ArrayLike, '*batch m'], energy: Real[ArrayLike, ''] = 0.9
) -> Int[Array, '*batch']:
    """Number of singular values, largest first, that hold a given fraction of the sum of squares.

    Args:
      values: Singular values, descending, or their mean over examples.
      energy: Fraction of the sum of squares, in (0, 1).
    """
    squares = jnp.asarray(values) ** 2
    cumulative = jnp.cumsum(squares, axis=-1) / jnp.sum(squares, axis=-1, keepdims=True)
    return jnp.sum(cumulative < energy, axis=-1) + 1


def contraction(
    encode: Callable[[Any], Any],
    x: Float[Array, 'n d'],
    key: Key[Array, ''],
    radii: Real[ArrayLike, ' m'],
) -> Float[Array, ' m']:
    """Contraction ratio |f(x + r u) - f(x)| / r for a random direction u, averaged over x.

    Args:
      encode: [d] -> [k].
      x: Examples.
      key: Random key of the directions, one direction for each example.
      radii: Radii r > 0, in the unit of x.

    Returns:
      One ratio for each radius.

    References:
      Rifai et al. 2011, section 5.3 and figure 2 (there distances of pairs on a sphere).
    """
    direction = jax.random.normal(key, x.shape, x.dtype)
    direction = direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
    encode_all = jax.vmap(encode)
    codes = encode_all(x)

    def ratio(radius):
        moved = encode_all(x + radius * direction)
        return jnp.mean(jnp.linalg.norm(moved - codes, axis=1)) / radius

    return jax.lax.map(ratio, jnp.asarray(radii, x.dtype))


def saturated(
    code: Float[Array, '*batch'], low: Real[ArrayLike, ''] = 0.05, high: Real[ArrayLike, ''] = 0.95
) -> Float[Array, '']:
    """Fraction of logistic units below low or above high, where their slope nearly vanishes."""
    return jnp.mean((code < low) | (code > high), dtype=code.dtype)


class Sensitivity(NamedTuple):
    """Sensitivity of an encoder of logistic units to changes of its input, mean over examples.

    Attributes:
      singular_values: Singular values of the Jacobian, descending.
      ratios: (radii, contraction ratio at each).
      metrics: `effective_rank` (90 % energy), `contraction_ratio` at radius 1, `saturated`.
    """

    singular_values: Float[np.ndarray, ' m']
    ratios: tuple[Float[np.ndarray, ' r'], Float[Array, ' r']]
    metrics: dict[str, Any]


def sensitivity(
    encode: Callable[[Any], Any],
    x: Float[Array, 'n d'],
    *,
    seed: int = 0,
    num_examples: int = 50,
    radii: Float[np.ndarray, ' r'] = RADII,
) -> Sensitivity:
    """Compute all measures of this module for one encoder.

    Args:
      encode: [..., d] -> [..., k], logistic units.
      x: Examples, all of which count for `saturated`.
      seed: Seed of the directions of `contraction`.
      num_examples: Number of examples, the first ones, for measures that need derivatives or neighborhoods.
      radii: As in `contraction`, around 1.
    """
    few = x[:num_examples]
    spectra = jax.jit(lambda x: singular_values(encode, x))(few)
    spectrum, ratio = (
        np.asarray(spectra).mean(0),
        contraction(encode, few, jax.random.key(seed), radii),
    )
    metrics = {
        'effective_rank': effective_rank(spectrum),
        'contraction_ratio': np.interp(1.0, radii, ratio),
        'saturated': saturated(encode(x)),
    }
    return Sensitivity(spectrum, (radii, ratio), metrics)


def _jacobian(encode, x):
    """df/dx [n, k, d] by min(d, k) products: forward where the input is narrower, else backward."""
    code = jax.eval_shape(encode, x[0])
    derivative = jax.jacfwd if x.shape[1] <= code.shape[0] else jax.jacrev
    return jax.vmap(derivative(encode))(x)
