use std::path::PathBuf;

use toml::{Table, Value};

use super::{Config, ConfigError, ModelConfig};

/// The prefix of environment variables.
const PREFIX: &str = "JOINTLY_";
/// Environment variables that are read elsewhere.
const OTHERS: [&str; 3] = ["JOINTLY_ISA", "JOINTLY_PACKED_CACHE", "JOINTLY_CONFIG"];
/// What Kubernetes sets for a Service called `jointly`.
const OF_A_SERVICE: [&str; 2] = ["JOINTLY_SERVICE_", "JOINTLY_PORT"];

/// Where the configuration comes from; what comes later counts.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file.
    pub file: Option<PathBuf>,
    /// Environment variables that begin with `JOINTLY_`.
    pub environment: Vec<(String, String)>,
    /// Keys and values from flags, as `--set` takes them.
    pub flags: Vec<(String, String)>,
}

impl Layers {
    /// With the environment of this process.
    #[must_use]
    pub fn from_environment(file: Option<PathBuf>) -> Self {
        let variables = std::env::vars_os();
        let environment = variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self { file, environment, flags: Vec::new() }
    }

    /// Reads and checks the configuration. Gives what should be said about it too.
    ///
    /// # Errors
    /// The file or the key that is wrong.
    pub fn read(&self) -> Result<(Config, Vec<String>), ConfigError> {
        let mut table = match &self.file {
            None => Table::new(),
            Some(path) => {
                let place = path.display().to_string();
                let text = std::fs::read_to_string(path)
                    .map_err(|error| ConfigError::new(&place, error.to_string()))?;
                text.parse::<Table>().map_err(|error| ConfigError::new(&place, error.to_string()))?
            }
        };
        let mut notes = Vec::new();
        // What a file says is checked alone first, so that a message names what its author wrote.
        config(&table)?;
        for (name, value) in &self.environment {
            match key_of(name, &table)? {
                Some(key) => set(&mut table, &key, value)
                    .map_err(|error| ConfigError { place: format!("{name} ({})", error.place), ..error })?,
                None if OTHERS.contains(&name.as_str())
                    || OF_A_SERVICE.iter().any(|prefix| name.starts_with(prefix)) => {}
                None => notes.push(format!("{name}: there is no such setting; it is ignored")),
            }
        }
        for (key, value) in &self.flags {
            set(&mut table, key, value)?;
        }
        let config = config(&table)?;
        config.check()?;
        Ok((config, notes))
    }
}

fn config(table: &Table) -> Result<Config, ConfigError> {
    serde_path_to_error::deserialize(Value::Table(table.clone())).map_err(|error| {
        let place = error.path().to_string();
        let problem = error.into_inner().to_string();
        ConfigError::new(if place == "." { "configuration" } else { &place }, problem.trim())
    })
}

/// All settings that have one value, with the value that they have now: their keys and types are known from it.
fn leaves(table: &Table) -> Result<Vec<(String, Value)>, ConfigError> {
    let full = Table::try_from(config(table)?)
        .map_err(|error| ConfigError::new("configuration", error.to_string()))?;
    let mut leaves = Vec::new();
    collect("", &full, &mut leaves);
    Ok(leaves)
}

fn collect(prefix: &str, table: &Table, leaves: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(table) => collect(&key, table, leaves),
            Value::Array(items) if items.iter().any(Value::is_table) => {}
            value => leaves.push((key, value.clone())),
        }
    }
}

fn key_of(variable: &str, table: &Table) -> Result<Option<String>, ConfigError> {
    let name = |key: &str| format!("{PREFIX}{}", key.replace(['.', '-'], "_").to_uppercase());
    Ok(leaves(table)?.into_iter().map(|(key, _)| key).find(|key| name(key) == variable))
}

/// Sets a key to a value of the type that it has.
fn set(table: &mut Table, key: &str, text: &str) -> Result<(), ConfigError> {
    let mut is_of = None;
    if let Some(("names" | "cascades", _)) = key.split_once('.') {
        is_of = Some(Value::String(String::new()));
    } else if let Some(field) = key.strip_prefix("models.").and_then(|rest| rest.rsplit_once('.')) {
        let model = Table::try_from(ModelConfig::default())
            .map_err(|error| ConfigError::new(key, error.to_string()))?;
        is_of = model.get(field.1).cloned();
    }
    let is_of = match is_of {
        Some(value) => value,
        None => leaves(table)?
            .into_iter()
            .find_map(|(name, value)| (name == key).then_some(value))
            .ok_or_else(|| ConfigError::new(key, "there is no such setting; `--print-config` shows all"))?,
    };
    let wrong = |what: &str| ConfigError::new(key, format!("{text:?} is not {what}"));
    let value = match is_of {
        Value::Integer(_) => Value::Integer(text.trim().parse().map_err(|_| wrong("a whole number"))?),
        Value::Float(_) => Value::Float(text.trim().parse().map_err(|_| wrong("a number"))?),
        Value::Boolean(_) => Value::Boolean(text.trim().parse().map_err(|_| wrong("true or false"))?),
        Value::Array(_) => Value::Array(
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect(),
        ),
        _ => Value::String(text.to_string()),
    };
    insert(table, key, value)
}

fn insert(table: &mut Table, key: &str, value: Value) -> Result<(), ConfigError> {
    // A name of a model may have dots in it: only the first and, of a model, the last one separate.
    let parts: Vec<&str> = match key.split_once('.') {
        None => vec![key],
        Some((map @ ("names" | "cascades"), name)) => vec![map, name],
        Some(("models", rest)) => match rest.rsplit_once('.') {
            Some((name, field)) => vec!["models", name, field],
            None => vec!["models", rest],
        },
        Some((section, field)) => vec![section, field],
    };
    let Some((last, path)) = parts.split_last() else { return Ok(()) };
    let mut place = table;
    for part in path {
        let next = place.entry((*part).to_string()).or_insert_with(|| Value::Table(Table::new()));
        place = next.as_table_mut().ok_or_else(|| ConfigError::new(key, format!("{part} is not a table")))?;
    }
    place.insert((*last).to_string(), value);
    Ok(())
}
