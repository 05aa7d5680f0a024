"""The networks of table 1 have about the number of parameters that was allowed."""

import jax
import jax.numpy as jnp
import pytest

from lecture4.vision.models import distorted_digits


@pytest.mark.parametrize(('size', 'digit_size', 'num_params'), [(42, 28, 400_000), (12, 8, 20_000)])
@pytest.mark.parametrize('name', distorted_digits.names())
def test_number_of_parameters_is_just_below_what_is_allowed(name, size, digit_size, num_params):
    network = distorted_digits.create(name, (size, size, 1), digit_size, 10, num_params)
    x = jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32)
    (logits, _), variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert 0.95 * num_params < count <= num_params
    assert logits.shape == (2, 10)


def test_bad_input_has_one_clear_error():
    with pytest.raises(ValueError, match='expected one of FCN, CNN, ST-FCN affine'):
        distorted_digits.create('ST-CNN', (28, 28, 1))
    with pytest.raises(ValueError, match=r'has at least .* allow more'):
        distorted_digits.create('FCN', (28, 28, 1), num_params=100)
