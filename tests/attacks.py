"""Uploads that are wrong, made of honest ones: what a broken or hostile client may send."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from fedcof import ClassMeans, class_means

CLASSES = 10


def flipped_labels(upload, seed=0):
    """Class numbers in another order."""
    order = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(seed))
    return ClassMeans(order[upload.class_ids], upload.counts, upload.means)


def same_flipped_labels(upload, seed=0):
    """As all who do this do, so that they agree with one another."""
    return ClassMeans((upload.class_ids + 1) % CLASSES, upload.counts, upload.means)


def flipped_signs(upload, seed=0):
    return ClassMeans(upload.class_ids, upload.counts, -upload.means)


def scaled(upload, seed=0):
    return ClassMeans(upload.class_ids, upload.counts, 3 * upload.means)


def mean_of_another_class(upload, seed=0):
    """One mean alone, that of most samples, goes under another class's number."""
    ids = upload.class_ids.clone()
    largest = int(upload.counts.argmax())
    ids[largest] = (ids[largest] + 1 + seed % (CLASSES - 1)) % CLASSES
    return ClassMeans(ids, upload.counts, upload.means)


def two_classes_called_one(upload, seed=0):
    """The samples of the largest class go under the number of the next that makes two fifths of both at most."""
    order = upload.counts.argsort(descending=True).tolist()
    one = order[0]
    other = next(place for place in order[1:] if 3 * upload.counts[place] <= 2 * upload.counts[one])
    counts, means = upload.counts.clone(), upload.means.clone()
    counts[other] += counts[one]
    means[other] = (upload.counts[[one, other]].float() @ upload.means[[one, other]]) / counts[other]
    kept = torch.arange(len(counts)) != one
    return ClassMeans(upload.class_ids[kept], counts[kept], means[kept])


def inflated_counts(upload, seed=0):
    return ClassMeans(upload.class_ids, 100 * upload.counts, upload.means)


def same_shift(upload, seed=0):
    """As far as half a feature vector is long, in a direction that all who do this share."""
    direction = torch.randn(upload.feature_dim, generator=torch.Generator().manual_seed(1))
    length = upload.means.norm(dim=1).mean() / 2
    return ClassMeans(upload.class_ids, upload.counts, upload.means + length * direction / direction.norm())


ATTACKS = [
    flipped_labels,
    same_flipped_labels,
    flipped_signs,
    scaled,
    mean_of_another_class,
    inflated_counts,
    same_shift,
]


def digits_of_clients(num_clients, alpha=0.5, seed=0):
    """Scikit-learn's digits, pixels for features, dealt to unlike clients: uploads, test features, test labels."""
    pixels, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    pixels, labels = pixels[order] / 16, labels[order]
    test, rest = slice(0, 400), slice(400, None)
    shares = generator.dirichlet([alpha] * num_clients, CLASSES)
    owner = np.array([generator.choice(num_clients, p=shares[label]) for label in labels[rest]])
    features, own = torch.tensor(pixels[rest], dtype=torch.float32), torch.tensor(labels[rest])
    uploads = {
        k: class_means(features[owner == k], own[owner == k]) for k in range(num_clients) if (owner == k).any()
    }
    return uploads, torch.tensor(pixels[test], dtype=torch.float32), torch.tensor(labels[test])


def attacked(uploads, attack, attackers):
    return {k: attack(upload, k) if k in attackers else upload for k, upload in uploads.items()}
