"""A task with few labels, and other images that may help: the data that learning settings differ in."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lecture4.data.images.task import ImageTask, load, subsample_test
from lecture4.data.images.unlabeled import load_signals


class RelatedSets(NamedTuple):
    """Images of a task and related images, all of one size, grayscale.

    Attributes:
      task: The task itself.
      others: Labeled images of other classes of the same source.
      unlabeled: Unlabeled images [n, h, w, 1] of other things.
    """

    task: ImageTask
    others: ImageTask
    unlabeled: Float[np.ndarray, 'n h w 1']


def load_related(
    source: str,
    *,
    classes: Sequence[int],
    other_classes: Sequence[int],
    unlabeled: str = 'others',
    candidates_per_class: int = 0,
    num_eval: int = 0,
    num_unlabeled: int = 20_000,
    image_size: int = 0,
    held_out: float = 0.0,
    seed: int = 0,
    **data_kwargs: Any,
) -> RelatedSets:
    """A task of some classes of a source, its other classes, and unlabeled images of any source.

    Args:
      source: Source of labeled square images, as in `load`.
      classes: Classes of the task.
      other_classes: Other classes of the related task.
      unlabeled: Source of unlabeled images, as in `load_signals`; 'others': the images of other_classes.
      candidates_per_class: Number of training images per class of the task, as in `load`.
      num_eval: Number of test images of the task, chosen at random; 0 takes all.
      num_unlabeled: Number of images of the source `unlabeled`.
      image_size: Height and width to which labeled images are resized, as in `load`; 0 keeps their size.
      held_out: Fraction of the labeled training images to test on in place of the test split.
      seed: Seed of every random choice.
      **data_kwargs: As in `load`.

    Raises:
      ValueError: As in `load` and `load_signals`.
    """
    options = {'seed': seed, **data_kwargs}
    labeled = {'image_size': image_size, 'held_out': held_out, **options}
    task = load(source, classes=classes, candidates_per_class=candidates_per_class, **labeled)
    task = subsample_test(task, num_eval, seed)
    others = load(source, classes=other_classes, **labeled)
    images = others.train_images
    if unlabeled != 'others':
        size = task.train_images.shape[1]
        images = load_signals(unlabeled, num_unlabeled, image_size=size, **options)
        images = images.reshape(-1, size, size, 1)
    return RelatedSets(task, others, images)
