"""Files of data sets: where they are, and whether they are the published ones.

Each builder keeps a `checksums.tsv` in the format of tensorflow-datasets, four columns separated by
tabs:

    URL    size in bytes    sha256 of the file    file name

and, for a compressed file, optionally a second line that pins its contents:

    zip-contents:FILE NAME     sum of the members' sizes    content digest         file name
    gzip-contents:FILE NAME    size without compression     sha256 of the content  file name

A file is accepted if its size and sha256 are the pinned ones, or if its contents are: the same images zipped again
(by another compressor, with other time stamps or order of members) are another file with the same data; and the
content of a gzip file may be uncompressed, compressed again, or in a zip archive. A file with another name is
recognized by its contents. See `content_digest`.
"""

import collections
import contextlib
import gzip
import hashlib
import io
import itertools
import pathlib
import zipfile
import zlib
from collections.abc import Iterable
from os import PathLike
from typing import Any, NamedTuple

from lecture4.data.dataset import DataError

GZIP, ZIP = b'\x1f\x8b', b'PK\3\4'  # first bytes of such files
CONTENTS = ('zip-contents:', 'gzip-contents:')
MAX_CANDIDATES = 10_000  # suffixes of files whose contents are searched


class Pin(NamedTuple):
    """Name, size and checksums of one file; `contents` is '' if the contents are not pinned."""

    file: str
    url: str
    size: int
    sha256: str
    contents: str = ''
    contents_size: int = 0


def read_pins(path: str | PathLike[str]) -> tuple[Pin, ...]:
    """The table at `path`: one Pin per file, in the table's order.

    Raises:
      DataError: A line does not have four columns, or has the contents of a file without a line.
    """
    pins = {}
    for number, line in enumerate(pathlib.Path(path).read_text(encoding='utf-8').splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        columns = line.split('\t')
        if len(columns) != 4 or not columns[1].isdigit():
            raise DataError(
                f'{path}, line {number}: expected URL, size, sha256, file name, got {line!r}'
            )
        url, size, digest, file = columns
        if not url.startswith(CONTENTS):
            pins[file] = Pin(file, url, int(size), digest)
        elif file in pins:
            pins[file] = pins[file]._replace(contents=digest, contents_size=int(size))
        else:
            raise DataError(f'{path}, line {number}: contents of {file} before the file itself')
    return tuple(pins.values())


def content_digest(path: str | PathLike[str]) -> tuple[int, str]:
    """Total size and digest of the members of a zip archive, independent of their compression.

    The digest is the sha256 over, for each file in order of its path, the path in UTF-8, a zero
    byte and the 32 bytes of the sha256 of the file's bytes. Folders, time stamps, compression, comments and the order
    of the members do not affect it.

    Returns:
      (bytes, hexadecimal digest).

    Raises:
      DataError: The archive cannot be read to its end, or names a path twice.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                (m for m in archive.infolist() if not m.is_dir()), key=lambda m: m.filename
            )
            if len({m.filename for m in members}) < len(members):
                raise DataError(f'{path} names the same member twice; download it again')
            digest = hashlib.sha256()
            for member in members:
                inside = hashlib.sha256(archive.read(member))
                digest.update(member.filename.encode() + b'\0' + inside.digest())
            return sum(m.file_size for m in members), digest.hexdigest()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(
            f'{path} is not a complete zip archive ({error}); download it again'
        ) from error


def locate(
    folder: str | PathLike[str] | None, name: str, pins: Iterable[Pin]
) -> dict[str, pathlib.Path]:
    """The pinned files that are in `folder`/`name`/ or `folder`/, by the name in their pin.

    Files with this name take precedence, whatever their contents; otherwise any file with the pinned contents.

    Args:
      folder: The user's folder of downloaded files, or None.
      name: Name of the data set.
      pins: The files.

    Raises:
      DataError: `folder` is not a folder.
    """
    if folder is None:
        return {}
    folder = pathlib.Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f'--manual_dir {folder} is not a folder; name the one that has the files')
    paths, renamed = {}, []
    for pin in pins:
        for path in (folder / name / pin.file, folder / pin.file):
            if path.is_file():
                paths[pin.file] = path
                break
        else:
            renamed.append(pin)
    sizes = _candidate_sizes(folder, name) if renamed else {}
    for pin in renamed:
        same_size = [*sizes.get(pin.size, ()), *sizes.get(pin.contents_size, ())]
        path = next((path for path in dict.fromkeys(same_size) if _is_pinned(path, pin)), None)
        if path is not None:
            paths[pin.file] = path
    return paths


def _candidate_sizes(folder, name):
    """{size: files of this size, also without compression, or with a member of this size}."""
    files = (path for path in (*(folder / name).rglob('*'), *folder.iterdir()) if path.is_file())
    sizes = collections.defaultdict(list)
    for path in sorted(itertools.islice(files, MAX_CANDIDATES)):
        with path.open('rb') as file:
            size, start = path.stat().st_size, file.read(4)
            sizes[size].append(path)
            if (
                start.startswith(GZIP) and size > 4
            ):  # the last bytes of a gzip file are the size before compression
                file.seek(-4, io.SEEK_END)
                sizes[int.from_bytes(file.read(4), 'little')].append(path)
        if start == ZIP:
            with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
                members = [member.file_size for member in archive.infolist()]
                for size in {sum(members), *members}:
                    sizes[size].append(path)
    return sizes


def _is_pinned(path, pin):
    try:
        verify(path, pin)
    except DataError:
        return False
    return True


def read_contents(path: str | PathLike[str], pin: Pin) -> bytes:
    """The content of a pinned gzip file: compressed, uncompressed, or in a zip archive.

    Raises:
      DataError: The file cannot be read to its end, or is an archive without such a member.
    """
    path = pathlib.Path(path)
    try:
        with path.open('rb') as file:
            start = file.read(4)
        if start.startswith(GZIP):
            return gzip.decompress(path.read_bytes())
        if start != ZIP:
            return path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size == pin.contents_size:
                    return archive.read(member)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f'{path} cannot be read ({error}); download it again') from error
    raise DataError(f'{path} has no member of {pin.contents_size} bytes; download {pin.file}')


def verify(path: str | PathLike[str], pin: Pin) -> None:
    """Return if the file at `path` is the pinned one, or has its contents.

    Raises:
      DataError: It is not; the message has the file, both checksums and the fix.
    """
    path = pathlib.Path(path)
    with path.open('rb') as file:
        sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
    size = path.stat().st_size
    if (size, sha256) == (pin.size, pin.sha256):
        return
    reason = ''
    if pin.contents:
        try:
            contents = _contents(path, pin)
        except DataError as error:
            reason = f'; and {error}'
        else:
            if contents == (pin.contents_size, pin.contents):
                return
            reason = (
                f'; or contents of {pin.contents_size} bytes, digest {pin.contents}, '
                f'got {contents[0]} bytes, digest {contents[1]}'
            )
    raise DataError(
        f'{path} is truncated or altered: expected {pin.size} bytes, sha256 {pin.sha256}, '
        f'got {size} bytes, sha256 {sha256}{reason}. Remove it and download it again from {pin.url}'
    )


def _contents(path, pin):
    if pin.file.endswith('.gz'):
        data = read_contents(path, pin)
        return len(data), hashlib.sha256(data).hexdigest()
    return content_digest(path)


def url_infos(pins: Iterable[Pin]) -> dict[str, Any]:
    """The pins in the form for the download manager of tensorflow-datasets."""
    from tensorflow_datasets.core.download import checksums
    from tensorflow_datasets.core.utils import Size

    return {p.url: checksums.UrlInfo(Size(p.size), p.sha256, p.file) for p in pins}


def obtain(
    dl_manager: Any, name: str, pins: tuple[Pin, ...], manual_dir: str | PathLike[str] | None
) -> dict[str, pathlib.Path]:
    """Paths of all pinned files, verified: in `manual_dir` if they exist there, otherwise downloaded.

    Args:
      dl_manager: The download manager of tensorflow-datasets, which stores files under data_dir/downloads.
      name: Name of the data set.
      pins: The files.
      manual_dir: As in `locate`.

    Raises:
      DataError: As in `locate` and `verify`.
    """
    paths = locate(manual_dir, name, pins)
    missing = {pin.file: pin.url for pin in pins if pin.file not in paths}
    if missing:
        downloaded = dl_manager.download(missing)
        paths |= {file: pathlib.Path(path) for file, path in downloaded.items()}
    for pin in pins:
        verify(paths[pin.file], pin)
    return paths
