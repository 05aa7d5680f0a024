import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


@pytest.mark.parametrize('corruption', [None, 0.5])
def test_stages_are_the_layers_and_then_all_of_them(params, x, corruption):
    corrupt = None
    if corruption is not None:
        corrupt = functools.partial(denoising.masking, mask_rate=corruption)
    options = {'activation': jnp.tanh, 'latent_activation': jax.nn.sigmoid}
    key = jax.random.key(3)
    *layers, joint = deep.stage_losses(3, corrupt=corrupt, **options)
    for i, stage in enumerate(layers):
        expected = deep.layer_loss(params, x, key, i, corrupt=corrupt, **options)
        value, metrics = stage(params, x, key)
        assert float(value) == float(jnp.mean(expected)) and metrics == {}
    value, _ = joint(params, x, key)
    assert float(value) == float(jnp.mean(deep.loss(params, x, **options)))
    assert len(layers) == 3


def test_the_paper_s_network_has_its_number_of_weights():
    """784-1000-500-250-30 and mirror: 2,837,314 numbers, biases counted."""
    shapes = jax.eval_shape(
        lambda key: network.init_autoencoder(key, (784, 1000, 500, 250, 30)), jax.random.key(0)
    )
    counted = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    widths = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]
    expected = sum(a * b + b for a, b in itertools.pairwise(widths))
    assert counted == expected == 2_837_314


def test_code_and_output_are_linear_by_default(params, x):
    code = deep.encode(params, x)
    hidden = jax.nn.sigmoid(network.affine(params.encoder[0], x))
    hidden = jax.nn.sigmoid(network.affine(params.encoder[1], hidden))
    np.testing.assert_allclose(code, network.affine(params.encoder[2], hidden), rtol=1e-5)
    logits = deep.decode(params, code)
    np.testing.assert_allclose(deep.loss(params, x), losses.bernoulli_nll(logits, x), rtol=1e-5)
    assert (deep.encode(params, x, latent_activation=jnp.tanh) == jnp.tanh(code)).all()


@pytest.mark.parametrize('i', [0, 1, 2])
def test_only_the_layer_in_training_has_a_gradient(params, x, i):
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


def test_a_higher_layer_denoises_the_codes_below(params, x):
    def corrupt(key, h):
        return denoising.masking(key, h, 0.5)

    key = jax.random.key(3)
    below = jax.nn.sigmoid(network.affine(params.encoder[0], x))
    h = jax.nn.sigmoid(network.affine(params.encoder[1], corrupt(key, below)))
    output = jax.nn.sigmoid(network.affine(params.decoder[1], h))
    expected = losses.squared_error(below, output)
    found = deep.layer_loss(params, x, key, 1, corrupt=corrupt)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    other = deep.layer_loss(params, x, jax.random.key(4), 1, corrupt=corrupt)
    assert not np.allclose(found, other)  # noise is new with every key


def test_the_top_layer_has_the_latent_activation(params, x):
    below = network.apply(params.encoder[:2], x, jnp.tanh, jnp.tanh)
    h = network.affine(params.encoder[2], below)
    expected = losses.squared_error(below, jnp.tanh(network.affine(params.decoder[0], h)))
    found = deep.layer_loss(params, x, jax.random.key(0), 2, activation=jnp.tanh)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tied_stacks_have_the_layer_losses_of_untied_ones(x):
    tied = network.init_autoencoder(jax.random.key(0), WIDTHS, tied=True)
    apart = network.Autoencoder(tied.encoder, network.decoder_layers(tied))
    for i in range(3):
        found = deep.layer_loss(tied, x, jax.random.key(0), i)
        expected = deep.layer_loss(apart, x, jax.random.key(0), i)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_fine_tuning_starts_from_the_codes_and_trains_all(params, x):
    layers = deep.init_classifier(params, 3)
    labels = jnp.array([0, 1, 2, 1, 0])

    def value(layers):
        return deep.classifier_loss(layers, x, labels).mean()

    assert float(value(layers)) == pytest.approx(np.log(3), rel=1e-6)
    assert layers[:3] == params.encoder
    first = jax.grad(value)(layers)
    layers = jax.tree.map(lambda p, g: p - g, layers, first)
    assert all((abs(layer.weight) > 0).any() for layer in jax.grad(value)(layers))


def test_fine_tuning_learns_and_keeps_the_best_epoch(params):
    """Of sixty epochs the one that errs least on held-out examples is what comes back."""
    x = jax.random.uniform(jax.random.key(1), (120, 8))
    labels = (x[:, 0] > x[:, 1]).astype(jnp.int32)
    layers = deep.init_classifier(params, 2)
    train, valid = (x[:80], labels[:80]), (x[80:], labels[80:])

    @functools.partial(jax.jit, static_argnames='n_epochs')
    def tune(layers, rate, n_epochs):
        return deep.fine_tune(
            layers, train, valid, jax.random.key(2), n_epochs=n_epochs, batch_size=16,
            optimizer=optax.adam(rate),
        )  # fmt: skip

    error_rate = jax.jit(deep.error_rate)
    first = float(error_rate(layers, *valid))
    tuned, least = tune(layers, 0.02, 60)
    assert float(least) == pytest.approx(float(error_rate(tuned, *valid)))
    assert float(least) < 0.5 * first
    early, before = tune(layers, 0.02, 1)
    assert float(least) <= float(before)
    assert not np.allclose(early[0].weight, tuned[0].weight)
    with pytest.raises(ValueError, match='batch_size 90 exceeds the 80 training examples'):
        deep.fine_tune(
            layers, train, valid, jax.random.key(2), n_epochs=1, batch_size=90,
            optimizer=optax.identity(),
        )  # fmt: skip


def test_of_equal_epochs_the_earliest_is_kept(params, x):
    """Every epoch of one class is without error; batches of the whole set need no order."""
    examples = x, jnp.zeros(5, jnp.int32)

    def tune(n_epochs):
        layers = deep.init_classifier(params, 3)
        return deep.fine_tune(
            layers, examples, examples, jax.random.key(2), n_epochs=n_epochs, batch_size=5,
            optimizer=optax.sgd(0.1),
        )  # fmt: skip

    (first, error), (kept, _) = tune(1), tune(3)
    assert error == 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), kept, first)


def test_a_missing_layer_is_named(params):
    with pytest.raises(ValueError, match='there is no layer 3 with a mirror in 3 encoder'):
        deep.layer(params, 3)
    lopsided = network.init_autoencoder(jax.random.key(0), (8, 4, 2), decoder_dims=(2, 8))
    with pytest.raises(ValueError, match='2 encoder and 1 decoder'):
        deep.layer(lopsided, 0)


def test_equal_width_is_the_largest_within_the_parameters():
    dims = deep.equal_width_dims(64, 2, 6, 40_000)
    params = network.init_autoencoder(jax.random.key(0), dims)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    wider = (64, dims[1] + 1, dims[1] + 1, 6)
    assert count == deep.num_parameters(dims) <= 40_000 < deep.num_parameters(wider)
    with pytest.raises(ValueError, match='expected at least'):
        deep.equal_width_dims(64, 2, 6, 100)
