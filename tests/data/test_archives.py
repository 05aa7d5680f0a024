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
            assert bool(pin.contents) == pin.file.endswith('.zip')


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
    paths = archives.locate(tmp_path, 'name', ['a', 'b', 'c'])
    assert paths == {'a': tmp_path / 'name/a', 'b': tmp_path / 'b'}
    assert archives.locate(None, 'name', ['a']) == {}
    with pytest.raises(DataError, match='--manual_dir'):
        archives.locate(tmp_path / 'gone', 'name', ['a'])
