"""PASCAL VOC 2007 and 2012: images with boxes of twenty classes. Everingham et al., IJCV 88(2), 2010.

2007: splits train (2501), val (2510), trainval (5011), test (4952). 2012: train (5717), val (5823), trainval
(11,540); the annotations of its test set are not public. Written without TensorFlow. An image is stored as the bytes
of its JPEG file, so that it is decoded only on access; objects are stored as rows of numbers.
"""

import contextlib
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds

from lecture4.data.dataset import DataError
from lecture4.data.sources import archives
from lecture4.data.sources.builders.pinned import PinnedBuilder

FILES = {
    '2007': ('VOCtrainval_06-Nov-2007.tar', 'VOCtest_06-Nov-2007.tar'),
    '2012': ('VOCtrainval_11-May-2012.tar',),
}
SPLITS = {'2007': ('train', 'val', 'trainval', 'test'), '2012': ('train', 'val', 'trainval')}


class Voc(PinnedBuilder, skip_registration=True):
    """Features image (bytes of a JPEG file), name, size (height, width) and objects.

    Features: objects is float32 [g, 6]: the edges x1, y1, x2, y2 of a box (see `lecture4.data.detection.dataset`),
    the label 1 to 20 in the order of `lecture4.data.detection.voc.CLASS_NAMES`, and 1 for a difficult object.

    Attributes:
      year: Year of the challenge.
    """

    name = 'lecture4_voc'
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=year) for year in FILES]  # noqa: RUF012

    def __init__(
        self,
        *,
        year: Literal['2007', '2012'] = '2007',
        pins: tuple[archives.Pin, ...] | None = None,
        **kwargs: Any,
    ):
        self.year = year
        known = archives.read_pins(pathlib.Path(__file__).with_name('checksums.tsv'))
        pins = pins or tuple(pin for pin in known if pin.file in FILES[year])
        super().__init__(config=year, pins=pins, **kwargs)

    def _info(self):
        features = {
            'image': tfds.features.Text(),
            'name': tfds.features.Text(),
            'size': tfds.features.Tensor(shape=(2,), dtype=np.int32),
            'objects': tfds.features.Tensor(shape=(None, 6), dtype=np.float32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description='Images with boxes of twenty classes.',
            features=tfds.features.FeaturesDict(features),
            homepage='http://host.robots.ox.ac.uk/pascal/VOC/',
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        paths = archives.obtain(dl_manager, f'voc{self.year}', self.pins, self.manual_dir)
        return {
            split: self._generate_examples(list(paths.values()), split)
            for split in SPLITS[self.year]
        }

    def _generate_examples(self, paths, split):
        from lecture4.data.detection import voc

        with open_archives(paths) as files:
            dataset = voc.from_files(files, split, class_names=voc.CLASS_NAMES)
            for i, name in enumerate(dataset.names):
                objects = np.column_stack(
                    [dataset.boxes[i], dataset.labels[i], dataset.difficult[i]]
                )
                yield (
                    i,
                    {
                        'image': dataset.images.encoded(i),  # pyright: ignore[reportAttributeAccessIssue]
                        'name': name,
                        'size': dataset.sizes[i],
                        'objects': objects.astype(np.float32),
                    },
                )


@contextlib.contextmanager
def open_archives(paths: list[pathlib.Path]) -> Iterator[Any]:
    """The files of tar archives that together contain one VOCdevkit/VOCyyyy, as `voc.Files`, while they are open.

    Raises:
      DataError: One of them cannot be read.
    """
    from lecture4.data.detection import voc

    members = {}
    with contextlib.ExitStack() as stack:
        for path in paths:
            try:
                archive = stack.enter_context(tarfile.open(path))
                for member in archive:
                    part = member.name.split('/', 2)[-1]  # without VOCdevkit/VOC2007
                    if member.isfile() and part.startswith((voc.ANNOTATIONS, voc.IMAGES, voc.SETS)):
                        members[part] = (archive, member)
            except (tarfile.TarError, EOFError, OSError) as error:
                raise DataError(f'{path} cannot be read ({error}); download it again') from error

        def read(name: str) -> bytes:
            archive, member = members[name]
            return archive.extractfile(member).read()

        yield voc.Files('voc', frozenset(members), read)
