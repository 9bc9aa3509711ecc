"""Turns errors of pydantic and Hydra into one line that names each key as the user writes it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from gbn.config.errors import listed
from gbn.suggest import did_you_mean


def one_line(error: BaseException) -> str:
    """Return the message of a Hydra or OmegaConf error on one line, without their internals."""
    text = str(error)
    if isinstance(error, OmegaConfBaseException):
        key = str(error.full_key or "")
        text = text.splitlines()[0] if text else type(error).__name__
        text = text if not key or key in text.split() else f"{key}: {text}"
    elif isinstance(error, HydraException):
        text = text.split("\nConfig search path")[0]
    return " ".join(text.split()) or type(error).__name__


def explain(error: ValidationError, plain: Any, schema: type[BaseModel]) -> str:
    """Return pydantic's findings as one line, grouped by key.

    Args:
        error: raised by validating `plain` against `schema`.
        plain: the validated data, in plain containers.
        schema: defines the allowed keys.
    """
    found: dict[str, list[Any]] = {}
    for one in error.errors(include_url=False):
        found.setdefault(".".join(_path(one, plain)), []).append(one)
    # A list with an invalid item is not another member of its union either: report only the item.
    inner = {key for key in found if not any(other.startswith(f"{key}.") for other in found)}
    lines = [_explain_key(key, found[key], plain, schema) for key in found if key in inner]
    return "; ".join(dict.fromkeys(lines))


def _path(one: Any, plain: Any) -> list[str]:
    """Return the key of a finding: pydantic's location without the names of union members."""
    path: list[str] = []
    for place, part in enumerate(one["loc"]):
        last = place == len(one["loc"]) - 1
        if isinstance(plain, Mapping) and (part in plain or (last and one["type"] == "missing")):
            path.append(str(part))
            plain = plain.get(part)
        elif isinstance(plain, list) and isinstance(part, int) and part < len(plain):
            path.append(str(part))
            plain = plain[part]
    return path


def _explain_key(key: str, errors: Sequence[Any], plain: Any, schema: type[BaseModel]) -> str:
    one = errors[0]
    given, kind, context = one.get("input"), one["type"], one.get("ctx", {})
    path = key.split(".")
    if kind == "extra_forbidden":
        allowed = _keys_beside(path, plain, schema)
        where = ".".join(path[:-1])
        return (
            f"unknown key {key!r}{did_you_mean(path[-1], allowed)}; allowed{' in ' if where else ''}{where}: "
            f"{listed(allowed)}"
        )
    if kind == "missing":
        return f"{key} is missing: give {key}=..."
    if kind == "value_error":
        message = str(context.get("error", one["msg"]))
        says_it = not key or isinstance(given, dict) or path[-1] in message.split("=")[0]
        return message if says_it else f"{key}={given!r}: {message}"
    if kind.startswith("union_tag"):
        allowed = [part.strip(" '") for part in str(context.get("expected_tags", "")).split(",")]
        name = given.get("name") if isinstance(given, Mapping) else given
        return f"{key}={name!r} is not allowed{did_you_mean(name, allowed)}; allowed: {listed(allowed)}"
    choices = [error["ctx"]["expected"] for error in errors if error["type"] == "literal_error"]
    names = [part.strip(" '") for choice in choices for part in choice.replace(" or ", ",").split(",")]
    ranges = [
        error["msg"][0].lower() + error["msg"][1:]
        for error in errors
        if "expected" not in error.get("ctx", {})
    ]
    allowed = f": {', or '.join([*ranges, *choices])}" if ranges else f"; allowed: {', '.join(choices)}"
    return f"{key}={given!r} is not allowed{did_you_mean(given, names)}{allowed}"


def _keys_beside(path: Sequence[str], plain: Any, schema: type[BaseModel]) -> Iterable[str]:
    """Return the keys that the schema allows in the section of `path`'s last part."""
    for part in path[:-1]:
        plain = plain.get(part, {}) if isinstance(plain, Mapping) else {}
        if part not in schema.model_fields:  # a key of a mapping of sections
            continue
        annotation = schema.model_fields[part].annotation
        members = [getattr(one, "__origin__", one) for one in get_args(annotation) or (annotation,)]
        models = [one for one in members if isinstance(one, type) and issubclass(one, BaseModel)]
        named = [
            model
            for model in models
            if "name" in model.model_fields
            and isinstance(plain, Mapping)
            and plain.get("name") in get_args(model.model_fields["name"].annotation)
        ]
        schema = (named or models)[0]
    return [field.alias or name for name, field in schema.model_fields.items()]
