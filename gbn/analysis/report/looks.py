"""How an arm looks in every chart: its family's colour, a marker where colours repeat, a dash for its role.

An arm and its controls are a family and share a hue (Okabe and Ito's, told apart with any colour vision; a
lighter set for dark pages). Solid is the arm itself, each control has a dash of its own. After as many families
as there are hues they start again with another marker, so that fifty arms and more stay distinct.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
#: The reference is drawn in the colour of text, on top and dashed, so that it shows on whatever it coincides with.
REFERENCE = ("#16181d", "#f1f3f7")
REFERENCE_DASH = "7px,3px"
#: The role in a family: the arm itself, then its controls.
DASHES = ("solid", "2px,2px", "9px,3px,2px,3px", "5px,5px", "12px,3px", "9px,3px,2px,3px,2px,3px", "1px,4px")
#: Plotly's names; none at first.
MARKERS = ("", "circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "cross", "hexagon")


@dataclass(frozen=True)
class Look:
    """Colour on a light and on a dark page, dash (SVG's or "solid"), Plotly marker ("" is none).

    Attributes:
        of: the arm that this one controls for; "" for an arm of its own.
    """

    light: str
    dark: str
    dash: str
    marker: str
    of: str = ""


def looks_of(arms: Sequence[str], reference: str, controls: Mapping[str, Sequence[str]]) -> dict[str, Look]:
    """A look for every arm, no two alike up to 70 families of up to seven.

    Args:
        arms: in the plan's order, which alone decides who gets which colour.
        reference: the arm in the colour of text.
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
