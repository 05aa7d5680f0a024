"""Accuracy of networks on images in given poses, and the rotations that their spatial transformers invert."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from lecture4.ops import grids

_angle = jax.jit(grids.rotation_angle)
Series = Mapping[str, tuple[Float[np.ndarray, ' k'], Sequence[Shaped[Any, 'n h w c']]]]


def accuracies(
    networks: Mapping[str, Callable[[Any], tuple[Any, Mapping[str, Any]]]],
    series: Series,
    labels: Int[np.ndarray, ' n'],
) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Accuracies on the same images in every pose.

    Args:
      networks: {name: images -> (logits, activations)}.
      series: {property of the pose: (its values, the images in each of these poses)}.
      labels: Classes of the images.

    Returns:
      {property of the pose: (its values, {name: accuracies [k] as fractions})}.
    """
    return {
        what: (
            values,
            {
                name: np.array([np.mean(np.argmax(run(x)[0], axis=1) == labels) for x in posed])
                for name, run in networks.items()
            },
        )
        for what, (values, posed) in series.items()
    }


def measure(
    networks: Mapping[str, Callable[[Any], tuple[Any, Mapping[str, Any]]]],
    kinds: Mapping[str, str],
    series: Series,
    labels: Int[np.ndarray, ' n'],
) -> tuple[
    dict[str, tuple[np.ndarray, dict[str, np.ndarray]]], dict[str, Float[np.ndarray, 'n k']]
]:
    """`accuracies` of all networks, and `rotations` of those with affine transformers at their input.

    Args:
      networks: As in `accuracies`.
      kinds: {name: kind of the transformers} of the networks that have some.
      series: As in `accuracies`; 'rotation' in degrees.
      labels: As in `accuracies`.
    """
    affine = [name for name, kind in kinds.items() if kind == 'affine']
    turns = {name: rotations(networks[name], *series['rotation']) for name in affine}
    return accuracies(networks, series, labels), turns


def rotations(
    run: Callable[[Any], tuple[Any, Mapping[str, Any]]],
    angles: Float[np.ndarray, ' k'],
    posed: Sequence[Shaped[Any, 'n h w c']],
    theta: str = 'input/theta',
) -> Float[np.ndarray, 'n k']:
    """Rotation of the region that an affine transformer samples, by rotation of its input: equal angles invert it.

    Args:
      run: Images -> (logits, activations).
      angles: Rotations of the input, counterclockwise, degrees; one of them 0.
      posed: The same images, rotated by each of the angles.
      theta: Name of the affine parameters [n, count, 6] among the activations; the first is measured.

    Returns:
      Counterclockwise rotation of the sampled region relative to that of the unrotated image, degrees in
      [-180, 180), for each image and angle.
    """
    turned = np.stack([-np.asarray(_angle(run(x)[1][theta][:, 0])) for x in posed], axis=1)
    turned = np.rad2deg(turned)
    change = turned - turned[:, [int(np.argmin(np.abs(angles)))]]
    return (change + 180) % 360 - 180
