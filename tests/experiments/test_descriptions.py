"""What trained models of image descriptions can do with features and sentences of a user's own."""

import dataclasses
import pickle

import jax
import numpy as np
import pytest

from experiments.descriptions import alignment, captions
from lecture4.language import word_vectors
from lecture4.vision.models import registry

SMALL = {'num_images': 12, 'batch_size': 4, 'steps': 2, 'embed_dim': 4}


@pytest.fixture(autouse=True)
def users_promotion():
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        yield


def trained(experiment, **fields):
    """(functions of a model, its initial state, its data)."""
    config = experiment.Config(**SMALL, **fields)
    data = experiment.data(config)
    state = jax.jit(experiment.build(config, data.spec).init)(jax.random.key(0), 0)
    functions = experiment.apply(config, data.spec)
    return {name: jax.jit(function) for name, function in functions.items()}, state, data


def test_alignment_scores_raw_features_and_sentences():
    functions, state, data = trained(alignment, stage='encode')
    split = data.report_data.splits['test']
    words = split.padded(np.arange(3))
    found = functions['scores'](state, split.images.features[:2], words)
    assert found.shape == (2, 3) and np.isfinite(found).all()
    regions = functions['encode'](state, {name: rows[:5] for name, rows in data.rows.items()})
    assert regions['regions'].shape == data.rows['words'][:5].shape
    assert int(regions['regions'].max()) < 8


def test_captions_describe_sample_and_score():
    functions, state, data = trained(captions, min_count=1)
    split = data.report_data.splits['test']
    features = split.images.features[:2]
    tokens = jax.jit(functions['describe'])(state, features)
    assert tokens.shape == (2, 16) and int(tokens.max()) < len(data.spec.constants['vocabulary'])
    sample = jax.jit(functions['sample'])
    sampled = sample(state, features, jax.random.key(0), temperature=2.0)
    likelihood = jax.jit(functions['log_likelihood'])(state, features, split.padded([0, 5]))
    assert sampled.shape == (2, 16) and (np.asarray(likelihood) < 0).all()


def test_features_of_a_network_with_weights_of_a_file(tmp_path):
    network = registry.create('alexnet_v2', 1, features_only=True)
    variables = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    layers = {f'Conv_{i}': variables['params'][f'conv{i + 1}'] for i in range(5)}
    path = tmp_path / 'alexnet.ckpt'
    path.write_bytes(pickle.dumps({'AlexNet_0': jax.tree.map(np.asarray, layers)}))
    fields = {'init': str(path), 'image_size': 64, 'feature_cache': str(tmp_path)}
    config = alignment.Config(**SMALL, features='alexnet_v2:conv5', **fields)
    data = alignment.data(config)
    images = data.report_data.splits['test'].images
    assert images.features.shape == (10, 8, 256) and len(list(tmp_path.glob('*.npz'))) == 4
    with pytest.raises(ValueError, match=r'--init is .*alexnet.ckpt.*NETWORK:ACTIVATION'):
        alignment.Config(init=str(path))
    with pytest.raises(ValueError, match=r"no activation 'fc7'; it has conv1"):
        alignment.data(dataclasses.replace(config, features='alexnet_v2:fc7'))


def test_a_config_names_the_option_that_is_wrong():
    with pytest.raises(ValueError, match=r'--margin is 0\.0'):
        alignment.Config(margin=0.0)
    with pytest.raises(ValueError, match=r'--beam_widths \(entry 2\) is 0'):
        captions.Config(beam_widths=(1, 0))


def test_word_vectors_of_a_numpy_file_are_those_of_their_words(tmp_path):
    path = tmp_path / 'vectors.npz'
    words = np.frombuffer(b'a\ndog\nzebra', np.uint8)
    q, scale = np.array([[1, 2], [3, -4]], np.int8), np.array([0.5, 2.0], np.float32)
    np.savez(path, words=words, row=np.array([0, 1, 1], np.uint16), q=q, scale=scale)
    found = word_vectors.read(path, {'zebra', 'a'})
    assert found.words == ('a', 'zebra')
    assert found.vectors.tolist() == [[0.5, 1.0], [6.0, -8.0]]
    table = word_vectors.scaled_table({'a': 2, 'cat': 3}, 4, 9, found, length=2.0)
    np.testing.assert_allclose(np.linalg.norm(table[2]), 2.0, rtol=1e-6)
    assert table.shape == (4, 2) and not table[0].any() and table[3].any()
    with pytest.raises(ValueError, match='contains none of the 1 words'):
        word_vectors.read(path, {'cat'})
    path.write_bytes(b'PK\x03\x04')
    with pytest.raises(ValueError, match='expected arrays words and vectors'):
        word_vectors.read(path)
