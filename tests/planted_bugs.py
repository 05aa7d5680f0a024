"""Edits as a careless maintainer makes them, each with the tests that should notice.

(file, what stands there once, what is written instead, test files). All packages occur, and so do the
kinds that tests miss most easily: second rounds, inputs that are not square, ties, ends, and statistics.
"""

# fmt: off
# ruff: noqa: E501
PLANTED = [
    # ops: ties, ends, sides that differ
    ('lecture4/ops/pool.py', 'n = np.minimum(first + F, W) - np.maximum(first, 0)', 'n = np.minimum(first + F, W) - first', 'tests/ops/test_pool.py'),
    ('lecture4/ops/pool.py', 'n = np.minimum(first + F, W + high) - first', 'n = np.minimum(first + F, W + low) - first', 'tests/ops/test_pool.py'),
    ('lecture4/ops/metrics.py', '((scores == label_scores) & before)', '((scores == label_scores) & ~before)', 'tests/ops/test_metrics.py'),
    ('lecture4/ops/norm.py', 'below = min(size // 2, n - 1)', 'below = min((size - 1) // 2, n - 1)', 'tests/ops/test_norm.py'),
    ('lecture4/ops/boxes.py', "overlaps = inter / (a[4] + b[4] - inter) > threshold", "overlaps = inter / (a[4] + b[4] - inter) >= threshold", 'tests/ops/test_boxes.py'),
    ('lecture4/ops/boxes.py', '(y - y_a) / h_a', '(y - y_a) / w_a', 'tests/ops/test_boxes.py'),
    ('lecture4/ops/linalg.py', '* scale * scale * inflation', '* scale * inflation', 'tests/ops/test_linalg.py'),
    ('lecture4/ops/roi.py', '(a[0] == b[0]) & (a[1] <= b[1])', '(a[0] == b[0]) & (a[1] > b[1])', 'tests/ops/test_roi.py'),
    ('lecture4/ops/roi.py', 'channel = jnp.broadcast_to(jnp.arange(c', 'channel = jnp.broadcast_to(0 * jnp.arange(c', 'tests/ops/test_roi.py'),
    ('lecture4/ops/interpolate.py', '[:, None] * math.prod(size)', '[:, None] * size[-1] ** 2', 'tests/ops/test_sampling.py'),
    # sparse: certificates, warm starts, statistics of atoms
    ('lecture4/sparse/penalties.py', 'soft_threshold(v, t) / (1 + ridge * t)', 'soft_threshold(v, t) / (1 + ridge)', 'tests/sparse/test_penalties.py'),
    ('lecture4/sparse/penalties.py', 'lambda v, t: jnp.maximum(v - t, 0)', 'lambda v, t: jnp.where(v > t, v, 0)', 'tests/sparse/test_penalties.py'),
    ('lecture4/sparse/solvers/certificate.py', 'converged = gap <= self.tolerance * value', 'converged = gap <= self.tolerance * jnp.sum(self.x * self.x, axis=1)', 'tests/sparse/test_precision.py tests/sparse/test_penalties.py'),
    ('lecture4/sparse/solvers/certificate.py', 'stalled_checks=jnp.where(progress, 0, old.stalled_checks + 1)', 'stalled_checks=old.stalled_checks + 1', 'tests/sparse/test_solvers.py'),
    ('lecture4/sparse/dictionary/online.py', 'A = jnp.where(kept[:, None] & kept[None, :], A, 0)', 'A = jnp.where(kept[:, None] | kept[None, :], A, 0)', 'tests/sparse/test_dictionary.py'),
    ('lecture4/sparse/dictionary/online.py', 'keep = jnp.clip(1 - forgetting / (t + 1), 0, 1)', 'keep = jnp.clip(1 - forgetting / (t + 2), 0, 1)', 'tests/sparse/test_dictionary.py'),
    ('lecture4/sparse/dictionary/init.py', 'jnp.where(replaced, 0.1 * typical, usage)', 'usage', 'tests/sparse/test_dictionary.py'),
    ('lecture4/sparse/dictionary/lagrange_dual.py', 'free = used & ((l > 0) | (slope > 0))', 'free = used & (l > 0)', 'tests/sparse/test_lagrange_dual.py'),
    # features and classifiers: report statistics, folds, chance
    ('lecture4/features/label_efficiency.py', 'fold[rows] = (offset + np.arange(len(rows))) % n_folds', 'fold[rows] = np.arange(len(rows)) % n_folds', 'tests/features/test_label_efficiency.py'),
    ('lecture4/features/label_efficiency.py', 'jnp.where(correct == jnp.max(correct), distance, jnp.inf)', 'jnp.where(correct == jnp.max(correct), 0, jnp.inf) + 0 * distance', 'tests/features/test_label_efficiency.py'),
    ('lecture4/features/retrieval.py', 'kneighbors(return_distance=False)', 'kneighbors(points, return_distance=False)', 'tests/features/test_retrieval.py'),
    ('lecture4/features/selectivity.py', 'images[:, :size, s : s + size]', 'images[:, s : s + size, :size]', 'tests/features/test_selectivity.py'),
    ('lecture4/features/orientation.py', 'return in_wedge.max(0) /', 'return in_wedge.mean(0) /', 'tests/features/test_orientation.py'),
    ('lecture4/features/active_learning.py', 'jnp.where(labeled, jnp.inf, best[:, 0] - best[:, 1])', 'best[:, 0] - best[:, 1]', 'tests/features/test_active_learning.py'),
    ('lecture4/features/stimulus.py', 'order = jnp.argsort(-values)', 'order = jnp.argsort(values)', 'tests/features/test_stimulus.py'),
    # data: second epochs, order, borders, statistics
    ('lecture4/data/batches.py', 'np.random.default_rng((seed, epoch)).permutation', 'np.random.default_rng((seed, 0)).permutation', 'tests/data/test_batches.py'),
    ('lecture4/data/batches.py', 'rows[indices(class_seed, number, len(rows), rarest)]', 'rows[indices(class_seed, 0, len(rows), rarest)]', 'tests/data/test_batches.py'),
    ('lecture4/data/batches.py', 'positions[-1] // length + 1)', 'positions[0] // length + 1)', 'tests/data/test_batches.py'),
    ('lecture4/data/images/crops.py', "np.searchsorted(ends, positions, side='right')", "np.searchsorted(ends, positions, side='left')", 'tests/data/test_crops.py'),
    ('lecture4/data/images/crops.py', 'positions[rows] - (ends[i] - counts[i]), shapes[i][1] - patch_size + 1', 'positions[rows] - (ends[i] - counts[i]), shapes[i][0] - patch_size + 1', 'tests/data/test_crops.py'),
    ('lecture4/data/images/augment.py', 'lengths = jax.random.randint(length_key, (n, 1), low, high + 1)', 'lengths = jax.random.randint(length_key, (n, 1), low, high)', 'tests/data/test_augment.py'),
    ('lecture4/data/images/whiten.py', 'image / (image.std() or 1) for image in centered', 'image / image.std() for image in centered', 'tests/data/test_whiten.py'),
    ('lecture4/data/sources/decode.py', 'return (width, height) if _orientation(name, image) >= 5 else (height, width)', 'return (height, width)', 'tests/data/test_decode.py tests/data/test_on_disk.py tests/data/detection/test_sources.py'),
    ('lecture4/data/sources/folders.py', 'key=lambda e: e.name)', 'key=lambda e: e.inode())', 'tests/data/test_folders.py tests/data/test_denoising_sets.py'),
    ('lecture4/data/sources/folders.py', 'seen = seen | {folder.resolve()} if nested and folders else seen', 'seen = frozenset({folder.resolve()}) if nested and folders else seen', 'tests/data/test_folders.py'),
    ('lecture4/data/text/cross_validation.py', 'epoch * batches_per_epoch + step, len(train)', 'step, len(train)', 'tests/data/test_cross_validation.py'),
    ('lecture4/data/text/vocabulary.py', 'if length >= longest:', 'if length > longest:', 'tests/data/test_vocabulary.py'),
    ('lecture4/data/text/tokens.py', "text = unicodedata.normalize('NFC', text).translate(_TABLE)", 'text = text.translate(_TABLE)', 'tests/data/test_tokens.py'),
    ('lecture4/data/images/on_disk.py', 'np.searchsorted(same_class, row))[:-1]', 'np.searchsorted(same_class, row))[:-2]', 'tests/data/test_on_disk.py'),
    # language: brevity, ranks, masks
    ('lecture4/language/bleu.py', 'key=lambda m: (abs(m - length), m)', 'key=lambda m: (abs(m - length), -m)', 'tests/language/test_bleu.py'),
    ('lecture4/language/bleu.py', 'limits |= ngram_counts(reference, order)', 'limits += ngram_counts(reference, order)', 'tests/language/test_bleu.py'),
    ('lecture4/language/retrieval.py', 'return (scores >= match_scores[None]).sum(0)', 'return (scores > match_scores[None]).sum(0) + 1', 'tests/language/test_retrieval.py'),
    ('lecture4/language/alignment.py', "images = jnp.where(same, 0, jax.nn.relu(margin + scores - positive[None, :]))", "images = jnp.where(same, 0, jax.nn.relu(margin + scores - positive[:, None]))", 'tests/language/test_alignment.py'),
    ('lecture4/language/train_step.py', 'is_better = is_first | (latest[0] > results', 'is_better = is_first | (latest[0] >= results', 'tests/language/test_train_step.py'),
    ('lecture4/language/word_vectors.py', 'if word not in vectors and (vocabulary is None', 'if (vocabulary is None', 'tests/language/test_word_vectors.py'),
    ('lecture4/language/decoding.py', 'is_done = (last == END) & (i > 0)', 'is_done = last == END', 'tests/language/test_decoding.py'),
    # autoencoder: counters, exchanged roles, means over the wrong set
    ('lecture4/autoencoder/topk.py', 'n_seen = n * reduce.num_devices', 'n_seen = n', 'tests/autoencoder/test_topk.py'),
    ('lecture4/autoencoder/topk.py', 'since_revival = jnp.where(due, 0, since_revival)', 'since_revival = since_revival', 'tests/autoencoder/test_topk.py'),
    ('lecture4/autoencoder/deep.py', 'better = error < best_error', 'better = error <= best_error', 'tests/autoencoder/test_deep.py'),
    ('lecture4/autoencoder/vae.py', 'kl = jnp.mean(parts.kl, axis=0)', 'kl = jnp.mean(jnp.maximum(parts.kl, free_bits), axis=0)', 'tests/autoencoder/test_vae.py'),
    ('lecture4/autoencoder/network.py', 'half = UNIFORM[scale] * math.sqrt(6 / (d_in + d_out))', 'half = UNIFORM[scale] * math.sqrt(6 / (d_in + d_in))', 'tests/autoencoder/test_network.py'),
    ('lecture4/autoencoder/contractive.py', "product = jax.jvp(encode, (x,), (sample(key, x.shape, x.dtype),))[1]", "product = jax.jvp(encode, (x,), (jnp.ones_like(x),))[1]", 'tests/autoencoder/test_contractive.py'),
    # vision: names of equal shapes, wide images, streams
    ('lecture4/vision/deconvnet.py', 'jnp.stack([index // w, index % w], axis=1)', 'jnp.stack([index % w, index // w], axis=1)', 'tests/vision/test_deconvnet.py'),
    ('lecture4/vision/deconvnet.py', 'distance[np.triu_indices(len(signs), 1)].mean()', 'distance.mean()', 'tests/vision/test_deconvnet.py'),
    ('lecture4/vision/models/alexnet.py', 'groups = 1 if self.lrn_across_groups else self.groups', 'groups = 1', 'tests/vision/test_models.py'),
    ('lecture4/vision/weights/pretrained.py', "return 'inception' if isinstance(network, GoogLeNet) else 'torchvision'", "return 'torchvision'", 'tests/vision/test_pretrained.py'),
    ('lecture4/vision/detection/targets.py', 'is_positive = largest >= high', 'is_positive = largest > high', 'tests/vision/detection/test_targets.py'),
    ('lecture4/vision/multi_crop.py', '(end[0] // 2, end[1] // 2), end)', '(end[0] // 2, end[1] // 2), (0, 0))', 'tests/vision/test_multi_crop.py'),
    # train: resuming, clocks, keys, tables
    ('lecture4/train/loop.py', "(row.get('seconds', 0.0) for row in rows if row['step'] <= n)", "(row.get('seconds', 0.0) for row in rows)", 'tests/train/test_loop.py'),
    ('lecture4/train/loop.py', 'n_steps = min(config.steps_per_call, config.steps - n)', 'n_steps = config.steps_per_call', 'tests/train/test_loop.py'),
    ('lecture4/train/step.py', 'jax.random.split(jax.random.fold_in(key, n + 1))', 'jax.random.split(jax.random.fold_in(key, n))', 'tests/train/test_step.py'),
    ('lecture4/train/metric_writer.py', "if row['step'] <= restored_step]", "if row['step'] < restored_step]", 'tests/train/test_metric_writer.py'),
    ('lecture4/train/checkpoint.py', 'sign * value <= sign * best[1]', 'value <= best[1]', 'tests/train/test_checkpoint.py'),
    ('lecture4/train/history.py', 'jax.lax.cond(n % every == 0, write', 'jax.lax.cond(n % num == 0, write', 'tests/train/test_history.py'),
    ('lecture4/train/learners.py', 'weight = 1 / (jnp.maximum(n - polyak_start, 0) + 1)', 'weight = 1 / (jnp.maximum(n - polyak_start, 0) + 2)', 'tests/train/test_learners.py'),
    ('lecture4/train/cells.py', "error /= math.sqrt(draws.size) if spread == 'standard error' else 1", 'error /= math.sqrt(draws.size)', 'tests/train/test_sweep_report.py'),
    ('lecture4/train/sweep/results.py', 'std(ddof=1)) if', 'std()) if', 'tests/train/test_sweep_report.py'),
    ('lecture4/train/optimizers.py', 'return optax.chain(optax.scale_by_learning_rate(learning_rate), optax.trace(momentum))', 'return optax.chain(optax.trace(momentum), optax.scale_by_learning_rate(learning_rate))', 'tests/train/test_optimizers.py'),
    ('lecture4/train/options.py', "if name in values and name != 'grid':", 'if False:', 'tests/train/test_options.py'),
]
# fmt: on
