//! What an event is, once all its lines are read.

use super::{
    super::{
        super::{
            attribution, proof,
            record::{CrashRecord, Implicated, NonFatalSignal},
            signal::{Kind, Signal},
        },
        Reading,
        place::place,
        symbol::{MAX_NAME, cut},
    },
    Event,
};

impl Event {
    /// Why it is not believed.
    pub(in super::super) fn doubt(&self) -> String {
        let headline: String = self.headline.chars().take(160).collect();
        match self.suspect {
            true => proof::suspect_headline(&headline),
            false => proof::lone_headline(&headline),
        }
    }

    /// The record, or what it was if it was not a crash. `release` is the boot's.
    pub(in super::super) fn finish(
        mut self,
        release: Option<&String>,
        reading: &Reading,
    ) -> Result<CrashRecord, Box<NonFatalSignal>> {
        let kind = self.primary.kind();
        let kind = kind.or(self.panic.is_some().then_some(Kind::Panic));
        let signal = self.primary;
        let others = std::mem::take(&mut self.others);
        let report = self.report.map(str::to_owned);
        let is_report = self.report.is_some();
        let sure = self.gap.and_then(|gap| self.trace.get(..gap));
        let caller = place(self.primary, is_report, sure.unwrap_or(&self.trace));
        if self.primary == Signal::Panic && caller.is_some() {
            // "Kernel stack is corrupted in: 802e62f8"
            self.fault.take_if(|fault| fault.offset.is_none());
        }
        self.complete.faulted = self.fault.is_some();
        let function = self.fault.or(caller).filter(|_| !self.is_of_detector);
        self.complete.place = function.is_some();
        let mut record = CrashRecord {
            signals: self.signals,
            reports: self.reports,
            when: self.when,
            release: release
                .or(self.release.as_ref())
                .map(|release| cut(release, MAX_NAME)),
            headline: self.headline,
            panic: self.panic,
            function,
            cpu: self.cpu,
            comm: self.comm,
            pid: self.pid,
            taint: self.taint,
            modules: self.modules,
            trace: self.trace,
            cut: self.cut,
            report,
            ..CrashRecord::empty(kind.unwrap_or(Kind::Panic))
        };
        let complete = &self.complete;
        attribution::judge(
            &mut record,
            &self.livepatches,
            self.clock,
            complete,
            reading,
        );
        for other in others {
            if let Ok(other) = other.finish(release, reading) {
                match (record.implicated, other.implicated) {
                    (Implicated::No, Implicated::Unknown) => {
                        record.implicated = Implicated::Unknown;
                        record.unproven = other.unproven;
                    }
                    (_, Implicated::Yes) => {
                        record.take_evidence(other.evidence, Implicated::Yes);
                    }
                    (Implicated::Yes | Implicated::Unknown, _)
                    | (Implicated::No, Implicated::No) => {}
                }
            }
        }
        match kind {
            Some(_) => Ok(record),
            None => Err(Box::new(NonFatalSignal {
                signal,
                when: record.when,
                headline: record.headline,
                function: record.function,
                phase: record.phase,
                implicated: record.implicated,
                evidence: record.evidence,
                report: record.report,
                reports: record.reports,
            })),
        }
    }
}
