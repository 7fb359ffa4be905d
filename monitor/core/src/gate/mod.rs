//! The rollout gate: decides whether a livepatch may go to more hosts from Prometheus's
//! data on the hosts that have it.
//!
//! `selector` and `promql` build the queries, `answer` decodes the responses, `hosts`
//! derives the state of each host, `verdict` decides, and `risk` bounds the failure rate.
//! None of this does I/O: the monitor's `prometheus_client` sends the queries.

pub mod answer;
pub mod hosts;
pub mod promql;
pub mod risk;
pub mod selector;
pub mod verdict;
