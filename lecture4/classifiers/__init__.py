"""Linear classifiers on features, fitted to certified minima: support vector machines and softmax regression.

Start from:

- `classifiers.svm.fit`: one-versus-rest linear SVMs with the squared hinge loss.
- `classifiers.svm.fit_gram`: the same from inner products, for more features than examples.
- `classifiers.softmax.fit`: softmax regression.
- `classifiers.linear.predict`: classes of new features.
- `classifiers.newton.minimize`: the Newton method under both.
"""
