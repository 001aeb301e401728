//! What things cost, from a file of the user.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{CliError, Result};

/// The file. Nothing in it is needed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// This machine.
    pub machine: Machine,
    /// Rerankers behind somebody else's interface.
    pub service: Vec<Service>,
    /// Language models that order lists.
    pub listwise: Vec<Listwise>,
}

/// What this machine costs.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    pub usd_per_hour: Option<f64>,
    /// What it draws while it computes.
    pub watts: Option<f64>,
}

/// A reranker that somebody else runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub name: String,
    /// Of pairs.
    pub usd_per_million_tokens: Option<f64>,
    pub usd_per_1000_queries: Option<f64>,
}

/// A language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listwise {
    pub name: String,
    pub usd_per_million_input_tokens: f64,
    pub usd_per_million_output_tokens: f64,
    /// For one prompt, if it is known.
    pub seconds_per_call: Option<f64>,
    /// Of each document, if it is not to be guessed from the texts.
    pub tokens_per_document: Option<f64>,
}

impl Prices {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| CliError::open(path, &error))?;
        Self::parse(&text).map_err(|problem| CliError::Input(format!("{}: {problem}", path.display())))
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let prices: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let amounts = [("machine", prices.machine.usd_per_hour), ("machine", prices.machine.watts)]
            .into_iter()
            .chain(prices.service.iter().flat_map(|service| {
                let name = service.name.as_str();
                [(name, service.usd_per_million_tokens), (name, service.usd_per_1000_queries)]
            }))
            .chain(prices.listwise.iter().flat_map(|model| {
                let name = model.name.as_str();
                [
                    (name, Some(model.usd_per_million_input_tokens)),
                    (name, Some(model.usd_per_million_output_tokens)),
                    (name, model.seconds_per_call),
                    (name, model.tokens_per_document),
                ]
            }));
        for (name, amount) in amounts {
            if amount.is_some_and(|amount| !(amount.is_finite() && amount >= 0.0)) {
                return Err(format!("{name}: a price is a number that is not negative"));
            }
        }
        for Service { name, usd_per_million_tokens, usd_per_1000_queries } in &prices.service {
            if usd_per_million_tokens.is_none() && usd_per_1000_queries.is_none() {
                return Err(format!(
                    "service {name}: usd_per_million_tokens or usd_per_1000_queries is missing"
                ));
            }
        }
        Ok(prices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_all_of_it() {
        let prices = Prices::parse(
            "[machine]\nusd_per_hour = 0.1\nwatts = 65\n\
             [[service]]\nname = 'x'\nusd_per_million_tokens = 0.025\n\
             [[listwise]]\nname = 'y'\nusd_per_million_input_tokens = 1.25\nusd_per_million_output_tokens = 10\n",
        )
        .unwrap();
        assert_eq!(prices.machine.watts, Some(65.0));
        assert_eq!((prices.service.len(), prices.listwise.len()), (1, 1));
        assert_eq!(Prices::parse("").unwrap(), Prices::default());
        for wrong in [
            "[machine]\nusd = 1",
            "[machine]\nwatts = -1",
            "[machine]\nwatts = nan",
            "[[service]]\nname = 'x'",
            "[[listwise]]\nname = 'y'",
            "machine",
        ] {
            assert!(Prices::parse(wrong).is_err(), "{wrong}");
        }
    }
}
