"""Pictures that stay on the disk: read when they are asked for, batches ahead of the steps that use them."""

import concurrent.futures
import logging
from collections.abc import Callable

import numpy as np

from lecture4.data.dataset import DataError
from lecture4.data.sources.files import Unreadable, as_colour, read_image, refused

LOG = logging.getLogger(__name__)


class Pictures:
    """Stands in for an array uint8 [n, h, w, 3] of files: taking rows of it reads these files.

    paths       files, in the order of their rows.
    labels      int [n]: a picture that is left out is replaced by one of the same label.
    each_fn     a picture [h, w, 1 or 3] as it is in the file -> as it is wanted, all of one size.
    unreadable  'refuse' raises DataError where a file cannot be read; 'skip' tells its name and takes
                the next file that can be, of those with the same label, so that rows remain a
                function of their number alone.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths, labels, each_fn: Callable, unreadable: Unreadable = 'refuse'):
        self._paths, self._labels = list(paths), np.asarray(labels)
        self._each_fn, self._unreadable = each_fn, unreadable
        self._told = set()
        self.shape = (len(self._paths), *self._read(0).shape)

    def __len__(self):
        return len(self._paths)

    def __getitem__(self, rows) -> np.ndarray:
        """Rows as of an array, by a whole number, a slice, or an array of whole numbers."""
        rows = np.arange(len(self))[rows]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            found = list(pool.map(self._read, rows.ravel()))
        return np.array(found, self.dtype).reshape(*rows.shape, *self.shape[1:])

    def take(self, rows) -> 'Pictures':
        """The pictures of these rows only, still on the disk."""
        paths = [self._paths[row] for row in rows]
        return Pictures(paths, self._labels[rows], self._each_fn, self._unreadable)

    def _read(self, row):
        try:
            return self._picture(row)
        except DataError as error:
            if self._unreadable == 'refuse':
                raise refused(error) from error
        alike = np.flatnonzero(self._labels == self._labels[row])
        for other in np.roll(alike, -1 - np.searchsorted(alike, row))[:-1]:
            try:
                return self._picture(other)
            except DataError:
                continue
        raise DataError(
            f'{self._paths[row]} and all others of its class cannot be read; remove the class or '
            'replace them'
        )

    def _picture(self, row):
        path = self._paths[row]
        try:
            return self._each_fn(as_colour(read_image(path)))
        except DataError as error:
            if self._unreadable == 'skip' and path not in self._told:
                self._told.add(path)
                LOG.warning('left out: %s', error)
            raise


def ahead(batch_fn: Callable, n_ahead: int = 2) -> Callable:
    """The same pure function n -> batch, with the next ones made by threads while a step runs.

    Asked for anything but the batch after the last one, it starts anew from there. Errors of
    `batch_fn` are raised where their batch is asked for.
    """
    import grain

    options = grain.ReadOptions(num_threads=n_ahead, prefetch_buffer_size=n_ahead)
    following, coming = -1, iter(())

    def batch(n: int):
        nonlocal following, coming
        if n != following:
            numbers = grain.MapDataset.range(n, np.iinfo(np.int64).max)
            coming = iter(numbers.map(batch_fn).to_iter_dataset(options))
        following = n + 1
        return next(coming)

    return batch
