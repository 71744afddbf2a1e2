"""Names of the rules for uploads that may be wrong."""

ROBUST_RULES = NO_RULE, SCREEN, HUBER, MEDIAN_OF_MEANS = ("none", "screen", "huber", "median-of-means")
