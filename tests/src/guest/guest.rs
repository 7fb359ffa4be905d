//! What scenarios use to control the machine, and the cleanup after each.

use std::{
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use livepatch_monitor_tests::protocol::Message;
use rustix::process::{WaitOptions, wait};

use crate::{
    eventually::{eventually, seconds},
    exposition::Exposition,
    files,
    helpers::{self, Confinement, Hold, Task},
    host::Host,
    livepatch, modules,
    monitor::{self, Monitor},
    probes::Probes,
    process, target,
};

/// The time limit of the cleanup: released tasks switch at the kernel's next attempts, about one
/// per second.
const CLEAN_UP: Duration = seconds(60);

/// The interval of scrapes while waiting.
const POLL: Duration = Duration::from_millis(100);

/// The machine from a scenario's point of view.
pub(crate) struct Guest {
    host: Host,
    scenario: String,
    children: Vec<Child>,
    monitor: Option<Monitor>,
    scrapes_sent: u32,
    /// The last scrape of the running monitor.
    last_scrape: Option<Exposition>,
    /// The last text that the host was sent, masked.
    last_sent: String,
    stays: Vec<&'static str>,
}

/// A process whose threads stay in `lpm_hold`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    /// Its process id, which is its main thread's id.
    pub(crate) pid: u32,
}

impl Holder {
    /// /proc/PID/patch_state of the main thread: 1 patched, 0 not, -1 idle.
    pub(crate) fn patch_state(self) -> Result<i32> {
        let path = format!("/proc/{}/patch_state", self.pid);
        let text = files::read(&path)?;
        text.trim()
            .parse()
            .with_context(|| format!("{path} holds `{text}`"))
    }

    /// /proc/PID/stack of the main thread.
    pub(crate) fn stack(self) -> Result<String> {
        files::read(&format!("/proc/{}/stack", self.pid))
    }
}

impl Guest {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            host,
            scenario: String::new(),
            children: Vec::new(),
            monitor: None,
            scrapes_sent: 0,
            last_scrape: None,
            last_sent: String::new(),
            stays: Vec::new(),
        }
    }

    /// Sends the host a message.
    pub(crate) fn send(&self, message: &Message) -> Result<()> {
        self.host.send(message)
    }

    /// Waits until the host has been sent everything.
    pub(crate) fn drain(&self) -> Result<()> {
        self.host.drain()
    }

    /// Sends a line for the host to print.
    pub(crate) fn note(&self, text: impl Into<String>) -> Result<()> {
        self.send(&Message::Note { text: text.into() })
    }

    /// Sends a file to the host.
    pub(crate) fn file(&self, name: &str, content: &str) -> Result<()> {
        self.send(&Message::File {
            name: name.to_owned(),
            content: content.to_owned(),
        })
    }

    /// Starts a scenario, whose name becomes a part of its files' names.
    pub(crate) fn begin(&mut self, scenario: &str) {
        self.scenario = scenario.to_owned();
        self.scrapes_sent = 0;
        self.last_sent.clear();
    }

    /// Marks a module that the kernel cannot unload any more.
    pub(crate) fn will_stay(&mut self, module: &'static str) {
        self.stays.push(module);
    }

    /// Starts a process that holds, and waits until all its threads do.
    pub(crate) fn hold(&mut self, hold: &Hold) -> Result<Holder> {
        let before = target::holders()?;
        let pid = self.helper(&Task::Hold(hold.clone()))?;
        target::wait_holders(before + hold.threads)?;
        Ok(Holder { pid })
    }

    /// Starts a helper that runs until the scenario ends; returns its pid.
    pub(crate) fn helper(&mut self, task: &Task) -> Result<u32> {
        let child = helpers::command(task)?
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start a helper")?;
        let pid = child.id();
        self.children.push(child);
        Ok(pid)
    }

    /// Waits until a helper has ended, which must succeed.
    pub(crate) fn wait_helper(&mut self, pid: u32, timeout: Duration) -> Result<()> {
        let child = self.children.iter_mut().find(|child| child.id() == pid);
        let child = child.with_context(|| format!("no helper {pid}"))?;
        let status = eventually(timeout, || {
            let status = child.try_wait().context("cannot wait for a helper")?;
            status.with_context(|| format!("helper {pid} has not ended"))
        })?;
        ensure!(status.success(), "helper {pid} ended with {status}");
        Ok(())
    }

    /// Kills a helper.
    pub(crate) fn end_helper(&mut self, pid: u32) -> Result<()> {
        let child = self.children.iter_mut().find(|child| child.id() == pid);
        let child = child.with_context(|| format!("no helper {pid}"))?;
        child.kill().context("cannot kill a helper")?;
        child.wait().context("cannot wait for a helper")?;
        Ok(())
    }

    /// Starts the monitor and waits for its first answer.
    pub(crate) fn start_monitor(&mut self, arguments: &[&str]) -> Result<()> {
        self.start_monitor_confined(Confinement::None, arguments)
    }

    /// Starts a monitor with a confinement.
    pub(crate) fn start_monitor_confined(
        &mut self,
        confinement: Confinement,
        arguments: &[&str],
    ) -> Result<()> {
        self.start_monitor_at(monitor::ADDRESS, confinement, &[], arguments)
    }

    /// Starts a monitor by a command that runs it.
    pub(crate) fn start_monitor_through(
        &mut self,
        through: &[&str],
        arguments: &[&str],
    ) -> Result<()> {
        self.start_monitor_at(monitor::ADDRESS, Confinement::None, through, arguments)
    }

    /// Starts a monitor that can also be reached from the host.
    pub(crate) fn start_public_monitor(&mut self, port: u16, arguments: &[&str]) -> Result<()> {
        self.start_monitor_at(
            &format!("0.0.0.0:{port}"),
            Confinement::None,
            &[],
            arguments,
        )
    }

    fn start_monitor_at(
        &mut self,
        address: &str,
        confinement: Confinement,
        through: &[&str],
        arguments: &[&str],
    ) -> Result<()> {
        ensure!(self.monitor.is_none(), "a monitor is running already");
        let arguments = [&["--web.listen-address", address], arguments].concat();
        self.last_scrape = None;
        self.monitor = Some(Monitor::start(confinement, through, &arguments)?);
        Ok(())
    }

    pub(crate) fn monitor(&self) -> Result<&Monitor> {
        self.monitor.as_ref().context("no monitor is running")
    }

    /// Ends the monitor as a service manager does.
    pub(crate) fn stop_monitor(&mut self) -> Result<()> {
        self.monitor.take().context("no monitor is running")?.stop()
    }

    /// Waits until the monitor has ended.
    pub(crate) fn wait_monitor_ended(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let mut monitor = self.monitor.take().context("no monitor is running")?;
        let ended = monitor.wait_ended(timeout);
        if ended.is_err() {
            monitor.kill()?;
        }
        ended
    }

    /// Kills the monitor with SIGKILL, as a crash of it would end it.
    pub(crate) fn kill_monitor(&mut self) -> Result<()> {
        self.monitor.take().context("no monitor is running")?.kill()
    }

    /// One scrape, for values that must be right by now. It must be consistent with itself and with
    /// earlier scrapes, and is sent to the host if it differs from the last one.
    pub(crate) fn scrape(&mut self) -> Result<Exposition> {
        let exposition = self.monitor()?.scrape()?;
        if let Some(earlier) = &self.last_scrape {
            exposition.expect_later_than(earlier)?;
        }
        self.last_scrape = Some(exposition.clone());
        let masked = exposition.masked();
        if masked != self.last_sent {
            self.last_sent = masked;
            self.scrapes_sent += 1;
            let name = format!("scrapes/{}-{}.prom", self.scenario, self.scrapes_sent);
            self.file(&name, exposition.text())?;
        }
        Ok(exposition)
    }

    /// Waits until all threads of the monitor are idle, so that its journal entries are on disk.
    pub(crate) fn wait_idle(&self) -> Result<()> {
        let pid = self.monitor()?.pid();
        eventually(CLEAN_UP, || {
            let before = process::context_switches_by_thread(pid)?;
            process::expect_idle(pid)?;
            // The threads are checked one after the other: one that was asleep may have been given
            // work by one that is asleep by now.
            ensure!(
                process::context_switches_by_thread(pid)? == before,
                "a thread was woken meanwhile"
            );
            Ok(())
        })
    }

    /// Waits until the monitor knows from the kernel that this many transitions have started, and
    /// has recorded it. A scrape shows a transition before that: it reads sysfs, while the start
    /// wakes no thread before the kernel's second attempt.
    pub(crate) fn wait_start_noted(&mut self, starts: f64) -> Result<Exposition> {
        self.wait_until(seconds(30), |_| {
            Probes::read()?.expect_received("klp_init_transition", starts)
        })?;
        self.wait_idle()?;
        // The scrape of that moment was made before the page was read.
        self.scrape()
    }

    /// Waits until the matching series add up to `value`, and returns the first such scrape, in
    /// which everything else must be right too. (A scenario checks that scrape once: retrying until
    /// it is right would hide what was wrong before.)
    pub(crate) fn wait_for(
        &mut self,
        timeout: Duration,
        selector: &str,
        value: f64,
    ) -> Result<Exposition> {
        self.wait_until(timeout, |metrics| {
            let sum = metrics.sum_of_any(selector)?;
            ensure!(sum == Some(value), "{selector} is {sum:?}, not {value}");
            Ok(())
        })
    }

    /// The same for a condition that a sum does not show.
    pub(crate) fn wait_until(
        &mut self,
        timeout: Duration,
        event: impl Fn(&Exposition) -> Result<()>,
    ) -> Result<Exposition> {
        let begin = Instant::now();
        loop {
            let metrics = self.scrape()?;
            match event(&metrics) {
                Ok(()) => return Ok(metrics),
                Err(error) if begin.elapsed() >= timeout => {
                    return Err(error).with_context(|| format!("not within {timeout:?}"));
                }
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    /// Releases and removes everything, so that the next scenario finds a clean machine.
    pub(crate) fn clean_up(&mut self) -> Result<()> {
        let monitor_end = match self.monitor.take() {
            Some(monitor) => monitor.stop(),
            None => Ok(()),
        };
        target::release_all().context("lpm_target does not let its tasks go")?;
        for child in &mut self.children {
            // It fails for one that has already ended.
            let _ = child.kill();
        }
        for mut child in self.children.drain(..) {
            eventually(CLEAN_UP, || {
                let status = child.try_wait().context("cannot wait for a helper")?;
                status.context("a helper does not die")
            })?;
        }
        livepatch::disable_all(CLEAN_UP)?;
        for patch_round in [true, false] {
            for name in modules::loaded()? {
                let is_target = name == target::NAME || name == target::LATE;
                if is_target != patch_round && !self.stays.contains(&name.as_str()) {
                    modules::unload(&name)?;
                }
            }
        }
        reap_orphans()?;
        let log = monitor::log_tail();
        monitor::forget()?;
        monitor_end.with_context(|| format!("the monitor did not end well:\n{log}"))
    }
}

/// Waits for orphans. All children that PID 1 started itself have been waited for, so the rest are
/// left over from one of them.
fn reap_orphans() -> Result<()> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error).context("cannot reap"),
        }
    }
}
