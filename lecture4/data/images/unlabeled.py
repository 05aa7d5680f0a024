"""Unlabeled signals [n, d] of a source: random patches, or whole images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from lecture4.data.images import crops
from lecture4.data.images.loading import load_images


def load_signals(
    source: str,
    num_signals: int,
    *,
    patch_size: int = 0,
    image_size: int = 0,
    seed: int = 0,
    classes: Sequence[int] = (),
    grayscale: bool = True,
    **data_kwargs: Any,
) -> Float32[np.ndarray, 'n d']:
    """Random patches, or whole images as vectors, in [0, 1].

    Args:
      source: As in `sources.load`.
      num_signals: Number of patches, or largest number of whole images.
      patch_size: Height and width of the patches; 0 takes whole images.
      image_size: Height and width to resize whole images to. Dark strokes on a light background are then inverted to
        light on dark, as digits usually are.
      seed: Seed of the random choice.
      classes: As in `load_images`.
      grayscale: As in `load_images`; whole images are always grayscale.
      **data_kwargs: Options of `load_images`.

    Returns:
      Signals [n, d] with d = patch_size * patch_size * c, or image_size * image_size.

    Raises:
      DataError: As in `load_images`, `crops.sample_patches` and `crops.resize`.
    """
    grayscale = grayscale or not patch_size
    images, _, _ = load_images(source, classes=classes, grayscale=grayscale, **data_kwargs)
    if patch_size:
        return crops.sample_patches(images, num_signals, patch_size, seed)
    rows = np.random.default_rng(seed).permutation(len(images))[:num_signals]
    signals = crops.resize([images[i] for i in rows], image_size).reshape(len(rows), -1)
    return 1 - signals if signals.mean() > 0.5 else signals
