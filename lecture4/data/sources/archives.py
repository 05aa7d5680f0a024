"""Files that data sets are made from: where they lie, and whether they are the ones we know.

Each builder keeps a `checksums.tsv` in tensorflow-datasets' format, four columns divided by tabs:

    URL    size in bytes    sha256 of the file    file name

and, for a zip archive, optionally a second line that pins what is inside it:

    zip-contents:FILE NAME    sum of the members' sizes    content digest    file name

A file is accepted when its size and sha256 are the pinned ones. A zip archive is also accepted when
its content digest is: the same pictures zipped again (another compressor, other time stamps, other
order of members) make another file and the same data. See `content_digest`.
"""

import hashlib
import pathlib
import zipfile
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from lecture4.data.dataset import DataError

CONTENTS = 'zip-contents:'


class Pin(NamedTuple):
    """What is known of one file. `contents` is '' where the inside of the file is not pinned."""

    file: str
    url: str
    size: int
    sha256: str
    contents: str = ''
    contents_size: int = 0


def read_pins(path) -> tuple[Pin, ...]:
    """The table at `path`, one Pin a file, in the table's order.

    Errors  DataError for a line that is not four columns, or contents of a file that has no line.
    """
    pins = {}
    for number, line in enumerate(pathlib.Path(path).read_text(encoding='utf-8').splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        columns = line.split('\t')
        if len(columns) != 4 or not columns[1].isdigit():
            raise DataError(f'{path}, line {number}: {line!r} is not URL, size, sha256, file name')
        url, size, digest, file = columns
        if not url.startswith(CONTENTS):
            pins[file] = Pin(file, url, int(size), digest)
        elif file in pins:
            pins[file] = pins[file]._replace(contents=digest, contents_size=int(size))
        else:
            raise DataError(f'{path}, line {number}: contents of {file} before the file itself')
    return tuple(pins.values())


def content_digest(path) -> tuple[int, str]:
    """Total size and digest of a zip archive's members, whatever way they are packed.

    The digest is the sha256 over, for each file in order of its path, the path in UTF-8, a zero
    byte and the 32 bytes of the sha256 of the file's bytes. Folders, time stamps, compression,
    comments and the order of the members do not enter it.

    Errors  DataError where the archive cannot be read to its end, or names a path twice.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                (m for m in archive.infolist() if not m.is_dir()), key=lambda m: m.filename
            )
            if len({m.filename for m in members}) < len(members):
                raise DataError(f'{path} names the same member twice; fetch it again')
            digest = hashlib.sha256()
            for member in members:
                inside = hashlib.sha256(archive.read(member))
                digest.update(member.filename.encode() + b'\0' + inside.digest())
            return sum(m.file_size for m in members), digest.hexdigest()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f'{path} is not a whole zip archive ({error}); fetch it again') from error


def locate(folder, name: str, files: Iterable[str]) -> dict[str, pathlib.Path]:
    """Those of `files` that lie in `folder`/`name`/ or `folder`/, by file name.

    A folder of None holds nothing. Errors: DataError where `folder` is not a folder.
    """
    if folder is None:
        return {}
    folder = pathlib.Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f'--manual_dir {folder} is not a folder; name the one that holds the files')
    found = {}
    for file in files:
        for path in (folder / name / file, folder / file):
            if path.is_file():
                found[file] = path
                break
    return found


def verify(path, pin: Pin) -> None:
    """Returns if the file at `path` is the pinned one.

    Errors  DataError naming the file, the expected and the found sums, and the mend.
    """
    path = pathlib.Path(path)
    with path.open('rb') as file:
        found = hashlib.file_digest(file, 'sha256').hexdigest()
    size = path.stat().st_size
    if (size, found) == (pin.size, pin.sha256):
        return
    reason = ''
    if pin.contents:
        try:
            inside = content_digest(path)
        except DataError:
            reason = '; and it is not a whole zip archive'
        else:
            if inside == (pin.contents_size, pin.contents):
                return
            reason = (
                f'; or contents of {pin.contents_size} bytes, digest {pin.contents}, '
                f'got {inside[0]} bytes, digest {inside[1]}'
            )
    raise DataError(
        f'{path} is truncated or altered: expected {pin.size} bytes, sha256 {pin.sha256}, '
        f'got {size} bytes, sha256 {found}{reason}. Remove it and fetch it again from {pin.url}'
    )


def url_infos(pins: Iterable[Pin]) -> dict:
    """The pins as tensorflow-datasets' download manager wants them."""
    from tensorflow_datasets.core.download import checksums
    from tensorflow_datasets.core.utils import Size

    return {p.url: checksums.UrlInfo(Size(p.size), p.sha256, p.file) for p in pins}


def obtain(dl_manager, name: str, pins: tuple[Pin, ...], manual_dir) -> dict[str, pathlib.Path]:
    """Paths of all pinned files, verified: in `manual_dir` where they lie there, else downloaded.

    `dl_manager` is tensorflow-datasets' and keeps what it downloads under data_dir/downloads.
    """
    paths = locate(manual_dir, name, [pin.file for pin in pins])
    wanted = {pin.file: pin.url for pin in pins if pin.file not in paths}
    if wanted:
        fetched = dl_manager.download(wanted)
        paths |= {file: pathlib.Path(path) for file, path in fetched.items()}
    for pin in pins:
        verify(paths[pin.file], pin)
    return paths
