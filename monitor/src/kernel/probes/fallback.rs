//! Which other source delivers a signal if its own probe cannot be attached.

use livepatch_core::crash::Signal;
use livepatch_monitor_ebpf::EventKind;

use super::{Method, ProbeStatus};

/// The hooks of signals whose line in the log has level error or a more severe one.
fn in_the_log() -> impl Iterator<Item = EventKind> {
    let logged = |signal: &Signal| signal.fallback() == Some(EventKind::Printk);
    let first = |signal: Signal| signal.hooks().first().copied();
    Signal::ALL.into_iter().filter(logged).filter_map(first)
}

/// Falls back to the signal's log line if the log hook sees it. Before 6.0 the kernel
/// passes to that hook only what the console prints, and some of these kernels lack the
/// tracepoint `rcu_stall_warning`.
pub(super) fn by_the_log(probes: &mut [ProbeStatus], console_shows_errors: bool) {
    let hooked = probes
        .iter()
        .any(|probe| probe.probe == EventKind::Printk.name() && probe.method.is_probe());
    if !hooked {
        return;
    }
    let names: Vec<_> = in_the_log().map(EventKind::name).collect();
    let missing = probes
        .iter_mut()
        .filter(|probe| probe.method == Method::None && names.contains(&probe.probe));
    for probe in missing {
        let instead = if console_shows_errors {
            probe.method = Method::Log;
            "its line in the kernel log is used instead"
        } else {
            "its line in the kernel log could be used instead if kernel.printk were 4 or more"
        };
        let problem = probe.problem.take();
        probe.problem = Some(match problem {
            Some(problem) => format!("{problem}; {instead}"),
            None => instead.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(printk: Method) -> Vec<ProbeStatus> {
        let status = |kind: EventKind, method, problem: Option<&str>| ProbeStatus {
            probe: kind.name(),
            method,
            problem: problem.map(str::to_owned),
        };
        vec![
            status(EventKind::EnablePatch, Method::None, Some("no")),
            status(EventKind::Printk, printk, None),
            status(EventKind::RcuStall, Method::None, Some("no")),
            status(EventKind::HungTask, Method::Tracepoint, None),
        ]
    }

    fn methods(probes: &[ProbeStatus]) -> Vec<Method> {
        probes.iter().map(|probe| probe.method).collect()
    }

    #[test]
    fn the_log_tells_what_it_has_a_line_of() {
        let mut probes = probes(Method::Tracepoint);
        by_the_log(&mut probes, true);
        assert_eq!(
            methods(&probes),
            [
                Method::None,
                Method::Tracepoint,
                Method::Log,
                Method::Tracepoint
            ]
        );
        let problem = probes[2].problem.as_deref().unwrap();
        assert!(problem.starts_with("no; its line"), "{problem}");
        assert_eq!(probes[0].problem.as_deref(), Some("no"));
    }

    #[test]
    fn lines_that_are_not_seen_tell_nothing() {
        let mut unhooked = probes(Method::None);
        by_the_log(&mut unhooked, true);
        assert_eq!(methods(&unhooked), methods(&probes(Method::None)));

        let mut silenced = probes(Method::Tracepoint);
        by_the_log(&mut silenced, false);
        assert_eq!(methods(&silenced), methods(&probes(Method::Tracepoint)));
        let problem = silenced[2].problem.as_deref().unwrap();
        assert!(problem.contains("kernel.printk"), "{problem}");
    }
}
