//! QMSum (Zhong et al., 2021), `Academic|Committee|Product/train|val.jsonl`: long documents.
//!
//! A document is a whole meeting, one turn a line, mostly of several thousand words. Two neighbours of one file make a
//! contrast item: of each, the first question about a certain part of it. Each meeting is used once, so that the items are
//! independent. That the other meeting does not answer the question was not judged by anybody; questions such as "what
//! did the marketing expert say about the budget" may be answered by both, so that a perfect score is not to be
//! expected.

use std::path::Path;

use serde::Deserialize;

use super::{Contrast, Items, read};
use crate::error::{Fault, Result};

const FILES: [(&str, &str); 5] = [
    ("Academic", "train"),
    ("Academic", "val"),
    ("Committee", "train"),
    ("Committee", "val"),
    ("Product", "val"),
];

#[derive(Deserialize)]
struct Meeting {
    specific_query_list: Vec<Question>,
    meeting_transcripts: Vec<Turn>,
}

#[derive(Deserialize)]
struct Question {
    query: String,
}

#[derive(Deserialize)]
struct Turn {
    speaker: String,
    content: String,
}

pub(super) fn read(folder: &Path) -> Result<Items> {
    let mut contrasts = Vec::new();
    for (domain, split) in FILES {
        let path = folder.join(domain).join(format!("{split}.jsonl"));
        let mut meetings = Vec::new();
        for (line, meeting) in read::records::<Meeting>(&path)? {
            let Some(question) = meeting.specific_query_list.into_iter().next() else {
                return Err(read::at(&path, line, Fault::EmptyColumn { column: "specific_query_list" }));
            };
            let turns = meeting.meeting_transcripts.iter();
            let turns: Vec<String> =
                turns.map(|turn| format!("{}: {}", turn.speaker, turn.content)).collect();
            meetings.push((line, question.query, turns.join("\n")));
        }
        for pair in meetings.chunks_exact(2) {
            let [(line, first, one), (_, second, two)] = pair else { continue };
            contrasts.push(Contrast {
                id: format!("{domain}-{split}-{line}"),
                domain: domain.to_string(),
                queries: [first.clone(), second.clone()],
                documents: [one.clone(), two.clone()],
            });
        }
    }
    Ok(Items::Contrasts(contrasts))
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::folder;
    use super::*;

    #[test]
    fn neighbours_make_an_item() {
        let meeting = |name: &str| {
            format!(
                r#"{{"specific_query_list": [{{"query": "why {name}?"}}, {{"query": "x"}}], "meeting_transcripts": [{{"speaker": "A", "content": "{name}."}}, {{"speaker": "B", "content": "no"}}]}}"#
            )
        };
        let three = [meeting("one"), meeting("two"), meeting("three")].join("\n");
        let files: Vec<(String, String)> =
            FILES.iter().map(|(domain, split)| (format!("{domain}/{split}.jsonl"), three.clone())).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let written = folder(&files);
        let Items::Contrasts(items) = read(written.path()).unwrap() else { panic!() };
        assert_eq!(items.len(), FILES.len());
        assert_eq!(items[0].queries, ["why one?", "why two?"]);
        assert_eq!(items[0].documents[1], "A: two.\nB: no");
        let empty = meeting("one").replace(r#"{"query": "why one?"}, {"query": "x"}"#, "");
        let written = folder(&[("Academic/train.jsonl", &empty)]);
        let error = read(written.path()).unwrap_err().to_string();
        assert!(error.ends_with("train.jsonl:1: the specific_query_list is empty"), "{error}");
    }
}
