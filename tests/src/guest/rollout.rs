//! A host of a rollout: its exporter is scraped by a real Prometheus over the network, and it
//! receives orders from there, over all its boots.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
};

use anyhow::{Context as _, Result};
use livepatch_monitor_tests::protocol::{EXPORTER_PORT, Message, ORDERS_PORT, Order};

use crate::{
    crashes::{announce, persistent},
    eventually::seconds,
    files,
    guest::Guest,
    helpers::Hold,
    livepatch::{PATCH_A, VMLINUX},
    monitor, target,
};

/// Short, so that the rollout does not take long.
const STUCK_AFTER: &str = "4s";

/// Executes orders until the last, or until one ends the boot.
pub(crate) fn run(guest: &mut Guest) -> Result<()> {
    persistent::mount_disk()?;
    persistent::open("erst")?;
    guest.begin("rollout");
    guest.start_public_monitor(EXPORTER_PORT, &["--stuck-after", STUCK_AFTER])?;
    let listener = TcpListener::bind(("0.0.0.0", ORDERS_PORT)).context("cannot take orders")?;
    guest.send(&Message::Serving {
        port: EXPORTER_PORT,
    })?;
    for stream in listener.incoming() {
        let mut stream = stream.context("cannot take an order")?;
        // The network accepts calls for a guest that is not up yet; such a call is empty.
        let Some(order) = read(&stream)? else {
            continue;
        };
        if order == Order::Crash {
            announce(guest)?;
            answer(&mut stream, "ok")?;
            files::write("/proc/sysrq-trigger", "c")?;
        }
        match carry_out(guest, order) {
            Ok(()) => answer(&mut stream, "ok")?,
            Err(error) => answer(&mut stream, &format!("{error:#}").replace('\n', " "))?,
        }
        if order == Order::Finish {
            break;
        }
    }
    Ok(())
}

fn read(stream: &TcpStream) -> Result<Option<Order>> {
    let mut line = String::new();
    match BufReader::new(stream).read_line(&mut line) {
        Ok(0) | Err(_) => Ok(None),
        Ok(_) => serde_json::from_str(&line)
            .map(Some)
            .with_context(|| format!("not an order: {line}")),
    }
}

fn answer(stream: &mut TcpStream, text: &str) -> Result<()> {
    writeln!(stream, "{text}").context("cannot answer")
}

fn carry_out(guest: &mut Guest, order: Order) -> Result<()> {
    match order {
        Order::Complete => VMLINUX.apply(seconds(30)),
        Order::Hold => {
            target::load()?;
            guest.hold(&Hold::of_a_service())?;
            Ok(())
        }
        Order::Patch => PATCH_A.load(),
        Order::Release => {
            target::release()?;
            PATCH_A.wait_transition_done(seconds(30))
        }
        Order::Status => show(guest, "status"),
        Order::Blockers => show(guest, "blockers"),
        Order::Crashes => show(guest, "crashes"),
        Order::Crash => anyhow::bail!("the machine should have gone down and has not"),
        Order::Finish => guest.stop_monitor(),
    }
}

fn show(guest: &Guest, command: &str) -> Result<()> {
    guest.note(format!("$ livepatch-monitor {command}"))?;
    let answer = monitor::command(&[command])?;
    for line in String::from_utf8_lossy(&answer.output).lines() {
        guest.note(line)?;
    }
    Ok(())
}
