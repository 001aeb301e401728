//! One query's questions: prompts, answers, what they cost, and when to stop.

use super::answer::{AnswerKind, parse, repair};
use super::judge::{Failure, ListJudge, Reply, complete_all};
use super::prompt::{Prompt, Wanted, write};
use super::quote::brief;
use super::shuffle::{Random, borda, kendall_tau};
use super::usage::{Price, Usage};
use super::{Answers, Call, Ended, ListwiseOptions, Report};
use crate::rank::{Meter, Spent, Stop};

/// Bytes of a prompt that make a token, before an answer has told.
const BYTES_PER_TOKEN: f64 = 2.0;
/// The next prompt may have shorter tokens than the last one.
const TOKENS_MARGIN: f64 = 1.1;
/// Reasons that a report holds.
const MOST_REASONS: usize = 3;

/// Asks a judge about lists of one query's documents.
pub(super) struct Session<'a> {
    judge: &'a dyn ListJudge,
    query: &'a str,
    documents: &'a [&'a str],
    options: &'a ListwiseOptions,
    meter: &'a Meter,
    random: Random,
    tokens_per_byte: f64,
    /// The dearest that an answer has shown; none before the first one.
    cost_per_token: Option<f64>,
    taus: Vec<f64>,
    /// Which documents some call has shown.
    shown: Vec<bool>,
    report: Report,
}

impl<'a> Session<'a> {
    pub fn new(
        judge: &'a dyn ListJudge,
        (query, documents): (&'a str, &'a [&'a str]),
        options: &'a ListwiseOptions,
        meter: &'a Meter,
    ) -> Self {
        Self {
            judge,
            query,
            documents,
            options,
            meter,
            random: Random::new(options.seed, query),
            tokens_per_byte: 1.0 / BYTES_PER_TOKEN,
            cost_per_token: None,
            taus: Vec::new(),
            shown: vec![false; documents.len()],
            report: Report::default(),
        }
    }

    /// Whether no further question is asked.
    pub fn is_over(&self) -> bool {
        self.report.ended != Ended::Complete
    }

    /// How many documents some call has shown.
    pub fn shown(&self) -> usize {
        self.shown.iter().filter(|shown| **shown).count()
    }

    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    pub fn finish(mut self) -> Report {
        if !self.taus.is_empty() {
            self.report.agreement = Some(self.taus.iter().sum::<f64>() / self.taus.len() as f64);
        }
        self.report
    }

    /// Asks for one list. It comes back as a permutation of itself; as it was, where there is no answer.
    pub fn ask(&mut self, list: &[usize], wanted: Wanted) -> Vec<usize> {
        let answers = self.answers(&[list.to_vec()], wanted).pop().unwrap_or_default();
        self.settle(list, &answers)
    }

    /// Asks for several lists at once. Each comes back as a permutation of itself; what the answers leave open is in
    /// the incoming order, however the list was shuffled before.
    pub fn ask_all(&mut self, lists: &[Vec<usize>], wanted: Wanted) -> Vec<Vec<usize>> {
        let mut settled = Vec::with_capacity(lists.len());
        for (answers, list) in self.answers(lists, wanted).iter().zip(lists) {
            let mut incoming = list.clone();
            incoming.sort_unstable();
            settled.push(self.settle(&incoming, answers));
        }
        settled
    }

    /// For each pair, the share of the second one: 1 if it was found better in both orders, 0 if the first one was, else 0.5.
    pub fn shares_of_second(&mut self, pairs: &[[usize; 2]]) -> Vec<f64> {
        let both: Vec<Vec<usize>> = pairs.iter().flat_map(|&[a, b]| [vec![a, b], vec![b, a]]).collect();
        let once = self.asked_once(&both, Wanted::Best);
        let share = |(pair, answers): (&[usize; 2], &[Option<Vec<usize>>])| {
            let votes: Vec<f64> = answers
                .iter()
                .flatten()
                .filter_map(|named| named.first())
                .map(|best| if *best == pair[1] { 1.0 } else { 0.0 })
                .collect();
            match votes[..] {
                [a, b] => (0.5 * (a + b), Some(if a == b { 1.0 } else { -1.0 })),
                // Without an answer in one of the orders, the other one would be a vote for a position.
                _ => (0.5, None),
            }
        };
        let shares: Vec<(f64, Option<f64>)> = pairs.iter().zip(once.chunks(2)).map(share).collect();
        self.taus.extend(shares.iter().filter_map(|(_, tau)| *tau));
        shares.into_iter().map(|(share, _)| share).collect()
    }

    /// For each list, its documents in the orders of the answers that named some.
    fn answers(&mut self, lists: &[Vec<usize>], wanted: Wanted) -> Vec<Vec<Vec<usize>>> {
        let shuffles = self.options.shuffles.max(1);
        // The first in the incoming order, the others in random ones.
        let mut shown: Vec<Vec<usize>> = Vec::with_capacity(lists.len() * shuffles);
        for list in lists {
            for shuffle in 0..shuffles {
                let mut list = list.clone();
                if shuffle > 0 {
                    self.random.shuffle(&mut list);
                }
                shown.push(list);
            }
        }
        let once = self.asked_once(&shown, wanted);
        once.chunks(shuffles).map(|answers| answers.iter().flatten().cloned().collect()).collect()
    }

    /// Several answers to the same list as one order of it; what they leave open is as in `list`.
    fn settle(&mut self, list: &[usize], answers: &[Vec<usize>]) -> Vec<usize> {
        // In places of the list, so that its order breaks ties.
        let in_places = |answer: &Vec<usize>| {
            let named: Vec<usize> = answer
                .iter()
                .filter_map(|document| list.iter().position(|other| other == document))
                .collect();
            repair(&named, list.len())
        };
        let orders: Vec<Vec<usize>> = answers.iter().map(in_places).collect();
        for (place, first) in orders.iter().enumerate() {
            self.taus.extend(orders[place + 1..].iter().filter_map(|second| kendall_tau(first, second)));
        }
        let order = match &orders[..] {
            [] => return list.to_vec(),
            [order] => order.clone(),
            orders => borda(orders, list.len()),
        };
        order.into_iter().map(|place| list[place]).collect()
    }

    /// Asks once about each list as it is shown. What an answer names, in documents; none without an answer.
    fn asked_once(&mut self, shown: &[Vec<usize>], wanted: Wanted) -> Vec<Option<Vec<usize>>> {
        let mut named: Vec<Option<Vec<usize>>> = vec![None; shown.len()];
        let mut start = 0;
        while start < shown.len() && !self.is_over() {
            let prompts: Vec<Prompt> = shown[start..]
                .iter()
                .take(self.judge.concurrency().max(1))
                .map(|list| {
                    let texts: Vec<&str> = list.iter().map(|&document| self.documents[document]).collect();
                    let form = (self.options.identifiers, self.options.max_chars);
                    let mut prompt = write(self.query, &texts, wanted, form);
                    if let Some(tokens) = self.options.answer_tokens {
                        prompt.answer_tokens = tokens;
                    }
                    prompt
                })
                .collect();
            let room = self.room(&prompts);
            let prompts = &prompts[..room];
            if prompts.is_empty() {
                break;
            }
            let replies = complete_all(self.judge, prompts, &|| self.meter.time_left());
            for (offset, (prompt, (reply, elapsed))) in prompts.iter().zip(replies).enumerate() {
                let list = &shown[start + offset];
                list.iter().for_each(|&document| self.shown[document] = true);
                let kind = self.take(prompt, &reply, (list.as_slice(), wanted), &mut named[start + offset]);
                self.report.calls.push(Call { documents: list.len(), kind, usage: reply.usage, elapsed });
            }
            start += prompts.len();
        }
        named
    }

    /// How many of the prompts the budget has room for. Where it has none, the session is over.
    fn room(&mut self, prompts: &[Prompt]) -> usize {
        if let Some(stop) = self.meter.stop() {
            self.report.ended = Ended::Stopped(stop);
            return 0;
        }
        let price = self.judge.price();
        // Of a judge that names no price, the first answer tells it: until then only one is on its way.
        let is_price_known = price != Price::default() || self.cost_per_token.is_some();
        let prompts = match self.meter.usd_left() {
            Some(_) if !is_price_known => &prompts[..prompts.len().min(1)],
            _ => prompts,
        };
        let (mut tokens, mut usd, mut room) = (0.0, 0.0, 0);
        for prompt in prompts {
            let read = prompt.bytes() as f64 * self.tokens_per_byte;
            let written = f64::from(prompt.answer_tokens);
            tokens += read + written;
            let seen = (read + written) * self.cost_per_token.unwrap_or(0.0);
            usd += seen.max((read * price.input + written * price.output) / 1e6);
            let stop = if self.meter.tokens_left().is_some_and(|left| tokens > left as f64) {
                Some(Stop::Tokens)
            } else if self.meter.usd_left().is_some_and(|left| usd > left) {
                Some(Stop::Money)
            } else {
                None
            };
            match stop {
                None => room += 1,
                Some(stop) if room == 0 => {
                    self.report.ended = Ended::Stopped(stop);
                    return 0;
                }
                Some(_) => break,
            }
        }
        room
    }

    /// Counts a reply and reads it.
    fn take(
        &mut self,
        prompt: &Prompt,
        reply: &Reply,
        (list, wanted): (&[usize], Wanted),
        named: &mut Option<Vec<usize>>,
    ) -> AnswerKind {
        let Usage { prompt_tokens, cost, .. } = reply.usage;
        self.meter.spend(Spent {
            calls: 1,
            pairs: list.len() as u64,
            tokens: reply.usage.tokens(),
            usd: cost,
        });
        self.report.usage.add(reply.usage);
        self.report.cut += prompt.cut;
        let kind = match &reply.outcome {
            Ok(text) => {
                if prompt_tokens > 0 {
                    let seen = prompt_tokens as f64 / prompt.bytes().max(1) as f64 * TOKENS_MARGIN;
                    let is_first = self.report.answers.all() == 0;
                    self.tokens_per_byte = if is_first { seen } else { self.tokens_per_byte.max(seen) };
                }
                // Of an answer that counts no tokens, none can be told.
                let seen = match reply.usage.tokens() {
                    0 => 0.0,
                    tokens => cost / tokens as f64,
                };
                self.cost_per_token = Some(self.cost_per_token.unwrap_or(0.0).max(seen));
                let parsed = parse(text, list.len(), wanted, self.options.identifiers);
                if parsed.kind != AnswerKind::Ok {
                    self.reason(format!("{}: {:?}", parsed.kind.name(), brief(text)));
                }
                if !parsed.named.is_empty() {
                    *named = Some(parsed.named.iter().map(|&place| list[place]).collect());
                }
                parsed.kind
            }
            Err(failure) => {
                match failure {
                    Failure::Unanswered { reason } => {
                        self.reason(brief(reason));
                        // The end cut this request, and no later one may come that would notice it. Spent tokens
                        // or money cut nothing that is on its way.
                        if let Some(stop @ (Stop::Deadline | Stop::Cancelled)) = self.meter.stop()
                            && !self.is_over()
                        {
                            self.report.ended = Ended::Stopped(stop);
                        }
                    }
                    Failure::Refused { reason } => self.report.ended = Ended::Refused(brief(reason)),
                    Failure::BudgetSpent => self.report.ended = Ended::JudgeBudget,
                    Failure::Interrupted => {
                        self.report.ended = Ended::Stopped(Stop::Cancelled);
                    }
                }
                AnswerKind::Unanswered
            }
        };
        self.report.answers.count(kind);
        kind
    }

    fn reason(&mut self, reason: String) {
        if self.report.reasons.len() < MOST_REASONS {
            self.report.reasons.push(reason);
        }
    }
}

impl Answers {
    fn count(&mut self, kind: AnswerKind) {
        *match kind {
            AnswerKind::Ok => &mut self.ok,
            AnswerKind::WrongFormat => &mut self.wrong_format,
            AnswerKind::Repetition => &mut self.repetition,
            AnswerKind::Missing => &mut self.missing,
            AnswerKind::Unanswered => &mut self.unanswered,
        } += 1;
    }
}
