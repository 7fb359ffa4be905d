//! The URL of the server that is queried.

use ureq::http::Uri;

/// The URL of a Prometheus server: http or https, a host, and an optional path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Parses and checks a URL.
    ///
    /// # Errors
    ///
    /// A message that includes the remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("{error}; write http://prometheus:9090"))?;
        let Some(scheme @ ("http" | "https")) = uri.scheme_str() else {
            return Err(
                "must start with http:// or https://; write http://prometheus:9090".to_owned(),
            );
        };
        if uri.host().is_none_or(str::is_empty) {
            return Err("the host is missing; write http://prometheus:9090".to_owned());
        }
        if uri
            .authority()
            .is_some_and(|host| host.as_str().contains('@'))
        {
            return Err(
                "a user or password in the URL would be visible in the process list; give them \
                with --user and --password-file"
                    .to_owned(),
            );
        }
        let port = uri.authority().and_then(|authority| {
            let behind = authority.as_str().strip_prefix(authority.host())?;
            behind.strip_prefix(':')
        });
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err("invalid port; write http://prometheus:9090".to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(
                "must not have a query (?) or fragment (#): /api/v1/query is appended to it"
                    .to_owned(),
            );
        }
        // In lower case, since the scheme decides later whether TLS is used.
        let rest = text.get(scheme.len()..).unwrap_or_default();
        Ok(Self(format!("{scheme}{}", rest.trim_end_matches('/'))))
    }

    /// The URL without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, wanted) in [
            ("http://prometheus:9090", "http://prometheus:9090"),
            (
                "https://m.example/prometheus/",
                "https://m.example/prometheus",
            ),
            ("http://[::1]:9090/", "http://[::1]:9090"),
            ("HTTPs://Prometheus/", "https://Prometheus"),
        ] {
            assert_eq!(Url::parse(text).unwrap().as_str(), wanted);
        }
        for (text, word) in [
            ("", "http://prometheus:9090"),
            ("prometheus:9090", "http://"),
            ("ftp://prometheus", "must start with"),
            ("http:///graph", "http"),
            ("http://prometheus:99999", "port"),
            ("http://[::1]:", "port"),
            ("http://u:p@prometheus", "--password-file"),
            ("http://prometheus/graph?g0=1", "?"),
            ("http://prometheus/#graph", "#"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
