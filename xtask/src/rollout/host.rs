//! A virtual machine as a host of a rollout: it receives commands over the network, crashes, and
//! boots again, until it is ordered to finish.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use livepatch_monitor_tests::protocol::{EXPORTER_PORT, Message, ORDERS_PORT, Order};

use crate::{
    lab::{
        artifacts,
        initramfs::{DISK_MODULES, Extras, NETWORK_MODULES},
        machine::Prepared,
        reboot_vm,
        vm::{EmulatorDied, End, Forward, Machine, Persistent},
    },
    monitoring::{free_port, wait_for},
};

/// A host that waits for orders produces no output.
const SILENCE: Duration = Duration::from_secs(20 * 60);
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// An emulated machine boots slowly if others run at the same time.
const BOOT: Duration = Duration::from_secs(180);
/// The time limit for an order.
const ORDER: Duration = Duration::from_secs(90);
const CONNECT: Duration = Duration::from_secs(5);
const MOST_BOOTS: u32 = 10;

/// The in-tree modules of such a machine.
pub(crate) fn modules() -> Vec<&'static str> {
    [NETWORK_MODULES, DISK_MODULES].concat()
}

/// The same as [`Extras`].
pub(crate) fn extras<'a>(modules: &'a [&'a str]) -> Extras<'a> {
    Extras {
        modules,
        ..Extras::default()
    }
}

#[derive(Debug)]
pub(crate) struct Host {
    name: &'static str,
    exporter: u16,
    orders: u16,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of boots in which the exporter has answered.
    serving: AtomicU32,
    /// Why there will be no further boot.
    end: Mutex<Option<Ending>>,
}

#[derive(Clone, Debug)]
enum Ending {
    /// As ordered.
    PoweredOff,
    EmulatorDied(String),
    Failed(String),
}

impl From<Result<()>> for Ending {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::PoweredOff,
            Err(error) if error.is::<EmulatorDied>() => Self::EmulatorDied(format!("{error:#}")),
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

impl Host {
    /// Boots it and returns immediately. After a crash it stays down for `firmware`, the time that
    /// a real machine spends in its firmware.
    pub(crate) fn start(
        prepared: &Arc<Prepared>,
        name: &'static str,
        firmware: Duration,
    ) -> Result<Self> {
        let (exporter, orders) = (free_port(EXPORTER_PORT)?, free_port(ORDERS_PORT)?);
        let persistent = reboot_vm::persistent(&prepared.folder, name, "erst")?;
        let state = Arc::new(State::default());
        let forwards = [
            Forward {
                host: exporter,
                guest: EXPORTER_PORT,
            },
            Forward {
                host: orders,
                guest: ORDERS_PORT,
            },
        ];
        let thread = thread::spawn({
            let (prepared, state) = (prepared.clone(), state.clone());
            move || {
                let result = boots(&prepared, name, &persistent, &forwards, firmware, &state);
                *lock(&state.end) = Some(result.into());
            }
        });
        Ok(Self {
            name,
            exporter,
            orders,
            state,
            thread: Some(thread),
        })
    }

    /// Its name, which is its `instance` label too.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The port of its exporter on 127.0.0.1.
    pub(crate) fn exporter(&self) -> u16 {
        self.exporter
    }

    /// Waits until its exporter answers in boot number `boot`, counted from 1.
    pub(crate) fn wait_for_boot(&self, boot: u32) -> Result<()> {
        let deadline = std::time::Instant::now() + BOOT;
        while self.state.serving.load(Ordering::Relaxed) < boot {
            self.check()?;
            if std::time::Instant::now() > deadline {
                bail!("{} did not start serving in boot {boot}", self.name);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Returns an error if there will be no further boot: an [`EmulatorDied`] if that is why.
    pub(crate) fn check(&self) -> Result<()> {
        match lock(&self.state.end).as_ref() {
            None => Ok(()),
            Some(Ending::PoweredOff) => bail!("{} has already exited", self.name),
            Some(Ending::EmulatorDied(why)) => {
                Err(EmulatorDied(format!("{}: {why}", self.name)).into())
            }
            Some(Ending::Failed(why)) => bail!("{} exited: {why}", self.name),
        }
    }

    /// Sends a command and waits until it is done.
    pub(crate) fn order(&self, order: Order) -> Result<()> {
        self.check()?;
        let what = format!("{} to take the order {order:?}", self.name);
        let answer = wait_for(&what, Duration::from_secs(30), || self.call(order))?;
        if answer != "ok" {
            bail!("{} cannot carry out {order:?}: {answer}", self.name);
        }
        Ok(())
    }

    /// Orders a panic, which may come before the answer.
    pub(crate) fn crash(&self) -> Result<()> {
        self.check()?;
        match self.call(Order::Crash) {
            Ok(answer) if answer != "ok" => bail!("{}: {answer}", self.name),
            _ => Ok(()),
        }
    }

    /// Sends an order; an error if it was not received.
    fn call(&self, order: Order) -> Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.orders));
        let mut stream = TcpStream::connect_timeout(&address, CONNECT).context("no connection")?;
        stream
            .set_read_timeout(Some(ORDER))
            .context("cannot set the timeout")?;
        let line = serde_json::to_string(&order).context("cannot encode an order")?;
        writeln!(stream, "{line}").context("cannot send the order")?;
        let mut answer = String::new();
        let length = BufReader::new(&stream)
            .read_line(&mut answer)
            .context("no answer")?;
        if length == 0 {
            bail!("the guest closed the connection without an answer");
        }
        Ok(answer.trim().to_owned())
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.order(Order::Finish)?;
        let thread = self.thread.take().context("the machine was not started")?;
        if thread.join().is_err() {
            bail!("{}: its thread panicked", self.name);
        }
        match lock(&self.state.end).take() {
            Some(Ending::PoweredOff) => Ok(()),
            why => bail!("{} did not exit cleanly: {why:?}", self.name),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn boots(
    prepared: &Prepared,
    name: &str,
    persistent: &Persistent,
    forwards: &[Forward],
    firmware: Duration,
    state: &State,
) -> Result<()> {
    for boot in 1..=MOST_BOOTS {
        let machine = Machine {
            kernel: &prepared.kernel.image,
            initramfs: &prepared.initramfs,
            mode: "rollout",
            run: "all",
            command_line: &["quiet"],
            memory: reboot_vm::MEMORY,
            counted: false,
            forwards,
            persistent: Some(persistent.clone()),
            console: prepared.folder.join(format!("{name}-{boot}.log")),
            silence: SILENCE,
            limit: LIMIT,
        };
        let end = machine.boot(|message| {
            match message {
                Message::Serving { .. } => state.serving.store(boot, Ordering::Relaxed),
                Message::Note { text } => println!("{text}"),
                Message::File { name, content } => {
                    artifacts::store(&prepared.folder, &name, &content)?;
                }
                Message::ScenarioFailed { scenario, reason } => bail!("{scenario}: {reason}"),
                _ => {}
            }
            Ok(())
        })?;
        if end == End::Done {
            return Ok(());
        }
        thread::sleep(firmware);
    }
    bail!("it has booted {MOST_BOOTS} times")
}
