//! `tokenizer.json` and the texts. A case has the files `tokenizer.json` (hostile; without it, that of the fixture in
//! the file `fixture`), `template`, `query` and `document`.
//!
//! The `tokenizers` crate panics on some malformed files, and our code catches that and makes it an error. libFuzzer's
//! harness ends the program in the panic hook, before anything can be caught; so here the hook only takes notes, and a
//! panic counts if it leaves our library.
#![no_main]

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use jointly::WindowOptions;
use jointly::files::{Bytes, ModelFiles};
use jointly::text::{ChatTemplate, TemplateKind, TextEncoder, Tokenizer};
use jointly_fuzz::{case, fixture};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

const FILE: &str = "tokenizer.json";
const MAX_LENGTH: usize = 256;

/// The panic that was begun last, and where.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    case::mutate(data, size, max_size, seed)
});

fuzz_target!(
    init: std::panic::set_hook(Box::new(|panic| {
        let inside = std::env::var_os("RUST_BACKTRACE").map(|_| Backtrace::force_capture());
        *LAST_PANIC.lock().expect("nothing panics while it is held") =
            format!("{panic}\n{}", inside.map(|inside| inside.to_string()).unwrap_or_default());
    })),
    |data: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| run(data))).is_err() {
            eprintln!("a panic left the library: {}", LAST_PANIC.lock().expect("nothing panics while it is held"));
            std::process::abort();
        }
    }
);

fn run(data: &[u8]) {
    let files = case::files(data);
    let content = |name: &str| files.get(name).copied().unwrap_or_default();
    let fixture = fixture::named(content("fixture"));
    let (is_whole, tokenizer) = match files.get(FILE) {
        Some(bytes) => (false, *bytes),
        None => (true, &fixture[FILE][..]),
    };
    let query = String::from_utf8_lossy(content("query"));
    let document = String::from_utf8_lossy(content("document"));

    let written = ["<|im_start|>user\n", "[SEP]", "</s>"];
    let Ok(plain) = Tokenizer::from_bytes(tokenizer, FILE, &written) else { return };
    for text in [&*query, &*document] {
        let Ok(ids) = plain.encode(text, "text") else { continue };
        assert!(ids.iter().all(|id| !plain.control_ids().contains(id)), "text became a control token");
        let Ok(tokens) = plain.encode_with_offsets(text, "text") else { continue };
        assert_eq!(tokens.ids.len(), tokens.offsets.len());
        for limit in [0, 3, 20] {
            let Ok(start) = plain.encode_start(text, limit, "text") else { continue };
            // Which cuts are harmless is known of the shapes that are published; a hostile file may differ.
            if is_whole {
                assert_eq!(tokens.ids, ids);
                assert!(
                    ids.starts_with(&start) && (start.len() == ids.len() || start.len() > limit),
                    "cut at {limit}"
                );
                let end = text.chars().count();
                assert!(tokens.offsets.iter().all(|(from, to)| from <= to && *to <= end));
            }
        }
    }

    let template = match content("template").first().map_or(0, |byte| byte % 4) {
        0 => TemplateKind::Pair,
        1 => TemplateKind::Chat(ChatTemplate::qwen3_reranker()),
        2 => TemplateKind::Chat(ChatTemplate::zerank()),
        _ => TemplateKind::Chat(ChatTemplate::mxbai_v2()),
    };
    let files = BTreeMap::from([(FILE.to_string(), Bytes::Owned(Arc::new(tokenizer.to_vec())))]);
    let files = ModelFiles::Memory { name: "case".into(), files: Arc::new(files) };
    let Ok(encoder) = TextEncoder::load(&files, template, MAX_LENGTH) else { return };
    for max_length in [1, 24, 100, MAX_LENGTH] {
        let Ok(encoded) = encoder.encode_query_within(&query, None, max_length) else { continue };
        if let Ok(pair) = encoder.encode_pair(&encoded, &document, max_length) {
            assert!(pair.input_ids.len() <= max_length, "{} > {max_length}", pair.input_ids.len());
            assert_eq!(pair.input_ids.len(), pair.token_type_ids.len());
        }
        let options = WindowOptions::new().max_windows(4);
        let Ok(windows) = encoder.encode_windows(&encoded, &document, max_length, &options) else { continue };
        assert!((1..=4).contains(&windows.len()));
        for window in windows {
            assert!(window.pair.input_ids.len() <= max_length);
            assert!(window.span.start <= window.span.end);
            if is_whole {
                assert!(window.span.end <= document.chars().count());
            }
        }
    }
}
