"""Wording for measures in tables and figures: the unit, and which direction is better.

That a higher accuracy is better goes without saying; for any other measure it is always stated.
"""

from gbn.measures import Measure


def counted(measure: Measure) -> str:
    """Return the unit of differences, to follow a column's name: " (points)", " (mm)", or nothing."""
    return f" ({measure.points})" if measure.points else ""


def direction(measure: Measure) -> str:
    """Return label and direction: " (KID x 1000, Inception, lower is better)"; empty for an accuracy."""
    if measure.family == "accuracy":
        return ""
    label = (
        measure.label.replace(f" ({measure.network})", f", {measure.network}")
        if measure.network
        else measure.label
    )
    return f" ({label}, {measure.direction})"


def differences(measure: Measure, against: str) -> str:
    """Describe a difference: "differences in points, arm - reference", and which sign is better."""
    unit = f" in {measure.points}" if measure.points else ""
    return f"differences{unit}, arm - {against}{sense(measure)}"


def sense(measure: Measure) -> str:
    """Say which sign of a difference is better: "; below 0 the arm is better"; empty for an accuracy."""
    side = "above" if measure.higher_is_better else "below"
    return "" if measure.family == "accuracy" else f"; {side} 0 the arm is better"


def quality(final: Measure) -> str:
    """Return the heading of the table of final results."""
    spread = "mean ± standard deviation over seeds"
    if final.unit == "%":
        return f"{_capital(final.title)} in percent: {spread}"
    return f"{_capital(final.label)}: {spread}"


def column(final: Measure) -> str:
    """Return the same as a column's name: "test acc. (%)", "KID x 1000"."""
    if final.family == "accuracy":
        return "test acc. (%)"
    return final.label.removesuffix(f" ({final.network})")


def best(measure: Measure) -> str:
    """Return the word for a run's best value: "maximum" if higher is better, else "minimum"."""
    return "maximum" if measure.higher_is_better else "minimum"


def crossing(measure: Measure) -> str:
    """Describe how a target is reached: "first crossing by val_accuracy", "first at or below the target by ..."."""
    how = "first crossing" if measure.higher_is_better else "first at or below the target"
    return f"{how} by {measure.key}{direction(measure)}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
