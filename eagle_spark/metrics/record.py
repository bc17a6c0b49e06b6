"""Base of the typed records that `metadata.json` of a model and the results of jobs hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, Strict

Interval = Annotated[tuple[float, float], Strict(False)]
"""Low and high; a list in JSON."""


class Record(BaseModel):
    """A frozen record of JSON values. Unknown keys are kept, as a later version may write them."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form: the values that were set, and the unknown keys."""
        return self.model_dump(exclude_unset=True)
