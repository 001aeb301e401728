//! Golden token ids of every template, as the authors' way of tokenising gives them.

mod common;

use common::testdata;
use jointly::files::ModelFiles;
use jointly::text::{ChatTemplate, TemplateKind, TextEncoder};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    template: String,
    tokenizer: String,
    query: String,
    document: String,
    instruction: Option<String>,
    input_ids: Vec<u32>,
    token_type_ids: Option<Vec<u8>>,
}

#[test]
fn ids_are_those_of_the_authors() {
    let goldens: Vec<Golden> =
        serde_json::from_slice(&std::fs::read(testdata().join("templates.json")).unwrap()).unwrap();
    assert!(goldens.len() > 60);
    for golden in goldens {
        let files = ModelFiles::open(&testdata().join(&golden.tokenizer)).unwrap();
        let template = match golden.template.as_str() {
            "pair" => TemplateKind::Pair,
            "qwen3-reranker" => TemplateKind::Chat(ChatTemplate::qwen3_reranker()),
            "mxbai-rerank-v2" => TemplateKind::Chat(ChatTemplate::mxbai_v2()),
            "zerank" => TemplateKind::Chat(ChatTemplate::zerank()),
            other => panic!("{other}"),
        };
        let name =
            format!("{} {:?} {:?} {:?}", golden.template, golden.query, golden.document, golden.instruction);
        let text = TextEncoder::load(&files, template, 4096).unwrap();
        let query = text.encode_query(&golden.query, golden.instruction.as_deref()).unwrap();
        let pair = text.encode_pair(&query, &golden.document, 4096).unwrap();
        assert_eq!(pair.input_ids, golden.input_ids, "{name}");
        if let Some(types) = golden.token_type_ids {
            assert_eq!(pair.token_type_ids, types, "{name}");
        }
        assert!(!pair.truncated(), "{name}");
    }
}
