"""The codes that reconstruct a signal in the plane exactly from three atoms: a line, and the choices of penalties."""

import numpy as np
from jaxtyping import Real
from matplotlib.figure import Figure

from lecture4.figures import style


@style.context()
def solution_line(
    D: Real[np.ndarray, '2 3'],
    x: Real[np.ndarray, ' 2'],
    start: Real[np.ndarray, ' 3'],
    direction: Real[np.ndarray, ' 3'],
    *,
    extent: float = 2.0,
) -> Figure:
    """Three atoms and a signal; the coefficients and the norms of its exact codes along the null space.

    Args:
      D: Atoms in columns.
      x: The signal.
      start: The exact code of smallest L2 norm.
      direction: Unit vector of the null space.
      extent: Codes start + t direction are drawn for |t| <= extent.
    """
    t = np.linspace(-extent, extent, 801)
    codes = start[None] + t[:, None] * direction[None]
    fig = style.figure(11, 3.4, layout='constrained')
    plane, coefficients, norms = fig.subplots(1, 3)
    for j, atom in enumerate(D.T):
        arrow = {'arrowstyle': '->', 'color': style.COLORS[j]}
        plane.annotate('', xy=atom, xytext=(0, 0), arrowprops=arrow)
        plane.text(*(1.08 * atom), f'd{j + 1}', color=style.COLORS[j])
    plane.scatter(*x, color=style.INK, zorder=3)
    plane.text(x[0], x[1] + 0.06, 'x')
    span = 1.25 * max(np.abs(D).max(), np.abs(x).max())
    plane.set(xlim=(-span, span), ylim=(-span, span), aspect='equal')
    plane.set_title('three atoms and a signal in the plane')
    for j, values in enumerate(codes.T):
        coefficients.plot(t, values, color=style.COLORS[j], label=f'a{j + 1}')
    coefficients.set_title('coefficients of all exact codes')
    l1 = np.abs(codes).sum(1)
    norms.plot(t, l1, label='L1 norm', color=style.COLORS[3])
    norms.plot(t, np.linalg.norm(codes, axis=1), label='L2 norm', color=style.COLORS[4])
    best = t[l1.argmin()]
    for axes in (coefficients, norms):
        axes.axvline(0, color=style.COLORS[4], linestyle=':', linewidth=1)
        axes.axvline(best, color=style.COLORS[3], linestyle=':', linewidth=1)
        axes.set_xlabel('position along the null space')
        axes.legend()
    norms.set_ylim(0, None)
    norms.set_title('norms: L1 is smallest\nwhere a coefficient is 0')
    return fig
