//! `config.json`, read field by field: every refusal names the field.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::nn::Activation;

/// No dimension of a published model comes near this; a hostile one must not make us allocate.
const MAX_SIZE: u64 = 1 << 22;

/// The fields of one JSON file.
#[derive(Debug, Clone)]
pub struct Config {
    file: String,
    value: Value,
}

impl Config {
    /// Reads the file `name`.
    ///
    /// # Errors
    /// Those of [`ModelFiles::json`].
    pub fn read(files: &ModelFiles, name: &str) -> Result<Self> {
        Ok(Self { file: files.name_of(name), value: files.json(name)? })
    }

    /// The file's name, for messages.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The whole JSON value.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// An error about a field.
    #[must_use]
    pub fn error(&self, field: &str, problem: impl Into<String>) -> Error {
        Error::Config { file: self.file.clone(), field: field.to_string(), problem: problem.into() }
    }

    /// A field that is there and not null.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.value.get(field).filter(|value| !value.is_null())
    }

    /// A size, at least 1.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn size(&self, field: &str) -> Result<usize> {
        match self.count(field)? {
            Some(0) => Err(self.error(field, "is 0")),
            Some(size) => Ok(size),
            None => Err(self.error(field, "is missing")),
        }
    }

    /// A size, at least 1, with the default of the architecture.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn size_or(&self, field: &str, default: usize) -> Result<usize> {
        if self.get(field).is_none() { Ok(default) } else { self.size(field) }
    }

    /// A count, which may be 0 or absent.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn count(&self, field: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64() {
            Some(count) if count <= MAX_SIZE => Ok(Some(count as usize)),
            _ => Err(self.error(field, format!("{value} is not a count up to {MAX_SIZE}"))),
        }
    }

    /// A finite number.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn number_or(&self, field: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value
            .as_f64()
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.error(field, format!("{value} is not a number")))
    }

    /// True or false.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.error(field, format!("{value} is neither true nor false")))
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn text_or<'a>(&'a self, field: &str, default: &'a str) -> Result<&'a str> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_str().ok_or_else(|| self.error(field, format!("{value} is not a string")))
    }

    /// The name of an activation function.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn activation_or(&self, field: &str, default: Activation) -> Result<Activation> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value
            .as_str()
            .and_then(Activation::parse)
            .ok_or_else(|| self.error(field, format!("activation {value} is not implemented")))
    }

    /// `hidden_size` split into `num_attention_heads` heads: the number of values of one.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn head_dim(&self) -> Result<usize> {
        let (hidden, heads) = (self.size("hidden_size")?, self.size("num_attention_heads")?);
        if hidden % heads != 0 {
            return Err(
                self.error("num_attention_heads", format!("{heads} does not divide hidden_size {hidden}"))
            );
        }
        Ok(hidden / heads)
    }

    /// The base of the rotary frequencies: `rope_theta`, or below `rope_parameters` (and there below `layer_type`
    /// where layers differ). A scaling of the frequencies is refused, for it changes every score.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn rope_theta(&self, field: &str, layer_type: Option<&str>, default: f64) -> Result<f64> {
        for scaling in ["rope_scaling", "rope_parameters"] {
            let Some(value) = self.get(scaling) else { continue };
            let value = layer_type.and_then(|layer_type| value.get(layer_type)).unwrap_or(value);
            let kind = value.get("rope_type").or_else(|| value.get("type")).and_then(Value::as_str);
            if kind.is_some_and(|kind| kind != "default") {
                return Err(self.error(scaling, format!("{value} is not implemented")));
            }
            if let Some(theta) = value.get("rope_theta").and_then(Value::as_f64) {
                return self.positive(scaling, theta);
            }
        }
        let theta = self.number_or(field, default)?;
        self.positive(field, theta)
    }

    fn positive(&self, field: &str, value: f64) -> Result<f64> {
        if value > 0.0 { Ok(value) } else { Err(self.error(field, format!("{value} is not positive"))) }
    }

    /// The number of outputs of the classification head.
    #[must_use]
    pub fn num_labels(&self) -> usize {
        let count = |field: &str| self.get(field).and_then(Value::as_object).map(serde_json::Map::len);
        let stated = self.get("num_labels").and_then(Value::as_u64).map(|labels| labels as usize);
        // Transformers assumes 2 where nothing is stated.
        count("id2label").or_else(|| count("label2id")).or(stated).unwrap_or(2)
    }

    /// The class that the checkpoint was saved from, `BertForSequenceClassification` for example.
    #[must_use]
    pub fn class(&self) -> Option<&str> {
        self.get("architectures")?.get(0)?.as_str()
    }
}
