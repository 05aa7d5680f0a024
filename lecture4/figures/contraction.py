"""The sensitivity of an encoder: spectrum of its Jacobian, contraction, saturation."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Real
from matplotlib.figure import Figure

from lecture4.figures import lines

CAPTION = (
    'A contractive code varies along few directions (left), and little at small and medium radii (center), as most '
    'of its units are saturated (right).'
)
N_BINS = 25


def jacobian_panels(
    singular_values: Mapping[str, Real[np.ndarray | Array, 'm']],
    contraction_ratios: Mapping[
        str, tuple[Real[np.ndarray | Array, 'r'], Real[np.ndarray | Array, 'r']]
    ],
    activations: Mapping[str, Real[np.ndarray | Array, '...']],
) -> Figure:
    """Encoders of logistic units compared in three panels, as in Rifai et al. 2011.

    Args:
      singular_values: Name -> singular values of the Jacobian, descending, averaged over examples.
      contraction_ratios: Name -> (radii r, |f(x + r u) - f(x)| / r).
      activations: Name -> activations in [0, 1], of any shape, for a histogram.
    """
    spectra, densities = {}, {}
    for name, values in singular_values.items():
        values = np.asarray(values, float)
        spectra[name] = np.arange(1, len(values) + 1), np.maximum(values, 1e-6)
    for name, values in activations.items():
        counts, edges = np.histogram(np.asarray(values), N_BINS, (0, 1), density=True)
        densities[name] = (edges[1:] + edges[:-1]) / 2, np.maximum(counts, 1e-3)
    panels = {
        'Singular values of the Jacobian': {
            'curves': spectra,
            'xlabel': 'rank',
            'ylabel': 'mean over examples',
            'yscale': 'log',
        },
        'Contraction of a neighborhood': {
            'curves': contraction_ratios,
            'xlabel': 'radius',
            'ylabel': '|f(x + r u) - f(x)| / r',
            'xscale': 'log',
            'yscale': 'log',
        },
        'Activations of the units': {
            'curves': densities,
            'xlabel': 'h',
            'ylabel': 'density',
            'yscale': 'log',
        },
    }
    return lines.panels(panels, columns=3)
