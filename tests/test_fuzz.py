"""200 inputs altered at random: each is read as it is, or refused in a sentence, and no file is lost.

Seeded. Configs, flag files, images, text, word vectors, weights, arrays and run directories; the table of
what came of them is printed:

    python -m pytest -m slow tests/test_fuzz.py
"""

import collections
import gzip
import hashlib
import json
import shutil
import string

import jax
import numpy as np
import pytest
from absl import flags
from PIL import Image

from experiments.autoencoders import deep
from experiments.convnets import image_classification, sentence_classification
from experiments.sparse_coding import natural_image_bases
from lecture4 import train
from lecture4.data import sources
from lecture4.data.dataset import DataError
from lecture4.data.text import sentences
from lecture4.language import word_vectors
from lecture4.train import cli, experiment
from lecture4.train.checkpoint import CheckpointError
from lecture4.train.config import Config, UsageError
from lecture4.train.metric_writer import read
from lecture4.vision.weights import torch_format
from lecture4.vision.weights.state_dict import WeightsError
from tests.train import toy
from tests.vision import torch_pickles

pytestmark = pytest.mark.slow
MODULES = (toy, deep, image_classification, sentence_classification, natural_image_bases)
REFUSALS = (UsageError, CheckpointError, DataError, WeightsError, ValueError)
READ, REFUSED = 'read', 'refused'


def outcome(function, *args):
    """(READ, result), or (REFUSED, message) where the message is ours: not of a decoder or a parser."""
    try:
        return READ, function(*args)
    except SystemExit as error:
        assert error.code == 2, error.code
        return REFUSED, 'one line, exit code 2'
    except REFUSALS as error:
        assert type(error) in REFUSALS or isinstance(error, UsageError), repr(error)
        text = str(error)
        assert 15 < len(text) < 3000, text
        return REFUSED, text


def altered(rng, data):
    """A copy of bytes with some replaced, removed, repeated, or with its end cut off."""
    start = int(rng.integers(len(data)))
    stop = start + int(rng.integers(1, 9))
    part = data[start:stop]
    choices = (
        data[:start] + rng.bytes(len(part)) + data[stop:],
        data[:start] + data[stop:],
        data[:start] + part * int(rng.integers(2, 5)) + data[stop:],
        data[:start],
        data[:start] + bytes(len(part)) + data[stop:],
    )
    return choices[rng.integers(len(choices))]


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


VALUES = [
    '',
    '0',
    '-1',
    '1',
    '7',
    '1e3',
    '1e400',
    'nan',
    'inf',
    'true',
    'None',
    'x',
    'ä',
    '1,2',
    '0..3',
]
VALUES += [
    '../..',
    '--',
    '-',
    '=',
    ' ',
    '"',
    "'",
    '0x10',
    '1_000',
    '٣',
    '\x00',
    'a b',
    '99999999999999999999',
]


def random_words(rng, module):
    fields = list(module.Config.__dataclass_fields__)
    words = []
    for _ in range(int(rng.integers(1, 5))):
        name = pick(rng, fields)
        if rng.random() < 0.2:
            name = ''.join(rng.permutation(list(name)))
        words.append(pick(rng, ['--', '--', '--', '--no_', '-']) + name)
        words += [pick(rng, VALUES) for _ in range(int(rng.integers(0, 3)))]
        if rng.random() < 0.3:
            words[-1] = f'{words[-1]}={pick(rng, VALUES)}'
    return [word for word in words if word not in ('-h', '--help')]


def fuzz_config(rng, folder, number):
    module = MODULES[number % len(MODULES)]
    this = experiment.from_module(module)
    kind, result = outcome(cli.parse, this, random_words(rng, module))
    assert kind == REFUSED or isinstance(result, Config)
    return kind


def fuzz_flag_file(rng, folder, number):
    module = MODULES[number % len(MODULES)]
    lines = [' '.join(random_words(rng, module)) for _ in range(int(rng.integers(1, 6)))]
    lines += [
        pick(rng, ['', '# comment', '// comment', '--flagfile=missing', 'word', '\ufeff--steps=3'])
    ]
    lines = [lines[i] for i in rng.permutation(len(lines))]
    text = (
        pick(rng, ['\n', '\r\n', '\r'])
        .join(lines)
        .encode(pick(rng, ['utf-8', 'utf-16', 'latin-1']), 'replace')
    )
    path = folder / 'options.flags'
    path.write_bytes(altered(rng, text) if rng.random() < 0.3 else text)
    before = digests(folder)

    def parse():
        argv = cli._parse_absl_flags(['program', f'--flagfile={path}'])
        return cli.parse(experiment.from_module(module), argv[1:])

    kind, _ = outcome(parse)
    flags.FLAGS.unparse_flags()
    assert digests(folder) == before
    return kind


MODES = {'L': 1, 'RGB': 3, 'RGBA': 4, 'LA': 2}


def has_no_transparency(path):
    with Image.open(path) as image:
        return 'A' not in image.mode


def fuzz_image(rng, folder, number):
    """Four images in two classes, one of them altered; lossless ones that were not are read exactly."""
    suffix = pick(rng, ['.png', '.png', '.jpg', '.bmp', '.webp', '.gif', '.tif', '.ppm'])
    expected = []
    for name in 'ab':
        (folder / 'set' / name).mkdir(parents=True)
        for i in range(2):
            mode = 'RGB' if suffix in ('.jpg', '.ppm', '.gif', '.bmp') else pick(rng, list(MODES))
            shape = (*rng.integers(1, 12, 2), MODES[mode])
            pixels = rng.integers(0, 256, shape).astype(np.uint8)
            image = Image.fromarray(pixels[..., 0] if mode == 'L' else pixels, mode)
            options = {'lossless': True} if suffix == '.webp' else {}
            image.save(folder / 'set' / name / f'{i}{suffix}', **options)
            expected.append(pixels[..., :1] if mode in ('L', 'LA') else pixels[..., :3])
    victim = int(rng.integers(4))
    path = folder / 'set' / 'ab'[victim // 2] / f'{victim % 2}{suffix}'
    if number % 3:
        path.write_bytes(altered(rng, path.read_bytes()))
    before = digests(folder)
    kind, result = outcome(sources.load, f'dir:{folder / "set"}')
    assert digests(folder) == before
    if kind == REFUSED:
        assert number % 3 and str(path) in result
        return kind
    assert len(result.images) == 4 and result.labels.tolist() == [0, 0, 1, 1]
    for i, pixels in enumerate(expected):
        exact = suffix not in ('.jpg', '.gif') and (number % 3 == 0 or i != victim)
        if exact and has_no_transparency(folder / 'set' / 'ab'[i // 2] / f'{i % 2}{suffix}'):
            image = np.broadcast_to(
                result.images[i], (*pixels.shape[:2], result.images[i].shape[-1])
            )
            np.testing.assert_array_equal(image, np.broadcast_to(pixels, image.shape))
    return kind


ALPHABETS = ['abc déf', 'мир да', '最高 の', string.printable, 'a\u0301 e\u200d', '\U0001f600 :) a']


def fuzz_text(rng, folder, number):
    """As many sentences come out as lines with text went in, in their order."""
    words = pick(rng, ALPHABETS)
    lines = []
    for i in range(int(rng.integers(2, 30))):
        text = ''.join(pick(rng, words) for _ in range(int(rng.integers(1, 20))))
        text = ''.join(c for c in text if c not in '\t\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029')
        lines.append(f'{"np"[i % 2]}\tw {text}')
    data = (
        pick(rng, ['\n', '\n', '\r\n'])
        .join(lines)
        .encode(pick(rng, ['utf-8', 'utf-8-sig', 'utf-16']), 'replace')
    )
    intact = number % 2 == 0
    path = folder / 'set.tsv'
    path.write_bytes(data if intact else altered(rng, data))
    before = digests(folder)
    kind, result = outcome(sentences.load, f'tsv:{path}', 'all')
    assert digests(folder) == before
    if kind == READ and intact:
        assert len(result.texts) == len(lines)
        assert [result.class_names[c] for c in result.labels] == [line[0] for line in lines]
        assert all(text[0] == 'w' for text in result.texts)
    assert kind == READ or not intact, result
    return kind


def fuzz_vectors(rng, folder, number):
    """Words that are in the file have its numbers, whatever the form; altered files finite ones."""
    names = [f'w{i}' for i in range(int(rng.integers(2, 9)))]
    vectors = rng.normal(size=(len(names), int(rng.integers(2, 7)))).astype(np.float32)
    form = pick(rng, ['text', 'header', 'binary', 'gz', 'npz'])
    header = f'{len(names)} {vectors.shape[1]}\n'
    lines = [f'{w} {" ".join(map(str, v.tolist()))}\n' for w, v in zip(names, vectors, strict=True)]
    if form == 'binary':
        rows = (w.encode() + b' ' + v.tobytes() for w, v in zip(names, vectors, strict=True))
        data = header.encode() + b''.join(rows)
    else:
        data = (header * (form == 'header') + ''.join(lines)).encode()
    path = folder / {'binary': 'v.bin', 'gz': 'v.txt.gz', 'npz': 'v.npz'}.get(form, 'v.txt')
    if form == 'npz':
        np.savez(path, words=np.frombuffer('\n'.join(names).encode(), np.uint8), vectors=vectors)
        data = path.read_bytes()
    intact = number % 3 == 0
    data = data if intact else altered(rng, data)
    path.write_bytes(gzip.compress(data) if form == 'gz' else data)
    before = digests(folder)
    kind, result = outcome(word_vectors.read, path, names)
    assert digests(folder) == before
    if intact:
        assert kind == READ and list(result.words) == names
        np.testing.assert_allclose(result.vectors, vectors, rtol=1e-6)
    if kind == READ:
        assert len(result.words) == len(result.vectors) and set(result.words) <= set(names)
        assert form in ('binary', 'npz') or np.isfinite(result.vectors).all()
    return kind


def fuzz_weights(rng, folder, number, monkeypatch):
    arrays = {f't{i}': rng.normal(size=rng.integers(1, 5, 2)).astype(np.float32) for i in range(3)}
    form = pick(rng, ['zip', 'legacy', 'safetensors'])
    path = folder / ('w.safetensors' if form == 'safetensors' else 'w.pth')
    if form == 'safetensors':
        from safetensors.numpy import save_file

        save_file(arrays, path)
    else:
        write = torch_pickles.write_zip if form == 'zip' else torch_pickles.write_legacy
        write(path, arrays)
    intact = number % 4 == 0
    if not intact:
        path.write_bytes(altered(rng, path.read_bytes()))
    before = digests(folder)
    kind, result = outcome(torch_format.read, path)
    assert digests(folder) == before
    if intact:
        assert kind == READ
        for name, array in arrays.items():
            np.testing.assert_array_equal(result[name], array)
    return kind


def fuzz_arrays(rng, folder, number):
    n = int(rng.integers(2, 9))
    images = rng.integers(0, 256, (n, 5, 4, 3)).astype(
        pick(rng, [np.uint8, np.uint8, np.float32, np.int64])
    )
    images = images / np.float32(255) if images.dtype == np.float32 else images
    labels = rng.integers(0, 3, n - (rng.random() < 0.1))
    keys = pick(
        rng,
        [
            ('images', 'labels'),
            ('x_train', 'y_train'),
            ('train_images', 'train_labels'),
            ('a', 'b'),
        ],
    )
    path = folder / 'set.npz'
    pick(rng, [np.savez, np.savez_compressed])(
        path, **dict(zip(keys, (images, labels), strict=True))
    )
    intact = number % 3 == 0
    if not intact:
        path.write_bytes(altered(rng, path.read_bytes()))
    before = digests(folder)
    kind, result = outcome(sources.load, f'npz:{path}')
    assert digests(folder) == before
    if kind == READ:
        assert len(result.images) == n == len(result.labels)
        # a zip archive has a checksum of its contents
        np.testing.assert_array_equal(result.images, images)
        np.testing.assert_array_equal(result.labels, labels)
    return kind


def run_toy(directory):
    this = experiment.from_module(toy)
    options = ['--workdir', str(directory), '--progress', 'none', '--devices', '1', '--steps', '12']
    cli.run(this, cli.parse(this, [*options, '--save_every', '4', '--cache_dir', 'none']))


def numbers(directory):
    rows = read(directory / 'metrics.jsonl')
    return [{name: value for name, value in row.items() if name != 'seconds'} for row in rows]


def random_json(rng, value):
    """The value with one part of it replaced by something of another kind."""
    others = [None, [], {}, 'x', -1, 1e300, True, [[1, [2]]], {'a': {}}]
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = pick(rng, list(value))
        if rng.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: random_json(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = int(rng.integers(len(value)))
        return [*value[:i], random_json(rng, value[i]), *value[i + 1 :]]
    return pick(rng, others)


def fuzz_run(rng, folder, number, finished):
    """One file of a finished run altered; the same command then ends as it did, or says what is wrong."""
    directory = folder / 'run'
    shutil.copytree(finished, directory)
    files = [
        path for path in sorted(directory.rglob('*')) if path.is_file() and path.name != '.lock'
    ]
    documents = [path for path in files if path.suffix in ('.json', '.jsonl')]
    path = pick(rng, documents if number % 2 else files)
    data = path.read_bytes()
    if path.suffix == '.json' and rng.random() < 0.6:
        path.write_text(json.dumps(random_json(rng, json.loads(data))))
    elif path.suffix == '.jsonl' and rng.random() < 0.6:
        lines = data.decode().splitlines()
        i = int(rng.integers(len(lines)))
        lines[i] = json.dumps(random_json(rng, json.loads(lines[i])))
        path.write_text('\n'.join(lines) + '\n')
    elif data:
        path.write_bytes(altered(rng, data))
    before = digests(directory)
    outcome(train.load, directory, toy)
    assert digests(directory) == before
    kind, _ = outcome(run_toy, directory)
    after = digests(directory)
    in_checkpoint = 'checkpoints' in path.parts
    replaced = {'checkpoints', 'hyperparameters'}  # event files have the time in their names
    lost = [name for name in before if name not in after and not replaced & set(name.parts)]
    assert not lost and (in_checkpoint or len(after) >= len(before))
    if kind == READ and path.name != 'metrics.jsonl':
        assert numbers(directory) == numbers(finished)
    return kind


KINDS = {
    'configs': (fuzz_config, 30),
    'flag files': (fuzz_flag_file, 15),
    'images': (fuzz_image, 35),
    'text': (fuzz_text, 35),
    'word vectors': (fuzz_vectors, 25),
    'weights': (fuzz_weights, 25),
    'arrays': (fuzz_arrays, 15),
    'run directories': (fuzz_run, 20),
}
COUNTS: dict[str, collections.Counter] = {}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp('finished') / 'run'
    with jax.numpy_dtype_promotion('standard'):
        run_toy(directory)
    return directory


# Threads of a checkpoint that cannot be read call an event loop that is closed by then.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('kind', KINDS)
def test_altered_inputs_are_read_or_refused(kind, tmp_path, monkeypatch, request):
    function, count = KINDS[kind]
    more = ()
    if kind == 'weights':
        torch_pickles.install_names(monkeypatch)
        more = (monkeypatch,)
    if kind == 'run directories':
        more = (request.getfixturevalue('finished'),)
    COUNTS[kind] = collections.Counter()
    errors = []
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        rng = np.random.default_rng((number, list(KINDS).index(kind)))
        try:
            COUNTS[kind][function(rng, folder, number, *more)] += 1
        except Exception as error:
            COUNTS[kind]['wrong'] += 1
            errors.append(f'{number}: {type(error).__name__}: {" ".join(str(error).split())[:300]}')
    assert not errors, '\n'.join(errors)


def test_table_of_outcomes(capsys):
    assert sum(counts.total() for counts in COUNTS.values()) == 200
    with capsys.disabled():
        print(f'\n{"input":16} {"cases":>5} {READ:>5} {REFUSED:>8} {"wrong":>6}')
        for kind, counts in COUNTS.items():
            print(
                f'{kind:16} {counts.total():5} {counts[READ]:5} {counts[REFUSED]:8} {counts["wrong"]:6}'
            )
