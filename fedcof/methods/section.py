"""The section ``method``: what is made of the uploads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from fedcof.covariance.choices import ESTIMATORS, check_shrinkage
from fedcof.heads.registry import HEADS
from fedcof.keys import AT_LEAST_0, BETWEEN_0_AND_1, SHARE, Acts, Beside, Changes, Section, Shown, key
from fedcof.methods.registry import METHODS, kind_of
from fedcof.methods.robust_rules import NO_RULE, ROBUST_RULES
from fedcof.statistics.kinds import CLASS_MEANS

if TYPE_CHECKING:
    from fedcof.heads.head import Head
    from fedcof.methods.method import Method

QUADRATIC_HEAD = "quadratic"


_ESTIMATES = Beside("the method rebuilds a covariance", lambda run: run.method.chosen.rebuilds_covariance)
_SOLVES = Beside("the method solves a head on a covariance", lambda run: run.method.chosen.takes_head)
_QUADRATIC = Beside(
    "head is quadratic", lambda run: run.method.chosen.takes_head and run.method.head == QUADRATIC_HEAD
)
_WITH_PRIOR = Beside(
    "text-prior is not none", lambda run: run.method.chosen.takes_prior and run.embedding.has_prior
)
_CLASS_MEANS = Beside("the method sends rows of class means", lambda run: run.method.kind == CLASS_MEANS)
_PENALISED = Beside("the method takes a penalty", lambda run: run.method.chosen.takes_penalty)


@dataclass(frozen=True)
class MethodSection(Section):
    """What is made of the uploads; each field says what it means."""

    NAME: ClassVar[str] = "method"

    name: str = key(
        "fedcof",
        "How the server makes a classifier of the uploads.",
        Acts.CLIENT | Acts.SERVER,
        Changes.RESULT,
        name="method",
        choices=METHODS.names,
        shown=Shown.NEVER,
        several="--methods",
        after_upload=True,
    )
    estimator: str = key(
        "per-class",
        "How the classes' scatter is put together.",
        Acts.SERVER,
        Changes.RESULT,
        choices=lambda: ESTIMATORS,
        beside=_ESTIMATES,
        refused_without_effect=True,
        after_upload=True,
    )
    shrinkage: float | str = key(
        "leave-one-out",
        "Shrinkage of the covariance: a number gamma in squared feature units, leave-one-out, ledoit-wolf or oas.",
        Acts.SERVER,
        Changes.RESULT,
        number_or_text=True,
        check=check_shrinkage,
        beside=_SOLVES,
        after_upload=True,
    )
    head: str = key(
        QUADRATIC_HEAD,
        "The closed-form classifier on top. Training starts from ridge in place of quadratic; with an epsilon, or "
        "fewer than ten rows of a class, ridge is solved in its place.",
        Acts.SERVER,
        Changes.RESULT,
        choices=HEADS.names,
        earlier="ridge",
        published="ridge",
        beside=_SOLVES,
        refused_without_effect=True,
        after_upload=True,
    )
    pooled_share: float = key(
        0.96,
        "Share of the pooled covariance in each class's own, for the quadratic head; at 1 it is lda.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=SHARE,
        beside=_QUADRATIC,
        after_upload=True,
    )
    class_directions: int = key(
        5,
        "Most directions of a class's own covariance that the quadratic head keeps.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_QUADRATIC,
        after_upload=True,
    )
    ridge_penalty: float = key(
        0.01,
        "Penalty lambda of Fed3R's ridge regression, in squared feature units.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_PENALISED,
        after_upload=True,
    )
    prior_samples: float = key(
        0.0,
        "Number of samples that what a name foretells is worth; 0 to have it estimated.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_WITH_PRIOR,
        after_upload=True,
    )
    prior_directions: int = key(
        0,
        "On how many leading directions of the text prototypes class means are projected before the two are mixed; "
        "0 for none.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_WITH_PRIOR,
        after_upload=True,
    )
    unheld_risk: float = key(
        0.0025,
        "Share of the samples of classes that clients hold which may be given to classes that nobody holds.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=BETWEEN_0_AND_1,
        beside=_WITH_PRIOR,
        after_upload=True,
    )
    robust: str = key(
        NO_RULE,
        "What is done about uploads that may be wrong: screen leaves out clients whose class means are far off the "
        "others', huber lets such means count for fewer samples, median-of-means takes medians over groups of "
        "clients. Not with an epsilon.",
        Acts.SERVER,
        Changes.RESULT,
        choices=lambda: ROBUST_RULES,
        beside=_CLASS_MEANS,
        refused_without_effect=True,
        after_upload=True,
    )
    most_samples_per_client: int = key(
        0,
        "Most samples that a client counts for, 0 for any number: counts of one that says more are scaled down. "
        "Not with an epsilon.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_CLASS_MEANS,
        refused_without_effect=True,
        after_upload=True,
    )
    diagnose: bool = key(
        False,
        "Whether a simulated run puts its covariance beside the oracle's.",
        Acts.SERVER,
        Changes.RESULT,
        beside=_ESTIMATES,
        refused_without_effect=True,
    )

    influence: bool = key(
        False,
        "Whether the result says for each client what the classifier would be without it.",
        Acts.SERVER,
        Changes.RESULT,
        beside=_ESTIMATES,
        refused_without_effect=True,
        after_upload=True,
    )

    @property
    def kind(self) -> str:
        """Kind of the statistics that clients send, known without importing torch; empty if they send none."""
        return kind_of(self.name)

    @property
    def chosen(self) -> Method:
        """The method itself."""
        return METHODS.get(self.name)

    def for_linear(self) -> MethodSection:
        """Give the same keys with a linear head, which training can start from and privacy noise harms less."""
        return replace(self, head=self.chosen_head.linear or self.head)

    @property
    def chosen_head(self) -> Head:
        """The head itself, with its keys."""
        return HEADS.get(self.head).regularised(self.pooled_share, self.class_directions)
