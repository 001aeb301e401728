//! A client for language models behind endpoints that speak the chat-completions protocol: one question, one answer.
//!
//! A [`Client`] asks, tries again what may pass, and waits as long as the server says. A [`Ledger`] keeps the [`Budget`] of
//! all requests; a [`Halt`] stops them. [`EndpointJudge`] makes of it what the listwise stage of a cascade asks.

mod budget;
mod client;
mod halt;
mod key;
mod list;
mod spec;
mod wait;

pub use budget::{Budget, Ledger, Reservation};
pub use client::{
    Alternative, Client, ClientOptions, Outcome, Question, Reply, ResponseFormat, Said, Schema, Token,
};
pub use halt::Halt;
pub use jointly::rank::listwise::{Price, Usage};
pub use key::ApiKey;
pub use list::EndpointJudge;
pub use spec::{IdentifiersName, ListwiseSpec, MethodName};

/// The result of asking.
pub type Result<T> = std::result::Result<T, Error>;

/// Why no further question is asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option cannot be used.
    #[error("{problem}")]
    Options {
        /// What is wrong with it.
        problem: String,
    },
    /// The endpoint refuses every request.
    #[error("{reason}")]
    Refused {
        /// The status of its answer, if that is what refuses.
        status: Option<u16>,
        /// Where, and what it says.
        reason: String,
    },
    /// Another request might exceed the budget.
    #[error("the budget is spent")]
    BudgetSpent,
    /// Somebody asked for the end.
    #[error("interrupted")]
    Interrupted,
}
