"""The formulas of the method, transcribed in float64 with one loop per sum: slow, plain, and the judge."""

import numpy as np


def totals(rows, num_classes):
    counts, dim = np.zeros(num_classes), len(rows[0][2])
    means, num_rows = np.zeros((num_classes, dim)), np.zeros(num_classes)
    for class_id, count, mean in rows:
        counts[class_id] += count
        num_rows[class_id] += 1
        means[class_id] += count * np.asarray(mean, dtype=np.float64)
    for class_id in range(num_classes):
        if counts[class_id]:
            means[class_id] /= counts[class_id]
    return counts, means, num_rows


def class_covariance(rows, class_id, counts, means, num_rows):
    covariance = np.zeros((means.shape[1],) * 2)
    if num_rows[class_id] < 2:
        return covariance
    for row_class, count, mean in rows:
        if row_class == class_id:
            residual = np.asarray(mean, dtype=np.float64) - means[class_id]
            covariance += count * np.outer(residual, residual)
    return covariance / (num_rows[class_id] - 1)


def per_class_scatter(rows, num_classes, gamma):
    """The classes that have two rows speak for all, each by its samples."""
    counts, means, num_rows = totals(rows, num_classes)
    covariance, seen, samples = np.zeros((means.shape[1],) * 2), 0.0, 0.0
    for class_id in range(num_classes):
        if counts[class_id]:
            samples += counts[class_id] - 1
            if num_rows[class_id] >= 2:
                seen += counts[class_id] - 1
                own = class_covariance(rows, class_id, counts, means, num_rows)
                covariance += (counts[class_id] - 1) * own
    covariance = covariance / seen if seen else covariance
    return samples * (covariance + gamma * np.eye(len(covariance)))


def paper_scatter(rows, num_classes, gamma):
    """As the paper has it: a class with one row counts as one without scatter."""
    counts, means, num_rows = totals(rows, num_classes)
    scatter = np.zeros((means.shape[1],) * 2)
    for class_id in range(num_classes):
        if counts[class_id]:
            covariance = class_covariance(rows, class_id, counts, means, num_rows)
            scatter += (counts[class_id] - 1) * (covariance + gamma * np.eye(len(covariance)))
    return scatter


def pooled_scatter(rows, num_classes, gamma):
    counts, means, num_rows = totals(rows, num_classes)
    scatter, degrees = np.zeros((means.shape[1],) * 2), 0.0
    for class_id in range(num_classes):
        if counts[class_id]:
            row_degrees = num_rows[class_id] - 1
            scatter += row_degrees * class_covariance(rows, class_id, counts, means, num_rows)
            degrees += row_degrees
    samples = sum(count - 1 for count in counts if count)
    covariance = scatter / degrees if degrees else scatter
    return samples * (covariance + gamma * np.eye(len(scatter)))


def ridge_weight(scatter, counts, means):
    total = counts.sum()
    mean = (counts[:, None] * means).sum(axis=0) / total
    gram = scatter + total * np.outer(mean, mean)
    weight = np.zeros_like(means)
    for class_id in range(len(counts)):
        if counts[class_id]:
            vector = np.linalg.solve(gram, counts[class_id] * means[class_id])
            weight[class_id] = vector / np.linalg.norm(vector)
    return weight


def lda(scatter, counts, means):
    covariance = scatter / sum(count - 1 for count in counts if count)
    weight, bias = np.zeros_like(means), np.zeros(len(counts))
    for class_id in range(len(counts)):
        if counts[class_id]:
            weight[class_id] = np.linalg.solve(covariance, means[class_id])
            bias[class_id] = -means[class_id] @ weight[class_id] / 2 - np.log((counts > 0).sum())
    return weight, bias


def quadratic_scores(scatter, rows, num_classes, points, share, rank):
    """Friedman's discriminant scores, with a covariance made whole for each class; up to a term of all classes."""
    counts, means, num_rows = totals(rows, num_classes)
    pooled = scatter / sum(count - 1 for count in counts if count)
    values, vectors = np.linalg.eigh(pooled)
    whitening = vectors / np.sqrt(values)
    scores = np.full((len(points), num_classes), -np.inf)
    for class_id in range(num_classes):
        if not counts[class_id]:
            continue
        own = np.eye(len(pooled))
        if num_rows[class_id] >= 2:
            covariance = whitening.T @ class_covariance(rows, class_id, counts, means, num_rows) @ whitening
            squares, directions = np.linalg.eigh(covariance)
            leading = directions[:, ::-1][:, : min(rank, int(num_rows[class_id]) - 1)]
            kept = leading * squares[::-1][: leading.shape[1]]
            own = share * np.eye(len(pooled)) + (1 - share) * kept @ leading.T
        inverse, (_, log_determinant) = np.linalg.inv(own), np.linalg.slogdet(own)
        for place, point in enumerate(points):
            residual = (np.asarray(point, dtype=np.float64) - means[class_id]) @ whitening
            scores[place, class_id] = -(residual @ inverse @ residual + log_determinant) / 2
    return scores
