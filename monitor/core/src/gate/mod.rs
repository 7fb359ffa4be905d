//! The rollout gate: whether a livepatch may go to more hosts, from what Prometheus
//! knows of those that have it.
//!
//! `selector` and `promql` make the queries, `client` sends them, `answer` decodes
//! what comes back, `hosts` turns it into what is known of each host, `verdict`
//! decides, `risk` says what the good runs so far are worth. Only `client` does I/O.

pub mod answer;
pub mod hosts;
pub mod promql;
pub mod risk;
pub mod selector;
pub mod verdict;
