"""The kinds of statistics that come with fedcof, by name, for those who need no more of them."""

CLASS_MEANS = "class-means"
GRAM = "gram"
