"""Sets that tensorflow-datasets has prepared: images of several forms and sizes, without TensorFlow."""

import io
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from lecture4.data import images, sources
from lecture4.data.dataset import DataError
from lecture4.data.sources import tfds_sets

FEATURES = tfds.features
PIXELS = [
    np.random.default_rng(i).integers(256, size=(4 + i % 2, 5, 3), dtype=np.uint8) for i in range(5)
]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'png')
    file.seek(0)
    return file


def prepare(data_dir, name, features, examples, version='1.2.0', config=None, **info):
    """Write a set of two splits, train and the first of its examples as test."""

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=FEATURES.FeaturesDict(features),
                disable_shuffling=True,
                **info,
            )

        def _split_generators(self, dl_manager):
            return {'train': self._generate_examples(), 'test': self._generate_examples(1)}

        def _generate_examples(self, n=None):
            yield from enumerate(examples()[:n])

    Tiny.name = name
    tfds.disable_progress_bar()
    Tiny(data_dir=data_dir).download_and_prepare(file_format='array_record')


def cats_and_dogs(data_dir, **options):
    prepare(
        data_dir,
        options.pop('name', 'cats_and_dogs'),
        {
            'image': FEATURES.Image(shape=(None, None, 3)),
            'label': FEATURES.ClassLabel(names=['cat', 'dog']),
            'id': FEATURES.Text(),
        },
        lambda: [{'image': png(x), 'label': i % 2, 'id': str(i)} for i, x in enumerate(PIXELS)],
        supervised_keys=('image', 'label'),
        **options,
    )


def test_encoded_images_of_several_sizes(tmp_path, monkeypatch):
    cats_and_dogs(tmp_path)
    monkeypatch.setattr(tfds_sets, 'CHUNK', 2)
    data = sources.load('tfds:cats_and_dogs', data_dir=tmp_path)
    assert data.class_names == ('cat', 'dog') and np.asarray(data.labels).tolist() == [
        0,
        1,
        0,
        1,
        0,
    ]
    assert isinstance(data.images, tuple)
    for image, pixels in zip(data.images, PIXELS, strict=True):
        np.testing.assert_array_equal(image, pixels)
    test = sources.load('tfds:cats_and_dogs', 'test', data_dir=tmp_path)
    np.testing.assert_array_equal(test.images, PIXELS[:1])
    with pytest.raises(DataError, match="cats_and_dogs has no split 'val'; it has test, train"):
        sources.load('tfds:cats_and_dogs', 'val', data_dir=tmp_path)
    task = images.load('tfds:cats_and_dogs', image_size=3, pixels='stored', data_dir=tmp_path)
    assert task.train_images.shape == (5, 3, 3, 3)


def test_tensorflow_is_not_imported(tmp_path):
    cats_and_dogs(tmp_path)
    code = (
        'import sys\n'
        'from lecture4.data import sources\n'
        f'print(len(sources.load("tfds:cats_and_dogs", data_dir={str(tmp_path)!r}).images))\n'
        'print("tensorflow" in sys.modules)'
    )
    assert subprocess.check_output([sys.executable, '-c', code], text=True).split() == [
        '5',
        'False',
    ]


@pytest.mark.parametrize('encoding', list(FEATURES.Encoding))
def test_images_as_tensors_and_other_names_of_the_features(tmp_path, encoding):
    pixels = np.stack([x[:4, :, :1] for x in PIXELS])
    prepare(
        tmp_path,
        'tensors',
        {
            'scan': FEATURES.Tensor(shape=(4, 5, 1), dtype=np.uint8, encoding=encoding),
            'digit': FEATURES.Scalar(dtype=np.int64),
        },
        lambda: [{'scan': x, 'digit': 2 * i} for i, x in enumerate(pixels)],
        supervised_keys=('scan', 'digit'),
    )
    data = sources.load('tfds:tensors', data_dir=tmp_path)
    np.testing.assert_array_equal(data.images, pixels)
    assert np.asarray(data.labels).tolist() == [0, 2, 4, 6, 8] and len(data.class_names) == 9


@pytest.mark.parametrize('label', [None, -1])
def test_sets_without_labels(tmp_path, label):
    features: dict[str, Any] = {'image': FEATURES.Image(shape=(4, 5, 3))}
    if label:
        features['label'] = FEATURES.ClassLabel(num_classes=3)
    examples = [{'image': x[:4]} | ({'label': label} if label else {}) for x in PIXELS]
    encoded = [x | {'image': png(x['image'])} for x in examples]
    prepare(tmp_path, 'bare', features, lambda: encoded)
    data = sources.load('tfds:bare', data_dir=tmp_path)
    assert data.labels is None and np.shape(data.images) == (5, 4, 5, 3)


def test_configs_and_versions(tmp_path):
    for version in ('1.9.0', '1.10.0'):
        cats_and_dogs(tmp_path, name='plain', version=version)
    for config in ('small', 'large'):
        cats_and_dogs(tmp_path, name='configured', config=config)

    def path(name):
        return str(tfds_sets._builder(name, tmp_path).data_path)[len(str(tmp_path)) + 1 :]

    assert path('plain') == 'plain/1.10.0' and path('plain:1.9.0') == 'plain/1.9.0'
    assert path('configured/small') == 'configured/small/1.2.0'
    with pytest.raises(DataError, match=r'has several configs in .*: large, small; name one'):
        path('configured')
    with pytest.raises(DataError, match=r'there are tfds:plain:1\.10\.0, tfds:plain:1\.9\.0'):
        path('plain:3.0.0')
    with pytest.raises(DataError, match=r'expected tfds:NAME, tfds:NAME/CONFIG or either'):
        path('../plain')


def test_what_cannot_be_read_says_how_to_prepare_it(tmp_path):
    with pytest.raises(
        DataError, match=r'tfds:mnist is not prepared in .*/no; that folder has no sets'
    ):
        sources.load('tfds:mnist', data_dir=tmp_path / 'no')
    cats_and_dogs(tmp_path)
    with pytest.raises(
        DataError, match=r'that folder has cats_and_dogs.*download_and_prepare'
    ) as e:
        sources.load('tfds:mnist', data_dir=tmp_path)
    assert "tfds.builder('mnist'" in str(e.value) and '--data_dir' in str(e.value)
    info = tmp_path / 'cats_and_dogs/1.2.0/dataset_info.json'
    content = json.loads(info.read_text())
    info.write_text(json.dumps(content | {'fileFormat': 'tfrecord'}))
    with pytest.raises(DataError, match='is stored as tfrecord, which needs TensorFlow to read'):
        sources.load('tfds:cats_and_dogs', data_dir=tmp_path)
    info.write_text(json.dumps(content))
    (records,) = info.parent.glob('*train*')
    records.write_bytes(records.read_bytes()[:-60])
    with pytest.raises(DataError, match=r'cats_and_dogs in .*1\.2\.0 is incomplete or damaged'):
        sources.load('tfds:cats_and_dogs', data_dir=tmp_path)
    info.write_text('{}')
    with pytest.raises(DataError, match='cannot be read without TensorFlow'):
        sources.load('tfds:cats_and_dogs', data_dir=tmp_path)


@pytest.mark.parametrize(
    ('features', 'example', 'match'),
    [
        (
            {'text': FEATURES.Text()},
            {'text': 'a'},
            r'expected a feature image of uint8 .*got text \(Text\)',
        ),
        (
            {'image': FEATURES.Tensor(shape=(2, 2, 1), dtype=np.float32)},
            {'image': np.zeros((2, 2, 1), np.float32)},
            'expected a feature image of uint8',
        ),
        (
            {
                'image': FEATURES.Tensor(shape=(2, 2, 1), dtype=np.uint8),
                'label': FEATURES.Tensor(shape=(2,), dtype=np.int64),
            },
            {'image': np.zeros((2, 2, 1), np.uint8), 'label': np.zeros(2, np.int64)},
            r'expected one integer label per image, got Tensor of shape \(2,\)',
        ),
    ],
)
def test_sets_of_other_features_are_refused(tmp_path, features, example, match):
    prepare(tmp_path, 'other', features, lambda: [example])
    with pytest.raises(DataError, match=match):
        sources.load('tfds:other', data_dir=tmp_path)
