//! Runs the work of a test run in parallel, in a defined order.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::Result;

/// Work that the preparation makes possible: two lists, from which the workers take alternately.
pub(super) struct More<W> {
    /// Work that comes after the work that needed no preparation.
    pub(super) first: Vec<W>,
    /// Work that is taken alternately with `first`.
    pub(super) second: Vec<W>,
}

/// Work that is still to be done.
struct Queue<W> {
    state: Mutex<State<W>>,
    changed: Condvar,
}

struct State<W> {
    waiting: VecDeque<W>,
    /// Whether all work has been queued.
    complete: bool,
    /// Whether nothing more is started.
    stopped: bool,
}

impl<W> Queue<W> {
    fn new(first: Vec<W>) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: first.into(),
                complete: false,
                stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complete(&self, more: More<W>) {
        let mut state = self.state();
        let first = state.waiting.drain(..).chain(more.first).collect();
        state.waiting = interleaved(first, more.second);
        state.complete = true;
        self.changed.notify_all();
    }

    fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        self.changed.notify_all();
    }

    /// The next item; waits if more may still be queued.
    fn next(&self) -> Option<W> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(work) = state.waiting.pop_front() {
                return Some(work);
            }
            if state.complete {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Alternates between both, as long as both have items.
fn interleaved<W>(first: Vec<W>, second: Vec<W>) -> VecDeque<W> {
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = VecDeque::new();
    loop {
        let pair = (first.next(), second.next());
        if pair.0.is_none() && pair.1.is_none() {
            return mixed;
        }
        mixed.extend(pair.0);
        mixed.extend(pair.1);
    }
}

/// Does all work, `jobs` at a time. `first` is what can be done while `prepare` makes what the rest
/// needs, which is one of the jobs. If `perform` returns `false`, nothing new is started. Returns
/// how many items were not done.
///
/// # Errors
///
/// The preparation failed.
pub(super) fn side_by_side<W: Send>(
    jobs: usize,
    first: Vec<W>,
    prepare: impl FnOnce() -> Result<More<W>> + Send,
    perform: impl Fn(W) -> bool + Sync,
) -> Result<usize> {
    let queue = Queue::new(first);
    let work = || {
        while let Some(work) = queue.next() {
            if !perform(work) {
                queue.stop();
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(work);
        }
        match prepare() {
            Ok(more) => queue.complete(more),
            Err(error) => {
                queue.stop();
                return Err(error);
            }
        }
        work();
        Ok(())
    })?;
    let left = queue.state().waiting.len();
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    fn more(first: &[&'static str], second: &[&'static str]) -> More<&'static str> {
        More {
            first: first.to_vec(),
            second: second.to_vec(),
        }
    }

    #[test]
    fn one_job_does_all_by_turns_after_the_preparation() {
        let done = Mutex::new(Vec::new());
        let left = side_by_side(
            1,
            vec!["check 1", "check 2"],
            || Ok(more(&["packages"], &["machine 1", "machine 2"])),
            |work| {
                done.lock().unwrap().push(work);
                true
            },
        );
        assert_eq!(left.unwrap(), 0);
        assert_eq!(
            done.into_inner().unwrap(),
            ["check 1", "machine 1", "check 2", "machine 2", "packages"]
        );
    }

    #[test]
    fn a_check_runs_beside_the_preparation() {
        // Each of them ends only if the other is running.
        let both = Barrier::new(2);
        let left = side_by_side(
            2,
            vec!["check"],
            || {
                both.wait();
                Ok(more(&[], &["machine"]))
            },
            |work| {
                if work == "check" {
                    both.wait();
                }
                true
            },
        );
        assert_eq!(left.unwrap(), 0);
    }

    #[test]
    fn nothing_is_started_after_a_failure() {
        let started = AtomicUsize::new(0);
        let left = side_by_side(
            1,
            vec!["check"],
            || Ok(more(&[], &["machine 1", "machine 2"])),
            |_| {
                started.fetch_add(1, Ordering::Relaxed);
                false
            },
        );
        assert_eq!(left.unwrap(), 2);
        assert_eq!(started.into_inner(), 1);
    }

    #[test]
    fn a_preparation_that_fails_ends_it() {
        let result = side_by_side(
            3,
            Vec::<&str>::new(),
            || anyhow::bail!("no kernel"),
            |_| true,
        );
        assert_eq!(result.unwrap_err().to_string(), "no kernel");
    }
}
