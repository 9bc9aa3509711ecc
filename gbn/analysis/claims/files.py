"""Read and check papers.yaml and every claims.yaml.

A mistake is reported on one line: file, claim, what was given, what is allowed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from gbn import measures
from gbn.analysis.claims.schema import COLUMNS, Claim, Paper, Rule
from gbn.analysis.comparison.figures import columns_of
from gbn.config.errors import ConfigError, unknown
from gbn.config.grid import FULL, Outline, outline, scales
from gbn.config.yaml_files import mapping

CLAIMS, PAPERS, SWEEP = "claims.yaml", "papers.yaml", "sweep.yaml"


def load_papers(folder: str | Path = "experiments") -> dict[str, Paper]:
    """Return the papers by key, in the file's order.

    Raises:
        ConfigError: the file does not exist, or an entry is invalid.
    """
    path = Path(folder) / PAPERS
    return {key: _checked(Paper, entry, f"{path}, {key}") for key, entry in _mapping(path).items()}


def load_claims(folder: str | Path = "experiments", experiments: Sequence[str] | None = None) -> list[Claim]:
    """Return the checked claims, in order of paper, experiment and file.

    Args:
        folder: holds papers.yaml and the experiments.
        experiments: names (or paths) of folders; None means all. Ids are checked across all of them in any case.

    Raises:
        ConfigError: an experiment, key, paper, arm, setting or target is unknown, a claim cannot be judged, or an id
            is used twice.
    """
    folder, papers = Path(folder), load_papers(folder)
    files = sorted(folder.glob(f"*/{CLAIMS}"))
    names = None if experiments is None else [Path(one).name for one in experiments]
    for name in names or ():
        if not (folder / name).is_dir():
            raise unknown("experiment", name, [path.name for path in folder.iterdir() if path.is_dir()])
    claims = [claim for path in files for claim in _file(path)]
    homes: dict[str, str] = {}
    for claim in claims:
        if claim.id in homes:
            raise ConfigError(
                f"claim {claim.id!r} is defined twice, in {homes[claim.id]} and {claim.experiment}: rename one"
            )
        homes[claim.id] = claim.experiment
        if claim.paper not in papers:
            raise unknown(f"paper of claim {claim.id} in {claim.experiment}:", claim.paper, papers)
    chosen = [claim for claim in claims if names is None or claim.experiment in names]
    for experiment in dict.fromkeys(claim.experiment for claim in chosen):
        grids = outlines(folder, experiment)
        for claim in chosen:
            if claim.experiment == experiment:
                _check(claim, grids)
    order = list(papers)
    return sorted(chosen, key=lambda claim: (order.index(claim.paper), claim.experiment))


def outlines(folder: str | Path, experiment: str) -> dict[str, Outline]:
    """Return the outlines by scale, "full" first; empty for an experiment without a sweep.yaml, which cannot run."""
    path = Path(folder) / experiment
    if not (path / SWEEP).is_file():
        return {}
    return {scale: outline(path, scale) for scale in (FULL, *scales(path))}


def applies(claim: Claim, grid: Outline, scale: str) -> bool:
    """Return whether a rule can be judged at a scale: its setting, its arms and its per-scale values exist there."""
    rule = claim.verdict
    if rule.rule == "none" or rule.setting not in grid.settings:
        return False
    if not {rule.arm, *rule.against} <= grid.arms.keys():
        return False
    if rule.rule == "direction" and rule.relevant_at(scale) is None:
        return False
    return rule.quantity != "speedup_to_target" or rule.target_at(scale) is not None


def _file(path: Path) -> list[Claim]:
    content = _mapping(path)
    if set(content) != {"claims"} or not isinstance(content["claims"], list):
        raise ConfigError(
            f"{path}: must hold exactly one key, `claims`, with a list; got {', '.join(content) or 'nothing'}"
        )
    claims = []
    for number, entry in enumerate(content["claims"], start=1):
        if not isinstance(entry, dict):
            raise ConfigError(f"{path}, claim {number}: must be a mapping; got {entry!r}")
        where = f"{path}, claim {entry.get('id', number)}"
        if "experiment" in entry:
            raise ConfigError(f"{where}: experiment is not a key, it is the name of the folder; remove it")
        claims.append(_checked(Claim, {**entry, "experiment": path.parent.name}, where))
    return claims


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(
            f"no file {path}: run from the repository's root, or pass the folder of experiments"
        )
    return mapping(path)


def _check(claim: Claim, grids: Mapping[str, Outline]) -> None:
    """Check that everything a rule names exists in the experiment's grid, at every scale where it can be judged."""
    rule, where = claim.verdict, f"claim {claim.id} in experiments/{claim.experiment}:"
    if not grids:
        if claim.waits_for is None and rule.rule != "none":
            raise ConfigError(f"{where} the folder has no {SWEEP}, so waits_for must say what is missing")
        return
    if rule.rule == "none":
        return
    full = grids[FULL]
    if rule.setting not in full.settings:
        raise unknown(f"setting of {where}", rule.setting, full.settings)
    for name in rule.names:
        if name not in full.arms:
            raise unknown(f"arm of {where}", name, full.arms)
    for key, value in (("target", rule.target), ("smallest effect", rule.relevant)):
        for scale in value if isinstance(value, dict) else ():
            if scale not in grids:
                raise unknown(f"scale of the {key} of {where}", scale, grids)
    _check_quantity(rule, grids, where)
    if rule.rule == "direction" and rule.relevant_at(FULL) is None:
        raise ConfigError(f"{where} relevant has no entry for the scale {FULL}")
    if rule.target is None:
        return
    if rule.target_at(FULL) is None:
        raise ConfigError(f"{where} target has no entry for the scale {FULL}")
    for scale, grid in grids.items():
        if applies(claim, grid, scale) and rule.target_at(scale) not in grid.targets[rule.setting]:
            allowed = ", ".join(f"{target:g}" for target in grid.targets[rule.setting]) or "none"
            raise ConfigError(
                f"{where} target {rule.target_at(scale):g} is not a target of the grid at scale {scale}; allowed: "
                f"{allowed} (a mapping scale -> target gives each scale its own)"
            )


def _check_quantity(rule: Rule, grids: Mapping[str, Outline], where: str) -> None:
    """Check the quantity: a measure without a test set has no best by validation, one with it no best of the run."""
    for grid in grids.values():
        final = measures.measure(grid.measure).final
        allowed = (*columns_of(final), "area", "training_loss")
        if rule.quantity in COLUMNS and COLUMNS[rule.quantity] not in allowed:
            names = [name for name, column in COLUMNS.items() if column in allowed]
            raise unknown(f"quantity for the measure {grid.measure} of {where}", rule.quantity, names)


def _checked(model: type[Any], content: Any, where: str) -> Any:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(model, error)}") from None


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    """Return the first mistake as one line."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        return str(unknown("key", name, [".".join((*path[:-1], key)) for key in _fields(model, path[:-1])]))
    if first["type"] == "missing":
        return f"key {name} is missing"
    said = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] == "value_error" else f"; got {first['input']!r}"
    return f"{name + ': ' if name else ''}{said}{given}"


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        inner = model.model_fields[part].annotation
        model = next(
            one for one in (inner, *get_args(inner)) if isinstance(one, type) and issubclass(one, BaseModel)
        )
    return [name for name in model.model_fields if name != "experiment"]
