"""Codes of predictive sparse decomposition compared with the exact minimum and with sparse coding."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lecture4.autoencoder import psd
from lecture4.features import timing


def compare_codes(
    methods: Mapping[str, Callable[[psd.Params, Any], Any]],
    params: psd.Params,
    x: Float[Array, 'n d'],
    minimum: str,
    **terms: Any,
) -> list[dict[str, Any]]:
    """Energy, objective of sparse coding, signal to noise, density and time of several encoders.

    Args:
      methods: Name -> (params, x) -> codes [n, k], traceable by jax.jit.
      params: Atoms and encoder.
      x: Signals.
      minimum: The method whose codes minimize the energy.
      **terms: `l1_penalty`, `coupling` and `activation`, as `psd.energy` takes them.

    Returns:
      A record per method: `codes` (its name), `energy`, the mean over signals; `excess`, relative to
      the energy of `minimum`; `lasso_excess`, that of the energy without the coupling term over the
      least of all methods; `snr` of D h in dB; `density`, the fraction of non-zero coefficients;
      `time_per_patch` in microseconds, median of 3 in turns.
    """
    codes = {name: jax.jit(encode)(params, x) for name, encode in methods.items()}
    seconds = timing.median_times(methods, (params, x), num_repeats=3)
    energy = {name: float(psd.energy(params, x, h, **terms).mean()) for name, h in codes.items()}
    free = {**terms, 'coupling': 0.0}
    lasso = {name: float(psd.energy(params, x, h, **free).mean()) for name, h in codes.items()}
    return [
        {
            'codes': name,
            'energy': energy[name],
            'excess': energy[name] / energy[minimum] - 1,
            'lasso_excess': lasso[name] / min(lasso.values()) - 1,
            'snr': 10 * np.log10(float(jnp.sum(x * x) / jnp.sum((x - h @ params.atoms.T) ** 2))),
            'density': float(jnp.mean(h != 0, dtype=x.dtype)),
            'time_per_patch': 1e6 * seconds[name] / len(x),
        }
        for name, h in codes.items()
    ]


def excess_by_steps(
    params: psd.Params,
    x: Float[Array, 'n d'],
    num_steps: Sequence[int],
    minimum: float,
    **terms: Any,
) -> dict[str, Float[np.ndarray, ' m']]:
    """Relative excess of the mean energy over its minimum by number of proximal gradient steps.

    Args:
      params: Atoms and encoder.
      x: Signals.
      num_steps: Numbers of steps, each nonnegative.
      minimum: The least mean energy.
      **terms: `l1_penalty`, `coupling` and `activation`, as `psd.energy` takes them.

    Returns:
      {'from the prediction' or 'from zero': excess for each number of steps}.
    """

    @functools.partial(jax.jit, static_argnames='n_steps')
    def energy(params, start, n_steps):
        h = psd.infer(params, x, start=start, n_steps=n_steps, **terms)
        return jnp.mean(psd.energy(params, x, h, **terms))

    prediction = psd.encode(params, x, terms['activation'])
    starts = {'from the prediction': prediction, 'from zero': jnp.zeros_like(prediction)}
    return {
        name: np.array([float(energy(params, start, n)) / minimum - 1 for n in num_steps])
        for name, start in starts.items()
    }
