//! What both kinds of model have in common: sequences of tokens to outputs of a head, on all threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jointly_cuda::Device;
use jointly_kernels::{Isa, Kernels, Precision};

use crate::affinity;
use crate::batch::{self, Batch, Plan, Prefix, Read};
use crate::error::{Error, Result};
use crate::model::head::Head;
use crate::model::{Sizes, Trunk};
use crate::nn::{Inputs, Matrix, Observation, OnDevice, Run, Team, with_buffers};
use crate::receipt;
use crate::text::EncodedPair;

/// Tokens computed together by one thread. Enough rows for the matrix kernels, few enough that the activations of a
/// small model stay in its cache.
const MAX_BATCH_TOKENS: usize = 256;
/// The same of sequences that begin alike: the beginning is computed once a batch.
const MAX_SHARED_TOKENS: usize = 512;
/// Tokens from which on two threads compute a batch together where AMX multiplies. Measured with the default model: one thread is
/// ahead at 256 tokens, two are at 384.
const LEAST_TOGETHER: usize = 320;
/// Tokens computed together by a device: so many that starting a kernel takes no time beside it.
const MAX_DEVICE_TOKENS: usize = 32_768;
/// Sequences encoded before they are computed: bounds the memory of a request of any size.
pub(crate) const MAX_PENDING: usize = 2048;
/// Texts that a thread tokenises before it takes others: some fifty microseconds of work.
const TEXTS_AT_ONCE: usize = 16;
/// Beside the receipt's, the texts that int8 is fitted to: figures, code, signs, names.
const OBSERVED: [(&str, &str); 4] = [
    (
        "what is the capital of australia",
        "Canberra (population 456,692 in 2021) is the capital; Sydney and Melbourne are larger.",
    ),
    (
        "python list index out of range",
        "for i in range(len(xs)): print(xs[i + 1])  # IndexError on the last item",
    ),
    (
        "symptoms of vitamin d deficiency",
        "Fatigue, bone pain, weak muscles; see a doctor (25-OH-D below 20 ng/mL).",
    ),
    (
        "best time to visit kyoto",
        "Cherry trees bloom in late March, maples turn red in mid-November. Hotels fill up months ahead.",
    ),
];

/// The pairs that int8 is fitted to.
pub(crate) fn texts_to_observe() -> Vec<(String, String)> {
    let mut texts = receipt::pairs_to_pin();
    texts.extend(OBSERVED.map(|(query, document)| (query.to_string(), document.to_string())));
    texts
}

/// What a model of `precision` has to know of its layers' inputs. For int8, `run` computes the texts that it is fitted to, with a
/// model built in f32 to record; on one thread, so that the records are the same every time.
pub(crate) fn observation_for(
    precision: Precision,
    run: impl FnOnce(Observation, &[(String, String)]) -> Result<()>,
) -> Result<Observation> {
    match precision {
        Precision::F32 | Precision::Bf16 | Precision::F16 => Ok(Observation::None),
        Precision::Int8 => {
            let inputs = Arc::new(Inputs::default());
            run(Observation::Record(Arc::clone(&inputs)), &texts_to_observe())?;
            Ok(Observation::Use(inputs))
        }
    }
}

/// What computes: a network, and what it runs on.
#[derive(Clone, Copy)]
pub(crate) struct Network<'a> {
    pub(crate) trunk: &'a dyn Trunk,
    pub(crate) head: &'a Head,
    pub(crate) kernels: &'static Kernels,
    pub(crate) precision: Precision,
    pub(crate) threads: usize,
    /// What computes in place of the threads; of several, the others have copies of the network.
    pub(crate) device: Option<&'a Arc<Device>>,
    pub(crate) replicas: &'a [Replica],
}

/// A copy of a network on a device of its own.
pub(crate) struct Replica {
    pub(crate) trunk: Box<dyn Trunk>,
    pub(crate) head: Head,
    pub(crate) device: Arc<Device>,
}

impl Network<'_> {
    /// The outputs of the head for each sequence, in the order given. Which thread computes a sequence or a part of it, and
    /// beside which others, changes no bit of it.
    ///
    /// # Errors
    /// Those of the device, if one computes.
    pub(crate) fn outputs(&self, sequences: &[&EncodedPair]) -> Result<Vec<f32>> {
        let lengths = sequences.iter().map(|sequence| sequence.input_ids.len());
        let prefixes = if self.shares_prefixes() {
            batch::prefixes(sequences)
        } else {
            vec![Prefix::default(); sequences.len()]
        };
        let planned: Vec<(usize, Prefix)> = lengths.zip(prefixes).collect();
        let pack = |indices: &[usize]| {
            Batch::pack_shared(indices.iter().map(|&index| (sequences[index], planned[index].1)))
        };
        let width = self.head.outputs(self.trunk.sizes().hidden);
        let outputs = Mutex::new(vec![0.0; sequences.len() * width]);
        let store = |indices: &[usize], found: Vec<f32>| {
            let mut outputs = outputs.lock().unwrap_or_else(PoisonError::into_inner);
            for (&index, values) in indices.iter().zip(found.chunks_exact(width)) {
                outputs[index * width..(index + 1) * width].copy_from_slice(values);
            }
        };
        if let Some(device) = self.device {
            let compute = |network: &Self, device: &Arc<Device>, indices: &[usize]| {
                store(indices, network.on_device(device, &pack(indices))?);
                Ok(())
            };
            self.on_devices(device, &planned, compute)?;
            return Ok(outputs.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        let most = if self.shares_prefixes() { MAX_SHARED_TOKENS } else { MAX_BATCH_TOKENS };
        // Each member of a team reads all weights, which takes longer than so fast products of few tokens.
        let is_fast = self.precision != Precision::F32 && self.kernels.isa == Isa::Amx;
        let least_together =
            if is_fast && self.threads == 2 && !self.shares_prefixes() { LEAST_TOGETHER } else { 0 };
        match batch::plan(&planned, most, least_together, self.threads) {
            Plan::Apart(batches) => {
                let next = AtomicUsize::new(0);
                on_threads(self.threads.min(batches.len()), |_| {
                    while let Some(indices) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut run = self.run();
                        store(indices, self.forward(&mut run, &pack(indices)));
                    }
                });
            }
            Plan::Together(batches) => {
                let team = Team::new(self.threads);
                on_threads(team.size(), |member| {
                    team.run(|| {
                        let mut run = Run { team: Some((&team, member)), ..self.run() };
                        for indices in &batches {
                            let found = self.forward(&mut run, &pack(indices).share(member, team.size()));
                            if member == 0 {
                                store(indices, found);
                            }
                        }
                    });
                });
            }
        }
        Ok(outputs.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether sequences that begin alike are computed with one beginning.
    pub(crate) fn shares_prefixes(&self) -> bool {
        // A head that reads more than the last token needs each sequence's own first ones.
        self.trunk.is_causal() && self.head.reads() == Read::Last
    }

    /// Runs `compute` for batches of all sequences, on all devices at once. What does not fit a device's memory is split.
    fn on_devices(
        &self,
        device: &Arc<Device>,
        planned: &[(usize, Prefix)],
        compute: impl Fn(&Self, &Arc<Device>, &[usize]) -> Result<()> + Sync,
    ) -> Result<()> {
        let copies = 1 + self.replicas.len();
        let total: usize = planned.iter().map(|(length, _)| length).sum();
        let batches = batch::plan_for_device(planned, MAX_DEVICE_TOKENS.min(total.div_ceil(copies)));
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        on_threads(copies.min(batches.len()), |number| {
            let replica = number.checked_sub(1).map(|number| &self.replicas[number]);
            let network = replica.map_or(*self, |Replica { trunk, head, device }| Network {
                trunk: &**trunk,
                head,
                device: Some(device),
                ..*self
            });
            let device = replica.map_or(device, |replica| &replica.device);
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut parts = vec![&batch[..]];
                while let Some(part) = parts.pop() {
                    match compute(&network, device, part) {
                        Ok(()) => {}
                        Err(Error::DeviceMemory { .. }) if part.len() > 1 => {
                            let (first, second) = part.split_at(part.len() / 2);
                            parts.extend([second, first]);
                        }
                        Err(error) => {
                            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            next.store(batches.len(), Ordering::Relaxed);
                            return;
                        }
                    }
                }
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The outputs for a batch, of a device.
    fn on_device(&self, device: &Arc<Device>, batch: &Batch) -> Result<Vec<f32>> {
        let _turn = device.turn();
        let outputs = self.forward(&mut self.run(), batch);
        result_of(device, outputs)
    }

    /// The last hidden states of every token of a sequence, `[T, hidden_size]`, computed by all threads together.
    ///
    /// # Errors
    /// Those of the device, if one computes.
    pub(crate) fn hidden(&self, sequence: &EncodedPair) -> Result<Matrix> {
        let batch = Batch::pack([sequence]);
        if let Some(device) = self.device {
            let _turn = device.turn();
            let hidden = self.trunk.forward(&mut self.run(), &batch, Read::All).into_host();
            return result_of(device, hidden);
        }
        let team = Team::new(self.threads);
        let found = Mutex::new(None);
        on_threads(team.size(), |member| {
            team.run(|| {
                let mut run = Run { team: Some((&team, member)), ..self.run() };
                let hidden = self.trunk.forward(&mut run, &batch.share(member, team.size()), Read::All);
                let hidden = run.gather(hidden);
                if member == 0 {
                    *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(hidden);
                }
            });
        });
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner).unwrap_or_default())
    }

    /// A forward pass on one thread, or of one batch on the device.
    pub(crate) fn run<'r>(&self) -> Run<'r> {
        // The products of attention have no weight whose scales int8 could use.
        let fewer_bits = self.precision != Precision::F32 && self.kernels.isa.is_fast_at(Precision::Bf16);
        let attention_precision = if fewer_bits { Precision::Bf16 } else { Precision::F32 };
        let device = self.device.map(|device| OnDevice::new(Arc::clone(device)));
        Run { kernels: self.kernels, attention_precision, trace: None, team: None, device }
    }

    /// The outputs for a batch, on this thread or on each of a team.
    fn forward(&self, run: &mut Run<'_>, batch: &Batch) -> Vec<f32> {
        let read = self.head.reads();
        let hidden = self.trunk.forward(run, batch, read);
        let hidden = run.gather(hidden);
        self.head.forward(run, hidden, (batch, read))
    }

    /// A tokenizer file may know more ids than the checkpoint has rows. `what` names the sequence in messages.
    pub(crate) fn check_ids(&self, sequence: &EncodedPair, what: &'static str) -> Result<()> {
        let Sizes { vocab, types, .. } = self.trunk.sizes();
        if let Some(id) = sequence.input_ids.iter().find(|&&id| id as usize >= vocab) {
            let problem = format!("the tokenizer gives id {id}; the model has {vocab}");
            return Err(Error::Encode { what, problem });
        }
        if let Some(id) = sequence.token_type_ids.iter().find(|&&id| types > 0 && usize::from(id) >= types) {
            let problem = format!("the tokenizer gives segment {id}; the model has {types}");
            return Err(Error::Encode { what, problem });
        }
        Ok(())
    }
}

/// `value`, if the device says that it was computed.
pub(crate) fn result_of<T>(device: &Device, value: T) -> Result<T> {
    match device.take_failure() {
        None => Ok(value),
        Some(failure) => Err(Error::of_device(device.name(), failure)),
    }
}

/// `work` on each of `items`, in parts that threads take one after another; the results in the order of the items. Each thread
/// has a state of its own. An error comes with the index of its item; of several, the first.
pub(crate) fn in_parts<T: Sync, S: Send + Clone + Sync, R: Send, E: Send>(
    threads: usize,
    items: &[T],
    state: &S,
    work: impl Fn(&mut S, &T) -> std::result::Result<R, E> + Sync,
) -> std::result::Result<Vec<R>, (usize, E)> {
    let parts: Vec<&[T]> = items.chunks(TEXTS_AT_ONCE).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(parts.len()));
    on_threads(threads.min(parts.len()), |_| {
        let mut state = state.clone();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(number) else { break };
            let work =
                |(i, item)| work(&mut state, item).map_err(|error| (number * TEXTS_AT_ONCE + i, error));
            let results: std::result::Result<Vec<R>, (usize, E)> =
                part.iter().enumerate().map(work).collect();
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, results));
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(number, _)| *number);
    let mut all = Vec::with_capacity(items.len());
    for (_, part) in done {
        all.extend(part?);
    }
    Ok(all)
}

/// Runs `work` on as many threads, this one among them, with their numbers from 0.
fn on_threads(threads: usize, work: impl Fn(usize) + Sync) {
    let work = &|number| with_buffers(|| work(number));
    let cores = &affinity::all_cores(threads);
    let other = |number| {
        move || {
            affinity::begin_on(cores, number);
            work(number);
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|number| scope.spawn(other(number))).collect();
        work(0);
        others.into_iter().for_each(join);
    });
}

/// The result of a thread; its panic is a bug, and goes on here.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
