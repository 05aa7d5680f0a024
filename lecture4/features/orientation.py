"""Orientation of filters: the distribution of their spectral energy over angles."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, Shaped

# Caption of a table of `median_oriented`.
CAPTION = (
    'Oriented: the largest fraction of the spectral energy of a filter in a wedge of 45 degrees, median over '
    'filters; 25 % without orientation.'
)
FFT_SIZE = 32  # size of the padded spectrum
N_ANGLES = 16  # number of wedges tried over half a turn


def oriented_fraction(filters: Shaped[Array | np.ndarray, '...']) -> Float[np.ndarray, ' n']:
    """The largest fraction of each filter's spectral energy within a wedge of 45 degrees.

    An edge or a grating has most of its energy across its orientation; an isotropic filter has a
    quarter in every wedge. Frequencies below half a cycle per filter, which have no direction, are
    left out.

    Args:
      filters: NumPy array [n, s, s] with s <= 32.

    Returns:
      Fractions between 1/4 and 1; 0 for a filter of zeros.

    Raises:
      ValueError: The filters are not square, or larger than 32.
    """
    filters = np.asarray(filters, float)
    if filters.ndim != 3 or filters.shape[1] != filters.shape[2] or filters.shape[1] > FFT_SIZE:
        raise ValueError(
            f'filters of shape {filters.shape}; expected [n, s, s] with s <= {FFT_SIZE}'
        )
    energy = np.abs(np.fft.fft2(filters, (FFT_SIZE, FFT_SIZE), axes=(1, 2))) ** 2
    f = np.fft.fftfreq(FFT_SIZE)
    angle = np.arctan2(f[:, None], f[None, :]) % np.pi
    energy[:, np.hypot(f[:, None], f[None, :]) < 1 / (2 * filters.shape[1])] = 0
    wedges = [
        ((angle - center + np.pi / 8) % np.pi) < np.pi / 4
        for center in np.linspace(0, np.pi, N_ANGLES, endpoint=False)
    ]
    in_wedge = np.stack([energy[:, wedge].sum(1) for wedge in wedges])
    total = energy.sum((1, 2))
    return in_wedge.max(0) / np.where(total > 0, total, 1)


def median_oriented(filters: Shaped[Array | np.ndarray, 'd k'], shape: Sequence[int]) -> float:
    """The median of `oriented_fraction` over filters in columns.

    Args:
      filters: Filters in columns.
      shape: (height, width) of one filter, or (height, width, 1).

    Raises:
      ValueError: As in `oriented_fraction`.
    """
    tiles = np.asarray(filters).T.reshape(-1, *shape[:2])
    return float(np.median(oriented_fraction(tiles)))
