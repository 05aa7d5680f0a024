"""Codes of predictive sparse decomposition compared with the exact minimum and with sparse coding."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, ScalarLike

from lecture4.autoencoder import psd
from lecture4.sparse import solvers

# Caption of a table of `compare_codes`, with fields l1_penalty, coupling and n_steps.
CAPTION = (
    'Energy: ||x - D h||^2 + {l1_penalty} |h|_1 + {coupling} ||h - f(x)||^2, its excess over the exact '
    'minimum; lasso: the energy without the last term, its excess over the least value; inferred: '
    '{n_steps} steps from the prediction. Signal-to-noise ratio of D h; times: median of 3, alternating.'
)


def encoders(
    *,
    l1_penalty: ScalarLike,
    coupling: ScalarLike,
    activation: Callable,
    n_steps: int,
    tolerance: float = 1e-4,
    tile: int = 128,
) -> dict[str, Callable[[psd.Params, Any], Any]]:
    """Methods that compute codes of signals: predicted, inferred, and exact codes.

    Args:
      l1_penalty: As in `psd.energy`.
      coupling: As in `psd.energy`.
      activation: As in `psd.energy`.
      n_steps: Number of proximal gradient steps of 'inferred'.
      tolerance: Relative duality gap of the exact codes.
      tile: Number of signals that exact solvers code at a time.

    Returns:
      {method: (params, signals [n, d]) -> codes [n, k]}, fastest first. For exact codes the objective is half the
      energy, and the penalty weight half of l1_penalty.
    """
    terms = {'l1_penalty': l1_penalty, 'coupling': coupling, 'activation': activation}
    exact = {'tolerance': tolerance, 'tile': tile}

    def minimize(params, x):
        return solvers.fista(*psd.as_lasso(params, x, **terms), **exact).codes

    def sparse_coding(params, x, solver):
        return solver(x, params.atoms, l1_penalty / 2, **exact).codes

    return {
        'encoder': lambda params, x: psd.encode(params, x, activation),
        'inferred': lambda params, x: psd.infer(params, x, n_steps=n_steps, **terms),
        'energy minimum': minimize,
        'sparse coding, ADMM': functools.partial(sparse_coding, solver=solvers.admm),
        'sparse coding, coordinate descent': functools.partial(
            sparse_coding, solver=solvers.coordinate_descent
        ),
    }


def compare_codes(
    methods: Mapping[str, Callable[[psd.Params, Any], Any]],
    params: psd.Params,
    x: Float[Array, 'n d'],
    minimum: str,
    seconds: Mapping[str, float],
    **terms: Any,
) -> list[dict[str, Any]]:
    """Energy, objective of sparse coding, signal-to-noise ratio and density of several encoders.

    Args:
      methods: Name -> (params, x) -> codes [n, k], traceable by jax.jit.
      params: Atoms and encoder.
      x: Signals.
      minimum: Name of the method whose codes minimize the energy.
      seconds: Name -> running time of each method on all signals.
      **terms: `l1_penalty`, `coupling` and `activation`, as `psd.energy` takes them.

    Returns:
      A record per method: `codes` (its name), `energy`, the mean over signals; `excess`, relative to
      the energy of `minimum`; `lasso_excess`, the excess of the energy without the coupling term over the smallest
      among all methods; `snr` of D h in dB; `density`, the fraction of non-zero coefficients; `time_per_patch` in
      microseconds.
    """

    @jax.jit
    def measure(params, x, h):
        energies = {
            'energy': psd.energy(params, x, h, **terms).mean(),
            'lasso': psd.energy(params, x, h, **{**terms, 'coupling': 0.0}).mean(),
        }
        ratio = jnp.sum(x * x) / jnp.sum((x - h @ params.atoms.T) ** 2)
        return energies, ratio, jnp.mean(h != 0, dtype=x.dtype)

    measured = {
        name: jax.device_get(measure(params, x, jax.jit(encode)(params, x)))
        for name, encode in methods.items()
    }
    lowest = {
        'energy': float(measured[minimum][0]['energy']),
        'lasso': min(float(energies['lasso']) for energies, _, _ in measured.values()),
    }
    return [
        {
            'codes': name,
            'energy': float(energies['energy']),
            'excess': float(energies['energy']) / lowest['energy'] - 1,
            'lasso_excess': float(energies['lasso']) / lowest['lasso'] - 1,
            'snr': 10 * np.log10(float(ratio)),
            'density': float(density),
            'time_per_patch': 1e6 * seconds[name] / len(x),
        }
        for name, (energies, ratio, density) in measured.items()
    ]


def excess_by_steps(
    params: psd.Params,
    x: Float[Array, 'n d'],
    num_steps: Sequence[int],
    minimum: float,
    **terms: Any,
) -> dict[str, tuple[Int[np.ndarray, ' m'], Float[np.ndarray, ' m']]]:
    """Relative excess of the mean energy over its minimum by number of proximal gradient steps.

    Args:
      params: Atoms and encoder.
      x: Signals.
      num_steps: Numbers of steps, each nonnegative.
      minimum: Minimum of the mean energy.
      **terms: `l1_penalty`, `coupling` and `activation`, as `psd.energy` takes them.

    Returns:
      {'from the prediction' or 'from zero': (numbers of steps, excess)}.
    """

    @functools.partial(jax.jit, static_argnames='n_steps')
    def energy(params, start, n_steps):
        h = psd.infer(params, x, start=start, n_steps=n_steps, **terms)
        return jnp.mean(psd.energy(params, x, h, **terms))

    prediction = psd.encode(params, x, terms['activation'])
    starts = {'from the prediction': prediction, 'from zero': jnp.zeros_like(prediction)}
    steps = np.array(num_steps)
    return {
        name: (steps, np.array([float(energy(params, start, n)) / minimum - 1 for n in num_steps]))
        for name, start in starts.items()
    }
