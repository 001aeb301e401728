"""Makes findings in one sentence, each with the abstract of its paper, out of open-licence articles in public repositories.

    git clone --bare https://github.com/petermr/tigr2ess DIR/petermr+tigr2ess/repo    # and so on, all of SOURCES
    python models/train/findings.py --repositories DIR --without DEV/scifact --without DEV/nfcorpus --out TRAIN
    python models/train/collection.py --data TRAIN --out papers --sets claims

Writes TRAIN/claims/docs.jsonl (id, title, abstract, licence) and TRAIN/claims/claims.jsonl (doc, kind, claim, abstract_rest), which collection.py
reads. DIR is as for webtext.py. Articles are in JATS, the XML of PubMed Central, and each states its own licence: only those are taken that
anybody may use for any purpose and change (CC BY, CC BY-SA, CC0, public domain). What is a document of a set under --without is left out.

The kinds of claims, an article's claims standing in this order:
  template   who was compared with whom and what came of it, as Evidence Inference's annotators found it, put into a sentence
  statement  the editors' sentence about the article
  body       a conclusion in the article's body that is not in its abstract
  abs, last  the conclusion of the abstract, or its last sentence; abstract_rest is the abstract without it
  title      the article's title, where it is a whole sentence
Git and Python's standard library are all that is needed; the output depends on SOURCES and --without alone.
"""
import argparse
import collections
import csv
import hashlib
import html
import io
import itertools
import json
import pathlib
import re
import xml.etree.ElementTree as ElementTree

import collection
from webtext import files, write_jsonl

# `chosen`: its authors chose the articles one by one, all of them trials. In the others is what a search brought, of any kind and language.
Source = collections.namedtuple("Source", "repository commit licence paths chosen")
EVIDENCE = "jayded/evidence-inference", "b9831b6c59b52ac2d277f757d413ececf0949a8d"
# Where two have the same article the first one counts. Licences are those of the repositories; an article's own is in it.
SOURCES = [
    Source(*EVIDENCE, "MIT", [r"^annotations/xml_files/.*\.nxml$"], True),
    Source("petermr/dictionary", "475fd3acad31748c62a365914e15f714bad3d3c3", "Apache-2.0", [r"fulltext[^/]*\.xml$"], False),
    Source("petermr/tigr2ess", "9612323fd84d69053c1477e4a224f4b85d4a5f4f", "CC BY 4.0", [r"fulltext[^/]*\.xml$"], False),
    Source("petermr/openDiagram", "6641b3758f4f8ab4e7758e644b6850ab33c49f4b", "Apache-2.0", [r"fulltext[^/]*\.xml$"], False),
    Source("petermr/pygetpapers", "b1591b7dac245c553faad8e27235a400fa85dff5", "Apache-2.0", [r"fulltext[^/]*\.xml$"], False),
    Source("ContentMine/wellcome-2015-files", "99d540766f0bd1ab2548370d270494fb31a23636", "CC0 1.0", [r"fulltext[^/]*\.xml$"], False),
    Source("PLOS/allofplos", "07fdeed848b2816a7fbf7da6418ef6e2076e1960", "MIT", [r"^allofplos/starter_corpus/.*\.xml$"], False),
    Source("elifesciences/elife-tools", "84894d1628043ea32cda1681ec55388b58ca2e0b", "MIT", [r"^tests/sample-xml/.*\.xml$"], False),
    Source("elifesciences/bot-lax-adaptor", "6b4d0e637bb7b83685c1ffa01b7929e0ecd5b4aa", "GPL-3.0", [r"^src/.*elife.*\.xml$"], False),
    Source("elifesciences/elife-bot", "07b84ff1d35a6fbf59636933f1751cab8272430c", "MIT", [r"^tests/.*elife.*\.xml$"], False),
]

# --- Text


def clean(text):
    """Text on one line, without the brackets whose references were left out."""
    text = collection.clean(text.replace("\u200b", ""))
    text = re.sub(r"\s*\[\s*[-\u2013,;\s]*\]", "", text)
    text = re.sub(r"\s*\(\s*[-\u2013,;\s]*\)", "", text)
    return re.sub(r"\s+([,.;:)%])(?=\s|$)", r"\1", text).strip()


# Abbreviations whose full stop ends no sentence.
ABBREVIATION = re.compile(r"\b(e\.g|i\.e|vs|Fig|et al|Dr|Prof|No|approx|cf|ca|spp|sp|resp|St|mo|yr|incl|Eq|Ref)\.")


def sentences(text):
    text = ABBREVIATION.sub(lambda match: match.group(0).replace(".", "\x01"), text)
    parts = re.split(r"(?<=[a-z0-9)%\]\"\u201d][.!?])\s+(?=[A-Z(\u201c\"])", text)
    return [part.replace("\x01", ".").strip() for part in parts if part.strip()]


def capital(text):
    return text[0].upper() + text[1:]


# What leads to a conclusion and is no part of it: "In conclusion, ",
LEAD = re.compile(
    r"^(?:\(?\d+\)?\s+)?(?:(?:in|to|as a|by way of) (?:conclu(?:sion|de)|summary|summarize|summarise|sum up)|taken together|overall|collectively"
    r"|together|conclusions?|thus|therefore|hence|altogether|in short|consequently|accordingly|finally|moreover|furthermore|however|importantly"
    r"|here|additionally|in addition|also|nevertheless)\s*[,:]?\s+", re.I)
# and "our results clearly show that".
WE_FOUND = re.compile(
    r"^(?:here,?\s+)?(?:(?:the |our |these |this |present |current |study |results? |findings? |data |analys[ie]s |trial |work |observations? "
    r"|authors? |that |clinical |of )+?|we (?:have |also |thus |therefore |clearly |further )*)(?:here |clearly |strongly |thus |also |therefore "
    r"|further |herein |and |support|observed |to |in |from |for |the |our |this |study )*?(?:have |has )?(?:show|demonstrat|suggest|indicat|reveal"
    r"|found|find|conclud|confirm|provid\w+ evidence|report|establish|identif|discover|observ|propos|support\w* the (?:idea|notion|view|hypothesis))"
    r"(?:s|ed|es|e|n|ing|y|ies|ied)?(?: here)? that,?\s+", re.I)
# A sentence that begins like this needs the one before it, or is about the study.
NEEDS_CONTEXT = re.compile(
    r"(this|these|those|it|its|they|their|such|we|our|i|he|she|the (present |current )?(study|studies|results?|findings?|data|authors?|trial|paper"
    r"|review|article|work|analys[ie]s|survey)|future|larger|both of|here) (?=\w)", re.I)
# Sentences on what is still to do, on the study itself, with numbers of tables and tests, or with words like "this suggests".
ABOUT_STUDY = re.compile(
    r"\b(further|future|more|additional|larger) (?:\w+ ){0,4}(research|stud(?:y|ies)|trials?|investigations?|work|evaluations?|data)\b"
    r"|\bwarrant|\bremains? to be|needs? to be (?:further|investigat)|should be (?:investigat|evaluat|explor|studied)|\b(is|are) needed\b|\bwill\b"
    r"|this (study|trial|paper|article|work|review)|our (study|data|results|findings)|\bwe\b|\bour\b|in (this|our|the present) |aimed? (to|at)"
    r"|limitation|strengths? of|hypothes[ie]s (that|was|were)|isrctn|nct\d|trial regist|table \d|figure \d|fig\.|shows? a summary|\bshown in\b"
    r"|supplementary|\bstatistically significant (p|difference was)|\bp ?[<=>] ?0|\bthis (suggests?|indicates?|means|may|might|could|is)\b", re.I)


def bare_claim(sentence):
    """A conclusion's claim without the words that lead to it, or None where it does not stand alone."""
    claim = clean(sentence)
    for _ in range(3):
        claim = WE_FOUND.sub("", LEAD.sub("", claim))
    claim = claim and capital(claim)
    if not 7 <= len(claim.split()) <= 45 or claim[-1] not in ".!?" or re.search(r"[\[\]{}\\]|https?:", claim):
        return None
    return None if NEEDS_CONTEXT.match(claim) or ABOUT_STUDY.search(claim) else claim


# --- Articles


def parse(content):
    """The root of an article, its tags without their name spaces, or None where it is no XML."""
    text = re.sub(r"<!DOCTYPE[^>\[]*(\[[^\]]*\])?[^>]*>", "", content.decode("utf-8", "replace"), count=1)
    # Named characters are defined in the document type, which is not at hand.
    text = re.sub(r"&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[0-9a-fA-F]+);)(\w+);",
                  lambda match: html.unescape(match.group()) if html.unescape(match.group()) != match.group() else match.group(1), text)
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError:
        return None
    for element in root.iter():
        element.tag = element.tag.split("}")[-1]
    return root


# What is no running text.
APART = set("""xref object-id label table-wrap fig disp-formula tex-math graphic inline-graphic fn email alternatives related-object
supplementary-material""".split())
BLOCKS = {"p", "title", "sec", "list-item", "break"}


def text_of(element):
    def walk(element):
        if element.tag in APART:
            return
        parts.append(element.text or "")
        for child in element:
            walk(child)
            parts.append(child.tail or "")
        if element.tag in BLOCKS:
            parts.append(" ")

    parts = []
    walk(element)
    return clean("".join(parts))


def heading(section):
    return " ".join(map(text_of, section.findall("title"))).lower()


def first(element, *names):
    """The first element of one of these names, or the element itself."""
    return next((found for name in names for found in element.iter(name)), element)


def licence(meta):
    """The licence if it is an open one, else None. An article may name several, for itself and for its data: the strictest counts."""
    parts = [part for name in ("permissions", "license", "copyright-statement") for part in meta.iter(name)]
    words = collection.clean(" ".join("".join(part.itertext()) for part in parts)).lower()
    links = [value for part in parts for element in part.iter() for value in element.attrib.values() if "creativecommons" in value]
    links = " ".join(links + re.findall(r"https?://creativecommons\.org/\S+", words)).lower()
    if "-nc" in links or re.search(r"non-?\s?commercial", words) or "/by-nd" in links or re.search(r"no derivative|noderiv", words):
        return None
    if "/by-sa" in links:
        return "CC BY-SA"
    if "/by/" in links or re.search(r"creative commons attribution (\d\.\d )?(international )?(\d\.\d )?(public )?licen[sc]e"
                                    r"|creative commons public attribution|cc[ -]by(?! ?-?n)", words):
        return "CC BY"
    if "publicdomain/zero" in links or "licenses/publicdomain" in links or "cc0" in words:
        return "CC0"
    return "public domain" if "public domain" in words else None


# Abstracts beside the one that is meant.
SHORT_ABSTRACTS = {"toc", "teaser", "web-summary", "short", "precis", "synopsis"}
OTHER_ABSTRACTS = SHORT_ABSTRACTS | set("""graphical executive-summary editor editors-summary summary plain-language-summary key-points
author-highlights highlights""".split())
# Sections and paragraphs of an abstract that say nothing of its subject.
ASIDE_SECTION = re.compile(r"trial regist|clinical ?trials?\.gov|registration|keywords|funding|abbreviat|isrctn|citation")
ASIDE = re.compile(r"(trial regist|clinical ?trials?\.gov|isrctn|current controlled)", re.I)
CONCLUDING_SECTION = re.compile(r"conclusion|interpretation|significance|implication")
# A section's name as the first words of a paragraph.
SECTION_NAME = re.compile(
    r"((?:background|aims?|objectives?|purpose|introduction|methods?|design|setting|patients|results|findings|conclusions?|discussion|context"
    r"|interpretation|methods and results|materials and methods|patients and methods|background and (?:aims|purpose|objectives?)"
    r"|methodology/principal findings|conclusions?/significance)(?: and [a-z]+)?)\s*[:.\u2014-]\s+(?=[A-Z])", re.I)


def abstract(meta):
    """The abstract without names of sections, and its concluding section, "" if it has none."""
    def walk(element):
        nonlocal conclusion
        if all(element.find(name) is None for name in ("sec", "p", "list")):
            parts.append(text_of(element))
        for child in element:
            if child.tag == "sec" and not ASIDE_SECTION.search(heading(child)):
                before = len(parts)
                walk(child)
                if CONCLUDING_SECTION.search(heading(child)):
                    conclusion = " ".join(filter(None, parts[before:]))
            elif child.tag in ("p", "list") and not ASIDE.match(text := text_of(child)):
                if name := SECTION_NAME.match(text):
                    text = text[name.end():]
                    if re.match("conclu|interpr", name.group(1), re.I):
                        conclusion = text
                parts.append(text)

    parts, conclusion = [], ""
    for element in meta.findall("abstract"):
        if element.get("abstract-type") not in OTHER_ABSTRACTS:
            walk(element)
            break
    return " ".join(filter(None, parts)), conclusion


# Corrections, letters and the like.
NO_RESEARCH = set("correction retraction editorial letter reply book-review news obituary addendum expression-of-concern".split())
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def articles(repositories, sources):
    """Each open article's id, title, abstract and licence as a document, with its XML and the abstract's conclusion."""
    seen = set()
    for source in sources:
        for path, content in files(repositories, source.repository, source.commit, source.paths):
            root = parse(content)
            if root is None or not source.chosen and root.get("article-type") in NO_RESEARCH:
                continue
            meta = first(root, "article-meta")
            ids = {element.get("pub-id-type"): (element.text or "").strip() for element in meta.findall("article-id")}
            central, doi = (ids.get("pmc") or ids.get("pmcid") or "").replace("PMC", ""), ids.get("doi", "").lower()
            name = f"PMC{central}" if central else doi or pathlib.PurePath(path).name
            if source.chosen:
                name = pathlib.PurePath(path).stem
            if name in seen or doi in seen:
                continue
            seen.update({name, doi} - {""})
            terms = licence(meta)
            if not terms or not source.chosen and (root.get(LANGUAGE) or "en")[:2].lower() != "en":
                continue
            title = next(meta.iter("article-title"), None)
            title = text_of(title).rstrip(".") if title is not None else ""
            text, conclusion = abstract(first(root, "article-meta", "front-stub"))
            if not title or len(text.split()) < 40:
                continue
            # Some abstracts are in another language than the article is said to be. Papers on COVID-19 are what others measure on, as TREC-COVID.
            english = len(re.findall(r"\b(the|of|and|in)\b", text)) >= 4
            if not source.chosen and (not english or re.search(r"covid|sars-cov-2|2019-ncov", (title + text).lower())):
                continue
            yield {"id": name, "title": title, "abstract": " ".join(text.split()[:700]), "licence": terms}, root, conclusion


# --- Claims of an article, each kind by its own function


# Sentences on what the article is, not on what it found.
ABOUT_ARTICLE = re.compile(r"Editors.? Summary|Replication Study|[Tt]his (article|review|study|paper)")
# In short abstracts, which may have two sentences, those on its authors too; "This study" may begin the second one.
ABOUT_AUTHORS = re.compile(r"Editors.? Summary|Replication Study|this (article|review|study|paper)|colleagues|\bauthors?\b|PLoS Medicine|[Pp]lease see"
                           r"|discuss(es)?\b|argues?\b|\bwe\b|\bour\b")


def statements(root):
    meta = first(root, "article-meta")
    for element in meta.findall("abstract"):
        text = text_of(element)
        if element.get("abstract-type") in SHORT_ABSTRACTS and 8 <= len(text.split()) <= 60 and not ABOUT_AUTHORS.search(text):
            yield text
    for element in meta.iter("custom-meta"):
        name, value = element.find("meta-name"), element.find("meta-value")
        if name is not None and value is not None and "impact statement" in text_of(name).lower():
            text = text_of(value)
            if len(text.split()) > 6 and not ABOUT_ARTICLE.search(text):
                yield text


CONCLUSION = re.compile(r"(?:in (?:conclusion|summary)|to (?:conclude|summari[sz]e)|taken together|we conclude that|conclusions?)\b", re.I)
CONCLUSIONS = re.compile(r"(\d+\.?\s*)?(conclu|summary and conclu|summary$|interpretation)")


def words(text):
    return set(re.findall(r"[a-z]{4,}", text))


def body_claims(root, document):
    """Conclusions in the body, three at most, that are about what the abstract is about and do not stand there word for word."""
    text, found = document["abstract"].lower(), {}
    known = words(f"{text} {document['title'].lower()}")
    for claim in filter(None, map(bare_claim, conclusions(root))):
        low = claim.lower()
        shared = len(words(low) & known)
        if low[:-1] not in text and shared >= 3 and shared >= 0.35 * len(words(low)):
            found.setdefault(low, claim)
        if len(found) == 3:
            break
    return found.values()


def conclusions(root):
    """The first three sentences of each paragraph of a concluding section, and elsewhere what says that it concludes."""
    for body in root.findall("body"):
        # A body without sections is one itself, unless it is a letter's: that has conclusions about much else.
        for section in list(body.iter("sec")) or ([] if root.get("article-type") in NO_RESEARCH else [body]):
            concluding = CONCLUSIONS.match(heading(section))
            for paragraph in section.findall("p"):
                for place, sentence in enumerate(sentences(text_of(paragraph))):
                    if concluding and place < 3 or CONCLUSION.match(sentence):
                        yield sentence


def abstract_claim(text, conclusion):
    """The abstract's conclusion and what is left of the abstract, or None."""
    if not conclusion or not text.endswith(conclusion) or len(text) - len(conclusion) <= 400:
        return None
    claim = next(filter(None, map(bare_claim, sentences(conclusion)[:2])), None)
    return claim and (claim, text[: -len(conclusion)].strip())


def last_claim(text):
    """The same for an abstract in one piece: its last sentence, and the others."""
    parts = sentences(text)
    claim = bare_claim(parts[-1]) if len(parts) >= 5 and text.endswith(parts[-1]) else None
    return claim and (claim, text[: -len(parts[-1])].strip())


# What the verb of a title is that is a sentence,
VERB = re.compile(
    r"\w+ (?:\w+ly |not |also )?(?:is|are|does|do|can|may|has|have|increases?|reduces?|decreases?|improves?|enhances?|inhibits?|induces?|promotes?"
    r"|prevents?|regulates?|mediates?|modulates?|controls?|affects?|alters?|causes?|reveals?|identif(?:y|ies)|confers?|contributes?|activates?"
    r"|suppress(?:es)?|triggers?|drives?|determines?|requires?|protects?|attenuates?|impairs?|lowers?|raises?|enables?|facilitates?|stimulates?"
    r"|ameliorates?|predicts?|correlates?|interacts?|binds?|encodes?|leads?|results?|shows?|exhibits?|influences?|maintains?|limits?|blocks?|restores?"
    r"|accelerates?|delays?|produces?|provides?|exerts?|acts?|plays?|undergo(?:es)?|differs?|remains?|shapes?|underlies?)\b(?! of\b)")
# and three signs that it is none: the first words of a subject or a question, a last word that is a noun or lacks its object, and, inside, a noun
# or an infinitive that looks like a verb.
NO_SENTENCE = re.compile(
    r"\?|^(effects?|influence|role|impact|association|study|studies|evaluation|comparison|analysis|assessment|efficacy|a |an |how|what|why|does|do|is|can"
    r"|are|the (effects?|role|impact|influence))\b"
    r"|\b(that|which|to|who|whether|study|trial|protocol|review|results?|shows?|controls?|affect|predict|increase|decrease|delay|block|limits?|acts?"
    r"|leads?|plays?|shapes?|drives?)$"
    r"|\b(to|with|of|for|in|and|by|non|case|healthy|versus|vs|placebo|quality|weight|pest|weed|disease|glycemic|blood|postural|birth|motor|self)[ -]"
    r"(control|controls|affect|predict|increase|improve|reduce|prevent|enhance|promote|induce|maintain|lower|limit|identify|provide|produce|delay|shape"
    r"|drive|act|play|show|regulate|determine|protect|reveal|results?|alter|block|inhibit|can|may|treat)\b", re.I)


def title_claim(title):
    """A title that is a sentence, or the part of it that is: what stands before a colon, or after it if that is long."""
    parts = title.split(": ")
    part = parts[-1] if len(parts[-1].split()) > 6 else parts[0]
    if not 6 <= len(part.split()) <= 32 or not VERB.search(part) or NO_SENTENCE.search(part):
        return None
    return capital(clean(part)).rstrip(".") + "."


# --- Claims out of Evidence Inference's annotations

# Of its second version and of its pilot. The files of the first version, and the one with both, are not read.
ANNOTATIONS = [r"^annotations/v2_annotations\.csv$", r"^annotations/additional_files/annotations_pilot_run\.csv$"]
INCREASED = [
    "{I} significantly increases {o} compared with {c}.", "{O} is significantly higher with {i} than with {c}.",
    "{O} is greater in patients given {i} than in those given {c}.", "{I} increases {o}.", "Compared with {c}, {i} leads to higher {o}.",
    "{I} raises {o} relative to {c}.", "{O} increases after {i}.", "{I} is associated with higher {o} than {c}.",
    "Use of {i} instead of {c} results in increased {o}.", "{C} leads to lower {o} than {i}.",
]
DECREASED = [
    "{I} significantly reduces {o} compared with {c}.", "{O} is significantly lower with {i} than with {c}.",
    "{O} is lower in patients given {i} than in those given {c}.", "{I} lowers {o}.", "Compared with {c}, {i} leads to lower {o}.",
    "{I} decreases {o} relative to {c}.", "{O} decreases after {i}.", "{I} is associated with lower {o} than {c}.",
    "Use of {i} instead of {c} results in reduced {o}.", "{C} leads to higher {o} than {i}.",
]
SAME = [
    "There is no significant difference in {o} between {i} and {c}.", "{I} does not change {o} compared with {c}.",
    "{O} is similar with {i} and with {c}.", "{I} has no significant effect on {o}.", "{I} and {c} lead to comparable {o}.",
    "{O} does not differ significantly between {i} and {c}.", "Compared with {c}, {i} does not significantly affect {o}.",
    "{I} is no better than {c} with respect to {o}.", "No difference between {i} and {c} was found for {o}.",
]
TEMPLATES = {"1": INCREASED, "-1": DECREASED, "0": SAME}


def draw(*key):
    """A number that depends on the key alone, so that no prompt changes what another one becomes."""
    return int(hashlib.sha256("|".join(map(str, (20, *key))).encode()).hexdigest()[:12], 16)


# First words that keep their capital.
NAMES = re.compile(
    r"Parkinson|Alzheimer|Chinese|Asian|Hamilton|Beck|Montreal|Berg|Barthel|Plasmodium|Mediterranean|Likert|Apgar|Lokomat|English|French|German|American"
    r"|Kaplan|Bishop|Pittsburgh|Oswestry|Cochrane|Crohn|Epworth|Roland|Visual Analog")


def phrase(text, prompt):
    """A field of a prompt as words inside a sentence: without sizes of groups and units, most without the abbreviation in brackets."""
    text = clean(text).split("//")[0]
    text = re.sub(r"\s*[(\[][^()\[\]]*\bn ?= ?\d+[^()\[\]]*[)\]]", "", text, flags=re.I)
    text = re.sub(r"^(received|receiving|were given|was given|treated with|treatment with)\s+", "", text, flags=re.I)
    text = re.sub(r"\s*[,(]\s*(ng|mg|g|kg|pg|\u03bcg|ug|mmol|umol|\u03bcmol|nmol|pmol|IU|U|L|mL|ml|mm|cm|beats|kcal|%)\s*(/|per)?\s*[\w\u00b2^]*\s*\)?$",
                  "", text)
    if draw("abbr", prompt) % 5 < 3:
        text = re.sub(r"\s*[(\[][A-Z][A-Za-z0-9/+-]{0,9}[)\]]", "", text)
    text = clean(text.strip(" .;,:")).strip(" .;,:")
    text = re.sub(r"^(the|a|an) ", "", text, flags=re.I)
    # A word with capitals inside is an abbreviation.
    return text[0].lower() + text[1:] if re.match(r"[A-Z][a-z]+(?=[\s,/-]|$)", text) and not NAMES.match(text) else text


def sentence_for(label, prompt, outcome, intervention, comparator):
    choices = TEMPLATES[label]
    # "Reduction in pain" increases and decreases badly.
    if re.match(r"(change|reduction|increase|decrease|improvement|decline|loss|gain|rise|fall)s?\b", outcome):
        choices = [t for t in choices if not re.search(r"\{[IO]\} (significantly )?(increases|reduces|lowers|raises|decreases)", t)]
    if len(intervention.split()) > 6:
        choices = [t for t in choices if "patients given" not in t]
    template = choices[draw(prompt) % len(choices)]
    # Plurals, as far as the first noun tells. (Nouns in -ss, -us and -is are none.)
    noun = re.split(r"\s(?:of|in|at|for|after|during|with|to|on|from|between|within|per|by)\s|[(,:]", outcome)[0].strip()
    if re.search(r"(?<![sui])s$|\band\b", noun):
        template = template.replace("{O} is ", "{O} are ").replace("{O} does", "{O} do")
        template = re.sub(r"(\{O\} (?:in|de)crease)s", r"\1", template)
    if re.search(r" (and|plus) ", intervention) or re.search(r"[^sui]s$", intervention.split(" of ")[0].split(" with ")[0]):
        template = template.replace("{I} is ", "{I} are ").replace("{I} has ", "{I} have ").replace(", {i} leads", ", {i} lead")
        template = re.sub(r"(\{[Ii]\} do)es", r"\1", template)
        template = re.sub(r"(\{I\} (?:significantly )?(?:increase|reduce|raise|lower|decrease))s", r"\1", template)
    return template.format(o=outcome, i=intervention, c=comparator, O=capital(outcome), I=capital(intervention), C=capital(comparator))


def template_claims(repositories):
    """Sentences for Evidence Inference's prompts on which most annotators agree, by article."""
    def read(*paths):
        return [content.decode("utf-8-sig") for _, content in files(repositories, *EVIDENCE, paths)]

    def rows(*paths):
        return itertools.chain.from_iterable(csv.DictReader(io.StringIO(text)) for text in read(*paths))

    csv.field_size_limit(10**9)
    # Prompts that its authors list as wrong.
    wrong = set(re.findall(r"\d+", read(r"^annotations/README\.md$")[0].partition("### Incorrect:")[2]))
    votes, seen = collections.defaultdict(collections.Counter), set()
    for row in rows(*ANNOTATIONS):
        # An annotation may be in both files.
        annotation = row["PromptID"], row["UserID"], row["Annotations"]
        if row["Valid Label"] in ("True", "1") and annotation not in seen:
            seen.add(annotation)
            votes[row["PromptID"]][row["Label Code"].strip()] += 1
    prompts = {row["PromptID"]: row for row in rows(r"^annotations/prompts_merged\.csv$")}
    claims = collections.defaultdict(list)
    for prompt, row in sorted(prompts.items(), key=lambda item: int(item[0])):
        best = votes[prompt].most_common(2)
        if prompt in wrong or not best or best[0][0] not in TEMPLATES or len(best) > 1 and best[0][1] == best[1][1]:
            continue
        parts = [phrase(row[name], prompt) for name in ("Outcome", "Intervention", "Comparator")]
        if all(parts) and sum(len(part.split()) for part in parts) <= 45:
            claims[f"PMC{row['PMCID']}"].append(sentence_for(best[0][0], prompt, *parts))
    return claims


# --- Everything


def key(text):
    return re.sub(r"[^a-z0-9]", "", text.lower())


def keys(title, text):
    """What an article is known by: its title, and how its abstract begins."""
    return {key(title), key(text[:80])} - {""}


def known_documents(folders):
    known = set()
    for folder in folders:
        for row in collection.read_jsonl(folder / "corpus.jsonl"):
            known |= keys(row["title"], row["text"])
    return known


def claims_of(document, root, conclusion, templates):
    """An article's claims with their kinds, each claim once."""
    text = document["abstract"]
    found = [("template", claim, None) for claim in templates]
    found += [("statement", claim, None) for claim in statements(root)]
    found += [("body", claim, None) for claim in body_claims(root, document)]
    if concluding := abstract_claim(text, conclusion):
        found.append(("abs", *concluding))
    elif last := last_claim(text):
        found.append(("last", *last))
    if title := title_claim(document["title"]):
        found.append(("title", title, None))
    once = {}
    for kind, claim, rest in found:
        once.setdefault(claim.lower(), {"doc": document["id"], "kind": kind, "claim": claim} | ({"abstract_rest": rest} if rest else {}))
    return list(once.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repositories", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--without", type=pathlib.Path, action="append", default=[], metavar="SET", help="folder of a set with corpus.jsonl")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="TRAIN")
    args = parser.parse_args()
    known, templates = known_documents(args.without), template_claims(args.repositories)
    documents, claims = [], []
    for document, root, conclusion in articles(args.repositories, SOURCES):
        if keys(document["title"], document["abstract"]) & known:
            continue
        documents.append(document)
        claims += claims_of(document, root, conclusion, templates[document["id"]])
    write_jsonl(args.out / "claims/docs.jsonl", documents)
    write_jsonl(args.out / "claims/claims.jsonl", claims)
    print("claims", dict(sorted(collections.Counter(claim["kind"] for claim in claims).items())))


if __name__ == "__main__":
    main()
