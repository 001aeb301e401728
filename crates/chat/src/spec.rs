//! A listwise stage as it is written in a cascade file.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jointly::rank::listwise::{Identifiers, Listwise, ListwiseOptions, Method, Price};
use serde::Deserialize;

use crate::{ApiKey, Budget, ClientOptions, EndpointJudge};

/// A stage of the kind `listwise`. All keys but `endpoint` and `model` may be left out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ListwiseSpec {
    /// What the stage is called in reports.
    pub name: Option<String>,
    /// The endpoint, without `/chat/completions`.
    pub endpoint: String,
    /// The model's name there.
    pub model: String,
    /// How documents are compared.
    #[serde(default)]
    pub method: MethodName,
    /// Of the sliding window: its documents.
    pub window: Option<usize>,
    /// Of the sliding window: by how many it moves.
    pub stride: Option<usize>,
    /// Of the sliding window: how often it slides.
    pub passes: Option<usize>,
    /// Of the tournament: documents of a group.
    pub group: Option<usize>,
    /// Of the tournament: how many.
    pub tournaments: Option<usize>,
    /// Of the setwise methods: documents that are compared with one.
    pub children: Option<usize>,
    /// Of the setwise methods and of bubbles: places that are filled.
    pub top: Option<usize>,
    /// What documents are called.
    #[serde(default)]
    pub identifiers: IdentifiersName,
    /// Only so many documents are compared.
    pub depth: Option<usize>,
    /// In how many orders each list is shown.
    pub shuffles: Option<usize>,
    /// For the orders.
    pub seed: Option<u64>,
    /// Each text is cut to so many characters.
    pub max_chars: Option<usize>,
    /// Most tokens of an answer, for models that think aloud.
    pub answer_tokens: Option<u32>,
    /// 0 for the likeliest answer.
    pub temperature: Option<f64>,
    /// Environment variable with the key.
    pub api_key_env: Option<String>,
    /// Price of prompts.
    pub usd_per_million_input_tokens: Option<f64>,
    /// Price of answers.
    pub usd_per_million_output_tokens: Option<f64>,
    /// For one request.
    pub timeout_ms: Option<u64>,
    /// How often a request is made.
    pub attempts: Option<u32>,
    /// Requests at once.
    pub concurrency: Option<usize>,
    /// What all queries of this process may cost.
    pub max_usd_of_all: Option<f64>,
    /// Tokens that all queries of this process may take.
    pub max_tokens_of_all: Option<u64>,
}

/// Names of [`Method`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MethodName {
    /// [`Method::SlidingWindow`].
    #[default]
    SlidingWindow,
    /// [`Method::Tournament`].
    Tournament,
    /// [`Method::SetwiseHeap`].
    SetwiseHeap,
    /// [`Method::SetwiseBubble`].
    SetwiseBubble,
    /// [`Method::PairwiseAll`].
    Pairwise,
    /// [`Method::PairwiseBubble`].
    PairwiseBubble,
}

/// Names of [`Identifiers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IdentifiersName {
    /// [`Identifiers::Numbers`].
    #[default]
    Numbers,
    /// [`Identifiers::Letters`].
    Letters,
}

impl ListwiseSpec {
    /// The method, with its numbers.
    ///
    /// # Errors
    /// A number that belongs to another method: it would be without effect.
    pub fn method(&self) -> Result<Method, String> {
        let Self { window, stride, passes, group, tournaments, children, top, .. } = self;
        let of_window = [("window", window), ("stride", stride), ("passes", passes)];
        let of_groups = [("group", group), ("tournaments", tournaments)];
        let (of_sets, of_top) = ([("children", children)], [("top", top)]);
        let none =
            |numbers: &[(&str, &Option<usize>)]| match numbers.iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => Err(format!("{name} is not for this method")),
                None => Ok(()),
            };
        Ok(match self.method {
            MethodName::SlidingWindow => {
                none(&[&of_groups[..], &of_sets, &of_top].concat())?;
                let window = window.unwrap_or(20);
                let stride = stride.unwrap_or((window / 2).max(1));
                Method::SlidingWindow { window, stride, passes: passes.unwrap_or(1) }
            }
            MethodName::Tournament => {
                none(&[&of_window[..], &of_sets, &of_top].concat())?;
                Method::Tournament { group: group.unwrap_or(20), tournaments: tournaments.unwrap_or(1) }
            }
            MethodName::SetwiseHeap | MethodName::SetwiseBubble => {
                none(&[&of_window[..], &of_groups].concat())?;
                let (children, top) = (children.unwrap_or(3), top.unwrap_or(10));
                match self.method {
                    MethodName::SetwiseHeap => Method::SetwiseHeap { children, top },
                    _ => Method::SetwiseBubble { children, top },
                }
            }
            MethodName::Pairwise => {
                none(&[&of_window[..], &of_groups, &of_sets, &of_top].concat())?;
                Method::PairwiseAll
            }
            MethodName::PairwiseBubble => {
                none(&[&of_window[..], &of_groups, &of_sets].concat())?;
                Method::PairwiseBubble { top: top.unwrap_or(10) }
            }
        })
    }

    /// The stage. `stop` ends all its questions. Asks nothing yet; reads the key from the environment.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn build<'a>(&self, stop: &'a AtomicBool) -> Result<Listwise<EndpointJudge<'a>>, String> {
        let mut client = ClientOptions::new(&self.endpoint, &self.model);
        client.price = Price {
            input: self.usd_per_million_input_tokens.unwrap_or_default(),
            output: self.usd_per_million_output_tokens.unwrap_or_default(),
        };
        if self.max_usd_of_all.is_some() && client.price == Price::default() {
            return Err(
                "max_usd_of_all needs prices: usd_per_million_input_tokens and usd_per_million_output_tokens"
                    .into(),
            );
        }
        if let Some(variable) = &self.api_key_env {
            client.key = Some(ApiKey::from_env(variable)?);
        }
        if let Some(ms) = self.timeout_ms {
            client.timeout = Duration::from_millis(ms);
        }
        client.temperature = self.temperature.unwrap_or(client.temperature);
        client.attempts = self.attempts.unwrap_or(client.attempts);
        client.concurrency = self.concurrency.unwrap_or(client.concurrency);
        let budget = Budget { max_tokens: self.max_tokens_of_all, max_cost: self.max_usd_of_all };
        let mut options = ListwiseOptions::new().method(self.method()?).identifiers(match self.identifiers {
            IdentifiersName::Numbers => Identifiers::Numbers,
            IdentifiersName::Letters => Identifiers::Letters,
        });
        if let Some(depth) = self.depth {
            options = options.depth(depth);
        }
        if let Some(shuffles) = self.shuffles {
            options = options.shuffles(shuffles);
        }
        if let Some(seed) = self.seed {
            options = options.seed(seed);
        }
        if let Some(max_chars) = self.max_chars {
            options = options.max_chars(max_chars);
        }
        if let Some(tokens) = self.answer_tokens {
            options = options.answer_tokens(tokens);
        }
        let judge = EndpointJudge::new(client, budget, stop).map_err(|error| error.to_string())?;
        let stage = Listwise::new(judge, options).map_err(|error| error.to_string())?;
        Ok(match &self.name {
            Some(name) => stage.name(name),
            None => stage,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    static STOP: AtomicBool = AtomicBool::new(false);

    fn spec(more: serde_json::Value) -> Result<ListwiseSpec, serde_json::Error> {
        let mut all = json!({"endpoint": "http://localhost:1/v1", "model": "m"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all)
    }

    #[test]
    fn little_is_enough_and_numbers_go_to_their_method() {
        let stage = spec(json!({})).unwrap().build(&STOP).unwrap();
        assert_eq!(stage.options(), &ListwiseOptions::new());
        let method = |more| spec(more).unwrap().method();
        assert_eq!(
            method(json!({"window": 8})).unwrap(),
            Method::SlidingWindow { window: 8, stride: 4, passes: 1 }
        );
        assert_eq!(
            method(json!({"method": "setwise-heap", "top": 5})).unwrap(),
            Method::SetwiseHeap { children: 3, top: 5 }
        );
        assert_eq!(method(json!({"method": "pairwise"})).unwrap(), Method::PairwiseAll);
        assert!(method(json!({"method": "tournament", "window": 5})).unwrap_err().contains("window"));
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        assert!(spec(json!({"windows": 5})).is_err());
        for wrong in [
            json!({"window": 1}),
            json!({"stride": 20}),
            json!({"shuffles": 0}),
            json!({"attempts": 0}),
            json!({"concurrency": 0}),
            json!({"max_usd_of_all": 1.0}),
            json!({"api_key_env": "JOINTLY_TEST_VARIABLE_THAT_IS_NOT_SET"}),
            json!({"endpoint": "ftp://a"}),
            json!({"identifiers": "letters", "window": 40}),
        ] {
            assert!(spec(wrong.clone()).unwrap().build(&STOP).is_err(), "{wrong}");
        }
    }
}
