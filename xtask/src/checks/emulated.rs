//! `cargo xtask emulated`: the unit tests of the core on other processors, under QEMU's user-mode
//! emulation. Above all s390x, which is big-endian: a parser that reads a number in the order of
//! this machine, or a file written in it, fails there.
//!
//! The standard library is built from its source, as there is none to fetch for Debian's compiler.

use std::process::Command;

use anyhow::Result;

use crate::{
    build::toolchain::Toolchain,
    host::{packages, paths, process},
};

/// A processor, by its names.
struct Processor {
    /// In Debian's packages of C libraries.
    debian: &'static str,
    /// In the names of GNU's and QEMU's programs.
    gnu: &'static str,
}

impl Processor {
    /// The compiler's name of it.
    fn target(&self) -> String {
        format!("{}-unknown-linux-gnu", self.gnu)
    }

    /// The C compiler, which links.
    fn linker(&self) -> String {
        format!("{}-linux-gnu-gcc", self.gnu)
    }

    /// Debian's package of it, and that of the C library.
    fn packages(&self) -> [String; 2] {
        [
            format!("gcc-{}-linux-gnu", self.gnu),
            format!("libc6-dev-{}-cross", self.debian),
        ]
    }

    /// How cargo runs a program for it; an emulator that hangs ends the check.
    fn runner(&self) -> String {
        format!("timeout {LIMIT} qemu-{0} -L /usr/{0}-linux-gnu", self.gnu)
    }
}

const PROCESSORS: [Processor; 2] = [
    Processor {
        debian: "s390x",
        gnu: "s390x",
    },
    Processor {
        debian: "arm64",
        gnu: "aarch64",
    },
];

/// Cases of each property test, instead of 256, which would take most of the run. A wrong byte order
/// does not need a rare value; rare values are tried on this machine's own processor.
const CASES: &str = "8";

/// Seconds that the tests may take on one processor.
const LIMIT: u32 = 900;

/// Tests that do not run emulated, with the reason.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "crash::parser::prefix::tests::opening_braces_are_no_records",
        "of 100,000 lines, for the time they take, which the emulator's own hides",
    ),
    (
        "crash::tests::properties::a_flood_is_bounded",
        "of amounts of text, for their bounds; formats are those of other tests",
    ),
    (
        "crash::tests::kinds::hostile",
        "of thousands of texts in formats that other tests have, too",
    ),
];

/// Runs the tests on each processor.
pub(crate) fn run() -> Result<()> {
    let toolchain = Toolchain::choose("to build for other processors")?;
    let mut needed = vec!["qemu-user".to_owned()];
    needed.extend(PROCESSORS.iter().flat_map(Processor::packages));
    let needed: Vec<&str> = needed.iter().map(String::as_str).collect();
    packages::install(&needed, "to run unit tests on emulated processors")?;
    // Together, so that neither core waits for the longest crate of one.
    process::step("build the core's tests for s390x and arm64", || {
        process::run(cargo_test(toolchain, &PROCESSORS)?.arg("--no-run"))
    })?;
    for processor in PROCESSORS.chunks(1) {
        let names: Vec<&str> = processor.iter().map(|one| one.debian).collect();
        process::step(&format!("the core's tests on {}", names.concat()), || {
            let mut command = cargo_test(toolchain, processor)?;
            command.arg("--");
            for (test, _) in LEFT_OUT {
                command.args(["--skip", test]);
            }
            process::run(&mut command)
        })?;
    }
    for (test, reason) in LEFT_OUT {
        super::leave_out(format!("{test} on emulated processors: {reason}"));
    }
    Ok(())
}

/// The tests for these processors.
fn cargo_test(toolchain: Toolchain, processors: &[Processor]) -> Result<Command> {
    let mut command = toolchain.cargo();
    command
        .current_dir(paths::root()?)
        .args(["test", "--quiet", "-Z", "build-std=std,test"])
        // Without the names in backtraces, and the four crates that read them.
        .args(["-Z", "build-std-features=panic-unwind"])
        .args(["--package", "livepatch-core", "--lib"])
        .args(["--profile", "emulated"])
        // Not the workspace's folder: another compiler would rebuild everything there.
        .arg("--target-dir")
        .arg(paths::target()?.join("emulated"))
        .env("PROPTEST_CASES", CASES);
    for processor in processors {
        let target = processor.target();
        let variable = target.replace('-', "_").to_uppercase();
        command
            .args(["--target", &target])
            .env(
                format!("CARGO_TARGET_{variable}_LINKER"),
                processor.linker(),
            )
            .env(
                format!("CARGO_TARGET_{variable}_RUNNER"),
                processor.runner(),
            );
    }
    Ok(command)
}
