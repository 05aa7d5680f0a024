"""Training and evaluation of an image network: losses, metrics, one training step."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from lecture4.ops.reduce import Reduce
from lecture4.ops.updates import apply_gradients
from lecture4.vision.models.googlenet import AUXILIARY_WEIGHT

Metrics = dict[str, Float[Array, '']]


def loss(
    outputs: tuple[Float[Array, 'n n_classes'], Mapping[str, Any]], batch: Mapping[str, Any]
) -> tuple[Float[Array, ''], Metrics]:
    """Objective and metrics of a network's outputs on a batch, means over the batch.

    The objective is the cross-entropy, plus that of auxiliary classifiers (activations named auxiliary_...)
    times AUXILIARY_WEIGHT.

    Args:
      outputs: (logits, activations) of a network.
      batch: A batch with int 'labels' [n].

    Returns:
      The objective, and {'loss' (cross-entropy in nats), 'accuracy' (a fraction)}.
    """
    logits, activations = outputs
    labels = batch['labels']
    value = cross_entropy(logits, labels)
    auxiliary = [a for name, a in activations.items() if name.startswith('auxiliary_')]
    objective = value + AUXILIARY_WEIGHT * sum(cross_entropy(a, labels) for a in auxiliary)
    is_correct = jnp.argmax(logits, axis=1) == labels
    return objective, {'loss': value, 'accuracy': jnp.mean(is_correct, dtype=jnp.float32)}


def train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    variables: Mapping[str, Any],
    opt_state: PyTree,
    batch: Mapping[str, Any],
    key: jax.Array,
    reduce: Reduce = Reduce(),
) -> tuple[dict[str, Any], PyTree, Metrics]:
    """One training step: the updated variables, optimizer state and metrics as in `loss`.

    Args:
      network: Any image network.
      optimizer: Optimizer of the parameters.
      variables: {'params', and 'batch_stats' if the network has batch norm}.
      opt_state: State of the optimizer.
      batch: {'images' [n, h, w, c], 'labels' int [n]}.
      key: Random key of the dropout.
      reduce: Reduction over devices of gradients, metrics and batch statistics; dropout differs between devices.
    """
    if reduce.axis_name is not None:
        key = reduce.fold_in(key)
        if hasattr(network, 'axis_name'):
            network = network.clone(axis_name=reduce.axis_name)

    def objective(params):
        outputs, updated = network.apply(
            {**variables, 'params': params},
            batch['images'],
            train=True,
            rngs={'dropout': key},
            mutable=['batch_stats'],
        )
        value, metrics = loss(outputs, batch)
        return value, (updated, metrics)

    params = variables['params']
    (_, (updated, metrics)), grads = jax.value_and_grad(objective, has_aux=True)(params)
    grads, metrics = reduce.mean((grads, metrics))
    params, opt_state = apply_gradients(optimizer, grads, opt_state, params)
    return {'params': params, **updated}, opt_state, metrics


def cross_entropy(logits: Float[Array, 'n n_classes'], labels: Int[Array, 'n']) -> Float[Array, '']:
    """Mean of -log softmax(logits)[label], in float32."""
    logits = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def eval_metrics(logits: Float[Array, 'n n_classes'], labels: Int[Array, 'n']) -> Metrics:
    """Cross-entropy (nats) and top-k accuracies (fractions) of a batch.

    Returns:
      {'loss', 'accuracy', and 'top5_accuracy' if there are more than five classes}. Equal logits are
      ranked by class index, as in `ops.metrics.ranks`.
    """
    logits = logits.astype(jnp.float32)
    label_logits = jnp.take_along_axis(logits, labels[:, None], axis=1)
    is_before = jnp.arange(logits.shape[1])[None, :] < labels[:, None]
    rank = jnp.sum((logits > label_logits) | ((logits == label_logits) & is_before), axis=1)
    names = {1: 'accuracy', 5: 'top5_accuracy'}
    accuracies = {
        name: jnp.mean(rank < k, dtype=jnp.float32)
        for k, name in names.items()
        if k < logits.shape[1]
    }
    return {'loss': cross_entropy(logits, labels), **accuracies}


def evaluate_chunks(
    logits_fn: Callable[[Any, Any], Float[Array, 'n n_classes']], variables: Any, chunks: Any
) -> Metrics:
    """`eval_metrics` of a set in chunks of one size, one chunk in memory at a time: means over all.

    Args:
      logits_fn: (variables, images [n, ...]) -> logits.
      variables: Variables of the network.
      chunks: {'images' [m, n, ...], 'labels' int [m, n]}.
    """

    def metrics_of(chunk):
        return eval_metrics(logits_fn(variables, chunk['images']), chunk['labels'])

    return jax.tree.map(jnp.mean, jax.lax.map(metrics_of, chunks))


def error_of_chunks(predict_fn: Callable[[Any], Any], chunks: Any) -> Float[Array, '']:
    """Error rate: fraction of examples whose predicted class is not their label, one chunk in memory at a time.

    Args:
      predict_fn: Images [n, ...] -> logits or probabilities [n, n_classes].
      chunks: {'images' [m, n, ...], 'labels' int [m, n], 'mask' bool [m, n]}: rows outside the mask do not count.
    """

    def count(chunk):
        predicted = jnp.argmax(predict_fn(chunk['images']), axis=1)
        return jnp.sum(chunk['mask'] & (predicted != chunk['labels'])), jnp.sum(chunk['mask'])

    wrong, n = (counts.sum() for counts in jax.lax.map(count, chunks))
    return wrong / n
