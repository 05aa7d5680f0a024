"""Best stimuli of units: tuning curves around them, and images along paths from them."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Real
from matplotlib.figure import Figure

from lecture4.figures import dictionary, images, lines

Curve = tuple[Real[np.ndarray | Array, '_m'], Real[np.ndarray | Array, '_m']]
Path = tuple[Real[np.ndarray | Array, '_m _h _w ...'], Real[np.ndarray | Array, '_m']]


def gallery(
    filters: Real[np.ndarray | Array, 'd k'],
    stimuli: Mapping[str, Real[np.ndarray | Array, '_m _h _w ...']],
    tunings: Mapping[str, Mapping[str, Curve]],
    paths: Mapping[str, Path],
) -> dict[str, tuple[Figure, str]]:
    """Figures of the units of a layered network: filters, best stimuli, invariances.

    Args:
      filters: Filters of the first layer, square, in columns.
      stimuli: Kind of unit -> best stimuli, signed images; equally many are drawn of each kind.
      tunings: As in `tuning_curves`.
      paths: As in `along_paths`, of a pooled unit of the first layer.

    Returns:
      Name -> (figure, caption): `filters`, `stimuli`, `tuning`, `invariant_directions`.
    """
    shape, n = (math.isqrt(len(filters)),) * 2, min(map(len, stimuli.values()))
    best = {kind: images.around_gray(x[:n]) for kind, x in stimuli.items()}
    return {
        'filters': (
            dictionary.atoms(filters, shape, n=160, columns=16),
            'Filters of the first layer, at every fourth position.',
        ),
        'stimuli': (
            images.rows(best),
            'Best stimuli of units at the central position, layer by layer.',
        ),
        'tuning': (
            tuning_curves(tunings),
            'Responses to the shifted, rotated and scaled best stimulus; means over units.',
        ),
        'invariant_directions': (
            along_paths(paths),
            'A pooled unit of the first layer: its best stimulus (center), and great circles along '
            'the directions in which its response is least and most curved, in its receptive '
            'field; below, the response relative to the best.',
        ),
    }


def tuning_curves(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Responses to transformed stimuli, one panel for each transform, one curve for each kind of unit.

    Args:
      curves: Kind of unit -> transform -> (amounts, responses relative to the best one).
    """
    panels = {
        name: {
            'curves': {kind: own[name] for kind, own in curves.items()},
            'xlabel': name,
            'ylabel': 'response / best response',
        }
        for name in next(iter(curves.values()))
    }
    return lines.panels(panels, columns=3)


def along_paths(stimuli: Mapping[str, Path]) -> Figure:
    """One row of stimuli for each path, with the response in percent of the best one under each.

    Args:
      stimuli: Name -> (signed images, responses relative to the best one).
    """
    return images.rows(
        {name: images.around_gray(x) for name, (x, _) in stimuli.items()},
        notes={name: [f'{v:.0%}' for v in values] for name, (_, values) in stimuli.items()},
    )
