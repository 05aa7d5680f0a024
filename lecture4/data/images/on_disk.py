"""Images that stay on disk and are read on access."""

import concurrent.futures
import logging
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from lecture4.data.dataset import DataError
from lecture4.data.sources.decode import read_image, to_rgb
from lecture4.data.sources.folders import Unreadable, unreadable_error

LOG = logging.getLogger(__name__)


class ImageFiles:
    """Stand-in for an array uint8 [n, h, w, 3] of image files: indexing reads the files.

    Attributes:
      paths: The files, in the order of their rows.
      labels: [n].
      shape: (n, h, w, 3), from the first file.
      dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        labels: Int[np.ndarray, ' n'],
        transform: Callable[[np.ndarray], np.ndarray],
        unreadable: Unreadable = 'refuse',
    ):
        """Read the first file, for the shape.

        Args:
          paths: Files, in the order of their rows.
          labels: Labels [n]; a skipped image is replaced by one with the same label.
          transform: Image [h, w, 3] of a file -> image [h, w, 3] of one size for all.
          unreadable: 'refuse' raises DataError if a file cannot be read; 'skip' logs its name and takes the next
            readable file with the same label, so that rows remain a function of their index alone.
        """
        self.paths, self.labels = tuple(paths), np.asarray(labels)
        self._transform = transform
        self._unreadable: Unreadable = unreadable
        self._logged = set()
        self.shape = (len(self.paths), *self._read(0).shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(
        self, rows: int | slice | Int[np.ndarray, '...'] | np.integer
    ) -> UInt8[np.ndarray, '... h w 3']:
        """Rows by an integer, a slice, or an array of integers, as for an array."""
        rows = np.arange(len(self))[rows]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            images = list(pool.map(self._read, rows.ravel()))
        return np.array(images, self.dtype).reshape(*rows.shape, *self.shape[1:])

    def take(self, rows: Sequence[int] | Int[np.ndarray, ' m']) -> 'ImageFiles':
        """The images of some rows, still on disk."""
        paths = [self.paths[row] for row in rows]
        return ImageFiles(paths, self.labels[rows], self._transform, self._unreadable)

    def _read(self, row):
        try:
            return self._decode(row)
        except DataError as error:
            if self._unreadable == 'refuse':
                raise unreadable_error(error) from error
        same_class = np.flatnonzero(self.labels == self.labels[row])
        for other in np.roll(same_class, -1 - np.searchsorted(same_class, row))[:-1]:
            try:
                return self._decode(other)
            except DataError:
                continue
        raise DataError(
            f'{self.paths[row]} and all others of its class cannot be read; remove the class or '
            'replace them'
        )

    def _decode(self, row):
        path = self.paths[row]
        try:
            return self._transform(to_rgb(read_image(path)))
        except DataError as error:
            if self._unreadable == 'skip' and path not in self._logged:
                self._logged.add(path)
                LOG.warning('skipped: %s', error)
            raise
