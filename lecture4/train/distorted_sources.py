"""Shared parts of the experiments on distorted images: options of the source, and its batches."""

import dataclasses

from lecture4.data import batches
from lecture4.data.images import distort, distorted
from lecture4.train.fields import AtLeast0, FractionBelow1
from lecture4.train.image_options import ImageOptions
from lecture4.train.task import Data, Spec


@dataclasses.dataclass(frozen=True)
class Distorted(ImageOptions):
    """Options of an experiment on labeled images that are distorted at random in every batch."""

    # Source of labeled images: digits, mnist, cluttered_mnist, gtsrb, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Height and width to resize the images to before they are distorted; 0 keeps their size.
    image_size: AtLeast0 = 0
    # Distortion: none, R (rotation), RTS (rotation, scale, translation), P (projective), E (elastic), TC (clutter).
    distortion: distort.Distortion = 'RTS'
    # Classify pairs of digits, each in channels of its own, by their sum (MNIST addition).
    addition: bool = False
    # Fraction of the training images to test on in place of the test split.
    held_out: FractionBelow1 = 0.0
    # Number of training images, each distorted once; 0 takes all and distorts them again in every batch.
    num_train: AtLeast0 = 0
    # Number of test images, the first ones; 0 takes all.
    num_test: AtLeast0 = 0


def distorted_data(config: Distorted, *, num_posed: int = 200) -> Data:
    """Batches {'images' [b, s, s, c], 'labels' [b]} of the config's source, distorted by (seed, n).

    Args:
      config: Options.
      num_posed: Number of images in the report data.

    Returns:
      Data whose spec holds 'digit_size', and 'examples' of the test set with their 'labels'; whose evaluation is the
      distorted test images in chunks; and whose report_data is (undistorted test images, labels).

    Raises:
      DataError: As in `sources.load`.
    """
    fields = ('addition', 'image_size', 'num_train', 'num_test', 'seed', 'held_out')
    options = {name: getattr(config, name) for name in fields} | config.data_kwargs()
    task = distorted.load(config.source, config.distortion, **options)
    n_train = len(task.arrays['x'])
    return Data(
        lambda n: batches.indices(config.seed, n, n_train, config.batch_size),
        device_arrays=task.arrays,
        prepare=task.prepare,
        evaluation=task.evaluation,
        spec=Spec(task.shape, task.class_names, task.constants),
        report_data=(task.test_images[:num_posed], task.test_labels[:num_posed]),
    )
