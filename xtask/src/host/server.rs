//! A web server on 127.0.0.1, in a separate thread.

use std::{net::Ipv4Addr, thread};

use anyhow::{Context as _, Result};
use axum::Router;
use tokio::{net::TcpListener, runtime, sync::oneshot};

/// Stopped when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Serves on this port of 127.0.0.1, 0 being any free one. `name` is the thread's, by which
    /// its CPU time is found.
    pub(crate) fn start(name: &'static str, port: u16, router: Router) -> Result<Self> {
        // One thread, so that its CPU time can be separated from what is measured.
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .with_context(|| format!("cannot set up the server `{name}`"))?;
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
            .with_context(|| format!("cannot listen on port {port} of 127.0.0.1"))?;
        let port = listener.local_addr().context("the port's number")?.port();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        result = axum::serve(listener, router) => {
                            if let Err(error) = result {
                                eprintln!("the server `{name}` failed: {error}");
                            }
                        }
                        _ = stopped => {}
                    }
                });
            })
            .with_context(|| format!("cannot start the server `{name}`"))?;
        Ok(Self {
            port,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Its port on 127.0.0.1.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, without a trailing slash.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It fails only after a panic, which has been printed.
            let _ = thread.join();
        }
    }
}
