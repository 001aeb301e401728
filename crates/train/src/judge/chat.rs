//! A language model behind an endpoint that speaks the chat-completions protocol.

use jointly_chat::{Client, ClientOptions, Outcome, Question as Asked, Reply, Said, Schema, Token};

use super::answer::{Answer, parse_letter, parse_score};
use super::{Ask, Ballot, Error, Halt, Judge, Ledger, Question, Result, short_hash};

/// A and B must have this share of the probability together, or the answer was not a choice between them.
const LEAST_MASS: f64 = 0.1;

/// Which model is asked, and how.
#[derive(Debug, Clone)]
pub struct ChatOptions {
    /// What it is called in the votes.
    pub name: String,
    /// The endpoint.
    pub client: ClientOptions,
    /// What it answers with.
    pub ask: Ask,
    /// Only who wins counts, not by how much.
    pub hard: bool,
    /// Most tokens of an answer; none is enough for what is asked.
    pub answer_tokens: Option<u32>,
    /// Each text is cut to so many characters.
    pub max_chars: usize,
}

impl ChatOptions {
    /// Most characters of a text.
    pub const DEFAULT_MAX_CHARS: usize = 8000;

    /// The model's own name, scores, soft votes.
    pub fn new(base: impl Into<String>, model: impl Into<String>) -> Self {
        let client = ClientOptions::new(base, model);
        Self {
            name: client.model.clone(),
            client,
            ask: Ask::default(),
            hard: false,
            answer_tokens: None,
            max_chars: Self::DEFAULT_MAX_CHARS,
        }
    }
}

/// A language model as judge.
pub struct ChatJudge {
    options: ChatOptions,
    client: Client,
}

impl ChatJudge {
    /// Checks the options; asks nothing yet.
    ///
    /// # Errors
    /// [`Error::Options`].
    pub fn new(options: ChatOptions) -> Result<Self> {
        for (value, name) in [
            (options.max_chars, "characters of a text"),
            (options.answer_tokens.unwrap_or(1) as usize, "tokens of an answer"),
        ] {
            if value == 0 {
                let problem = format!("there must be at least one of: {name}");
                return Err(Error::Options { judge: options.name, problem });
            }
        }
        let client = Client::new(options.client.clone()).map_err(|error| of_judge(&options.name, error))?;
        Ok(Self { options, client })
    }

    fn answer_tokens(&self) -> u32 {
        self.options.answer_tokens.unwrap_or(self.options.ask.answer_tokens())
    }

    fn ask_one(&self, question: &Question<'_>, ledger: &Ledger, halt: &Halt<'_>) -> Result<Ballot> {
        let prompt = self.options.ask.write(question, self.options.max_chars);
        let asked = Asked {
            system: &prompt.system,
            user: &prompt.user,
            answer_tokens: self.answer_tokens(),
            schema: self.options.ask.schema().map(|schema| Schema { name: "comparison", schema }),
            logprobs: self.options.ask == Ask::Letter,
            deadline: None,
        };
        let Reply { usage, outcome } =
            self.client.ask(&asked, ledger, halt).map_err(|error| of_judge(&self.options.name, error))?;
        let abstain = |reason| Ballot { usage, cut: prompt.cut, ..Ballot::abstain(reason) };
        let answer = match outcome {
            Outcome::Said(said) => self.read(&said),
            Outcome::Unusable(reason) => Answer::Unclear(reason),
            Outcome::Unanswered(reason) => return Ok(Ballot { unanswered: true, ..abstain(reason) }),
        };
        let share = match answer {
            Answer::Share(share) => share,
            Answer::Unclear(reason) => return Ok(abstain(reason)),
        };
        let share = if question.swapped { 1.0 - share } else { share };
        let vote = if self.options.hard { super::local::hard(share - 0.5) } else { share };
        Ok(Ballot { vote: Some(vote), usage, cut: prompt.cut, ..Ballot::default() })
    }

    fn read(&self, said: &Said) -> Answer {
        let answer = if self.options.ask == Ask::Letter {
            match parse_letter(&said.text) {
                Answer::Share(share) => Answer::Share(share_of_tokens(&said.tokens).unwrap_or(share)),
                unclear @ Answer::Unclear(_) => unclear,
            }
        } else {
            parse_score(&said.text)
        };
        match answer {
            Answer::Unclear(reason) if said.is_cut => Answer::Unclear(format!(
                "cut at {} tokens; {}",
                self.answer_tokens(),
                self.client.shown(&reason)
            )),
            Answer::Unclear(reason) => Answer::Unclear(self.client.shown(&reason)),
            share @ Answer::Share(_) => share,
        }
    }
}

fn of_judge(judge: &str, error: jointly_chat::Error) -> Error {
    let judge = judge.to_owned();
    match error {
        jointly_chat::Error::Options { problem } => Error::Options { judge, problem },
        jointly_chat::Error::BudgetSpent => Error::BudgetSpent,
        jointly_chat::Error::Interrupted => Error::Interrupted,
        error => Error::Refused { judge, reason: error.to_string() },
    }
}

impl Judge for ChatJudge {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn settings(&self) -> String {
        // Not the endpoint: the same model may be served at another place tomorrow.
        let ChatOptions { ask, hard, max_chars, client, .. } = &self.options;
        let ClientOptions { model, temperature, response_format, .. } = client;
        let numbers =
            format!("{hard} {temperature} {max_chars} {response_format:?} {}", self.answer_tokens());
        short_hash(&["chat", model, &ask.wording(), &numbers], 12)
    }

    fn reads_in_order(&self) -> bool {
        true
    }

    fn appetite(&self) -> (usize, usize) {
        (1, self.options.client.concurrency)
    }

    fn ask(&self, questions: &[Question<'_>], ledger: &Ledger, halt: &Halt<'_>) -> Result<Vec<Ballot>> {
        questions.iter().map(|question| self.ask_one(question, ledger, halt)).collect()
    }
}

/// The share of B, by the probabilities at the first token that is A or B.
fn share_of_tokens(tokens: &[Token]) -> Option<f64> {
    let letter = |token: &str| match token.trim_matches(|c: char| !c.is_alphanumeric()) {
        "A" | "a" => Some(0),
        "B" | "b" => Some(1),
        _ => None,
    };
    let at = tokens.iter().find(|token| letter(&token.token).is_some())?;
    let mut mass = [0.0_f64; 2];
    for alternative in &at.top_logprobs {
        if let (Some(which), true) = (letter(&alternative.token), alternative.logprob.is_finite()) {
            mass[which] += alternative.logprob.min(0.0).exp();
        }
    }
    let own = letter(&at.token)?;
    if mass == [0.0; 2] && at.logprob.is_finite() {
        // The chosen token's own probability; the rest is not the other letter's for certain.
        let p = at.logprob.min(0.0).exp();
        mass[own] = p;
        mass[1 - own] = 1.0 - p;
    }
    let sum = mass[0] + mass[1];
    (sum >= LEAST_MASS).then(|| mass[1] / sum)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn probabilities_of_the_letter_are_the_vote() {
        let token = |json: Value| serde_json::from_value::<Token>(json).unwrap();
        let alternative = |text: &str, p: f64| json!({"token": text, "logprob": p.ln()});
        let tokens = [
            token(json!({"token": "\n", "logprob": -0.1})),
            token(json!({"token": " B", "logprob": -0.5, "top_logprobs":
                [alternative(" B", 0.5), alternative("B", 0.1), alternative("A", 0.2), alternative("x", 0.2)]})),
        ];
        assert!((share_of_tokens(&tokens).unwrap() - 0.75).abs() < 1e-12);
        let alone = [token(json!({"token": "A", "logprob": 0.8_f64.ln()}))];
        assert!((share_of_tokens(&alone).unwrap() - 0.2).abs() < 1e-12);
        // Neither was likely: a grammar may have forced the letter.
        let forced =
            [token(json!({"token": "A", "logprob": -9.0, "top_logprobs": [alternative("A", 0.01)]}))];
        assert_eq!(share_of_tokens(&forced), None);
        assert_eq!(share_of_tokens(&[]), None);
    }
}
