"""Options of lecture4 0.1.0 that have been renamed: an error names the new one; the old names no longer work."""

from collections.abc import Collection

# {old name: new names}; of several, those that the experiment has are named.
OLD_OPTIONS: dict[str, tuple[str, ...]] = {
    'arms': ('methods',),
    'average_from': ('polyak_start',),
    'bias_rate': ('bias_lr_multiplier',),
    'binarisation': ('binarization',),
    'classes': ('num_states',),
    'code': ('latent_dim', 'latent'),
    'codes': ('latent_dim',),
    'colour': ('color',),
    'colour_jitter': ('color_jitter',),
    'colour_noise': ('color_noise',),
    'crop': ('crop_size',),
    'crops': ('num_crops',),
    'cut': ('split_crops_left_right',),
    'decayed': ('weight_decay_mask',),
    'detector': ('activation',),
    'deviation': ('std', 'noise_std'),
    'dev_share': ('dev_fraction',),
    'dim': ('embedding_dim',),
    'dimension': ('manifold_dim',),
    'draws': ('num_trials', 'num_gradients'),
    'dropout': ('dropout_rate',),
    'drops': ('boundaries',),
    'encoder': ('activation',),
    'every': ('decay_steps',),
    'examples': ('num_train', 'num_examples', 'num_patches'),
    'factor': ('decay_rate',),
    'floor': ('contrast_epsilon', 'min_std'),
    'folds': ('num_folds',),
    'grey': ('grayscale',),
    'hidden': ('hidden_dims', 'hidden_dim', 'latent_dim'),
    'importance': ('importance_samples',),
    'inner': ('num_inference_steps',),
    'labelled': ('labeled',),
    'labelled_classes': ('labeled_classes',),
    'labels': ('labels_per_class', 'num_labels'),
    'largest_filter': ('max_filter_rms',),
    'looked_at': ('eval_resize',),
    'maps': ('num_filters', 'features', 'num_maps'),
    'masking': ('mask_rate',),
    'measured': ('measured_samples',),
    'member': ('variant',),
    'members': ('variants',),
    'n_tested': ('num_eval',),
    'noise': ('noise_std',),
    'normalisation': ('normalization',),
    'norm_bound': ('max_norm',),
    'occluded': ('num_occluded',),
    'patch': ('patch_size',),
    'patches': ('num_patches',),
    'penalties': ('Cs',),
    'penalty': ('C', 'l1_penalty'),
    'points': ('num_points',),
    'pool': ('candidates_per_class', 'labeled_pool_size', 'pooling'),
    'pools': ('pool_sizes',),
    'probed': ('num_units',),
    'rare': ('minority_fraction',),
    'rate': ('learning_rate',),
    'regions': ('pooling_grid',),
    'regulariser': ('zca_epsilon',),
    'rule': ('backward_rule',),
    'samples': ('num_samples',),
    'search': ('num_search_steps',),
    'searched': ('num_candidates',),
    'shown': ('num_shown',),
    'side': ('image_size', 'patch_size', 'kernel_size', 'crop_size'),
    'signals': ('num_patches', 'num_train', 'num_signals'),
    'sizes': ('field_sizes',),
    'stored': ('data_placement',),
    'stride': ('step_size',),
    'tested': ('num_eval', 'eval_dataset'),
    'thinned': ('subsample_minority',),
    'unbalanced': ('imbalanced',),
    'units': ('latent_dim', 'features', 'num_units', 'channels'),
    'unlabelled': ('unlabeled',),
    'unlabelled_classes': ('unlabeled_classes',),
    'views': ('test_crops',),
    'walk': ('walk_steps',),
    'warm_up': ('warm_up_steps',),
    'weight': ('l1_penalty', 'sparsity_penalty'),
    'weights': ('sparsity_penalties',),
    'whole': ('full_data_C',),
    'width': ('latent_dim',),
    'widths': ('hidden_dims', 'kernel_sizes'),
}


def new_names(option: str, fields: Collection[str]) -> list[str]:
    """The names that an option of 0.1.0 may have now.

    Args:
      option: A name without dashes.
      fields: Names of the experiment's fields.

    Returns:
      Those of its new names that are fields; empty for an option that was not renamed.
    """
    return [name for name in OLD_OPTIONS.get(option, ()) if name in fields]
