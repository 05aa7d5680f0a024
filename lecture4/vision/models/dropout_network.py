"""A convolution with AlexNet's head, small: the effect of dropout by the size of the training set."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from lecture4.ops import pool
from lecture4.vision.layers import FullyConnected


class DropoutNetwork(nn.Module):
    """A 3 x 3 convolution with padding, ReLU, max pooling, and AlexNet's head of three dense layers.

    Attributes:
      features: Number of filters of the convolution.
      hidden_dim: Number of units of each hidden dense layer.
      dropout_rate: Dropout rate after each of them; AlexNet's is 0.5.
      n_classes: Number of classes.
    """

    features: int
    hidden_dim: int
    dropout_rate: float
    n_classes: int

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], *, train: bool = False
    ) -> Float[Array, 'n n_classes']:
        """Logits; with `train` dropout is on."""
        maps = nn.relu(nn.Conv(self.features, (3, 3), name='conv')(jnp.asarray(x)))
        maps = pool.max_pool(maps, 2, edge='torch')
        head = FullyConnected(
            self.n_classes,
            maps.shape[1],
            kernel_std=(2 * self.hidden_dim) ** -0.5,
            dropout_rate=self.dropout_rate,
            hidden_dim=self.hidden_dim,
            name='head',
        )
        return head(maps, train=train)[0]
