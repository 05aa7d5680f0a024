"""Word vectors come back from every format as they were written; what is broken is named."""

import gzip

import jax
import numpy as np
import pytest

from lecture4.language import word_vectors

WORDS = ('the', 'naïve', 'cat', 'dog')
VECTORS = np.array([[1, -2.5, 3e-3], [0.1, 0.2, 0.3], [4, 5, 6], [-7, 8, 9]], np.float32)


def text(words=WORDS, vectors=VECTORS):
    lines = [
        f'{w} {" ".join(map(repr, v.tolist()))}\n' for w, v in zip(words, vectors, strict=True)
    ]
    return ''.join(lines).encode()


def binary(newline=b'\n', count=4):
    records = [
        w.encode() + b' ' + v.astype('<f4').tobytes() + newline
        for w, v in zip(WORDS, VECTORS, strict=True)
    ]
    return f'{count} 3\n'.encode() + b''.join(records)


FIVE, INFINITY = np.float32(5).tobytes(), np.float32(np.inf).tobytes()
FORMS = {
    'glove.txt': text(),
    'word2vec.txt': b'4 3\n' + text(),
    'word2vec.bin': binary(),
    'no_newlines.bin': binary(b''),
    'glove.txt.gz': gzip.compress(text()),
    'word2vec.bin.gz': gzip.compress(binary()),
}


@pytest.mark.parametrize('name', FORMS)
@pytest.mark.parametrize('chunk', [1 << 20, 7])
def test_formats(name, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(word_vectors, 'CHUNK', max(chunk, 64) if 'bin' not in name else 64)
    (tmp_path / name).write_bytes(FORMS[name])
    found = word_vectors.read(tmp_path / name)
    assert found.words == WORDS and found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, VECTORS)
    some = word_vectors.read(tmp_path / name, {'dog', 'the', 'bird'})
    assert some.words == ('the', 'dog')
    np.testing.assert_array_equal(some.vectors, VECTORS[[0, 3]])


def test_binary_of_many_words_over_many_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(word_vectors, 'CHUNK', 64)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 11)).astype('<f4')
    words = [f'w{i}' * (1 + i % 9) for i in range(200)]
    content = b''.join(
        w.encode() + b' ' + v.tobytes() + b'\n' for w, v in zip(words, vectors, strict=True)
    )
    (tmp_path / 'v.bin').write_bytes(b'200 11\n' + content)
    found = word_vectors.read(tmp_path / 'v.bin')
    assert list(found.words) == words
    np.testing.assert_array_equal(found.vectors, vectors)


def test_words_with_spaces_and_repeated_words(tmp_path):
    (tmp_path / 'v.txt').write_bytes(text(('a', '. . .', 'a', 'b')))
    found = word_vectors.read(tmp_path / 'v.txt')
    assert found.words == ('a', '. . .', 'b')
    np.testing.assert_array_equal(found.vectors, VECTORS[[0, 1, 3]])  # of 'a' the first


GOOD = b'2 3\nfilm 0.1 0.2 0.3\ngreat 0.4 0.5 0.6\n'
LAYOUTS = {
    'aligned columns': GOOD.replace(b' ', b'   '),
    'indented': GOOD.replace(b'film', b'  film'),
    'a tab after the word': GOOD.replace(b'm 0', b'm\t0').replace(b't 0', b't\t0'),
    'tabs': GOOD.replace(b' ', b'\t'),
    'a byte-order mark': b'\xef\xbb\xbf' + GOOD,
    'a byte-order mark without header': b'\xef\xbb\xbf' + GOOD[4:],
    'Windows line ends': GOOD.replace(b'\n', b'\r\n'),
    'no newline at the end': GOOD[:-1],
    'blank lines': GOOD.replace(b'\n', b'\n\n'),
    'trailing spaces and tabs': GOOD.replace(b'\n', b' \t\n'),
    'gzip without the suffix': gzip.compress(GOOD),
    'a byte-order mark inside gzip': gzip.compress(b'\xef\xbb\xbf' + GOOD[4:]),
    'integers': GOOD.replace(b'0.', b''),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_text_is_read_with_any_separators(layout, tmp_path):
    (tmp_path / 'v.txt').write_bytes(LAYOUTS[layout])
    found = word_vectors.read(tmp_path / 'v.txt', ['film', 'great', 'bird'])
    scale = 10 if layout == 'integers' else 1
    assert found.words == ('film', 'great')
    np.testing.assert_allclose(
        found.vectors, scale * np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]), rtol=1e-6
    )
    assert word_vectors.read(tmp_path / 'v.txt').words == ('film', 'great')
    assert word_vectors.coverage(found, ['film', 'great', 'bird']) == '2 of 3 words found'


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        (b'PK\x03\x04' + bytes(60), 'is a zip archive; unzip it'),
        (b'BZh91AY&SY' + bytes(60), 'is a bzip2 archive'),
        (b'\xba\x16\x4f\x2f' + bytes(60), 'is a fastText model; name the text file'),
        (b'<!DOCTYPE html>\n<html>\n', 'is an HTML page'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:ab\n', 'is a git-lfs pointer'),
        (b'\x93NUMPY\x01\x00' + bytes(60), 'is a NumPy array without words'),
        (b'\x80\x04\x95' + bytes(60), 'is a Python pickle; export it'),
        (GOOD.decode().encode('utf-16'), 'is UTF-16 text; save it as UTF-8'),
        (b'# my vectors\n' + GOOD[4:], r"line 1: expected a header .* got b'# my vectors\\n'"),
        (GOOD.replace(b'\n', b'\r'), 'by carriage returns alone'),
        (GOOD[4:].replace(b'\n', b'\r'), 'by carriage returns alone'),
        (GOOD.replace(b'film', b'Film').replace(b'great', b'Great'),
         r"none of the 3 words .* 'bird', 'film', 'great'; its first words are 'Film', 'Great'"),
        (GOOD.replace(b' 0.3', b''), r'line 2: expected 3 numbers, got 2'),
        (b'', r'line 1: expected a header'),
    ],
)  # fmt: skip
def test_other_formats_are_named_with_the_fix(content, match, tmp_path):
    (tmp_path / 'v.txt').write_bytes(content)
    with pytest.raises(ValueError, match=match):
        word_vectors.read(tmp_path / 'v.txt', ['film', 'great', 'bird'])


def test_words_like_markup_or_numbers_are_words(tmp_path):
    words = ('<unk>', '1999', 'at 5', '</s>')
    (tmp_path / 'v.txt').write_bytes(text(words))
    found = word_vectors.read(tmp_path / 'v.txt')
    assert found.words == words
    np.testing.assert_array_equal(found.vectors, VECTORS)


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        (text().replace(b'4.0 5.0', b'4.0'), r'v\.txt, line 3: expected 3 numbers, got 2'),
        (text().replace(b'5.0', b'5.x'), r"v\.txt, line 3: could not convert .*5\.x.*fix"),
        (text().replace(b'5.0', b'nan'), r"v\.txt, line 3: the vector of 'cat' is not finite"),
        (b'4 3\n' + text().replace(b'8.0 9.0', b'8.0'), r'v\.txt, line 5: expected 3 numbers, got 2'),
        (b'5 3\n' + text(), r'contains 4 words, but its header says 5'),
        (binary()[:-3], r'word 4 of 4: the file ends'),
        (binary(count=6), r'word 5 of 6: the file ends'),
        (b'', r'line 1: expected a header of count and size, or a word and its numbers'),
        (b'word\n', r'line 1: expected a header of count and size, or a word and its numbers'),
        (binary().replace(FIVE, INFINITY), r"word 3 of 4: .*'cat' is not finite"),
    ],
)  # fmt: skip
def test_broken_files_are_named_with_the_line(content, match, tmp_path):
    (tmp_path / 'v.txt').write_bytes(content)
    with pytest.raises(ValueError, match=match):
        word_vectors.read(tmp_path / 'v.txt')


def test_a_cut_archive_and_a_missing_file(tmp_path):
    (tmp_path / 'v.txt.gz').write_bytes(gzip.compress(text())[:-9])
    with pytest.raises(ValueError, match='truncated'):
        word_vectors.read(tmp_path / 'v.txt.gz')
    with pytest.raises(FileNotFoundError):
        word_vectors.read(tmp_path / 'none.txt')


def test_vectors_of_a_table_are_scaled_to_a_norm(tmp_path):
    path = tmp_path / 'glove.txt'
    path.write_bytes(text())
    table, given = word_vectors.load_table(path, {'cat': 1, 'dog': 2, 'horse': 3}, 4, 3, norm=2.5)
    np.testing.assert_allclose(table[1], VECTORS[2] * 2.5 / np.linalg.norm(VECTORS[2]), rtol=1e-6)
    assert given.tolist() == [False, True, True, False] and not table[3].any()
    unscaled, _ = word_vectors.load_table(path, {'cat': 1}, 2, 3)
    np.testing.assert_array_equal(unscaled[1], VECTORS[2])


def test_filled_and_random_tables():
    found = word_vectors.WordVectors(WORDS, VECTORS)
    table, given = word_vectors.fill_table(found, {'cat': 3, 'the': 5, 'bird': 2}, 6, 3)
    np.testing.assert_array_equal(table[[3, 5]], VECTORS[[2, 0]])
    assert given.tolist() == [False, False, False, True, False, True] and (table[~given] == 0).all()
    with pytest.raises(
        ValueError, match='expected vectors of 300 numbers, got 3; set the size to 3'
    ):
        word_vectors.fill_table(found, {}, 6, 300)
    drawn = word_vectors.random_table(jax.random.key(0), 500, 40)
    assert (drawn[:2] == 0).all() and 0.24 < drawn.max() <= 0.25
    np.testing.assert_allclose(drawn[2:].var(), 0.5**2 / 12, rtol=0.03)
