"""Top-k sparse autoencoders, with detection and revival of dead units.

    h = top_k(relu((x - b) W + c)),   reconstruction h U + b,   rows of U of norm 1.

A unit that is not among the k largest of any example gets no gradient and stays dead. Two remedies: an auxiliary
loss, in which the best of the dead units model the residual of the reconstruction, and `revive`,
which points dead units at the examples with the largest reconstruction error.

References:
  Makhzani & Frey 2013; Gao et al. 2024, Scaling and evaluating sparse autoencoders.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, ScalarLike

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Autoencoder, Dense
from lecture4.autoencoder.sparse import normalize_decoder
from lecture4.ops.losses import squared_error
from lecture4.ops.reduce import Reduce
from lecture4.ops.updates import apply_gradients

AUXILIARY_WEIGHT = 1 / 32
REVIVAL_SCALE = 0.5  # encoder norm of a revived unit, relative to the mean over living units


class State(NamedTuple):
    """State of training.

    Attributes:
      params: The autoencoder.
      opt_state: State of the optimizer.
      idle: Number of examples since each unit was last among the k largest of an example; a revival does not change it.
      since_revival: Number of examples since each unit was last revived, or since the start.
    """

    params: Autoencoder
    opt_state: Any
    idle: Float[Array, ' k']
    since_revival: Float[Array, ' k']


def top_k(h: Float[ArrayLike, '*batch latent'], k: int) -> Float[Array, '*batch latent']:
    """The k largest entries of every row, with the others set to 0.

    The gradient is that of the identity on the entries that are kept. Among equal entries the first ones are kept.

    Args:
      h: Activations.
      k: Number of entries to keep; static.

    Returns:
      An array of h's shape.

    Raises:
      ValueError: k is not between 1 and the number of entries.
    """
    h = jnp.asarray(h)
    latent_dim = h.shape[-1]
    if not 1 <= k <= latent_dim:
        raise ValueError(f'expected k between 1 and the latent dimension {latent_dim}, got {k}')
    _, largest = jax.lax.top_k(h, k)
    mask = jnp.put_along_axis(jnp.zeros_like(h), largest, 1, axis=-1, inplace=False)
    return h * mask


def init_params(key: PRNGKeyArray, x: Float[ArrayLike, 'n d'], latent_dim: int) -> Autoencoder:
    """Initialize decoder rows with random unit vectors, encoder = decoder', output bias = mean of x.

    Args:
      key: A random key.
      x: A sample of the data.
      latent_dim: Number of units.

    Returns:
      One encoder layer [d, latent_dim] and one decoder layer [latent_dim, d].

    Raises:
      ValueError: latent_dim is below 1.
    """
    x = jnp.asarray(x)
    d = x.shape[1]
    params = network.init_autoencoder(key, (d, latent_dim), scale=1.0, dtype=x.dtype)
    decoder = normalize_decoder(params).decoder[0]
    bias = jnp.zeros(latent_dim, x.dtype)
    return Autoencoder(
        (Dense(decoder.weight.T, bias),), (Dense(decoder.weight, jnp.mean(x, axis=0)),)
    )


def pre_activations(
    params: Autoencoder, x: Float[ArrayLike, 'n d']
) -> Float[Array, 'n latent_dim']:
    """(x - b) W + c of every unit, before the ReLU and the choice of the k largest."""
    return network.affine(params.encoder[0], x - params.decoder[0].bias[None, :])


def encode(params: Autoencoder, x: Float[ArrayLike, 'n d'], k: int) -> Float[Array, 'n latent_dim']:
    """Codes with at most k nonzero entries."""
    return top_k(jax.nn.relu(pre_activations(params, x)), k)


def decode(params: Autoencoder, code: Float[ArrayLike, 'n latent_dim']) -> Float[Array, 'n d']:
    """Reconstructions from codes."""
    return network.affine(params.decoder[0], code)


def loss(
    params: Autoencoder,
    x: Float[ArrayLike, 'n d'],
    k: int,
    *,
    dead: Bool[Array, ' latent_dim'] | None = None,
    k_auxiliary: int = 1,
    auxiliary_weight: ScalarLike = AUXILIARY_WEIGHT,
) -> tuple[
    Float[Array, ''], tuple[dict[str, Array], Bool[Array, ' latent_dim'], Float[Array, ' n']]
]:
    """Mean squared error of the reconstruction and, for dead units, the auxiliary loss.

    The auxiliary loss is the squared error with which the best dead units model the residual. Their
    reconstruction has no output bias, which the residual lacks too, and no gradient flows through
    the residual.

    Args:
      params: The autoencoder.
      x: Examples.
      k: Number of nonzero units per example.
      dead: Mask of the units that model the residual; None omits the auxiliary loss.
      k_auxiliary: Number of dead units per example in the auxiliary loss.
      auxiliary_weight: Weight of the auxiliary loss; may be traced.

    Returns:
      (loss, (metrics, used, error)): metrics `reconstruction` and `auxiliary`, means over the
      batch; used, whether an example of the batch uses a unit; error, the squared error of each example.
    """
    x = jnp.asarray(x)
    linear = pre_activations(params, x)
    code = top_k(jax.nn.relu(linear), k)
    reconstruction = decode(params, code)
    error = squared_error(x, reconstruction)
    mean_error = jnp.mean(error)
    used = jnp.any(code > 0, axis=0)
    auxiliary = jnp.zeros((), x.dtype)
    if dead is not None:

        def residual_error():
            # Before the ReLU: a dead unit may be dead because its pre-activations are negative.
            _, largest = jax.lax.top_k(
                jnp.where(dead[None, :], linear, -jnp.inf), min(k_auxiliary, linear.shape[1])
            )
            mask = jnp.put_along_axis(jnp.zeros_like(linear), largest, 1, axis=-1, inplace=False)
            # With fewer dead units than k_auxiliary, living units among the largest are left out.
            # Dense, because rows of weights gathered for every example would take many times the
            # memory.
            dead_code = jnp.where(dead[None, :], linear * mask, 0)
            residual = jax.lax.stop_gradient(x - reconstruction)
            return jnp.mean(squared_error(residual, dead_code @ params.decoder[0].weight))

        auxiliary = jax.lax.cond(jnp.any(dead), residual_error, lambda: jnp.zeros_like(mean_error))
    value = mean_error + jnp.asarray(auxiliary_weight, x.dtype) * auxiliary
    return value, ({'reconstruction': mean_error, 'auxiliary': auxiliary}, used, error)


def init(
    key: PRNGKeyArray,
    x: Float[ArrayLike, 'n d'],
    latent_dim: int,
    optimizer: optax.GradientTransformation,
) -> State:
    """The state before training: `init_params` on the data x, all counters at 0."""
    params = init_params(key, x, latent_dim)
    zeros = jnp.zeros(latent_dim, params.encoder[0].weight.dtype)
    return State(params, optimizer.init(params), zeros, zeros)


def step(
    state: State,
    x: Float[ArrayLike, 'n d'],
    key: PRNGKeyArray,
    *,
    optimizer: optax.GradientTransformation,
    k: int,
    patience: ScalarLike,
    auxiliary_weight: ScalarLike = AUXILIARY_WEIGHT,
    k_auxiliary: int | None = None,
    revive_dead: bool = False,
    reduce: Reduce = Reduce(),
) -> tuple[State, dict[str, Float[Array, '']]]:
    """One batch: gradient step, normalization of decoder rows, idle counts and, optionally, revival.

    A unit is dead or not by its use alone. A revived unit counts as dead until an
    example uses it, and is revived again if none does for another `patience` examples.

    Args:
      state: State from `init` or the previous step.
      x: The batch; on each device, its part.
      key: A random key, the same on all devices; used by revival only.
      optimizer: An optax gradient transformation.
      k: Number of nonzero units per example.
      patience: Number of examples without use after which a unit is dead.
      auxiliary_weight: Weight of the auxiliary loss; may be traced.
      k_auxiliary: Number of dead units per example in the auxiliary loss; None takes half the dimension of the data,
        as Gao et al. do.
      revive_dead: Whether to revive dead units in this step; static.
      reduce: Reduction over the devices that share the batch.

    Returns:
      (state, metrics): `loss`, `reconstruction` and `auxiliary`, means over the batch before the
      update, and `dead`, the number of units that no example used for `patience` examples before
      this batch.
    """
    x = jnp.asarray(x)
    n, d = x.shape
    dead = state.idle >= patience
    if k_auxiliary is None:
        k_auxiliary = min(d // 2 or 1, state.idle.shape[0])

    def objective(params):
        return loss(
            params, x, k, dead=dead, k_auxiliary=k_auxiliary, auxiliary_weight=auxiliary_weight
        )

    (value, (metrics, used, error)), grads = jax.value_and_grad(objective, has_aux=True)(
        reduce.vary(state.params)
    )
    grads, metrics = reduce.mean((grads, {'loss': value, **metrics}))
    used = reduce.max(used.astype(x.dtype)) > 0
    grads = tangential(grads, state.params)
    params, opt_state = apply_gradients(optimizer, grads, state.opt_state, state.params)
    params = normalize_decoder(params)
    n_seen = n * reduce.num_devices
    idle = jnp.where(used, 0, state.idle + n_seen)
    since_revival = state.since_revival + n_seen
    if revive_dead:
        due = dead & (state.since_revival >= patience)
        params = revive(key, params, x, error, due, living=~dead, reduce=reduce)
        opt_state = jax.tree.map(
            lambda leaf: _reset_moments(leaf, due) if isinstance(leaf, Autoencoder) else leaf,
            opt_state,
            is_leaf=lambda leaf: isinstance(leaf, Autoencoder),
        )
        since_revival = jnp.where(due, 0, since_revival)
    metrics['dead'] = jnp.sum(dead).astype(x.dtype)
    return State(params, opt_state, idle, since_revival), metrics


def tangential(grads: Autoencoder, params: Autoencoder) -> Autoencoder:
    """Gradients without their component along each unit decoder row, which normalization undoes."""
    weight, row = grads.decoder[0].weight, params.decoder[0].weight
    along = jnp.sum(weight * row, axis=1, keepdims=True)
    return Autoencoder(grads.encoder, (Dense(weight - along * row, grads.decoder[0].bias),))


def revive(
    key: PRNGKeyArray,
    params: Autoencoder,
    x: Float[ArrayLike, 'n d'],
    error: Float[ArrayLike, ' n'],
    dead: Bool[Array, ' latent_dim'],
    *,
    living: Bool[Array, ' latent_dim'] | None = None,
    scale: ScalarLike = REVIVAL_SCALE,
    reduce: Reduce = Reduce(),
) -> Autoencoder:
    """Replace dead units by the directions of examples sampled in proportion to their squared loss.

    A revived unit's decoder row is the direction of the example minus the output bias; its encoder
    is the same direction at `scale` times the mean norm of living units, its bias 0.

    The scale is a compromise: weaker units stay outside the k largest, stronger ones displace
    trained units. Of 256 units, half of them initially never used, after 800 steps of Adam at
    learning rate 3e-3, batches of 256, patience 2560, no auxiliary loss, and 400 more without
    revival: the number of units in use, and the unexplained fraction of the variance (means over two seeds). Data:
      4096 sums of 3 of 64 random sources in 16 dimensions, and
    scikit-learn's digits.

        scale        none       0.2        0.35       0.5        0.7        1.0
        sources
          k = 4   128  0.120  122  0.120  200  0.110  224  0.104  233  0.110  240  0.146
          k = 16  124  0.004  122  0.005  192  0.015  226  0.032  245  0.059  255  0.065
        digits
          k = 4   122  0.133  208  0.118  239  0.133  250  0.182  234  0.258  194  0.498
          k = 16  128  0.052  254  0.039  253  0.046  255  0.059  256  0.054  256  0.058

    Where half of the units suffice (k = 16), revival costs accuracy.

    Args:
      key: A random key, the same on all devices.
      params: The autoencoder.
      x: Examples; on each device, its part.
      error: Squared reconstruction error of each example.
      dead: Mask of the units to revive.
      living: Mask of the units whose mean encoder norm is the unit of `scale`; None takes all except `dead`.
      scale: Encoder norm of a revived unit relative to living ones.
      reduce: Reduction over the devices that share the batch. Each samples from its own examples and the
        directions are averaged, so that parameters stay equal on all.

    Returns:
      The autoencoder with `dead` units replaced.

    References:
      Bricken et al. 2023, Towards monosemanticity, appendix (encoder norm 0.2 of the mean, and
      Adam's moments reset).
    """
    x, error = jnp.asarray(x), jnp.asarray(error)
    encoder, decoder = params.encoder[0], params.decoder[0]
    odds = error * error
    odds = jnp.where(jnp.sum(odds) > 0, odds, 1)
    rows = jax.random.choice(key, x.shape[0], dead.shape, p=odds / jnp.sum(odds))
    aim = reduce.mean(x[rows] - decoder.bias[None, :])
    energy = jnp.sum(aim * aim, axis=1, keepdims=True)
    aim = aim / jnp.sqrt(jnp.where(energy > 0, energy, 1))
    norms = jnp.linalg.norm(encoder.weight, axis=0)
    is_living = (~dead if living is None else living).astype(x.dtype)
    typical = jnp.sum(norms * is_living) / jnp.maximum(jnp.sum(is_living), 1)
    weight = jnp.asarray(scale, x.dtype) * jnp.where(typical > 0, typical, 1) * aim.T
    return Autoencoder(
        (
            Dense(
                jnp.where(dead[None, :], weight, encoder.weight), jnp.where(dead, 0, encoder.bias)
            ),
        ),
        (Dense(jnp.where(dead[:, None], aim, decoder.weight), decoder.bias),),
    )


def _reset_moments(moments: Autoencoder, units) -> Autoencoder:
    """An optimizer's moments with the entries of some units set to 0."""
    encoder, decoder = moments.encoder[0], moments.decoder[0]
    return Autoencoder(
        (Dense(jnp.where(units[None, :], 0, encoder.weight), jnp.where(units, 0, encoder.bias)),),
        (Dense(jnp.where(units[:, None], 0, decoder.weight), decoder.bias),),
    )
