"""The files of published sets of sentences: found in manual_dir or downloaded, verified, and read."""

import os
import pathlib
import shutil
import urllib.request
from os import PathLike
from typing import NamedTuple

from lecture4.data.dataset import DataError
from lecture4.data.sources import archives
from lecture4.data.text.dataset import Sentences
from lecture4.data.text.lines import read
from lecture4.data.text.tokens import Style

SMS_SPAM = archives.Pin(
    'SMSSpamCollection',
    '',
    477_907,
    '7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d',
)
_POLARITY = ('negative', 'positive')
_SST_SPLITS = ('train', 'dev', 'test')


class Published(NamedTuple):
    """The files of a set by split, its class names, and the format of its lines."""

    files: dict[str, str]
    class_names: tuple[str, ...]
    encoding: str = 'latin-1'
    separator: str = ' '
    style: Style = 'kim'


SETS = {
    'mr': Published({'all': 'rt-polarity.all'}, _POLARITY),
    'subj': Published({'all': 'subj.all'}, ('subjective', 'objective')),
    'cr': Published({'all': 'custrev.all'}, _POLARITY),
    'mpqa': Published({'all': 'mpqa.all'}, _POLARITY),
    'sst1': Published(
        {split: f'stsa.fine.{split}' for split in _SST_SPLITS},
        ('very negative', 'negative', 'neutral', 'positive', 'very positive'),
        'utf-8',
        style='kim_tokenized',
    ),
    'sst2': Published(
        {split: f'stsa.binary.{split}' for split in _SST_SPLITS},
        _POLARITY,
        'utf-8',
        style='kim_tokenized',
    ),
    'trec': Published(
        {split: f'TREC.{split}.all' for split in ('train', 'test')},
        ('description', 'entity', 'abbreviation', 'human', 'location', 'number'),
        style='kim_cased',
    ),
    'sms_spam': Published({'all': 'SMSSpamCollection'}, ('ham', 'spam'), 'utf-8', '\t'),
}


def load(
    source: str,
    split: str,
    data_dir: str | PathLike[str] | None,
    manual_dir: str | PathLike[str] | None,
    download: bool,
    style: Style | None = None,
) -> Sentences:
    """A split of one of `SETS`; the arguments are those of `sentences.load`.

    Raises:
      DataError: The file is missing (the message says what to run), cannot be downloaded, or is altered.
    """
    published = SETS[source]
    path = _obtain(source, published.files[split], data_dir, manual_dir, download)
    index = {str(i): i for i in range(len(published.class_names))}
    if source == 'sms_spam':
        index = {name: i for i, name in enumerate(published.class_names)}
    return read(
        path,
        published.encoding,
        published.separator,
        index,
        published.class_names,
        style or published.style,
    )


def _obtain(source, file, data_dir, manual_dir, download) -> pathlib.Path:
    """Path of a file that has the pinned checksum."""
    folder = 'sms_spam' if source == 'sms_spam' else 'sentence_classification'
    pins = [SMS_SPAM]
    if source != 'sms_spam':
        builders = pathlib.Path(archives.__file__).parent / 'builders'
        pins = archives.read_pins(builders / folder / 'checksums.tsv')
    (pin,) = (pin for pin in pins if pin.file == file)
    manual_dir = manual_dir or os.environ.get('LECTURE4_MANUAL_DIR') or None
    downloads = pathlib.Path(data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')
    downloads = downloads.expanduser() / folder
    path = archives.locate(manual_dir, folder, [pin]).get(file) or downloads / file
    if not path.is_file():
        manually = f'--manual_dir PATH where PATH or PATH/{folder} has {file}'
        if not pin.url:
            raise DataError(
                f'{source} cannot be downloaded: take {file} ({pin.size} bytes) from the SMS Spam '
                'Collection v.1 of the UCI Machine Learning Repository, then run with '
                f'{manually}'
            )
        if not download:
            raise DataError(
                f'{source} is not in {downloads}; run again with --download, or with {manually}'
            )
        _download(pin, path)
    archives.verify(path, pin)
    return path


def _download(pin: archives.Pin, path: pathlib.Path):
    """Download to a temporary name and rename, so that an existing file is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        with urllib.request.urlopen(pin.url, timeout=60) as response, part.open('wb') as file:
            shutil.copyfileobj(response, file)
        archives.verify(part, pin)
        os.replace(part, path)
    except OSError as error:
        raise DataError(
            f'{pin.url} cannot be downloaded ({error}); check the network, or download it yourself '
            'and name its folder with --manual_dir'
        ) from error
    finally:
        part.unlink(missing_ok=True)
