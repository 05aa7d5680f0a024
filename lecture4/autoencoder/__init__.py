"""The autoencoder family, one module per variant, as functions of (params, x).

Start from:

- `autoencoder.registry.by_name`: the variants as triples init, encode and loss.
- `autoencoder.vae.bound`: the variational bound; `autoencoder.vae.mlp` makes the networks.
- `autoencoder.contractive.layer_penalty`: the norm of the encoder's Jacobian, in closed form.
- `autoencoder.denoising.loss`: reconstruction of the clean input from a corrupted one.
- `autoencoder.topk.init`: k-sparse autoencoders with atoms that are kept in use.
"""
