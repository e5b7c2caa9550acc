"""What a training does, in numbers: every option, its bound and one sentence. Knows nothing but them."""

import json
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.store.manifest import first_problem
from app.training.errors import TrainingError


class Recipe(BaseModel):
    """The options of `headline train`; the defaults are the classic recipe for T5 and its relatives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_source_tokens: int = Field(512, ge=8, le=65_536, description="Articles are cut after so many tokens.")
    max_target_tokens: int = Field(64, ge=4, le=1024, description="Headlines are cut after so many tokens.")
    prefix: str | None = Field(None, description='The task prefix ("summarize: "); as the base has it if not given.')
    epochs: float = Field(3, gt=0, le=1000, description="How often each pair is seen.")
    batch: int = Field(16, ge=1, le=4096, description="Examples a step on each device.")
    accumulate: int = Field(1, ge=1, le=1024, description="Batches a step.")
    rate: float = Field(1e-4, gt=0, le=1, description="The learning rate at its highest.")
    encoder_rate: float = Field(1, ge=0, le=1, description="The encoder's share of the rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="How the rate falls.")
    warmup: int = Field(500, ge=0, description="Steps over which the rate rises; at most a tenth of all.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay.")
    label_smoothing: float = Field(0, ge=0, lt=1, description="The share of the target given to all other tokens.")
    dropout: float | None = Field(None, ge=0, lt=1, description="Dropout everywhere; as the base has it if not given.")
    average: float = Field(0, ge=0, lt=1, description="Publish the moving average of the weights, of this decay.")
    base_share: float = Field(0, ge=0, lt=1, description="Publish a mix of the weights with so much of the base's.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="What the products are computed in.")
    save_as: Literal["float32", "float16", "bfloat16"] = Field("float32", description="What the weights are kept in.")
    seed: int = Field(1, ge=0, lt=2**31, description="The same seed gives the same batches.")
    save_every: int = Field(500, ge=1, description="Steps between checkpoints.")
    log_every: int = Field(20, ge=1, description="Steps between lines of metrics.")

    weights: dict[str, float] = Field({}, description="How often a source's pairs are seen, beside the others'.")
    lead_tokens: int | None = Field(None, ge=8, description="At first articles are cut after so many tokens.")
    lead_until: float = Field(0.85, ge=0, le=1, description="The share of the training that sees short leads only.")
    infill: float = Field(0, ge=0, lt=1, description="The share of text infilling at first; it falls to nothing.")
    first_sentence: float = Field(0, ge=0, lt=1, description="The share of 'first sentence from the rest' at first.")
    tasks_until: float = Field(0.6, gt=0, le=1, description="The share of the training after which headlines are all.")
    supported_only: bool = Field(False, description="Leave out headlines that name what the seen text does not.")
    drop_sentence: float = Field(0, ge=0, lt=1, description="The share of articles that lose an early sentence.")
    shuffle_sentences: float = Field(0, ge=0, lt=1, description="The share of articles with shuffled first sentences.")
    noise: float = Field(0, ge=0, lt=1, description="The share of articles with wrong case and lost punctuation.")
    rename: float = Field(0, ge=0, lt=1, description="The share of pairs whose names are exchanged for made-up ones.")
    adversarial: float = Field(0, ge=0, le=10, description="FGM: the length of the step on the embeddings; 0 is none.")

    @classmethod
    def of(cls, **options: object) -> Self:
        """The recipe of these options; those that are None keep their default. Raises TrainingError."""
        try:
            return cls.model_validate({name: value for name, value in options.items() if value is not None})
        except ValidationError as error:
            raise TrainingError(first_problem(error)) from error


def parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """What "SOURCE=2" says; raises TrainingError."""
    weights = {}
    for text in texts:
        source, equals, factor = text.rpartition("=")
        try:
            weights[source] = float(factor)
        except ValueError:
            equals = ""
        if not equals or not source or not 0 <= weights[source] < float("inf"):
            raise TrainingError(f"a weight is SOURCE=FACTOR, such as wikinews=2, not {text!r}")
    return weights


def parse_decoding(texts: Sequence[str]) -> dict[str, Any]:
    """What "length_penalty=2" says; raises TrainingError."""
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            options[name] = json.loads(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise TrainingError(
                f"a decoding option is NAME=VALUE, such as length_penalty=2 or early_stopping=true, not {text!r}"
            )
    return options
