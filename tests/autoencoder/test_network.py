import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Dense


def test_layers_are_applied_in_order_each_with_its_activation():
    rng = np.random.default_rng(0)
    layers = tuple(
        Dense(rng.normal(size=(a, b)).astype(np.float32), rng.normal(size=b).astype(np.float32))
        for a, b in ((5, 4), (4, 3), (3, 2))
    )
    x = rng.normal(size=(6, 5)).astype(np.float32)
    first = np.tanh(x @ layers[0].weight + layers[0].bias)
    second = np.maximum(first @ layers[1].weight + layers[1].bias, 0)
    third = np.exp(second @ layers[2].weight + layers[2].bias)
    found = network.activations(layers, x, (jnp.tanh, jax.nn.relu), jnp.exp)
    for ours, expected in zip(found, (first, second, third), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=1e-6)
    one = network.apply(layers, x[0], (jnp.tanh, jax.nn.relu), jnp.exp)
    np.testing.assert_allclose(one, third[0], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    'scale, std',
    [('glorot', (2 / 500) ** 0.5), ('sigmoid', 4 * (2 / 500) ** 0.5), ('lecun', 200**-0.5),
     ('he', (2 / 200) ** 0.5), (0.01, 0.01)],
)  # fmt: skip
def test_initial_weights_have_the_requested_std(scale, std):
    (layer,) = network.init(jax.random.key(0), (200, 300), scale=scale)
    assert float(jnp.std(layer.weight)) == pytest.approx(std, rel=0.02)
    assert abs(float(jnp.mean(layer.weight))) < 0.02 * std
    assert not layer.bias.any()


def test_every_layer_has_its_own_random_weights():
    first, second = network.init(jax.random.key(0), (4, 4, 4))
    assert not np.allclose(first.weight, second.weight)


def test_tied_gradient_is_the_sum_of_both_uses():
    key = jax.random.key(1)
    tied = network.init_autoencoder(key, (6, 4, 3), tied=True)
    x = jax.random.normal(key, (5, 6))

    def value(params):
        code = network.encode(params, x, jnp.tanh, jnp.tanh)
        return jnp.sum((x - network.decode(params, code, jnp.tanh)) ** 2)

    untied = network.Autoencoder(tied.encoder, network.decoder_layers(tied))
    np.testing.assert_allclose(value(tied), value(untied), rtol=1e-6)
    grads, apart = jax.grad(value)(tied), jax.grad(value)(untied)
    for i in range(2):
        both = apart.encoder[i].weight + apart.decoder[1 - i].weight.T
        np.testing.assert_allclose(grads.encoder[i].weight, both, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(grads.decoder[i], apart.decoder[i].bias, rtol=1e-5, atol=1e-6)
    assert len(jax.tree.leaves(tied)) == 6  # two weights, two and two biases


@pytest.mark.parametrize(
    'layer_dims, decoder', [((6, 9), (9, 7, 6)), ((6, 2), None), ((5, 8, 3), None)]
)
def test_encoder_and_decoder_of_any_shape(layer_dims, decoder):
    params = network.init_autoencoder(jax.random.key(0), layer_dims, decoder_dims=decoder)
    code = network.encode(params, jnp.ones((2, layer_dims[0])), jnp.tanh)
    assert code.shape == (2, layer_dims[-1])
    assert network.decode(params, code, jnp.tanh).shape == (2, layer_dims[0])


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'layer_dims': (6, 0)}, r'at least 1, got \(6, 0\)'),
        ({'layer_dims': (6,)}, 'an input and an output'),
        ({'layer_dims': (6, 3), 'scale': 'xavier'}, "one of glorot.*, got 'xavier'"),
        (
            {'layer_dims': (6, 3), 'decoder_dims': (3, 5)},
            r'latent dimension 3 to the data dimension 6, got \(3, 5\)',
        ),
        ({'layer_dims': (6, 3), 'decoder_dims': (3, 4, 6), 'tied': True}, 'cannot be tied'),
    ],
)
def test_impossible_architectures_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        network.init_autoencoder(jax.random.key(0), **arguments)


def test_inputs_that_do_not_fit_are_named():
    layers = network.init(jax.random.key(0), (6, 5, 4))
    with pytest.raises(ValueError, match=r'expected x of 6 values per example, got shape \(2, 7\)'):
        network.apply(layers, jnp.ones((2, 7)), jnp.tanh)
    with pytest.raises(ValueError, match='2 activations for 1 hidden'):
        network.apply(layers, jnp.ones((2, 6)), (jnp.tanh, jnp.tanh))


def test_each_autoencoder_has_a_key_of_its_own():
    made = network.init_each(jax.random.key(0), {'a': (4, 3), 'b': (4, 3), 'c': (4, 2)}, tied=True)
    keys = jax.random.split(jax.random.key(0), 3)
    expected = network.init_autoencoder(keys[1], (4, 3), tied=True)
    np.testing.assert_array_equal(made['b'].encoder[0].weight, expected.encoder[0].weight)
    assert made['c'].encoder[0].weight.shape == (4, 2)
    assert not np.array_equal(made['a'].encoder[0].weight, made['b'].encoder[0].weight)
