"""Training and asking an image network: cross-entropy, auxiliary classifiers, batch statistics, dropout."""

import jax
import jax.numpy as jnp
import optax

from lecture4.vision.models.googlenet import AUXILIARY_WEIGHT


def loss(network, variables, images, labels, key):
    """(objective, (batch statistics, metrics)) of a batch, with dropout; means over the batch.

    The objective is the cross-entropy, and of networks with auxiliary classifiers theirs times
    AUXILIARY_WEIGHT besides.
    Shapes  variables {'params', and 'batch_stats' where there are}; images [n, h, w, c]; labels [n].
            Returns the new batch statistics ({} where there are none) and {'loss', 'top1'}, the
            cross-entropy and the share of right answers.
    """
    (logits, activations), new = network.apply(
        variables, images, train=True, rngs={'dropout': key}, mutable=['batch_stats']
    )
    value = cross_entropy(logits, labels)
    sides = [a for name, a in activations.items() if name.startswith('auxiliary_')]
    objective = value + AUXILIARY_WEIGHT * sum(cross_entropy(side, labels) for side in sides)
    right = jnp.argmax(logits, axis=1) == labels
    metrics = {'loss': value, 'top1': jnp.mean(right, dtype=jnp.float32)}
    return objective, (new.get('batch_stats', {}), metrics)


def descend(network, optimizer, variables, memory, batch, key, axis_name=None):
    """One step of training: (variables, the optimiser's memory, metrics as `loss` has them).

    batch      {'images', 'labels'}.
    axis_name  under pmap the axis of devices: gradients, metrics and batch statistics are means over it,
               dropout is each device's own.
    """
    if axis_name is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        if hasattr(network, 'axis_name'):
            network = network.clone(axis_name=axis_name)

    def loss_fn(params):
        given = variables | {'params': params}
        return loss(network, given, batch['images'], batch['labels'], key)

    params = variables['params']
    (_, (statistics, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    if axis_name is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
    updates, memory = optimizer.update(grads, memory, params)
    params = optax.apply_updates(params, updates)
    return (
        {'params': params} | ({'batch_stats': statistics} if statistics else {}),
        memory,
        metrics,
    )


def cross_entropy(logits, labels):
    """The mean of -log softmax(logits)[label], in float32."""
    logits = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def quality(logits, labels):
    """{'loss', 'top1', 'top5'} of logits [n, c]: the cross-entropy and shares of labels among the first.

    'top5' where there are more than five classes. Equal logits count by class number, as in ops.scores.ranks.
    """
    logits = logits.astype(jnp.float32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    before = jnp.arange(logits.shape[1])[None, :] < labels[:, None]
    rank = jnp.sum((logits > own) | ((logits == own) & before), axis=1)
    told = [k for k in (1, 5) if k < logits.shape[1]]
    shares = {f'top{k}': jnp.mean(rank < k, dtype=jnp.float32) for k in told}
    return {'loss': cross_entropy(logits, labels), **shares}


def scaled_biases(factor) -> optax.GradientTransformation:
    """Gradients of biases times a factor: Caffe's recipes learn them at twice the rate."""

    def update(updates, state, params=None):
        del params
        scale = lambda path, g: g * factor if path[-1].key == 'bias' else g  # noqa: E731
        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
