"""Omniglot handwritten characters. Lake, Salakhutdinov, Tenenbaum, Science 350(6266), 2015.

1623 characters of 50 alphabets, each drawn by 20 people, 105 x 105, ink 0 on ground 255 (the other
way round than MNIST). Splits: train (the background set, 19,280 drawings), test (the evaluation
set, 13,180, other alphabets), small1 (2,720) and small2 (3,120), both parts of train. In order of
alphabet, character and drawer. Written without TensorFlow, as uint8 Tensors stored as raw bytes:
array_record packs the 19,280 into 7 MB, no more than their PNG files take there.
"""

import io
import pathlib
import zipfile
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from lecture4.data.dataset import DataError
from lecture4.data.sources import archives

SIDE = 105
FILES = {
    'train': 'images_background.zip',
    'test': 'images_evaluation.zip',
    'small1': 'images_background_small1.zip',
    'small2': 'images_background_small2.zip',
}


class Omniglot(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Features image uint8 [105, 105, 1], label (the character), alphabet; ids as upstream's.

    label       the character's number in the file names less 1; its name is Alphabet/character.
    alphabet    the alphabet's place in the sorted names.
    manual_dir  where the files are looked for before they are downloaded.
    pins        what the files must be; the checksums.tsv beside this file unless given.
    """

    # Its own name: tensorflow-datasets' omniglot in the same data_dir has another format.
    name = 'lecture4_omniglot'
    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, *, manual_dir=None, pins=None, **kwargs):
        self.manual_dir = manual_dir
        self.pins = pins or archives.read_pins(pathlib.Path(__file__).with_name('checksums.tsv'))
        super().__init__(**kwargs)

    @property
    def url_infos(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the download manager checks a download against."""
        return archives.url_infos(self.pins)

    def _info(self):
        features = {
            'image': tfds.features.Tensor(
                shape=(SIDE, SIDE, 1), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
            ),
            'label': tfds.features.ClassLabel(),
            'alphabet': tfds.features.ClassLabel(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description='Handwritten characters of fifty alphabets.',
            features=tfds.features.FeaturesDict(features),
            supervised_keys=('image', 'label'),
            homepage='https://github.com/brendenlake/omniglot/',
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        paths = archives.obtain(dl_manager, 'omniglot', self.pins, self.manual_dir)
        drawings = {split: list_drawings(paths[file]) for split, file in FILES.items()}
        characters = {}
        for number, label, _ in (d for split in drawings.values() for d in split):
            if characters.setdefault(number, label) != label:
                raise DataError(f'omniglot: character {number} is {characters[number]} and {label}')
        labels = [characters[number] for number in sorted(characters)]
        features: Any = self.info.features
        features['label'].names = labels
        features['alphabet'].names = sorted({label.split('/')[0] for label in labels})
        return {
            split: self._generate_examples(paths[file], drawings[split])
            for split, file in FILES.items()
        }

    def _generate_examples(self, path, drawings):
        with zipfile.ZipFile(path) as archive:
            for i, (_, label, member) in enumerate(drawings):
                image = np.array(Image.open(io.BytesIO(archive.read(member))).convert('L'))
                yield (
                    i,
                    {'image': image[..., None], 'label': label, 'alphabet': label.split('/')[0]},
                )


def list_drawings(path) -> list[tuple[int, str, str]]:
    """The drawings in one archive in order: the character's number, Alphabet/character, the member.

    A member is FOLDER/Alphabet/characterNN/NUMBER_DRAWER.png; others are passed over.
    """
    with zipfile.ZipFile(path) as archive:
        members = sorted(m for m in archive.namelist() if m.endswith('.png'))
    drawings = []
    for member in members:
        _, alphabet, character, file = member.split('/')
        drawings.append((int(file.split('_')[0]), f'{alphabet}/{character}', member))
    return drawings
