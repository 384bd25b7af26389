"""How much a turn says by itself: "and in Spain?" leans on what was said before, "what is tofu?" does not."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FILLERS = _words("ah great hm hmm no oh ok okay please right sorry sure thank thanks well yeah yep yes")
"""What a turn may begin with before it begins."""

OPENERS = _words("and or but so because what-about how-about what-if why-not even-if")
POINTERS = _words(
    """
    it its itself that this these those they them their theirs he him his she her hers one ones former latter
    above
    """
)
"""They point back, unless a subject stands before them: in "how do bats find their way" nothing is missing."""
PARTICLES = _words("too also again instead anymore still else then")
"""They go on with something, wherever they stand."""

EMPTY = (
    FILLERS
    | POINTERS
    | PARTICLES
    | _words(
        """
        a about actually after against ain all already always am an and another answer answers any anybody
        anyone anything anyway are aren as ask asked at bad basically be because been before beginning being
        best better between big bigger bit both bring but by bye came can cannot case change changed clarify
        clear come comes coming continue convert cool could couldn d describe detail details did didn difference
        different do does doesn doing don done down during each easier easy either elaborate end ever every
        everybody everyone everything exactly example examples explain explained fast faster few find first for
        found from gave get gets getting give gives go goes going gone good got had hadn happen happened
        happening happens hard harder has hasn have haven having hello help helps here hey hi how i idea ideas
        if important in into is isn it just keep kept kind kinds knew know knows last later let like ll long
        longer look looks lot m made main make makes making many may maybe me mean means meant message might
        mine more most much must my myself need neither never next nice nope nor not nothing now number of off
        often on once only option options or other others ought our ours out over own part parts per perhaps
        place point points possible previous probably problem put question questions quick quickly re really
        reason reasons repeat rephrase response rewrite s said same saw say says second see seen sentence
        sentences shall short shorten shorter should shouldn show shows side similar simple simpler simply since
        slow small smaller so some somebody someone something sometimes soon sort step steps such summarise
        summarize summary t take taken takes tell tells text than the there thing things think thinks third
        though thought through time times to today told tomorrow took tried true try type types under understand
        understood until up us use used usually ve version very via want wanted wants was wasn way ways we went
        were weren what when where whether which while who whom whose why will with won word words work works
        worse worst would wouldn wow wrong yesterday yet you your yours yourself
        """
    )
)
"""Words that name no subject: English function words, and what talk itself is made of."""

UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")
"""Thai, Japanese and Chinese are written without spaces: two signs count as a word."""

ALONE, LEANING, SHORT = 2, 3, 3
"""How many words make half a turn: those that name a subject, the same in a turn that points back, and all."""


def substance(text: str) -> float:
    """From 0 (leans on what was before) towards 1 (speaks for itself).

    In languages whose words are not known here every word seems to name a subject, so the length counts as well.
    """
    words = _said(re.findall(r"[^\W_]+", text.lower()))
    names = [word not in EMPTY for word in words]
    unspaced = len(UNSPACED.findall(text)) / 2
    naming, length = sum(names) + unspaced, len(words) + unspaced
    against = LEANING if _leans(words, names) else ALONE
    return min(naming / (naming + against), length / (length + SHORT))


def _said(words: list[str]) -> list[str]:
    first = next((index for index, word in enumerate(words) if word not in FILLERS), 0)
    return words[first:]


def _leans(words: list[str], names: list[bool]) -> bool:
    before = words[: names.index(True)] if True in names else words
    opens = [*words[:1], "-".join(words[:2])]
    return not (OPENERS.isdisjoint(opens) and POINTERS.isdisjoint(before) and PARTICLES.isdisjoint(words))
