"""The word-level tokenizer of the miniature's text encoder."""

import re
from collections.abc import Iterable

from .atlas import Atlas
from .clips import BACKGROUNDS, DIRECTIONS
from .colour import COLOURS

PAD, BOS, EOS, UNKNOWN = 0, 1, 2, 3
SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>", "<unk>")
CAPTION_WORDS = ("a", "an", "the", "moving", "standing", "on", "background")


def split_words(text: str) -> list[str]:
    """Lower-case runs of letters and digits."""
    return re.findall(r"[a-z0-9]+", text.lower())


def vocabulary(atlas: Atlas) -> list[str]:
    """Every word a caption can hold, sorted. Names of the test concepts are included: a word list shows no picture of
    them, and without it their captions would lose the very word that names the subject."""
    words = {word for name in atlas.names() for word in split_words(name)}
    return sorted(words | set(CAPTION_WORDS) | set(DIRECTIONS) | set(BACKGROUNDS) | set(COLOURS))


class WordTokenizer:
    """Words to ids: 0 padding, 1 begin, 2 end, 3 unknown, then `words` in their order."""

    def __init__(self, words: list[str]):
        if len(set(words)) != len(words):
            raise ValueError("The word list of a tokenizer names a word twice; give every word once.")
        self.words = list(words)
        self.ids = {word: number for number, word in enumerate(self.words, start=len(SPECIAL_WORDS))}

    @classmethod
    def from_corpus(cls, captions: Iterable[str]) -> "WordTokenizer":
        return cls(sorted({word for caption in captions for word in split_words(caption)}))

    def __len__(self) -> int:
        """Number of ids, special ones included: the rows of the token embedding."""
        return len(SPECIAL_WORDS) + len(self.words)

    def encode(self, text: str, max_length: int = 16) -> list[int]:
        """`max_length` ids: begin, words (as many as fit), end, padding. Raises ValueError below max_length 2."""
        if max_length < 2:
            raise ValueError(f"The token length is {max_length}; it must be at least 2 for the begin and end marks.")
        ids = [self.ids.get(word, UNKNOWN) for word in split_words(text)][: max_length - 2]
        return [BOS, *ids, EOS] + [PAD] * (max_length - 2 - len(ids))

    def decode(self, ids: list[int]) -> str:
        """The words of `ids` without begin, end and padding."""
        table = (*SPECIAL_WORDS, *self.words)
        return " ".join(table[number] for number in ids if number not in (PAD, BOS, EOS))
