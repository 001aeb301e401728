//! The word sense evaluation of Raganato et al. (2017), `ALL.data.xml` and `ALL.gold.key.txt`: polysemy.
//!
//! A noun that the annotators gave two senses, each in two sentences at least, makes one contrast item: the queries are
//! one sentence of each sense, the documents another sentence of each. A query wants the sentence that uses the word in
//! the same sense. The sentences of a query and its document are the first and the last of their sense in the file, which
//! mostly lie in different articles, so that the article's subject alone does not tell. Occurrences with more than one
//! sense are left out. It is similarity of use, not question answering: expect low figures for every ranker.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::{Contrast, Items};
use crate::error::{Fault, Result};
use crate::format::Lines;

struct Occurrence {
    id: String,
    noun: String,
    sentence: usize,
}

pub(super) fn read(folder: &Path) -> Result<Items> {
    let senses = senses(&folder.join("ALL.gold.key.txt"))?;
    let (sentences, occurrences) = nouns(&folder.join("ALL.data.xml"))?;
    // noun -> sense -> sentences, in the order of the file
    let mut nouns: BTreeMap<&str, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
    for occurrence in &occurrences {
        if let Some(sense) = senses.get(&occurrence.id) {
            let of_sense = nouns.entry(&occurrence.noun).or_default().entry(sense).or_default();
            if of_sense.last() != Some(&occurrence.sentence) {
                of_sense.push(occurrence.sentence);
            }
        }
    }
    let mut contrasts = Vec::new();
    for (noun, senses) in nouns {
        let mut ends = senses.values().filter_map(|of_sense| match of_sense.as_slice() {
            [first, .., last] => Some((*first, *last)),
            _ => None,
        });
        let (Some(one), Some(two)) = (ends.next(), ends.next()) else { continue };
        if [two.0, two.1].iter().any(|sentence| [one.0, one.1].contains(sentence)) {
            continue;
        }
        let text = |sentence: usize| sentences[sentence].clone();
        contrasts.push(Contrast {
            id: noun.to_string(),
            domain: String::new(),
            queries: [text(one.0), text(two.0)],
            documents: [text(one.1), text(two.1)],
        });
    }
    Ok(Items::Contrasts(contrasts))
}

/// The sense of each occurrence that has one only.
fn senses(path: &Path) -> Result<HashMap<String, String>> {
    let mut lines = Lines::open(path)?;
    let mut senses = HashMap::new();
    lines.each(|_, line| {
        let mut columns = line.split_ascii_whitespace();
        match (columns.next(), columns.next(), columns.next()) {
            (Some(id), Some(sense), None) => senses.insert(id.to_string(), sense.to_string()),
            (Some(_), Some(_), Some(_)) => None,
            _ => return Err(Fault::Columns { found: 1, expected: "occurrence, sense ..." }),
        };
        Ok(())
    })?;
    if senses.is_empty() { Err(lines.empty("sense")) } else { Ok(senses) }
}

/// The sentences, and the nouns in them. The file has one element a line, and only that is read: it is no XML reader.
fn nouns(path: &Path) -> Result<(Vec<String>, Vec<Occurrence>)> {
    let mut lines = Lines::open(path)?;
    let mut sentences: Vec<String> = Vec::new();
    let mut occurrences = Vec::new();
    lines.each(|_, line| {
        let line = line.trim();
        if line.starts_with("<sentence") {
            sentences.push(String::new());
        }
        let is_instance = line.starts_with("<instance ");
        if !is_instance && !line.starts_with("<wf ") {
            return Ok(());
        }
        let fault = || Fault::BadField { field: "line", expected: "one whole element inside a sentence" };
        let (start, rest) = line.split_once('>').ok_or_else(fault)?;
        let (word, _) = rest.split_once("</").ok_or_else(fault)?;
        let sentence = sentences.last_mut().ok_or_else(fault)?;
        if !sentence.is_empty() {
            sentence.push(' ');
        }
        sentence.push_str(&unescape(word));
        if is_instance && attribute(start, "pos").ok_or_else(fault)? == "NOUN" {
            let of = |name| attribute(start, name).map(str::to_string).ok_or_else(fault);
            occurrences.push(Occurrence { id: of("id")?, noun: of("lemma")?, sentence: sentences.len() - 1 });
        }
        Ok(())
    })?;
    if occurrences.is_empty() { Err(lines.empty("noun")) } else { Ok((sentences, occurrences)) }
}

fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = element.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// `&amp;` last, or `&amp;lt;` would become `<`.
fn unescape(text: &str) -> String {
    text.replace("&apos;", "'")
        .replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::folder;
    use super::*;

    fn sentence(number: usize, words: &str) -> String {
        format!(
            "<sentence id=\"s{number}\">\n<wf lemma=\"x\" pos=\"DET\">{words}</wf>\n\
             <instance id=\"i{number}\" lemma=\"bank\" pos=\"NOUN\">bank</instance>\n</sentence>\n"
        )
    }

    #[test]
    fn one_item_a_noun() {
        let data: String = ["Tom&apos;s", "river", "money", "shady"]
            .iter()
            .enumerate()
            .map(|(i, w)| sentence(i, w))
            .collect();
        let files = folder(&[("ALL.data.xml", &data), ("ALL.gold.key.txt", "i0 A\ni1 B\ni2 A\ni3 B\n")]);
        let Items::Contrasts(items) = read(files.path()).unwrap() else { panic!() };
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].queries, ["Tom's bank", "river bank"]);
        assert_eq!(items[0].documents, ["money bank", "shady bank"]);
    }

    #[test]
    fn faults_name_file_and_line() {
        for (data, key, expected) in [
            ("<wf x>a</wf>", "i A", "ALL.data.xml:1: the field `line` is not one whole element"),
            ("<sentence>\n<instance id=\"i\">a</instance>", "i A", "ALL.data.xml:2: "),
            ("", "i A", "ALL.data.xml: no noun in it"),
            ("", "i A\ni", "ALL.gold.key.txt:2: 1 columns"),
            ("", "i A B", "ALL.gold.key.txt: no sense in it"),
        ] {
            let files = folder(&[("ALL.data.xml", data), ("ALL.gold.key.txt", key)]);
            let error = read(files.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        }
    }
}
