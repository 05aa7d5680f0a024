"""How much a network's features change under small translations of an image."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, Shaped

MOVEMENT = 'Movement: distance of the features, relative to the distance to another image.'


def translations(x: Num[Array | np.ndarray, '...'], pixels: int) -> Shaped[Array, '4 n h w c']:
    """Images translated right, down, left and up by `pixels`, zeros entering at the border.

    Args:
      x: [n, h, w, c].
      pixels: 0 to less than h and w.

    Raises:
      ValueError: `pixels` out of its domain, or x of another rank.
    """
    x = jnp.asarray(x)
    if x.ndim != 4 or not 0 <= pixels < min(x.shape[1:3]):
        raise ValueError(
            f'a translation of {pixels} pixels does not fit x of shape {x.shape}; expected '
            '[n, h, w, c] and 0 to less than h and w'
        )
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    starts = ((pixels, 0), (0, pixels), (pixels, 2 * pixels), (2 * pixels, pixels))
    return jnp.stack([padded[:, top : top + h, left : left + w] for top, left in starts])


def relative_change(
    features: Num[Array | np.ndarray, 'n *shape'], original: Num[Array | np.ndarray, 'n *shape']
) -> float:
    """Distance of features from the original ones, in units of the distance between two images.

    The mean distance |features_i - original_i|, divided by the mean of |original_i - original_j| over all images i !=
    j. It does not depend on the scale of the features, so networks can be compared.

    Args:
      features: Features of the changed images.
      original: Features of the same images, unchanged, in the same order; n >= 2, and not all features
        equal; otherwise not-a-number or infinite.
    """
    features, original = (np.asarray(v, float).reshape(len(v), -1) for v in (features, original))
    change = np.linalg.norm(features - original, axis=1).mean()
    n = len(original)
    squares = (original**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * original @ original.T
    distances = np.sqrt(np.maximum(distances, 0))
    np.fill_diagonal(distances, 0)
    with np.errstate(divide='ignore', invalid='ignore'):
        return float(change / (distances.sum() / (n * (n - 1)) if n > 1 else np.nan))


def translation_records(
    run: Callable[[Any], tuple[Any, Any]],
    x: Num[Array | np.ndarray, 'n h w c'],
    labels: Num[Array | np.ndarray, 'n'],
    max_pixels: int,
) -> list[dict[str, float]]:
    """Movement of the features, and accuracy of the predictions, when images are translated.

    Args:
      run: Images -> (predicted classes [n], features [n, ...]); traceable. If the predictions are None, no accuracy
        is recorded.
      x: Images.
      labels: True classes.
      max_pixels: Largest translation.

    Returns:
      Records {'pixels', 'accuracy', 'movement'} for 0 .. max_pixels, means over the four directions; the movement
      is the `relative_change` of the features.
    """
    run = jax.jit(run)
    _, original = run(x)
    records = []
    for pixels in range(max_pixels + 1):
        views = [run(view) for view in translations(x, pixels)]
        record: dict[str, float] = {'pixels': pixels}
        if views[0][0] is not None:
            record['accuracy'] = float(np.mean([np.asarray(p) == labels for p, _ in views]))
        record['movement'] = float(np.mean([relative_change(f, original) for _, f in views]))
        records.append(record)
    return records


def compare_translations(
    runs: Mapping[str, Callable[[Any], tuple[Any, Any]]],
    x: Num[Array | np.ndarray, 'n h w c'],
    labels: Num[Array | np.ndarray, 'n'],
    max_pixels: int,
) -> list[dict[str, Any]]:
    """`translation_records` of several networks, and of the pixels themselves as their baseline.

    Args:
      runs: Name -> `run`, see `translation_records`.
      x: Images.
      labels: True classes.
      max_pixels: Largest translation.

    Returns:
      Records {'network', 'pixels', 'accuracy', 'movement'}, those of 'pixels' without accuracy.
    """

    def pixels(x):
        return None, x

    return [
        {'network': name, **record}
        for name, run in {**runs, 'pixels': pixels}.items()
        for record in translation_records(run, x, labels, max_pixels)
    ]


def moves_less(records: Sequence[Mapping[str, Any]], first: str, second: str) -> str:
    """A sentence: by which translations the features of one network move less than those of another.

    Args:
      records: As `compare_translations` returns them.
      first: Name of a network.
      second: Name of another network.
    """
    moved = {(r['network'], r['pixels']): r['movement'] for r in records}
    pixels = sorted(n for name, n in moved if name == first and n)
    less = [str(n) for n in pixels if moved[first, n] < moved[second, n]]
    return (
        f"Features of '{first}' move less than those of '{second}' in translations by "
        f'{", ".join(less) or "none"} of {", ".join(map(str, pixels))} pixels.'
    )
