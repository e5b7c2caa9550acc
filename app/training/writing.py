"""Headlines for many articles at once, as the service would write them: the same tokens, search and choice."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import torch

from app.engine.engine import EngineLost, Job
from app.engine.load import LoadedModel
from app.engine.search import Candidate, Wanted
from app.headlines.headline import Headline, best_first, normalised, tidy
from app.headlines.support import Support
from app.training.errors import TrainingError

Batch = list[int]  # places of its articles


def silent(number: int) -> None:
    """Progress that nobody watches."""


def write(model: LoadedModel, articles: Sequence[str], *, progress: Callable[[int], None] = silent) -> list[str]:
    """The model's best headline for each cleaned article, "" where it finds none or the article has no words.

    `progress` is told how many more are done. Raises TrainingError where the device fails.
    """
    found = search(model, [_job(model, article) for article in articles], progress=progress)
    return [
        _best(model, candidates, article) if article else ""
        for candidates, article in zip(found, articles, strict=True)
    ]


def search(
    model: LoadedModel, jobs: Sequence[Job], *, progress: Callable[[int], None] = silent
) -> list[list[Candidate]]:
    """The candidates of each job, best first. `progress` and errors as of `write`."""
    found: list[list[Candidate]] = [[] for _ in jobs]
    pool = ThreadPoolExecutor(model.workers, thread_name_prefix="model")
    try:
        running = {
            pool.submit(model.engine.generate, [jobs[place] for place in batch]): batch
            for batch in _batches(model, jobs)
        }
        for done in as_completed(running):
            places = running.pop(done)
            for place, candidates in zip(places, done.result().candidates, strict=True):
                found[place] = candidates
            progress(len(places))
    except (EngineLost, torch.OutOfMemoryError) as error:
        raise TrainingError(f"the model cannot write on {model.info.device}: {error}") from error
    finally:
        pool.shutdown(cancel_futures=True)  # who is interrupted waits for running batches only
    return found


def _job(model: LoadedModel, article: str) -> Job:
    tokens = model.tokenizer.read(article).tokens
    return Job(tokens, model.engine.decoding.num_beams, wanted=Wanted(names=model.names(tokens)))


def _batches(model: LoadedModel, jobs: Sequence[Job]) -> Iterator[Batch]:
    """All jobs, the longest first, in batches of the size that the service gives its device."""
    batch: Batch = []
    cost = 0
    for place in sorted(range(len(jobs)), key=lambda place: -len(jobs[place].tokens)):
        needs = len(jobs[place].tokens) + jobs[place].rows * model.engine.decoding.max_new_tokens
        if batch and cost + needs > model.max_batch_tokens:
            yield batch
            batch, cost = [], 0
        batch.append(place)
        cost += needs
    if batch:
        yield batch


def _best(model: LoadedModel, candidates: Sequence[Candidate], article: str) -> str:
    """What the service would answer where nothing is wished."""
    support = Support(article, language=model.info.language)
    texts = [(tidy(model.tokenizer.write(candidate.tokens)), candidate.score) for candidate in candidates]
    written = [
        Headline(text, score, unsupported=tuple(support.unsupported(text))) for text, score in texts if normalised(text)
    ]
    return best_first(written)[0].text if written else ""
