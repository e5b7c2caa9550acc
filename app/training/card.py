"""Writes the model card: what the model is made of, how, and how good it is. Knows no files."""

import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template

from app.store.manifest import Manifest
from app.training.evaluate import BASELINES, Evaluation
from app.training.run import Order


def write(
    manifest: Manifest,
    order: Order,
    command: str,
    counts: Mapping[str, int],
    scored: Evaluation | None,
    notes: str,
) -> str:
    """The card in Markdown. counts: pairs of each source; notes: what only a person can say, put at the end."""
    template = Template((files("app.training") / "card.md").read_text(encoding="utf-8"))
    return (
        template.substitute(
            name=manifest.name,
            licence=manifest.licence,
            language=manifest.language,
            base=manifest.base,
            created=manifest.created.isoformat(),
            tokens=manifest.max_source_tokens,
            command=command or "(not known)",
            recipe=json.dumps(order.recipe.model_dump(exclude_defaults=True), indent=2),
            data=_table(["source", "pairs"], [[source, f"{number:,}"] for source, number in counts.items()]),
            scores=_scores(scored) if scored else "Not scored: no pairs were held out.",
            notes=notes.strip(),
        ).rstrip()
        + "\n"
    )


def _scores(scored: Evaluation) -> str:
    rows = [[source, *_cells(summary)] for source, summary in scored.by_source.items()]
    macro = [f"**{cell}**" for cell in ["macro", *_cells(scored.macro)]]
    heads = ["source", "R-1", "R-2", "R-L", *(f"{name.replace('_', ' ')} R-L" for name in BASELINES)]
    table = _table([*heads, "unsupported", "of references"], [*rows, macro])
    return (
        f"{scored.measured_on}. Unsupported: names and numbers per 100 headlines that the article lacks, "
        f"and the references' own.\n\n{table}"
    )


def _cells(summary: Mapping[str, Mapping[str, object]]) -> list[str]:
    own = [_rouge(summary, "model", kind) for kind in ("rouge1", "rouge2", "rougeL")]
    baselines = [_rouge(summary, name, "rougeL") for name in BASELINES]
    invented = [f"{summary[name]['unsupported_per_100']:.1f}" for name in ("model", "reference")]
    return own + baselines + invented


def _rouge(summary: Mapping[str, Mapping[str, object]], writer: str, kind: str) -> str:
    return f"{summary[writer]['rouge'][kind]['mean']:.1f}"  # type: ignore[index]


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
