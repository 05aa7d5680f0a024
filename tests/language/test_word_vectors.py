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


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        (text().replace(b'4.0 5.0', b'4.0'), r'v\.txt, line 3: 2 numbers, wanted 3'),
        (text().replace(b'5.0', b'5.x'), r"v\.txt, line 3: could not convert .*5\.x.*mend"),
        (text().replace(b'5.0', b'nan'), r"v\.txt, line 3: the vector of 'cat' is not finite"),
        (b'4 3\n' + text().replace(b'8.0 9.0', b'8.0'), r'v\.txt, line 5: 2 numbers, wanted 3'),
        (b'5 3\n' + text(), r'holds 4 words, its first line says 5'),
        (binary()[:-3], r'word 4 of 4: the file ends'),
        (binary(count=6), r'word 5 of 6: the file ends'),
        (b'', r'line 1: .* no word with its numbers'),
        (b'word\n', r'line 1: .* no word with its numbers'),
        (binary().replace(FIVE, INFINITY), r"word 3 of 4: .*'cat' is not finite"),
    ],
)  # fmt: skip
def test_broken_files_are_named_with_the_line(content, match, tmp_path):
    (tmp_path / 'v.txt').write_bytes(content)
    with pytest.raises(ValueError, match=match):
        word_vectors.read(tmp_path / 'v.txt')


def test_a_cut_archive_and_a_missing_file(tmp_path):
    (tmp_path / 'v.txt.gz').write_bytes(gzip.compress(text())[:-9])
    with pytest.raises(ValueError, match='cut short'):
        word_vectors.read(tmp_path / 'v.txt.gz')
    with pytest.raises(FileNotFoundError):
        word_vectors.read(tmp_path / 'none.txt')


def test_aligned_and_random_tables():
    found = word_vectors.WordVectors(WORDS, VECTORS)
    table, given = word_vectors.aligned(found, {'cat': 3, 'the': 5, 'bird': 2}, 6, 3)
    np.testing.assert_array_equal(table[[3, 5]], VECTORS[[2, 0]])
    assert given.tolist() == [False, False, False, True, False, True] and (table[~given] == 0).all()
    with pytest.raises(ValueError, match='vectors of 3 numbers, wanted 300; set the size to 3'):
        word_vectors.aligned(found, {}, 6, 300)
    drawn = word_vectors.random_table(jax.random.key(0), 500, 40)
    assert (drawn[:2] == 0).all() and 0.24 < drawn.max() <= 0.25
    np.testing.assert_allclose(drawn[2:].var(), 0.5**2 / 12, rtol=0.03)
