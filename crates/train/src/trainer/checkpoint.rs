//! What a run goes on from: values, moments and the state, exact to the bit.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Dev, Event, Options, State, Trainer};
use crate::data::Groups;
use crate::error::{Error, Result};
use crate::folder::{Trainable, WeightFormat, replace, to_bytes, write_tensors};

#[derive(Serialize, Deserialize)]
struct Saved {
    state: State,
    identity: Value,
}

/// What decides the result of a run: options, data, the model that it begins with, and what it is measured on.
pub(super) fn identity(options: &Options, data: &Groups, model: &Trainable, dev: Option<&Dev>) -> Value {
    let adam = options.adam;
    let mut values = Sha256::new();
    for parameter in model.parameters.iter() {
        values.update(to_bytes(&parameter.value, WeightFormat::F32));
    }
    json!({
        "format": 2,
        "loss": options.loss.to_string(),
        "steps": options.steps,
        "queries": options.queries,
        "documents": options.documents,
        "rate": options.rate,
        "fresh_rate": options.fresh_rate,
        "warmup": options.warmup,
        "schedule": format!("{:?}", options.schedule),
        "adam": [adam.beta1, adam.beta2, adam.eps, adam.weight_decay],
        "clip": options.clip,
        "freeze": options.freeze,
        "precision": options.precision.name(),
        "shard_tokens": options.shard_tokens,
        "lanes": options.lanes,
        "seed": options.seed,
        "label_scale": data.scale(),
        "data": data.sha256(),
        "model": format!("{:x}", values.finalize()),
        "max_length": model.text.max_length(),
        "dev": dev.map(|dev| dev.sha256.as_str()),
        // Which model is the best, and when the run ends.
        "dev_every": dev.map(|_| options.dev_every),
        "patience": dev.map(|_| options.patience),
    })
}

impl Trainer<'_> {
    /// Goes on from the checkpoint of the folder, if there is one.
    pub(super) fn resume(&mut self) -> Result<()> {
        let folder = self.folder.join("checkpoint");
        let old = folder.with_extension("old");
        // Killed between the two renames that put a new checkpoint in the place of the old one.
        if !folder.exists() && old.exists() {
            fs::rename(&old, &folder).map_err(Error::io(&old))?;
        }
        if !folder.exists() {
            return self.cut_log(0);
        }
        let path = folder.join("state.json");
        let wrong = |problem: String| Error::Checkpoint { path: folder.clone(), problem };
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if saved.identity != self.identity {
            let differing = self.identity.as_object().into_iter().flatten();
            let differing: Vec<String> = differing
                .filter(|(name, value)| saved.identity.get(name.as_str()) != Some(value))
                .map(|(name, value)| format!("{name} {} there, {value} here", saved.identity[name.as_str()]))
                .collect();
            return Err(wrong(format!(
                "is of another run: {}; take the same options to go on, or another output folder",
                differing.join("; ")
            )));
        }
        let values = self.model.parameters.iter_mut().map(|parameter| &mut parameter.value);
        read(&folder.join("values.safetensors"), values)?;
        read(&folder.join("first.safetensors"), self.moments.first.iter_mut())?;
        read(&folder.join("second.safetensors"), self.moments.second.iter_mut())?;
        self.state = saved.state;
        self.cut_log(self.state.step)
    }

    pub(super) fn save(&mut self, watch: &mut dyn FnMut(&Event)) -> Result<()> {
        let folder = self.folder.join("checkpoint");
        let partial = folder.with_extension("partial");
        _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
        write(&partial.join("values.safetensors"), self.model.parameters.iter().map(|p| &p.value))?;
        write(&partial.join("first.safetensors"), self.moments.first.iter())?;
        write(&partial.join("second.safetensors"), self.moments.second.iter())?;
        let saved = Saved { state: self.state, identity: self.identity.clone() };
        let path = partial.join("state.json");
        let text = serde_json::to_string_pretty(&saved).unwrap_or_default();
        fs::write(&path, text).map_err(Error::io(path))?;
        replace(&partial, &folder)?;
        self.tell(&Event::Saved { step: self.state.step }, watch)
    }

    /// Writes an event down, and shows it.
    pub(super) fn tell(&self, event: &Event, watch: &mut dyn FnMut(&Event)) -> Result<()> {
        if !matches!(event, Event::Saved { .. }) {
            let path = self.folder.join("log.jsonl");
            let line = serde_json::to_string(event).unwrap_or_default();
            let file = File::options().create(true).append(true).open(&path);
            file.and_then(|mut file| writeln!(file, "{line}")).map_err(Error::io(path))?;
        }
        watch(event);
        Ok(())
    }

    /// Removes what the log says of steps after `step`: they are taken again.
    fn cut_log(&self, step: usize) -> Result<()> {
        #[derive(Deserialize)]
        struct Line {
            step: usize,
        }
        let path = self.folder.join("log.jsonl");
        let Ok(file) = File::open(&path) else { return Ok(()) };
        let mut kept = String::new();
        for line in BufReader::new(file).lines() {
            let line = line.map_err(Error::io(&path))?;
            // A line that was cut off is of a step that is taken again.
            if serde_json::from_str::<Line>(&line).is_ok_and(|line| line.step <= step) {
                kept.push_str(&line);
                kept.push('\n');
            }
        }
        // Killed while this is written, it has the whole log still.
        let partial = self.folder.join("log.partial");
        fs::write(&partial, kept).map_err(Error::io(&partial))?;
        fs::rename(&partial, &path).map_err(Error::io(path))
    }
}

fn name(index: usize) -> String {
    format!("{index:05}")
}

fn write<'a>(path: &Path, tensors: impl Iterator<Item = &'a Vec<f32>>) -> Result<()> {
    let bytes: Vec<(String, Vec<u8>, usize)> = tensors
        .enumerate()
        .filter(|(_, values)| !values.is_empty())
        .map(|(i, values)| (name(i), to_bytes(values, WeightFormat::F32), values.len()))
        .collect();
    write_tensors(
        path,
        Dtype::F32,
        bytes.iter().map(|(name, bytes, len)| (name.as_str(), vec![*len], bytes.as_slice())),
    )
}

fn read<'a>(path: &Path, tensors: impl Iterator<Item = &'a mut Vec<f32>>) -> Result<()> {
    let wrong = |problem: String| Error::Checkpoint { path: path.to_path_buf(), problem };
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let stored = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
    for (i, values) in tensors.enumerate().filter(|(_, values)| !values.is_empty()) {
        let tensor = stored.tensor(&name(i)).map_err(|error| wrong(error.to_string()))?;
        let (data, _) = tensor.data().as_chunks::<4>();
        if data.len() != values.len() {
            return Err(wrong(format!("tensor {i} has {} values, the model {}", data.len(), values.len())));
        }
        values.iter_mut().zip(data).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
    }
    Ok(())
}
