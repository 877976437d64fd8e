"""The options for evaluating one case."""

from collections.abc import Iterable
from dataclasses import dataclass

from nnunetv2_conflunet.evaluation.metrics.confluence import CLU_DEFINITIONS
from nnunetv2_conflunet.evaluation.metrics.formulas import UNDEFINED_POLICIES
from nnunetv2_conflunet.evaluation.metrics.matching import MATCHING_RULES
from nnunetv2_conflunet.evaluation.metrics.published import (
    NOT_PUBLISHED_CONNECTIVITY,
    PUBLISHED_CONNECTIVITY,
    PUBLISHED_MATCHING,
)
from nnunetv2_conflunet.utilities.array_checks import CONNECTIVITIES, check_positive
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.options import option


@dataclass(frozen=True)
class CaseSettings:
    """How the instance maps of one case are compared: the options of :func:`.case.evaluate_case`, which explains them.

    Raises:
        InputError: a value out of range.
    """

    iou_threshold: float = option(0.1, "two lesions match only if their IoU is above this value")
    matching: str = option("paper", "matching rule", choices=tuple(MATCHING_RULES))
    connectivity: int = option(
        26, "neighbors that count as connected, for finding confluent lesions", choices=CONNECTIVITIES[3]
    )
    clu: str = option(
        "shared", "definition of a confluent lesion unit, or the published CLU metrics", choices=CLU_DEFINITIONS
    )
    undefined: str = option("nan", "value of undefined ratios", choices=UNDEFINED_POLICIES)
    beta: float | None = option(None, "add F_beta, in which recall weighs this many times as much as precision")
    unknown: int | None = None

    def __post_init__(self) -> None:
        check_choice("matching rule", self.matching, MATCHING_RULES)
        check_choice("CLU definition", self.clu, CLU_DEFINITIONS)
        check_choice("policy for undefined ratios", self.undefined, UNDEFINED_POLICIES)
        if not 0 <= self.iou_threshold < 1:
            raise InputError(f"The IoU threshold is {self.iou_threshold}; it must be at least 0 and below 1.")
        if self.beta is not None:
            check_positive(self.beta, "beta")
        if self.is_published and self.matching != PUBLISHED_MATCHING:
            raise InputError(
                f"The published CLU metrics use the matching rule '{PUBLISHED_MATCHING}', not '{self.matching}'."
            )
        if self.is_published and self.connectivity == NOT_PUBLISHED_CONNECTIVITY:
            raise InputError(
                f"The published CLU metrics use connectivity 6 and 26, not {self.connectivity}; leave the option out."
            )

    @property
    def is_published(self) -> bool:
        """Whether the metrics of the confluent lesion units are the published ones."""
        return self.clu == "published"

    @property
    def clu_connectivity(self) -> int:
        """Connectivity of the components in which lesions are confluent."""
        return PUBLISHED_CONNECTIVITY if self.is_published else self.connectivity


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise an InputError for a value that is not among the choices.

    >>> check_choice("matching rule", "paper", ["paper", "greedy"])
    """
    choices = list(choices)
    if value not in choices:
        raise InputError(f"There is no {name} '{value}'; use one of {', '.join(map(str, choices))}.")
