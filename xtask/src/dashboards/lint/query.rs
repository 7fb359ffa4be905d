//! The rules for one query.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{self, Expr, LabelModifier, VectorSelector},
};

use super::super::known::{Kind, Known, Metric};

/// Durations that replace Grafana's own variables while a query is parsed; unlikely to be used in a
/// query.
const RATE_INTERVAL: Duration = Duration::from_secs(100_003);
const RANGE: Duration = Duration::from_secs(100_019);
const INTERVAL: Duration = Duration::from_secs(100_043);

/// Grafana's own variables that dashboards may use.
const BUILT_IN: [(&str, Duration); 3] = [
    ("__rate_interval", RATE_INTERVAL),
    ("__range", RANGE),
    ("__interval", INTERVAL),
];

/// The surroundings of a query: what it may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) known: &'a Known,
    /// The variables of the dashboard.
    pub(crate) variables: &'a [String],
    /// The variables that each selector must match if its metric has that label.
    pub(crate) required: &'a [&'a str],
}

/// Complaints about a query and the labels in its legend.
pub(crate) fn check(query: &str, legend: &str, context: Context<'_>) -> Vec<String> {
    let mut check = Check {
        context,
        complaints: Vec::new(),
        labels: BTreeSet::new(),
        own: false,
        shared: None,
    };
    let text = check.with_durations(query);
    match parser::parse(&text) {
        Err(error) => check.complain(format!("is not PromQL: {error}")),
        Ok(expression) => {
            check.walk(&expression, None);
            check.whole(legend);
        }
    }
    check.complaints
}

struct Check<'a> {
    context: Context<'a>,
    complaints: Vec<String>,
    /// The labels of all its metrics.
    labels: BTreeSet<String>,
    /// Whether it uses a metric that only this exporter has.
    own: bool,
    /// A metric that other exporters have too.
    shared: Option<String>,
}

impl Check<'_> {
    fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }

    /// The query with durations in place of Grafana's own variables. Complains about variables that
    /// the dashboard does not have.
    fn with_durations(&mut self, query: &str) -> String {
        let mut text = String::new();
        let mut rest = query;
        while let Some((before, after)) = rest.split_once('$') {
            text += before;
            let braced = after.starts_with('{');
            let name: &str = if braced {
                after[1..].split('}').next().unwrap_or_default()
            } else {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                &after[..end.unwrap_or(after.len())]
            };
            let length = name.len() + if braced { 2 } else { 0 };
            rest = after.get(length..).unwrap_or_default();
            let name = name.split(':').next().unwrap_or_default();
            if let Some((_, duration)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
                let _ = write!(text, "{}s", duration.as_secs());
            } else {
                if !self.context.variables.iter().any(|known| known == name) {
                    self.complain(format!(
                        "uses the variable ${name}, which the dashboard does not have"
                    ));
                }
                text.push('$');
                text += name;
            }
        }
        text + rest
    }

    fn walk(&mut self, expression: &Expr, function: Option<&str>) {
        match expression {
            Expr::Aggregate(aggregate) => {
                self.walk(&aggregate.expr, None);
                if let Some(parameter) = &aggregate.param {
                    self.walk(parameter, None);
                }
                if let Some(modifier) = &aggregate.modifier {
                    self.grouping(modifier, &aggregate.expr);
                }
            }
            Expr::Unary(unary) => self.walk(&unary.expr, function),
            Expr::Paren(paren) => self.walk(&paren.expr, function),
            Expr::Binary(binary) => {
                self.walk(&binary.lhs, None);
                self.walk(&binary.rhs, None);
                if let Some(matching) = binary
                    .modifier
                    .as_ref()
                    .and_then(|modifier| modifier.matching.as_ref())
                {
                    self.grouping(matching, &binary.lhs);
                    self.grouping(matching, &binary.rhs);
                }
            }
            Expr::Subquery(subquery) => self.walk(&subquery.expr, None),
            Expr::Call(call) => {
                for argument in &call.args.args {
                    self.walk(argument, Some(call.func.name));
                }
            }
            Expr::MatrixSelector(matrix) => {
                self.selector(&matrix.vs, function);
                let of_rate = matches!(function, Some("rate" | "increase"));
                match matrix.range {
                    RATE_INTERVAL => {}
                    RANGE if function != Some("rate") => {}
                    _ if of_rate => {
                        self.complain(
                            "takes a rate over another range than $__rate_interval".into(),
                        );
                    }
                    _ => self.complain(
                        "has a range that is neither $__rate_interval nor $__range".into(),
                    ),
                }
            }
            Expr::VectorSelector(selector) => self.selector(selector, None),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
        }
    }

    fn selector(&mut self, selector: &VectorSelector, function: Option<&str>) {
        let Some(name) = selector.name.as_deref() else {
            return self.complain("has a selector without a metric's name".into());
        };
        let Some(metric) = self.context.known.metrics.get(name) else {
            return self.complain(format!(
                "uses {name}, which is neither in docs/metrics.md nor recorded by the rules"
            ));
        };
        self.labels.extend(metric.labels.iter().cloned());
        if metric.shared {
            self.shared = Some(name.to_owned());
        } else {
            self.own = true;
        }
        let rated = matches!(function, Some("rate" | "increase"));
        match metric.kind {
            Kind::Counter if !rated => {
                self.complain(format!("uses the counter {name} without rate or increase"));
            }
            Kind::Gauge if rated => self.complain(format!("takes a rate of {name}, a gauge")),
            Kind::Counter | Kind::Gauge => {}
        }
        let matchers: Vec<&Matcher> = selector
            .matchers
            .matchers
            .iter()
            .chain(selector.matchers.or_matchers.iter().flatten())
            .collect();
        for matcher in &matchers {
            if !metric.labels.contains(&matcher.name) {
                self.complain(format!(
                    "matches the label {} of {name}, which has none",
                    matcher.name
                ));
            }
            if name == "ALERTS"
                && matcher.name == "alertname"
                && matches!(matcher.op, MatchOp::Equal)
                && !self.context.known.alerts.contains(&matcher.value)
            {
                self.complain(format!(
                    "asks for the alert {}, which no rule has",
                    matcher.value
                ));
            }
        }
        self.required(name, metric, &matchers);
    }

    /// Checks that the query uses every required variable.
    fn required(&mut self, name: &str, metric: &Metric, matchers: &[&Matcher]) {
        for variable in self.context.required {
            if !metric.labels.contains(*variable) {
                continue;
            }
            let heeds = |matcher: &&Matcher| {
                let all = matcher.value.strip_suffix('|').unwrap_or(&matcher.value);
                matcher.name == *variable
                    && matches!(matcher.op, MatchOp::Re(_))
                    && all.strip_prefix('$') == Some(variable)
            };
            if !matchers.iter().any(heeds) {
                self.complain(format!(
                    "does not match {variable}=~\"${variable}\" at {name}"
                ));
            }
        }
    }

    /// Checks the labels after `by`, `without`, `on` and `ignoring`.
    fn grouping(&mut self, modifier: &LabelModifier, operand: &Expr) {
        let mut labels = BTreeSet::new();
        self.collect(operand, &mut labels);
        for label in &modifier.labels().labels {
            if !labels.is_empty() && !labels.contains(label) {
                self.complain(format!(
                    "groups or joins by {label}, which its metrics do not have"
                ));
            }
        }
    }

    fn collect(&self, expression: &Expr, labels: &mut BTreeSet<String>) {
        let mut add = |selector: &VectorSelector| {
            let name = selector.name.as_deref().unwrap_or_default();
            if let Some(metric) = self.context.known.metrics.get(name) {
                labels.extend(metric.labels.iter().cloned());
            }
        };
        match expression {
            Expr::VectorSelector(selector) => add(selector),
            Expr::MatrixSelector(matrix) => add(&matrix.vs),
            Expr::Aggregate(aggregate) => self.collect(&aggregate.expr, labels),
            Expr::Unary(unary) => self.collect(&unary.expr, labels),
            Expr::Paren(paren) => self.collect(&paren.expr, labels),
            Expr::Subquery(subquery) => self.collect(&subquery.expr, labels),
            Expr::Binary(binary) => {
                self.collect(&binary.lhs, labels);
                self.collect(&binary.rhs, labels);
            }
            Expr::Call(call) => {
                for argument in &call.args.args {
                    self.collect(argument, labels);
                }
            }
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
        }
    }

    /// Checks that concern the whole query.
    fn whole(&mut self, legend: &str) {
        // `$job` may be `.+`, which matches everything that this Prometheus scrapes.
        if let Some(name) = self.shared.clone().filter(|_| !self.own) {
            self.complain(format!(
                "uses {name}, which other exporters have too: join it with a livepatch_ metric"
            ));
        }
        for part in legend.split("{{").skip(1) {
            let label = part.split("}}").next().unwrap_or_default().trim();
            if !self.labels.contains(label) {
                self.complain(format!(
                    "has {{{{{label}}}}} in its legend, a label that it does not have"
                ));
            }
        }
    }
}
