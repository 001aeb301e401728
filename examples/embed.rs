//! The vectors of texts, for comparing with other programs: `embed MODEL < texts.jsonl > vectors.jsonl`. Each line of the
//! input is a JSON string, each line of the output a JSON list of numbers.

use std::error::Error;
use std::io::{self, BufWriter, Write};

use jointly::{BiEncoder, LoadOptions, Role};

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args_os().nth(1).ok_or("usage: embed MODEL < texts.jsonl > vectors.jsonl")?;
    let model = BiEncoder::load(model, LoadOptions::new())?;
    let mut texts = Vec::new();
    for (number, line) in (1..).zip(io::stdin().lines()) {
        let text: String = serde_json::from_str(&line?).map_err(|error| format!("line {number}: {error}"))?;
        texts.push(text);
    }
    let vectors = model.embed(&texts, Role::Document)?;
    let mut output = BufWriter::new(io::stdout().lock());
    for row in 0..vectors.rows {
        serde_json::to_writer(&mut output, vectors.row(row))?;
        output.write_all(b"\n")?;
    }
    output.flush()?;
    Ok(())
}
