"""Omniglot handwritten characters. Lake, Salakhutdinov, Tenenbaum, Science 350(6266), 2015.

1623 characters of 50 alphabets, each drawn by 20 people, 105 x 105, ink 0 on background 255 (the
inverse of MNIST). Splits: train (the background set, 19,280 drawings), test (the evaluation
set, 13,180, other alphabets), small1 (2,720) and small2 (3,120), both parts of train. In order of
alphabet, character and drawer. Written without TensorFlow, as uint8 Tensors stored as raw bytes:
array_record compresses the 19,280 to 7 MB, no more than PNG files would take.
"""

import io
import zipfile
from os import PathLike
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from lecture4.data.dataset import DataError
from lecture4.data.sources import archives
from lecture4.data.sources.builders.pinned import PinnedBuilder

IMAGE_SIZE = 105
FILES = {
    'train': 'images_background.zip',
    'test': 'images_evaluation.zip',
    'small1': 'images_background_small1.zip',
    'small2': 'images_background_small2.zip',
}


class Omniglot(PinnedBuilder, skip_registration=True):
    """Features image uint8 [105, 105, 1], label (the character), alphabet.

    Features: label is the character's number in the file names less 1, its name Alphabet/character;
    alphabet is the alphabet's index in the sorted names.

    """

    # Its own name: tensorflow-datasets' omniglot in the same data_dir has another format.
    name = 'lecture4_omniglot'

    def _info(self):
        return self.image_info(
            (IMAGE_SIZE, IMAGE_SIZE, 1),
            tfds.features.ClassLabel(),
            description='Handwritten characters of fifty alphabets.',
            homepage='https://github.com/brendenlake/omniglot/',
            alphabet=tfds.features.ClassLabel(),
        )

    def _split_generators(self, dl_manager):
        paths = archives.obtain(dl_manager, 'omniglot', self.pins, self.manual_dir)
        drawings = {split: list_drawings(paths[file]) for split, file in FILES.items()}
        characters = {}
        for number, label, _ in (d for split in drawings.values() for d in split):
            if characters.setdefault(number, label) != label:
                raise DataError(
                    f'omniglot: character {number} is both {characters[number]} and {label}'
                )
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


def list_drawings(path: str | PathLike[str]) -> list[tuple[int, str, str]]:
    """The drawings in one archive.

    A member is FOLDER/Alphabet/characterNN/NUMBER_DRAWER.png; others are skipped.

    Returns:
      In order of the members: (the character's number, Alphabet/character, the member).
    """
    with zipfile.ZipFile(path) as archive:
        members = sorted(m for m in archive.namelist() if m.endswith('.png'))
    drawings = []
    for member in members:
        _, alphabet, character, file = member.split('/')
        drawings.append((int(file.split('_')[0]), f'{alphabet}/{character}', member))
    return drawings
