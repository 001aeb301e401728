"""Makes articles and questions out of public repositories: TRAIN/articles/*.jsonl and TRAIN/asked/*.jsonl, which collection.py reads.

    git clone --bare https://github.com/GSA/plainlanguage.gov DIR/GSA+plainlanguage.gov/repo    # and so on, all of SOURCES
    python models/train/webtext.py --repositories DIR --out TRAIN
    python models/train/collection.py --data TRAIN --out open --sets articles,asked

DIR has each repository as DIR/OWNER+NAME/repo, with or without a work tree: files are read out of the commit that SOURCES names, whatever is
checked out. Articles are pages of public offices and of open projects, {"title", "text"} in lines, paragraphs apart by an empty line. Questions,
{"question"} in lines, are what people asked elsewhere, without an answer. Git and Python's standard library are all that is needed; the output
depends on SOURCES alone.
"""
import argparse
import collections
import html
import io
import itertools
import json
import pathlib
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile

from collection import bare, clean

# --- Repositories


def files(repositories, repository, commit, paths):
    """Path and bytes of the files that match one of the expressions in `paths`, expression after expression."""
    folder = repositories / repository.replace("/", "+") / "repo"
    if not folder.is_dir():
        sys.exit(f"no repository {folder}")
    git = ["git", "-C", str(folder)]
    listing = subprocess.run([*git, "ls-tree", "-r", "-z", commit], capture_output=True)
    if listing.returncode:
        sys.exit(f"{folder}: {listing.stderr.decode().strip()}")
    entries = [entry.split("\t", 1) for entry in listing.stdout.decode("utf-8", "replace").split("\0") if entry]
    blobs = [(path, about.split()[2]) for about, path in entries if about.split()[1] == "blob"]
    # One process for all of them: a process for each file takes longer than to read it.
    with subprocess.Popen([*git, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        for expression in paths:
            chosen = [(path, blob) for path, blob in blobs if re.search(expression, path)]
            if not chosen:
                sys.exit(f"{folder}: no file {expression} in {commit}")
            for path, blob in chosen:
                reader.stdin.write(f"{blob}\n".encode())
                reader.stdin.flush()
                header = reader.stdout.readline().split()
                if len(header) != 3:
                    sys.exit(f"{folder}: {path} of {commit} is missing")
                content = reader.stdout.read(int(header[2]))
                reader.stdout.read(1)
                yield path, content
        reader.stdin.close()


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    print(f"{path}: {len(rows)}")


# --- Text out of markup


def decoded(contents):
    return ((path, content.decode("utf-8", "replace")) for path, content in contents)


def paragraphs(text):
    return "\n\n".join(filter(None, map(clean, re.split(r"\n\s*\n", text))))


def without_tags(text):
    text = re.sub(r"(?is)<(script|style)\b.*?</\1>", "", text)
    text = re.sub(r"(?s)<!--.*?-->", "", text)
    # What a browser shows as a block is a paragraph.
    text = re.sub(r"(?i)</?(p|div|h[1-6]|section|ul|ol|table|tr|br|blockquote|dl|dt|dd)\b[^>]*>", "\n\n", text)
    text = re.sub(r"(?i)<li\b[^>]*>", "\n- ", text)
    return html.unescape(re.sub(r"<[^>]+>", "", text))


def plain(text):
    """The paragraphs of a page in Markdown, as Jekyll and Hugo have it, or in HTML with such a head."""
    text = re.sub(r"(?s)^---\n.*?\n---\n", "", text)  # the head, in YAML
    text = re.sub(r"(?s)```.*?```", "", text)  # code
    text = re.sub(r"(?s)\{\{[<%].*?[>%]\}\}", "", text)  # Hugo's short codes
    text = re.sub(r"(?s)\{%.*?%\}", "", text)  # Liquid's tags
    text = re.sub(r"\{:.*?\}", "", text)  # Kramdown's attributes
    text = without_tags(text)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)  # pictures
    text = re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", text)  # links, of which the words stay
    text = re.sub(r"(?m)^#+\s*(.*?)\s*#*$", r"\n\1\n", text)  # headings
    text = re.sub(r"(\*\*|__|`)", "", text)  # strong words and names in code
    text = re.sub(r"(?<!\w)[*_](\S[^*_\n]*)[*_](?!\w)", r"\1", text)  # emphasis
    return paragraphs(text)


def title_in_head(text):
    match = re.search(r"(?m)^title:\s*(.+)$", text[:3000])
    return match.group(1).strip().strip("\"'") if match else None


def is_long(text, words=30):
    return len(text.split()) >= words


# --- Articles: each function gets files, path and bytes, and yields titles and texts. A page without a title has its path instead.


def markdown(contents):
    for path, source in decoded(contents):
        text = plain(source)
        if is_long(text):
            yield title_in_head(source) or path, text


def once(contents, key):
    """Markdown, but of the articles with the same key the first alone."""
    seen = set()
    for article in markdown(contents):
        if key(*article) not in seen:
            seen.add(key(*article))
            yield article


def recipes(contents):
    """The one collection of recipes began as a copy of the other, and has its titles."""
    return once(contents, lambda title, text: title.lower())


def veterans(contents):
    """The same page may be there under two addresses."""
    return once(contents, lambda title, text: text)


def public_pages(contents):
    """Pages of public offices, in Markdown or as templates in HTML. What all pages of a site say is taken once."""
    seen = set()
    for path, source in decoded(contents):
        source = re.sub(r"(?s)^\+\+\+\n.*?\n\+\+\+\n", "", source)  # a head in TOML
        heading = re.search(r"(?is)<h1[^>]*>(.*?)</h1>", source)
        title = title_in_head(source) or (clean(without_tags(heading.group(1))) if heading else path)
        source = re.sub(r"(?s)\{\{.*?\}\}", "", source)  # what a template fills in
        source = re.sub(r"(?m)^import .*$", "", source)  # MDX's components
        fresh = [text for text in dict.fromkeys(plain(source).split("\n\n")) if text not in seen]
        seen.update(fresh)
        text = "\n\n".join(fresh)
        if is_long(text, 40):
            yield title, text


def manual(contents):
    """Pages of a manual in Mallard, which is XML."""
    for path, source in decoded(contents):
        source = re.sub(r"(?s)<info>.*?</info>", "", source)
        title = re.search(r"(?s)<title>(.*?)</title>", source)
        text = paragraphs(without_tags(re.sub(r"(?i)<(item|steps|list|note|title|page|td)\b[^>]*>", "\n\n", source)))
        if is_long(text):
            yield clean(without_tags(title.group(1))) if title else path, text


def smart_answers(contents):
    """Questions and outcomes of a service, in Govspeak inside ERB: a flow's files are an article, which says each paragraph once."""
    flows = {}
    for path, source in decoded(contents):
        source = re.sub(r"(?s)<%.*?%>", "", source)
        source = re.sub(r"(?m)^\s*\$[A-Z]\s*$", "", source)  # Govspeak's boxes: the lines that open and close them,
        source = re.sub(r"(?m)^\s*[%$^!]+", "", source)  # and signs at both ends of a line
        source = re.sub(r"(?m)[%^]\s*$", "", source)
        text = plain(source)
        if is_long(text, 25):
            flows.setdefault(path.split("/")[2], []).extend(text.split("\n\n"))
    for flow, texts in flows.items():
        yield flow.replace("_flow", "").replace("_", " "), "\n\n".join(dict.fromkeys(texts))


def factbook(contents):
    """A country's sections, each field of a section in a paragraph."""
    for path, content in contents:
        country = json.loads(content)
        names = country.get("Government", {}).get("Country name", {})
        name = names.get("conventional short form", {}).get("text", path)
        if name == "none":
            name = names.get("conventional long form", {}).get("text", name)
        for section, fields in country.items():
            texts = [(field, clean(without_tags(fact(value)))) for field, value in fields.items()]
            texts = [f"{field}: {text}" for field, text in texts if len(text.split()) > 5]
            if texts:
                yield f"{name} - {section}", "\n\n".join(texts)


def fact(value):
    """A field's text, and the texts of its parts with their names."""
    if isinstance(value, str):
        return value
    return "; ".join(fact(part) if name == "text" else f"{name}: {fact(part)}" for name, part in value.items())


# --- Questions: each function gets files, path and bytes, and yields questions.


def cooking(contents):
    """Titles of questions, each after its labels."""
    for _, text in decoded(contents):
        for line in text.splitlines():
            question = " ".join(word for word in line.split() if not word.startswith("__label__"))
            if question:
                yield question


def consumer_health(contents):
    """Letters to a library of medicine, as experts put them into one question: the third column of a sheet."""
    sheet = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    for _, content in contents:
        book = zipfile.ZipFile(io.BytesIO(content))
        strings = ElementTree.fromstring(book.read("xl/sharedStrings.xml")).iter(f"{sheet}si")
        strings = ["".join(part.text or "" for part in string.iter(f"{sheet}t")) for string in strings]
        for row in list(ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml")).iter(f"{sheet}row"))[1:]:
            cells = [cell.findtext(f"{sheet}v") for cell in row.iter(f"{sheet}c")]
            if len(cells) >= 3:
                yield strings[int(cells[2])].strip()


def web_questions(contents):
    for _, content in contents:
        for row in json.loads(content):
            yield row["qText"]


def wellformedness(contents):
    """Queries of the Paralex corpus, well formed or not, each with its rating."""
    for _, text in decoded(contents):
        for line in text.splitlines():
            yield line.rsplit("\t", 1)[0]


# --- What is taken

Source = collections.namedtuple("Source", "name repository commit licence paths read")

# Of the pages of a public office, those in English that explain something: none about the repository, of the site's own parts, in Spanish.
PAGES = r"^(?!(?i:.*(readme|contribut|licen[sc]e|\.github|/docs/|test|/es/|layout|include|changelog|privacy|terms|search|404)))(?:{})"
SOURCES = [
    Source("articles/digitalgov", "GSA/digitalgov.gov", "4979583206d90ff1707b097454a9b169ca9e95e4", "public domain, CC0 1.0",
           [r"^content/(news|resources|guides|topics|_archived)/.*\.md$"], markdown),
    Source("articles/factbook", "factbook/factbook.json", "8662a8b17a784841ab4528631b04090eb2f183eb", "CC0 1.0",
           [r"^(?!meta)[^/]+/[^/]+\.json$"], factbook),
    Source("articles/gnome", "GNOME/gnome-user-docs", "46747c67c12109de9234644bcbcb89d1ff5e7d37", "CC BY-SA 3.0 (gnome-help/C/legal.xml)",
           [r"gnome-help/C/.*\.page$"], manual),
    Source("articles/privacyguides", "privacyguides/privacyguides.org", "45d7263305dce3ba354dfd37079ecc24f3dd8427", "CC BY-SA 4.0",
           [r"^docs/.*\.md$"], markdown),
    Source("articles/recipes", "ronaldl29/public-domain-recipes", "61b488ee25afd3abacc7aec408752f3987a9f8b3", "public domain, Unlicense",
           [r"^content/.*\.md$"], recipes),
    Source("articles/recipes", "LukeSmithxyz/based.cooking", "2d8642ec41ccc6162ec3123c15024dd3d22cc33b", "public domain, Unlicense",
           [r"^content/.*\.md$"], recipes),
    Source("articles/smartanswers", "alphagov/smart-answers", "6fb9aab9572cbf4f7f8e00384fe748d3ba121727", "MIT",
           [r"^app/flows/.*\.erb$"], smart_answers),
    Source("articles/usgov_misc", "USAJOBS/help-center", "1fe9183122c70ca2315f06b245795ab41ffb9eb7", "public domain, CC0 1.0",
           [PAGES.format(r"(how-to|working-in-government|faq|get-started|timeline)/.*\.(md|html)$")], public_pages),
    Source("articles/usgov_misc", "18F/doi-extractives-data", "b0f9e0cade8a5b5fb161c390d5f9a342974bbd6a", "public domain, CC0 1.0",
           [PAGES.format(r"src/.*\.mdx?$")], public_pages),
    Source("articles/usgov_misc", "usagov/vote-gov", "6e4482ab81bace0fe180e9104ccfcf9e8306c383", "public domain, CC0 1.0",
           [PAGES.format(r"content/en/.*\.md$")], public_pages),
    Source("articles/usgov_misc", "cfpb/owning-a-home", "8ef0c2e571948dedafdeb25875746c187ae419ca", "public domain, CC0 1.0",
           [PAGES.format(r"src/.*\.html$")], public_pages),
    Source("articles/usgov_misc", "GSA/plainlanguage.gov", "43230773bd7c589ac6394ead7b36a2554241abdc", "public domain, CC0 1.0",
           [PAGES.format(r"_?(pages|guidelines|resources|training|about|examples|law)/.*\.md$")], public_pages),
    # An old commit: the repository has no such pages any more.
    Source("articles/va", "department-of-veterans-affairs/vagov-content", "c143a37574368ef00e20ab073bd5fb2361889afa", "CC0 1.0",
           [r"^(content|va-gov)/pages/.*\.md$"], veterans),
    Source("asked/q_cooking", "HuStanding/ml", "890d481df3da334b1f3b13ce43eb50df829915b7", "CC BY-SA 3.0 (fasttext/readme.txt)",
           [r"^fasttext/data/cooking\.stackexchange\.txt$"], cooking),
    Source("asked/q_meqsum", "abachaa/MeQSum", "51e36cf65c12602333b6fdc3ae8ecf10430529f7", "CC BY 4.0",
           [r"^MeQSum_ACL2019_BenAbacha_Demner-Fushman\.xlsx$"], consumer_health),
    # Without its test questions, which others measure on.
    Source("asked/q_webquestions", "brmson/dataset-factoid-webquestions", "668890853388010fe6ae9a5eb035a7917b88933b", "CC BY 4.0",
           [r"^main/(?!test).*\.json$"], web_questions),
    Source("asked/q_wellformedness", "google-research-datasets/query-wellformedness", "fb69c21416195cddc797277ea9e4d393226571d2", "CC BY-SA 4.0",
           [r"^train\.tsv$", r"^dev\.tsv$", r"^test\.tsv$"], wellformedness),
]
# Where there would be too much beside the rest, this many, chosen at random.
LIMITS = {"articles/digitalgov": 400, "articles/factbook": 600, "asked/q_cooking": 1500}


def not_yet_asked(questions, asked):
    """Questions that no set before had, with or without a question mark, in small letters or not."""
    for question in questions:
        question = question.replace(" ?", "?")
        if bare(question) not in asked:
            asked.add(bare(question))
            yield question


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repositories", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="TRAIN")
    args = parser.parse_args()
    asked = set()
    for name, sources in itertools.groupby(SOURCES, lambda source: source.name):
        sources = list(sources)
        contents = itertools.chain.from_iterable(files(args.repositories, s.repository, s.commit, s.paths) for s in sources)
        found = list(sources[0].read(contents))
        if name in LIMITS or name.startswith("asked/"):
            random.Random(1).shuffle(found)
        found = found[: LIMITS.get(name)]
        if name.startswith("articles/"):
            rows = [{"title": title, "text": text} for title, text in found]
        else:
            rows = [{"question": question} for question in not_yet_asked(found, asked)]
        write_jsonl(args.out / f"{name}.jsonl", rows)


if __name__ == "__main__":
    main()
