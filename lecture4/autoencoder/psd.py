"""Predictive sparse decomposition: an encoder that guesses sparse codes, learned with the atoms.

Per example x, with atoms of norm 1 in the columns of D and a code h,

    E(h) = ||x - D h||^2 + weight |h|_1 + coupling ||h - f(x)||^2,   f(x) = gain tanh(x W + b).

Learning alternates: h begins at f(x) and takes about ten proximal gradient steps on E (`infer`),
then D and f take one gradient step with h fixed (`step`). Afterwards f(x) alone is the code: one
product, where sparse coding solves an optimisation for every example.

A plain gradient step on |h|_1 never gives a zero, and stalls above the minimum; the proximal step
is the one that `sparse.solvers` takes. E is a lasso in h (`as_lasso`), so that any of those solvers
gives the exact answer to compare with.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lecture4.autoencoder.network import Dense, affine
from lecture4.ops.linalg import lipschitz
from lecture4.sparse.dictionary import online
from lecture4.sparse.objective import L1, check, check_codes, product
from lecture4.sparse.solvers.proximal import proximal_steps


class Params(NamedTuple):
    """The decoder's atoms and the encoder, with a gain for every unit."""

    atoms: jax.Array  # [d, k], columns of norm 1
    encoder: Dense  # [d, k], [k]
    gain: jax.Array  # [k]


class State(NamedTuple):
    """What learning carries from batch to batch."""

    params: Params
    opt_state: optax.OptState


def init(key, x, k: int, optimizer: optax.GradientTransformation) -> State:
    """Atoms are random signals of norm 1; the encoder begins as their transpose, with gain 1.

    Shapes  x [n, d] float, n >= 1; k, the width of the code, may exceed d.
    Errors  as sparse.dictionary.init: TypeError for integers, ValueError for no signals or k < 1.
    """
    atoms = online.init(key, x, k).atoms
    params = Params(atoms, Dense(atoms, jnp.zeros(k, atoms.dtype)), jnp.ones(k, atoms.dtype))
    return State(params, optimizer.init(params))


def encode(params: Params, x, activation: Callable = jnp.tanh):
    """The fast code f(x) = gain * activation(x W + b): [n, d] -> [n, k].

    tanh is the paper's, and has no zeros. A soft threshold has; so do later learned encoders.
    """
    return params.gain[None, :] * activation(affine(params.encoder, x))


def energy(params: Params, x, h, *, weight, coupling, activation: Callable = jnp.tanh):
    """E(h) of every example, [n]; coupling 0 leaves sparse coding's objective.

    It is in the lecture's form, without a half: twice `sparse.objective.loss` at half the weight.
    Shapes  x [n, d], h [n, k]; weight, coupling scalars >= 0.
    Source  Kavukcuoglu, Ranzato & LeCun 2008, Fast inference in sparse coding algorithms.
    """
    error = jnp.sum((x - product(h, params.atoms.T)) ** 2, axis=1)
    distance = jnp.sum((h - encode(params, x, activation)) ** 2, axis=1)
    weight, coupling = jnp.asarray(weight, x.dtype), jnp.asarray(coupling, x.dtype)
    return error + weight * jnp.sum(jnp.abs(h), axis=1) + coupling * distance


def as_lasso(params: Params, x, *, weight, coupling, activation: Callable = jnp.tanh):
    """(signals, dictionary, weight) whose L1 codes, by any sparse solver, minimise E.

    ||x - D h||^2 + c ||h - f||^2 = ||[x, sqrt(c) f] - [D; sqrt(c) I] h||^2, and half of E is the
    solvers' objective.
    Shapes  x [n, d] -> signals [n, d + k], dictionary [d + k, k], weight as given, halved.
    """
    atoms = params.atoms
    root = jnp.sqrt(jnp.asarray(coupling, x.dtype))
    signals = jnp.concatenate([x, root * encode(params, x, activation)], axis=1)
    stacked = jnp.concatenate([atoms, root * jnp.eye(atoms.shape[1], dtype=x.dtype)], axis=0)
    return signals, stacked, jnp.asarray(weight, x.dtype) / 2


def infer(
    params: Params,
    x,
    *,
    weight,
    coupling,
    n_steps: int = 10,
    start=None,
    momentum: bool = True,
    activation: Callable = jnp.tanh,
):
    """Codes h after n_steps proximal gradient steps on E from f(x), or from `start`.

    With momentum they are FISTA's, without ISTA's, whose energy falls with every step. coupling 0
    ignores the encoder but for the start.

    Shapes  x [n, d]; start [n, k] or None; weight, coupling scalars, may be traced. Returns [n, k].
    Domain  weight > 0, coupling >= 0; n_steps >= 0 is static.
    Errors  TypeError for integers; ValueError where sizes disagree, or n_steps is negative.
    """
    if n_steps < 0:
        raise ValueError(f'n_steps {n_steps} has to be at least 0')
    check(x, params.atoms, weight)
    x, D, weight = check(
        *as_lasso(params, x, weight=weight, coupling=coupling, activation=activation)
    )
    begin = encode(params, x[:, : params.atoms.shape[0]], activation)
    if start is not None:
        begin = check_codes(start, x, D)
    # The coupling shifts every eigenvalue of D'D: the bound is cheaper without its d + k rows.
    bound = lipschitz(params.atoms) + jnp.asarray(coupling, x.dtype)
    step, codes, state = proximal_steps(x, D, weight, begin, L1, (bound, product(D.T, D)), momentum)
    return codes(lax.fori_loop(0, n_steps, lambda _, s: step(s), state))


def step(
    state: State,
    x,
    key=None,
    *,
    optimizer: optax.GradientTransformation,
    weight,
    coupling,
    n_steps: int = 10,
    uncoupled: bool = False,
    activation: Callable = jnp.tanh,
    axis_name=None,
):
    """One alternation: codes at fixed parameters, then one step of D, W, b and gain at fixed codes.

    uncoupled  infers h without the pull towards f(x), as the authors' published code does; the
               encoder still learns to predict h.
    Shapes     x [n, d]. Returns (State, metrics): means over the batch, before the parameters move,
               of energy, reconstruction ||x - D h||^2, prediction ||h - f(x)||^2, and density, the
               share of h that is not zero.
    Devices    With axis_name (pmap) gradients and metrics are averaged over the devices.
    Source     Kavukcuoglu et al. 2008, section 2.2: one step of stochastic gradient a batch, atoms
               rescaled to norm 1 after each.
    """
    del key  # nothing is drawn; loops hand one over
    pull = 0.0 if uncoupled else coupling
    h = lax.stop_gradient(
        infer(state.params, x, weight=weight, coupling=pull, n_steps=n_steps, activation=activation)
    )

    def value(params):
        run = energy(params, x, h, weight=weight, coupling=coupling, activation=activation)
        return jnp.mean(run)

    cost, grads = jax.value_and_grad(value)(state.params)
    params = state.params
    metrics = {
        'energy': cost,
        'reconstruction': jnp.mean(jnp.sum((x - product(h, params.atoms.T)) ** 2, axis=1)),
        'prediction': jnp.mean(jnp.sum((h - encode(params, x, activation)) ** 2, axis=1)),
        'density': jnp.mean(h != 0, dtype=x.dtype),
    }
    if axis_name is not None:
        grads, metrics = lax.pmean((grads, metrics), axis_name)
    with jax.numpy_dtype_promotion('standard'):  # optax's adam mixes integers and floats
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
    params = jax.tree.map(jnp.add, params, updates)
    return State(params._replace(atoms=_unit(params.atoms)), opt_state), metrics


def _unit(atoms):
    norm = jnp.linalg.norm(atoms, axis=0, keepdims=True)
    return atoms / jnp.where(norm > 0, norm, 1)
