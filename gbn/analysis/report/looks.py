"""The look of an arm in every chart: its family's color, a marker once colors repeat, a dash for its role.

An arm and its controls are a family and share a hue (Okabe and Ito's, distinct with any color vision; a lighter set
for dark pages). The arm itself is solid, and each control has its own dash. Once all hues are used they start again
with another marker, so that fifty and more arms stay distinct.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: (on a light page, on a dark page): Okabe and Ito's hues, the pale ones darkened for white backgrounds.
HUES = (
    ("#0072B2", "#3FA0E8"),
    ("#D55E00", "#FF8A4C"),
    ("#009E73", "#2CC99B"),
    ("#BF5F97", "#E39AC6"),
    ("#C98600", "#F2B53A"),
    ("#3BA7E0", "#A8DDFB"),
    ("#86850B", "#E9DF52"),
)
#: The reference is drawn in the text color, on top and dashed, so that it stays visible on any line it coincides
#: with.
REFERENCE = ("#16181d", "#f1f3f7")
REFERENCE_DASH = "7px,3px"
#: The role in a family: the arm itself, then its controls.
DASHES = ("solid", "2px,2px", "9px,3px,2px,3px", "5px,5px", "12px,3px", "9px,3px,2px,3px,2px,3px", "1px,4px")
#: Plotly's names; the first has no marker.
MARKERS = ("", "circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "cross", "hexagon")


@dataclass(frozen=True)
class Look:
    """Color on a light and on a dark page, dash (SVG's or "solid"), Plotly marker ("" for none).

    Attributes:
        of: the arm that this one controls for; "" if it is not a control.
    """

    light: str
    dark: str
    dash: str
    marker: str
    of: str = ""


def looks_of(arms: Sequence[str], reference: str, controls: Mapping[str, Sequence[str]]) -> dict[str, Look]:
    """Return a look for every arm; all are distinct up to 70 families of up to seven.

    Args:
        arms: in the plan's order, which alone determines the colors.
        reference: the arm in the text color.
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
        for role, name in enumerate((arm, *inner)):
            looks[name] = Look(light, dark, DASHES[role % len(DASHES)], marker, arm if role else "")
    return {arm: looks[arm] for arm in arms}
