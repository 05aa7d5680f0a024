"""tensorflow-datasets builders of files with known checksums, which work without TensorFlow."""

import inspect
import pathlib
from os import PathLike
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from lecture4.data.sources import archives


class PinnedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that reads its files from a folder of the user if they are there, else downloads them.

    Attributes:
      manual_dir: Directory in which the files are searched.
      known_pins: Checksums of the files; by default the checksums.tsv next to the builder's module.
    """

    VERSION = tfds.core.Version('1.0.0')

    def __init__(
        self,
        *,
        manual_dir: str | PathLike[str] | None = None,
        pins: tuple[archives.Pin, ...] | None = None,
        **kwargs: Any,
    ):
        self.manual_dir = manual_dir
        folder = pathlib.Path(inspect.getfile(type(self))).parent
        self.known_pins = pins or archives.read_pins(folder / 'checksums.tsv')
        super().__init__(**kwargs)

    @property
    def pins(self) -> tuple[archives.Pin, ...]:
        """The files to read."""
        return self.known_pins

    @property
    def url_infos(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The checksums by which the download manager verifies downloads."""
        return archives.url_infos(self.pins)

    def image_info(
        self,
        shape: tuple[int, int, int],
        label: tfds.features.ClassLabel,
        *,
        description: str,
        homepage: str,
        **features: Any,
    ) -> tfds.core.DatasetInfo:
        """The description of a set of labeled images.

        Args:
          shape: Height, width and channels of the uint8 images, which are stored as their raw bytes.
          label: Classes of the labels.
          description: Description of the set, one sentence.
          homepage: Home page of the set.
          **features: Further features.
        """
        image = tfds.features.Tensor(
            shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict({'image': image, 'label': label, **features}),
            supervised_keys=('image', 'label'),
            homepage=homepage,
            disable_shuffling=True,
        )
