//! Fine-tuning: steps over groups of documents, checkpoints, and a dev set that says when to stop.
//!
//! A step's groups are packed into shards, and shards are dealt to lanes. Each lane has its own tape and gradients, which are summed
//! in order: the result depends on the number of lanes, not on the threads that run them, and a run that is killed
//! and resumed ends with the bits of one that was not.

mod checkpoint;
mod dev;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use jointly::batch::Batch;
use jointly::text::EncodedPair;
use jointly_kernels::{Kernels, Precision};
use serde::{Deserialize, Serialize};

pub use self::dev::Dev;
use crate::data::Groups;
use crate::error::{Error, Result};
use crate::folder::{Trainable, WeightFormat};
use crate::loss::{Loss, Wanted};
use crate::optimizer::{AdamW, Moments, Schedule};
use crate::parameters::Gradients;
use crate::random::Random;
use crate::tape::{Pool, Tape};

/// How to train.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is minimised.
    pub loss: Loss,
    /// Updates of the parameters.
    pub steps: usize,
    /// Queries in each.
    pub queries: usize,
    /// Documents of each query, at most.
    pub documents: usize,
    /// The learning rate at its peak.
    pub rate: f64,
    /// How many times that for a head that began with random values.
    pub fresh_rate: f64,
    /// Steps until the peak.
    pub warmup: usize,
    /// How the rate falls.
    pub schedule: Schedule,
    /// The optimizer.
    pub adam: AdamW,
    /// Gradients are scaled down to this norm.
    pub clip: f64,
    /// Parameters whose names begin with one of these stay as they are.
    pub freeze: Vec<String>,
    /// What products are computed in; sums, norms, softmax, losses and the optimizer are f32 or better.
    pub precision: Precision,
    /// Tokens that a tape holds at most, if no group alone has more.
    pub shard_tokens: usize,
    /// Gradients that are summed apart. Part of what decides the last bits of the result.
    pub lanes: usize,
    /// Threads that run them.
    pub threads: usize,
    /// Decides the head's first values, the order of the data, and which documents are chosen.
    pub seed: u64,
    /// Steps between two measurements on the dev set; 0 for none but the last.
    pub dev_every: usize,
    /// Stop after so many measurements without a better one; 0 for never.
    pub patience: usize,
    /// Seconds between checkpoints.
    pub save_seconds: u64,
}

/// What happens, for those who watch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step was taken.
    Step {
        /// Counted from 1.
        step: usize,
        /// Mean over its queries.
        loss: f64,
        /// Of the gradient, before clipping.
        norm: f64,
        /// Of this step.
        rate: f64,
        /// Trained on in this step.
        pairs: usize,
        /// Of those.
        tokens: usize,
        /// Since the beginning of this process.
        seconds: f64,
    },
    /// The dev set was measured.
    Dev {
        /// After this step.
        step: usize,
        /// NDCG@10.
        ndcg: f64,
        /// Whether it is the best so far.
        best: bool,
    },
    /// The state was saved.
    Saved {
        /// After this step.
        step: usize,
    },
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps taken.
    pub step: usize,
    /// The best measurement and its step.
    pub best: Option<(usize, f64)>,
    /// Measurements since.
    pub stale: usize,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All steps were taken.
    Done,
    /// The dev set got no better.
    Early,
    /// Somebody asked for it; the checkpoint goes on from here.
    Interrupted,
}

/// A run of training in a folder: `checkpoint/` is what it goes on from, `best/` and `final/` are models, `log.jsonl` says what happened.
/// `lock` is held for as long as this lives.
pub struct Trainer<'a> {
    model: Trainable,
    data: &'a Groups,
    dev: Option<&'a Dev>,
    options: Options,
    kernels: &'static Kernels,
    folder: PathBuf,
    moments: Moments,
    state: State,
    lanes: Vec<Lane>,
    /// What decides the result; a checkpoint of another run is refused.
    identity: serde_json::Value,
    /// Open, so that no other process writes into the folder.
    _lock: File,
}

#[derive(Default)]
struct Lane {
    gradients: Option<Gradients>,
    pool: Pool,
    loss: f64,
}

/// One query's pairs.
struct Example {
    pairs: Vec<EncodedPair>,
    wanted: Wanted,
}

impl Example {
    fn tokens(&self) -> usize {
        self.pairs.iter().map(|pair| pair.input_ids.len()).sum()
    }
}

impl<'a> Trainer<'a> {
    /// A run in `folder`: from its checkpoint if there is one, else from the beginning.
    ///
    /// # Errors
    /// [`Error::Option`]; [`Error::Checkpoint`] if the folder holds a run with other options, data or model; [`Error::Locked`] while
    /// another trainer has it.
    pub fn new(
        mut model: Trainable,
        data: &'a Groups,
        dev: Option<&'a Dev>,
        options: Options,
        folder: &Path,
    ) -> Result<Self> {
        let positive = [
            ("steps", options.steps),
            ("queries", options.queries),
            ("documents", options.documents),
            ("lanes", options.lanes),
        ];
        if let Some((option, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::Option { option, problem: "must be at least 1".into() });
        }
        if options.precision == Precision::Int8 {
            return Err(Error::Option { option: "precision", problem: "training is in f32 or bf16".into() });
        }
        for parameter in model.parameters.iter_mut() {
            let name = parameter.name.as_str();
            parameter.frozen = options.freeze.iter().any(|start| name.starts_with(start.as_str()));
        }
        for start in &options.freeze {
            if !model.parameters.iter().any(|parameter| parameter.name.starts_with(start.as_str())) {
                let problem = format!("no parameter's name begins with {start:?}");
                return Err(Error::Option { option: "freeze", problem });
            }
        }
        let moments = Moments::new(&model.parameters);
        let lanes = (0..options.lanes).map(|_| Lane::default()).collect();
        let state = State { step: 0, best: None, stale: 0 };
        let identity = checkpoint::identity(&options, data, &model, dev);
        let kernels = Kernels::select()?;
        let folder = folder.to_path_buf();
        let held = lock(&folder)?;
        let mut trainer =
            Self { model, data, dev, options, kernels, folder, moments, state, lanes, identity, _lock: held };
        trainer.resume()?;
        Ok(trainer)
    }

    /// Where the run stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The model as it is.
    #[must_use]
    pub fn model(&self) -> &Trainable {
        &self.model
    }

    /// Trains to the end, or until `stop`. The models are written to the folder in `format`. A run that was at its end already is left
    /// as it is, with what a user has put beside its model.
    ///
    /// # Errors
    /// [`Error::Diverged`], [`Error::Io`], and what measuring the dev set may say.
    pub fn run(
        &mut self,
        format: WeightFormat,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(&Event),
    ) -> Result<Ending> {
        let begun = Instant::now();
        let mut saved = Instant::now();
        let mut epochs = Epochs::at(self.data, self.options.seed, self.state.step * self.options.queries);
        let begun_at = self.state.step;
        let Options { patience, steps, .. } = self.options;
        let is_early = |state: &State| patience > 0 && state.stale >= patience && state.step < steps;
        let mut ending = if is_early(&self.state) { Ending::Early } else { Ending::Done };
        while ending == Ending::Done && self.state.step < steps {
            let (mut event, loss) = self.step(&mut epochs)?;
            if !loss.is_finite() {
                let path = self.folder.join("checkpoint");
                return Err(Error::Diverged { step: self.state.step + 1, loss, path });
            }
            self.state.step += 1;
            if let Event::Step { seconds, .. } = &mut event {
                *seconds = begun.elapsed().as_secs_f64();
            }
            self.tell(&event, watch)?;
            let step = self.state.step;
            let last = step == steps;
            let every = self.options.dev_every;
            if self.dev.is_some() && (last || (every > 0 && step.is_multiple_of(every))) {
                self.measure(format, watch)?;
                if is_early(&self.state) {
                    ending = Ending::Early;
                    break;
                }
            }
            if stop.load(Ordering::Relaxed) && !last {
                ending = Ending::Interrupted;
                break;
            }
            if saved.elapsed().as_secs() >= self.options.save_seconds {
                self.save(watch)?;
                saved = Instant::now();
            }
        }
        let trained = self.folder.join("final");
        if self.state.step > begun_at {
            self.save(watch)?;
        } else if Trainable::is_saved(&trained, format) {
            return Ok(ending);
        }
        if ending != Ending::Interrupted {
            self.model.save(&trained, format)?;
        }
        Ok(ending)
    }

    /// The logits of pairs, by the forward pass of training.
    #[must_use]
    pub fn logits(&mut self, pairs: &[EncodedPair]) -> Vec<f32> {
        self.model.parameters.pack(self.kernels, self.options.precision, self.options.threads);
        let mut tape =
            Tape::new(self.kernels, self.options.precision, &self.model.parameters, Pool::default());
        let logits = self.model.network.forward(&mut tape, &Batch::pack(pairs));
        tape.value(logits).data.to_vec()
    }

    /// One step; the state's number of steps is left as it was.
    fn step(&mut self, epochs: &mut Epochs<'_>) -> Result<(Event, f64)> {
        let (step, options) = (self.state.step, &self.options);
        let threads = options.threads.max(1);
        let groups: Vec<usize> = (0..options.queries).map(|_| epochs.next()).collect();
        let examples = self.encode(&groups)?;
        let tokens = examples.iter().map(Example::tokens).sum();
        let pairs = examples.iter().map(|example| example.pairs.len()).sum();
        let lanes = deal(&examples, options.shard_tokens, options.lanes);

        self.model.parameters.pack(self.kernels, options.precision, threads);
        let next = AtomicUsize::new(0);
        let slots: Vec<Mutex<&mut Lane>> = self.lanes.iter_mut().map(Mutex::new).collect();
        let (model, kernels) = (&self.model, self.kernels);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(lanes.len()) {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(slot) = slots.get(number) else { break };
                        let lane = &mut *slot.lock().unwrap_or_else(PoisonError::into_inner);
                        lane.run(model, kernels, options, &lanes[number], (&examples, groups.len()));
                    }
                });
            }
        });

        let mut parts = self.lanes.iter_mut();
        let mut loss = 0.0;
        let mut sum: Option<&mut Gradients> = None;
        for lane in &mut parts {
            loss += lane.loss;
            if let Some(gradients) = &mut lane.gradients {
                match &mut sum {
                    None => sum = Some(gradients),
                    Some(sum) => sum.add(self.kernels, gradients),
                }
            }
        }
        let Some(gradients) = sum else { return Ok((self.event(loss, 0.0, 0.0, pairs, tokens), loss)) };
        let norm = gradients.norm();
        if norm > options.clip {
            gradients.scale(self.kernels, (options.clip / norm) as f32);
        }
        let rate = options.rate * options.schedule.at(step, options.warmup, options.steps);
        if loss.is_finite() && norm.is_finite() {
            options.adam.step(
                &mut self.model.parameters,
                gradients,
                &mut self.moments,
                (step + 1, rate, options.fresh_rate),
                threads,
            );
        }
        let loss = if norm.is_finite() { loss } else { f64::NAN };
        Ok((self.event(loss, norm, rate, pairs, tokens), loss))
    }

    fn event(&self, loss: f64, norm: f64, rate: f64, pairs: usize, tokens: usize) -> Event {
        Event::Step { step: self.state.step + 1, loss, norm, rate, pairs, tokens, seconds: 0.0 }
    }

    /// The pairs of a step's groups.
    fn encode(&self, groups: &[usize]) -> Result<Vec<Example>> {
        let encode = |slot: usize| -> Result<Example> {
            let place = [self.state.step.to_string(), slot.to_string()];
            let mut random = Random::keyed(self.options.seed, ["step", &place[0], &place[1]]);
            let chosen = self.data.choose(groups[slot], self.options.documents, &mut random);
            let text = &self.model.text;
            let query = text.encode_query(chosen.query, None)?;
            let encode = |document: &&str| text.encode_pair(&query, document, text.max_length());
            let pairs = chosen.documents.iter().map(encode).collect::<jointly::Result<_>>()?;
            Ok(Example { pairs, wanted: chosen.wanted })
        };
        let each = groups.len().div_ceil(self.options.threads.max(1));
        let slots: Vec<usize> = (0..groups.len()).collect();
        let encode = &encode;
        std::thread::scope(|scope| {
            let parts: Vec<_> = slots
                .chunks(each)
                .map(|slots| scope.spawn(move || slots.iter().map(|&slot| encode(slot)).collect::<Vec<_>>()))
                .collect();
            parts
                .into_iter()
                .flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }

    /// Measures the dev set with the inference engine, on the model as it would be saved.
    fn measure(&mut self, format: WeightFormat, watch: &mut dyn FnMut(&Event)) -> Result<()> {
        let Some(dev) = self.dev else { return Ok(()) };
        let folder = self.folder.join("measured");
        self.model.save(&folder, format)?;
        let ndcg = dev.ndcg(&folder, self.options.threads, self.options.precision)?;
        let step = self.state.step;
        let best = self.state.best.is_none_or(|(_, best)| ndcg > best);
        if best {
            crate::folder::replace(&folder, &self.folder.join("best"))?;
            self.state.best = Some((step, ndcg));
            self.state.stale = 0;
        } else {
            self.state.stale += 1;
        }
        self.tell(&Event::Dev { step, ndcg, best }, watch)
    }
}

/// Makes the folder of a run, and keeps others out of it for as long as the file is open.
fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::io(&path))?;
    match crate::lock::try_lock(&file).map_err(Error::io(&path))? {
        true => Ok(file),
        false => Err(Error::Locked { path: folder.to_path_buf() }),
    }
}

impl Lane {
    /// Shards, one after another.
    fn run(
        &mut self,
        model: &Trainable,
        kernels: &'static Kernels,
        options: &Options,
        shards: &[Vec<usize>],
        (examples, count): (&[Example], usize),
    ) {
        self.loss = 0.0;
        let gradients = self.gradients.get_or_insert_with(|| model.parameters.gradients());
        gradients.clear();
        for shard in shards {
            let examples: Vec<&Example> = shard.iter().map(|&index| &examples[index]).collect();
            let batch = Batch::pack(examples.iter().flat_map(|example| &example.pairs));
            let pool = std::mem::take(&mut self.pool);
            let mut tape = Tape::new(kernels, options.precision, &model.parameters, pool);
            let output = model.network.forward(&mut tape, &batch);
            let mut slopes = Vec::with_capacity(batch.cu_seqlens.len());
            let mut logits = &tape.value(output).data[..];
            for example in examples {
                let (own, rest) = logits.split_at(example.pairs.len());
                logits = rest;
                let (loss, slope) = options.loss.compute(own, &example.wanted);
                self.loss += loss / count as f64;
                slopes.extend(slope.iter().map(|slope| slope / count as f32));
            }
            tape.backward(output, &slopes, gradients);
            self.pool = tape.into_pool();
        }
    }
}

/// Deals examples to lanes: shards of at most `most` tokens, longest first to the lane with the least.
fn deal(examples: &[Example], most: usize, lanes: usize) -> Vec<Vec<Vec<usize>>> {
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(examples[index].tokens()));
    let mut dealt: Vec<(usize, Vec<Vec<usize>>)> = vec![(0, Vec::new()); lanes];
    for index in order {
        let tokens = examples[index].tokens();
        let Some((sum, shards)) = dealt.iter_mut().min_by_key(|(sum, _)| *sum) else { continue };
        *sum += tokens;
        let of = |shard: &Vec<usize>| shard.iter().map(|&index| examples[index].tokens()).sum::<usize>();
        match shards.last_mut() {
            Some(shard) if of(shard) + tokens <= most => shard.push(index),
            _ => shards.push(vec![index]),
        }
    }
    dealt.into_iter().map(|(_, shards)| shards).collect()
}

/// The groups of all epochs, one after another.
struct Epochs<'a> {
    data: &'a Groups,
    seed: u64,
    epoch: usize,
    order: std::vec::IntoIter<usize>,
}

impl<'a> Epochs<'a> {
    /// After `taken` groups.
    fn at(data: &'a Groups, seed: u64, mut taken: usize) -> Self {
        for epoch in 0.. {
            let mut order = data.epoch(seed, epoch);
            if taken < order.len() {
                let order = order.split_off(taken).into_iter();
                return Self { data, seed, epoch, order };
            }
            taken -= order.len();
        }
        unreachable!("the loop has no end")
    }

    fn next(&mut self) -> usize {
        loop {
            if let Some(group) = self.order.next() {
                return group;
            }
            self.epoch += 1;
            self.order = self.data.epoch(self.seed, self.epoch).into_iter();
        }
    }
}
