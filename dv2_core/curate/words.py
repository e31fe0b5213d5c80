"""The subject's word in a caption: the first noun that heads a noun chunk, as its dictionary form."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def subject_word(document: Any, ignore: Collection[str]) -> str:
    """The lemma of the head of the first noun chunk that is a word for a thing; "" where there is none.

    document: a caption as a spaCy pipeline with tagger, parser and lemmatiser reads it. ignore: lemmas that are never
    the subject ("video", "background"). The grammatical subject goes before other chunks; names, pronouns, stop words
    and whatever is not made of letters are dropped.
    Source: arXiv 2410.13830, data set construction, which lemmatises with NLTK; spaCy's own lemmas serve here.
    """
    heads = [chunk.root for chunk in document.noun_chunks]
    subjects = [head for head in heads if head.dep_ in ("nsubj", "nsubjpass")]
    for head in [*subjects, *heads]:
        lemma = head.lemma_.lower()
        if head.pos_ == "NOUN" and lemma.isalpha() and len(lemma) > 1 and not head.is_stop and lemma not in ignore:
            return lemma
    return ""
