"""Makes training groups whose documents differ in one thing: a number, a name, a negation, a word and its opposite, who does what.

    python models/train/contrast.py --collection collection --out contrast.groups.jsonl

The collection is what collection.py wrote. A sentence is changed in one place (see KINDS); a query that asks for the one version and a
query that asks for the other each get both versions of the passage, a passage from beside it and one about other things. Queries
say an opposite, a threshold or a "not" in other words than the passage half the time. In a part of the groups both versions lie
inside the same longer text, in the same place. A model that only knows what a text is about cannot tell the versions apart.

Labels are on the scale of `jointly zelo fit`: RIGHT for the version that is asked for, WRONG for the other, less for other passages.
Only Python's standard library is needed; the output depends on the seed alone.
"""
import argparse
import collections
import json
import pathlib
import random
import re

from collection import SENTENCE, STOP, read_jsonl

RIGHT, WRONG, BESIDE, OTHER = 1.3, 0.4, -0.3, -0.9
NUMBER = re.compile(r"(?<![\w.,-])\d{1,4}(?:\.\d+)?(?![\w,-]|\.\d)")
NAME = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*\b")
AUXILIARY = re.compile(r"\b(is|are|was|were|can|could|does|do|did|has|have|had|will|would|should|may|must)\b( not\b)?", re.IGNORECASE)
MONTHS = set("January February March April May June July August September October November December".split())
NEGATIVE = {"not", "no", "never", "without", "cannot", "n't"}


# Words and their opposites, each with what a query may say in its place.
OPPOSITES = [
    ("increased", "decreased", "rose|went up|grew", "fell|went down|declined"),
    ("increases", "decreases", "raises|goes up|grows", "lowers|goes down|falls"),
    ("increase", "decrease", "rise|growth|go up", "drop|decline|go down"),
    ("increasing", "decreasing", "rising|growing", "falling|shrinking"),
    ("higher", "lower", "more|above|greater", "less|below|smaller"),
    ("high", "low", "large|a lot of", "small|little"),
    ("larger", "smaller", "bigger|greater", "lesser|tinier"),
    ("large", "small", "big|huge", "little|tiny"),
    ("more than", "less than", "over|above|exceeding", "under|below|not even"),
    ("at least", "at most", "no less than|minimum", "no more than|maximum|up to"),
    ("many", "few", "a lot of|numerous", "hardly any|not many"),
    ("most", "few", "the majority of|nearly all", "a minority of|hardly any"),
    ("all", "none of", "every|each of", "no|not one of"),
    ("every", "no", "all|each", "none|not any"),
    ("some", "no", "a few|certain", "not any|none"),
    ("both", "neither of", "the two|each of the two", "none of the two|not either"),
    ("always", "never", "every time|at all times", "at no time|not ever"),
    ("often", "rarely", "frequently|commonly", "seldom|hardly ever"),
    ("usually", "seldom", "normally|mostly", "rarely|hardly ever"),
    ("before", "after", "prior to|earlier than|ahead of", "following|later than|once"),
    ("earlier", "later", "sooner|before that", "afterwards|after that"),
    ("early", "late", "at the start of|soon", "towards the end of|at a late stage"),
    ("first", "last", "initial|at the beginning", "final|at the end"),
    ("oldest", "newest", "most ancient|earliest", "most recent|latest"),
    ("with", "without", "including|that has", "lacking|free of|no"),
    ("positive", "negative", "favourable|good", "unfavourable|bad"),
    ("possible", "impossible", "can be done|feasible", "cannot be done|not feasible"),
    ("common", "rare", "frequent|widespread", "unusual|infrequent"),
    ("strong", "weak", "powerful|marked", "feeble|slight"),
    ("effective", "ineffective", "works|helps", "does not work|does not help"),
    ("safe", "unsafe", "harmless|no danger", "dangerous|harmful"),
    ("improved", "worsened", "got better|better", "got worse|worse"),
    ("allowed", "forbidden", "permitted|may", "banned|prohibited|may not"),
    ("accepted", "rejected", "approved|agreed to", "refused|turned down"),
    ("won", "lost", "was victorious|beat", "was defeated|beaten"),
    ("gained", "lost", "got|won", "no longer had|gave up"),
    ("began", "ended", "started|set out", "stopped|finished"),
    ("begins", "ends", "starts", "stops|finishes"),
    ("opened", "closed", "was started|began", "was shut|shut down"),
    ("supported", "opposed", "was for|backed", "was against|fought"),
    ("north", "south", "northern|to the north", "southern|to the south"),
    ("northern", "southern", "north|in the north", "south|in the south"),
    ("eastern", "western", "east|in the east", "west|in the west"),
    ("east", "west", "eastern|to the east", "western|to the west"),
    ("left", "right", "left-hand", "right-hand"),
    ("inside", "outside", "within|in", "beyond|not in"),
    ("above", "below", "over|higher than", "under|lower than"),
    ("old", "new", "ancient|former", "modern|recent"),
    ("public", "private", "open to all|of the state", "not public|privately owned"),
    ("male", "female", "men|man", "women|woman"),
    ("men", "women", "male|males", "female|females"),
    ("children", "adults", "kids|the young", "grown-ups|older people"),
    ("mother", "father", "mum|female parent", "dad|male parent"),
    ("day", "night", "daytime", "night-time"),
    ("summer", "winter", "warm season|hot months", "cold season|cold months"),
    ("hot", "cold", "warm|heated", "cool|chilled"),
    ("internal", "external", "inner|inside", "outer|outside"),
    ("present", "absent", "there|found", "missing|not found"),
    ("similar", "different", "alike|much the same", "unlike|not the same"),
    ("same", "different", "identical|equal", "another|not the same"),
    ("reduces", "raises", "lowers|cuts", "increases|adds to"),
    ("reduced", "raised", "lowered|cut", "increased|added to"),
    ("significantly", "barely", "considerably|clearly", "hardly|scarcely"),
]
OPPOSITE_OF = {}
for one, other, says, says_other in OPPOSITES:
    OPPOSITE_OF.setdefault(one, (other, says.split("|"), says_other.split("|")))
    OPPOSITE_OF.setdefault(other, (one, says_other.split("|"), says.split("|")))
OPPOSITE = re.compile(r"\b(" + "|".join(sorted(OPPOSITE_OF, key=len, reverse=True)) + r")\b")
DIRECTION = re.compile(r"\bfrom (?:the )?([\w-]+(?: [A-Z][\w-]+)?) to (?:the )?([\w-]+(?: [A-Z][\w-]+)?)")
MORE, LESS = ["more than", "over", "above", "at least"], ["less than", "under", "below", "at most", "fewer than"]


class Edit:
    """What is put in place of a part of a sentence, and what queries say there (None: what the text says)."""

    def __init__(self, span, new, asks=(None, None), focus=None):
        self.span, self.new, self.asks = span, new, asks
        # Where the query looks, in the one and the other version.
        self.focus = focus or (span, (span[0], span[0] + len(new)))


def names_of(sentence):
    """Where names are; months are none."""
    return [match for match in NAME.finditer(sentence) if match.group() not in MONTHS]


def other_number(old, rng):
    if "." in old:
        whole, part = old.split(".")
        return f"{max(0, int(whole) + rng.choice([-2, -1, 1, 2, 3]))}.{rng.randrange(10 ** len(part)):0{len(part)}d}"
    value = int(old)
    step = rng.choice([1, 2, 3, 5, 7, 10]) if value >= 20 else rng.choice([1, 2, 3])
    return str(value + step if value <= step or rng.random() < 0.5 else value - step)


def number(sentence, rng, names):
    """Another number of the same size in place of one."""
    found = list(NUMBER.finditer(sentence))
    if not found:
        return None
    match = rng.choice(found)
    new = other_number(match.group(), rng)
    return None if new == match.group() else Edit(match.span(), new)


def threshold(sentence, rng, names):
    """A larger or smaller number in place of one; queries name a number between them."""
    found = [match for match in NUMBER.finditer(sentence) if "." not in match.group() and int(match.group()) >= 4]
    if not found:
        return None
    match = rng.choice(found)
    old = int(match.group())
    if 1500 <= old <= 2030:
        new = old + rng.choice([-1, 1]) * rng.randrange(8, 60)
        more, less = ["after", "later than", "since"], ["before", "earlier than", "prior to"]
    else:
        new = round(old * rng.choice([0.4, 0.5, 1.6, 2, 2.5, 3]))
        more, less = MORE, LESS
    low, high = min(old, new), max(old, new)
    if high - low < 2:
        return None
    middle = rng.randrange(low + 1, high)
    ask = [f"{rng.choice(more if value == high else less)} {middle}" for value in (old, new)]
    return Edit(match.span(), str(new), ask)


def exchange(sentence, rng, names):
    """Two numbers, each in the other's place; queries ask for one of the two."""
    found = list(NUMBER.finditer(sentence))
    if len(found) < 2:
        return None
    place = rng.randrange(len(found) - 1)
    first, second = found[place], found[place + 1]
    between = sentence[first.end():second.start()]
    if first.group() == second.group() or len(between.split()) < 2:
        return None
    new = second.group() + between + first.group()
    start, end = first.start(), second.end()
    if rng.random() < 0.5:
        focus = ((start, first.end()), (start, start + len(second.group())))
    else:
        focus = ((second.start(), end), (end - len(first.group()), end))
    return Edit((start, end), new, focus=focus)


def name(sentence, rng, names):
    """A name of another passage in place of one."""
    found = names_of(sentence)
    if not found:
        return None
    match = rng.choice(found)
    new = rng.choice(names[match.group().count(" ")] or [match.group()])
    return None if new in sentence else Edit(match.span(), new)


def negation(sentence, rng, names):
    """A "not" more, or one fewer."""
    if "?" in sentence:
        return None
    match = AUXILIARY.search(sentence)
    if match is None or (match.group(2) is None and NEGATIVE & set(sentence.lower().split())):
        return None
    verb = match.group(1)
    short = {"can": "can't", "will": "won't", "may": "may not"}.get(verb.lower(), verb.lower() + "n't")
    denied = rng.choice([None, short, "never", "no"])
    new = verb + ("" if match.group(2) else " not")
    return Edit(match.span(), new, (denied, None) if match.group(2) else (None, denied))


def opposite(sentence, rng, names):
    """A word's opposite in place of it."""
    found = list(OPPOSITE.finditer(sentence))
    if not found:
        return None
    match = rng.choice(found)
    new, says, says_new = OPPOSITE_OF[match.group()]
    asks = [rng.choice(words) if rng.random() < 0.6 else None for words in (says, says_new)]
    return Edit(match.span(), new, asks)


def roles(sentence, rng, names):
    """Two names, each in the other's place."""
    found = names_of(sentence)
    if len({match.group() for match in found}) != 2 or len(found) != 2:
        return None
    first, second = found
    between = sentence[first.end():second.start()]
    if len(between.split()) < 2 or between.strip() in {"and", "or", ",", ", and"}:
        return None
    return Edit((first.start(), second.end()), second.group() + between + first.group())


def direction(sentence, rng, names):
    """From one to the other, or back."""
    match = DIRECTION.search(sentence)
    if match is None or match.group(1) == match.group(2) or {match.group(1), match.group(2)} & STOP:
        return None
    start, end = match.span(1)[0], match.span(2)[1]
    between = sentence[match.span(1)[1]:match.span(2)[0]]
    return Edit((start, end), match.group(2) + between + match.group(1))


KINDS = {
    "number": number, "threshold": threshold, "exchange": exchange, "name": name, "negation": negation,
    "opposite": opposite, "roles": roles, "direction": direction,
}


def ask(sentence, span, said, rng):
    """A query for what a sentence says around `span`: some words of it, in their order, in lower case at times."""
    before, inside, after = sentence[:span[0]].split(), sentence[span[0]:span[1]].split(), sentence[span[1]:].split()
    room = rng.randrange(5, 11)
    left = rng.randrange(min(len(before), room) + 1)
    around = [words for words in (before[len(before) - left:], after[: max(room - left, 3)])]
    kept = [[w for w in words if w.lower().strip(".,;:()") not in STOP or w.lower() in NEGATIVE or rng.random() < 0.5]
            for words in around]
    query = " ".join(kept[0] + (inside if said is None else [said]) + kept[1]).strip(" .,;:()")
    return query.lower() if rng.random() < 0.7 else query


def around(text, sentence, words):
    """The sentences of a text around one of them, at least `words` words if it has them."""
    sentences = SENTENCE.split(text)
    first = last = next(i for i, other in enumerate(sentences) if sentence in other)
    while sum(len(s.split()) for s in sentences[first:last + 1]) < words and (first > 0 or last < len(sentences) - 1):
        if last < len(sentences) - 1:
            last += 1
        else:
            first -= 1
        if first > 0 and sum(len(s.split()) for s in sentences[first:last + 1]) < words:
            first -= 1
    return " ".join(sentences[first:last + 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--per-kind", type=int, default=800, metavar="N", help="sentences that are changed, of each kind [800]")
    parser.add_argument("--long-share", type=float, default=0.2, metavar="X", help="share of the groups with longer texts [0.2]")
    parser.add_argument("--long-words", type=int, default=120, metavar="N", help="words of these, at most [120]")
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    passages = [document["text"] for document in read_jsonl(args.collection / "corpus.jsonl")]
    names = collections.defaultdict(list)
    for text in passages:
        for match in names_of(text):
            names[match.group().count(" ")].append(match.group())
    # A sentence that many passages begin alike is a form that was filled in.
    forms = collections.Counter(sentence[:30] for text in passages for sentence in SENTENCE.split(text))
    counts = collections.Counter()
    with open(args.out, "w", encoding="utf-8") as out:
        for kind, change in KINDS.items():
            order = list(range(len(passages)))
            rng.shuffle(order)
            for index in order:
                if counts[kind] == args.per_kind:
                    break
                text = passages[index]
                sentences = [s for s in SENTENCE.split(text) if 7 <= len(s.split()) <= 45 and forms[s[:30]] < 4]
                rng.shuffle(sentences)
                for sentence in sentences:
                    edit = change(sentence, rng, names)
                    if edit is None or text.count(sentence) != 1:
                        continue
                    start, end = edit.span
                    changed = sentence[:start] + edit.new + sentence[end:]
                    if kind in ("number", "threshold", "name") and sentence[start:end] in text.replace(sentence, ""):
                        continue  # the old value is elsewhere too, and would contradict the new one
                    versions = [around(text, sentence, rng.choice([20, 30, 45, 60]))]
                    versions.append(versions[0].replace(sentence, changed))
                    queries = [ask(s, edit.focus[i], edit.asks[i], rng) for i, s in enumerate((sentence, changed))]
                    if queries[0].lower() == queries[1].lower():
                        continue
                    beside = [passages[(index + offset) % len(passages)] for offset in rng.sample([-3, -2, -1, 1, 2, 3], 3)]
                    others = [(beside[2], BESIDE), (passages[rng.randrange(len(passages))], OTHER)]
                    if rng.random() < args.long_share:
                        place = rng.randrange(3)
                        longer = [" ".join(beside[:place] + [version] + beside[place:2]) for version in versions]
                        # No longer than what training reads: the place that differs must be among it.
                        versions = longer if max(len(text.split()) for text in longer) <= args.long_words else versions
                    for asked, query in enumerate(queries):
                        documents = [
                            {"id": f"{kind}-{counts[kind]}-{version}", "text": versions[version], "label": RIGHT if version == asked else WRONG}
                            for version in (0, 1)
                        ]
                        documents += [{"id": f"{kind}-{counts[kind]}-o{i}", "text": t, "label": label} for i, (t, label) in enumerate(others)]
                        line = {"query_id": f"{kind}-{counts[kind]}-{asked}", "query": query, "documents": documents}
                        out.write(json.dumps(line, ensure_ascii=False) + "\n")
                    counts[kind] += 1
                    break
    print("sentences changed", dict(counts))


if __name__ == "__main__":
    main()
