"""Sparse codes of exactly k units, and units that no example uses: found, counted, revived.

    h = top_k(relu((x - b) W + c)),   reconstruction h U + b,   rows of U of norm 1.

A unit outside every example's k largest gets no gradient and stays dead. Two remedies: an auxiliary
loss, in which the best of the dead units model what the reconstruction has missed, and `revive`,
which points dead units at the examples that are reconstructed worst.

Sources  Makhzani & Frey 2013; Gao et al. 2024, Scaling and evaluating sparse autoencoders.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Autoencoder, Dense
from lecture4.autoencoder.sparse import normalised
from lecture4.ops.losses import squared_error

AUXILIARY = 1 / 32  # weight of the auxiliary loss
REVIVED_SCALE = 0.2  # encoder norm of a revived unit, relative to the mean of the living


class State(NamedTuple):
    """What training carries: parameters, the optimiser's state, and each unit's idle time."""

    params: Autoencoder
    opt_state: Any
    idle: jax.Array  # float [k]: examples since the unit was last used


def top_k(h, k):
    """The k largest entries of every row, the others 0.

    Shapes  h [..., width]. Returns h's shape; among equal entries the first ones are kept.
    Grad    that of the identity on what is kept.
    Errors  ValueError unless 1 <= k <= width.
    """
    width = h.shape[-1]
    if not 1 <= k <= width:
        raise ValueError(f'k {k} of top-k is not between 1 and {width}, the width of the code')
    _, chosen = jax.lax.top_k(h, k)
    kept = jnp.put_along_axis(jnp.zeros_like(h), chosen, 1, axis=-1, inplace=False)
    return h * kept


def init_params(key, x, width) -> Autoencoder:
    """Unit decoder rows in random directions, encoder = decoder', output bias = mean of x.

    Shapes  x [n, d] a sample of the data.
    Errors  ValueError for width < 1.
    """
    d = x.shape[1]
    params = network.init_autoencoder(key, (d, width), scale=1.0, dtype=x.dtype)
    decoder = normalised(params).decoder[0]
    bias = jnp.zeros(width, x.dtype)
    return Autoencoder(
        (Dense(decoder.weight.T, bias),), (Dense(decoder.weight, jnp.mean(x, axis=0)),)
    )


def responses(params: Autoencoder, x):
    """What the units answer before the k largest are chosen, not negative: [n, d] -> [n, width]."""
    centred = x - params.decoder[0].bias[None, :]
    return jax.nn.relu(network.affine(params.encoder[0], centred))


def encode(params: Autoencoder, x, k):
    """Codes with at most k units that are not 0: [n, d] -> [n, width]."""
    return top_k(responses(params, x), k)


def decode(params: Autoencoder, code):
    """The code's reconstruction: [n, width] -> [n, d]."""
    return network.affine(params.decoder[0], code)


def loss(params: Autoencoder, x, k, *, dead=None, k_dead=1, auxiliary=AUXILIARY):
    """Mean ||x - g(h)||^2 and, for dead units, the auxiliary loss; (loss, (metrics, used, error)).

    dead      bool [width]: units that model the residual, k_dead of them an example; None: no such
              loss. Their reconstruction is without the output bias, which the residual lacks too;
              no gradient flows through the residual.
    Returns   metrics reconstruction and auxiliary; used, bool [width]: units that some example
              used; error [n], each example's.
    """
    pre = responses(params, x)
    code = top_k(pre, k)
    reconstruction = decode(params, code)
    error = squared_error(x, reconstruction)
    mean_error = jnp.mean(error)
    used = jnp.any(code > 0, axis=0)
    extra = jnp.zeros((), x.dtype)
    if dead is not None:

        def missed():
            # Responses before the ReLU: a dead unit may be dead because they are below 0.
            linear = network.affine(params.encoder[0], x - params.decoder[0].bias[None, :])
            _, chosen = jax.lax.top_k(
                jnp.where(dead[None, :], linear, -jnp.inf), min(k_dead, linear.shape[1])
            )
            kept = jnp.put_along_axis(jnp.zeros_like(linear), chosen, 1, axis=-1, inplace=False)
            # Fewer dead units than k_dead: the others that were chosen stay out. Dense, because
            # rows of weights gathered for every example would be many times the memory.
            code = jnp.where(dead[None, :], linear * kept, 0)
            residual = jax.lax.stop_gradient(x - reconstruction)
            return jnp.mean(squared_error(residual, code @ params.decoder[0].weight))

        extra = jax.lax.cond(jnp.any(dead), missed, lambda: jnp.zeros((), x.dtype))
    value = mean_error + jnp.asarray(auxiliary, x.dtype) * extra
    return value, ({'reconstruction': mean_error, 'auxiliary': extra}, used, error)


def init(key, x, width, optimizer) -> State:
    """The state before training; `optimizer` is an optax GradientTransformation, x [n, d] data."""
    params = init_params(key, x, width)
    return State(params, optimizer.init(params), jnp.zeros(width, x.dtype))


def step(
    state: State,
    x,
    key,
    *,
    optimizer,
    k,
    patience,
    auxiliary=AUXILIARY,
    k_dead=None,
    revive_dead=False,
    axis_name=None,
):
    """One batch: gradient step, unit decoder rows, idle times, and, if wanted, revival.

    patience     examples that a unit may stay unused before it is dead.
    auxiliary    weight of the auxiliary loss; it may be traced.
    k_dead       dead units per example in it; None: half the width of the data, as its authors.
    revive_dead  re-aim dead units in this step.
    Returns      (State, metrics): loss, reconstruction, auxiliary, dead (units dead before).
    """
    n, d = x.shape
    width = state.idle.shape[0]
    dead = state.idle >= patience
    k_dead = min(d // 2 or 1, width) if k_dead is None else k_dead

    def objective(params):
        return loss(params, x, k, dead=dead, k_dead=k_dead, auxiliary=auxiliary)

    (value, (metrics, used, error)), grads = jax.value_and_grad(objective, has_aux=True)(
        state.params
    )
    metrics = {'loss': value, **metrics}
    n_devices = 1
    if axis_name is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
        used = jax.lax.pmax(used.astype(x.dtype), axis_name) > 0
        n_devices = jax.lax.psum(1, axis_name)
    grads = tangential(grads, state.params)
    with jax.numpy_dtype_promotion('standard'):  # optax's adam mixes integers and floats
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = normalised(jax.tree.map(jnp.add, state.params, updates))
    idle = jnp.where(used, 0, state.idle + n * n_devices)
    if revive_dead:
        params = revive(key, params, x, error, dead, axis_name=axis_name)
        opt_state = jax.tree.map(
            lambda leaf: _forget(leaf, dead) if isinstance(leaf, Autoencoder) else leaf,
            opt_state,
            is_leaf=lambda leaf: isinstance(leaf, Autoencoder),
        )
        idle = jnp.where(dead, 0, idle)
    return State(params, opt_state, idle), {**metrics, 'dead': jnp.sum(dead).astype(x.dtype)}


def tangential(grads: Autoencoder, params: Autoencoder) -> Autoencoder:
    """The gradients without the part along each unit decoder row, which the norm undoes."""
    weight, row = grads.decoder[0].weight, params.decoder[0].weight
    along = jnp.sum(weight * row, axis=1, keepdims=True)
    return Autoencoder(grads.encoder, (Dense(weight - along * row, grads.decoder[0].bias),))


def revive(key, params: Autoencoder, x, error, dead, *, scale=REVIVED_SCALE, axis_name=None):
    """Dead units re-aimed at examples drawn in proportion to their squared loss.

    A revived unit's decoder row is the example, less the output bias, at norm 1; its encoder is the
    same direction at `scale` times the living units' mean norm, its bias 0.

    Shapes  x [n, d] with its errors [n], dead bool [width]. With axis_name each device draws from its own examples and
            the directions are averaged, so that parameters stay the same on all.
    Source  Bricken et al. 2023, Towards monosemanticity, appendix; there with Adam's moments reset.
    """
    encoder, decoder = params.encoder[0], params.decoder[0]
    width = dead.shape[0]
    odds = error * error
    odds = jnp.where(jnp.sum(odds) > 0, odds, 1)
    rows = jax.random.choice(key, x.shape[0], (width,), p=odds / jnp.sum(odds))
    aim = x[rows] - decoder.bias[None, :]
    if axis_name is not None:
        aim = jax.lax.pmean(aim, axis_name)
    energy = jnp.sum(aim * aim, axis=1, keepdims=True)
    aim = aim / jnp.sqrt(jnp.where(energy > 0, energy, 1))
    norms = jnp.linalg.norm(encoder.weight, axis=0)
    living = jnp.where(dead, 0, 1).astype(x.dtype)
    typical = jnp.sum(norms * living) / jnp.maximum(jnp.sum(living), 1)
    new = jnp.asarray(scale, x.dtype) * jnp.where(typical > 0, typical, 1) * aim.T
    return Autoencoder(
        (Dense(jnp.where(dead[None, :], new, encoder.weight), jnp.where(dead, 0, encoder.bias)),),
        (Dense(jnp.where(dead[:, None], aim, decoder.weight), decoder.bias),),
    )


def _forget(moments: Autoencoder, dead) -> Autoencoder:
    """An optimiser's moments with the entries of dead units set to 0."""
    encoder, decoder = moments.encoder[0], moments.decoder[0]
    return Autoencoder(
        (Dense(jnp.where(dead[None, :], 0, encoder.weight), jnp.where(dead, 0, encoder.bias)),),
        (Dense(jnp.where(dead[:, None], 0, decoder.weight), decoder.bias),),
    )
