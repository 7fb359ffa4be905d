//! The open connections: how many there may be, how long they may stay, and which one is closed to
//! make room for another.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::exporter::lock;

/// Most connections at once.
pub(super) const MOST: usize = 256;

/// Requests with a shorter pause between them count as one run.
const PAUSE: Duration = Duration::from_secs(1);

/// A run of up to this many requests does not count against a client.
const SHARE: u32 = 8;

/// Most bytes of responses that clients have not received yet.
const MOST_HELD: usize = 16 * 1024 * 1024;

/// From the start of a connection, including TLS, to its first complete request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// From a response to the next complete request: Prometheus keeps a connection open between
/// scrapes.
const NEXT_REQUEST: Duration = Duration::from_secs(120);

/// From a request until the client has received the whole response.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a client may take to receive a response before its connection may be closed to make
/// room.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a connection without a request is kept after the order to stop: a request that was sent
/// before may still arrive.
pub(super) const LAST_CHANCE: Duration = Duration::from_millis(500);

/// How long a connection that has had a request is kept: time to read what is in the socket.
pub(super) const SETTLE: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    /// Bytes of responses that are not received yet.
    held: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// Address of the client.
    address: IpAddr,
    all: Weak<Connections>,
    state: Mutex<State>,
    /// Notified when the deadline has moved closer.
    nearer: Notify,
}

#[derive(Debug)]
struct State {
    began: Instant,
    /// When the last response was received.
    answered: Option<Instant>,
    /// Requests without a response, or whose response is not received yet.
    answers: BTreeMap<u64, Answer>,
    next: u64,
    /// Requests since the last pause.
    run: u32,
    evicted: bool,
}

/// The times of a request and its response.
#[derive(Debug)]
struct Answer {
    asked: Instant,
    /// When the response was ready.
    ready: Option<Instant>,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Has no complete request since then.
    Idle(Instant),
    /// Waits for a response.
    Waiting,
    /// Receives a response since then.
    Taking(Instant),
}

impl Connections {
    /// Adds a connection, closing another one if necessary. `None`: all are busy.
    pub(super) fn open(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Open> {
        let mut open = lock(&self.open);
        if open.len() >= MOST {
            let others = open
                .iter()
                .map(|(id, other)| (*id, other.phase(), other.run()));
            let victim = victim(others, now)?;
            put_out(&mut open, victim);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            address,
            all: Arc::downgrade(self),
            state: Mutex::new(State {
                began: now,
                answered: None,
                answers: BTreeMap::new(),
                next: 0,
                run: 0,
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

impl Connections {
    /// Frees memory held by responses: closes the connection of the slowest reader.
    fn put_out_slowest(&self) {
        let mut open = lock(&self.open);
        let taking = open.iter().filter_map(|(id, other)| match other.phase() {
            Phase::Taking(since) => Some((since, *id)),
            _ => None,
        });
        if let Some((_, slowest)) = taking.min() {
            put_out(&mut open, slowest);
        }
    }
}

fn put_out(open: &mut BTreeMap<u64, Arc<Connection>>, id: u64) {
    if let Some(connection) = open.remove(&id) {
        lock(&connection.state).evicted = true;
        connection.nearer.notify_one();
    }
}

/// Chooses the connection to close: the one without a request for the longest time, otherwise the
/// one that receives its response most slowly, otherwise the one with the longest run of requests.
/// `others` gives the ID, phase and run of each.
fn victim(others: impl Iterator<Item = (u64, Phase, u32)>, now: Instant) -> Option<u64> {
    let mut idle: Option<(Instant, u64)> = None;
    let mut slow: Option<(Instant, u64)> = None;
    let mut greedy: Option<(u32, u64)> = None;
    for (id, phase, run) in others {
        match phase {
            Phase::Idle(since) => idle = Some(idle.unwrap_or((since, id)).min((since, id))),
            Phase::Taking(since) => slow = Some(slow.unwrap_or((since, id)).min((since, id))),
            Phase::Waiting => {}
        }
        greedy = greedy.max(Some((run, id)));
    }
    let idle = idle.map(|(_, id)| id);
    let slow = slow.filter(|(since, _)| now.duration_since(*since) > PATIENCE);
    let greedy = greedy.filter(|(run, _)| *run > SHARE);
    idle.or(slow.map(|(_, id)| id)).or(greedy.map(|(_, id)| id))
}

/// An open connection; removed from the table when dropped.
#[derive(Debug)]
pub(super) struct Open {
    connections: Arc<Connections>,
    id: u64,
    /// Its entry in the table.
    pub(super) connection: Arc<Connection>,
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.connections.open).remove(&self.id);
    }
}

impl Connection {
    /// Registers a request. The returned value must live until the response is received.
    pub(super) fn answering(self: &Arc<Self>, now: Instant) -> Answering {
        let mut state = lock(&self.state);
        let id = state.next;
        state.next += 1;
        let paused = state.answers.is_empty()
            && state
                .answered
                .is_none_or(|answered| now.duration_since(answered) > PAUSE);
        state.run = if paused {
            1
        } else {
            state.run.saturating_add(1)
        };
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
            bytes: 0,
        }
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    fn run(&self) -> u32 {
        lock(&self.state).run
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

    /// Whether it has no request.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.state).answers.is_empty()
    }

    /// How long a request may still arrive after the order to stop.
    pub(super) fn last_chance(&self) -> Duration {
        match lock(&self.state).next {
            0 => LAST_CHANCE,
            _ => SETTLE,
        }
    }

    /// When it is closed if nothing happens. `None`: now.
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

    /// Runs `future` until it is done; `None` if the connection's time runs out or it has to make
    /// room before.
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

/// A request whose response is not received yet.
#[derive(Debug)]
pub(super) struct Answering {
    connection: Arc<Connection>,
    id: u64,
    bytes: usize,
}

impl Answering {
    /// The response, of this many bytes, is ready.
    pub(super) fn ready(&mut self, now: Instant, bytes: usize) {
        if let Some(answer) = lock(&self.connection.state).answers.get_mut(&self.id) {
            answer.ready = Some(now);
        }
        self.bytes = bytes;
        if let Some(all) = self.connection.all.upgrade()
            && all.held.fetch_add(bytes, Ordering::Relaxed) + bytes > MOST_HELD
        {
            all.put_out_slowest();
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(all) = self.connection.all.upgrade() {
            all.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        let mut state = lock(&self.connection.state);
        state.answers.remove(&self.id);
        state.answered = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn the_longest_idle_makes_room() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let phases = [
            (0, Phase::Waiting, 100),
            (1, Phase::Taking(at(0)), 1),
            (2, Phase::Idle(at(5)), 1),
            (3, Phase::Idle(at(4)), 1),
        ];
        assert_eq!(victim(phases.into_iter(), at(60)), Some(3));
    }

    #[test]
    fn a_slow_reader_makes_room_where_none_is_idle() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let phases = [
            (0, Phase::Waiting, 1),
            (1, Phase::Taking(at(2)), 1),
            (2, Phase::Taking(at(1)), 1),
        ];
        assert_eq!(victim(phases.into_iter(), at(2)), None);
        assert_eq!(victim(phases.into_iter(), at(3)), Some(2));
    }

    #[test]
    fn the_greediest_makes_room_where_all_are_quick() {
        let now = Instant::now();
        let others = |run| {
            [
                (0, Phase::Waiting, 1),
                (1, Phase::Waiting, run),
                (2, Phase::Taking(now), run - 1),
            ]
            .into_iter()
        };
        assert_eq!(victim(others(SHARE), now), None);
        assert_eq!(victim(others(SHARE + 1), now), Some(1));
    }

    #[test]
    fn a_run_ends_with_a_pause() {
        let connections = Arc::new(Connections::default());
        let open = connections.open(HOST, Instant::now()).unwrap();
        for expected in 1..=3 {
            drop(open.connection.answering(Instant::now()));
            assert_eq!(open.connection.run(), expected);
        }
        let later = Instant::now() + PAUSE * 2;
        drop(open.connection.answering(later));
        assert_eq!(open.connection.run(), 1);
    }

    #[test]
    fn there_are_never_more_than_the_most() {
        let connections = Arc::new(Connections::default());
        let now = Instant::now();
        let mut held: Vec<_> = (0..MOST + 10)
            .map(|_| connections.open(HOST, now).unwrap())
            .collect();
        assert_eq!(lock(&connections.open).len(), MOST);
        assert_eq!(held[9].connection.deadline(), None, "made room");
        assert_eq!(held[10].connection.deadline(), Some(now + FIRST_REQUEST));
        // A connection that was closed to make room frees nothing when it ends.
        held.drain(..10);
        assert_eq!(lock(&connections.open).len(), MOST);
        drop(held);
        assert_eq!(lock(&connections.open).len(), 0);
    }

    #[test]
    fn a_newcomer_is_refused_while_all_are_busy() {
        let connections = Arc::new(Connections::default());
        let now = Instant::now();
        let held: Vec<_> = (0..MOST)
            .map(|_| connections.open(HOST, now).unwrap())
            .collect();
        let mut answers: Vec<_> = held
            .iter()
            .map(|open| open.connection.answering(now))
            .collect();
        let later = now + Duration::from_secs(3);
        assert!(connections.open(HOST, later).is_none());
        // One response is ready, and its client does not read it.
        answers[7].ready(now, 100);
        assert!(connections.open(HOST, now).is_none());
        let newcomer = connections.open(HOST, later).unwrap();
        assert_eq!(held[7].connection.deadline(), None, "made room");
        drop(newcomer);
        drop(answers);
        assert!(connections.open(HOST, now).is_some());
    }

    #[test]
    fn answers_that_nobody_takes_are_bounded() {
        let connections = Arc::new(Connections::default());
        let now = Instant::now();
        let held: Vec<_> = (0..20)
            .map(|_| connections.open(HOST, now).unwrap())
            .collect();
        let mut answers = Vec::new();
        for (second, open) in (0..).zip(&held) {
            let mut answer = open.connection.answering(now);
            answer.ready(now + Duration::from_secs(second), MOST_HELD / 16);
            answers.push(answer);
        }
        let gone = |index: usize| held[index].connection.deadline().is_none();
        // The four surplus ones, by age.
        assert_eq!(
            (0..20).filter(|index| gone(*index)).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        drop(answers);
        assert_eq!(connections.held.load(Ordering::Relaxed), 0);
    }

    proptest! {
        /// A connection with an open request is kept longer than every idle one.
        #[test]
        fn the_busy_outlive_the_idle(
            phases in proptest::collection::vec((any::<bool>(), 0_u64..100), 1..20),
        ) {
            let start = Instant::now();
            let phases: Vec<_> = (0_u64..).zip(phases).map(|(id, (busy, at))| {
                let since = start + Duration::from_secs(at);
                (id, if busy { Phase::Taking(since) } else { Phase::Idle(since) }, 1)
            }).collect();
            let now = start + Duration::from_secs(100);
            let chosen = victim(phases.iter().copied(), now);
            let is_idle = |phase: &Phase| matches!(phase, Phase::Idle(_));
            if phases.iter().any(|(_, phase, _)| is_idle(phase)) {
                let chosen = chosen.unwrap();
                let (_, phase, _) = phases.iter().find(|(id, ..)| *id == chosen).unwrap();
                prop_assert!(is_idle(phase));
            }
        }
    }
}
