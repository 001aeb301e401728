mod report;

use std::path::PathBuf;
use std::process;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jointly::Precision;
use jointly_train::data::{Groups, Source};
use jointly_train::folder::{Trainable, WeightFormat};
use jointly_train::loss::{LOSSES, Loss};
use jointly_train::optimizer::{AdamW, Schedule};
use jointly_train::trainer::{Dev, Ending, Event, Options, Trainer};

use crate::Global;
use crate::error::Result;
use crate::output::Output;
use crate::{interrupt, model};

/// Fine-tune a cross-encoder on graded documents
#[derive(Args)]
#[command(after_help = after_help())]
pub struct Train {
    /// What to begin with: the folder of a cross-encoder, or of an encoder, which gets a new head
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Training data; with =TIMES, how often it comes in an epoch (0.5: half of it). May be given again
    #[arg(long, value_name = "FILE[=TIMES]", required = true)]
    data: Vec<Source>,
    /// The folder of the run: its models, its log, and what it goes on from
    #[arg(long, short, value_name = "RUN")]
    output: PathBuf,
    /// A judged pool (*.groups.jsonl) that says which model is best, by NDCG@10
    #[arg(long, value_name = "POOL")]
    dev: Option<PathBuf>,
    /// What is minimised: a loss, or a sum such as kl+0.5*bce
    #[arg(long, value_name = "LOSS", default_value = "bce")]
    loss: Loss,
    /// What labels are multiplied by: with kl, a larger one looks more at the first documents
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = finite)]
    label_scale: f32,
    /// Passes over the data
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = positive, conflicts_with = "steps")]
    epochs: f64,
    /// Updates of the weights, in place of --epochs
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Queries of one update
    #[arg(long, value_name = "N", default_value_t = 8)]
    queries: usize,
    /// Documents of a query, at most: its best one, and others at random
    #[arg(long, value_name = "N", default_value_t = 8)]
    documents: usize,
    /// Learning rate at its peak
    #[arg(long, value_name = "X", default_value_t = 5e-5, value_parser = positive)]
    lr: f64,
    /// How many times that for a new head
    #[arg(long, value_name = "X", default_value_t = 5.0, value_parser = positive)]
    head_lr: f64,
    /// Share of the updates in which the learning rate rises
    #[arg(long, value_name = "X", default_value_t = 0.05, value_parser = share)]
    warmup: f64,
    /// How it falls
    #[arg(long, value_enum, default_value_t = Falls::Linear)]
    schedule: Falls,
    /// What a matrix loses in each update, times the learning rate
    #[arg(long, value_name = "X", default_value_t = 0.01, value_parser = at_least_0)]
    weight_decay: f32,
    /// Longest gradient: longer ones are scaled down
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = positive)]
    clip: f64,
    /// Leave the tensors alone whose names begin so, such as bert.embeddings. May be given again
    #[arg(long, value_name = "NAME")]
    freeze: Vec<String>,
    /// Longest pair in tokens; longer documents are cut
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_length: usize,
    /// What products are computed in; bf16 is faster where the processor has it
    #[arg(long, value_parser = precision(), default_value = "f32")]
    precision: Precision,
    /// Updates between two measurements of --dev [default: a tenth of all]
    #[arg(long, value_name = "N", requires = "dev")]
    dev_every: Option<usize>,
    /// Stop after so many measurements without a better one; 0: never
    #[arg(long, value_name = "N", default_value_t = 0, requires = "dev")]
    patience: usize,
    /// Minutes between two checkpoints
    #[arg(long, value_name = "X", default_value_t = 4.0, value_parser = positive)]
    save_minutes: f64,
    /// Number format of the weights that are written
    #[arg(long, value_enum, default_value_t = Format::F16)]
    weights: Format,
    /// Decides the new head, the order of the data and which documents are read
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Tokens whose activations one thread keeps
    #[arg(long, value_name = "N", default_value_t = 1024)]
    shard_tokens: usize,
    /// Gradients that are summed apart: part of what decides the last bits, so that --threads is not
    #[arg(long, value_name = "N", default_value_t = 2)]
    lanes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Falls {
    Constant,
    Linear,
    Cosine,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    F16,
    F32,
}

fn after_help() -> String {
    let losses: Vec<String> =
        LOSSES.iter().map(|loss| format!("  {:<12} {}", loss.name, loss.summary)).collect();
    format!(
        "\
Losses:
{}
FILE is JSON lines, plain, .gz or .zst: {{\"query\": …, \"documents\": [{{\"text\": …, \"label\": 1.7, \"target\": 0.83}}, …]}}.
label is on an open scale; target is a probability, and is label where it is missing. A document with neither is not read.
RUN/final is the model after the last update, RUN/best the one that --dev likes most; RUN/log.jsonl has a line for each update,
RUN/report.html the curves.
The same command goes on where a run was interrupted, and ends with the same bits.",
        losses.join("\n")
    )
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err("it must be above 0".to_string()) }
}

fn finite(text: &str) -> std::result::Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_string())?;
    if value.is_finite() { Ok(value) } else { Err("it must be finite".to_string()) }
}

fn at_least_0(text: &str) -> std::result::Result<f32, String> {
    let value = finite(text)?;
    if value >= 0.0 { Ok(value) } else { Err("it must be at least 0".to_string()) }
}

fn share(text: &str) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("it must be from 0 to 1".to_string()) }
}

fn precision() -> impl TypedValueParser<Value = Precision> {
    let names = [Precision::F32, Precision::Bf16].map(Precision::name);
    PossibleValuesParser::new(names).map(|name| if name == "bf16" { Precision::Bf16 } else { Precision::F32 })
}

impl Train {
    pub fn run(self, global: Global) -> Result<()> {
        let stop = interrupt::orderly();
        let model = Trainable::open(&self.model, self.max_length, self.seed)?;
        let data = Groups::read(&self.data, &self.loss, self.label_scale)?;
        let dev = self.dev.as_ref().map(|path| Dev::read(path, self.max_length)).transpose()?;
        let steps =
            self.steps.unwrap_or(
                (self.epochs * data.epoch_len() / self.queries.max(1) as f64).ceil().max(1.0) as usize,
            );
        let options = Options {
            loss: self.loss.clone(),
            steps,
            queries: self.queries,
            documents: self.documents,
            rate: self.lr,
            fresh_rate: self.head_lr,
            warmup: (self.warmup * steps as f64).round() as usize,
            schedule: match self.schedule {
                Falls::Constant => Schedule::Constant,
                Falls::Linear => Schedule::Linear,
                Falls::Cosine => Schedule::Cosine,
            },
            adam: AdamW { weight_decay: self.weight_decay, ..AdamW::default() },
            clip: self.clip,
            freeze: self.freeze.clone(),
            precision: self.precision,
            shard_tokens: self.shard_tokens,
            lanes: self.lanes,
            threads: model::threads(global),
            seed: self.seed,
            dev_every: self.dev_every.unwrap_or(steps.div_ceil(10)),
            patience: self.patience,
            save_seconds: (60.0 * self.save_minutes) as u64,
        };
        let mut trainer = Trainer::new(model, &data, dev.as_ref(), options, &self.output)?;
        let begun = trainer.state().step;
        if !global.quiet {
            let fresh: Vec<&str> =
                trainer.model().parameters.iter().filter(|p| p.fresh).map(|p| p.name.as_str()).collect();
            if begun > 0 {
                crate::output::say(format_args!("goes on after update {begun} of {steps}"));
            } else if !fresh.is_empty() {
                crate::output::say(format_args!("new, with random values: {}", fresh.join(", ")));
            }
            crate::output::say(format_args!(
                "{} queries, {} an update, {steps} updates",
                data.len(),
                self.queries
            ));
        }
        let template = "{bar:24} {pos}/{len} {msg}, {eta} left";
        let bar = model::bar(Some(steps as u64), template, global);
        bar.set_position(begun as u64);
        bar.reset_eta();
        let mut mean = None;
        let mut pairs_done = 0;
        let mut dev_text = String::new();
        let format = match self.weights {
            Format::F16 => WeightFormat::F16,
            Format::F32 => WeightFormat::F32,
        };
        let ending = trainer.run(format, stop, &mut |event| match event {
            Event::Step { step, loss, pairs, seconds, .. } => {
                pairs_done += pairs;
                let mean = mean.get_or_insert(*loss);
                *mean += 0.03 * (loss - *mean);
                bar.set_position(*step as u64);
                let speed = pairs_done as f64 / seconds;
                bar.set_message(format!("loss {mean:.4}{dev_text}, {speed:.0} pairs/s"));
            }
            Event::Dev { step, ndcg, best } => {
                dev_text = format!(", dev NDCG@10 {ndcg:.4}");
                let best = if *best { ", the best so far" } else { "" };
                bar.println(format!("after {step} updates: dev NDCG@10 {ndcg:.4}{best}"));
            }
            _ => {}
        })?;
        drop(bar);
        report::write(&self.output, &self.settings(steps))?;
        let run = self.output.display();
        if ending == Ending::Interrupted {
            crate::output::say(format_args!(
                "stopped after update {}; the same command goes on from {run}/checkpoint",
                trainer.state().step
            ));
            process::exit(interrupt::STATUS);
        }
        let mut output = Output::new();
        output.line(format_args!("{run}/final: after {} updates", trainer.state().step))?;
        if let Some((step, ndcg)) = trainer.state().best {
            output.line(format_args!("{run}/best: dev NDCG@10 {ndcg:.4} after {step} updates"))?;
        }
        output.line(format_args!("{run}/report.html: the curves"))?;
        output.flush()
    }

    /// What the report says of the run.
    fn settings(&self, steps: usize) -> Vec<(&'static str, String)> {
        let data: Vec<String> =
            self.data.iter().map(|source| format!("{} x {}", source.path.display(), source.times)).collect();
        vec![
            ("begins with", self.model.display().to_string()),
            ("data", data.join(", ")),
            ("dev", self.dev.as_ref().map_or_else(|| "none".into(), |path| path.display().to_string())),
            ("loss", self.loss.to_string()),
            ("labels times", self.label_scale.to_string()),
            ("updates", steps.to_string()),
            ("queries of an update", self.queries.to_string()),
            ("documents of a query", self.documents.to_string()),
            ("learning rate", format!("{}, of a new head {} times that", self.lr, self.head_lr)),
            ("warm-up", format!("{} of the updates", self.warmup)),
            ("weight decay", self.weight_decay.to_string()),
            ("longest gradient", self.clip.to_string()),
            ("frozen", self.freeze.join(", ")),
            ("longest pair, tokens", self.max_length.to_string()),
            ("precision", self.precision.to_string()),
            ("seed", self.seed.to_string()),
        ]
    }
}
