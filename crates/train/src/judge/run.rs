//! Asking judges about pairs: at once where they wait for others, one after another where they compute here.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use super::journal::{Journal, VoteLine};
use super::{Ballot, Budget, Error, Halt, Judge, Ledger, Pair, Question, Result, Side, Usage, digest};

/// How often progress is told while no vote comes.
const TELL: Duration = Duration::from_millis(200);

/// A pair with its texts.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// The pair.
    pub ids: &'a Pair,
    /// Its first document.
    pub a: Side<'a>,
    /// Its second document.
    pub b: Side<'a>,
}

/// How pairs are asked.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RunOptions {
    /// Ask judges that read in order about both orders; else about one, drawn by lot.
    pub both_orders: bool,
    /// For the lots, together with the pair and the judge.
    pub seed: u64,
    /// What all lines of the votes file together may cost.
    pub budget: Budget,
}

/// How a run ended that no failure ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every question was asked.
    Complete,
    /// The next question of some judge might have exceeded the budget; the others were asked all of theirs.
    BudgetSpent,
    /// Somebody asked for the end.
    Interrupted,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Progress {
    /// Questions of all judges.
    pub questions: u64,
    /// Of these, answered by earlier runs.
    pub known: u64,
    /// Of these, asked by this run.
    pub asked: u64,
    /// Of those asked, without a vote.
    pub abstained: u64,
    /// What all lines cost, those of earlier runs too.
    pub usage: Usage,
}

/// A question that is still to be asked: place of the item, and whether `b` is shown first.
type Task = (usize, bool);

/// What a worker tells: votes, or why there are no more.
type Message = Result<Vec<VoteLine>>;

/// Asks all judges about all items, except for what stands in the journal.
///
/// # Errors
/// Those of [`Judge::ask`] and of [`Journal::add`]. Votes that came before are in the journal.
pub fn run(
    judges: &[&dyn Judge],
    items: &[Item<'_>],
    journal: &mut Journal,
    options: &RunOptions,
    (stop, observe): (&AtomicBool, &mut dyn FnMut(&Progress)),
) -> Result<Ending> {
    let settings: Vec<String> = judges.iter().map(|judge| judge.settings()).collect();
    for (judge, settings) in judges.iter().zip(&settings) {
        if let Some((earlier, line)) = journal.settings_of(judge.name())
            && earlier != settings
        {
            return Err(Error::Line {
                path: journal.path().to_path_buf(),
                line,
                problem: format!(
                    "{} voted with other settings (model, prompt, scale, hard or soft, lengths, seed); give the same, \
                     another file, or the judge another name",
                    judge.name()
                ),
            });
        }
    }
    let mut progress = Progress { usage: journal.usage(), ..Progress::default() };
    let mut tasks: Vec<Vec<Task>> = Vec::new();
    for judge in judges {
        let (todo, known) = tasks_of(*judge, items, journal, options);
        progress.questions += todo.len() as u64 + known;
        progress.known += known;
        tasks.push(todo);
    }
    observe(&progress);
    let ledger = Ledger::new(options.budget, journal.usage());
    let halt = Halt::new(stop);
    let queues: Vec<Queue<'_>> = judges
        .iter()
        .zip(&settings)
        .zip(&tasks)
        .map(|((judge, settings), tasks)| Queue {
            judge: *judge,
            settings,
            tasks,
            items,
            next: Mutex::new(0),
        })
        .collect();

    let mut ending = Ending::Complete;
    let mut failure = None;
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel::<Message>(64);
        let (ledger, halt) = (&ledger, &halt);
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            queues.iter().partition(|queue| queue.judge.appetite().1 == 1 && !queue.judge.reads_in_order());
        for queue in elsewhere {
            for _ in 0..queue.judge.appetite().1.min(queue.tasks.len()) {
                let sender = sender.clone();
                scope.spawn(move || queue.work(ledger, halt, &sender));
            }
        }
        // They take all threads of this machine already.
        scope.spawn(move || here.into_iter().for_each(|queue| queue.work(ledger, halt, &sender)));
        loop {
            match receiver.recv_timeout(TELL) {
                Ok(Ok(lines)) => {
                    for line in lines {
                        progress.asked += 1;
                        progress.abstained += u64::from(line.vote.is_none());
                        if let Err(error) = journal.add(&line) {
                            failure.get_or_insert(error);
                            halt.request();
                        }
                    }
                    progress.usage = ledger.spent();
                    observe(&progress);
                }
                // That of one judge: those that cost less, or nothing, go on.
                Ok(Err(Error::BudgetSpent)) => ending = Ending::BudgetSpent,
                // Also the echo of what stopped the others.
                Ok(Err(Error::Interrupted)) => {}
                Ok(Err(error)) => {
                    failure.get_or_insert(error);
                    halt.request();
                }
                Err(RecvTimeoutError::Timeout) => observe(&progress),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    journal.sync()?;
    match failure {
        Some(error) => Err(error),
        None if ending == Ending::Complete && progress.known + progress.asked < progress.questions => {
            Ok(Ending::Interrupted)
        }
        None => Ok(ending),
    }
}

/// What is to be asked of a judge, and how many answers there are already.
fn tasks_of(
    judge: &dyn Judge,
    items: &[Item<'_>],
    journal: &Journal,
    options: &RunOptions,
) -> (Vec<Task>, u64) {
    let is_known = |ids: &Pair, swapped| {
        journal.known(ids, judge.name(), swapped).is_some_and(|known| !known.unanswered)
    };
    let (mut todo, mut known) = (Vec::new(), 0);
    for (place, item) in items.iter().enumerate() {
        if judge.reads_in_order() && options.both_orders {
            for swapped in [false, true] {
                match is_known(item.ids, swapped) {
                    true => known += 1,
                    false => todo.push((place, swapped)),
                }
            }
        } else if is_known(item.ids, false) || is_known(item.ids, true) {
            // An answer in the order that another lot gave is an answer.
            known += 1;
        } else {
            todo.push((place, judge.reads_in_order() && lot(item.ids, judge.name(), options.seed)));
        }
    }
    (todo, known)
}

/// Heads or tails, the same for the same pair, judge and seed.
fn lot(ids: &Pair, judge: &str, seed: u64) -> bool {
    let query_b = ids.query_b.as_deref().unwrap_or_default();
    digest(&[&seed.to_string(), judge, &ids.query, &ids.a, query_b, &ids.b])[0] & 1 == 1
}

/// A judge with its questions.
struct Queue<'a> {
    judge: &'a dyn Judge,
    settings: &'a str,
    tasks: &'a [Task],
    items: &'a [Item<'a>],
    next: Mutex<usize>,
}

impl Queue<'_> {
    fn work(&self, ledger: &Ledger, halt: &Halt<'_>, sender: &SyncSender<Message>) {
        while let Some(tasks) = self.take() {
            if halt.is_wanted() {
                return;
            }
            let questions: Vec<Question<'_>> = tasks
                .iter()
                .map(|&(place, swapped)| {
                    let Item { ids, a, b } = self.items[place];
                    Question { ids, a, b, swapped }
                })
                .collect();
            let answer =
                self.judge.ask(&questions, ledger, halt).map(|ballots| self.lines(&questions, ballots));
            if matches!(answer, Err(Error::BudgetSpent)) {
                self.end();
            }
            let is_over = answer.is_err();
            if sender.send(answer).is_err() || is_over {
                return;
            }
        }
    }

    fn take(&self) -> Option<&[Task]> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.tasks.len().min(*next + self.judge.appetite().0);
        let taken = &self.tasks[*next..end];
        *next = end;
        (!taken.is_empty()).then_some(taken)
    }

    /// No further question is taken.
    fn end(&self) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = self.tasks.len();
    }

    fn lines(&self, questions: &[Question<'_>], ballots: Vec<Ballot>) -> Vec<VoteLine> {
        let judge = (self.judge.name(), self.settings);
        let line = |(question, ballot): (&Question<'_>, _)| {
            VoteLine::new(question.ids, question.swapped, judge, ballot)
        };
        questions.iter().zip(ballots).map(line).collect()
    }
}
