//! What an interrupted update left: read from the package managers' own databases, as values.
//!
//! The databases of rpm and dnf are read by [`sqlite`]; [`history`] finds dnf's last
//! transaction, [`rpmdb`] what is installed, and [`rpm`] decides what is half done.

pub mod history;
pub mod rpm;
pub mod rpmdb;
pub mod sqlite;

#[cfg(test)]
mod tests;
