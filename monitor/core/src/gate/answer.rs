//! Decodes the responses of the query API of Prometheus and of the engines that serve the same
//! API, which are treated as untrusted input.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use thiserror::Error;

/// A host, as Prometheus knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    /// Label `instance`: the address that Prometheus scrapes.
    pub instance: String,
    /// Label `job`: the scrape job in Prometheus's configuration.
    pub job: String,
}

/// One series of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Label names and values.
    pub labels: BTreeMap<String, String>,
    /// Value of the sample.
    pub value: f64,
}

/// An instant vector with the warnings of Prometheus, Thanos, Mimir or VictoriaMetrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vector {
    /// One sample per series.
    pub samples: Vec<Sample>,
    /// Warnings; with any, the result may be partial.
    pub warnings: Vec<String>,
}

/// A response is not a usable result.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The query failed, with the reason that Prometheus gives.
    #[error("Prometheus refused the query: {kind}: {message}")]
    Refused {
        /// Prometheus's `errorType`, such as `bad_data` or `timeout`.
        kind: String,
        /// Prometheus's own error message.
        message: String,
    },
    /// The response is a web page.
    #[error("the response is HTML, not that of Prometheus's API: {0:?}")]
    Html(String),
    /// The response is JSON of another shape, truncated JSON, or not JSON.
    #[error(
        "the response is not a result of /api/v1/query: {problem}; it starts with {beginning:?}"
    )]
    Shape {
        /// What is wrong with the response.
        problem: String,
        /// Excerpt from the start of the response.
        beginning: String,
    },
}

#[derive(Deserialize)]
struct Envelope {
    status: String,
    data: Option<Data>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    /// VictoriaMetrics's cluster sets it if a storage node did not answer; it sends no warning
    /// (app/vmselect/prometheus/query_response.qtpl, 1.79 to 1.145).
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Series>),
    Scalar((f64, String)),
    Matrix(IgnoredAny),
    String(IgnoredAny),
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: Option<(f64, String)>,
}

/// Longest excerpt of a response in a message, in characters.
const EXCERPT: usize = 80;

/// Decodes an instant vector.
///
/// # Errors
///
/// [`Error`]: the body is an error of Prometheus, or not an instant vector.
pub fn vector(body: &[u8]) -> Result<Vector, Error> {
    let (data, warnings) = decode(body)?;
    let Data::Vector(series) = data else {
        return Err(shape("the result is not a vector", body));
    };
    let samples = series.into_iter().map(|series| {
        let Some((_, value)) = series.value else {
            return Err(shape("a series has no value (a native histogram?)", body));
        };
        Ok(Sample {
            labels: series.metric,
            value: number(&value, body)?,
        })
    });
    Ok(Vector {
        samples: samples.collect::<Result<_, _>>()?,
        warnings,
    })
}

/// Decodes the answer to `time()`: seconds since 1970. Prometheus sends a scalar,
/// VictoriaMetrics a vector of one sample without labels.
///
/// # Errors
///
/// As [`vector`]; also if the result is neither, or not a valid time.
pub fn time(body: &[u8]) -> Result<f64, Error> {
    let value = match decode(body)?.0 {
        Data::Scalar((_, value)) => value,
        Data::Vector(series) => match series.as_slice() {
            [
                Series {
                    metric,
                    value: Some((_, value)),
                },
            ] if metric.is_empty() => value.clone(),
            _ => return Err(shape("the result of time() is not one sample", body)),
        },
        Data::Matrix(_) | Data::String(_) => {
            return Err(shape("the result of time() is not a scalar", body));
        }
    };
    let time = number(&value, body)?;
    if time.is_finite() && time > 0.0 {
        Ok(time)
    } else {
        Err(shape("the result of time() is not a valid time", body))
    }
}

/// The error in the body of a 4xx or 5xx response, if Prometheus wrote it.
#[must_use]
pub fn refusal(body: &[u8]) -> Option<Error> {
    match decode(body) {
        Err(refused @ Error::Refused { .. }) => Some(refused),
        _ => None,
    }
}

fn decode(body: &[u8]) -> Result<(Data, Vec<String>), Error> {
    if body.trim_ascii_start().starts_with(b"<") {
        return Err(Error::Html(excerpt(body)));
    }
    let envelope: Envelope =
        serde_json::from_slice(body).map_err(|error| shape(&error.to_string(), body))?;
    if envelope.status != "success" {
        return Err(Error::Refused {
            kind: envelope.error_type.unwrap_or(envelope.status),
            message: envelope
                .error
                .unwrap_or_else(|| "no reason given".to_owned()),
        });
    }
    let data = envelope.data.ok_or_else(|| shape("no data", body))?;
    let mut warnings = envelope.warnings;
    if envelope.is_partial {
        warnings.push("isPartial: a storage node did not answer".to_owned());
    }
    Ok((data, warnings))
}

fn number(text: &str, body: &[u8]) -> Result<f64, Error> {
    text.parse()
        .map_err(|_| shape(&format!("{text:?} is not a number"), body))
}

fn shape(problem: &str, body: &[u8]) -> Error {
    Error::Shape {
        problem: problem.to_owned(),
        beginning: excerpt(body),
    }
}

/// The start of a body, printable, for a message.
#[must_use]
pub fn excerpt(body: &[u8]) -> String {
    // A character has at most four bytes.
    let beginning = &body[..body.len().min(4 * EXCERPT)];
    let text = String::from_utf8_lossy(beginning);
    let text = text.trim();
    let mut excerpt: String = text.chars().take(EXCERPT).collect();
    if excerpt.len() < text.len() || beginning.len() < body.len() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VECTOR: &str = r#"{"status":"success","data":{"resultType":"vector","result":[
        {"metric":{"job":"j","instance":"a:1"},"value":[1795435857.156,"1"]},
        {"metric":{"job":"j","instance":"b:1"},"value":[1795435857.156,"NaN"]},
        {"metric":{"job":"j","instance":"c:1"},"value":[1795435857,"+Inf"]}
    ],"stats":{}},"warnings":["a store did not answer"],"infos":["fine"]}"#;

    #[test]
    fn a_vector_with_warnings() {
        let vector = vector(VECTOR.as_bytes()).unwrap();
        assert_eq!(vector.samples.len(), 3);
        assert_eq!(vector.samples[0].labels["instance"], "a:1");
        assert!(vector.samples[1].value.is_nan());
        assert!(vector.samples[2].value.is_infinite());
        assert_eq!(vector.warnings, ["a store did not answer"]);
    }

    #[test]
    fn the_result_may_stand_before_its_type() {
        let body = r#"{"data":{"result":[],"resultType":"vector"},"status":"success"}"#;
        assert_eq!(vector(body.as_bytes()), Ok(Vector::default()));
    }

    #[test]
    fn a_time() {
        let body = r#"{"status":"success","data":{"resultType":"scalar","result":[17.5,"17.5"]}}"#;
        assert_eq!(time(body.as_bytes()), Ok(17.5));
        assert!(vector(body.as_bytes()).is_err());
        assert!(time(body.replace("\"17.5\"", "\"NaN\"").as_bytes()).is_err());
        assert!(time(VECTOR.as_bytes()).is_err());
    }

    #[test]
    fn a_time_of_victoriametrics() {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{},"value":[17,"17"]}]},"stats":{}}"#;
        assert_eq!(time(body.as_bytes()), Ok(17.0));
        for (sample, other) in [
            (r#""metric":{}"#, r#""metric":{"job":"j"}"#),
            (r#""17"]}"#, r#""17"]},{"metric":{},"value":[17,"17"]}"#),
            (r#"{"metric":{},"value":[17,"17"]}"#, ""),
        ] {
            assert!(body.contains(sample), "{sample}");
            assert!(time(body.replace(sample, other).as_bytes()).is_err());
        }
    }

    #[test]
    fn a_partial_answer_without_a_warning() {
        let body = r#"{"status":"success","isPartial":true,"data":
            {"resultType":"vector","result":[]}}"#;
        let partial = vector(body.as_bytes()).unwrap();
        assert_eq!(partial.warnings.len(), 1);
        assert!(partial.warnings[0].contains("isPartial"), "{partial:?}");
        let whole = vector(body.replace("true", "false").as_bytes()).unwrap();
        assert_eq!(whole.warnings, [""; 0]);
    }

    #[test]
    fn prometheus_s_own_error() {
        let body = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        let error = vector(body.as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Prometheus refused the query: bad_data: parse error"
        );
        assert_eq!(refusal(body.as_bytes()), Some(error));
        assert_eq!(refusal(b"nope"), None);
    }

    #[test]
    fn what_is_no_answer_is_called_what_it_is() {
        let html = vector(b"\n <!doctype html><title>Log in</title>").unwrap_err();
        assert!(html.to_string().contains("HTML"), "{html}");
        for body in [
            "",
            "[]",
            "{}",
            "nope",
            r#"{"status":"success"}"#,
            r#"{"status":"success","data":{}}"#,
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
            r#"{"status":"success","data":{"resultType":"tensor","result":[]}}"#,
            r#"{"status":"success","data":{"resultType":"vector","result":{}}}"#,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}"#,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}"#,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,1]}]}}"#,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"#,
        ] {
            let error = vector(body.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Shape { .. }), "{body}: {error}");
        }
    }

    #[test]
    fn long_bodies_are_cut_in_messages() {
        let long = "ä".repeat(5_000);
        let excerpt = excerpt(long.as_bytes());
        assert_eq!(excerpt.chars().count(), EXCERPT + 1);
        assert!(excerpt.ends_with('…'));
    }

    proptest! {
        #[test]
        fn a_cut_off_answer_is_refused(cut in 0..VECTOR.len()) {
            prop_assert!(vector(&VECTOR.as_bytes()[..cut]).is_err());
        }

        #[test]
        fn anything_is_decoded_or_refused(body in any::<Vec<u8>>()) {
            let _ = vector(&body);
            let _ = time(&body);
            let _ = excerpt(&body);
        }
    }
}
