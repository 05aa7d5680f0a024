"""Labeled images for a network: options shared by experiments, loading, and augmented batches."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from lecture4.data import batches, images
from lecture4.data.images import normalize, prefetch, transforms
from lecture4.train.config import UsageError
from lecture4.train.fields import AtLeast0, AtLeast1, Evaluation, FractionBelow1, NonNegative
from lecture4.train.image_options import ImageOptions
from lecture4.train.task import Data, Spec

Placement = Literal['devices', 'host', 'disk']


@dataclasses.dataclass(frozen=True)
class LabeledImages(ImageOptions):
    """Options of square images with labels, and of batches made of them."""

    # Source of labeled images: textures, digits, mnist, cifar10, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Height and width to which images (or their crops, with --split_crops_left_right) are cropped and resized; 0
    # keeps their size.
    image_size: AtLeast0 = 0
    # Train on crops of --image_size from the left half of each image and test on crops of the right half.
    split_crops_left_right: bool = False
    # Split of the source to test on.
    test_split: Evaluation[str] = 'test'
    # Fraction of the training images to test on in place of the test split.
    held_out: FractionBelow1 = 0.0
    # Where images are kept; disk (for a dir: source with --image_size) reads and resizes them per batch.
    data_placement: Placement = 'devices'
    # Sample classes equally often, by downsampling the frequent ones.
    class_balanced: bool = False
    # Height and width of the network's input; 0 takes that of the images.
    crop_size: AtLeast0 = 0
    # Crops in training: center (none), random (crop), random after padding (pad), random after resizing
    # within --jitter (jitter), Inception's random boxes (inception).
    augmentation: transforms.Kind = 'pad'
    # Padding with the mean color in pixels, with --augmentation pad.
    padding: AtLeast0 = 1
    # Smallest and largest length of the shorter side, with --augmentation jitter.
    jitter: tuple[AtLeast1, AtLeast1] = (256, 480)
    # Mirror images at random.
    flips: bool = False
    # Standard deviation of the noise along the principal colors; 0.1 in the papers.
    color_noise: NonNegative = 0.0
    # Largest relative change of contrast, brightness and saturation.
    color_jitter: FractionBelow1 = 0.0
    # Number of test images in evaluations during training.
    num_eval: Evaluation[AtLeast1] = 256


def load_labeled_images(config: LabeledImages) -> images.ImageTask:
    """The training and test images that a config names, as stored.

    Raises:
      DataError: As in `images.load`.
      UsageError: The images are not square.
    """
    size = {'crop_size' if config.split_crops_left_right else 'image_size': config.image_size}
    task = images.load(
        config.source,
        **size,
        pixels='stored',
        group_by_class=False,
        test_split=config.test_split,
        held_out=config.held_out,
        on_disk=config.data_placement == 'disk',
        seed=config.seed,
        **config.data_kwargs(),
    )
    height, width = task.train_images.shape[1:3]
    if height != width:
        raise UsageError(
            f'{config.source}: images of {height} x {width} are not square; make them square with '
            '--image_size'
        )
    return task


def labeled_image_data(
    config: LabeledImages,
    task: images.ImageTask,
    normalization: normalize.Normalization,
    **constants: Any,
) -> Data:
    """Augmented batches of a task's training images, and some of its test images for evaluations.

    Args:
      config: Config that says how batches are made.
      task: See `load_labeled_images`.
      normalization: Normalization of the network's inputs.
      **constants: Further constants of the spec.

    Returns:
      Data with batches {'images' [b, crop, crop, c], 'labels' [b]}; an evaluation of `num_eval` test images
      as stored, in chunks {'images' [m, b, h, w, c], 'labels' [m, b]}; the spec of the network's
      input, with the constants 'normalization' and 'image_shape' (of stored images); and the task as `report_data`.

    Raises:
      ValueError: The crop does not fit the images.
    """
    crop_size = config.crop_size or task.train_images.shape[1]
    augmentation = transforms.Augmentation(
        crop_size,
        config.augmentation,
        config.padding,
        config.jitter,
        config.flips,
        config.color_noise,
        config.color_jitter,
    )
    prepare = functools.partial(
        transforms.prepare, augmentation=augmentation, normalization=normalization
    )
    try:  # checks shapes only
        example = jax.eval_shape(prepare, jax.random.key(0), task.train_images[:1])
    except ValueError as error:
        raise ValueError(f'--crop_size {crop_size}: {error}') from None
    tested = {'images': task.test_images, 'labels': task.test_labels}
    return image_batches(
        task.train_images,
        task.train_labels,
        config.batch_size,
        prepare,
        seed=config.seed,
        data_placement=config.data_placement,
        class_balanced=config.class_balanced,
        evaluation=batches.sample_chunks(
            tested, config.num_eval, config.batch_size, seed=config.seed
        ),
        spec=Spec(
            example.shape[1:],
            task.class_names,
            {
                'normalization': normalization,
                'image_shape': tuple(task.train_images.shape[1:]),
                **constants,
            },
        ),
        report_data=task,
    )


def image_batches(
    x: Shaped[np.ndarray, 'n h w c'] | images.ImageFiles,
    labels: Int[np.ndarray, ' n'],
    batch_size: int,
    prepare_images: Callable[[PRNGKeyArray, Any], Float[Array, '_ _ _ _']],
    *,
    seed: int,
    data_placement: Placement = 'devices',
    class_balanced: bool = False,
    **fields: Any,
) -> Data:
    """Batches {'images', 'labels'} of a labeled set, prepared inside the compiled step.

    Args:
      x: Images as stored.
      labels: Their classes.
      batch_size: Examples per batch.
      prepare_images: (key, stored images) -> the network's input: augmentation and normalization.
      seed: Seed of the order of the examples.
      data_placement: 'devices' keeps all images there, and only row numbers travel at each step; 'host'
        sends the images of each batch; 'disk' also reads them ahead of the step by threads.
      class_balanced: Whether all classes are sampled equally often, see `batches.balanced`.
      **fields: Other fields of `Data`.
    """
    arrays = {'images': x, 'labels': labels}
    on_devices = data_placement == 'devices'
    if class_balanced:
        sample = batches.balanced(labels, batch_size, seed=seed)
    else:
        sample = functools.partial(
            batches.indices, seed, num_examples=len(labels), batch_size=batch_size
        )

    def rows_of(n, start=0, stop=None):
        rows = sample(n)[start:stop]
        return rows if on_devices else {name: array[rows] for name, array in arrays.items()}

    @functools.cache
    def read_ahead(start, stop):
        batch = functools.partial(rows_of, start=start, stop=stop)
        return prefetch.prefetch(batch) if data_placement == 'disk' else batch

    def prepare(device_arrays, batch, key):
        if on_devices:
            batch = {name: array[batch] for name, array in device_arrays.items()}
        return {'images': prepare_images(key, batch['images']), 'labels': batch['labels']}

    return Data(
        read_ahead(0, None),
        device_arrays=arrays if on_devices else {},
        prepare=prepare,
        local_batch=lambda n, start, stop: read_ahead(start, stop)(n),
        **fields,
    )
