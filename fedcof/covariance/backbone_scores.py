"""What class statistics say of a backbone without a test image; without torch, because every result holds it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneScores:
    """Numbers by which backbones can be compared: the higher, the better features they are said to give.

    Attributes
    ----------
    label_correlation : float or None
        The correlation of labels and features, from -1 to 1; see :mod:`fedcof.covariance.label_correlation`. None
        where there is no covariance, or noise for privacy is on it.
    leave_one_out_likelihood : float or None
        Mean natural logarithm of the density of a sample's features given its class and the other rows, over the
        number of dimensions, with features scaled so that the mean variance of a dimension over all samples is 1;
        None unless shrinkage is ``leave-one-out``. A sphere about one mean for all classes has -1.42.
    class_information : float or None
        By how much the logarithm of a sample's density rises, in nats, where it is taken for one of its own class
        and not for one of all, see :func:`fedcof.covariance.shrunk.class_information`; the same for any linear map
        of the features. None where there is no covariance as a whole.
    """

    label_correlation: float | None = None
    leave_one_out_likelihood: float | None = None
    class_information: float | None = None
