//! The report as text: the verdict, the findings with their remedies, and then the facts.

use std::fmt::Write as _;

use super::{Judged, Report};
use livepatch_core::{
    blockers::printable,
    preflight::{Finding, Severity, Verdict, forecast::Forecast, module::Module},
};

/// Most functions of one object that are listed.
const FUNCTIONS: usize = 20;

pub(super) fn write(report: &Report, limit: usize) -> String {
    let mut text = String::new();
    for (number, judged) in report.modules.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        one(&mut text, judged, limit);
    }
    if report.modules.len() > 1 {
        text.push_str(
            "\nload them one at a time: while one is in transition, the kernel refuses the next\n",
        );
    }
    let unknown = || "unknown".to_owned();
    let kernel = report.kernel.as_deref().map_or_else(unknown, shown);
    let _ = write!(text, "\nthis host: kernel {kernel}");
    let threads = report
        .threads
        .map_or_else(unknown, |threads| threads.to_string());
    let cpus = report.cpus.map_or_else(unknown, |cpus| cpus.to_string());
    let _ = writeln!(text, ", threads: {threads}, CPUs: {cpus}");
    text
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn shown(text: &str) -> String {
    printable(text.as_bytes())
}

fn one(text: &mut String, judged: &Judged, limit: usize) {
    let file = shown(&judged.file.to_string_lossy());
    let _ = writeln!(text, "{file}: {}", verdict(judged));
    for finding in &judged.findings {
        line(text, finding);
    }
    if let Some(forecast) = &judged.forecast {
        tasks(text, forecast, limit);
    }
    if let Some(module) = &judged.module {
        facts(text, module);
    }
}

fn verdict(judged: &Judged) -> String {
    let count = |severity| {
        let of_it = |finding: &&Finding| finding.severity == severity;
        judged.findings.iter().filter(of_it).count()
    };
    match judged.verdict {
        Verdict::Clear => "clear: nothing is in the way".to_owned(),
        Verdict::Warnings => format!("warnings: {}", count(Severity::Warning)),
        verdict => verdict.words().to_owned(),
    }
}

fn line(text: &mut String, finding: &Finding) {
    let word = match finding.severity {
        Severity::Failure => "FAILS  ",
        Severity::Unknown => "UNKNOWN",
        Severity::Warning => "WARNING",
        Severity::Info => "info   ",
    };
    let _ = writeln!(text, "  {word}  {}", finding.what);
    if !finding.remedy.is_empty() {
        let _ = writeln!(text, "           do: {}", finding.remedy);
    }
}

fn tasks(text: &mut String, forecast: &Forecast, limit: usize) {
    let how = match forecast.source {
        "iterator" => "the task iterator",
        _ => "/proc",
    };
    let _ = writeln!(
        text,
        "\n  {} in {:.1} s by {how}, {}: {} would hold it up",
        counted(u64::from(forecast.samples), "sample"),
        forecast.seconds,
        counted(u64::try_from(forecast.tasks).unwrap_or(u64::MAX), "task"),
        match forecast.likely.len() {
            0 => "none".to_owned(),
            tasks => tasks.to_string(),
        }
    );
    for likely in forecast.likely.iter().take(limit) {
        let kind = if likely.kthread {
            "kernel thread"
        } else {
            "process"
        };
        let _ = write!(text, "  {kind} {} {:?}", likely.pid, shown(&likely.comm));
        if likely.tid != likely.pid {
            let _ = write!(text, " thread {}", likely.tid);
        }
        if let Some(unit) = &likely.unit {
            let _ = write!(text, ", unit {}", shown(unit));
        }
        let _ = writeln!(
            text,
            ", state {}, in {} of {} samples\n    {}: {}",
            likely.state,
            likely.seen,
            forecast.samples,
            likely.reason.name(),
            likely.detail
        );
        for frame in &likely.stack {
            let _ = writeln!(text, "      {}", shown(frame));
        }
    }
    let hidden = forecast.likely.len().saturating_sub(limit);
    if hidden > 0 {
        let _ = writeln!(text, "  and {hidden} more tasks (see --limit)");
    }
}

fn facts(text: &mut String, module: &Module) {
    let unknown = |fact: &Option<String>| fact.as_deref().map_or_else(|| "none".to_owned(), shown);
    let _ = writeln!(
        text,
        "\n  module {}, srcversion {}, {}, {}",
        shown(&module.name),
        unknown(&module.srcversion),
        if module.signed {
            "signed"
        } else {
            "not signed"
        },
        match module.replace {
            Some(true) => "replaces all other livepatches",
            Some(false) => "stacks on other livepatches",
            None => "whether it replaces others is decided by its code",
        }
    );
    let _ = writeln!(text, "  built for {}", unknown(&module.vermagic));
    for object in &module.objects {
        let names = object.functions.iter().take(FUNCTIONS);
        let names: Vec<String> = names
            .map(|function| match function.sympos {
                0 => shown(&function.name),
                sympos => format!("{},{sympos}", shown(&function.name)),
            })
            .collect();
        let rest = object.functions.len().saturating_sub(FUNCTIONS);
        let more = if rest > 0 {
            format!(" and {rest} more")
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "  {}: {}{more}",
            shown(&object.name),
            names.join(", ")
        );
    }
}
