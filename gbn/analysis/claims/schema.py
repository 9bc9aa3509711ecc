"""The schema of ``experiments/papers.yaml`` and ``experiments/<name>/claims.yaml``.

A claim states what was published (in our words, with the source), under which conditions, what is unknown and which
configuration key covers it, and the rule by which its verdict is computed. A rule is written, and committed, before
the runs that it judges.
"""

from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gbn.config.section import Section, Text
from gbn.measures import Measure, measure

Quantity = Literal[
    "speedup_to_target",
    "speedup_to_maximum",
    "saving_to_maximum",
    "last_difference",
    "best_val_difference",
    "best_difference",
    "area_difference",
    "training_loss_difference",
]
RATIOS = ("speedup_to_target", "speedup_to_maximum")
TIMES = (*RATIOS, "saving_to_maximum")
#: What a difference compares: a column of :mod:`gbn.analysis.comparison.figures`, the area under the curve, or the
#: mean training loss (lower is better whatever the grid's measure is).
COLUMNS = {
    "last_difference": "last",
    "best_val_difference": "best_val",
    "best_difference": "best",
    "area_difference": "area",
    "training_loss_difference": "training_loss",
}

Url = Annotated[str, Field(pattern=r"^https?://\S+$")]


class Paper(Section):
    """An entry of papers.yaml; `method` names what the paper proposes in a few words, if the title is longer."""

    title: Text
    method: Text | None = None
    authors: Text
    venue: Text
    url: Url


class Citation(Section):
    """The source of a claim: the address, and which part (abstract, official README, ...)."""

    url: Url
    read: Text


class Published(Section):
    """A published number: a value, a range, or both, in the unit of the rule's quantity.

    Speed-ups are ratios; shares saved and differences of accuracy are fractions (0.31 is 31 %, 0.028 is 2.8 points).
    A difference is arm - against in the curve's unit, so if lower is better, an improvement is negative (an FID of
    33.35 against 37.56 is -4.21).
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: Text

    @model_validator(mode="after")
    def _consistent(self) -> "Published":
        if (self.low is None) != (self.high is None) or (self.value is None and self.low is None):
            raise ValueError("a published number needs a value, or low and high, or all three")
        low, high = self.range
        if low > high:
            raise ValueError(f"published low {low:g} is above high {high:g}")
        if self.value is not None and not low <= self.value <= high:
            raise ValueError(f"published value {self.value:g} lies outside [{low:g}, {high:g}]")
        return self

    @property
    def range(self) -> tuple[float, float]:
        """(low, high); for a single value, a range of zero width."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        assert self.value is not None
        return self.value, self.value


class Rule(Section):
    """The rule by which a verdict is computed.

    Attributes:
        rule: "direction" (the interval lies wholly beyond the null), "number" (it overlaps the published range) or
            "none", with the `reason`.
        quantity: what is measured for `arm` against each of `against`. For ratios and shares saved, greater is
            better; for differences (arm - against), the direction of the grid's measure applies.
        setting: a setting of the grid; empty if it has only one.
        target: for "speedup_to_target", a value of the measure; a mapping scale -> value if scales differ.
        unit: of times: "updates" or "seconds".
        controls: shown with the result, not part of the verdict.
        pairs: with fewer pairs the verdict stays open.
        relevant: the smallest effect that deserves the claim's name: a ratio, a share saved, points as a fraction, or
            the improvement in the measure's unit, always above the null; a mapping scale -> effect if scales measure
            differently.
        scale: where "reproduced" may be said: the full grid. Its presets are miniatures.
    """

    rule: Literal["direction", "number", "none"]
    quantity: Quantity | None = None
    setting: str = ""
    target: float | dict[str, float] | None = None
    unit: Literal["updates", "seconds"] = "updates"
    arm: str = ""
    against: list[str] = Field(default_factory=list)
    controls: list[str] = Field(default_factory=list)
    pairs: Annotated[int, Field(ge=2)] | None = None
    relevant: float | dict[str, float] | None = None
    scale: Literal["full"] = "full"
    reason: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Rule":
        if self.rule == "none":
            given = sorted(self.model_fields_set - {"rule", "reason"})
            if given or not self.reason:
                raise ValueError(
                    f"rule: none needs a reason and nothing else (given: {', '.join(given) or 'no reason'})"
                )
            return self
        needed = ["quantity", "arm", "against", "pairs", *(["relevant"] if self.rule == "direction" else [])]
        missing = [name for name in needed if not getattr(self, name)]
        if missing:
            raise ValueError(f"rule: {self.rule} needs {', '.join(missing)}")
        if (self.target is not None) != (self.quantity == "speedup_to_target"):
            raise ValueError("target is needed for quantity speedup_to_target, and only for it")
        if self.unit == "seconds" and self.quantity not in TIMES:
            raise ValueError(
                f"unit: seconds applies only to times ({', '.join(TIMES)}), not to {self.quantity}"
            )
        effects = self.relevant.values() if isinstance(self.relevant, dict) else [self.relevant]
        for effect in effects:
            if effect is not None and effect <= self.null:
                raise ValueError(
                    f"relevant must lie above {self.null:g}, the value of no effect; got {effect:g}"
                )
        repeated = {name for name in (*self.against, *self.controls, self.arm) if self.names.count(name) > 1}
        if repeated:
            raise ValueError(
                f"{', '.join(sorted(repeated))}: named more than once among arm, against and controls"
            )
        return self

    @property
    def names(self) -> list[str]:
        """Every arm that the rule names."""
        return [self.arm, *self.against, *self.controls]

    @property
    def null(self) -> float:
        """The value of no effect: 1 for a ratio, 0 for a difference or a share."""
        return 1.0 if self.quantity in RATIOS else 0.0

    def target_at(self, scale: str) -> float | None:
        """Return the target at a scale; None if the rule has none for it."""
        return self.target.get(scale) if isinstance(self.target, dict) else self.target

    def relevant_at(self, scale: str) -> float | None:
        """Return the smallest effect that counts at a scale; None if the rule has none for it."""
        return self.relevant.get(scale) if isinstance(self.relevant, dict) else self.relevant

    def compared(self, measured: Measure, final: Measure) -> Measure:
        """Return the measure of a difference: the curve's for an area, else that of final results or of training."""
        if self.quantity == "training_loss_difference":
            return measure("train_loss")
        return measured if self.quantity == "area_difference" else final


class Claim(Section):
    """An entry of a claims.yaml.

    Attributes:
        id: unique within the repository, kebab-case.
        origin: "published": the paper's claim; "ours": a question that the paper leaves open.
        paper: a key of papers.yaml.
        wording: the claim in our words.
        source: where it was read.
        published: the number, or "not available".
        conditions: of the published result, and how our protocol differs.
        underspecified: what is unknown -> the configuration key that covers it.
        fixed: when the rule was committed (UTC); a date without a time means the end of that day.
        verdict: the rule.
        waits_for: what is missing before it can run.
        experiment: the folder's name (not in the file).
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    origin: Literal["published", "ours"]
    paper: Text
    wording: Text
    source: Citation
    published: Published | None
    conditions: Text
    underspecified: dict[str, str] = Field(default_factory=dict)
    fixed: datetime | None = None
    verdict: Rule
    waits_for: Text | None = None
    experiment: str

    @field_validator("published", mode="before")
    @classmethod
    def _not_available(cls, value: Any) -> Any:
        if value == "not available":
            return None
        if not isinstance(value, dict):
            raise ValueError(
                f'must be "not available", or a mapping with unit and value, or low and high; got {value!r}'
            )
        return value

    @field_validator("fixed", mode="before")
    @classmethod
    def _moment(cls, value: Any) -> Any:
        if isinstance(value, date) and not isinstance(value, datetime):
            return datetime.combine(value, time.max, UTC)
        if isinstance(value, datetime) and value.tzinfo is None:
            # YAML converts a time with Z or an offset to UTC, but drops the time zone.
            return value.replace(tzinfo=UTC)
        return value

    @model_validator(mode="after")
    def _number(self) -> "Claim":
        if self.verdict.rule == "number" and self.published is None:
            raise ValueError("rule: number needs a published number, and published is not available")
        return self
