"""The merges' formulas, written out in float64 numpy for one matrix of full rank at a time."""

import math

import numpy as np


def task_arithmetic(deltas, shares):
    return len(deltas) * sum(share * delta for share, delta in zip(shares, deltas, strict=True))


def ties(deltas, shares, density):
    merged = np.zeros_like(deltas[0])
    kept = []
    for delta in deltas:
        count = max(1, round(density * delta.size))
        smallest = sorted(abs(entry) for entry in delta.flat)[-count]
        kept.append(np.where(np.abs(delta) >= smallest, delta, 0.0))
    for place in np.ndindex(merged.shape):
        entries = [delta[place] for delta in kept]
        sign = np.sign(sum(share * entry for share, entry in zip(shares, entries, strict=True)))
        agreeing = [(s, e) for s, e in zip(shares, entries, strict=True) if e and np.sign(e) == sign]
        if agreeing:
            merged[place] = sum(s * e for s, e in agreeing) / sum(s for s, _ in agreeing)
    return merged


def iso_c(deltas, shares, rank=None):
    u, s, vt = np.linalg.svd(task_arithmetic(deltas, shares), full_matrices=False)
    rank = rank or len(s)
    return s[:rank].mean() * u[:, :rank] @ vt[:rank]


def iso_cts(deltas, shares, rank=None):
    total = task_arithmetic(deltas, shares)
    m = rank or min(total.shape)
    own = round((m - math.floor(0.8 * m)) / len(deltas))
    if not own:
        return iso_c(deltas, shares, rank)
    common = m - own * len(deltas)
    u, s, vt = np.linalg.svd(total, full_matrices=False)
    u, s, vt = u[:, :common], s[:common], vt[:common]
    lefts, values, rights = [], [], []
    for delta in deltas:
        left, value, right = np.linalg.svd(delta - u @ u.T @ delta, full_matrices=False)
        lefts.append(left[:, :own])
        values.append(value[:own])
        rights.append(right[:own].T)
    p, _, qt = np.linalg.svd(np.hstack([*lefts, u]), full_matrices=False)
    a, _, bt = np.linalg.svd(np.hstack([*rights, vt.T]), full_matrices=False)
    return np.concatenate([*values, s]).mean() * (p @ qt) @ (a @ bt).T


def opcm(deltas):
    merged, scale, norms = deltas[0], 1.0, [np.linalg.norm(deltas[0])]
    for delta in deltas[1:]:
        u, s, vt = np.linalg.svd(merged)
        projected = u.T @ delta @ vt.T
        closed = sum(1 for share in np.cumsum(s) / s.sum() if share <= 0.5)
        projected[:closed, :closed] = 0
        numerator = scale * merged + u @ projected @ vt
        norms.append(np.linalg.norm(delta))
        scale = np.linalg.norm(numerator) / np.mean(norms)
        merged = numerator / scale
    return merged


def core_space(trained, start, scaling, rule):
    """Merge an adapter's (A_t, B_t) in the core, where all singular values of the references are there."""
    of_references = [*trained, start] if start[1].any() else trained
    stacked_a = np.vstack([a for a, _ in of_references])
    beside_b = np.hstack([b for _, b in of_references])
    v = np.linalg.svd(stacked_a, full_matrices=False)[2]
    u = np.linalg.svd(beside_b, full_matrices=False)[0]
    before = scaling * start[1] @ start[0]
    cores = [u.T @ (scaling * b @ a - before) @ v.T for a, b in trained]
    return u @ rule(cores) @ v, cores


def fisher(start, trained, fishers, shares, blocks, ridge):
    """Merge vectors; blocks are index arrays, and the ridge pulls to the shares."""
    atoms, indicators = [], [[] for _ in trained]
    for block in blocks:
        for client, theta in enumerate(trained):
            atom = np.zeros_like(start)
            atom[block] = theta[block] - start[block]
            atoms.append(atom)
            for other, indicator in enumerate(indicators):
                indicator.append(float(other == client))
    directions = np.stack(atoms, axis=1)
    curvatures = [directions.T @ np.diag(f) @ directions for f in fishers]
    mean = sum(share * h for share, h in zip(shares, curvatures, strict=True))
    pull = sum(s * h @ np.array(i) for s, h, i in zip(shares, curvatures, indicators, strict=True))
    damping = np.zeros(len(atoms))
    for number in range(len(blocks)):
        own = slice(number * len(trained), (number + 1) * len(trained))
        damping[own] = ridge * np.trace(mean[own, own]) / len(trained)
    prior = np.tile(shares, len(blocks))
    return start + directions @ np.linalg.solve(mean + np.diag(damping), pull + damping * prior)


def truncated(matrix, rank):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vt[:rank]
