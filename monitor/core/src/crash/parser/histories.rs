//! Sorts the lines of a file: those of each host and, if CPUs print at the same time, those of each
//! task or CPU.

use super::line::Line;

/// Most hosts whose lines are kept apart at once. If there are more, the one that has been silent
/// longest is closed.
const MAX_HOSTS: usize = 64;
/// Most lines of a report that are sorted by caller.
const MAX_LINES: usize = 1024;
/// Longest pause within a report.
const PAUSE_SECONDS: f64 = 1.0;

/// Reader of the lines of one host.
pub(super) trait Read {
    fn line(&mut self, line: &Line);
    /// Whether the next lines are of another boot.
    fn new_boot(&mut self);
    /// Whether a line starts a report.
    fn starts_report(line: &Line) -> bool;
}

pub(super) struct History<R> {
    pub(super) host: Option<String>,
    pub(super) reader: R,
    boot: Option<String>,
    used: u64,
    report: Vec<Line>,
}

pub(super) struct Histories<R> {
    list: Vec<History<R>>,
    current: usize,
    lines: u64,
    /// Number of hosts that were closed before the end.
    pub(super) closed: u64,
}

impl<R: Read> Histories<R> {
    pub(super) const fn new() -> Self {
        Self {
            list: Vec::new(),
            current: 0,
            lines: 0,
            closed: 0,
        }
    }

    /// Passes a line to its host's reader. Returns a history that had to be closed.
    pub(super) fn line(&mut self, line: Line, new: impl FnOnce() -> R) -> Option<History<R>> {
        self.lines += 1;
        if line.new_boot {
            self.list.iter_mut().for_each(History::new_boot);
            return None;
        }
        let known = self.find(line.host.as_deref());
        let mut closed = None;
        self.current = known.unwrap_or_else(|| {
            closed = self.oldest();
            self.list.push(History {
                host: line.host.clone(),
                reader: new(),
                boot: None,
                used: 0,
                report: Vec::new(),
            });
            self.list.len() - 1
        });
        if let Some(history) = self.list.get_mut(self.current) {
            history.used = self.lines;
            history.line(line);
        }
        closed
    }

    /// A line without a host belongs to the host of the line before; a host that is named for the
    /// first time may be the one that had no name so far.
    fn find(&mut self, host: Option<&str>) -> Option<usize> {
        if host.is_none() {
            return (self.current < self.list.len()).then_some(self.current);
        }
        let same = |history: &History<R>| history.host.as_deref() == host;
        if let Some(at) = self.list.iter().position(same) {
            return Some(at);
        }
        let at = self
            .list
            .iter()
            .position(|history| history.host.is_none())?;
        self.list.get_mut(at)?.host = host.map(str::to_owned);
        Some(at)
    }

    fn oldest(&mut self) -> Option<History<R>> {
        if self.list.len() < MAX_HOSTS {
            return None;
        }
        let at =
            (0..self.list.len()).min_by_key(|at| self.list.get(*at).map(|known| known.used))?;
        self.closed += 1;
        let mut history = self.list.swap_remove(at);
        history.flush();
        Some(history)
    }

    /// The remaining histories at the end of the text, that of the last line's host at the end.
    pub(super) fn rest(mut self) -> Vec<History<R>> {
        self.list.iter_mut().for_each(History::flush);
        self.list.sort_by_key(|history| history.used);
        self.list
    }
}

impl<R: Read> History<R> {
    fn new_boot(&mut self) {
        self.flush();
        self.reader.new_boot();
    }

    fn line(&mut self, line: Line) {
        if let Some(boot) = &line.boot
            && self.boot.as_ref() != Some(boot)
        {
            if self.boot.is_some() {
                self.new_boot();
            }
            self.boot = Some(boot.clone());
        }
        if let Some(last) = self.report.last() {
            let pause = last
                .clock
                .zip(line.clock)
                .map(|(last, now)| (now - last).abs());
            let over = pause.is_none_or(|pause| pause > PAUSE_SECONDS);
            if over || line.caller.is_none() || self.report.len() == MAX_LINES {
                self.flush();
            }
        }
        if line.caller.is_some() && (!self.report.is_empty() || R::starts_report(&line)) {
            self.report.push(line);
        } else {
            self.reader.line(&line);
        }
    }

    /// Reads the report with the lines of each caller together, in the order of the callers' first
    /// lines.
    fn flush(&mut self) {
        let mut lines = std::mem::take(&mut self.report);
        while let Some(first) = lines.first() {
            let caller = first.caller.clone();
            let (own, others) = lines.into_iter().partition(|line| line.caller == caller);
            lines = others;
            let own: Vec<Line> = own;
            own.iter().for_each(|line| self.reader.line(line));
        }
    }
}
