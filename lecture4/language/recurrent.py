"""Recurrent layers over padded sentences: ReLU recurrences, gated recurrent units, long short-term memory.

The result for a sentence does not depend on its padding.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from lecture4.language.sentence_cnn import symmetric_uniform
from lecture4.ops.varying import vary_like

Cell = Literal['relu', 'gru', 'lstm']
NUM_GATES = {'relu': 1, 'gru': 3, 'lstm': 4}
State = tuple[Float[Array, 'n h'], ...]


def initial_state(cell: Cell, n: int, hidden_dim: int, dtype=jnp.float32) -> State:
    """Zeros: (hidden,), followed by the memory cell of an LSTM."""
    zeros = jnp.zeros((n, hidden_dim), dtype)
    return (zeros, zeros) if cell == 'lstm' else (zeros,)


def advance(
    cell: Cell,
    state: State,
    inputs: Float[Array, 'n gates'],
    kernel: Float[Array, 'h gates'],
) -> State:
    """One step of a recurrence.

    'relu': h = max(0, inputs + h W). 'gru': gates r, z and candidate of Cho et al. 2014 in the form that
    applies the reset gate to h W. 'lstm': gates i, f, o, g of Hochreiter & Schmidhuber 1997 with a forget gate.

    Args:
      cell: Kind of the recurrence.
      state: As in `initial_state`.
      inputs: Contribution of the input to every gate, including biases; gates = h, 3 h or 4 h.
      kernel: W, concatenated over all gates.
    """
    h = state[0]
    recurrent = h @ kernel
    if cell == 'relu':
        return (jax.nn.relu(inputs + recurrent),)
    if cell == 'gru':
        size = h.shape[1]
        gates = jax.nn.sigmoid(inputs[:, : 2 * size] + recurrent[:, : 2 * size])
        reset, update = gates[:, :size], gates[:, size:]
        candidate = jnp.tanh(inputs[:, 2 * size :] + reset * recurrent[:, 2 * size :])
        return (update * h + (1 - update) * candidate,)
    i, f, o, g = jnp.split(inputs + recurrent, 4, axis=1)
    memory = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(memory), memory


def run(
    cell: Cell,
    inputs: Float[Array, 'n t gates'],
    mask: Bool[Array, 'n t'],
    kernel: Float[Array, 'h gates'],
    *,
    reverse: bool = False,
    state: State | None = None,
) -> Float[Array, 'n t h']:
    """Hidden states of all words; the state passes over padding unchanged.

    Args:
      cell: Kind of the recurrence.
      inputs: As in `advance`, for all words.
      mask: Mask of the words.
      kernel: As in `advance`.
      reverse: Whether to run from the last word to the first.
      state: Initial state; None takes zeros.
    """
    if state is None:
        state = initial_state(cell, inputs.shape[0], kernel.shape[0], inputs.dtype)

    def body(state, step):
        x, is_word = step
        new = advance(cell, state, x, kernel)
        kept = tuple(jnp.where(is_word[:, None], a, b) for a, b in zip(new, state, strict=True))
        return kept, kept[0]

    steps = (inputs.swapaxes(0, 1), mask.T)
    state = vary_like(state, (steps, kernel))
    _, hidden = jax.lax.scan(body, state, steps, reverse=reverse)
    return hidden.swapaxes(0, 1)


class Recurrence(nn.Module):
    """A recurrent layer, forward or bidirectional, over inputs that enter its gates by a dense layer.

    Attributes:
      hidden_dim: Dimension of the hidden state.
      cell: Kind of the recurrence.
      bidirectional: Whether a second recurrence from the end is added: h = forward + backward.
      project_inputs: Whether a dense layer maps the inputs to the gates; the published ReLU recurrence adds the
        inputs unchanged, and a bias for each direction.
    """

    hidden_dim: int
    cell: Cell = 'relu'
    bidirectional: bool = False
    project_inputs: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, 'n t d'], mask: Bool[Array, 'n t']) -> Float[Array, 'n t h']:
        """Hidden states of all words; those of padding are not meaningful."""
        gates = NUM_GATES[self.cell] * self.hidden_dim
        total = jnp.zeros((), x.dtype)
        for reverse in (False, True)[: 1 + self.bidirectional]:
            name = 'backward' if reverse else 'forward'
            kernel = self.param(f'{name}_kernel', self._kernel_init, (self.hidden_dim, gates))
            if self.project_inputs:
                inputs = nn.Dense(gates, name=f'{name}_inputs')(x)
            else:
                bias = self.param(f'{name}_bias', nn.initializers.zeros, (gates,))
                inputs = x + bias[None, None]
            hidden = run(self.cell, inputs, mask, kernel, reverse=reverse)
            total = hidden if not reverse else total + hidden
        return total

    def _kernel_init(self, key, shape):
        if self.cell == 'relu':  # with a larger scale the state explodes over long sentences
            return symmetric_uniform(1 / shape[0] ** 0.5)(key, shape)
        init = nn.initializers.orthogonal()
        keys = jax.random.split(key, NUM_GATES[self.cell])
        return jnp.concatenate([init(k, (shape[0], shape[0])) for k in keys], axis=1)
