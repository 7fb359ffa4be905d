//! The demonstration.
use anyhow::{Result, bail};

use crate::guest::Guest;

pub(crate) fn run(_: &mut Guest) -> Result<()> {
    bail!("later")
}
