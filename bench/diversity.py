r"""A collection for diversity, from words in context (Raganato et al. 2017, `ALL.data.xml` and `ALL.gold.key.txt`): the query
is a word alone, the candidates are sentences that hold it, and the subtopics are the senses that annotators gave it there.

    python3 bench/diversity.py OUT [DATA]           # DATA: ../shared/data/dev/wsd-eval, if nothing is said

    stage() { printf '[[stage]]\nmodel = "default"\n\n[[stage]]\n%b\n' "$2" > "OUT/$1.toml"; }
    stage distinct 'kind = "distinct"'
    stage mmr 'kind = "mmr"\nkeep = 10'
    stage mmr-vectors 'kind = "mmr"\nkeep = 10\nsimilarity = "bi:FOLDER"'      # the folder of a bi-encoder
    stage dpp 'kind = "dpp"\nkeep = 10'
    jointly eval OUT/wsd.groups.jsonl,subtopics=OUT/wsd.qrels --metric alpha_ndcg@10 \
        --ranker model=cross:default --ranker random=first --ranker distinct=cascade:OUT/distinct.toml \
        --ranker mmr=cascade:OUT/mmr.toml --ranker mmr-vectors=cascade:OUT/mmr-vectors.toml \
        --ranker dpp=cascade:OUT/dpp.toml --json OUT/eval.json --html OUT/eval.html

It writes OUT/wsd.groups.jsonl and OUT/wsd.qrels (`query sense document 1`), the same from the same data and --seed. A query is
a lemma with its part of speech that has --senses senses and --sentences different sentences at least; it has --most candidates at
most. Their order is that of a hash, so the first stage is chance. Every candidate holds the word and is relevant to some sense:
NDCG and MRR are 1 for every ranker, and alpha-NDCG says how soon the senses are there.
"""

import argparse
import hashlib
import json
import pathlib
import sys
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "dev" / "wsd-eval"
FILES = ("ALL.data.xml", "ALL.gold.key.txt")


def read_senses(path):
    """Occurrence -> its senses; one or more."""
    senses = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        columns = line.split()
        if not columns:
            continue
        if len(columns) < 2 or columns[0] in senses:
            sys.exit(f"{path}:{number}: an occurrence that has no line yet is expected, and its senses")
        senses[columns[0]] = columns[1:]
    return senses


def read_sentences(path):
    """The sentences, in the order of the file: id, text with spaces between the words, and (occurrence, lemma, part of speech)s."""
    try:
        root = xml.parse(path).getroot()
    except xml.ParseError as error:
        sys.exit(f"{path}: {error}")
    for sentence in root.iter("sentence"):
        text = " ".join((word.text or "").strip() for word in sentence)
        words = [(word.get("id"), word.get("lemma"), word.get("pos")) for word in sentence.iter("instance")]
        if not sentence.get("id") or any(value is None for word in words for value in word):
            sys.exit(f"{path}: sentence {sentence.get('id')}: an id, or an instance's id, lemma or pos is missing")
        yield sentence.get("id"), text, words


def collect(folder):
    """(lemma, part of speech) -> text -> [id of the first sentence that reads so, senses of the word in it]."""
    senses = read_senses(folder / FILES[1])
    words = {}
    for sentence, text, occurrences in read_sentences(folder / FILES[0]):
        for occurrence, lemma, pos in occurrences:
            if occurrence not in senses:
                sys.exit(f"{folder / FILES[1]}: no line for {occurrence}, which is in {FILES[0]}")
            found = words.setdefault((lemma, pos), {}).setdefault(text, [sentence, set()])
            found[1].update(senses[occurrence])
    return words


def groups(words, options):
    """(query id, query, [(id, text, senses)]) for each word with enough senses and sentences."""
    for (lemma, pos), sentences in sorted(words.items()):
        if len(sentences) < options.sentences:
            continue
        query = f"{lemma}.{pos}"

        def place(item):
            return hashlib.sha256(f"{options.seed}\n{query}\n{item[0]}".encode()).digest()

        candidates = [(sentence, text, senses) for text, (sentence, senses) in sentences.items()]
        candidates = sorted(candidates, key=place)[: options.most]
        if len(set().union(*(senses for _, _, senses in candidates))) >= options.senses:
            yield query, lemma.replace("_", " "), candidates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="where the two files are written")
    parser.add_argument("data", type=pathlib.Path, nargs="?", default=DATA, help=f"the folder of {' and '.join(FILES)}")
    parser.add_argument("--senses", type=int, default=2, metavar="N")
    parser.add_argument("--sentences", type=int, default=10, metavar="N")
    parser.add_argument("--most", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    options = parser.parse_args()
    for name in FILES:
        if not (options.data / name).is_file():
            sys.exit(f"{options.data / name}: not there; the second argument is the folder that has {' and '.join(FILES)}")
    found = list(groups(collect(options.data), options))
    if not found:
        sys.exit(f"{options.data}: no word has {options.senses} senses in {options.sentences} sentences")

    options.out.mkdir(parents=True, exist_ok=True)
    pool, judged = options.out / "wsd.groups.jsonl", options.out / "wsd.qrels"
    documents, judgements, senses_of = 0, 0, []
    with pool.open("w", encoding="utf-8") as groups_file, judged.open("w", encoding="utf-8") as qrels:
        for query_id, query, candidates in found:
            texts = [{"id": sentence, "text": text} for sentence, text, _ in candidates]
            group = {"query_id": query_id, "query": query, "documents": texts}
            groups_file.write(json.dumps(group, ensure_ascii=False) + "\n")
            rows = [(sense, sentence) for sentence, _, senses in candidates for sense in sorted(senses)]
            qrels.writelines(f"{query_id} {sense} {sentence} 1\n" for sense, sentence in rows)
            documents += len(candidates)
            judgements += len(rows)
            senses_of.append(len({sense for sense, _ in rows}))
    count = len(found)
    print(f"{pool}: {count} queries, {documents} candidates ({documents / count:.1f} each)")
    print(f"{judged}: {judgements} judgements, {sum(senses_of) / count:.1f} senses each, {max(senses_of)} at most")


if __name__ == "__main__":
    main()
