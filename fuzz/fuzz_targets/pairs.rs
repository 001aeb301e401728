//! The line readers of `jointly score` (pairs) and `jointly rerank` (documents). The first byte chooses the reader and
//! its options; the rest is the file.
#![no_main]

use std::io::Cursor;

use jointly_cli::documents::{self, Document};
use jointly_cli::input::Lines;
use jointly_cli::pairs::{Form, Pairs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((options, text)) = data.split_first() else { return };
    let lines = || Lines::new("case".into(), Box::new(Cursor::new(text.to_vec())));
    let count = text.split(|byte| *byte == b'\n').count();
    if options & 1 == 0 {
        let form = [None, Some(Form::Jsonl), Some(Form::Tsv)][usize::from(options >> 2) % 3];
        pairs(|| Pairs::new(lines(), form, options & 2 != 0), count, text.len());
    } else {
        let jsonl = [None, Some(true), Some(false)][usize::from(options >> 2) % 3];
        let mut found: Vec<Document> = Vec::new();
        if documents::read(&mut lines(), jsonl, &mut found).is_ok() && jsonl == Some(false) {
            assert!(found.len() <= count);
            // Nothing is lost of plain lines but white space and line ends.
            let visible = |text: &str| text.split_whitespace().map(str::len).sum::<usize>();
            let all = std::str::from_utf8(text).expect("what is not UTF-8 is an error");
            let all = all.strip_prefix('\u{feff}').unwrap_or(all);
            assert_eq!(found.iter().map(|document| visible(&document.text)).sum::<usize>(), visible(all));
        }
    }
});

/// Reads pairs one by one to the end, then again in blocks after the middle one, as a resumed run does.
fn pairs(open: impl Fn() -> Pairs, lines: usize, bytes: usize) {
    let mut reader = open();
    let mut numbers = Vec::new();
    let whole = loop {
        match reader.next_pair() {
            Ok(Some((number, record))) => {
                assert!(numbers.last().is_none_or(|last| *last < number) && number <= lines as u64);
                assert!(!record.query.trim().is_empty());
                numbers.push(number);
            }
            Ok(None) => {
                assert_eq!(reader.lines().bytes(), bytes as u64);
                break true;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break false;
            }
        }
    };
    let (skipped, first) = reader.skipped();
    assert_eq!(skipped > 0, first.is_some());
    assert!(numbers.len() as u64 + skipped <= lines as u64);

    if numbers.is_empty() {
        return;
    }
    let (middle, mut resumed) = (numbers.len() / 2, open());
    resumed.pass_over(numbers[middle], middle as u64 + 1).expect("these lines were read before");
    let mut rest = Vec::new();
    loop {
        let (block, stop) = resumed.block(3);
        rest.extend(block.iter().map(|(number, _)| *number));
        if stop.is_some() || block.is_empty() {
            assert_eq!(stop.is_none(), whole);
            break;
        }
    }
    assert_eq!(rest, numbers[middle + 1..]);
    assert_eq!(resumed.skipped().0, skipped);
}
