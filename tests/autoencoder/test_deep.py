import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.autoencoder import deep, denoising, network
from lecture4.ops import losses

WIDTHS = (8, 6, 4, 2)


@pytest.fixture
def params():
    return network.init_autoencoder(jax.random.key(0), WIDTHS)


@pytest.fixture
def x():
    return jax.random.uniform(jax.random.key(1), (5, 8))


def test_the_paper_s_network_has_its_number_of_weights():
    """784-1000-500-250-30 and mirror: 2,837,314 numbers, biases counted."""
    shapes = jax.eval_shape(
        lambda key: network.init_autoencoder(key, (784, 1000, 500, 250, 30)), jax.random.key(0)
    )
    counted = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    widths = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]
    expected = sum(a * b + b for a, b in itertools.pairwise(widths))
    assert counted == expected == 2_837_314


def test_code_and_output_are_linear_unless_said(params, x):
    code = deep.encode(params, x)
    hidden = jax.nn.sigmoid(network.affine(params.encoder[0], x))
    hidden = jax.nn.sigmoid(network.affine(params.encoder[1], hidden))
    np.testing.assert_allclose(code, network.affine(params.encoder[2], hidden), rtol=1e-5)
    logits = deep.decode(params, code)
    np.testing.assert_allclose(deep.loss(params, x), losses.bernoulli_nll(logits, x), rtol=1e-5)
    assert (deep.encode(params, x, code=jnp.tanh) == jnp.tanh(code)).all()


@pytest.mark.parametrize('i', [0, 1, 2])
def test_a_layer_learns_from_clean_codes_below_and_nothing_else_moves(params, x, i):
    def value(params):
        return deep.layer_loss(params, x, jax.random.key(0), i).mean()

    grads = jax.grad(value)(params)
    for j in range(3):
        moved = bool(jnp.any(grads.encoder[j].weight != 0))
        mirrored = bool(jnp.any(grads.decoder[2 - j].weight != 0))
        assert moved == mirrored == (i == j)


def test_the_first_layer_is_a_shallow_autoencoder(params, x):
    own = deep.layer(params, 0)
    h = jax.nn.sigmoid(network.affine(own.encoder[0], x))
    expected = losses.bernoulli_nll(network.affine(own.decoder[0], h), x)
    found = deep.layer_loss(params, x, jax.random.key(0), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert own.decoder[0].weight.shape == (6, 8)


def test_a_higher_layer_reconstructs_clean_codes_from_corrupted_ones(params, x):
    corrupt = lambda key, h: denoising.masking(key, h, 0.5)  # noqa: E731
    key = jax.random.key(3)
    below = jax.nn.sigmoid(network.affine(params.encoder[0], x))
    h = jax.nn.sigmoid(network.affine(params.encoder[1], corrupt(key, below)))
    output = jax.nn.sigmoid(network.affine(params.decoder[1], h))
    expected = losses.squared_error(below, output)
    found = deep.layer_loss(params, x, key, 1, corrupt=corrupt)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    other = deep.layer_loss(params, x, jax.random.key(4), 1, corrupt=corrupt)
    assert not np.allclose(found, other)  # noise is new with every key


def test_the_top_layer_has_the_codes_activation(params, x):
    below = network.apply(params.encoder[:2], x, jnp.tanh, jnp.tanh)
    h = network.affine(params.encoder[2], below)
    expected = losses.squared_error(below, jnp.tanh(network.affine(params.decoder[0], h)))
    found = deep.layer_loss(params, x, jax.random.key(0), 2, activation=jnp.tanh)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tied_stacks_train_layer_by_layer_too(x):
    tied = network.init_autoencoder(jax.random.key(0), WIDTHS, tied=True)
    apart = network.Autoencoder(tied.encoder, network.decoder_layers(tied))
    for i in range(3):
        found = deep.layer_loss(tied, x, jax.random.key(0), i)
        expected = deep.layer_loss(apart, x, jax.random.key(0), i)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_fine_tuning_starts_from_the_codes_and_trains_all_layers(params, x):
    layers = deep.init_classifier(params, 3)
    labels = jnp.array([0, 1, 2, 1, 0])
    value = lambda layers: deep.classifier_loss(layers, x, labels).mean()  # noqa: E731
    assert float(value(layers)) == pytest.approx(np.log(3), rel=1e-6)
    assert layers[:3] == params.encoder
    first = jax.grad(value)(layers)
    layers = jax.tree.map(lambda p, g: p - g, layers, first)
    assert all((abs(layer.weight) > 0).any() for layer in jax.grad(value)(layers))


def test_phases_end_where_their_lengths_say():
    found = [int(deep.phase(jnp.int32(step), (3, 0, 2))) for step in range(8)]
    assert found == [0, 0, 0, 2, 2, 3, 3, 3]


def test_a_layer_that_is_not_there_is_named(params):
    with pytest.raises(ValueError, match='there is no layer 3 with a mirror in 3 encoder'):
        deep.layer(params, 3)
    lopsided = network.init_autoencoder(jax.random.key(0), (8, 4, 2), decoder_widths=(2, 8))
    with pytest.raises(ValueError, match='2 encoder and 1 decoder'):
        deep.layer(lopsided, 0)
