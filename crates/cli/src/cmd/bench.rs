mod flops;
mod workload;

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use jointly::{CrossEncoder, DeviceChoice, LoadOptions, Precision};
use jointly_eval::agreement::kendall_tau_b;
use jointly_kernels::Kernels;
use serde::{Deserialize, Serialize};

use self::flops::Flops;
// `plan` computes in the same way.
pub(super) use self::flops::{Shape, reads};
use self::workload::Workload;
use crate::Global;
use crate::error::{CliError, Result};
use crate::model::{self, Found};
use crate::output::{Output, printable, say, to_json};

/// How long the peak is measured, before each timing.
const PEAK_TIME: Duration = Duration::from_millis(10);
const MIB: f64 = (1 << 20) as f64;

/// Measure speed, memory and load time, with the accuracy that each precision has
#[derive(Args)]
#[command(after_help = "\
What is scored: the pairs of a file, as `score` reads it, or pairs of stated lengths made of the words of a text about hearing
aids. Every combination of precision, threads and batch is warm, and takes its turn in every round.

  ms         median over the rounds of scoring all pairs, from text (tokenising included)
  p50, p99   latency in ms of a call of `batch` pairs, over all rounds
  GFLOP/s    the products of matrices of the whole model, without padding, by the median
  computed   the same of the products that are needed: the last layer's only for the rows that the head reads
  % of peak  the time that the needed products take at the processor's peak, which is measured before each timing; int8 has
             its attention in the precision that this instruction set has for it
  MiB, load  peak memory, and milliseconds to load the model, of a process that scores all pairs once; its converted weights are
             at hand, unless --no-packed-cache is given
  max diff   largest difference of a logit to f32; tau: Kendall's tau-b of the logits with those of f32")]
pub struct Bench {
    /// Folder, bundle, hub id (org/name), or `default` for the embedded model
    #[arg(long, value_name = "MODEL", default_value = model::DEFAULT)]
    model: String,
    /// What the layers multiply in [default: f32,bf16,int8; on a device f32,bf16,f16]
    #[arg(long, value_delimiter = ',', value_parser = model::any_precision())]
    precision: Vec<Precision>,
    /// What computes: auto, cpu, cuda (the first device), cuda:N, cuda:N,M or cuda:all [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// Threads, 1 to 1024 [default: one for each core]
    // Takes the place of the global argument of this name, which is one number.
    #[arg(long, id = "threads", value_name = "N,...", value_delimiter = ',', value_parser = crate::threads(), display_order = 900)]
    threads: Vec<usize>,
    /// Pairs given to the model at once [default: all of them]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = positive())]
    batch: Vec<usize>,
    /// Score the pairs of this file: JSON lines or TSV
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tokens", "count"])]
    pairs: Option<PathBuf>,
    /// Score pairs of exactly these lengths in tokens, template and query included
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "128", value_parser = positive())]
    tokens: Vec<usize>,
    /// How many pairs of each length
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive())]
    count: usize,
    /// How often each combination is timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive())]
    rounds: usize,
    /// Longest pair in tokens, template included [default: the model's own maximum]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Use a model whose receipt does not hold
    #[arg(long)]
    no_receipt_check: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Loads with one precision and one number of threads, scores everything once, and prints a [`Once`]: what the process
    /// that compares starts, for there is no telling the memory of one model from that of others in one process.
    #[arg(long, hide = true, help = "Measure load time and memory of this process")]
    once: bool,
}

/// Some millions are a slip.
fn positive() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..=1 << 20)
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What a process of its own says of load time and memory.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Once {
    load_ms: f64,
    peak_rss_bytes: Option<u64>,
}

/// The names are part of the interface.
#[derive(Serialize)]
struct Report {
    model: String,
    architecture: &'static str,
    parameters: usize,
    isa: String,
    device: String,
    cores: usize,
    rounds: usize,
    results: Vec<Row>,
}

/// One combination; times are medians unless they say otherwise.
#[derive(Serialize)]
struct Row {
    workload: String,
    pairs: usize,
    tokens: usize,
    precision: &'static str,
    threads: usize,
    batch: usize,
    median_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    pairs_per_s: f64,
    tokens_per_s: f64,
    /// Of the whole model, and of what is computed of it.
    gflop: Option<f64>,
    gflop_computed: Option<f64>,
    gflop_per_s: Option<f64>,
    gflop_computed_per_s: Option<f64>,
    /// Of `threads` cores, in this precision.
    peak_gflop_per_s: Option<f64>,
    share_of_peak: Option<f64>,
    peak_rss_bytes: Option<u64>,
    load_ms: f64,
    largest_difference: f64,
    kendall_tau: Option<f64>,
}

/// A loaded model and what is known of it.
struct Subject {
    precision: Precision,
    threads: usize,
    model: CrossEncoder,
    once: Once,
}

/// A workload, and what it costs and gives.
struct Work {
    workload: Workload,
    tokens: usize,
    full: Option<Flops>,
    computed: Option<Flops>,
    /// The logits of f32.
    expected: Vec<f32>,
}

/// The times of one combination.
struct Timing {
    work: usize,
    subject: usize,
    batch: usize,
    /// Of the logits, in the order of the pairs.
    logits: Vec<f32>,
    /// Milliseconds of each round, and of each call.
    rounds: Vec<f64>,
    calls: Vec<f64>,
    /// Operations a second of the cores, in f32 order of [`Peak`].
    peaks: Vec<Peak>,
}

/// Operations a second of products with weights, and of those of attention.
#[derive(Clone, Copy)]
pub(super) struct Peak {
    pub weights: f64,
    pub attention: f64,
}

impl Bench {
    pub fn run(self, global: Global) -> Result<()> {
        let mut workloads = match &self.pairs {
            Some(path) => vec![Workload::read(path)?],
            None => self.tokens.iter().map(|tokens| Workload::of_length(*tokens, self.count)).collect(),
        };
        let found = model::find(&self.model, global)?;
        if self.once {
            let once = self.once(&found, &mut workloads, global)?;
            let mut output = Output::new();
            output.json(&once)?;
            return output.flush();
        }
        let reference = self.load(&found, (Precision::F32, cores()), global)?;
        let device = reference.info().device.clone();
        let on_device = !device.starts_with("cpu");
        let mut precisions = match &self.precision[..] {
            [] if on_device => vec![Precision::F32, Precision::Bf16, Precision::F16],
            [] => Precision::ALL.to_vec(),
            given => given.to_vec(),
        };
        let mut threads = if self.threads.is_empty() { vec![cores()] } else { self.threads.clone() };
        remove_repeated(&mut precisions);
        remove_repeated(&mut threads);

        let bar = model::bar(None, "{spinner} {msg}", global);
        let work = self.work(&reference, workloads, global)?;
        drop(reference); // so that a large model is not there once more than needed
        let mut subjects = Vec::new();
        for precision in precisions {
            for &threads in &threads {
                bar.set_message(format!("loading {}, {threads} threads", precision.name()));
                let once = self.measure(precision, threads, global)?;
                let model = self.load(&found, (precision, threads), global)?;
                subjects.push(Subject { precision, threads, model, once });
            }
        }
        let mut timings = self.warm(&work, &subjects)?;
        bar.finish_and_clear();
        self.time(&work, &subjects, &mut timings, (global, on_device))?;
        let rows = timings.iter().map(|timing| timing.row(&work[timing.work], &subjects[timing.subject]));
        let rows: Vec<Row> = rows.collect();
        let Some(first) = subjects.first() else { return Ok(()) };
        let info = first.model.info();
        let report = Report {
            model: info.source.clone(),
            architecture: info.architecture,
            parameters: info.parameters,
            isa: info.isa.clone(),
            device,
            cores: cores(),
            rounds: self.rounds,
            results: rows,
        };
        print(self.format, &report)
    }

    fn load(
        &self,
        found: &Found,
        (precision, threads): (Precision, usize),
        global: Global,
    ) -> Result<CrossEncoder> {
        let mut options = LoadOptions::new().check_receipt(!self.no_receipt_check).precision(precision);
        if let Some(max_length) = self.max_length {
            options = options.max_length(max_length);
        }
        if let Some(device) = &self.device {
            options = options.device(device.clone());
        }
        found.load(options, Global { threads: Some(threads), ..global })
    }

    /// What the workloads cost, and what f32 gives for them.
    fn work(&self, reference: &CrossEncoder, workloads: Vec<Workload>, global: Global) -> Result<Vec<Work>> {
        let shape = Shape::read(reference.files())?;
        let read = reads(&reference.info().head);
        let mut work = Vec::new();
        for mut workload in workloads {
            let (lengths, repeated) = workload.prepare(reference)?;
            if repeated > 0 && !global.quiet {
                say(format_args!(
                    "{}: {repeated} pairs left out; the model reads the same in others, and would compute them once",
                    workload.name
                ));
            }
            let sum = |read| {
                let mut sum = Flops::default();
                lengths.iter().for_each(|length| {
                    if let Some(shape) = &shape {
                        sum += shape.pair(*length, read);
                    }
                });
                shape.as_ref().map(|_| sum)
            };
            let (full, computed) = (sum(jointly::batch::Read::All), sum(read));
            let expected = workload.score(reference, workload.len(), |_| ())?;
            work.push(Work { tokens: lengths.iter().sum(), full, computed, expected, workload });
        }
        Ok(work)
    }

    /// Every combination once, before it is timed.
    fn warm(&self, work: &[Work], subjects: &[Subject]) -> Result<Vec<Timing>> {
        let mut timings = Vec::new();
        for (i, Work { workload, .. }) in work.iter().enumerate() {
            for (j, subject) in subjects.iter().enumerate() {
                let mut batches = match self.batch[..] {
                    [] => vec![workload.len()],
                    _ => self.batch.iter().map(|batch| (*batch).min(workload.len())).collect(),
                };
                remove_repeated(&mut batches);
                for batch in batches {
                    let logits = workload.score(&subject.model, batch, |_| ())?;
                    let (rounds, calls, peaks) = Default::default();
                    timings.push(Timing { work: i, subject: j, batch, logits, rounds, calls, peaks });
                }
            }
        }
        Ok(timings)
    }

    /// All combinations in turn, round after round: what slows the machine down slows all of them.
    fn time(
        &self,
        work: &[Work],
        subjects: &[Subject],
        timings: &mut [Timing],
        (global, on_device): (Global, bool),
    ) -> Result<()> {
        let steps = self.rounds * timings.len();
        let bar = model::bar(Some(steps as u64), "[{bar:30}] {pos}/{len} {msg}, {eta} left", global);
        let kernels = Kernels::select().map_err(jointly::Error::from)?;
        for _ in 0..self.rounds {
            for timing in timings.iter_mut() {
                let (work, subject) = (&work[timing.work], &subjects[timing.subject]);
                show(&bar, work, subject);
                if !on_device {
                    timing.peaks.extend(peak(kernels, subject.precision, subject.threads));
                }
                let before = timing.calls.len();
                let calls = &mut timing.calls;
                work.workload.score(&subject.model, timing.batch, |time| calls.push(milliseconds(time)))?;
                timing.rounds.push(timing.calls[before..].iter().sum());
                bar.inc(1);
            }
        }
        Ok(())
    }

    /// A process of this program that does one thing, and what it says.
    fn measure(&self, precision: Precision, threads: usize, global: Global) -> Result<Once> {
        let failed = |problem: String| CliError::Failed(format!("measuring load time and memory: {problem}"));
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.args(["bench", "--once", "--quiet", "--model", &self.model]);
        command.args(["--precision", precision.name(), "--threads", &threads.to_string()]);
        match &self.pairs {
            Some(path) => command.arg("--pairs").arg(path),
            None => {
                let tokens: Vec<String> = self.tokens.iter().map(ToString::to_string).collect();
                command.args(["--tokens", &tokens.join(","), "--count", &self.count.to_string()])
            }
        };
        if let Some(max_length) = self.max_length {
            command.args(["--max-length", &max_length.to_string()]);
        }
        if self.no_receipt_check {
            command.arg("--no-receipt-check");
        }
        if let Some(device) = &self.device {
            command.args(["--device", &device.to_string()]);
        }
        if global.no_packed_cache {
            command.arg("--no-packed-cache");
        }
        let output = command.output().map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_string()));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
    }

    /// What that process does.
    fn once(&self, found: &Found, workloads: &mut [Workload], global: Global) -> Result<Once> {
        let precision = self.precision.first().copied().unwrap_or(Precision::F32);
        let threads = self.threads.first().copied().unwrap_or_else(cores);
        let started = Instant::now();
        let model = self.load(found, (precision, threads), global)?;
        let load_ms = milliseconds(started.elapsed());
        for workload in workloads {
            workload.score(&model, workload.len(), |_| ())?;
        }
        Ok(Once { load_ms, peak_rss_bytes: peak_rss() })
    }
}

impl Timing {
    fn row(&self, work: &Work, subject: &Subject) -> Row {
        let pairs = work.workload.len();
        let median_ms = percentile(&self.rounds, 0.5);
        let seconds = median_ms / 1e3;
        // Each round has its own peak: the clock moves.
        let median = |of: fn(&Peak) -> f64| {
            let rates: Vec<f64> = self.peaks.iter().map(of).collect();
            (!rates.is_empty()).then(|| percentile(&rates, 0.5))
        };
        let (peak, attention_peak) = (median(|peak| peak.weights), median(|peak| peak.attention));
        let floor = match (work.computed, peak, attention_peak) {
            (Some(flops), Some(peak), Some(attention)) => {
                Some(flops.weights / peak + flops.attention / attention)
            }
            _ => None,
        };
        let giga = |flops: Option<Flops>| flops.map(|flops| flops.total() / 1e9);
        let (full, computed) = (giga(work.full), giga(work.computed));
        let both = || self.logits.iter().zip(&work.expected).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let (found, expected): (Vec<f64>, Vec<f64>) = both().unzip();
        Row {
            workload: work.workload.name.clone(),
            pairs,
            tokens: work.tokens,
            precision: subject.precision.name(),
            threads: subject.threads,
            batch: self.batch,
            median_ms,
            p50_ms: percentile(&self.calls, 0.5),
            p99_ms: percentile(&self.calls, 0.99),
            pairs_per_s: pairs as f64 / seconds,
            tokens_per_s: work.tokens as f64 / seconds,
            gflop: full,
            gflop_computed: computed,
            gflop_per_s: full.map(|work| work / seconds),
            gflop_computed_per_s: computed.map(|work| work / seconds),
            peak_gflop_per_s: peak.map(|peak| peak / 1e9),
            share_of_peak: floor.map(|floor| floor / seconds),
            peak_rss_bytes: subject.once.peak_rss_bytes,
            load_ms: subject.once.load_ms,
            largest_difference: both().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max),
            kendall_tau: kendall_tau_b(&found, &expected),
        }
    }
}

fn show(bar: &ProgressBar, work: &Work, subject: &Subject) {
    let Subject { precision, threads, .. } = subject;
    let name = printable(&work.workload.name);
    bar.set_message(format!("{name}, {}, {threads} threads", precision.name()));
}

/// The peak of as many cores as threads can have, all of them busy. `None` for the reference kernels.
pub(super) fn peak(kernels: &'static Kernels, precision: Precision, threads: usize) -> Option<Peak> {
    // As the library chooses: attention has no weights for int8, and is f32 where bf16 is not faster.
    let attention = match precision {
        Precision::Bf16 | Precision::Int8 if kernels.isa.is_fast_at(Precision::Bf16) => Precision::Bf16,
        _ => Precision::F32,
    };
    let of = |precision: Precision| -> Option<f64> {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..threads.min(cores()))
                .map(|_| scope.spawn(move || kernels.peak(precision, PEAK_TIME)))
                .collect();
            // A thread that panicked has no peak.
            threads.into_iter().map(|thread| thread.join().ok().flatten()).sum()
        })
    };
    let weights = of(precision)?;
    let attention = if attention == precision { weights } else { of(attention)? };
    Some(Peak { weights, attention })
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The nearest rank; of an even number of values the lower one of the middle. 0 if there are none.
fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Each value once, where it stands first.
fn remove_repeated<T: PartialEq + Copy>(values: &mut Vec<T>) {
    let mut seen = Vec::new();
    values.retain(|value| {
        let is_new = !seen.contains(value);
        seen.push(*value);
        is_new
    });
}

/// The most memory that this process has had, as far as the system says it.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// As a table, or as one object.
fn print(format: Format, report: &Report) -> Result<()> {
    let mut output = Output::new();
    if let Format::Json = format {
        output.line(to_json(report)?)?;
        return output.flush();
    }
    output.line(format_args!(
        "{}, {}, {} parameters, {}, {} cores, device {}, median of {} rounds",
        printable(&report.model),
        report.architecture,
        report.parameters,
        report.isa,
        report.cores,
        report.device,
        report.rounds
    ))?;
    let optional = |value: Option<f64>, digits: usize| {
        value.map_or("-".to_string(), |value| format!("{value:.digits$}"))
    };
    let mut workload = "";
    let heads = [
        "precision",
        "threads",
        "batch",
        "ms",
        "p50",
        "p99",
        "pairs/s",
        "tokens/s",
        "GFLOP/s",
        "computed",
        "% of peak",
        "MiB",
        "load",
        "max diff",
        "tau",
    ];
    for row in &report.results {
        if workload != row.workload {
            workload = &row.workload;
            let work = match (row.gflop, row.gflop_computed) {
                (Some(full), Some(computed)) => format!(", {full:.1} GFLOP, {computed:.1} of them computed"),
                _ => String::new(),
            };
            output.line(format_args!(
                "\n{}: {} pairs, {} tokens{work}",
                printable(workload),
                row.pairs,
                row.tokens
            ))?;
            output.line(columns(&heads.map(str::to_string)))?;
        }
        output.line(columns(&[
            row.precision.to_string(),
            row.threads.to_string(),
            row.batch.to_string(),
            format!("{:.1}", row.median_ms),
            format!("{:.1}", row.p50_ms),
            format!("{:.1}", row.p99_ms),
            format!("{:.1}", row.pairs_per_s),
            format!("{:.0}", row.tokens_per_s),
            optional(row.gflop_per_s, 0),
            optional(row.gflop_computed_per_s, 0),
            optional(row.share_of_peak.map(|share| share * 100.0), 0),
            optional(row.peak_rss_bytes.map(|bytes| bytes as f64 / MIB), 0),
            format!("{:.0}", row.load_ms),
            format!("{:.2e}", row.largest_difference),
            optional(row.kendall_tau, 4),
        ]))?;
    }
    output.flush()
}

/// The first to the left, the others to the right.
fn columns(cells: &[String; 15]) -> String {
    const WIDTHS: [usize; 15] = [9, 8, 6, 9, 8, 8, 8, 9, 8, 9, 10, 6, 6, 10, 7];
    let cells = cells.iter().zip(WIDTHS).enumerate();
    cells.fold(String::new(), |line, (index, (cell, width))| match index {
        0 => format!("{cell:<width$}"),
        _ => format!("{line}{cell:>width$}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(
            [0.0, 0.25, 0.5, 0.75, 0.99, 1.0].map(|p| percentile(&values, p)),
            [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
        );
        assert_eq!(percentile(&[], 0.5), 0.0);
        let mut values = vec![2, 1, 2, 3, 1];
        remove_repeated(&mut values);
        assert_eq!(values, [2, 1, 3]);
    }

    #[test]
    fn this_process_has_memory() {
        if cfg!(target_os = "linux") {
            assert!(peak_rss().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
