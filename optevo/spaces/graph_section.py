"""What a study file may say of the space of graphs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from optevo.optim.graphs.genome import check_shares
from optevo.spaces.graphs import preset_graph
from optevo.spaces.sections import SpaceSection, WarmStart, checked_presets

Share = Annotated[float, Field(ge=0, le=1)]
Time = Annotated[float, Field(ge=0)]


class GraphSection(SpaceSection):
    """Update graphs may vary."""

    kind: Literal["graph"]
    as_published: bool = False  # with what the published program does by mistake
    presets: tuple[str | WarmStart, ...] = ()  # members of generation 0: published optimizers, or equations
    viable: bool = True  # draw until one descends the shifted sphere
    warmup: Time = 0.1  # shares of a run; above 1, steps
    hold: Time = 0.0
    edge_decay: Share = 0.15  # probability of a decay on an edge of a random graph

    @field_validator("presets", mode="before")
    @classmethod
    def _known(cls, texts: Any, info: ValidationInfo) -> Any:
        def fault(text: Any) -> str | None:
            try:
                preset_graph(text, info.data.get("as_published", False))
            except ValueError as error:
                return str(error)
            return None

        return checked_presets(texts, fault, "preset names and equations")

    @field_validator("warmup")
    @classmethod
    def _is_a_time(cls, warmup: float) -> float:
        check_shares(warmup, 0.0)
        return warmup

    @field_validator("hold")
    @classmethod
    def _fits(cls, hold: float, info: ValidationInfo) -> float:
        check_shares(info.data.get("warmup", 0.0), hold)  # the warmup is absent where it is wrong itself
        return hold
