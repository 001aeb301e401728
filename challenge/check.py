#!/usr/bin/env python3
"""Checks the challenge set and prints its statistics. Standard library only.

    python3 challenge/check.py                # all six files; exit status 1 if a rule is broken
    python3 challenge/check.py --wins         # also name the items that a bag of words gets right

What must hold is stated in RULES below and in README.md. The overlap scorers know which words a text
contains and nothing else; a slice that they can answer would not test reading, so their paired accuracy
must stay low everywhere but in `control`, where it must be high.
"""

import collections
import json
import math
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SLICES = {
    "hard-negatives": "hn",
    "long-documents": "ld",
    "polysemy": "po",
    "negation-and-quantifiers": "nq",
    "numbers-and-entities": "ne",
    "control": "ct",
}
KEYS = {"id", "slice", "domain", "phenomenon", "queries", "documents", "note"}
MIN_ITEMS = 60
MIN_DOMAINS = 8
SHORT_WORDS = (30, 120)
# 1,600 words of English prose are a little over 2,000 WordPiece tokens; `make_long.py --tokens` counts them exactly.
LONG_WORDS = (1600, 2600)
# Of 60 items, at least this many in each fifth of the depth range.
MIN_PER_DEPTH_FIFTH = 8
MAX_OVERLAP_ACCURACY = 0.60
MIN_CONTROL_OVERLAP_ACCURACY = 0.90

STOP_WORDS = set(
    "a an and are as at be been but by can did do does for from had has have he her his how i if in into is it its "
    "me my of on or our she so than that the their them then there they this to was we were what when where which "
    "who why will with you your".split()
)


def words(text):
    return re.findall(r"[^\W_]+", text.lower())


def stem(word):
    """Strips the commonest English endings, so that `prunes` meets `pruned`."""
    for ending in ("ings", "ing", "ies", "ied", "edly", "ed", "es", "s", "ly", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def plain(text):
    return words(text)


def content(text):
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


class Overlap:
    """The number of distinct query words that the document contains."""

    def __init__(self, analyse, documents):
        self.analyse = analyse

    def score(self, query, document):
        return len(set(self.analyse(query)) & set(self.analyse(document)))


class Bm25:
    """BM25 (k1 = 0.9, b = 0.4), statistics taken from the slice's own documents."""

    def __init__(self, analyse, documents):
        self.analyse = analyse
        counts = [collections.Counter(analyse(document)) for document in documents]
        self.mean_length = sum(map(lambda count: sum(count.values()), counts)) / len(counts)
        self.frequency = collections.Counter(word for count in counts for word in count)
        self.total = len(counts)

    def score(self, query, document):
        count = collections.Counter(self.analyse(document))
        norm = 0.9 * (1 - 0.4 + 0.4 * sum(count.values()) / self.mean_length)
        return sum(
            math.log(1 + (self.total - self.frequency[word] + 0.5) / (self.frequency[word] + 0.5))
            * count[word] / (count[word] + norm)
            for word in set(self.analyse(query))
        )


SCORERS = {
    "overlap": (Overlap, plain),
    "overlap, stems": (Overlap, content),
    "bm25": (Bm25, plain),
    "bm25, stems": (Bm25, content),
}


def paired_accuracy(items, scorer):
    """Strict accuracy (a tie is a miss), accuracy with ties as a coin's toss, and the items won strictly."""
    strict, expected, won = 0, 0.0, []
    for item in items:
        chance = 1.0
        for right, query in enumerate(item["queries"]):
            own, other = (scorer.score(query, item["documents"][i]) for i in (right, 1 - right))
            difference = own - other
            chance *= 0.5 if abs(difference) < 1e-9 else float(difference > 0)
        expected += chance
        if chance == 1.0:
            strict += 1
            won.append(item["id"])
    return strict / len(items), expected / len(items), won


def vocabulary_shared(item):
    """Jaccard similarity of the two documents' word sets."""
    one, two = (set(words(document)) for document in item["documents"])
    return len(one & two) / len(one | two)


def read(path, problems):
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            items.append(json.loads(line))
        except json.JSONDecodeError as error:
            problems.append(f"{path.name}:{number}: not JSON: {error}")
    return items


def is_text(value):
    return isinstance(value, str) and value.strip() == value != ""


def check_schema(name, items, problems):
    keys = KEYS | {"depth"} if name == "long-documents" else KEYS
    for number, item in enumerate(items, 1):
        where = f"{name}.jsonl:{number}"
        if set(item) != keys:
            problems.append(f"{where}: keys {sorted(set(item) ^ keys)} are missing or not expected")
            continue
        if item["slice"] != name:
            problems.append(f"{where}: slice is {item['slice']!r}")
        if item["id"] != f"{SLICES[name]}-{number:03d}":
            problems.append(f"{where}: id is {item['id']!r}; ids are counted from {SLICES[name]}-001 without a gap")
        if not all(is_text(item[key]) for key in ("domain", "phenomenon", "note")):
            problems.append(f"{where}: domain, phenomenon and note are texts without blanks at their ends")
        for key in ("queries", "documents"):
            if not (isinstance(item[key], list) and len(item[key]) == 2 and all(map(is_text, item[key]))):
                problems.append(f"{where}: {key} is a list of two texts")
        low, high = LONG_WORDS if name == "long-documents" else SHORT_WORDS
        for document in item["documents"]:
            if not low <= len(document.split()) <= high:
                problems.append(f"{where}: a document of {len(document.split())} words, not {low} to {high}")
        for query in item["queries"]:
            if not 3 <= len(query.split()) <= 20:
                problems.append(f"{where}: a query of {len(query.split())} words, not 3 to 20")
        depth = item.get("depth", 0.0)
        if not (isinstance(depth, (int, float)) and 0 <= depth <= 1):
            problems.append(f"{where}: depth is {depth!r}, not a number from 0 to 1")


def check_slice(name, items, show_wins, problems):
    domains = collections.Counter(item["domain"] for item in items)
    phenomena = collections.Counter(item["phenomenon"] for item in items)
    if len(items) < MIN_ITEMS:
        problems.append(f"{name}: {len(items)} items, fewer than {MIN_ITEMS}")
    if len(domains) < MIN_DOMAINS:
        problems.append(f"{name}: {len(domains)} domains, fewer than {MIN_DOMAINS}")
    lengths = sorted(len(document.split()) for item in items for document in item["documents"])
    print(f"\n{name}: {len(items)} items, {len(domains)} domains, {len(phenomena)} phenomena")
    print(f"  words a document: {lengths[0]} to {lengths[-1]}, median {lengths[len(lengths) // 2]}")
    shared = sorted(map(vocabulary_shared, items))
    print(f"  vocabulary shared by the two documents (Jaccard): median {shared[len(shared) // 2]:.2f}")
    print("  domains: " + ", ".join(f"{domain} {count}" for domain, count in domains.most_common()))

    documents = [document for item in items for document in item["documents"]]
    for label, (scorer, analyse) in SCORERS.items():
        strict, expected, won = paired_accuracy(items, scorer(analyse, documents))
        print(f"  paired accuracy of {label}: {100 * strict:.1f} % (a tie counted as a coin's toss: {100 * expected:.1f} %)")
        if show_wins:
            print("    " + " ".join(won))
        if name == "control":
            if strict < MIN_CONTROL_OVERLAP_ACCURACY:
                problems.append(f"control: {label} has {100 * strict:.1f} %; an easy item shares words with its document")
        elif max(strict, expected) > MAX_OVERLAP_ACCURACY:
            problems.append(f"{name}: {label} has {100 * max(strict, expected):.1f} %, more than {100 * MAX_OVERLAP_ACCURACY:.0f} %")

    if name == "long-documents":
        fifths = collections.Counter(min(4, int(5 * item["depth"])) for item in items)
        spread = [fifths[fifth] for fifth in range(5)]
        print(f"  items by fifth of the depth: {spread}")
        if min(spread) < MIN_PER_DEPTH_FIFTH:
            problems.append(f"{name}: depth fifths {spread}, one of them below {MIN_PER_DEPTH_FIFTH}")


def check_uniqueness(slices, problems):
    for key in ("queries", "documents"):
        seen = {}
        for items in slices.values():
            for item in items:
                for text in item[key]:
                    same = " ".join(words(text))
                    if same in seen:
                        problems.append(f"{item['id']}: the same text in {key} as {seen[same]}: {text[:60]!r}")
                    seen[same] = item["id"]


def main():
    problems = []
    slices = {}
    for name in SLICES:
        path = HERE / f"{name}.jsonl"
        if not path.is_file():
            problems.append(f"{path.name}: no such file")
            continue
        slices[name] = read(path, problems)
        check_schema(name, slices[name], problems)
    if not problems:
        check_uniqueness(slices, problems)
        for name, items in slices.items():
            check_slice(name, items, "--wins" in sys.argv[1:], problems)
        build = subprocess.run([sys.executable, str(HERE / "make_long.py"), "--check"], capture_output=True, text=True)
        if build.returncode:
            problems.append((build.stdout + build.stderr).strip())
    print()
    for problem in problems:
        print(f"PROBLEM {problem}")
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
