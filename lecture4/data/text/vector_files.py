"""Location of files of word vectors."""

import os
import pathlib
from os import PathLike

from lecture4.data.dataset import DataError


def locate(
    vectors: str | PathLike[str], manual_dir: str | PathLike[str] | None = None
) -> pathlib.Path:
    """Path of a file of word vectors: as named, else in manual_dir/word_vectors or manual_dir.

    Args:
      vectors: Path, or name of a file in manual_dir.
      manual_dir: Directory of downloaded files; by default $LECTURE4_MANUAL_DIR.

    Raises:
      DataError: There is no such file.
    """
    manual_dir = manual_dir or os.environ.get('LECTURE4_MANUAL_DIR') or None
    paths = [pathlib.Path(vectors).expanduser()]
    if manual_dir:
        folder = pathlib.Path(manual_dir).expanduser()
        paths += [folder / 'word_vectors' / vectors, folder / vectors]
    for path in paths:
        if path.is_file():
            return path
    raise DataError(
        f'there is no file of word vectors {vectors}'
        + (f', nor in {manual_dir}' if manual_dir else '; name its folder with --manual_dir')
    )
