"""What the schema's sections of other packages' parts share: a target and its options."""

import math
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from gbn.config.section import Section, Text
from gbn.targets import Kind

__all__ = ["CustomSection", "refuse_infinite"]


class CustomSection(Section):
    """A part that another package brings (:mod:`gbn.targets`); it is loaded, and its options checked, in training.

    Nothing of it is imported before, since it is likely to import torch.
    """

    model_config = ConfigDict(populate_by_name=True)

    group: ClassVar[str]
    kind: ClassVar[Kind]
    target: Text | None = Field(default=None, alias="_target_")
    kwargs: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _whole(self) -> "CustomSection":
        if not self.target:
            raise ValueError(
                f"{self.group}=custom needs {self.group}._target_=their.module.{self.kind.example}"
            )
        refuse_infinite(f"{self.group}.kwargs", self.kwargs)
        return self


def refuse_infinite(key: str, value: Any) -> None:
    """Raise ValueError for a number without end in what only another package knows the types of."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key}={value} is not allowed: numbers must be finite")
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        refuse_infinite(f"{key}.{name}", one)
