"""What every section of the schema shares: strict keys and types, and the ranges of numbers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A group of keys: unknown keys are errors, types are never coerced across kinds."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_default=False, protected_namespaces=())
