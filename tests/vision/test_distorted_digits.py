"""The networks of table 1 have about the number of parameters that was allowed."""

import jax
import jax.numpy as jnp
import pytest

from lecture4.vision.models import distorted_digits


@pytest.mark.cases(8)
@pytest.mark.parametrize(('size', 'digit_size', 'num_params'), [(42, 28, 400_000), (12, 8, 20_000)])
@pytest.mark.parametrize('name', distorted_digits.TABLE_1)
def test_number_of_parameters_is_just_below_what_is_allowed(name, size, digit_size, num_params):
    network = distorted_digits.create(name, (size, size, 1), digit_size, 10, num_params)
    x = jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32)
    (logits, _), variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert 0.95 * num_params < count <= num_params
    assert logits.shape == (2, 10)


@pytest.mark.parametrize(('name', 'size'), [('ST-CNN-affine', 20), ('ST-CNN-deep', 12)])
def test_filters_of_localization_networks_fit_small_images(name, size):
    network = distorted_digits.create(name, (size, size, 1), size, 10, 50_000)
    x = jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32)
    (_, activations), _ = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    assert activations['input/theta'].shape == (2, 1, 6)


def test_bad_input_has_one_clear_error():
    with pytest.raises(ValueError, match='expected one of FCN, CNN, ST-FCN-affine'):
        distorted_digits.create('ST-CNN', (28, 28, 1))
    with pytest.raises(ValueError, match=r'has at least .* allow more'):
        distorted_digits.create('FCN', (28, 28, 1), num_params=100)


@pytest.mark.parametrize(
    ('name', 'shapes'),
    [
        ('2xST-FCN-affine', {'input/theta': (2, 2, 6), 'input/warped': (2, 12, 12, 4)}),
        ('ST-CNN-deep', {'input/theta': (2, 1, 6), 'conv2/theta': (2, 1, 6)}),
    ],
)
def test_transformers_in_parallel_and_at_depth(name, shapes):
    network = distorted_digits.create(name, (12, 12, 2), 12, 19, 30_000)
    x = jax.ShapeDtypeStruct((2, 12, 12, 2), jnp.float32)
    (logits, activations), variables = jax.eval_shape(
        network.init_with_output, jax.random.key(0), x
    )
    assert logits.shape == (2, 19)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) <= 30_000
    assert {key: activations[key].shape for key in shapes} == shapes


def test_rows_have_intervals_and_what_is_published():
    errors, counts = {'FCN': 0.1, 'CNN': 0.0}, {'FCN': 7, 'CNN': 8}
    fcn, cnn = distorted_digits.records(errors, 100, counts, distorted_digits.PUBLISHED['R'])
    assert fcn == {
        'network': 'FCN', 'parameters': 7, 'test_error': 0.1, 'published': 0.021,
        '95_%_interval': '5.52 to 17.44',
    }  # fmt: skip
    assert cnn['95_%_interval'] == '0.00 to 3.70'
    assert distorted_digits.records(errors, 100, counts)[0]['published'] is None
