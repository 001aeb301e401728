"""Makes training groups whose documents differ in one thing: a number, a name, who does what to whom, a negation.

    python models/train/contrast.py --collection collection --out contrast.groups.jsonl

The collection is what collection.py wrote. A sentence with a number, a name, two names or an auxiliary verb is changed in that one
place; a query that asks for the one version and a query that asks for the other each get both versions of the passage, and
passages about other things. In a part of the groups both versions lie inside the same longer text, in the same place. A model that
only knows what a text is about cannot tell the versions apart.

Labels are on the scale of `jointly zelo fit`: 1.6 for the version that is asked for, 0.4 for the other, -1.2 for other passages.
Only Python's standard library is needed; the output depends on the seed alone.
"""
import argparse
import collections
import json
import pathlib
import random
import re

from collection import SENTENCE, STOP, read_jsonl

RIGHT, WRONG, OTHER = 1.6, 0.4, -1.2
NUMBER = re.compile(r"(?<![\w.,-])\d{1,4}(?:\.\d+)?(?![\w,-]|\.\d)")
NAME = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*\b")
AUXILIARY = re.compile(r"\b(is|are|was|were|can|could|does|do|did|has|have|had|will|would|should|may|must)\b( not\b)?", re.IGNORECASE)
MONTHS = set("January February March April May June July August September October November December".split())
NEGATIVE = {"not", "no", "never", "without", "cannot", "n't"}


def names_of(sentence):
    """Where names are; months are none."""
    return [match for match in NAME.finditer(sentence) if match.group() not in MONTHS]


def number(sentence, rng, names):
    """Another number of the same size in place of one."""
    found = list(NUMBER.finditer(sentence))
    if not found:
        return None
    match = rng.choice(found)
    old = match.group()
    if "." in old:
        whole, part = old.split(".")
        new = f"{max(0, int(whole) + rng.choice([-2, -1, 1, 2, 3]))}.{rng.randrange(10 ** len(part)):0{len(part)}d}"
    else:
        value = int(old)
        step = rng.choice([1, 2, 3, 5, 7, 10]) if value >= 20 else rng.choice([1, 2, 3])
        new = str(value + step if value <= step or rng.random() < 0.5 else value - step)
    return None if new == old else (match.span(), new)


def name(sentence, rng, names):
    """A name of another passage in place of one."""
    found = names_of(sentence)
    if not found:
        return None
    match = rng.choice(found)
    new = rng.choice(names[match.group().count(" ")] or [match.group()])
    return None if new in sentence else (match.span(), new)


def negation(sentence, rng, names):
    """A "not" more, or one fewer."""
    if "?" in sentence:
        return None
    match = AUXILIARY.search(sentence)
    if match is None or (match.group(2) is None and NEGATIVE & set(sentence.lower().split())):
        return None
    return match.span(), match.group(1) + ("" if match.group(2) else " not")


def roles(sentence, rng, names):
    """Two names, each in the other's place."""
    found = names_of(sentence)
    if len({match.group() for match in found}) != 2 or len(found) != 2:
        return None
    first, second = found
    between = sentence[first.end():second.start()]
    if len(between.split()) < 2 or between.strip() in {"and", "or", ",", ", and"}:
        return None
    return (first.start(), second.end()), second.group() + between + first.group()


KINDS = {"number": number, "name": name, "negation": negation, "roles": roles}


def ask(sentence, span, rng):
    """A query for what a sentence says around `span`: some words of it, in their order, in lower case at times."""
    before, inside, after = sentence[:span[0]].split(), sentence[span[0]:span[1]].split(), sentence[span[1]:].split()
    room = rng.randrange(5, 11)
    left = rng.randrange(min(len(before), room) + 1)
    words = before[len(before) - left:] + inside + after[: max(room - left, 3)]
    keep = [w for w in words if w in inside or w.lower().strip(".,;:()") not in STOP or w.lower() in NEGATIVE or rng.random() < 0.5]
    query = " ".join(keep).strip(" .,;:()")
    return query.lower() if rng.random() < 0.7 else query


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--per-kind", type=int, default=2500, metavar="N", help="sentences that are changed, of each kind [2500]")
    parser.add_argument("--long-share", type=float, default=0.3, metavar="X", help="share of the groups with longer texts [0.3]")
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
                    (start, end), new = edit
                    changed = sentence[:start] + new + sentence[end:]
                    versions = [text, text.replace(sentence, changed)]
                    if kind in ("number", "name") and sentence[start:end] in text.replace(sentence, ""):
                        continue  # the old value is elsewhere too, and would contradict the new one
                    queries = [ask(sentence, (start, end), rng), ask(changed, (start, start + len(new)), rng)]
                    if queries[0] == queries[1]:
                        continue
                    others = [passages[rng.randrange(len(passages))] for _ in range(6)]
                    if rng.random() < args.long_share:
                        around = [passages[(index + offset) % len(passages)] for offset in rng.sample([-3, -2, -1, 1, 2, 3], 2)]
                        place = rng.randrange(3)
                        versions = [" ".join(around[:place] + [version] + around[place:]) for version in versions]
                    for asked, query in enumerate(queries):
                        documents = [
                            {"id": f"{kind}-{counts[kind]}-{version}", "text": versions[version], "label": RIGHT if version == asked else WRONG}
                            for version in (0, 1)
                        ]
                        documents += [{"id": f"{kind}-{counts[kind]}-o{i}", "text": other, "label": OTHER} for i, other in enumerate(others)]
                        line = {"query_id": f"{kind}-{counts[kind]}-{asked}", "query": query, "documents": documents}
                        out.write(json.dumps(line, ensure_ascii=False) + "\n")
                    counts[kind] += 1
                    break
    print("sentences changed", dict(counts))


if __name__ == "__main__":
    main()
