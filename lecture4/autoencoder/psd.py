"""Predictive sparse decomposition: an encoder that predicts sparse codes, learned with the atoms.

Per example x, with atoms of norm 1 in the columns of D and a code h,

    E(h) = ||x - D h||^2 + l1_penalty |h|_1 + coupling ||h - f(x)||^2,   f(x) = gain tanh(x W + b).

Learning alternates: h begins at the encoder prediction f(x) and takes about ten proximal gradient
steps on E (`infer`), then D and f take one gradient step with h fixed (`step`). Afterwards f(x) alone is the code:
one matrix product, where sparse coding solves an optimization problem per example.

A gradient step on |h|_1 never yields zeros, and stalls above the minimum; the proximal step is that of
`sparse.solvers`. E is a lasso in h (`as_lasso`), so that any of those solvers computes the exact minimum for
comparison.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree, ScalarLike

from lecture4.autoencoder.network import Dense, affine
from lecture4.ops.linalg import lipschitz
from lecture4.ops.reduce import Reduce
from lecture4.ops.updates import apply_gradients
from lecture4.sparse.dictionary import online
from lecture4.sparse.objective import L1, check_codes, check_inputs, product
from lecture4.sparse.solvers.proximal import proximal_steps


class Params(NamedTuple):
    """The decoder's atoms, columns of norm 1, and the encoder with a gain for every unit."""

    atoms: Float[Array, 'd k']
    encoder: Dense
    gain: Float[Array, ' k']


class State(NamedTuple):
    """State of learning between batches."""

    params: Params
    opt_state: PyTree


def init(
    key: PRNGKeyArray,
    x: Float[ArrayLike, 'n d'],
    latent_dim: int,
    optimizer: optax.GradientTransformation,
) -> State:
    """Initialize atoms with random signals of norm 1, and the encoder with their transpose and gain 1.

    Args:
      key: A random key.
      x: Signals, n >= 1.
      latent_dim: Number of atoms k; may exceed d.
      optimizer: An optax gradient transformation.

    Raises:
      TypeError: x is an integer array.
      ValueError: There are no signals, or latent_dim is below 1.
    """
    atoms = online.init(key, x, latent_dim).atoms
    encoder = Dense(atoms, jnp.zeros(latent_dim, atoms.dtype))
    params = Params(atoms, encoder, jnp.ones(latent_dim, atoms.dtype))
    return State(params, optimizer.init(params))


def encode(
    params: Params, x: Float[ArrayLike, 'n d'], activation: Callable = jnp.tanh
) -> Float[Array, 'n k']:
    """The encoder prediction f(x) = gain * activation(x W + b).

    The paper's tanh yields no zeros; a soft threshold, used by later learned encoders, does.
    """
    return params.gain[None, :] * activation(affine(params.encoder, x))


def energy(
    params: Params,
    x: Float[ArrayLike, 'n d'],
    h: Float[ArrayLike, 'n k'],
    *,
    l1_penalty: ScalarLike,
    coupling: ScalarLike,
    activation: Callable = jnp.tanh,
) -> Float[Array, ' n']:
    """E(h) of every example; with coupling 0 the objective of sparse coding.

    It has the lecture's form, without a half: twice `sparse.objective.loss` at half the penalty.

    Args:
      params: Atoms and encoder.
      x: Signals.
      h: Codes.
      l1_penalty: Weight of the l1 penalty, nonnegative.
      coupling: Weight of the coupling term, nonnegative.
      activation: Activation of the encoder.

    References:
      Kavukcuoglu, Ranzato & LeCun 2008, Fast inference in sparse coding algorithms.
    """
    x, h = jnp.asarray(x), jnp.asarray(h)
    error = jnp.sum((x - product(h, params.atoms.T)) ** 2, axis=1)
    distance = jnp.sum((h - encode(params, x, activation)) ** 2, axis=1)
    l1_penalty, coupling = jnp.asarray(l1_penalty, x.dtype), jnp.asarray(coupling, x.dtype)
    return error + l1_penalty * jnp.sum(jnp.abs(h), axis=1) + coupling * distance


def as_lasso(
    params: Params,
    x: Float[ArrayLike, 'n d'],
    *,
    l1_penalty: ScalarLike,
    coupling: ScalarLike,
    activation: Callable = jnp.tanh,
) -> tuple[Float[Array, 'n stacked'], Float[Array, 'stacked k'], Float[Array, '']]:
    """The lasso whose codes, by any sparse solver, minimize E.

    ||x - D h||^2 + c ||h - f||^2 = ||[x, sqrt(c) f] - [D; sqrt(c) I] h||^2, and half of E is the
    solvers' objective.

    Returns:
      (signals, dictionary, weight): the extended signals and dictionary, and half of l1_penalty.
    """
    x, atoms = jnp.asarray(x), params.atoms
    root = jnp.sqrt(jnp.asarray(coupling, x.dtype))
    signals = jnp.concatenate([x, root * encode(params, x, activation)], axis=1)
    stacked = jnp.concatenate([atoms, root * jnp.eye(atoms.shape[1], dtype=x.dtype)], axis=0)
    return signals, stacked, jnp.asarray(l1_penalty, x.dtype) / 2


def infer(
    params: Params,
    x: Float[ArrayLike, 'n d'],
    *,
    l1_penalty: ScalarLike,
    coupling: ScalarLike,
    n_steps: int = 10,
    start: Float[ArrayLike, 'n k'] | None = None,
    momentum: bool = True,
    activation: Callable = jnp.tanh,
) -> Float[Array, 'n k']:
    """Inferred codes: n_steps proximal gradient steps on E from f(x), or from `start`.

    With momentum the steps are FISTA's, without momentum ISTA's, whose energy decreases in every step. With coupling
    0 the encoder provides only the starting point.

    Args:
      params: Atoms and encoder.
      x: Signals.
      l1_penalty: Weight of the l1 penalty, positive; may be traced.
      coupling: Weight of the coupling term, nonnegative; may be traced.
      n_steps: Number of steps, nonnegative; static.
      start: Codes to start from; None starts from the encoder prediction.
      momentum: Whether to use Nesterov's momentum; static.
      activation: Activation of the encoder.

    Raises:
      TypeError: x is an integer array.
      ValueError: Shapes do not fit, or n_steps is negative.
    """
    if n_steps < 0:
        raise ValueError(f'expected n_steps to be at least 0, got {n_steps}')
    check_inputs(x, params.atoms, l1_penalty)
    lasso = as_lasso(params, x, l1_penalty=l1_penalty, coupling=coupling, activation=activation)
    signals, D, weight = check_inputs(*lasso)
    first = encode(params, signals[:, : params.atoms.shape[0]], activation)
    if start is not None:
        first = check_codes(start, signals, D)
    # The coupling shifts every eigenvalue of D'D: the bound is cheaper to compute without the d + k rows.
    bound = lipschitz(params.atoms) + jnp.asarray(coupling, signals.dtype)
    step, codes, state = proximal_steps(
        signals, D, weight, first, L1, (bound, product(D.T, D)), momentum
    )
    return codes(lax.fori_loop(0, n_steps, lambda _, s: step(s), state))


def step(
    state: State,
    x: Float[ArrayLike, 'n d'],
    key: PRNGKeyArray | None = None,
    *,
    optimizer: optax.GradientTransformation,
    l1_penalty: ScalarLike,
    coupling: ScalarLike,
    n_steps: int = 10,
    uncoupled: bool = False,
    activation: Callable = jnp.tanh,
    reduce: Reduce = Reduce(),
) -> tuple[State, dict[str, Float[Array, '']]]:
    """One alternation: codes at fixed parameters, then one step of D, W, b and gain at fixed codes.

    Args:
      state: State from `init` or the previous step.
      x: The batch; on each device, its part.
      key: Not used; accepted because training loops pass one.
      optimizer: An optax gradient transformation.
      l1_penalty: Weight of the l1 penalty, positive; may be traced.
      coupling: Weight of the coupling term, nonnegative; may be traced.
      n_steps: Number of proximal gradient steps.
      uncoupled: Whether to infer h without the coupling term, as the authors' published code does; the encoder is
        still trained to predict h.
      activation: Activation of the encoder.
      reduce: Reduction over the devices that share the batch.

    Returns:
      (state, metrics): means over the batch, before the update, of `energy`, `reconstruction`
      ||x - D h||^2, `prediction` ||h - f(x)||^2, and `density`, the fraction of h that is not zero.

    References:
      Kavukcuoglu et al. 2008, section 2.2: one step of stochastic gradient per batch, atoms rescaled
      to norm 1 after each.
    """
    del key
    x = jnp.asarray(x)
    h = lax.stop_gradient(
        infer(
            state.params,
            x,
            l1_penalty=l1_penalty,
            coupling=0.0 if uncoupled else coupling,
            n_steps=n_steps,
            activation=activation,
        )
    )

    def mean_energy(params):
        return jnp.mean(
            energy(params, x, h, l1_penalty=l1_penalty, coupling=coupling, activation=activation)
        )

    params = state.params
    value, grads = jax.value_and_grad(mean_energy)(reduce.vary(params))
    metrics = {
        'energy': value,
        'reconstruction': jnp.mean(jnp.sum((x - product(h, params.atoms.T)) ** 2, axis=1)),
        'prediction': jnp.mean(jnp.sum((h - encode(params, x, activation)) ** 2, axis=1)),
        'density': jnp.mean(h != 0, dtype=x.dtype),
    }
    grads, metrics = reduce.mean((grads, metrics))
    params, opt_state = apply_gradients(optimizer, grads, state.opt_state, params)
    return State(params._replace(atoms=_normalize(params.atoms)), opt_state), metrics


def _normalize(atoms):
    norm = jnp.linalg.norm(atoms, axis=0, keepdims=True)
    return atoms / jnp.where(norm > 0, norm, 1)
