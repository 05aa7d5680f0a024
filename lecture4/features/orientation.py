"""How oriented filters are: where the energy of their spectra lies."""

import numpy as np

SIZE = 32  # of the padded spectrum
N_ANGLES = 16  # wedges that are tried, a half turn in all


def oriented_share(filters):
    """The largest share of each filter's spectral energy in a wedge of 45 degrees.

    An edge or a grating has most of its energy across its orientation; a filter without one has a
    quarter in every wedge. Frequencies below half a cycle a filter, which have no direction, are
    left out.

    Shapes  filters [n, s, s], s <= 32, on the host. Returns [n], between 1/4 and 1.
    Errors  ValueError for filters that are not square or larger.
    """
    filters = np.asarray(filters, float)
    if filters.ndim != 3 or filters.shape[1] != filters.shape[2] or filters.shape[1] > SIZE:
        raise ValueError(
            f'filters have shape {filters.shape}; [n, s, s] with s <= {SIZE} is wanted'
        )
    energy = np.abs(np.fft.fft2(filters, (SIZE, SIZE), axes=(1, 2))) ** 2
    f = np.fft.fftfreq(SIZE)
    angle = np.arctan2(f[:, None], f[None, :]) % np.pi
    energy[:, np.hypot(f[:, None], f[None, :]) < 1 / (2 * filters.shape[1])] = 0
    wedges = [
        ((angle - centre + np.pi / 8) % np.pi) < np.pi / 4
        for centre in np.linspace(0, np.pi, N_ANGLES, endpoint=False)
    ]
    shares = np.stack([energy[:, wedge].sum(1) for wedge in wedges])
    total = energy.sum((1, 2))
    return shares.max(0) / np.where(total > 0, total, 1)
