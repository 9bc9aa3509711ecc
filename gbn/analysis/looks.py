"""How an arm looks in every chart: its family's hue, a shade and a dash for its role, a marker where hues repeat.

An arm and its controls are a family and share a hue (Okabe and Ito's, distinct with any color vision; a lighter set
for dark pages). The arm itself is solid and pure; each control has a dash of its own, and a shade, since dashes alone
are hard to distinguish where a row is small. Neighboring arms without controls differ in their dash too, for gray
print. After as many families as there are hues, they start again with another marker, so that fifty arms and more
stay distinct.

The report and every figure ask :func:`looks_of_plan`, so an arm looks the same in all of an experiment's charts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gbn.analysis.runs.plan import Plan

#: (on a light page, on a dark page): Okabe and Ito's hues, the pale ones darkened where they stand on white.
HUES = (
    ("#0072B2", "#3FA0E8"),
    ("#D55E00", "#FF8A4C"),
    ("#009E73", "#2CC99B"),
    ("#BF5F97", "#E39AC6"),
    ("#C98600", "#F2B53A"),
    ("#3BA7E0", "#A8DDFB"),
    ("#86850B", "#E9DF52"),
)
#: The reference is drawn in the color of text, on top and dashed, so that it shows on whatever it coincides with.
REFERENCE = ("#16181d", "#f1f3f7")
REFERENCE_DASH = "7px,3px"
#: The role in a family: the arm itself, then its controls.
DASHES = ("solid", "2px,2px", "9px,3px,2px,3px", "5px,5px", "12px,3px", "9px,3px,2px,3px,2px,3px", "1px,4px")
#: How far each role in turn goes from the hue, towards the color of text (above 0) or of the page (below).
SHADES = (0.0, 0.45, -0.35, 0.25)
#: Plotly's names; none at first.
MARKERS = ("", "circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "cross", "hexagon")
#: Matplotlib's for the same.
_MARKS = dict(zip(MARKERS, ("", "o", "s", "D", "^", "x", "*", "v", "P", "h"), strict=True))


@dataclass(frozen=True)
class Look:
    """Color on a light and on a dark page, dash (SVG's or "solid"), Plotly marker ("" is none).

    Attributes:
        of: the arm that this one controls for; "" for an arm of its own.
    """

    light: str
    dark: str
    dash: str
    marker: str
    of: str = ""

    @property
    def reference(self) -> bool:
        """True if it is the look of the reference."""
        return self.light == REFERENCE[0]

    @property
    def line(self) -> dict[str, Any]:
        """Color and line style as matplotlib's keywords."""
        dashes = [float(part.removesuffix("px")) for part in self.dash.split(",") if self.dash != "solid"]
        return {"color": self.light, "linestyle": (0, tuple(dashes)) if dashes else "-"}

    @property
    def curve(self) -> dict[str, Any]:
        """:attr:`line`, with the marker on some of a line's points and the reference above the others."""
        marked = {"marker": _MARKS[self.marker], "markersize": 3, "markevery": 0.15} if self.marker else {}
        # the reference's dashes show on whatever it coincides with
        return {**self.line, **marked, "zorder": 3 if self.reference else 2}


def looks_of_plan(plan: Plan) -> dict[str, Look]:
    """Return the look of every arm of a plan, in its order, whether or not the arm has runs."""
    arms = list(dict.fromkeys(entry.arm for entry in plan.entries))
    return looks_of(arms, plan.reference, plan.controls)


def looks_of(arms: Sequence[str], reference: str, controls: Mapping[str, Sequence[str]]) -> dict[str, Look]:
    """Return a look for every arm; no two are alike with up to 70 families of up to seven arms.

    Args:
        arms: in the plan's order, which alone decides which arm gets which color.
        reference: the arm in the color of text.
        controls: arm -> its controls; a control of several arms belongs to the first.
    """
    families: dict[str, list[str]] = {}
    placed = {reference}
    of_others = {control for arm, inner in controls.items() if arm in arms for control in inner}
    for arm in arms:
        if arm not in placed and arm not in of_others:
            families[arm] = [control for control in controls.get(arm, ()) if control not in placed]
            placed |= {arm, *families[arm]}
    families |= {arm: [] for arm in arms if arm not in placed}
    looks = {reference: Look(*REFERENCE, REFERENCE_DASH, "")}
    for index, (arm, inner) in enumerate(families.items()):
        light, dark = HUES[index % len(HUES)]
        marker = MARKERS[index // len(HUES) % len(MARKERS)]
        first = 0 if inner else index
        for role, name in enumerate((arm, *inner)):
            shade, dash = SHADES[role % len(SHADES)], DASHES[(first + role) % len(DASHES)]
            colors = _mixed(light, shade, "#000000", "#ffffff"), _mixed(dark, shade, "#ffffff", "#000000")
            looks[name] = Look(*colors, dash, marker, arm if role else "")
    return {arm: looks[arm] for arm in arms}


def _mixed(color: str, shade: float, text: str, page: str) -> str:
    """Return a color moved by `shade` towards that of text or of the page."""
    other = text if shade > 0 else page
    mixed = (
        round((1 - abs(shade)) * int(color[i : i + 2], 16) + abs(shade) * int(other[i : i + 2], 16))
        for i in (1, 3, 5)
    )
    return "#" + "".join(f"{part:02X}" for part in mixed)
