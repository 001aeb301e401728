use clap::Args;
use jointly::receipt::ReceiptState;
use jointly::{CrossEncoder, LoadOptions};
use serde::Serialize;

use crate::Global;
use crate::error::Result;
use crate::model;
use crate::output::{Output, printable};

/// Say what a model is: architecture, head, template, sizes, licence, receipt
#[derive(Args)]
pub struct Inspect {
    /// Folder, bundle, hub id, or `default`
    #[arg(default_value = model::DEFAULT)]
    model: String,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// The names are part of the interface.
#[derive(Serialize)]
struct Description {
    source: String,
    architecture: &'static str,
    head: String,
    template: String,
    score: String,
    scale: String,
    hidden_size: usize,
    layers: usize,
    vocab_size: usize,
    parameters: usize,
    dtype: Option<&'static str>,
    max_length: usize,
    licence: Option<String>,
    receipt: String,
    isa: String,
    threads: usize,
}

impl Inspect {
    pub fn run(self, global: Global) -> Result<()> {
        let found = model::find(&self.model, global)?;
        let model = found.load(LoadOptions::new().check_receipt(false), global)?;
        let receipt = match model.info().receipt {
            ReceiptState::Absent => "none".to_string(),
            // A receipt that does not hold is something to report, not a reason to say nothing.
            _ => match check(&model) {
                Ok(()) => "holds".to_string(),
                Err(error) => format!("does not hold: {error}"),
            },
        };
        print(self.format, &describe(&model, receipt))
    }
}

/// Checks the scores, as loading does; hashes are for `verify`.
fn check(model: &CrossEncoder) -> jointly::Result<()> {
    match jointly::receipt::Receipt::read(model.files())? {
        Some(receipt) => receipt.check_scores(model).map(|_| ()),
        None => Ok(()),
    }
}

fn describe(model: &CrossEncoder, receipt: String) -> Description {
    let info = model.info().clone();
    Description {
        source: info.source,
        architecture: info.architecture,
        head: info.head,
        template: info.template,
        score: info.score_map.describe(),
        scale: format!("{:?}", info.score_scale).to_lowercase(),
        hidden_size: info.hidden_size,
        layers: info.layers,
        vocab_size: info.vocab_size,
        parameters: info.parameters,
        dtype: info.dtype,
        max_length: info.max_length,
        licence: info.licence,
        receipt,
        isa: info.isa,
        threads: info.threads,
    }
}

/// As aligned lines, or as one object.
fn print(format: Format, model: &Description) -> Result<()> {
    let mut output = Output::new();
    if let Format::Json = format {
        output.json(model)?;
        return output.flush();
    }
    for (name, value) in [
        ("source", model.source.clone()),
        ("architecture", model.architecture.to_string()),
        ("head", model.head.clone()),
        ("template", model.template.clone()),
        ("score", format!("{}{}", model.score, if model.scale == "probability" { ", 0 to 1" } else { "" })),
        ("layers", model.layers.to_string()),
        ("hidden size", model.hidden_size.to_string()),
        ("vocabulary", model.vocab_size.to_string()),
        ("parameters", grouped(model.parameters)),
        ("dtype", model.dtype.unwrap_or("mixed").to_string()),
        ("max length", format!("{} tokens", model.max_length)),
        ("licence", model.licence.clone().unwrap_or_else(|| "not stated".to_string())),
        ("receipt", model.receipt.clone()),
        ("runs on", format!("{}, {} threads", model.isa, model.threads)),
    ] {
        output.line(format_args!("{name:<14}{}", printable(&value)))?;
    }
    output.flush()
}

/// Thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
