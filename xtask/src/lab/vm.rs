//! Runs a virtual machine: starts QEMU, reads the guest's messages, and enforces the time limits.

use std::{
    ffi::OsString,
    fs,
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{net::UnixStream, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use livepatch_monitor_tests::protocol::{Injection, Message, command_line};

use self::emulator::emulator_died;
use crate::host::process;

pub(crate) use self::emulator::EmulatorDied;

mod emulator;

const QEMU: &str = "qemu-system-x86_64";

/// How often the console and the limits are checked.
const POLL: Duration = Duration::from_millis(200);

/// From `Done` to the end of QEMU: the guest takes a moment to power off.
const POWER_OFF: Duration = Duration::from_secs(20);

/// Lines of the kernel log that a failure shows.
const CONSOLE_LINES: usize = 60;

/// A port of this machine that is forwarded to the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forward {
    /// The port on this machine's 127.0.0.1.
    pub(crate) host: u16,
    /// The port in the guest.
    pub(crate) guest: u16,
}

/// What persists from one boot of a machine to the next.
#[derive(Clone, Debug)]
pub(crate) struct Persistent {
    /// The image of its disk.
    pub(crate) disk: PathBuf,
    /// The pstore backend that keeps the kernel's log.
    pub(crate) memory: CrashMemory,
}

/// A pstore backend, and the file with its content.
#[derive(Clone, Debug)]
pub(crate) enum CrashMemory {
    /// The firmware's error record serialization table (ACPI ERST).
    Erst(PathBuf),
    /// A memory range that survives a reboot.
    Ramoops(PathBuf),
    /// No backend: a crash leaves no dump.
    None,
}

/// The kernel's message for a panic (kernel/panic.c, panic).
const KERNEL_PANIC: &str = "Kernel panic - not syncing";

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest has finished.
    Done,
    /// The guest went down as announced, and the next boot continues.
    Down,
}

/// A machine to run.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// The task of PID 1: `test`, `crash`, `interop`, `rollout`, `demo` or `bench`.
    pub(crate) mode: &'a str,
    /// The scenarios to run, comma-separated.
    pub(crate) run: &'a str,
    /// Kernel parameters beside those that every guest has.
    pub(crate) command_line: &'a [&'a str],
    /// Memory of the guest in MiB.
    pub(crate) memory: u32,
    /// One CPU whose clock advances by a nanosecond with each instruction, whatever the
    /// load of the host: times and CPU times are counts of instructions.
    pub(crate) counted: bool,
    /// Ports that are forwarded to the guest, which cannot reach the outside; empty means no
    /// network.
    pub(crate) forwards: &'a [Forward],
    /// What persists over the boot.
    pub(crate) persistent: Option<Persistent>,
    /// The file for the kernel log.
    pub(crate) console: PathBuf,
    /// If both ports are silent for this long, the guest is considered hung.
    pub(crate) silence: Duration,
    /// The time limit for the whole run.
    pub(crate) limit: Duration,
}

impl Machine<'_> {
    /// Boots the machine and passes the guest's messages on until it powers off after `Done`. Any
    /// other end, or an error from `on_message`, is an error that shows the end of the kernel log.
    pub(crate) fn run(&self, on_message: impl FnMut(Message) -> Result<()>) -> Result<()> {
        match self.boot(on_message)? {
            End::Done => Ok(()),
            End::Down => bail!("the guest went down before it was done"),
        }
    }

    /// Like [`Self::run`], but the guest may announce that it goes down. A failed scenario is
    /// passed on with the end of the kernel log.
    ///
    /// # Errors
    ///
    /// An [`EmulatorDied`] if QEMU died of its own fault.
    pub(crate) fn boot(&self, mut on_message: impl FnMut(Message) -> Result<()>) -> Result<End> {
        let result = self.watch(|mut message| {
            if let Message::ScenarioFailed { reason, .. } = &mut message {
                reason.push_str(&self.console_end());
            }
            on_message(message)
        });
        result.map_err(|error| match error.downcast::<EmulatorDied>() {
            Ok(EmulatorDied(why)) => EmulatorDied(why + &self.console_end()).into(),
            Err(error) => anyhow!("{error:#}{}", self.console_end()),
        })
    }

    fn console_end(&self) -> String {
        let tail = process::last_lines(&self.console, CONSOLE_LINES).unwrap_or_default();
        format!("\nthe end of {}:\n{tail}", self.console.display())
    }

    fn watch(&self, mut on_message: impl FnMut(Message) -> Result<()>) -> Result<End> {
        let mut qemu = Qemu::start(self)?;
        let begin = Instant::now();
        let mut heard = Instant::now();
        let mut console_size = 0;
        let mut done = false;
        let mut going_down = false;
        let mut injection: Option<(Instant, Injection)> = None;
        loop {
            let due = injection.map(|(when, _)| when.saturating_duration_since(Instant::now()));
            match qemu.lines.recv_timeout(due.unwrap_or(POLL).min(POLL)) {
                Ok(line) => {
                    heard = Instant::now();
                    // An incomplete line at the end of a boot is ignored.
                    let message = match parse(&line) {
                        Ok(Some(message)) => message,
                        Ok(None) => continue,
                        Err(_) if going_down => continue,
                        Err(error) => return Err(error),
                    };
                    match message {
                        Message::Done => done = true,
                        Message::GoingDown => going_down = true,
                        Message::Inject {
                            what,
                            after_milliseconds,
                        } => {
                            let after = Duration::from_millis(after_milliseconds);
                            injection = Some((Instant::now() + after, what));
                        }
                        _ => {}
                    }
                    on_message(message)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The port closes when QEMU ends.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if let Some((_, what)) = injection.take_if(|(when, _)| Instant::now() >= *when) {
                match what {
                    Injection::PowerCut => {
                        drop(qemu);
                        return Ok(End::Down);
                    }
                    Injection::Nmi => self.nmi()?,
                }
            }
            let size = fs::metadata(&self.console).map_or(0, |metadata| metadata.len());
            if size != console_size {
                console_size = size;
                heard = Instant::now();
            }
            if done && heard.elapsed() > POWER_OFF {
                bail!("the guest did not power off after it was done");
            }
            if heard.elapsed() > self.silence {
                bail!(
                    "no output from the guest for {} s",
                    heard.elapsed().as_secs()
                );
            }
            if begin.elapsed() > self.limit {
                bail!(
                    "the guest was not done after {} s",
                    begin.elapsed().as_secs()
                );
            }
        }
        let status = qemu.process.wait().context("cannot wait for QEMU")?;
        self.end(status, done, going_down)
    }

    /// How the boot ended, after QEMU has exited.
    fn end(&self, status: ExitStatus, done: bool, going_down: bool) -> Result<End> {
        let errors = fs::read_to_string(self.errors()).unwrap_or_default();
        if !status.success() {
            let why = format!("QEMU failed: {status}\n{}", errors.trim_end());
            if emulator_died(status.signal(), &errors) {
                return Err(EmulatorDied(why).into());
            }
            bail!(why);
        }
        if going_down {
            return Ok(End::Down);
        }
        if !done {
            let console = fs::read(&self.console).unwrap_or_default();
            if String::from_utf8_lossy(&console).contains(KERNEL_PANIC) {
                bail!("the guest's kernel panicked");
            }
            bail!("the guest ended before it was done\n{}", errors.trim_end());
        }
        Ok(End::Done)
    }

    /// The socket of QEMU's monitor console, to control the machine.
    fn control(&self) -> PathBuf {
        self.console.with_extension("control")
    }

    fn nmi(&self) -> Result<()> {
        let path = self.control();
        let mut control =
            UnixStream::connect(&path).with_context(|| format!("no {}", path.display()))?;
        control.write_all(b"nmi\n").context("cannot ask for an NMI")
    }

    fn errors(&self) -> PathBuf {
        self.console.with_extension("qemu.log")
    }

    fn command(&self) -> Result<Command> {
        let mut command = qemu(
            self.kernel,
            self.initramfs,
            self.memory,
            &self.append(),
            self.counted,
        );
        add_ports(&mut command, &self.console);
        if let Some(persistent) = &self.persistent {
            self.add_persistent(&mut command, persistent);
        }
        if !self.forwards.is_empty() {
            let ways = self
                .forwards
                .iter()
                .map(|Forward { host, guest }| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
            command
                .arg("-netdev")
                .arg(format!(
                    "user,id=net,restrict=on{}",
                    ways.collect::<String>()
                ))
                .args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        }
        let errors = File::create(self.errors())
            .with_context(|| format!("cannot write {}", self.errors().display()))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors);
        Ok(command)
    }

    fn add_persistent(&self, command: &mut Command, persistent: &Persistent) {
        let with_path = |before: &str, path: &Path, behind: &str| {
            let mut word = OsString::from(before);
            word.push(path);
            word.push(behind);
            word
        };
        command
            .arg("-monitor")
            .arg(with_path("unix:", &self.control(), ",server=on,wait=off"))
            .arg("-drive")
            .arg(with_path(
                "format=raw,if=virtio,file=",
                &persistent.disk,
                "",
            ));
        match &persistent.memory {
            CrashMemory::Erst(file) => {
                command
                    .arg("-object")
                    .arg(with_path(
                        "memory-backend-file,id=erst,size=1M,share=on,mem-path=",
                        file,
                        "",
                    ))
                    .args(["-device", "acpi-erst,memdev=erst"]);
            }
            CrashMemory::Ramoops(file) => {
                let size = format!(",size={}M", self.memory);
                command
                    .arg("-object")
                    .arg(with_path(
                        "memory-backend-file,id=ram,share=on,mem-path=",
                        file,
                        &size,
                    ))
                    .args(["-machine", "memory-backend=ram"]);
            }
            CrashMemory::None => {}
        }
    }

    fn append(&self) -> String {
        let mut words = super::command_line::words();
        words.push(format!("{}={}", command_line::MODE, self.mode));
        words.push(format!("{}={}", command_line::RUN, self.run));
        words.extend(self.command_line.iter().map(|word| (*word).to_owned()));
        words.join(" ")
    }
}

/// A QEMU with this kernel, `memory` in MiB, two CPUs, and nothing else: no port, no disk.
/// One that counts has one CPU, see [`Machine::counted`].
pub(super) fn qemu(
    kernel: &Path,
    initramfs: &Path,
    memory: u32,
    append: &str,
    counted: bool,
) -> Command {
    // util-linux's setpriv lets no QEMU outlive this program, however it ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU]);
    command.args(if counted {
        ["-accel", "tcg,thread=single", "-cpu", "qemu64"]
    } else if kvm_works() {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=multi", "-cpu", "qemu64"]
    });
    if counted {
        command.args(["-icount", "shift=0,sleep=off"]);
    }
    command
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-smp", if counted { "1" } else { "2" }])
        .args(["-m", &format!("{memory}M")])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", append]);
    command
}

/// Adds two serial ports: the first is the kernel log and goes to `console`, the second is standard
/// input and output.
pub(super) fn add_ports(command: &mut Command, console: &Path) {
    let mut log = OsString::from("file,id=console,append=on,path=");
    log.push(console);
    command
        .arg("-chardev")
        .arg(log)
        .args(["-serial", "chardev:console"])
        .args(["-chardev", "stdio,id=messages,signal=off"])
        .args(["-serial", "chardev:messages"]);
}

/// A running QEMU, killed when dropped.
struct Qemu {
    process: Child,
    lines: Receiver<String>,
}

impl Qemu {
    fn start(machine: &Machine<'_>) -> Result<Self> {
        // The log of an earlier run is overwritten; that of an earlier boot is continued.
        OpenOptions::new()
            .create(true)
            .append(true)
            .truncate(false)
            .open(&machine.console)
            .with_context(|| format!("cannot write {}", machine.console.display()))?;
        let mut process = machine
            .command()?
            .spawn()
            .with_context(|| format!("cannot start {QEMU}"))?;
        let output = process.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || forward_lines(output, &sender));
        Ok(Self { process, lines })
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only if QEMU has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn forward_lines(output: ChildStdout, sender: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim().to_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        }
    }
}

/// Parses a line of the guest; blank lines are ignored.
fn parse(line: &str) -> Result<Option<Message>> {
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(line)
        .map(Some)
        .with_context(|| format!("not a message of the guest: `{line}`"))
}

/// Whether KVM can be used. In some virtual machines it can be opened although the processor lacks
/// what it needs; its guests then hang.
fn kvm_works() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let able = flags
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        });
    able && OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_skipped_and_noise_is_an_error() {
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("{\"type\":\"done\"}").unwrap(), Some(Message::Done));
        let error = parse("Segmentation fault").unwrap_err().to_string();
        assert!(error.contains("Segmentation fault"), "{error}");
    }

    #[test]
    fn the_command_line_says_mode_and_scenarios() {
        let machine = Machine {
            kernel: Path::new("k"),
            initramfs: Path::new("i"),
            mode: "test",
            run: "all",
            command_line: &["quiet"],
            memory: 512,
            counted: false,
            forwards: &[],
            persistent: None,
            console: PathBuf::from("c"),
            silence: Duration::from_secs(1),
            limit: Duration::from_secs(1),
        };
        let text = machine.append();
        assert!(text.ends_with(" lpm.mode=test lpm.run=all quiet"), "{text}");
    }
}
