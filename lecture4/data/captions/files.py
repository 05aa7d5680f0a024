"""Captioned images in the user's files: COCO's captions (`coco:PATH`), and a folder with a list (`folder:PATH`).

coco:PATH     PATH or PATH/annotations has captions_train*.json and captions_val*.json in COCO's format,
PATH/train*, PATH/val* the images. The dev and test images are the first and the second half
of val, at most 5000 each
folder:PATH   PATH/captions.txt, lines of a file name and a sentence, separated by a tab or, under a first
line `image,caption`, by a comma; a file name occurs once for each of its sentences, and
may end in #0, #1, ... One image in ten is a dev image, one in ten a test image
"""

import csv
import json
import pathlib

import numpy as np

from lecture4.data import splits as holding
from lecture4.data.captions.dataset import CaptionedImages, validate
from lecture4.data.dataset import DataError
from lecture4.data.sources.decode import read_image, to_rgb

MAX_HALF = 5000  # number of images of each half of COCO's val set, as in Karpathy & Fei-Fei


def load_coco(path: pathlib.Path, split: str, *, max_words: int = 0) -> CaptionedImages:
    """A split of a folder in COCO's layout.

    Raises:
      DataError: A file is missing or is not a JSON of captions (the message has the file and the reason); or as in
        `validate`.
    """
    part = 'train' if split == 'train' else 'val'
    files = sorted(path.glob(f'captions_{part}*.json'))
    files += sorted((path / 'annotations').glob(f'captions_{part}*.json'))
    if not files:
        raise DataError(
            f'neither {path} nor its folder annotations has captions_{part}*.json; name the folder that does'
        )
    names, texts = read_captions_json(files[0])
    if split != 'train':
        half = min(len(names) // 2, MAX_HALF)
        rows = slice(0, half) if split == 'dev' else slice(half, 2 * half)
        names, texts = names[rows], texts[rows]
    checked, sentences = validate(f'coco:{path}, {split}', names, texts, max_words)
    folders = [
        path,
        path / 'images',
        *sorted(path.glob(f'{part}*')),
        *sorted(path.glob(f'images/{part}*')),
    ]
    return CaptionedImages(checked, sentences, _reader(checked, folders))


def read_captions_json(path: pathlib.Path) -> tuple[list[str], list[list[str]]]:
    """File names and sentences of COCO's JSON: {'images': [...], 'annotations': [...]}.

    Raises:
      DataError: The file is not such a JSON, or an annotation is of an image that is not listed.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f'{path} is not JSON ({error}); download it again') from error
    try:
        names = {image['id']: str(image['file_name']) for image in content['images']}
        texts: dict = {image_id: [] for image_id in names}
        for annotation in content['annotations']:
            texts[annotation['image_id']].append(str(annotation['caption']))
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected {{'images': [{{'id', 'file_name'}}], 'annotations': [{{'image_id', "
            f"'caption'}}]}}, got an entry with missing or unknown {error}; use COCO's file of captions"
        ) from error
    return list(names.values()), [texts[image_id] for image_id in names]


def load_folder(path: pathlib.Path, split: str, *, max_words: int = 0) -> CaptionedImages:
    """A split of a folder of images with a list of sentences; the assignment of images to splits is fixed.

    Raises:
      DataError: There is no captions.txt, a line has no sentence, or there are fewer than 10 images; or as in
        `validate`.
    """
    file = path / 'captions.txt'
    if not file.is_file():
        raise DataError(
            f'{path} has no captions.txt; write one with lines FILE NAME, tab, sentence'
        )
    texts: dict[str, list[str]] = {}
    for number, name, text in _rows(file):
        if not name or not text:
            raise DataError(
                f'{file}, line {number}: expected a file name, a tab and a sentence; fix the line'
            )
        stem, mark, index = name.rpartition('#')
        texts.setdefault(stem if mark and index.isdigit() else name, []).append(text)
    names = sorted(texts)
    if len(names) < 10:
        raise DataError(f'{file} has {len(names)} images, expected at least 10; add some')
    rest, test = holding.hold_out(np.arange(len(names)), 0.1, seed=0)
    train, dev = holding.hold_out(rest, 1 / 9, seed=1)
    rows = {'train': train, 'dev': dev, 'test': test}[split]
    split_names = [names[row] for row in rows]
    checked, sentences = validate(
        f'folder:{path}, {split}', split_names, [texts[name] for name in split_names], max_words
    )
    return CaptionedImages(checked, sentences, _reader(checked, [path, path / 'images']))


def _rows(file: pathlib.Path):
    """(line number, name, sentence)."""
    with file.open(encoding='utf-8', newline='') as stream:
        if stream.readline().strip().lower() in ('image,caption', 'image_name,caption'):
            for number, row in enumerate(csv.reader(stream), 2):
                yield number, row[0] if row else '', ','.join(row[1:]).strip()
            return
        stream.seek(0)
        for number, line in enumerate(stream, 1):
            if line.strip():
                name, _, text = line.strip().partition('\t')
                yield number, name, text.strip()


def _reader(names: tuple[str, ...], folders: list[pathlib.Path]):
    def read(row):
        for folder in folders:
            if (folder / names[row]).is_file():
                return np.array(to_rgb(read_image(folder / names[row])))
        raise DataError(f'{names[row]} is neither in {folders[0]} nor in its folders of images')

    return read
