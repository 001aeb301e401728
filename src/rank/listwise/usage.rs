//! Tokens and money.

/// Tokens and money that were spent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
    /// In the currency of the prices.
    pub cost: f64,
}

impl Usage {
    /// Of prompts and answers.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }

    /// Counts other usage too.
    pub fn add(&mut self, other: Self) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
        self.cost += other.cost;
    }

    /// Takes usage back that was added before.
    pub fn subtract(&mut self, other: Self) {
        self.prompt_tokens = self.prompt_tokens.saturating_sub(other.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_sub(other.completion_tokens);
        self.cost -= other.cost;
    }
}

/// What a million tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Price {
    /// Of prompts.
    pub input: f64,
    /// Of answers.
    pub output: f64,
}

impl Price {
    /// Tokens with what they cost.
    #[must_use]
    pub fn of(self, prompt_tokens: u64, completion_tokens: u64) -> Usage {
        let cost = (prompt_tokens as f64 * self.input + completion_tokens as f64 * self.output) / 1e6;
        Usage { prompt_tokens, completion_tokens, cost }
    }
}
