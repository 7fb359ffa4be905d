//! What an interrupted update left, according to the package managers' own databases. Pure.
//!
//! The databases of rpm and dnf are read by [`sqlite`]; [`history`] finds dnf's last
//! transaction, [`rpmdb`] what is installed, [`rpm`] decides what is unfinished, and [`remedy`]
//! how it is repaired.

pub mod history;
pub mod logs;
pub mod remedy;
pub mod rpm;
pub mod rpmdb;
pub mod run;
pub mod sqlite;

#[cfg(test)]
mod tests;
