//! Decides whose password is checked next. A check takes a good part of a second of a processor, so
//! they run one at a time, and the waiting places are shared by address: an address with wrong
//! guesses makes room for the others, and is checked after them. Pure, except for the waiting
//! itself.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::exporter::lock;

/// Most checks that may wait.
const PLACES: usize = 32;

/// Most checks of one address that may wait: people and servers behind one proxy share it.
const OF_ONE_ADDRESS: usize = 8;

/// The rank of an unknown address, which is the best: its wrong passwords, and its places including
/// the requested one.
const STRANGER: (u32, usize) = (0, 1);

/// Addresses whose wrong passwords are remembered.
const REMEMBERED: usize = 1024;

/// How long a wrong password is remembered.
const MEMORY: Duration = Duration::from_secs(600);

/// The checks that wait, and the one that runs.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<State>);

/// There is no room for another check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The right to check a password, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    queue: Arc<Queue>,
    address: IpAddr,
}

#[derive(Debug, Default)]
struct State {
    checking: bool,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    wrong: BTreeMap<IpAddr, Guesses>,
}

#[derive(Debug)]
struct Waiting {
    address: IpAddr,
    turn: oneshot::Sender<Turn>,
}

#[derive(Clone, Copy, Debug)]
struct Guesses {
    count: u32,
    last: Instant,
}

/// Leaves its place if the client has disconnected.
struct Place<'a> {
    queue: &'a Queue,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.queue.0).waiting.remove(&self.id);
    }
}

impl Queue {
    /// Waits until a password of this address may be checked.
    ///
    /// # Errors
    /// There is no place to wait, or it was given to another address.
    pub(super) async fn turn(self: &Arc<Self>, address: IpAddr) -> Result<Turn, Full> {
        let address = network(address);
        let (id, received) = {
            let mut state = lock(&self.0);
            if !state.checking {
                state.checking = true;
                return Ok(Turn {
                    queue: self.clone(),
                    address,
                });
            }
            state.enter(address, Instant::now())?
        };
        let _place = Place { queue: self, id };
        // Its sender is dropped when another takes its place.
        received.await.map_err(|_| Full)
    }

    /// Gives the turn to the next.
    fn pass_on(self: &Arc<Self>) {
        let next = {
            let mut state = lock(&self.0);
            let next = state.leave_first(Instant::now());
            state.checking = next.is_some();
            next
        };
        if let Some(Waiting { address, turn }) = next {
            let queue = self.clone();
            // If the client has disconnected in the meantime, the turn is dropped and passes to the
            // next.
            drop(turn.send(Turn { queue, address }));
        }
    }
}

impl Turn {
    /// Records whether the password was right.
    pub(super) fn checked(&self, right: bool) {
        lock(&self.queue.0).checked(self.address, right, Instant::now());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.clone().pass_on();
    }
}

impl State {
    /// Takes a place, displacing another address if necessary.
    fn enter(
        &mut self,
        address: IpAddr,
        now: Instant,
    ) -> Result<(u64, oneshot::Receiver<Turn>), Full> {
        let held = self.held(address);
        if held >= OF_ONE_ADDRESS {
            return Err(Full);
        }
        if self.waiting.len() >= PLACES {
            // Including the requested one, this address has one more place.
            let standing = (self.wrong(address, now), held + 1);
            let victim = self
                .waiting
                .iter()
                .map(|(id, other)| {
                    let other = other.address;
                    ((self.wrong(other, now), self.held(other)), *id)
                })
                .max()
                .filter(|(other, _)| *other > standing);
            match victim {
                Some((_, id)) => drop(self.waiting.remove(&id)),
                // A place is always free for it; there are no more of these than
                // connections.
                None if standing == STRANGER => {}
                None => return Err(Full),
            }
        }
        let id = self.next;
        self.next += 1;
        let (turn, received) = oneshot::channel();
        self.waiting.insert(id, Waiting { address, turn });
        Ok((id, received))
    }

    /// Removes the next check: the one that has waited longest, of the address with the fewest
    /// wrong passwords.
    fn leave_first(&mut self, now: Instant) -> Option<Waiting> {
        let rank = |(id, waiting): (&u64, &Waiting)| (self.wrong(waiting.address, now), *id);
        let (_, id) = self.waiting.iter().map(rank).min()?;
        self.waiting.remove(&id)
    }

    fn held(&self, address: IpAddr) -> usize {
        let waiting = self.waiting.values();
        waiting.filter(|other| other.address == address).count()
    }

    /// Recent wrong passwords of the address.
    fn wrong(&self, address: IpAddr, now: Instant) -> u32 {
        let guesses = self.wrong.get(&address);
        let recent = guesses.filter(|guesses| now.duration_since(guesses.last) < MEMORY);
        recent.map_or(0, |guesses| guesses.count)
    }

    fn checked(&mut self, address: IpAddr, right: bool, now: Instant) {
        if right {
            self.wrong.remove(&address);
            return;
        }
        let count = self.wrong(address, now).saturating_add(1);
        self.wrong.insert(address, Guesses { count, last: now });
        if self.wrong.len() > REMEMBERED {
            let oldest = self.wrong.iter().min_by_key(|(_, guesses)| guesses.last);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.wrong.remove(&oldest);
            }
        }
    }
}

/// What counts as one address: for IPv6 a /64, which one host has completely.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) >> 64 << 64;
            Ipv6Addr::from(prefix).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn host(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    /// All places are taken, by that many addresses, each of which has guessed wrong once.
    fn full(addresses: u8, now: Instant) -> (State, Vec<oneshot::Receiver<Turn>>) {
        let mut state = State::default();
        let mut receivers = Vec::new();
        for number in 0..addresses {
            state.checked(host(number), false, now);
        }
        for number in (0..addresses).cycle().take(PLACES) {
            receivers.push(state.enter(host(number), now).unwrap().1);
        }
        (state, receivers)
    }

    #[test]
    fn one_address_has_its_share_and_no_more() {
        let (mut state, now) = (State::default(), Instant::now());
        let mut kept = Vec::new();
        for _ in 0..OF_ONE_ADDRESS {
            kept.push(state.enter(host(1), now).unwrap());
        }
        assert_eq!(state.enter(host(1), now).unwrap_err(), Full);
        assert!(state.enter(host(2), now).is_ok());
    }

    #[test]
    fn whoever_has_not_guessed_wrong_finds_a_place_and_is_next() {
        let now = Instant::now();
        for addresses in [4, 16, 32] {
            let (mut state, mut receivers) = full(addresses, now);
            let (id, _kept) = state.enter(host(200), now).unwrap();
            assert_eq!(state.waiting.len(), PLACES);
            let closed = |receiver: &mut oneshot::Receiver<Turn>| {
                matches!(
                    receiver.try_recv(),
                    Err(oneshot::error::TryRecvError::Closed)
                )
            };
            let evicted = receivers
                .iter_mut()
                .filter_map(|receiver| closed(receiver).then_some(()));
            assert_eq!(evicted.count(), 1);
            assert!(state.waiting.contains_key(&id));
            assert_eq!(state.leave_first(now).unwrap().address, host(200));
            // Another wrong guesser displaces no one.
            let (mut state, _receivers) = full(addresses, now);
            state.checked(host(201), false, now);
            let (before, _) = state.waiting.last_key_value().unwrap();
            let before = *before;
            if addresses == 32 {
                assert_eq!(state.enter(host(201), now).unwrap_err(), Full);
                assert_eq!(*state.waiting.last_key_value().unwrap().0, before);
            }
        }
    }

    #[test]
    fn a_place_is_free_for_an_address_that_holds_none() {
        let (mut state, now) = (State::default(), Instant::now());
        let mut kept = Vec::new();
        for number in 0..u8::try_from(PLACES).unwrap() {
            kept.push(state.enter(host(number), now).unwrap());
        }
        kept.push(state.enter(host(100), now).unwrap());
        assert_eq!(state.enter(host(100), now).unwrap_err(), Full);
    }

    #[test]
    fn wrong_passwords_are_forgotten() {
        let (mut state, now) = (State::default(), Instant::now());
        state.checked(host(1), false, now);
        assert_eq!(state.wrong(host(1), now), 1);
        assert_eq!(state.wrong(host(1), now + MEMORY), 0);
        state.checked(host(1), true, now);
        assert_eq!(state.wrong(host(1), now), 0);
        for number in 0..REMEMBERED * 2 {
            let address = IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap()));
            state.checked(address, false, now);
        }
        assert_eq!(state.wrong.len(), REMEMBERED);
    }

    #[test]
    fn a_host_with_many_addresses_is_one() {
        let parse = |text: &str| network(text.parse().unwrap());
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8::1"), parse("2001:db8:0:1::1"));
        assert_eq!(parse("::ffff:192.0.2.1"), parse("192.0.2.1"));
    }

    #[test]
    fn the_turn_goes_from_one_to_the_next() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let queue = Arc::new(Queue::default());
            let first = queue.turn(host(1)).await.unwrap();
            let waiting = |number: u8| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.turn(host(number)).await })
            };
            let (gone, second) = (waiting(2), waiting(3));
            tokio::task::yield_now().await;
            assert_eq!(lock(&queue.0).waiting.len(), 2);
            gone.abort();
            assert!(gone.await.is_err());
            drop(first);
            let second = second.await.unwrap().unwrap();
            assert_eq!(second.address, host(3));
            drop(second);
            assert!(!lock(&queue.0).checking);
            assert!(lock(&queue.0).waiting.is_empty());
        });
    }
}
