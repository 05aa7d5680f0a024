import errno
import functools
import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest

from lecture4.data.dataset import DataError
from lecture4.data.sources import prepared
from lecture4.data.sources.builders.mnist.builder import Mnist


def snapshot(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob('*') if p.is_file()}


def test_mnist_is_read_as_it_was_written(tiny_mnist, tmp_path):
    before = snapshot(tiny_mnist.folder)
    for split in ('train', 'test'):
        images, labels = tiny_mnist.arrays[split]
        data = prepared.load(tiny_mnist.make, 'mnist', split)
        np.testing.assert_array_equal(data.images, images[..., None])
        np.testing.assert_array_equal(data.labels, labels)
        assert data.images.dtype == np.uint8 and data.labels.dtype == np.int32
        assert data.class_names == tuple('0123456789')
    assert snapshot(tiny_mnist.folder) == before
    # Once prepared, the set needs neither its files nor --download.
    again = functools.partial(Mnist, data_dir=tmp_path / 'prepared')
    assert len(prepared.load(again, 'mnist', 'test').images) == 3


def test_mnist_is_read_uncompressed_and_renamed(tiny_mnist, tmp_path):
    pins = []
    for pin in tiny_mnist.pins:
        content = gzip.decompress(tiny_mnist[pin.file].read_bytes())
        sha256 = hashlib.sha256(content).hexdigest()
        pins.append(pin._replace(contents=sha256, contents_size=len(content)))
        tiny_mnist[pin.file].unlink()
        name = pin.file.removesuffix('.gz').replace('-idx', '.idx')  # as some programs unpack it
        tiny_mnist[name].write_bytes(content)
    make = functools.partial(tiny_mnist.make, pins=tuple(pins))
    for split, (images, labels) in tiny_mnist.arrays.items():
        data = prepared.load(make, 'mnist', split)
        np.testing.assert_array_equal(data.images, images[..., None])
        np.testing.assert_array_equal(data.labels, labels)


def test_mnist_reads_in_several_chunks(tiny_mnist, monkeypatch):
    monkeypatch.setattr(prepared, 'CHUNK', 2)
    data = prepared.load(tiny_mnist.make, 'mnist', 'train')
    np.testing.assert_array_equal(data.images[..., 0], tiny_mnist.arrays['train'][0])


def test_any_tfds_reader_reads_the_prepared_set(tiny_mnist):
    prepared.prepare(tiny_mnist.make(), 'mnist')
    record = tiny_mnist.make().as_data_source('train')[4]
    images, labels = tiny_mnist.arrays['train']
    np.testing.assert_array_equal(record['image'][..., 0], images[4])
    assert record['label'] == labels[4]


def test_omniglot_labels_and_order(tiny_omniglot):
    names = ('Braille/character01', 'Greek/character01', 'Greek/character02', 'Angelic/character01')
    for split, drawings in tiny_omniglot.arrays.items():
        data = prepared.load(tiny_omniglot.make, 'omniglot', split)
        assert data.class_names == names  # in order of the numbers in the file names: 3, 11, 12, 20
        drawings = sorted(drawings, key=lambda d: d[:3])
        assert [data.class_names[label] for label in data.labels] == [
            f'{a}/{c}' for a, c, *_ in drawings
        ]
        np.testing.assert_array_equal(data.images[..., 0], np.stack([d[3] for d in drawings]))
        assert data.images.dtype == np.uint8
    records = tiny_omniglot.make().as_data_source('train')
    assert [record['alphabet'] for record in records] == [1, 1, 2, 2, 2, 2]  # after Angelic


def test_unknown_split_lists_those_that_exist(tiny_omniglot):
    with pytest.raises(DataError, match=r"no split 'valid'; it has small1, small2, test, train"):
        prepared.load(tiny_omniglot.make, 'omniglot', 'valid')


def test_missing_set_says_what_to_run_and_writes_nothing(tiny_mnist, tmp_path):
    make = functools.partial(tiny_mnist.make, manual_dir=None)
    with pytest.raises(DataError) as caught:
        prepared.load(make, 'mnist', 'train')
    for part in (
        '--download',
        '--manual_dir',
        'PATH/mnist',
        *(pin.file for pin in tiny_mnist.pins),
    ):
        assert part in str(caught.value)
    tiny_mnist['t10k-labels-idx1-ubyte.gz'].unlink()
    with pytest.raises(DataError, match=r'has t10k-labels-idx1-ubyte.gz$') as caught:
        prepared.load(tiny_mnist.make, 'mnist', 'train')
    assert str(tiny_mnist.folder) in str(caught.value)
    assert not (tmp_path / 'prepared').exists()


@pytest.mark.parametrize('damage', ['truncated', 'altered'])
def test_a_bad_second_file_leaves_no_set(tiny_mnist, tmp_path, damage):
    path = tiny_mnist['train-images-idx3-ubyte.gz']
    good = path.read_bytes()
    path.write_bytes(good[:-5] if damage == 'truncated' else good[:-1] + bytes([good[-1] ^ 1]))
    for _ in range(2):  # the second load sees nothing that could be a set
        with pytest.raises(DataError, match=r'train-images-idx3-ubyte.gz is truncated or altered'):
            prepared.load(tiny_mnist.make, 'mnist', 'test')
    assert not list((tmp_path / 'prepared').rglob('*array_record*'))
    path.write_bytes(good)
    assert len(prepared.load(tiny_mnist.make, 'mnist', 'test').images) == 3


def test_preparation_that_fails_while_writing_leaves_no_set(tiny_mnist, tmp_path, monkeypatch):
    generate = Mnist._generate_examples

    def fails(self, *paths):
        for key, example in generate(self, *paths):
            if key == 2:
                raise OSError(errno.ENOSPC, 'No space left on device')
            yield key, example

    monkeypatch.setattr(Mnist, '_generate_examples', fails)
    with pytest.raises(DataError, match=r'No space left on device.*--data_dir'):
        prepared.load(tiny_mnist.make, 'mnist', 'train')
    assert not list((tmp_path / 'prepared').rglob('*array_record*'))
    monkeypatch.setattr(Mnist, '_generate_examples', generate)
    assert len(prepared.load(tiny_mnist.make, 'mnist', 'train').images) == 5


def test_two_processes_may_prepare_at_once(tiny_mnist, monkeypatch):
    generate = Mnist._split_generators

    def overtaken(self, dl_manager):
        monkeypatch.setattr(Mnist, '_split_generators', generate)
        prepared.prepare(tiny_mnist.make(), 'mnist')
        return generate(self, dl_manager)

    monkeypatch.setattr(Mnist, '_split_generators', overtaken)
    assert len(prepared.load(tiny_mnist.make, 'mnist', 'train').images) == 5


@pytest.mark.parametrize(
    'damage', ['no info', 'no records', 'truncated records', 'altered records']
)
def test_damaged_prepared_set_is_refused(tiny_mnist, damage):
    builder = tiny_mnist.make()
    prepared.prepare(builder, 'mnist')
    (records,) = builder.data_path.glob('*train*')
    data = records.read_bytes()
    match damage:
        case 'no info':
            (builder.data_path / 'dataset_info.json').unlink()
        case 'no records':
            records.unlink()
        case 'truncated records':
            records.write_bytes(data[: len(data) // 2])
        case 'altered records':
            middle = len(data) // 2
            records.write_bytes(data[:middle] + bytes(64) + data[middle + 64 :])
    with pytest.raises(
        DataError, match=r'is incomplete or damaged .*; remove that folder'
    ) as caught:
        prepared.load(tiny_mnist.make, 'mnist', 'train')
    assert builder.data_dir in str(caught.value)


def test_files_that_disagree_are_refused(tiny_mnist):
    labels = tiny_mnist['train-labels-idx1-ubyte.gz']
    labels.write_bytes(tiny_mnist['t10k-labels-idx1-ubyte.gz'].read_bytes())
    make = functools.partial(tiny_mnist.make, pins=tiny_mnist.pinned())
    with pytest.raises(DataError, match=r'\(5, 28, 28\).* 3 labels'):
        prepared.load(make, 'mnist', 'train')
    labels.write_bytes(tiny_mnist['train-images-idx3-ubyte.gz'].read_bytes())
    make = functools.partial(tiny_mnist.make, pins=tiny_mnist.pinned())
    with pytest.raises(DataError, match=r'not an idx file .* 1 axes: it starts with 00 00 08 03'):
        prepared.load(make, 'mnist', 'train')


@pytest.fixture
def server(tiny_mnist):
    """The folder of archives on a local port, as a remote host would have it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        requests = []  # noqa: RUF012

        def log_message(self, *args):
            self.requests.append(self.path)

    handler = functools.partial(Quiet, directory=tiny_mnist.folder)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{running.server_port}/', Quiet.requests
        running.shutdown()
        thread.join()


def test_downloads_only_with_download(tiny_mnist, server, monkeypatch, tmp_path):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    url, requests = server
    make = functools.partial(tiny_mnist.make, manual_dir=None, pins=tiny_mnist.pinned(url))
    with pytest.raises(DataError, match='--download'):
        prepared.load(make, 'mnist', 'train')
    assert not requests
    data = prepared.load(make, 'mnist', 'train', download=True)
    np.testing.assert_array_equal(data.images[..., 0], tiny_mnist.arrays['train'][0])
    assert len(requests) == 4
    prepared.load(make, 'mnist', 'test', download=True)
    assert len(requests) == 4


def test_bad_or_failing_download_is_refused(tiny_mnist, server, monkeypatch, tmp_path):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    url, _ = server
    make = functools.partial(tiny_mnist.make, manual_dir=None, pins=tiny_mnist.pinned(url))
    path = tiny_mnist['train-images-idx3-ubyte.gz']
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    for _ in range(2):
        with pytest.raises(
            DataError, match=r'(?s)mnist: a download is truncated or altered.*train-im'
        ):
            prepared.load(make, 'mnist', 'train', download=True)
    path.unlink()
    with pytest.raises(DataError, match=r'could not be prepared.*404'):
        prepared.load(make, 'mnist', 'train', download=True)
    path.write_bytes(good)
    assert len(prepared.load(make, 'mnist', 'train', download=True).images) == 5
