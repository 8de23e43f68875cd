"""`[[stages]]`: how the best of a search go on to larger settings, as a study file says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from optevo.spaces.sections import Section, distinct
from optevo.study.evaluation import EvaluationConfig, ScreeningConfig, as_tuple


class StageConfig(ScreeningConfig):
    """A stage: its name, how many it passes on, and what of its evaluation is other than `[evaluation]`."""

    name: str = Field(min_length=1, max_length=100)
    keep: int = Field(ge=1, le=100_000)  # so many of its best enter the next stage; of the last: are reported
    split: Literal["validation", "test"] | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    budget: Literal["steps", "flops"] | None = None

    def evaluation(self, base: EvaluationConfig) -> EvaluationConfig:
        """How a candidate is scored in this stage: every run to its end, and each candidate alone.

        Args:
            base: The study's, whose keys hold where the stage has none.

        Raises:
            ValidationError: The two do not go together.
        """
        given = self.model_dump(exclude={"name", "keep"})
        fixed = {"gate": False, "pruner": "none", "batch_candidates": 1, "screening": None}
        return EvaluationConfig.model_validate({**base.model_dump(), **given, **fixed})


def _name_of(stage: Any) -> Any:
    return stage.get("name", stage) if isinstance(stage, dict) else stage


Promote = Annotated[int, Field(ge=1, le=100_000)]
Stages = Annotated[tuple[StageConfig, ...], distinct(_name_of)]


class Pipeline(Section):
    """A file of stages for a search that is there already: these keys and nothing else."""

    promote: Promote  # so many of the search's best enter the first stage
    stages: Stages = Field(min_length=1)

    _list = field_validator("stages", mode="before")(as_tuple)

    def entering(self, stage: int) -> int:
        """How many enter a stage, counted from 0, at most; none one that there is not."""
        if stage >= len(self.stages):
            return 0
        return self.promote if stage == 0 else self.stages[stage - 1].keep

    def fixed(self, begun: int) -> dict[str, Any]:
        """What must stay as it is once the first `begun` stages have trials: all that decided those."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        stages = plain["stages"][:begun]
        if stages:
            del stages[-1]["keep"]  # of those who go on from there nobody has begun
        return {"promote": plain["promote"], "stages": stages} if begun else {}
