"""`draft_label(...) -> str`: what data is about, as a label for a zero-shot classifier; its reader may better it.

The words are those that are in more rows than everyday language would put them into: log-odds with an informative
Dirichlet prior, by their z-score (Monroe, Colaresi and Quinn, "Fightin' Words", Political Analysis 16, 2008),
with two changes. A row has a word or has it not, so that one long row does not decide. The other corpus is
`wordfreq`'s table of everyday frequencies, so large that its own variance is none.

Each word stands beside the domain ("legal court"): a classifier reads a label phrase by phrase, and a court alone
may be one for tennis. What share of questions the embedding classifier then sends to the right adapter:

                                                       demo/corpus     1752 public questions
labels that were written by hand                          0.960           0.962
drafted from demo/corpus                                  0.954           0.961
drafted from 13,709 rows of public data                   0.940           0.959
  from 60 of them for each domain, mean of four draws     0.942           0.962
those two drafts without the domain at each word       0.940, 0.911    0.950, 0.929
the domains' bare names                                   0.937           0.950

Of the 60 questions of demo/gardening, beside three labels by hand: 0.93; with the bare name 0.80, by hand 0.97.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from wordfreq import available_languages, word_frequency
from wordfreq.tokens import tokenize

from adapters import ConfigError

WORDS = 14
"""With 8 the drafts' figures are lower, by 0.012 at most; with 24 up to 0.008 higher, but nobody reads those."""
USUAL = 5.7
"""As usual as this on the Zipf scale, one of 2,000 words anywhere, a word tells nothing: "what", "how", "can"."""
SURE = 2.0
"""The least z-score of a word in a label."""
PRIOR = 1.0
"""Rows of everyday language for each row of the data; with 0.1 or 10 the figures move by 0.004 at most."""
RAREST = 1e-8
"""The everyday frequency of a word that the table lacks."""
ENOUGH = 10_000
"""Of more rows so many are read, evenly spread, in 3 s."""
PLURALS = (("s", ""), ("es", ""), ("ies", "y"))
"""Endings, and what the singular has in their place."""
SPACELESS = {"ja", "ko", "zh"}
"""Languages whose words wordfreq finds only with packages that are not among ours."""


def draft_label(domain: str, texts: Sequence[str], language: str = "en") -> str:
    """The domain and its most telling words; a text is what one row says. The same texts make the same label.

    Raises ConfigError for a language whose everyday words are not known.
    """
    language = known_language(language)
    context = re.split("[,;]", domain)[0].strip()
    said = set(tokenize(domain, language))
    words = [word for word in telling(texts, language) if word not in said][:WORDS]
    return ", ".join([domain, *(f"{context} {word}" for word in words)])


def known_language(language: str) -> str:
    """Its code as wordfreq has it: "en" of "en-GB". Raises ConfigError when it has none."""
    code = re.split("[-_]", language)[0].lower()
    known = sorted(available_languages().keys() - SPACELESS)
    if code not in known:
        raise ConfigError(
            f"language: {language}: no table of everyday words; set label, or one of {', '.join(known)}"
        )
    return code


def telling(texts: Sequence[str], language: str) -> list[str]:
    """What tells what the texts are about, the most telling first; of singular and plural the more usual."""
    some = texts[:: math.ceil(len(texts) / ENOUGH) or 1]
    rows = [row for text in _new_sentences(some) if (row := tokenize(text, language))]
    lengths, used = Counter(map(len, rows)), Counter(word for row in rows for word in set(row))
    forms = _forms(used)
    stem_of = {form: stem for stem, these in forms.items() for form in these}
    having = Counter(stem for row in rows for stem in {stem_of[word] for word in row if word in stem_of})
    scores = {}
    for stem, number in having.items():
        frequency = sum(word_frequency(form, language, minimum=RAREST) for form in forms[stem])
        if number > 1 and frequency < 10 ** (USUAL - 9):
            scores[max(forms[stem], key=lambda form: used[form])] = z_score(number, frequency, lengths)
    return sorted((word for word in scores if scores[word] > SURE), key=lambda word: (-scores[word], word))


def z_score(having: int, frequency: float, lengths: Mapping[int, int]) -> float:
    """How surely more rows have a word than its everyday frequency would make; `lengths`: rows by their length."""
    sizes, numbers = np.array([*lengths]), np.array([*lengths.values()])
    rows = int(numbers.sum())
    expected = float(np.clip(-np.expm1(sizes * np.log1p(-frequency)) @ numbers / rows, 1e-9, 1 - 1e-9))
    prior = PRIOR * rows * expected
    here = (having + prior) / ((1 + PRIOR) * rows - having - prior)
    return (math.log(here) - math.log(expected / (1 - expected))) * math.sqrt(having + prior)


def _new_sentences(texts: Sequence[str]) -> Iterator[str]:
    """Each text without what an earlier one said: an instruction that every row repeats is no row's own."""
    seen: set[str] = set()
    for text in texts:
        sentences = dict.fromkeys(re.split(r"(?<=[.!?:])\s+|\n+", text.lower()))
        yield "\n".join(sentence for sentence in sentences if sentence not in seen)
        seen.update(sentences)


def _forms(words: Mapping[str, int]) -> dict[str, list[str]]:
    """Singular to all of its forms that there are; numbers and single letters are no words."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for word in sorted(words):
        if re.fullmatch(r"[^\W\d_]{2,}", word):
            stems = (word.removesuffix(end) + instead for end, instead in PLURALS if word.endswith(end))
            found[next((stem for stem in stems if stem in words), word)].append(word)
    return found
