//! The gate's input: Prometheus's answers, and its command line.

use std::time::Duration;

use livepatch_core::gate::{
    answer,
    selector::{Selector, quote},
};
use livepatch_monitor::{cli::values, prometheus_client::Url};

pub fn parse(bytes: &[u8]) {
    crate::pick(bytes, [answers, answers, selectors, words]);
}

fn answers(bytes: &[u8]) {
    if let Ok(vector) = answer::vector(bytes) {
        assert!(vector.samples.len() <= bytes.len());
    }
    if let Ok(time) = answer::time(bytes) {
        assert!(time.is_finite() && time > 0.0);
    }
    if let Some(error) = answer::refusal(bytes) {
        let _ = error.to_string();
    }
    assert!(answer::excerpt(bytes).chars().count() <= 90);
}

/// A selector that was parsed gives the same when it is rendered and parsed again.
fn selectors(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(selector) = Selector::parse(&text) else {
        return;
    };
    let written = selector.to_string();
    let again = Selector::parse(&written);
    // Values quoted as numbers need more than the few escapes that a selector accepts.
    if !written.contains("\\x") && !written.contains("\\ufffd") {
        assert_eq!(again.unwrap(), selector, "{written}");
    }
    // No value terminates its quotes.
    for matcher in &selector.0 {
        let quoted = quote(&matcher.value);
        let inner = &quoted[1..quoted.len() - 1];
        let mut escaped = false;
        for c in inner.chars() {
            assert!(escaped || c != '"', "{quoted}");
            escaped = !escaped && c == '\\';
        }
        assert!(!escaped, "{quoted}");
    }
}

/// Values of the flags of `gate`.
fn words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(duration) = values::duration(&text) {
        assert!(duration <= Duration::from_secs(10 * 365 * 24 * 3600));
    }
    if let Ok(moment) = values::moment(&text) {
        assert!(moment.is_finite() && moment >= 0.0);
    }
    if let Ok(url) = Url::parse(&text) {
        assert!(url.as_str().starts_with("http"), "{}", url.as_str());
        assert!(!url.as_str().contains(['#', '?']), "{}", url.as_str());
        let host = url.as_str().split('/').nth(2).unwrap();
        assert!(!host.is_empty() && !host.contains('@'), "{host}");
    }
    let _ = values::listen_address(&text);
    if let Ok(name) = values::patch_name(&text) {
        assert!(!name.contains('/') && name.len() < 56);
    }
    if let Ok(path) = values::telemetry_path(&text) {
        assert!(path.starts_with('/') && !path.contains(['?', '#', ' ', '{']));
    }
}
