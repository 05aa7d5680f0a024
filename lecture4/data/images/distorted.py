"""A labeled task of distorted images: training images in every batch, or once as the test images are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from lecture4.data import batches
from lecture4.data.images import distort
from lecture4.data.images.task import load as load_task

TEST_SEED = 2**31 - 1  # seed of the distortion of the test set, for all seeds of training
EVAL_BATCH, NUM_EXAMPLES = 500, 8
DIGIT_SIZE = 28  # size of MNIST's digits; larger images contain more than one digit


class DistortedTask(NamedTuple):
    """Training images, and the function that makes distorted batches of them.

    Attributes:
      arrays: {'x' [n, h, w, c], 'labels' [n]}: images as stored; with `num_train`, distorted, in uint8.
      prepare: (arrays, rows, key) -> {'images' [b, s, s, c], 'labels' [b]}, pure.
      evaluation: Distorted test images in chunks: {'images' [m, b, s, s, c], 'labels', 'mask'}.
      test_images: Undistorted test images in [0, 1].
      test_labels: Labels of the test images.
      shape: (s, s, c) of the distorted images.
      class_names: Names of the classes.
      constants: Further values for networks and figures: 'digit_size', and 'examples' with 'labels' of the test
        set.
    """

    arrays: dict[str, np.ndarray]
    prepare: Callable[[Any, Any, Any], dict[str, Array]]
    evaluation: dict[str, np.ndarray]
    test_images: Float[np.ndarray, 'm h w c']
    test_labels: np.ndarray
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    constants: dict[str, Any]


def to_unit(x: Shaped[Array | np.ndarray, '*shape']) -> Float[Array, '*shape']:
    """Images in [0, 1]: uint8 images are divided by 255."""
    x = jnp.asarray(x)
    return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def load(
    source: str,
    distortion: distort.Distortion,
    *,
    addition: bool = False,
    image_size: int = 0,
    num_train: int = 0,
    num_test: int = 0,
    seed: int = 0,
    **data_kwargs: Any,
) -> DistortedTask:
    """A labeled source of square images, distorted.

    Args:
      source: As in `sources.load`.
      distortion: As in `distort.distort`.
      addition: Whether pairs are classified by their sum, see `distort.digit_sums`.
      image_size: Height and width to resize images to first; 0 keeps their size.
      num_train: Number of training images, chosen at random and distorted once, as if no others existed; 0 takes all,
        and distorts them again in every batch.
      num_test: Number of test images, the first ones; 0 takes all.
      seed: Seed of the random choice and of distortions made once.
      **data_kwargs: Options of `images.load`.

    Raises:
      DataError: As in `images.load`.
      ValueError: The images are not square, or there are fewer than `num_train`.
    """
    task = load_task(source, image_size=image_size, pixels='stored', seed=seed, **data_kwargs)
    available = len(task.train_images)
    if num_train > available:
        raise ValueError(
            f'{source} has {available} training images, got {num_train} to distort; use at most {available}'
        )
    rows = np.random.default_rng(seed).permutation(available)[: num_train or None]
    _, size, _, channels = task.train_images.shape
    canvas = distort.canvas_size(distortion, size)

    def make(key, x, labels):
        if addition:
            return distort.digit_sums(key, to_unit(x), labels, distortion)
        return distort.distort(key, to_unit(x), distortion), labels

    def once(seed, arrays):
        """All images, distorted in chunks: {'images' [m, b, s, s, c], 'labels', 'mask'}."""
        chunks = batches.chunks(arrays, EVAL_BATCH)
        keys = jax.random.split(jax.random.key(seed), len(chunks['x']))
        run = jax.jit(make)
        pairs = [run(*chunk) for chunk in zip(keys, chunks['x'], chunks['labels'], strict=True)]
        x, labels = (np.stack(part) for part in zip(*pairs, strict=True))
        return {'images': x, 'labels': labels, 'mask': chunks['mask']}

    def prepare(arrays, rows, key):
        x, labels = arrays['x'][rows], arrays['labels'][rows]
        if num_train:
            return {'images': to_unit(x), 'labels': labels}
        x, labels = make(key, x, labels)
        return {'images': x, 'labels': labels}

    train = {'x': task.train_images[rows], 'labels': task.train_labels[rows]}
    if num_train:
        made = once(seed, train)
        kept = made['mask'].astype(bool)
        stored = np.round(255 * made['images'][kept]).astype(np.uint8)
        train = {'x': stored, 'labels': made['labels'][kept]}
    n = num_test or len(task.test_images)
    test = {'x': task.test_images[:n], 'labels': task.test_labels[:n]}
    evaluation = once(TEST_SEED, test)
    return DistortedTask(
        train,
        prepare,
        evaluation,
        np.asarray(to_unit(test['x'])),
        test['labels'],
        (canvas, canvas, channels * (2 if addition else 1)),
        tuple(map(str, range(2 * len(task.class_names) - 1))) if addition else task.class_names,
        {
            'digit_size': min(size, DIGIT_SIZE),
            'examples': evaluation['images'][0, :NUM_EXAMPLES],
            'labels': evaluation['labels'][0, :NUM_EXAMPLES],
        },
    )
