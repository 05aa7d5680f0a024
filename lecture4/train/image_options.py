"""Options of experiments on images of any source: files that cannot be read, shapes, sizes, held-out images."""

import dataclasses
from typing import Any, Literal

from lecture4.train.config import Config
from lecture4.train.fields import AtLeast0, AtLeast1, FractionBelow1


@dataclasses.dataclass(frozen=True)
class ImageFiles(Config):
    """Option of sources that read image files."""

    # What to do with image files that cannot be read: stop with an error (refuse) or skip them.
    unreadable: Literal['refuse', 'skip'] = 'refuse'

    def data_kwargs(self) -> dict[str, Any]:
        """Where data sets are, and what to do with unreadable files, as registries of data sets take them."""
        return {**super().data_kwargs(), 'unreadable': self.unreadable}


@dataclasses.dataclass(frozen=True)
class ImageOptions(ImageFiles):
    """Options of the images that a source has, whatever their sizes."""

    # Height and width, or height, width and channels, of images that an npz: or csv: source stores as rows.
    image_shape: tuple[AtLeast1, ...] = ()

    def data_kwargs(self) -> dict[str, Any]:
        """Where data sets are and how their images are read, as `sources.load` takes them."""
        return {**super().data_kwargs(), 'image_shape': self.image_shape}


@dataclasses.dataclass(frozen=True)
class SplitImages(ImageOptions):
    """Options of images that are divided into training and test images."""

    # Fraction of the training images to test on in place of the test split.
    held_out: FractionBelow1 = 0.0

    def data_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `images.load` and `images.load_squares`."""
        return {**super().data_kwargs(), 'held_out': self.held_out}


@dataclasses.dataclass(frozen=True)
class SquareImages(SplitImages):
    """Options of images that are brought to squares of one size and divided into training and test images."""

    # Height and width to which images are cropped and resized; 0 keeps their size.
    image_size: AtLeast0 = 0
    # Height and width of crops, training ones from the left half of each image and test ones from the right; 0
    # takes whole images.
    crop_size: AtLeast0 = 0

    def data_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `images.load` and `vectors.load_splits`."""
        names = ('image_size', 'crop_size')
        return {**super().data_kwargs(), **{name: getattr(self, name) for name in names}}
