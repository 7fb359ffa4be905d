//! The connections that are open: how many, how long, and which goes first when
//! there is no room for another.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::exporter::lock;

/// Most connections at once.
pub(super) const MOST: usize = 256;

/// From a connection's beginning, TLS included, to its first whole request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// From an answer to the next whole request: Prometheus keeps a connection from
/// scrape to scrape.
const NEXT_REQUEST: Duration = Duration::from_secs(120);

/// From a request to the moment when the client's side has taken all of the answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A client may take this long over an answer before it has to make room.
const PATIENCE: Duration = Duration::from_secs(1);

/// All that are open.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    next: AtomicU64,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Connection {
    state: Mutex<State>,
    /// Its deadline has come nearer.
    nearer: Notify,
}

#[derive(Debug)]
struct State {
    began: Instant,
    /// When the last answer was taken.
    answered: Option<Instant>,
    /// Requests that wait for an answer or whose answer is not yet taken.
    answers: BTreeMap<u64, Answer>,
    next: u64,
    evicted: bool,
}

/// An answer's times.
#[derive(Debug)]
struct Answer {
    asked: Instant,
    /// When it was there to be taken.
    ready: Option<Instant>,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Sends a request, or none, since then.
    Idle(Instant),
    /// Waits for an answer.
    Waiting,
    /// Takes an answer since then.
    Taking(Instant),
}

impl Connections {
    /// Takes a new one in, at the cost of another if need be. None: all are busy.
    pub(super) fn open(self: &Arc<Self>, now: Instant) -> Option<Open> {
        let mut open = lock(&self.open);
        if open.len() >= MOST {
            let phases = open.iter().map(|(id, other)| (*id, other.phase()));
            let victim = victim(phases, now)?;
            if let Some(other) = open.remove(&victim) {
                lock(&other.state).evicted = true;
                other.nearer.notify_one();
            }
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            state: Mutex::new(State {
                began: now,
                answered: None,
                answers: BTreeMap::new(),
                next: 0,
                evicted: false,
            }),
            nearer: Notify::new(),
        });
        open.insert(id, connection.clone());
        Some(Open {
            connections: self.clone(),
            id,
            connection,
        })
    }
}

/// Which makes room: of those without a request the one that is so for longest, else
/// the one that takes its answer most slowly.
fn victim(phases: impl Iterator<Item = (u64, Phase)>, now: Instant) -> Option<u64> {
    let mut idle: Option<(Instant, u64)> = None;
    let mut slow: Option<(Instant, u64)> = None;
    for (id, phase) in phases {
        let (best, since) = match phase {
            Phase::Idle(since) => (&mut idle, since),
            Phase::Taking(since) => (&mut slow, since),
            Phase::Waiting => continue,
        };
        if best.is_none_or(|best| (since, id) < best) {
            *best = Some((since, id));
        }
    }
    let slow = slow.filter(|(since, _)| now.duration_since(*since) > PATIENCE);
    idle.or(slow).map(|(_, id)| id)
}

/// An open connection; gone from the table when dropped.
#[derive(Debug)]
pub(super) struct Open {
    connections: Arc<Connections>,
    id: u64,
    /// What the table knows of it.
    pub(super) connection: Arc<Connection>,
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.connections.open).remove(&self.id);
    }
}

impl Connection {
    /// A request has come; what is returned lives until its answer is taken.
    pub(super) fn answering(self: &Arc<Self>, now: Instant) -> Answering {
        let mut state = lock(&self.state);
        let id = state.next;
        state.next += 1;
        let answer = Answer {
            asked: now,
            ready: None,
        };
        state.answers.insert(id, answer);
        drop(state);
        self.nearer.notify_one();
        Answering {
            connection: self.clone(),
            id,
        }
    }

    fn phase(&self) -> Phase {
        let state = lock(&self.state);
        let taking = state.answers.values().filter_map(|answer| answer.ready);
        match taking.min() {
            Some(since) => Phase::Taking(since),
            None if !state.answers.is_empty() => Phase::Waiting,
            None => Phase::Idle(state.answered.unwrap_or(state.began)),
        }
    }

    /// Nothing is asked of it.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.state).answers.is_empty()
    }

    /// When it is closed if nothing happens. None: now.
    fn deadline(&self) -> Option<Instant> {
        let state = lock(&self.state);
        if state.evicted {
            return None;
        }
        let asked = state.answers.values().map(|answer| answer.asked).min();
        Some(match (asked, state.answered) {
            (Some(asked), _) => asked + ANSWER,
            (None, Some(answered)) => answered + NEXT_REQUEST,
            (None, None) => state.began + FIRST_REQUEST,
        })
    }

    /// Runs until it is done, the connection's time is up, or it has to make room.
    /// None: one of the latter.
    pub(super) async fn while_allowed<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        while let Some(deadline) = self.deadline() {
            if deadline <= Instant::now() {
                break;
            }
            tokio::select! {
                output = &mut future => return Some(output),
                () = self.nearer.notified() => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
        None
    }
}

/// A request whose answer is not yet taken.
#[derive(Debug)]
pub(super) struct Answering {
    connection: Arc<Connection>,
    id: u64,
}

impl Answering {
    /// The answer is there to be taken.
    pub(super) fn ready(&self, now: Instant) {
        if let Some(answer) = lock(&self.connection.state).answers.get_mut(&self.id) {
            answer.ready = Some(now);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = lock(&self.connection.state);
        state.answers.remove(&self.id);
        state.answered = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_idle_makes_room() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let phases = [
            (0, Phase::Waiting),
            (1, Phase::Taking(at(0))),
            (2, Phase::Idle(at(5))),
            (3, Phase::Idle(at(4))),
        ];
        assert_eq!(victim(phases.into_iter(), at(60)), Some(3));
    }

    #[test]
    fn a_slow_reader_makes_room_where_none_is_idle() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let phases = [
            (0, Phase::Waiting),
            (1, Phase::Taking(at(2))),
            (2, Phase::Taking(at(1))),
        ];
        assert_eq!(victim(phases.into_iter(), at(2)), None);
        assert_eq!(victim(phases.into_iter(), at(3)), Some(2));
    }

    #[test]
    fn there_are_never_more_than_the_most() {
        let connections = Arc::new(Connections::default());
        let now = Instant::now();
        let mut held: Vec<_> = (0..MOST + 10)
            .map(|_| connections.open(now).unwrap())
            .collect();
        assert_eq!(lock(&connections.open).len(), MOST);
        assert_eq!(held[9].connection.deadline(), None, "made room");
        assert_eq!(held[10].connection.deadline(), Some(now + FIRST_REQUEST));
        // One that was put out takes nothing with it when it ends.
        held.drain(..10);
        assert_eq!(lock(&connections.open).len(), MOST);
        drop(held);
        assert_eq!(lock(&connections.open).len(), 0);
    }

    #[test]
    fn a_newcomer_is_refused_while_all_are_busy() {
        let connections = Arc::new(Connections::default());
        let now = Instant::now();
        let held: Vec<_> = (0..MOST).map(|_| connections.open(now).unwrap()).collect();
        let answers: Vec<_> = held
            .iter()
            .map(|open| open.connection.answering(now))
            .collect();
        let later = now + Duration::from_secs(3);
        assert!(connections.open(later).is_none());
        // One answer is there, and its client does not take it.
        answers[7].ready(now);
        assert!(connections.open(now).is_none());
        let newcomer = connections.open(later).unwrap();
        assert_eq!(held[7].connection.deadline(), None, "made room");
        drop(newcomer);
        drop(answers);
        assert!(connections.open(now).is_some());
    }

    proptest! {
        /// A connection that has a request to answer outlives every idle one.
        #[test]
        fn the_busy_outlive_the_idle(
            phases in proptest::collection::vec((any::<bool>(), 0_u64..100), 1..20),
        ) {
            let start = Instant::now();
            let phases: Vec<_> = (0_u64..).zip(phases).map(|(id, (busy, at))| {
                let since = start + Duration::from_secs(at);
                (id, if busy { Phase::Taking(since) } else { Phase::Idle(since) })
            }).collect();
            let now = start + Duration::from_secs(100);
            let chosen = victim(phases.iter().copied(), now);
            let is_idle = |phase: &Phase| matches!(phase, Phase::Idle(_));
            if phases.iter().any(|(_, phase)| is_idle(phase)) {
                let chosen = chosen.unwrap();
                let (_, phase) = phases.iter().find(|(id, _)| *id == chosen).unwrap();
                prop_assert!(is_idle(phase));
            }
        }
    }
}
