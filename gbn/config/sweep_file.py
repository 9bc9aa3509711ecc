"""The keys of a sweep.yaml and of its scales, with types and ranges; see :mod:`gbn.config.outline`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gbn.config.section import Section, Seed, Text
from gbn.measures import DEFAULT
from gbn.methods import COMMON_CONTROLS, CONTROLS
from gbn.suggest import did_you_mean


def _number(given: Any) -> Any:
    """Convert numbers such as 1e-3, which YAML reads as text because there is no decimal point."""
    try:
        return float(given) if isinstance(given, str) else given
    except ValueError:
        return given


def _each_once(given: list[Any]) -> list[Any]:
    twice = [one for place, one in enumerate(given) if one in given[:place]]
    if twice:
        raise ValueError(f"{twice[0]} appears twice: name it once")
    return given


def _control(given: Any) -> Any:
    if given not in CONTROLS:
        raise ValueError(
            f"{given!r} is no control{did_you_mean(str(given), CONTROLS)}: allowed are {', '.join(CONTROLS)}"
        )
    return given


Overrides = list[Text]
Value = Text | int | float
#: The levels of an axis: values of the override that it is named after, or by name their values or overrides.
Axis = (
    Annotated[list[Value], Field(min_length=1), AfterValidator(_each_once)]
    | Annotated[dict[Text, Value | Overrides], Field(min_length=1)]
)
Names = Annotated[list[Text], AfterValidator(_each_once)]
Targets = Annotated[list[Annotated[float, BeforeValidator(_number)]], AfterValidator(_each_once)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_each_once)]


class _Selected(Section):
    """The first stage that selected the arms, and its rule."""

    experiment: Text
    scale: Text | None = None
    rule: Literal["area", "rate"]
    top: Annotated[int, Field(ge=1)] | None = None
    without: Names = Field(default=[])

    @model_validator(mode="after")
    def _has_its_number(self) -> "_Selected":
        if (self.rule == "area") != (self.top is not None):
            raise ValueError(
                "selected.top belongs to selected.rule=area, which needs it: give the number of arms to select"
            )
        return self


class Preset(Section):
    """The keys that a sweep.yaml and each of its scales may have, all of them optional."""

    title: Text | None = None
    base: Overrides = Field(default=[])
    axes: dict[Text, Axis] = Field(default={})
    settings: Annotated[dict[Text, Overrides], Field(min_length=1)] | Names | None = None
    arms: Annotated[dict[Text, Overrides], Field(min_length=1)] | Names | None = None
    controls: Names | dict[Text, Names] = Field(default=[])
    control_methods: Annotated[
        list[Annotated[Text, AfterValidator(_control)]], AfterValidator(_each_once)
    ] = Field(default=[*COMMON_CONTROLS], min_length=1)
    reference: Text | None = None
    seeds: Annotated[int, Field(ge=1, le=10_000)] | Seeds | None = None
    targets: Targets | dict[Text, Targets] = Field(default=[])
    measure: Text = DEFAULT
    selected: _Selected | None = None
    cells: dict[Text, dict[Text, Overrides]] = Field(default={})


class SweepFile(Preset):
    """A sweep.yaml with its presets."""

    settings: dict[Text, Overrides] | None = None
    arms: Annotated[dict[Text, Overrides], Field(min_length=1)] | None = None
    scales: dict[Text, Preset] = Field(default={})
    default_scale: Text | None = None


class WholeSweep(SweepFile):
    """A sweep.yaml after applying a preset: all required keys are there."""

    arms: Annotated[dict[Text, Overrides], Field(min_length=1)]
    reference: Text
    seeds: Annotated[int, Field(ge=1, le=10_000)] | Seeds
