"""A run's identity: the part of its configuration that can change a number, and the id made from it.

It leaves out values equal to the schema's default, so that adding a key (with a default that keeps the old behavior)
changes no existing id, and keys that only say where, how visibly or on what hardware a run is made
(:data:`NOT_IDENTITY`). It always keeps the names and the ``revision`` of each part: when the definition or a default
of a part changes, its revision is raised and its runs get new ids. Device, kernels and versions are provenance, not
identity.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from gbn.methods import METHODS, NAMED

#: Dotted keys that never change a number, and so are not part of the identity.
NOT_IDENTITY = frozenset(
    {
        "tracker",
        "launcher",
        "results_dir",
        "experiment",
        "dataset.root",
        "dataset.download",
        "dataset.allow_changed",
        "trainer.device",
        "trainer.threads",
        "trainer.workers",
        "trainer.clock",
        "trainer.checkpoint_seconds",
        "trainer.progress",
        "trainer.record",
    }
)

#: Keys kept even if they equal a default: they make the readable part of the id, and carry revisions.
ALWAYS_KEPT = frozenset({"name", "method", "revision", "seed"})

#: Hexadecimal digits of the hash in a run id (40 bits: the probability of a collision among 10,000 runs is 5e-5).
DIGITS = 10

_ABSENT = object()


def identity(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that names the run.

    Args:
        config: the complete configuration in plain containers (mappings, lists, numbers, strings, None).
        defaults: the schema's defaults, nested the same way, without the keys that have no default.

    Returns:
        A new nested dict: no key of :data:`NOT_IDENTITY`, no value equal to its default (except keys of
        :data:`ALWAYS_KEPT`), no empty section.

    Raises:
        ValueError: a value has no canonical form (NaN, infinity, an object that is not plain data).
    """
    return _kept(config, defaults, prefix="")


def _kept(config: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if path in NOT_IDENTITY:
            continue
        default = defaults.get(key, _ABSENT)
        if isinstance(value, Mapping):
            inner = _kept(value, default if isinstance(default, Mapping) else {}, f"{path}.")
            if inner or (not value and default is not _ABSENT and default != {}):
                kept[key] = inner
        elif key in ALWAYS_KEPT or default is _ABSENT or canonical(value, path) != canonical(default):
            kept[key] = _plain(value, path)
    return kept


def canonical(value: Any, path: str = "value") -> str:
    """Return canonical JSON: sorted keys, no spaces, 1.0 written as 1 (YAML and JSON don't distinguish them).

    Raises:
        ValueError: a value has no canonical form; the message calls it `path`.
    """
    return json.dumps(_plain(value, path), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f"{path}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, path) for inner in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path}={value!r} cannot name a run: numbers in a configuration must be finite")
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ValueError(
        f"{path} is a {type(value).__name__}; a configuration holds mappings, lists, numbers, text and null"
    )


def digest(kept: Mapping[str, Any]) -> str:
    """Return the first :data:`DIGITS` hexadecimal digits of the SHA-256 of an identity's canonical JSON."""
    return hashlib.sha256(canonical(kept).encode()).hexdigest()[:DIGITS]


def run_id(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return the id of a configuration's run, for example ``cifar10-cnn-gbn_cvar-s0-1a2b3c4d5e``."""
    return run_id_of(identity(config, defaults))


def run_id_of(kept: Mapping[str, Any]) -> str:
    """Return the run id of an identity (as stored in a summary): slug, seed, hash.

    Raises:
        ValueError: the identity lacks the data set, the model, the norm or the seed.
    """
    try:
        parts = [
            part_label(kept["dataset"]),
            part_label(kept["model"]),
            norm_label(arm_of(kept)),
            f"s{kept['seed']}",
        ]
    except KeyError as missing:
        raise ValueError(
            f"an identity needs dataset.name, model.name, norm.method and seed; {missing} is missing "
            f"(it has {', '.join(kept) or 'nothing'})"
        ) from None
    return "-".join([*(_slug(part) for part in parts), digest(kept)])


def group_of(kept: Mapping[str, Any]) -> str:
    """Return the name shared by the runs of an identity that differ only in the seed: ``cifar10-cnn-bn-1a2b3c4d5e``.

    Means, medians and bands are computed over such a group. The name is the readable part of the run id, and the
    hash of the identity without its seed.

    Raises:
        ValueError: the identity lacks the data set, the model, the norm or the seed.
    """
    slug = run_id_of(kept).rsplit("-", 2)[0]
    return f"{slug}-{digest({key: part for key, part in kept.items() if key != 'seed'})}"


#: Keys of the optimizer's section that belong to the arm: preconditioned gradients replace a norm layer.
OF_THE_ARM = ("precondition", "bnp")


def arm_of(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an identity that defines its arm: the norm section and any preconditioner keys.

    Raises:
        KeyError: the identity has no norm.
    """
    optimizer = kept.get("optimizer", {})
    return {**kept["norm"], **{key: optimizer[key] for key in OF_THE_ARM if key in optimizer}}


def part_label(part: Mapping[str, Any]) -> str:
    """A short readable name of a data set's or a network's section: ``cifar10``, ``custom_MyNet``.

    Raises:
        KeyError: the section has no name.
    """
    return "_".join([str(part["name"]), *_target(part)])


def _target(part: Mapping[str, Any]) -> list[str]:
    target = part.get("_target_") or part.get("target")
    return [str(target).replace(":", ".").rsplit(".", 1)[-1]] if target else []


def norm_label(norm: Mapping[str, Any]) -> str:
    """Return a short readable name for a norm section: ``bn``, ``gbn_cvar_0.9``, ``bn_matched_gbn_cvar_0.75``.

    A parameter is shown if the section holds it; in an identity, that is if it differs from its default. The
    preconditioner of :func:`arm_of` comes last: ``none_bnp``.
    """
    named = norm.get("name") or norm["method"]
    parts = [str(named)]
    parts += _target(norm)
    matched = norm.get("matched_to")
    if isinstance(matched, str):
        parts.append(matched)
    # What a name implies is not shown again.
    implied = {key: value for part in parts if part in NAMED for key, value in NAMED[part][1].items()}
    for section in (norm, matched if isinstance(matched, Mapping) else {}):
        quadrangle = section.get("quadrangle")
        if quadrangle not in (None, implied.get("quadrangle")) and not any(
            quadrangle in part for part in parts
        ):
            parts.append(str(quadrangle))
        for part in ("statistic", "deviation"):
            chosen = section.get(part)
            if isinstance(chosen, Mapping) and chosen.get("name"):
                parts += [str(chosen["name"]), *_parameters(chosen)]
        parts += _parameters(section)
        if section.get("instance_enhancement") and "instance_enhancement" not in implied:
            parts.append("ie")
    if norm.get("precondition"):
        parts.append(str(norm["precondition"]))
    return "_".join(parts)


def _parameters(section: Mapping[str, Any]) -> list[str]:
    found = (section.get(key) for key in ("alpha", "tau", "b"))
    parts = [f"{value:g}" for value in found if isinstance(value, int | float)]
    shown = {key: option for row in METHODS.values() for key, option in row.options.items() if option.label}
    return [
        *parts,
        *(str(option.label).format(section[key]) for key, option in shown.items() if key in section),
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text).strip("_") or "x"
