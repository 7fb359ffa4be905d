//! Attaches one probe by the best method that works, and loads the task iterator.

use std::io;

use aya::{
    Btf as AyaBtf, BtfError, Ebpf,
    programs::{FEntry, Iter, KProbe, Program, ProgramError, RawTracePoint},
};
use livepatch_monitor_ebpf::{Hook, Site};
use tracing::debug;

use super::{Method, ProbeStatus, Probes, TASK_SCAN, error::brief};
use crate::kernel::{layout::Layout, namespace::PidNsVisibility};

impl Probes {
    pub(super) fn attach_probe(&mut self, hook: &Hook, btf: Option<&AyaBtf>) {
        debug!(probe = hook.kind.name(), "attaching");
        let mut problems = Vec::new();
        let mut attached = Method::None;
        let mut tried = |method: Method, result: Result<(), String>| match result {
            Ok(()) => attached = method,
            Err(error) => problems.push(format!("{}: {error}", method.name())),
        };
        match hook.site {
            Site::Function {
                symbols,
                variadic,
                fentry,
                kprobe,
            } => {
                let by_fentry = btf.map(|btf| self.attach_fentry(fentry, symbols, btf));
                let done = matches!(by_fentry, Some(Ok(())));
                if let Some(result) = by_fentry.filter(|result| !is_expected(result, variadic)) {
                    tried(Method::Fentry, result.map_err(|failed| failed.reason));
                }
                if !done {
                    let symbols = [symbols, variadic].concat();
                    tried(Method::Kprobe, self.attach_kprobe(kprobe, &symbols));
                }
            }
            Site::Tracepoint { program, name } => {
                tried(Method::Tracepoint, self.attach_tracepoint(program, name));
            }
        }
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        self.status.push(ProbeStatus {
            probe: hook.kind.name(),
            method: attached,
            problem,
        });
    }

    fn attach_fentry(&mut self, name: &str, symbols: &[&str], btf: &AyaBtf) -> Result<(), Failed> {
        let program: &mut FEntry = program(&mut self.ebpf, name)?;
        first_that_works(symbols, |symbol| {
            program.load(symbol, btf)?;
            program.attach().map(drop)
        })
    }

    fn attach_kprobe(&mut self, name: &str, symbols: &[&str]) -> Result<(), String> {
        let program: &mut KProbe = program(&mut self.ebpf, name)?;
        program.load().map_err(|error| brief(&error))?;
        let attached = first_that_works(symbols, |symbol| program.attach(symbol, 0).map(drop));
        attached.map_err(|failed| failed.reason)
    }

    fn attach_tracepoint(&mut self, name: &str, tracepoint: &str) -> Result<(), String> {
        let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
        program.load().map_err(|error| brief(&error))?;
        match program.attach(tracepoint) {
            Ok(_) => Ok(()),
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound =>
            {
                Err(format!("this kernel has no tracepoint {tracepoint}"))
            }
            Err(error) => Err(brief(&error)),
        }
    }

    pub(super) fn load_task_scan(
        &mut self,
        btf: Option<&AyaBtf>,
        layout: &Layout,
        visibility: PidNsVisibility,
    ) {
        let result = match btf {
            None => Err("needs the kernel's BTF".to_owned()),
            Some(_) if visibility != PidNsVisibility::Whole => {
                Err("would show only the tasks of this PID namespace".to_owned())
            }
            Some(_) if layout.addresses_hidden.is_some() => {
                Err("needs the addresses of the kernel's variables".to_owned())
            }
            Some(_) if !layout.can_scan() => {
                Err("cannot locate the kernel's task and transition state".to_owned())
            }
            Some(btf) => program::<Iter>(&mut self.ebpf, "scan_tasks")
                .and_then(|program| program.load("task", btf).map_err(|error| brief(&error))),
        };
        self.status.push(ProbeStatus {
            probe: TASK_SCAN,
            method: if result.is_ok() {
                Method::Iterator
            } else {
                Method::None
            },
            problem: result.err(),
        });
    }
}

pub(super) fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, String>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| format!("program {name} is not in the object"))?
        .try_into()
        .map_err(|error: ProgramError| brief(&error))
}

/// Why a probe could not be attached.
#[derive(Debug)]
struct Failed {
    reason: String,
    /// The kernel's type information has no function of any of the names.
    is_absent: bool,
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self {
            reason,
            is_absent: false,
        }
    }
}

/// A kernel may have the function under a variadic name only: then it is no fault that fentry cannot
/// be used. Where it has the other one, a failure is one.
fn is_expected(result: &Result<(), Failed>, variadic: &[&str]) -> bool {
    !variadic.is_empty() && result.as_ref().is_err_and(|failed| failed.is_absent)
}

/// Tries each name of a function; the error is that of the last one.
fn first_that_works(
    symbols: &[&str],
    mut attach: impl FnMut(&str) -> Result<(), ProgramError>,
) -> Result<(), Failed> {
    let mut last = Failed::from("no symbol to attach to".to_owned());
    let mut is_absent = true;
    for symbol in symbols {
        match attach(symbol) {
            Ok(()) => return Ok(()),
            Err(error) => {
                is_absent &= matches!(
                    error,
                    ProgramError::Btf(BtfError::UnknownBtfTypeName { .. })
                );
                let reason = format!("{symbol}: {}", brief(&error));
                last = Failed { reason, is_absent };
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent(symbol: &str) -> ProgramError {
        ProgramError::Btf(BtfError::UnknownBtfTypeName {
            type_name: symbol.to_owned(),
        })
    }

    /// `vpanic` came with 6.17; kernels before it have `panic` only, which is variadic.
    #[test]
    fn a_failure_is_expected_only_where_the_function_is_absent() {
        let before = first_that_works(&["vpanic"], |symbol| Err(absent(symbol)));
        assert!(is_expected(&before, &["panic"]));
        assert!(!is_expected(&before, &[]));
        let since = first_that_works(&["vpanic"], |_| Err(ProgramError::NotLoaded));
        assert!(!is_expected(&since, &["panic"]));
        let reason = since.unwrap_err().reason;
        assert!(reason.starts_with("vpanic: "), "{reason}");
        // One of two names is there.
        for refused in ["vpanic", "panic_new"] {
            let result = first_that_works(&["vpanic", "panic_new"], |symbol| {
                Err(match symbol == refused {
                    true => ProgramError::NotLoaded,
                    false => absent(symbol),
                })
            });
            assert!(!is_expected(&result, &["panic"]), "{refused}");
        }
        assert!(!is_expected(&Ok(()), &["panic"]));
    }
}
