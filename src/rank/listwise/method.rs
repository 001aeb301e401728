//! Ways to order many documents by questions about few. Each begins with the incoming order, and what it does not get to
//! stays as it is.

use std::collections::HashMap;

use super::prompt::Wanted;
use super::session::Session;

/// How a language model is asked about more documents than it can compare at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// A window slides from the end to the front, and each is put in order. The best `stride` documents reach the top in one
    /// pass; others move by few places. arXiv 2304.09542, with a last window that begins at the first document.
    SlidingWindow {
        /// Documents of a window, at least 2.
        window: usize,
        /// Documents by which it moves, less than `window`.
        stride: usize,
        /// How often it slides.
        passes: usize,
    },
    /// Groups play, the better half of each goes on, until one is left; a document has a point for each round that it has
    /// come through, summed over tournaments with other groups. In the manner of TourRank, arXiv 2406.11678.
    Tournament {
        /// Documents of a group, at least 2.
        group: usize,
        /// Tournaments.
        tournaments: usize,
    },
    /// The best of a set, again and again, in a heap: the fewest tokens for a short top. arXiv 2310.09497.
    SetwiseHeap {
        /// Documents that are compared with one, at least 1.
        children: usize,
        /// Places that are filled; the others stay in their order.
        top: usize,
    },
    /// The best of a set moves to the front of it, from the end to the top, once for each place. arXiv 2310.09497.
    SetwiseBubble {
        /// Documents that are compared with one, at least 1.
        children: usize,
        /// Places that are filled.
        top: usize,
    },
    /// Every two documents, in both orders. arXiv 2306.17563.
    PairwiseAll,
    /// Neighbours from the end to the top, in both orders, once for each place. arXiv 2306.17563.
    PairwiseBubble {
        /// Places that are filled.
        top: usize,
    },
}

impl Default for Method {
    fn default() -> Self {
        Self::SlidingWindow { window: 20, stride: 10, passes: 1 }
    }
}

/// What a method asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Prompts.
    pub calls: usize,
    /// Documents in all of them, each as often as it is read.
    pub documents: usize,
}

impl Load {
    fn add(&mut self, calls: usize, of: usize) {
        self.calls += calls;
        self.documents += calls * of;
    }
}

impl Method {
    /// In one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SlidingWindow { .. } => "sliding window",
            Self::Tournament { .. } => "tournament",
            Self::SetwiseHeap { .. } => "setwise heap",
            Self::SetwiseBubble { .. } => "setwise bubble",
            Self::PairwiseAll => "pairwise",
            Self::PairwiseBubble { .. } => "pairwise bubble",
        }
    }

    /// What is wrong with its numbers.
    pub(super) fn problem(self) -> Option<String> {
        let least = |name: &str, value: usize, least: usize| {
            (value < least).then(|| format!("{name} {value}; at least {least} is needed"))
        };
        match self {
            Self::SlidingWindow { window, stride, passes } => least("window", window, 2)
                .or(least("stride", stride, 1))
                .or(least("passes", passes, 1))
                .or((stride >= window).then(|| {
                    format!(
                        "stride {stride} of a window of {window}: windows must overlap, or nothing moves up"
                    )
                })),
            Self::Tournament { group, tournaments } => {
                least("group", group, 2).or(least("tournaments", tournaments, 1))
            }
            Self::SetwiseHeap { children, top } | Self::SetwiseBubble { children, top } => {
                least("children", children, 1).or(least("top", top, 1))
            }
            Self::PairwiseAll => None,
            Self::PairwiseBubble { top } => least("top", top, 1),
        }
    }

    /// Most documents in one prompt.
    pub(super) fn largest_list(self) -> usize {
        match self {
            Self::SlidingWindow { window, .. } => window,
            Self::Tournament { group, .. } => group,
            Self::SetwiseHeap { children, .. } | Self::SetwiseBubble { children, .. } => children + 1,
            Self::PairwiseAll | Self::PairwiseBubble { .. } => 2,
        }
    }

    /// What it asks about so many documents, without shuffles. Of the setwise methods and of bubbles it is the most: they ask
    /// no question twice.
    #[must_use]
    pub fn load(self, count: usize) -> Load {
        let mut load = Load::default();
        match self {
            _ if count < 2 => {}
            Self::SlidingWindow { window, stride, passes } => {
                for (start, end) in windows(count, window, stride) {
                    load.add(passes, end - start);
                }
            }
            Self::Tournament { group, tournaments } => {
                let mut left = count;
                while left > 1 {
                    let groups = left.div_ceil(group.max(2));
                    let sizes: Vec<usize> = (0..groups).map(|i| (left + groups - 1 - i) / groups).collect();
                    sizes.iter().filter(|size| **size > 1).for_each(|size| load.add(tournaments, *size));
                    if left == 2 {
                        break;
                    }
                    left = sizes.iter().map(|size| size.div_ceil(2)).sum();
                }
            }
            Self::SetwiseHeap { children, top } => {
                let children = children.max(1);
                let parents = if count > 1 { (count - 2) / children + 1 } else { 0 };
                let depth = {
                    let (mut depth, mut place) = (0, count - 1);
                    while place > 0 {
                        place = (place - 1) / children;
                        depth += 1;
                    }
                    depth
                };
                // Building asks each parent once and may sink each down; each place taken off sinks one down.
                load.add(parents * depth.max(1) + top.min(count) * depth, children + 1);
            }
            Self::SetwiseBubble { children, top } => {
                for place in 0..top.min(count - 1) {
                    load.add((count - place - 1).div_ceil(children.max(1)), children + 1);
                }
            }
            Self::PairwiseAll => load.add(count * (count - 1), 2),
            Self::PairwiseBubble { top } => {
                for place in 0..top.min(count - 1) {
                    load.add(2 * (count - place - 1), 2);
                }
            }
        }
        load
    }

    /// Orders `0..count`.
    pub(super) fn order(self, session: &mut Session<'_>, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        if count < 2 {
            return order;
        }
        match self {
            Self::SlidingWindow { window, stride, passes } => {
                for _ in 0..passes {
                    for (start, end) in windows(count, window, stride) {
                        if session.is_over() {
                            return order;
                        }
                        let sorted = session.ask(&order[start..end], Wanted::Order);
                        order[start..end].copy_from_slice(&sorted);
                    }
                }
                order
            }
            Self::Tournament { group, tournaments } => {
                tournament(session, order, (group.max(2), tournaments))
            }
            Self::SetwiseHeap { children, top } => heap(session, count, (children.max(1), top)),
            Self::SetwiseBubble { children, top } => {
                let children = children.max(1);
                let mut known = HashMap::new();
                for place in 0..top.min(count - 1) {
                    let mut end = count;
                    while end > place + 1 {
                        let start = end.saturating_sub(children + 1).max(place);
                        let best = best_of(session, &mut known, &order[start..end]);
                        if session.is_over() {
                            return order;
                        }
                        order[start..start + best + 1].rotate_right(1);
                        end = start + 1;
                    }
                }
                order
            }
            Self::PairwiseAll => {
                let pairs: Vec<[usize; 2]> =
                    (0..count).flat_map(|a| (a + 1..count).map(move |b| [a, b])).collect();
                let mut points = vec![0.0; count];
                for (&[a, b], share) in pairs.iter().zip(session.shares_of_second(&pairs)) {
                    points[a] += 1.0 - share;
                    points[b] += share;
                }
                // Halves are summed without rounding; equal ones keep their order.
                order.sort_by(|&a, &b| points[b].total_cmp(&points[a]));
                order
            }
            Self::PairwiseBubble { top } => {
                let mut known: HashMap<[usize; 2], f64> = HashMap::new();
                for place in 0..top.min(count - 1) {
                    for below in (place + 1..count).rev() {
                        let pair = [order[below - 1], order[below]];
                        let share = match known.get(&pair) {
                            Some(share) => *share,
                            None => session.shares_of_second(&[pair]).first().copied().unwrap_or(0.5),
                        };
                        if session.is_over() {
                            return order;
                        }
                        known.insert(pair, share);
                        known.insert([pair[1], pair[0]], 1.0 - share);
                        if share > 0.5 {
                            order.swap(below - 1, below);
                        }
                    }
                }
                order
            }
        }
    }
}

/// The windows of one pass, from the last one to that which begins at 0.
fn windows(count: usize, window: usize, stride: usize) -> Vec<(usize, usize)> {
    let (mut found, mut end) = (Vec::new(), count);
    loop {
        let start = end.saturating_sub(window.max(2));
        found.push((start, end));
        if start == 0 {
            return found;
        }
        end -= stride.clamp(1, end - 1);
    }
}

/// The place in the list of its best document. What was asked before is not asked again.
fn best_of(session: &mut Session<'_>, known: &mut HashMap<Vec<usize>, usize>, list: &[usize]) -> usize {
    let mut key = list.to_vec();
    key.sort_unstable();
    let best = match known.get(&key) {
        Some(best) => *best,
        None => {
            let best = session.ask(list, Wanted::Best).first().copied().unwrap_or_default();
            known.insert(key, best);
            best
        }
    };
    list.iter().position(|document| *document == best).unwrap_or(0)
}

fn heap(session: &mut Session<'_>, count: usize, (children, top): (usize, usize)) -> Vec<usize> {
    let mut heap: Vec<usize> = (0..count).collect();
    let mut known = HashMap::new();
    let mut taken = Vec::new();
    for parent in (0..(count - 2) / children + 1).rev() {
        sink(session, &mut known, &mut heap, (parent, children));
    }
    // A heap that was not finished has no best document on top.
    while taken.len() < top.min(count) && !session.is_over() {
        let Some(last) = heap.pop() else { break };
        if heap.is_empty() {
            taken.push(last);
            break;
        }
        taken.push(std::mem::replace(&mut heap[0], last));
        if taken.len() < top.min(count) {
            sink(session, &mut known, &mut heap, (0, children));
        }
    }
    super::answer::repair(&taken, count)
}

/// Moves a document down until it is the best of its children.
fn sink(
    session: &mut Session<'_>,
    known: &mut HashMap<Vec<usize>, usize>,
    heap: &mut [usize],
    (mut parent, children): (usize, usize),
) {
    loop {
        let first = parent * children + 1;
        let last = (first + children).min(heap.len());
        if first >= last || session.is_over() {
            return;
        }
        let mut places: Vec<usize> = std::iter::once(parent).chain(first..last).collect();
        // Where there is no answer, the first one of the incoming order stays above the others.
        places.sort_unstable_by_key(|&place| heap[place]);
        let list: Vec<usize> = places.iter().map(|&place| heap[place]).collect();
        let best = places[best_of(session, known, &list)];
        if best == parent {
            return;
        }
        heap.swap(parent, best);
        parent = best;
    }
}

fn tournament(
    session: &mut Session<'_>,
    order: Vec<usize>,
    (group, tournaments): (usize, usize),
) -> Vec<usize> {
    let count = order.len();
    let mut points = vec![0_usize; count];
    let mut left: Vec<Vec<usize>> = vec![order; tournaments];
    while left.first().is_some_and(|left| left.len() > 1) {
        // The groups of all tournaments are asked at once.
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut of_tournament = Vec::new();
        for (number, left) in left.iter().enumerate() {
            for mut dealt in deal(left, left.len().div_ceil(group)) {
                // The first one plays in the incoming order.
                if number > 0 {
                    session.random().shuffle(&mut dealt);
                }
                groups.push(dealt);
                of_tournament.push(number);
            }
        }
        let is_final = left.iter().all(|left| left.len() == 2);
        let goes_on = |size: usize| if is_final { 1 } else { size.div_ceil(2) };
        let mut winners: Vec<Vec<usize>> = vec![Vec::new(); tournaments];
        let mut sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        sizes.dedup();
        // Groups differ by one in size at most, and each size has a question of its own.
        for size in sizes {
            let (lists, numbers): (Vec<Vec<usize>>, Vec<usize>) = groups
                .iter()
                .zip(&of_tournament)
                .filter(|(group, _)| group.len() == size)
                .map(|(group, number)| (group.clone(), *number))
                .unzip();
            let sorted = match size {
                1 => lists,
                _ => session.ask_all(&lists, Wanted::Select(goes_on(size))),
            };
            for (sorted, number) in sorted.iter().zip(numbers) {
                winners[number].extend_from_slice(&sorted[..goes_on(size)]);
            }
        }
        if session.is_over() {
            break; // a round without answers gives no points
        }
        for winners in &mut winners {
            winners.iter().for_each(|&document| points[document] += 1);
            winners.sort_unstable(); // what comes next is dealt in the incoming order again
        }
        left = winners;
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&document| std::cmp::Reverse(points[document]));
    order
}

/// As cards are dealt: each group has some of the first and some of the last.
fn deal(documents: &[usize], groups: usize) -> Vec<Vec<usize>> {
    let mut dealt = vec![Vec::new(); groups.max(1)];
    for (place, &document) in documents.iter().enumerate() {
        dealt[place % groups.max(1)].push(document);
    }
    dealt
}
