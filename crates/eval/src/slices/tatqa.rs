//! TAT-QA (Zhu et al., 2021), `tatqa_dataset_dev.json`: numbers and entities.
//!
//! The questions that are answered from the text alone, over the paragraphs of their own report: the annotators named
//! the paragraphs that hold the answer, and the others of the same page are what is easily taken for it. Questions that
//! need the table are left out: a table is not a document here.

use std::path::Path;

use serde::Deserialize;

use super::{Items, candidate, read};
use crate::error::Result;
use crate::format::groups::Group;

#[derive(Deserialize)]
struct Page {
    paragraphs: Vec<Paragraph>,
    questions: Vec<Question>,
}

#[derive(Deserialize)]
struct Paragraph {
    uid: String,
    order: u32,
    text: String,
}

#[derive(Deserialize)]
struct Question {
    uid: String,
    question: String,
    answer_from: String,
    /// Their places on the page, as texts.
    rel_paragraphs: Vec<String>,
}

pub(super) fn read(folder: &Path) -> Result<Items> {
    let pages: Vec<Page> = read::json(&folder.join("tatqa_dataset_dev.json"))?;
    let mut pools = Vec::new();
    for page in pages {
        for question in page.questions.into_iter().filter(|question| question.answer_from == "text") {
            let is_relevant = |p: &Paragraph| question.rel_paragraphs.contains(&p.order.to_string());
            let relevant = page.paragraphs.iter().filter(|p| is_relevant(p)).count();
            if 0 < relevant && relevant < page.paragraphs.len() {
                let documents =
                    page.paragraphs.iter().map(|p| candidate(&p.uid, &p.text, is_relevant(p))).collect();
                pools.push(Group { query_id: question.uid, query: question.question, documents });
            }
        }
    }
    Ok(Items::Pools(pools))
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::folder;
    use super::*;

    #[test]
    fn questions_about_the_text() {
        let question = |uid: &str, from: &str, paragraph: &str| {
            format!(
                r#"{{"uid": "{uid}", "question": "?", "answer_from": "{from}", "rel_paragraphs": ["{paragraph}"]}}"#
            )
        };
        let text = format!(
            r#"[{{"paragraphs": [{{"uid": "a", "order": 1, "text": "x"}}, {{"uid": "b", "order": 2, "text": "y"}}], "questions": [{}, {}]}}]"#,
            question("q", "text", "2"),
            question("r", "table-text", "2"),
        );
        let Items::Pools(pools) = read(folder(&[("tatqa_dataset_dev.json", &text)]).path()).unwrap() else {
            panic!()
        };
        assert_eq!(pools.len(), 1);
        assert_eq!(pools[0].documents.iter().map(|d| d.label).collect::<Vec<_>>(), [Some(0), Some(1)]);
    }
}
