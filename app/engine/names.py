"""A headline's names and numbers are to be its article's: what is none of them costs something while it is written.

A small model slips between two tokens of a rare name, and what comes out is nobody's ("Persever", "Dvoká"): so in the
middle of a name every other way to go on has its price, and so has gluing more to a whole word ("roverance"). And it
writes names that it saw in training: so a name begun as none of the article's has one too. Prices, not bans: what a
model is sure of ("American" for "U.S.") it can pay.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from app.engine.vocabulary import Vocabulary
from app.headlines.support import beginnings, is_known, key_of

SLIP = 3.0  # nats that it costs to leave a name half written
GLUE = 10.0  # nats that it costs to write on behind a whole word; a model that copies is sure of what it copies
INVENTION = 1.0  # nats that it costs to begin one that the article lacks
NOWHERE = 0  # the node of a text that does not end in the beginning of a name
NO_TOKEN = -1
INFLECTIONS = frozenset([b"s", b"es"])  # that a whole word may take
WORD = re.compile(r"\w+\b(?!\Z)")  # one at the very end may be cut
Branches = dict[int, int]  # the next token -> the node behind it


class Names:
    """The names and numbers of an article, and its words that take several tokens, by how they may be written: a tree
    of their beginnings, nodes from 1 on."""

    def __init__(self, tokens: Sequence[int], vocabulary: Vocabulary) -> None:
        """tokens: of the article."""
        text = vocabulary.text(tokens)
        words = set(WORD.findall(text))
        folded = {word.casefold() for word in words}
        self.branches: list[Branches] = [{}]  # of each node, those of no word's beginning first
        self.bound = [False]  # whether its text must be gone on with: it is a word neither of the article nor at all
        self.whole = [False]  # whether it is a word of the article that takes several tokens
        nodes = {b"": NOWHERE}
        for word in sorted(words):
            spelled, is_name = word.encode(), word[0].isupper() or word[0].isdigit()
            if not is_name and vocabulary.is_token(spelled):
                continue
            for start, token, end in vocabulary.spellings(spelled):
                beginning = spelled[:end]
                if beginning not in nodes:
                    nodes[beginning] = len(self.branches)
                    self.branches.append({})
                    text_so_far = _text(beginning)
                    is_word = text_so_far in folded
                    self.bound.append(is_name and not (is_word or is_known(text_so_far)))
                    self.whole.append(is_word and not vocabulary.is_token(beginning))
                self.branches[nodes[spelled[:start]]][token] = nodes[beginning]
        openings = _openings(vocabulary)
        self.foreign = [token for key in openings.keys() - beginnings(text) for token in openings[key]]


@lru_cache(maxsize=8)
def _openings(vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """The tokens behind a blank or a mark that begin a name or a number, by the key of what they begin it with.

    Those in capitals only may be initials of what the article writes in full, and are none.
    """
    openings = defaultdict(list)
    for token, opening in vocabulary.openings():
        if opening[0].isdigit() or (opening[0].isupper() and not opening.isupper() and not is_known(opening)):
            openings[key_of(opening)].append(token)
    return {key: tuple(tokens) for key, tokens in openings.items()}


@lru_cache(maxsize=8)
def _glue(vocabulary: Vocabulary, device: torch.device) -> Tensor:
    """1 for the tokens that make something else of a whole word before them, [vocabulary]."""
    inflects = torch.tensor([piece in INFLECTIONS for piece in vocabulary.pieces], device=device)
    return (vocabulary.on(device).is_within_word & ~inflects).float()


def _text(beginning: bytes) -> str:
    """Case-folded; none where it ends within a character."""
    try:
        return beginning.decode().casefold()
    except UnicodeDecodeError:
        return ""


class Prices:
    """Where each beam of a search is in the names of its article."""

    def __init__(
        self, names: Sequence[Names | None], vocabulary: Vocabulary, *, beams: int, device: torch.device
    ) -> None:
        """names: one for each lane; None where they have no say."""
        self._table = vocabulary.on(device)
        branches: list[Branches] = [{}]
        bound, whole, roots = [False], [False], []
        for known in names:
            before = len(branches) - 1
            moved = [_moved(node, before) for node in known.branches] if known else [{}]
            roots.append(moved[0])
            branches += moved[1:]
            bound += known.bound[1:] if known else []
            whole += known.whole[1:] if known else []
        self._leaving = torch.tensor(bound, device=device) * SLIP  # [nodes], what every token pays
        self._gluing = torch.tensor(whole, device=device) * GLUE  # [nodes], what those pay that go on with the word
        self._glue = _glue(vocabulary, device)
        self._branches = _Table.of(branches, device)
        self._roots = _Table.of(roots, device)  # of each lane
        self._lanes = torch.arange(len(names), device=device)[:, None].expand(-1, beams)
        self._foreign = torch.zeros(len(names), 1, vocabulary.size, device=device)  # [lanes, 1, vocabulary]
        for lane, known in enumerate(names):
            if known:
                self._foreign[lane, 0, known.foreign] = INVENTION
        self._nodes = torch.full((len(names), beams), NOWHERE, device=device)

    def apply(self, logits: Tensor) -> Tensor:
        """Change the logits [lanes, rows, vocabulary] in place by the price of each token; what each row pays whatever
        it goes on with, [lanes, beams]: of a name, which the right tokens get back.
        """
        nodes = self._nodes[:, : logits.shape[1]]
        tokens = self._branches.tokens[nodes]
        back = (tokens != NO_TOKEN) * self._back(nodes[..., None], tokens)
        logits.sub_(self._foreign).addcmul_(self._gluing[nodes][..., None], self._glue, value=-1)
        logits.scatter_add_(-1, tokens.clamp(min=0), back)
        return self._leaving[self._nodes]

    def _back(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        """What the right tokens behind the nodes get back of the price."""
        return self._leaving[nodes] + self._gluing[nodes] * self._glue[tokens]

    def changed(self, beams: Tensor, tokens: Tensor) -> Tensor:
        """By how much `apply` raised the logits of `tokens` behind `beams`, each [lanes, chosen]."""
        nodes = self._nodes.gather(1, beams)
        right = (self._branches.tokens[nodes] == tokens[..., None]).any(-1)
        paid = self._foreign[:, 0].gather(1, tokens) + self._gluing[nodes] * self._glue[tokens]
        return right * self._back(nodes, tokens) - paid

    def follow(self, beams: Tensor, tokens: Tensor, before: Tensor | None) -> None:
        """Go on with `tokens` behind `beams`, where `before` stood or nothing did, each [lanes, beams]."""
        nodes = self._branches.after(self._nodes.gather(1, beams), tokens)
        begun = self._roots.after(self._lanes, tokens)
        if before is not None:
            begun = begun.masked_fill(self._table.is_within_word[tokens] & self._table.ends_word[before], NOWHERE)
        self._nodes = torch.where(nodes == NOWHERE, begun, nodes)

    def keep(self, lanes: Tensor) -> None:
        """Drop all but these lanes."""
        self._nodes, self._lanes, self._foreign = self._nodes[lanes], self._lanes[lanes], self._foreign[lanes]


class _Table(NamedTuple):
    """The branches of many nodes, [nodes, most branches] each."""

    tokens: Tensor
    nodes: Tensor

    @classmethod
    def of(cls, branches: Sequence[Branches], device: torch.device) -> "_Table":
        most = max(map(len, branches))
        tokens = [[*node, *[NO_TOKEN] * (most - len(node))] for node in branches]
        nodes = [[*node.values(), *[NOWHERE] * (most - len(node))] for node in branches]
        return cls(*(torch.tensor(table, dtype=torch.long, device=device) for table in (tokens, nodes)))

    def after(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        """The nodes that `tokens` lead to, NOWHERE if they lead off; each [lanes, beams]."""
        return (self.nodes[nodes] * (self.tokens[nodes] == tokens[..., None])).sum(-1)


def _moved(branches: Branches, by: int) -> Branches:
    return {token: node + by for token, node in branches.items()}
