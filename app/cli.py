"""headline serve | models | train | evaluate | bench: parses, calls, prints."""

import inspect
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer, main_thread
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo
from typer.exceptions import TyperException

from app.settings import Settings, SettingsError, read_settings
from app.store.store import Store, StoreError, verify

if TYPE_CHECKING:
    from app.engine.load import LoadedModel
    from app.serving.metrics import Metrics
    from app.serving.service import HeadlineService
    from app.store.manifest import Manifest

app = typer.Typer(
    help="Headlines from articles, on your own machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class CommandError(Exception):
    """What went wrong, in one line for a person."""


def main() -> None:
    """The `headline` command: an error is one line on stderr and a non-zero exit."""
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        _fail(error.format_message(), code=2)
    except (CommandError, SettingsError, StoreError) as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", code=130)
    sys.exit(code if isinstance(code, int) else 0)


def serve(**flags: str | None) -> int:
    """Serve the model over HTTP until SIGTERM. Each option is also an environment variable, HEADLINE_<NAME>."""
    settings = read_settings(**{name: value for name, value in flags.items() if value is not None})
    settings.keys()  # an unreadable file of keys ends the start before the model is loaded
    from app import logs

    logs.set_up(settings.log_format)
    from app.api import server
    from app.serving.service import HeadlineService

    bound = server.bind(settings.host, settings.port)
    model, _, _ = _load(settings)

    def build(metrics: "Metrics", on_lost: Callable[[], None]) -> "HeadlineService":
        return HeadlineService(
            model,
            metrics,
            max_batch_tokens=settings.max_batch_tokens or model.max_batch_tokens,
            max_waiting=settings.max_waiting,
            max_delay=settings.max_delay_ms / 1000,
            on_lost=on_lost,
        )

    return server.run(settings, bound, build)


def _load(settings: Settings) -> tuple["LoadedModel", Path, "Manifest | None"]:
    """The model that the settings name, its folder and its manifest. Raises StoreError, CommandError."""
    import logging

    from app.engine import load

    folder = Store(settings.model_store).resolve(settings.model)
    manifest = verify(folder)
    if manifest is None:
        logging.getLogger(__name__).warning("%s has no manifest: its files are unchecked, its defaults kept", folder)
    try:
        options = {"device": settings.device, "dtype": settings.dtype, "quantize": settings.quantize}
        return load.load(folder, manifest, **options), folder, manifest
    except load.LoadError as error:
        raise CommandError(str(error)) from error


def _flags(command: Callable[..., Any], fields: Mapping[str, FieldInfo]) -> Callable[..., Any]:
    """Give `command`, in place of its `**flags`, an option for every field, named and explained by it."""
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                bool | None if field.annotation is bool else str | None,
                typer.Option(
                    help=f"{field.description} [default: {'none' if field.default in ((), None) else field.default}]",
                    show_default=False,
                ),
            ],
        )
        for name, field in fields.items()
    ]
    own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "flags"]
    command.__signature__ = inspect.Signature([*own, *parameters])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *parameters]}
    return command


app.command()(_flags(serve, Settings.model_fields))


@app.command()
def models(
    store: Annotated[Path, typer.Option("--model-store", help="The folder of models.")] = Path("model_store"),
) -> None:
    """List the models of a store, and check every file of theirs against its manifest."""
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "language", "licence", "source tokens", "created", "base")
    room = Store(store)
    for manifest in room.versions():
        reference = f"{manifest.name}@{manifest.version}"
        verify(room.resolve(reference))
        length = str(manifest.max_source_tokens or "by its config")
        table.add_row(
            reference, manifest.language, manifest.licence, length, manifest.created.isoformat(), manifest.base
        )
    Console().print(table)


@app.command()
def bench(
    articles: Annotated[Path | None, typer.Argument(help="JSONL, an object with a `text` a line.")] = None,
    shape: Annotated[
        str | None, typer.Option(help="Instead: random weights in this shape and random articles (t5-small).")
    ] = None,
    model: Annotated[str, typer.Option(help="As for serve.")] = "press-en",
    store: Annotated[Path, typer.Option("--model-store", help="The folder of models.")] = Path("model_store"),
    device: Annotated[str, typer.Option(help="As for serve.")] = "auto",
    dtype: Annotated[str, typer.Option(help="As for serve.")] = "auto",
    quantize: Annotated[str, typer.Option(help="As for serve.")] = "none",
    most: Annotated[int, typer.Option(help="Read so many articles.", min=1)] = 96,
    rounds: Annotated[int, typer.Option(help="Measure so many times, in turn; medians are printed.", min=1)] = 3,
    batch: Annotated[int, typer.Option(help="The batches that generate() gets.", min=1)] = 16,
    max_batch_tokens: Annotated[int, typer.Option(help="The engine's batches, as for serve.", min=1)] = 8192,
    url: Annotated[str | None, typer.Option(help="Also drive the service that runs here.")] = None,
    clients: Annotated[str, typer.Option(help="Numbers of clients at once.")] = "1,8,32",
    key: Annotated[str | None, typer.Option(help="The service's API key.")] = None,
    limits: Annotated[
        int, typer.Option(help="With --url: watch idling, refusals, and memory over so many requests.", min=0)
    ] = 0,
    engine: Annotated[bool, typer.Option(help="Measure the engine, or only the service at --url.")] = True,
) -> None:
    """Measure the engine beside generate() and CTranslate2, and a service at --url. Needs the extra `bench`."""
    from rich.console import Console

    try:
        from bench import articles as files
        from bench import load as service_load
        from bench import report, shapes
    except ModuleNotFoundError as error:
        raise CommandError(f"{error}: install the extra: pip install 'headline-service[bench]'") from error
    console = Console()
    comparison = None
    try:
        numbers = [int(number) for number in clients.split(",")]
        with TemporaryDirectory() as random:
            if shape is not None:
                shapes.save_shape(shape, Path(random))
                model, texts = random, shapes.articles_of(shape, most)
            elif articles is not None:
                texts = files.read_articles(articles, most)
            else:
                raise CommandError("give a file of articles or a --shape")
            if engine:
                settings = read_settings(model=model, model_store=store, device=device, dtype=dtype, quantize=quantize)
                loaded, folder, manifest = _load(settings)
                comparison = report.bench_engine(
                    console,
                    loaded,
                    folder,
                    manifest,
                    texts,
                    rounds=rounds,
                    batch=batch,
                    max_batch_tokens=max_batch_tokens,
                )
        if url is not None:
            ours = comparison.engine if comparison else None
            report.bench_service(console, url, texts, clients=numbers, engine=ours, key=key)
            if limits:
                report.bench_limits(console, url, texts, requests=limits, key=key)
    except (files.ArticlesError, service_load.LoadError, ValueError) as error:
        raise CommandError(str(error)) from error


def train(
    pairs: Annotated[
        list[str],
        typer.Argument(help="JSONL, CSV or Parquet (.gz, .xz) of articles and headlines, folders of them, hub ids."),
    ],
    name: Annotated[str, typer.Option(help="What the model is called in the store.")],
    base: Annotated[
        str | None, typer.Option(help="An encoder-decoder model to start from: of the store, a folder, a hub id.")
    ] = None,
    warm_start: Annotated[
        str | None, typer.Option(help="Or a BERT-like encoder, from which a small BART is made.")
    ] = None,
    evaluation: Annotated[
        list[str] | None, typer.Option(help="Pairs to score on; else some of PAIRS are held out.")
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="A source of EVALUATION to leave out.")] = None,
    held_out: Annotated[float, typer.Option(help="The share of PAIRS held out for that.", min=0, max=0.9)] = 0.01,
    weight: Annotated[
        list[str] | None, typer.Option(help="SOURCE=2: its pairs are seen twice as often; 'wikinews*=2' fits many.")
    ] = None,
    article_column: Annotated[
        str | None, typer.Option(help="By default a usual name, such as article or text.")
    ] = None,
    headline_column: Annotated[str | None, typer.Option(help="By default a usual name, such as headline.")] = None,
    split: Annotated[str, typer.Option(help="The part of a hub's data set.")] = "train",
    max_bad_share: Annotated[
        float, typer.Option(help="More bad rows than this share end the training.", min=0, max=1)
    ] = 0.02,
    language: Annotated[str, typer.Option(help="Of the headlines, for the manifest.")] = "en",
    licence: Annotated[str, typer.Option(help="Of the weights, for the manifest.")] = "unknown",
    decoding: Annotated[
        list[str] | None, typer.Option(help="length_penalty=2: how the model is to write, where not as its base.")
    ] = None,
    notes: Annotated[Path | None, typer.Option(help="Markdown for the end of the model card.")] = None,
    run: Annotated[
        Path | None,
        typer.Option(  # torchrun takes --run for the beginning of an option of its own
            "--run", "--run-folder", help="The folder it works in and goes on from. [default: training/NAME]"
        ),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write what TensorBoard shows.")] = False,
    store: Annotated[Path, typer.Option("--model-store", help="The folder of models.")] = Path("model_store"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    **flags: str | None,
) -> None:
    """Teach a model to write headlines, score it, and publish it as the next version of NAME.

    A training that was stopped, however, goes on when the same command is given again. Needs the extra `train`.
    """
    _keep_interrupts()
    try:
        from app.engine.load import LoadError
        from app.training import train as training
        from app.training.errors import TrainingError
        from app.training.pairs import Columns
        from app.training.recipe import Recipe, parse_decoding, parse_weights
        from app.training.run import Order, Run
    except ModuleNotFoundError as error:
        raise CommandError(f"{error}: install the extra: pip install 'headline-service[train]'") from error
    from rich.console import Console

    if (base is None) == (warm_start is None):
        raise CommandError("give either --base or --warm-start")
    if tensorboard and find_spec("tensorboard") is None:
        raise CommandError("--tensorboard needs the extra: pip install 'headline-service[tensorboard]'")
    place = Run(run or Path("training") / name)
    try:
        order = Order(
            sources=tuple(pairs),
            base=base or warm_start or "",
            warm_start=warm_start is not None,
            recipe=Recipe.of(**{**flags, "weights": parse_weights(weight or [])}),
            columns=Columns(article_column, headline_column),
            split=split,
            max_bad_share=max_bad_share,
            held_out=0 if evaluation else held_out,
        )
        publication = training.Publication(
            name=name,
            language=language,
            licence=licence,
            notes=_read(notes) if notes else "",
            decoding=parse_decoding(decoding or []),
            command=f"headline {shlex.join(sys.argv[1:])}",
        )
        published = training.train(
            order,
            publication,
            store=Store(store),
            run=place,
            console=Console(),
            evaluation=evaluation or (),
            without=without or (),
            device=device,
            tensorboard=tensorboard,
        )
    except (TrainingError, LoadError) as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        _fail(f"interrupted; {training.goes_on(place)}", code=130)
    if published:
        print(f"{published}: headline serve --model {name}")


def _keep_interrupts() -> None:
    """An interrupt that comes while some object is taken down, where Python can only ignore it, comes once more."""

    def again(unraisable: Any) -> None:
        sys.__unraisablehook__(unraisable)
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Not at once, or it would be ignored here.
            Timer(0.1, signal.pthread_kill, (main_thread().ident, signal.SIGINT)).start()

    sys.unraisablehook = again


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _recipe_fields() -> Mapping[str, FieldInfo]:
    from app.training.recipe import Recipe

    return {name: field for name, field in Recipe.model_fields.items() if name != "weights"}


app.command()(_flags(train, _recipe_fields()))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A name, name@version, or a folder.")],
    pairs: Annotated[
        list[str], typer.Argument(help="JSONL, CSV or Parquet of articles and headlines; a hub's data set.")
    ],
    most: Annotated[
        int | None, typer.Option(help="Take so many pairs of each source, the same for every model.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample, the intervals and the examples.", min=0)] = 1,
    without: Annotated[list[str] | None, typer.Option(help="A source to leave out; may be given again.")] = None,
    protocol: Annotated[
        Literal["plain", "gigaword", "cnn_dailymail"], typer.Option(help="Measure as the published tables of these do.")
    ] = "plain",
    swaps: Annotated[
        bool, typer.Option("--swaps", help="Also swap names, genders, parties, places; see whether headlines change.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write everything to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots and examples to this file.")] = None,
    article_column: Annotated[
        str | None, typer.Option(help="By default a usual name, such as article or text.")
    ] = None,
    headline_column: Annotated[str | None, typer.Option(help="By default a usual name, such as headline.")] = None,
    split: Annotated[str, typer.Option(help="The part of a hub's data set.")] = "test",
    store: Annotated[Path, typer.Option("--model-store", help="The folder of models.")] = Path("model_store"),
    device: Annotated[str, typer.Option(help="As for serve.")] = "auto",
    dtype: Annotated[str, typer.Option(help="As for serve.")] = "auto",
    quantize: Annotated[str, typer.Option(help="As for serve.")] = "none",
) -> None:
    """Write a headline for every pair's article and measure it beside the pair's own. Needs the extra `train`."""
    try:
        from app.training import bias, report
        from app.training import evaluate as evaluation
        from app.training.errors import TrainingError
        from app.training.pairs import Columns, read_pairs
    except ModuleNotFoundError as error:
        raise CommandError(f"{error}: install the extra: pip install 'headline-service[train]'") from error
    from rich.console import Console

    try:
        for path in filter(None, (json, html)):
            report.must_be_writable(path)
        settings = read_settings(model=model, model_store=store, device=device, dtype=dtype, quantize=quantize)
        loaded, _, _ = _load(settings)
        with TemporaryDirectory() as cache:
            columns = Columns(article_column, headline_column)
            read = read_pairs(pairs, columns=columns, cache=Path(cache), split=split)
            report.print_bad_rows(read)
            chosen = evaluation.choose(read.dataset, most=most, seed=seed, without=without or (), protocol=protocol)
        with report.watched("headlines", len(chosen)) as progress:
            result = evaluation.evaluate(loaded, chosen, protocol=protocol, seed=seed, progress=progress)
        swapped = []
        if swaps:
            articles = bias.swapped_articles(loaded, result)
            with report.watched("swapped", sum(map(len, articles.values()))) as progress:
                swapped = bias.biases(loaded, result, articles, progress=progress)
        report.print_tables(Console(), result, swapped)
        if json:
            report.write_json(json, result, swapped)
        if html:
            report.write_html(html, result, swapped)
    except TrainingError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt as error:  # else typer would end without a word
        raise typer.Abort from error


def _fail(message: str, *, code: int = 1) -> None:
    print(f"headline: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
