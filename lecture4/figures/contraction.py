"""What an encoder answers to: the spectrum of its Jacobian, contraction, saturation."""

import numpy as np

from lecture4.figures import lines

N_BINS = 25


def three_views(singular, ratios, codes):
    """Encoders of logistic units side by side, as Rifai et al. 2011 show them.

    singular  {name: [m]}, singular values of the Jacobian, descending, averaged over examples.
    ratios    {name: (radii [r], |f(x + r u) - f(x)| / r [r])}.
    codes     {name: activations in [0, 1], of any shape}, of which a histogram is drawn.
    """
    spectra, densities = {}, {}
    for name, values in singular.items():
        values = np.asarray(values, float)
        spectra[name] = np.arange(1, len(values) + 1), np.maximum(values, 1e-6)
    for name, code in codes.items():
        counts, edges = np.histogram(code, N_BINS, (0, 1), density=True)
        densities[name] = (edges[1:] + edges[:-1]) / 2, np.maximum(counts, 1e-3)
    panels = {
        'Singular values of the Jacobian': {
            'curves': spectra, 'xlabel': 'rank', 'ylabel': 'mean over examples', 'yscale': 'log',
        },
        'Contraction of a neighbourhood': {
            'curves': ratios, 'xlabel': 'radius', 'ylabel': '|f(x + r u) - f(x)| / r',
            'xscale': 'log', 'yscale': 'log',
        },
        'Activations of the units': {
            'curves': densities, 'xlabel': 'h', 'ylabel': 'density', 'yscale': 'log',
        },
    }  # fmt: skip
    return lines.panels(panels, columns=3)
