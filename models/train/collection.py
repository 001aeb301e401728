"""Makes a search collection out of licence-clean question sets: corpus.jsonl, queries.jsonl and qrels/train.tsv, as in BEIR.

    python models/train/collection.py --data TRAIN --out collection

    python models/train/collection.py --data TRAIN --out web --sets nq,qed,boolq
    python models/train/collection.py --data TRAIN --out papers --sets bioasq,pubmedqa,covid-qa,covid-articles --lengths 130,180,230
    python models/train/collection.py --data TRAIN --out books --sets openstax

TRAIN is a folder with the sets as they are published: squad, nq, medquad, bioasq12b-golden, pubmedqa and covid-qa, and for the sets that
are not taken unless named, qed (nq-train-*-qed.jsonlines), boolq (dev.jsonl) and openstax (a folder for each repository of books, with its
modules/*/index.cnxml). Only Python's standard library is needed. The output
depends on the seed, the sets and the limits alone.

Questions are written as people type them (the question mark often missing, some cut down to keywords). Besides questions there
are statements: the conclusion of an abstract, asked of the rest of it, and sentences taken out of a passage, asked of what is
left. Passages have many lengths, from two sentences to a whole abstract, so that length carries no signal.
"""
import argparse
import collections
import json
import pathlib
import random
import re
import tarfile
import xml.etree.ElementTree as ElementTree

STOP = set("""a an the of in on at to for from by with and or is are was were be been being do does did has have had
what which who whom whose when where why how that this these those it its as there their he she his her they i you your
my me we our can could should would will may might must many much s name called""".split())
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"(])")
# Words of a passage, about: most are web passages, some are abstracts.
LENGTHS = [30, 45, 55, 60, 60, 75, 100, 180]
# How people ask about a thing as such; used with --whole-articles.
TITLE_FORMS = ["{}", "{}", "what is {}", "{} definition", "define {}", "facts about {}", "{} history", "meaning of {}"]


def read_jsonl(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def bare(query):
    """What two questions have in common that are the same but for capitals and the question mark."""
    return query.lower().rstrip("? ")


def clean(text):
    return re.sub(r"\s+", " ", text).strip()


def split_passages(text, words):
    """Splits at sentence ends into passages of about `words` words; a short tail joins its neighbour."""
    parts, current = [], []
    for sentence in SENTENCE.split(clean(text)):
        tokens = sentence.split()
        while tokens:
            room = max(1, int(words * 1.4) - len(current))
            current += tokens[:room]
            tokens = tokens[room:]
            if len(current) >= words:
                parts.append(current)
                current = []
    if current:
        if parts and len(current) < words // 3:
            parts[-1] = parts[-1] + current
        else:
            parts.append(current)
    return [" ".join(part) for part in parts]


def close_up(text, dashes="-"):
    """A data set's words and signs, which have spaces between them, as people write them."""
    text = re.sub(r"\s+([?.,!%;:])", r"\1", clean(text))
    text = re.sub(r"\s+'\s*(s|t|re|ve|ll|d|m)\b", r"'\1", text)
    return re.sub(rf"(\w)\s+([{dashes}])\s+(\w)", r"\1\2\3", text)


def web_query(text, rng):
    """A data set's question as people type it: the question mark kept less than half the time."""
    text = close_up(text)
    return text.rstrip("?").strip() if rng.random() < 0.6 else text


def keywords(text):
    return " ".join(word for word in re.findall(r"[\w'-]+", text.lower()) if word not in STOP)


def few_words(text, rng):
    """Two to five words in a row out of a sentence, without stop words: what people type who know roughly what they want."""
    words = keywords(rng.choice(SENTENCE.split(clean(text)))).split()
    start, count = rng.randrange(max(1, len(words) - 4)), rng.randint(2, 5)
    return " ".join(words[start : start + count])


class Collection:
    def __init__(self, rng, whole=False, lengths=LENGTHS):
        self.rng, self.whole, self.lengths = rng, whole, lengths
        self.passages, self.index, self.queries = [], {}, []

    def add(self, text, title, source):
        if text not in self.index:
            shown = text
            if title and self.rng.random() < 0.25:
                shown = f"{title}. {text}" if self.rng.random() < 0.5 else f"{title} {text}"
            self.index[text] = len(self.passages)
            self.passages.append((source, shown))
        return self.index[text]

    def add_document(self, text, title, source, limit=3):
        parts = split_passages(text, self.rng.choice(self.lengths))
        return [self.add(part, title, source) for part in parts[:limit]]

    def ask(self, text, gold, source, keyword_share=0.25):
        text = web_query(text, self.rng)
        short = keywords(text)
        if self.rng.random() < keyword_share and len(short.split()) >= 2:
            text = short
        if len(text) > 2:
            self.queries.append((source, text, gold))

    def state(self, text, title, source):
        """A sentence of a passage as a query for what is left of it."""
        sentences = [s for s in SENTENCE.split(clean(text)) if 7 <= len(s.split()) <= 35]
        if len(sentences) < 4:
            return
        sentence = self.rng.choice(sentences)
        gold = self.add_document(clean(text).replace(sentence, " ", 1), title, source, limit=2)
        self.queries.append((source + "-statement", sentence, gold))


def by_article(corpus, documents):
    """The documents of each title, in their order."""
    articles = {}
    for document in documents:
        articles.setdefault(corpus[document]["title"], []).append(document)
    return articles


def squad_like(data, name, limits, collection):
    rng = collection.rng
    corpus = {row["_id"]: row for row in read_jsonl(data / name / "corpus.jsonl")}
    texts = {row["_id"]: row["text"] for row in read_jsonl(data / name / "queries.jsonl")}
    with open(data / name / "qrels/train.tsv", encoding="utf-8") as lines:
        pairs = [line.split() for line in lines][1:]
    by_document = collections.defaultdict(list)
    for query, document, _ in pairs:
        by_document[document].append(query)
    documents = sorted(by_document)
    rng.shuffle(documents)
    if collection.whole:
        # Articles one after the other, in random order: many candidates are then about what a question is about.
        documents = [document for article in by_article(corpus, documents).values() for document in article]
    taken, titles = 0, set()
    for place, document in enumerate(documents):
        if taken >= limits[name]:
            break
        row = corpus[document]
        gold = collection.add_document(row["text"], row["title"], name, limit=2)
        for query in rng.sample(by_document[document], min(4 if collection.whole else 2, len(by_document[document]))):
            collection.ask(texts[query], gold, name)
            taken += 1
        titles.add(row["title"])
        if place % 8 == 0:
            collection.state(row["text"], row["title"], name)
    if limits["topic"]:
        topics(corpus, by_document, name, limits, collection)
    if collection.whole:
        titles = {row["title"] for row in corpus.values()}
    for title in sorted(titles)[: limits["title"] // 2]:
        form = rng.choice(TITLE_FORMS) if collection.whole else "{}"
        collection.ask(form.format(title.replace("_", " ")), [], name + "-title", 0)


def topics(corpus, asked, name, limits, collection):
    """Paragraphs that nobody asked about, and a few words out of them, half the time with the article's title. No passage is known to
    answer these: the judges say."""
    rng = collection.rng
    articles = by_article(corpus, sorted(set(corpus) - set(asked)))
    documents = [document for title in rng.sample(sorted(articles), len(articles)) for document in articles[title]]
    for row in (corpus[document] for document in documents[: limits["topic"]]):
        collection.add_document(row["text"], row["title"], name, limit=2)
        query = few_words(row["text"], rng)
        if rng.random() < 0.5:
            query = f"{row['title'].replace('_', ' ')} {query}".lower()
        collection.ask(query, [], name + "-topic", 0)


def squad(data, collection, limits):
    squad_like(data, "squad", limits, collection)


def nq(data, collection, limits):
    squad_like(data, "nq", limits, collection)


def medquad(data, collection, limits):
    items = []
    with tarfile.open(data / "medquad/MedQuAD-HEAD.tar.gz") as tar:
        for member in tar:
            if not member.name.endswith(".xml"):
                continue
            root = ElementTree.fromstring(tar.extractfile(member).read())
            focus = root.findtext("Focus") or ""
            for pair in root.iter("QAPair"):
                question, answer = pair.findtext("Question"), pair.findtext("Answer")
                if question and answer and len(answer.split()) > 15:
                    items.append((clean(question).replace("What is (are)", "what is"), clean(answer), clean(focus)))
    items.sort()
    collection.rng.shuffle(items)
    for question, answer, focus in items[: limits["medquad"]]:
        collection.ask(question.lower(), collection.add_document(answer, focus, "medquad", limit=1), "medquad")


def bioasq(data, collection, limits):
    taken = 0
    for path in sorted((data / "bioasq12b-golden").glob("*.json")):
        for question in json.loads(path.read_text(encoding="utf-8"))["questions"]:
            snippets = [s["text"] for s in question["snippets"] if len(s["text"].split()) > 8]
            gold = [collection.add(clean(" ".join(s.split()[:180])), None, "bioasq") for s in dict.fromkeys(snippets[:5])]
            if gold and taken < limits["bioasq"]:
                collection.ask(question["body"], gold, "bioasq")
                taken += 1


def pubmedqa(data, collection, limits):
    rng = collection.rng
    papers = sorted(json.loads((data / "pubmedqa/ori_pqal.json").read_text(encoding="utf-8")).items())
    rng.shuffle(papers)
    for _, paper in papers[: limits["pubmedqa"]]:
        abstract = " ".join(paper["CONTEXTS"])
        # Half of the papers with their title, which is the question: then nobody asks it.
        title = paper["QUESTION"].rstrip("?.") + ". " if rng.random() < 0.5 else ""
        # Half of the abstracts whole, as search engines over papers have them.
        parts = [clean(abstract)] if rng.random() < 0.5 else split_passages(abstract, rng.choice(collection.lengths))[:2]
        gold = [collection.add(title + part, None, "pubmedqa") for part in parts]
        if not title:
            collection.ask(paper["QUESTION"], gold, "pubmedqa")
        for conclusion in SENTENCE.split(clean(paper["LONG_ANSWER"]))[:2]:
            if 6 <= len(conclusion.split()) <= 40:
                collection.queries.append(("pubmedqa-statement", conclusion, gold))
        collection.state(title + abstract, None, "pubmedqa")


def covid_qa(data, collection, limits):
    rng = collection.rng
    items = [(qa, context) for context, questions in covid_articles_of(data) for qa in questions if qa["answers"]]
    rng.shuffle(items)
    for qa, context in items[: limits["covid-qa"]]:
        start = qa["answers"][0]["answer_start"]
        end = start + len(qa["answers"][0]["text"])
        passage = window(context, start, end, rng.choice([250, 400, 700]))
        collection.ask(qa["question"], [collection.add(passage, None, "covid-qa")], "covid-qa")
        if rng.random() < 0.5:
            collection.state(passage, None, "covid-qa")


def covid_articles_of(data):
    covid = json.loads((data / "covid-qa/200423_covidQA.json").read_text(encoding="utf-8"))["data"]
    return [(paragraph["context"], paragraph["qas"]) for article in covid for paragraph in article["paragraphs"]]


def window(context, start, end, reach):
    """The sentences about characters `start` to `end`, some `reach` characters to each side, 260 words at most."""
    sentence = context.rfind(". ", 0, max(0, start - reach // 2))
    left = max(sentence + 2 if sentence >= 0 else 0, start - reach)
    right = context.find(". ", end + reach // 2)
    right = min(right + 1 if right > 0 else end + reach, end + reach)
    return " ".join(clean(context[left:right]).split()[:260])


def covid_articles(data, collection, limits):
    """Articles in pieces as long as abstracts, half of them with the article's title, and of each piece a sentence that was taken
    out of it."""
    pieces = [(clean(context.strip().split("\n")[0]), piece) for context in sorted({context for context, _ in covid_articles_of(data)})
              for piece in split_passages(context, collection.rng.choice(collection.lengths)) if len(piece.split()) >= 120]
    collection.rng.shuffle(pieces)
    for title, piece in pieces[: limits["covid-articles"]]:
        sentences = [s for s in SENTENCE.split(piece) if 9 <= len(s.split()) <= 30 and s[0].isupper() and s[-1] == "."]
        sentence = collection.rng.choice(sentences) if len(sentences) >= 4 else None
        text = clean(piece.replace(sentence, " ", 1)) if sentence else piece
        if collection.rng.random() < 0.5 and len(title.split()) <= 40:
            text = f"{title}. {text}"
        gold = collection.add(text, None, "covid")
        if sentence:
            collection.queries.append(("covid-statement", sentence, [gold]))


def detokenise(text):
    """Wikipedia's text as Natural Questions has it: brackets and quotation marks stand apart too."""
    text = re.sub(r"\s+([)\]])", r"\1", close_up(text, dashes="-–"))
    text = re.sub(r"([(\[$])\s+", r"\1", text)
    return re.sub(r"(``|'')\s*", '"', text)


def ask_of_titles(titles, source, count, collection):
    for title in collection.rng.sample(sorted(titles), min(count, len(titles))):
        collection.ask(collection.rng.choice(TITLE_FORMS).format(re.sub(r"\s*\(.*\)", "", title).lower()), [], source + "-title", 0)


def qed(data, collection, limits):
    """Questions typed into a search engine with the Wikipedia paragraph that answers them, cut to what is about the answer."""
    rows = [row for path in sorted((data / "qed").glob("nq-train-*-qed.jsonlines")) for row in read_jsonl(path)]
    collection.rng.shuffle(rows)
    titles = set()
    for row in rows[: limits["qed"]]:
        start, end = row["answer_spans"][0]
        passage = detokenise(window(row["paragraph_text"], start, end, collection.rng.choice([200, 250, 350])))
        if len(passage.split()) < 12:
            continue
        collection.ask(row["question_text"], [collection.add(passage, row["title_text"], "qed")], "qed", 0.15)
        titles.add(row["title_text"])
    ask_of_titles(titles, "qed", limits["title"], collection)


def boolq(data, collection, limits):
    """Questions with yes or no for an answer, likewise, with their paragraph."""
    rows = read_jsonl(data / "boolq/dev.jsonl")
    collection.rng.shuffle(rows)
    for row in rows[: limits["boolq"]]:
        passage = " ".join(detokenise(row["passage"]).split()[:120])
        collection.ask(row["question"], [collection.add(passage, row["title"], "boolq")], "boolq", 0.15)
    ask_of_titles({row["title"] for row in rows[: limits["boolq"]]}, "boolq", limits["title"] // 2, collection)


CNXML = "{http://cnx.rice.edu/cnxml}"
MATHS = "{http://www.w3.org/1998/Math/MathML}math"


def plain(element):
    """An element's text, without formulas, which do not read as text, and without what follows the element."""
    parts = [element.text or ""]
    for child in element:
        parts += ["" if child.tag == MATHS else plain(child), child.tail or ""]
    return "".join(parts)


def openstax(data, collection, limits):
    """Text books: their sections in passages, and as queries the terms that their glossaries explain, section titles, and words and
    sentences out of the passages. What answers a term or a title, the judges say."""
    rng = collection.rng
    modules = sorted((data / "openstax").glob("*/modules/*/index.cnxml"))
    rng.shuffle(modules)
    for module in modules[: limits["openstax"]]:
        root = ElementTree.parse(module).getroot()
        title = clean(root.findtext(f"{CNXML}title") or "")
        for section in [root.find(f"{CNXML}content"), *root.iter(f"{CNXML}section")]:
            heading = section.find(f"{CNXML}title")
            about = clean(plain(heading)) if heading is not None else title
            # Exercises and aims are lists; what explains is paragraphs of some length.
            paragraphs = [clean(plain(paragraph)) for paragraph in section.findall(f"{CNXML}para")]
            text = " ".join(paragraph for paragraph in paragraphs if len(paragraph.split()) >= 25)
            if len(text.split()) < 40:
                continue
            collection.add_document(text, about, "openstax", limit=12)
            if about != title and 2 <= len(about.split()) <= 9 and rng.random() < 0.7:
                collection.ask(about.lower(), [], "openstax-title", 0)
            collection.ask(few_words(text, rng), [], "openstax-topic", 0)
            if rng.random() < 0.2:
                collection.state(text if len(text.split()) < 150 else split_passages(text, 90)[0], about, "openstax")
        for definition in root.iter(f"{CNXML}definition"):
            term, meaning = definition.find(f"{CNXML}term"), definition.find(f"{CNXML}meaning")
            if term is None or meaning is None or not clean(plain(term)):
                continue
            name, meaning = clean(plain(term)).lower(), clean(plain(meaning))
            gold = [collection.add(f"{name}: {meaning}", None, "openstax")] if len(meaning.split()) >= 12 else []
            collection.ask(rng.choice(TITLE_FORMS).format(name), gold, "openstax-term", 0)


def articles(data, collection, limits):
    """Articles of any kind ({"title", "text"} in lines, paragraphs apart by an empty line): their passages, and as queries titles, and words and
    sentences out of the passages."""
    rng = collection.rng
    rows = [row for path in sorted((data / "articles").glob("*.jsonl")) for row in read_jsonl(path)]
    rng.shuffle(rows)
    for row in rows[: limits["articles"]]:
        # Lists of fields and of links are no text.
        paragraphs = [text for text in map(clean, row["text"].split("\n\n")) if len(text.split()) >= 12 and text.count(";") <= 3]
        text = " ".join(paragraphs)
        if len(text.split()) < 30:
            continue
        title = clean(row["title"])
        collection.add_document(text, title, "article", limit=10)
        if 1 <= len(title.split()) <= 9 and "/" not in title and rng.random() < 0.7:
            collection.ask(title.lower(), [], "article-title", 0)
        collection.ask(few_words(text, rng), [], "article-topic", 0)
        if rng.random() < 0.3:
            collection.state(split_passages(text, 90)[0], title, "article")


def claims(data, collection, limits):
    """Abstracts (docs.jsonl: {"id", "title", "abstract"}), and findings in one sentence, each with its abstract (claims.jsonl: {"doc", "kind",
    "claim"}; `title` is the paper's own title, `abs` and `last` stood in the abstract, what is left of it is "abstract_rest")."""
    rng = collection.rng
    papers = read_jsonl(data / "claims/docs.jsonl")
    by_paper = collections.defaultdict(list)
    for row in read_jsonl(data / "claims/claims.jsonl"):
        by_paper[row["doc"]].append(row)
    rng.shuffle(papers)
    for paper in papers[: limits["claims"]]:
        said = by_paper[paper["id"]]
        rng.shuffle(said)
        text, title = clean(paper["abstract"]), clean(paper["title"]).rstrip(".") + ". "
        # Each paper once: as it is, or without its conclusion and the conclusion as a claim, or without its title and the title as one.
        alone = [row for row in said if row["kind"] in ("title", "abs", "last")]
        ways = [[row for row in said if row not in alone], *([row] for row in alone)]
        way = rng.choice(ways)
        if way and way[0].get("abstract_rest"):
            text = clean(way[0]["abstract_rest"])
        if rng.random() < 0.3 or (way and way[0]["kind"] == "title"):
            title = ""
        gold = collection.add(title + " ".join(text.split()[:330]), None, "claim")
        for row in way[:3]:
            collection.queries.append(("claim-" + row["kind"], clean(row["claim"]), [gold]))


def asked(data, collection, limits):
    """Questions that people asked of nothing here ({"question"} in lines): what answers them, if anything does, the judges say."""
    rows = [row for path in sorted((data / "asked").glob("*.jsonl")) for row in read_jsonl(path)]
    collection.rng.shuffle(rows)
    for row in rows[: limits["asked"]]:
        collection.ask(row["question"].lower(), [], "asked", 0.15)


# Each set, and how many of its queries to take. (`openstax` counts modules of books; `title` and `topic` count
# queries made of titles and of a few words out of a paragraph.)
SETS = {
    "squad": (squad, 4500), "nq": (nq, 2655), "medquad": (medquad, 2200), "bioasq": (bioasq, 340), "pubmedqa": (pubmedqa, 1000),
    "covid-qa": (covid_qa, 800), "covid-articles": (covid_articles, 3000), "qed": (qed, 8000), "boolq": (boolq, 4000),
    "openstax": (openstax, 10_000), "articles": (articles, 10_000), "claims": (claims, 10_000), "asked": (asked, 100_000),
}
FIRST_SETS = "squad,nq,medquad,bioasq,pubmedqa,covid-qa"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--limit", action="append", default=[], metavar="SET=N", help="queries of a set")
    parser.add_argument("--sets", default=FIRST_SETS, metavar="SET,...", help=f"what to take, of {', '.join(SETS)} [{FIRST_SETS}]")
    parser.add_argument("--lengths", type=lambda text: [int(words) for words in text.split(",")], default=LENGTHS, metavar="WORDS,...",
                        help=f"of passages, about; one is drawn for each document [{','.join(map(str, LENGTHS))}]")
    parser.add_argument("--whole-articles", action="store_true",
                        help="take all paragraphs of some articles, not some paragraphs of all: candidates that are harder to tell apart")
    args = parser.parse_args()
    sets = args.sets.split(",")
    for name in set(sets) - set(SETS):
        parser.error(f"--sets: no set {name!r}; there are {', '.join(SETS)}")
    limits = {name: limit for name, (_, limit) in SETS.items()} | {"title": 600, "topic": 0}
    limits.update((name, int(count)) for name, count in (item.split("=") for item in args.limit))
    collection = Collection(random.Random(args.seed), args.whole_articles, args.lengths)
    for name in sets:
        SETS[name][0](args.data, collection, limits)

    (args.out / "qrels").mkdir(parents=True, exist_ok=True)
    with open(args.out / "corpus.jsonl", "w", encoding="utf-8") as out:
        for i, (source, text) in enumerate(collection.passages):
            out.write(json.dumps({"_id": f"{source}-{i}", "title": "", "text": text}, ensure_ascii=False) + "\n")
    with open(args.out / "queries.jsonl", "w", encoding="utf-8") as out, \
            open(args.out / "qrels/train.tsv", "w", encoding="utf-8") as qrels:
        qrels.write("query-id\tcorpus-id\tscore\n")
        for i, (source, text, gold) in enumerate(collection.queries):
            out.write(json.dumps({"_id": f"{source}-q{i}", "text": text}, ensure_ascii=False) + "\n")
            for passage in dict.fromkeys(gold):
                qrels.write(f"{source}-q{i}\t{collection.passages[passage][0]}-{passage}\t1\n")
    words = sum(len(text.split()) for _, text in collection.passages) / len(collection.passages)
    print(f"{len(collection.passages)} passages of {words:.0f} words, {len(collection.queries)} queries")
    for what, names in (("queries", (q[0] for q in collection.queries)), ("passages", (p[0] for p in collection.passages))):
        print(what, dict(sorted(collections.Counter(names).items())))


if __name__ == "__main__":
    main()
