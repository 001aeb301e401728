//! What 1,000 queries cost: the plan, the reference, services, and language models that order lists.

use jointly::rank::listwise::{ListwiseOptions, Method};
use serde::Serialize;

use super::prices::{Listwise, Prices, Service};
use super::search::{Candidate, Planned};
use super::speed::{Cost, Part};
use crate::cmd::eval::Collection;

/// Tokens of a document in a prompt, as they are commonly reckoned with.
const COMMON_TOKENS: [f64; 2] = [300.0, 500.0];
/// Characters that make a token, in the mean of many languages and tokenizers.
const CHARS_PER_TOKEN: f64 = 4.0;
/// Of the identifier and the tags of each document.
const TAG_TOKENS: f64 = 25.0;
/// Of the instructions.
const INSTRUCTION_TOKENS: f64 = 350.0;
/// Of each identifier in an answer.
const ANSWER_TOKENS: f64 = 6.0;

/// The rows.
#[derive(Debug, Serialize)]
pub struct Picture {
    pub rows: Vec<Row>,
    pub prices: Prices,
}

/// What one way costs. What is not known is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub what: String,
    /// `cascade`, `service` or `listwise`.
    pub kind: &'static str,
    pub pairs_per_query: f64,
    /// Prompts of a language model.
    pub calls_per_query: Option<f64>,
    pub tokens_per_query: f64,
    pub gflop_per_query: Option<f64>,
    pub ms_per_query: Option<f64>,
    pub joules_per_query: Option<f64>,
    pub usd_per_1000_queries: Option<f64>,
}

impl Picture {
    pub fn paint(planned: &Planned, parts: &[Part], (collections, prices): (&[Collection], &Prices)) -> Self {
        let mut rows = vec![of_cascade("the plan", planned.chosen(), parts, prices)];
        if planned.reference != planned.front[planned.chosen].candidate {
            let what = format!("{} alone", parts[planned.reference().steps[0].part].name);
            rows.push(of_cascade(&what, planned.reference(), parts, prices));
        }
        let pairs = planned.reference().cost.pairs;
        let tokens_per_pair =
            parts.iter().filter(|part| !part.is_bi()).map(Part::tokens_per_pair).fold(0.0, f64::max);
        for service in &prices.service {
            rows.push(of_service(service, pairs, tokens_per_pair));
        }
        let own = tokens_of_document(collections);
        // What is commonly said about one prompt with all documents, and what these texts come to in it and in windows.
        let all = pairs.round() as usize;
        let whole = |count: usize| {
            ListwiseOptions::new().method(Method::SlidingWindow {
                window: count.max(2),
                stride: 1,
                passes: 1,
            })
        };
        let models: Vec<Option<&Listwise>> = match &prices.listwise[..] {
            [] => vec![None],
            models => models.iter().map(Some).collect(),
        };
        for model in models {
            let name = model.map_or("a language model", |model| model.name.as_str());
            for tokens in COMMON_TOKENS {
                let what = format!("{name}, one prompt of {all} documents of {tokens} tokens");
                rows.push(of_listwise(what, (&whole(all), all), Some(tokens), (model, own)));
            }
            let own_prompt = format!("{name}, one prompt of {all} documents, these texts");
            rows.push(of_listwise(own_prompt, (&whole(all), all), None, (model, own)));
            for count in if all > 20 { vec![20, all] } else { vec![all] } {
                let what = format!("{name}, windows of 20 over {count} documents, these texts");
                rows.push(of_listwise(what, (&ListwiseOptions::new(), count), None, (model, own)));
            }
        }
        Self { rows, prices: prices.clone() }
    }
}

pub fn of_cascade(what: &str, candidate: &Candidate, parts: &[Part], prices: &Prices) -> Row {
    let Cost { pairs, tokens, flops, ms } = candidate.cost;
    let hours = ms / 3.6e6;
    Row {
        what: what.to_owned(),
        kind: "cascade",
        pairs_per_query: pairs,
        calls_per_query: None,
        tokens_per_query: tokens,
        gflop_per_query: candidate
            .steps
            .iter()
            .all(|step| parts[step.part].is_in_flops)
            .then_some(flops / 1e9),
        ms_per_query: Some(ms),
        joules_per_query: prices.machine.watts.map(|watts| watts * ms / 1e3),
        usd_per_1000_queries: prices.machine.usd_per_hour.map(|usd| 1000.0 * usd * hours),
    }
}

fn of_service(service: &Service, pairs: f64, tokens_per_pair: f64) -> Row {
    let tokens = pairs * tokens_per_pair;
    let by_tokens = service.usd_per_million_tokens.map(|usd| usd * tokens / 1e3);
    Row {
        what: format!("{}, {pairs:.0} documents", service.name),
        kind: "service",
        pairs_per_query: pairs,
        calls_per_query: None,
        tokens_per_query: tokens,
        gflop_per_query: None,
        ms_per_query: None,
        joules_per_query: None,
        usd_per_1000_queries: service.usd_per_1000_queries.or(by_tokens),
    }
}

fn of_listwise(
    what: String,
    (options, count): (&ListwiseOptions, usize),
    tokens: Option<f64>,
    (model, own): (Option<&Listwise>, f64),
) -> Row {
    let load = options.load(count);
    let (calls, documents) = (load.calls as f64, load.documents as f64);
    let per_document =
        tokens.or(model.and_then(|model| model.tokens_per_document)).unwrap_or(own + TAG_TOKENS);
    // What is commonly said has the instructions in it.
    let input = documents * per_document + if tokens.is_some() { 0.0 } else { calls * INSTRUCTION_TOKENS };
    let output = documents * ANSWER_TOKENS;
    let usd = |model: &Listwise| {
        (input * model.usd_per_million_input_tokens + output * model.usd_per_million_output_tokens) / 1e3
    };
    Row {
        what,
        kind: "listwise",
        pairs_per_query: documents,
        calls_per_query: Some(calls),
        tokens_per_query: input + output,
        gflop_per_query: None,
        ms_per_query: model.and_then(|model| model.seconds_per_call).map(|seconds| 1e3 * seconds * calls),
        joules_per_query: None,
        usd_per_1000_queries: model.map(usd),
    }
}

/// Tokens of a document, as the listwise stage cuts it.
fn tokens_of_document(collections: &[Collection]) -> f64 {
    let (mut chars, mut count) = (0_usize, 0_usize);
    for collection in collections {
        for candidate in collection.queries.iter().flat_map(|query| &query.candidates) {
            let text = &collection.texts[candidate.text];
            // Bytes at most: counting characters of a long text is slow, and it is cut anyway.
            chars += text.chars().take(ListwiseOptions::DEFAULT_MAX_CHARS).count();
            count += 1;
        }
    }
    chars as f64 / count.max(1) as f64 / CHARS_PER_TOKEN
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 100 documents of 300 and 500 tokens at $1.25 and $10 a million.
    #[test]
    fn listwise_costs_what_the_prices_say() {
        let model = Listwise {
            name: "m".into(),
            usd_per_million_input_tokens: 1.25,
            usd_per_million_output_tokens: 10.0,
            seconds_per_call: Some(2.0),
            tokens_per_document: None,
        };
        let options =
            ListwiseOptions::new().method(Method::SlidingWindow { window: 100, stride: 1, passes: 1 });
        let row = of_listwise("x".into(), (&options, 100), Some(300.0), (Some(&model), 100.0));
        assert_eq!((row.calls_per_query, row.tokens_per_query), (Some(1.0), 30_600.0));
        assert_eq!(row.usd_per_1000_queries, Some((30_000.0 * 1.25 + 600.0 * 10.0) / 1e3));
        assert_eq!(row.ms_per_query, Some(2000.0));
        let windows = of_listwise("x".into(), (&ListwiseOptions::new(), 100), None, (None, 75.0));
        // Nine calls read each document 1.8 times.
        assert_eq!(windows.calls_per_query, Some(9.0));
        assert_eq!(windows.tokens_per_query, 180.0 * 100.0 + 9.0 * 350.0 + 180.0 * 6.0);
        assert_eq!(windows.usd_per_1000_queries, None);
    }

    #[test]
    fn a_service_costs_by_tokens_or_by_queries() {
        let mut service =
            Service { name: "s".into(), usd_per_million_tokens: Some(0.025), usd_per_1000_queries: None };
        let row = of_service(&service, 100.0, 300.0);
        assert!((row.usd_per_1000_queries.unwrap() - 0.75).abs() < 1e-12);
        service.usd_per_1000_queries = Some(2.0);
        assert_eq!(of_service(&service, 100.0, 300.0).usd_per_1000_queries, Some(2.0));
    }
}
