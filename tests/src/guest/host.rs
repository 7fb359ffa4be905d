//! The port to the host.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use livepatch_monitor_tests::protocol::{GUEST_PORT, Message};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};

/// Sends messages to the host; clones share the port.
#[derive(Clone)]
pub(crate) struct Host {
    port: Arc<File>,
}

impl Host {
    /// Opens the port, without echo and without newline translation.
    pub(crate) fn open() -> Result<Self> {
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open(GUEST_PORT)
            .with_context(|| {
                format!("cannot open {GUEST_PORT}: the machine needs a second serial port")
            })?;
        let mut settings = tcgetattr(&port).context("cannot read the port's settings")?;
        settings.make_raw();
        tcsetattr(&port, OptionalActions::Now, &settings)
            .context("cannot make the port a raw one")?;
        Ok(Self {
            port: Arc::new(port),
        })
    }

    pub(crate) fn send(&self, message: &Message) -> Result<()> {
        let mut line = serde_json::to_vec(message).context("cannot encode a message")?;
        line.push(b'\n');
        (&*self.port)
            .write_all(&line)
            .context("cannot write to the host")
    }

    /// Waits until all is sent.
    pub(crate) fn drain(&self) -> Result<()> {
        tcdrain(&*self.port).context("cannot wait for the port")
    }
}
