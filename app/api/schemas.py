"""The bodies of requests and answers, as docs/OpenAPI shows them."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, field_validator, model_validator

ARTICLE = (
    "NASA's Perseverance rover has successfully landed on Mars, marking the agency's ninth mission to the Red Planet. "
    "The rover, which is the most advanced astrobiology laboratory ever sent to another world, will search for signs "
    "of ancient microbial life, collect samples of rock and regolith, and pave the way for human exploration."
)
REQUEST_ID = "01JDFZ0V7QW9C3X8R6M2K5T4B1"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
UNKNOWN_TOLD = 10  # so many unknown fields are named in an error, however many there are
SCORES = {"rougeL": 42.6}


class Body(BaseModel):
    """A request's body: no coercion, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_unknown(cls, body: Any) -> Any:
        """A body of a hundred thousand unknown fields gets as short an answer as one of ten."""
        if not isinstance(body, dict):
            return body
        unknown = [name for name in body if name not in cls.model_fields]
        for name in unknown[UNKNOWN_TOLD:]:
            del body[name]
        return body


def _mend(text: Any) -> Any:
    """Half a character, as a CMS leaves it that cuts texts by UTF-16 units, is no reason to refuse an article."""
    return LONE_SURROGATE.sub(" ", text) if isinstance(text, str) else text


Phrase = Annotated[
    str, Field(min_length=1, max_length=300, pattern=r"\S", examples=["Perseverance"]), BeforeValidator(_mend)
]


class HeadlineRequest(Body):
    text: Annotated[
        str,
        Field(min_length=1, description="The article, plain text or HTML.", examples=[ARTICLE]),
        BeforeValidator(_mend),  # behind the lengths, for pydantic to know them as a string's
    ]
    num_headlines: Annotated[int, Field(ge=1, le=8, description="How many different headlines, best first.")] = 1
    case: Annotated[
        Literal["model", "sentence", "title"],
        Field(description="The model's own casing, or house style; names keep the article's spelling."),
    ] = "model"
    max_chars: Annotated[int | None, Field(ge=20, le=300, description="At most so many characters, whole words.")] = (
        None
    )
    max_words: Annotated[int | None, Field(ge=3, le=40, description="At most so many words.")] = None
    include: Annotated[
        list[Phrase], Field(max_length=5, description="Phrases it must contain, whole words in any case.")
    ] = []
    avoid: Annotated[
        list[Phrase], Field(max_length=50, description="Phrases it must not contain, whole words in any case.")
    ] = []
    strategy: Annotated[
        Literal["beam", "sample"], Field(description="The likeliest headlines, or headlines drawn by likelihood.")
    ] = "beam"
    temperature: Annotated[
        float | None, Field(ge=0.1, le=2, description='With "sample": more than 1 is bolder. Default 1.')
    ] = None
    top_p: Annotated[
        float | None,
        Field(
            gt=0, le=1, description='With "sample": draw from the likeliest tokens alone that reach it. Default 0.9.'
        ),
    ] = None
    seed: Annotated[
        int | None, Field(ge=-(2**63), lt=2**63, description='With "sample": the same seed draws the same headlines.')
    ] = None
    model: Annotated[
        str | None, Field(max_length=256, description="`name` or `name@version`; null is the default model.")
    ] = None

    @field_validator("text")
    @classmethod
    def _not_blank(cls, text: str) -> str:
        if text.isspace():
            raise ValueError("must not be blank")
        return text


class Example(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(extra="forbid")


class ModelName(Example):
    name: Annotated[str, Field(examples=["press-en"])]
    version: Annotated[str, Field(examples=["1"])]


class Unsupported(Example):
    text: Annotated[str, Field(examples=["2019"])]
    start: Annotated[int, Field(description="Where it begins in the headline's text.", examples=[14])]
    end: Annotated[int, Field(examples=[18])]
    kind: Annotated[Literal["name", "number"], Field(examples=["number"])]


class Headline(Example):
    text: Annotated[str, Field(examples=["NASA's Perseverance rover lands on Mars"])]
    score: Annotated[float, Field(description="Mean log-probability per token.", le=0, examples=[-0.41])]
    chars: Annotated[int, Field(description="Code points.", examples=[39])]
    words: Annotated[int, Field(examples=[6])]
    missing: Annotated[list[str], Field(description="The phrases of `include` that it lacks.", examples=[[]])]
    supported: Annotated[bool, Field(description="Whether the article has all its names and numbers.", examples=[True])]
    unsupported: Annotated[
        list[Unsupported], Field(description="Names and numbers in it that the article lacks.", examples=[[]])
    ]


class Article(Example):
    tokens: Annotated[int, Field(description="Of the whole article, as the model counts.", examples=[81])]
    used_tokens: Annotated[int, Field(description="Of these the model read so many.", examples=[81])]
    truncated: Annotated[bool, Field(description="Whether the article's tail was left out.", examples=[False])]


class Timing(Example):
    queue_ms: Annotated[float, Field(examples=[1.3])]
    model_ms: Annotated[float, Field(examples=[38.0])]
    total_ms: Annotated[float, Field(examples=[41.2])]


class HeadlineAnswer(Example):
    id: Annotated[str, Field(description="The request's id.", examples=[REQUEST_ID])]
    model: ModelName
    headlines: Annotated[list[Headline], Field(description="At least one, at most as many as asked for.")]
    article: Article
    timing: Timing


class Model(Example):
    name: Annotated[str, Field(examples=["press-en"])]
    version: Annotated[str, Field(examples=["1"])]
    default: Annotated[bool, Field(examples=[True])]
    language: Annotated[str, Field(examples=["en"])]
    licence: Annotated[str, Field(examples=["Apache-2.0"])]
    parameters: Annotated[int, Field(examples=[24_455_040])]
    max_source_tokens: Annotated[int, Field(examples=[512])]
    device: Annotated[str, Field(examples=["cuda"])]
    dtype: Annotated[str, Field(examples=["bfloat16"])]
    scores: Annotated[dict[str, Any], Field(description="From the model's card.", examples=[SCORES])]


class Models(Example):
    models: list[Model]


class Health(Example):
    status: Annotated[str, Field(examples=["ok"])]


class FieldError(Example):
    field: Annotated[str, Field(examples=["num_headlines"])]
    message: Annotated[str, Field(examples=["must be at most 8"])]


class Problem(Example):
    """RFC 9457."""

    type: Annotated[str, Field(examples=["about:blank"])]
    title: Annotated[str, Field(examples=["Unprocessable Content"])]
    status: Annotated[int, Field(examples=[422])]
    detail: Annotated[str, Field(examples=["num_headlines: must be at most 8"])]
    instance: Annotated[str, Field(description="The request's id.", examples=[REQUEST_ID])]
    errors: Annotated[list[FieldError] | None, Field(description="With 422: what is wrong, field by field.")] = None


def headline_request(max_article_chars: int) -> type[HeadlineRequest]:
    """HeadlineRequest with this service's limit on an article's length."""
    field = HeadlineRequest.model_fields["text"]
    limited_str: Any = Annotated[str, Field(max_length=max_article_chars)]
    text: Any = Annotated[limited_str, *field.metadata, Field(description=field.description, examples=field.examples)]
    limited: type[HeadlineRequest] = create_model("HeadlineRequest", __base__=HeadlineRequest, text=(text, ...))
    return limited
