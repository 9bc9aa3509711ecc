"""Derive a plan for any set of runs: arms and settings are read off the runs' identities.

Runs that differ in the norm section or in the preconditioner belong to different arms. Runs that differ anywhere else
(except the seed) belong to different settings, and arms are compared only within a setting.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gbn import measures
from gbn.analysis.runs.plan import Entry, Plan
from gbn.analysis.runs.rows import Row
from gbn.methods import CONTROLLED, CONTROLS, METHODS, matched_method
from gbn.store.identity import OF_THE_ARM, arm_of, canonical, norm_label

_NOT_OF_THE_PAIR = ("name", "method", "matched_to", "revision")


def derive_plan(
    rows: Iterable[Row],
    *,
    name: str = "runs",
    reference: str | None = None,
    targets: Sequence[float] = (),
    selection: Mapping[str, Any] | None = None,
    measure: str = measures.DEFAULT,
) -> Plan:
    """Return the plan that consists of exactly the given runs.

    Args:
        rows: finished runs; those without an identity are left out.
        name: base name of the output files.
        reference: the label of an arm; by default the arm ``bn``, or the only arm.
        targets: values of the measure (accuracies are fractions). If empty, they are chosen later from the curves,
            and a note says so.
        selection: how the runs were selected.
        measure: the curve key that the runs are compared by.

    Raises:
        ValueError: there is no finished run, the reference is not among the arms, or a target is outside the
            measure's range.
    """
    norms, rests, seeds = _identities(rows)
    if not norms:
        raise ValueError("none of these runs is finished: there is nothing to compare yet")
    arms, settings = _labels(norms, norm_label), _labels(rests, lambda _: "")
    entries = tuple(
        sorted(
            (Entry(settings[run_id], arms[run_id], seed, run_id) for run_id, seed in seeds.items()),
            key=lambda entry: (entry.setting, entry.arm, entry.seed),
        )
    )
    controls = _controls({arms[run_id]: norm for run_id, norm in norms.items()})
    return Plan(
        name=name,
        title="A set of runs",
        entries=entries,
        reference=_reference(reference, arms, norms),
        targets=dict.fromkeys(settings.values(), measures.measure(measure).checked(targets)),
        measure=measure,
        controls=controls,
        selection=dict(selection or {}),
        notes=(
            "Arms and settings were derived from the runs' configurations; no grid fixed them in advance.",
            *_revisions(norms.values(), rests.values()),
        ),
        methods={arms[run_id]: norm["method"] for run_id, norm in norms.items()},
    )


def _revisions(norms: Iterable[Mapping[str, Any]], rests: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return notes on mixed revisions: runs that differ in nothing but a revision are never paired."""
    notes = []
    for parts, prefix, kept_apart in ((norms, "norm.", "arms"), (rests, "", "settings")):
        found: dict[str, dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
        for part in {canonical(part): part for part in {id(part): part for part in parts}.values()}.values():
            flat = flatten(part)
            revisions = {key: flat.pop(key) for key in sorted(flat) if key.split(".")[-1] == "revision"}
            for key, revision in revisions.items():
                found[canonical(flat)][key].add(revision)
        differing = {
            f"{prefix}{key} {' and '.join(map(str, sorted(values)))}"
            for kept in found.values()
            for key, values in kept.items()
            if len(values) > 1
        }
        if differing:
            notes.append(
                f"Mixed revisions: runs of different revisions ({'; '.join(sorted(differing))}) are {kept_apart} of "
                "their own, since a pair must be homogeneous."
            )
    return notes


Parts = dict[str, dict[str, Any]]


def _identities(rows: Iterable[Row]) -> tuple[Parts, Parts, dict[str, int]]:
    """Return for each run that has an identity: what makes its arm, what makes its setting, and its seed.

    Equal parts are one object, so that thousands of runs cost no more than their distinct arms and settings.
    """
    norms, rests, seeds = {}, {}, {}
    shared: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.identity is None:
            continue
        rest = {key: part for key, part in row.identity.items() if key not in ("norm", "seed")}
        optimizer = rest.get("optimizer", {})
        if any(key in optimizer for key in OF_THE_ARM):
            rest["optimizer"] = {key: part for key, part in optimizer.items() if key not in OF_THE_ARM}
        run_id, arm = row.record.run_id, arm_of(row.identity)
        norms[run_id] = shared.setdefault(json.dumps(arm), arm)
        rests[run_id] = shared.setdefault(json.dumps(rest), rest)
        seeds[run_id] = int(row.identity["seed"])
    return norms, rests, seeds


def _labels(
    parts: Mapping[str, Mapping[str, Any]], label: Callable[[Mapping[str, Any]], str]
) -> dict[str, str]:
    """Return a label for each run: equal parts get the same label, different parts different ones."""
    keys = {number: canonical(part) for number, part in {id(part): part for part in parts.values()}.items()}
    distinct = {keys[id(part)]: part for part in parts.values()}
    flat = {key: flatten(part) for key, part in distinct.items()}
    alike: dict[str, list[str]] = defaultdict(list)
    for key, part in distinct.items():
        alike[label(part)].append(key)
    named: dict[str, str] = {}
    for word, same in alike.items():
        for key in same:
            words = [word] if word else []
            if len(same) > 1:
                words += _differences(flat[key], [flat[other] for other in same])
            named[key] = " ".join(words)
    return {run_id: named[keys[id(part)]] for run_id, part in parts.items()}


def _differences(flat: Mapping[str, Any], group: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted({key for other in group for key in other})
    differing = [key for key in keys if len({canonical(other.get(key)) for other in group}) > 1]
    return [
        str(flat[key]) if key.endswith(".name") and key in flat else f"{key}={flat.get(key, 'default')}"
        for key in differing
    ]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _controls(norms: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return the controls of each arm: those with the parameters of its pair or mixture."""
    found = {}
    for arm, norm in norms.items():
        if norm["method"] in CONTROLS:
            continue
        matching = [
            other
            for other, control in norms.items()
            if control["method"] in CONTROLS and _pair(control) == _pair(norm)
        ]
        if matching and norm["method"] in CONTROLLED:
            found[arm] = tuple(sorted(matching))
    return found


def _pair(norm: Mapping[str, Any]) -> str:
    matched = norm.get("matched_to")
    inner = matched if isinstance(matched, Mapping) else {}
    of = METHODS.get(norm["method"] if matched is None else matched_method(matched))
    ignored = [name for name, option in of.options.items() if not option.matched] if of else []
    kept = {key: part for key, part in norm.items() if key not in (*_NOT_OF_THE_PAIR, *ignored)}
    # A pair is identified by its quadrangle; other methods have none.
    return canonical(kept | dict(inner) | ({} if of is None or of.has_pair else {"of": of.name}))


def _reference(asked: str | None, arms: Mapping[str, str], norms: Mapping[str, Mapping[str, Any]]) -> str:
    labels = sorted(set(arms.values()))
    if asked is not None:
        if asked not in labels:
            raise ValueError(f"--reference {asked}: no such arm among these runs; arms: {', '.join(labels)}")
        return asked
    plain = sorted({arms[run_id] for run_id, norm in norms.items() if norm["method"] == "bn"})
    if len(plain) == 1:
        return plain[0]
    if len(labels) == 1:
        return labels[0]
    why = f"{len(plain)} arms use bn" if plain else "no arm uses bn"
    raise ValueError(f"{why}: choose the arm to compare with using --reference; arms: {', '.join(labels)}")
