import gzip
import hashlib
import pathlib
import zipfile

import pytest

from lecture4.data.dataset import DataError
from lecture4.data.sources import archives, builders


def pin_of(path, **changes):
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return archives.Pin(path.name, 'http://here/x', len(data), digest)._replace(**changes)


def make_zip(path, members, **options):
    with zipfile.ZipFile(path, 'w', **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


MEMBERS = [('a/1.txt', b'one' * 50), ('a/', b''), ('b/2.txt', b'two' * 50)]


def test_checksum_tables_are_read_and_complete(tmp_path):
    table = tmp_path / 'checksums.tsv'
    table.write_text('# note\nhttp://x/a.zip\t7\tff\ta.zip\nzip-contents:a.zip\t9\tee\ta.zip\n\n')
    assert archives.read_pins(table) == (archives.Pin('a.zip', 'http://x/a.zip', 7, 'ff', 'ee', 9),)
    for path in pathlib.Path(builders.__path__[0]).glob('*/checksums.tsv'):
        for pin in archives.read_pins(path):
            # An origin in words belongs to a file that users provide, never downloaded.
            assert ' ' in pin.url or pin.url.endswith('/' + pin.file)
            assert len(pin.sha256) == 64 and pin.size > 0
            assert bool(pin.contents) == pin.file.endswith(('.zip', 'ubyte.gz'))


@pytest.mark.parametrize(
    'line', ['http://x/a.zip\t7\tff', 'u\tseven\tff\ta.zip', 'zip-contents:a\t9\tee\ta']
)
def test_a_malformed_table_is_refused_with_its_line(tmp_path, line):
    table = tmp_path / 'checksums.tsv'
    table.write_text(f'\n{line}\n')
    with pytest.raises(DataError, match=r'checksums.tsv, line 2'):
        archives.read_pins(table)


def test_content_digest_depends_on_contents_only(tmp_path):
    expected = archives.content_digest(make_zip(tmp_path / 'a.zip', MEMBERS))
    packed = make_zip(tmp_path / 'b.zip', MEMBERS[::-1], compression=zipfile.ZIP_DEFLATED)
    assert archives.content_digest(packed) == expected
    assert expected[0] == 300
    # The digest by its definition, from the members alone.
    parts = [n.encode() + b'\0' + hashlib.sha256(d).digest() for n, d in (MEMBERS[0], MEMBERS[2])]
    assert expected[1] == hashlib.sha256(b''.join(parts)).hexdigest()
    for i, members in enumerate(
        (
            [('a/1.txt', b'One' * 50), MEMBERS[2]],
            [('a/3.txt', b'one' * 50), MEMBERS[2]],
            [('a/1.txt', b'two' * 50), ('b/2.txt', b'one' * 50)],
            MEMBERS[:1],
            [*MEMBERS, ('c', b'')],
        )
    ):
        other = make_zip(tmp_path / f'other{i}.zip', members)
        assert archives.content_digest(other) != expected


def test_content_digest_refuses_broken_and_ambiguous_archives(tmp_path):
    path = make_zip(tmp_path / 'a.zip', MEMBERS)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(DataError, match=r'a\.zip is not a complete zip archive'):
        archives.content_digest(path)
    path.write_bytes(content.replace(b'oneone', b'oneOne', 1))  # the member's CRC is now wrong
    with pytest.raises(DataError, match=r'a\.zip is not a complete zip archive'):
        archives.content_digest(path)
    with pytest.warns(UserWarning, match='Duplicate name'):
        make_zip(path, [('x', b'1'), ('x', b'2')])
    with pytest.raises(DataError, match='same member twice'):
        archives.content_digest(path)


def test_verify_names_the_file_both_checksums_and_the_fix(tmp_path):
    path = tmp_path / 'file.gz'
    path.write_bytes(b'0123456789')
    pin = pin_of(path)
    archives.verify(path, pin)
    for data in (b'01234', b'0123456780', b'', b'01234567890'):
        path.write_bytes(data)
        with pytest.raises(DataError) as caught:
            archives.verify(path, pin)
        message = str(caught.value)
        for part in (str(path), pin.sha256, hashlib.sha256(data).hexdigest(), pin.url):
            assert part in message
        assert f'expected {pin.size} bytes' in message and f'got {len(data)} bytes' in message


def test_verify_accepts_a_repacked_zip_only_with_the_pinned_contents(tmp_path):
    path = make_zip(tmp_path / 'a.zip', MEMBERS)
    size, digest = archives.content_digest(path)
    pin = pin_of(path, contents=digest, contents_size=size)
    make_zip(path, MEMBERS, compression=zipfile.ZIP_DEFLATED)
    archives.verify(path, pin)
    with pytest.raises(DataError):
        archives.verify(path, pin._replace(contents=''))
    make_zip(path, [*MEMBERS[:2], ('b/2.txt', b'twO' * 50)])
    with pytest.raises(DataError, match='digest ' + digest):
        archives.verify(path, pin)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match='not a complete zip'):
        archives.verify(path, pin)


def test_locate_prefers_the_folder_of_the_set(tmp_path):
    (tmp_path / 'name').mkdir()
    for path in ('name/a', 'a', 'b'):
        (tmp_path / path).write_text('')
    pins = [archives.Pin(file, '', -1, '') for file in 'abc']
    paths = archives.locate(tmp_path, 'name', pins)
    assert paths == {'a': tmp_path / 'name/a', 'b': tmp_path / 'b'}
    assert archives.locate(None, 'name', pins) == {}
    with pytest.raises(DataError, match='--manual_dir'):
        archives.locate(tmp_path / 'gone', 'name', pins)


CONTENT = bytes(range(256)) * 9


@pytest.fixture
def pin(tmp_path):
    """Of a gzip file that is not there."""
    path = tmp_path / 'data.gz'
    path.write_bytes(gzip.compress(CONTENT, 9, mtime=0))
    pin = pin_of(path, contents=hashlib.sha256(CONTENT).hexdigest(), contents_size=len(CONTENT))
    path.unlink()
    return pin


def test_contents_of_a_gzip_file_are_found_in_any_packing_and_name(tmp_path, pin):
    for name, data in (
        ('data.gz', gzip.compress(CONTENT, 1, mtime=5)),
        ('data.gz', CONTENT),
        ('data', CONTENT),
        ('data(1).gz', gzip.compress(CONTENT, 9, mtime=0)),
        ('anything', gzip.compress(CONTENT, 1, mtime=5)),
        ('set/data/data', CONTENT),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        assert archives.locate(tmp_path, 'set', [pin]) == {'data.gz': path}
        archives.verify(path, pin)
        assert archives.read_contents(path, pin) == CONTENT
        path.unlink()
    members = [('other', b'x'), ('folder/data', CONTENT)]
    path = make_zip(tmp_path / 'a.zip', members, compression=zipfile.ZIP_DEFLATED)
    assert archives.locate(tmp_path, 'set', [pin]) == {'data.gz': path}
    assert archives.read_contents(path, pin) == CONTENT


def test_other_contents_of_the_same_size_are_not_taken(tmp_path, pin):
    (tmp_path / 'data').write_bytes(CONTENT[::-1])
    (tmp_path / 'b').write_bytes(gzip.compress(CONTENT[::-1]))
    (tmp_path / 'c.gz').write_bytes(
        gzip.compress(CONTENT)[:-9] + len(CONTENT).to_bytes(4, 'little')
    )
    (tmp_path / 'd.zip').write_bytes(b'PK\3\4 and no more')
    make_zip(tmp_path / 'e.zip', [('data', CONTENT[::-1])])
    assert archives.locate(tmp_path, 'set', [pin]) == {}
    with pytest.raises(DataError, match=r'b is truncated or altered.* or contents of 2304 bytes'):
        archives.verify(tmp_path / 'b', pin)
    with pytest.raises(DataError, match=r'c\.gz is truncated or altered.* and .* cannot be read'):
        archives.verify(tmp_path / 'c.gz', pin)


def test_a_renamed_archive_is_found_by_its_contents(tmp_path):
    path = make_zip(tmp_path / 'images.zip', MEMBERS)
    size, digest = archives.content_digest(path)
    pin = pin_of(path, contents=digest, contents_size=size)
    path.rename(tmp_path / 'images (2).zip')
    assert archives.locate(tmp_path, 'set', [pin]) == {'images.zip': tmp_path / 'images (2).zip'}
    again = make_zip(tmp_path / 'z', MEMBERS[::-1], compression=zipfile.ZIP_DEFLATED)
    (tmp_path / 'images (2).zip').unlink()
    assert archives.locate(tmp_path, 'set', [pin]) == {'images.zip': again}
