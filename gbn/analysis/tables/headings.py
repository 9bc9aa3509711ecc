"""How tables and figures speak of a measure: in which unit, and which way is better.

Of an accuracy everybody knows that higher is better, so nothing is said; of any other measure it is said each time.
"""

from gbn.measures import Measure


def counted(measure: Measure) -> str:
    """What differences are counted in, behind a column's name: " (points)", " (mm)", or nothing."""
    return f" ({measure.points})" if measure.points else ""


def direction(measure: Measure) -> str:
    """Label and direction, in brackets: " (KID x 1000, Inception, lower is better)"; of an accuracy nothing."""
    if measure.family == "accuracy":
        return ""
    label = (
        measure.label.replace(f" ({measure.network})", f", {measure.network}")
        if measure.network
        else measure.label
    )
    return f" ({label}, {measure.direction})"


def differences(measure: Measure, against: str) -> str:
    """What a difference is: "differences in points, arm - reference", and which sign is the better one."""
    unit = f" in {measure.points}" if measure.points else ""
    return f"differences{unit}, arm - {against}{sense(measure)}"


def sense(measure: Measure) -> str:
    """Which sign of a difference is the better one: "; below 0 the arm is better"; of an accuracy nothing."""
    side = "above" if measure.higher_is_better else "below"
    return "" if measure.family == "accuracy" else f"; {side} 0 the arm is better"


def quality(final: Measure) -> str:
    """What runs came to: the heading of its table."""
    spread = "mean ± standard deviation over seeds"
    if final.unit == "%":
        return f"{_capital(final.title)} in per cent: {spread}"
    return f"{_capital(final.label)}: {spread}"


def column(final: Measure) -> str:
    """The same as a column's name: "test acc. (%)", "KID x 1000"."""
    if final.family == "accuracy":
        return "test acc. (%)"
    return final.label.removesuffix(f" ({final.network})")


def best(measure: Measure) -> str:
    """The best value of a run: the "maximum" where higher is better, else the "minimum"."""
    return "maximum" if measure.higher_is_better else "minimum"


def crossing(measure: Measure) -> str:
    """How a target is reached: "first crossing by val_accuracy", "first at or below the target by fid_inception"."""
    how = "first crossing" if measure.higher_is_better else "first at or below the target"
    return f"{how} by {measure.key}{direction(measure)}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
