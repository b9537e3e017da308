//! Formats in which metrics are served: OpenMetrics 1.0, and the older text format 0.0.4 of Prometheus, which not every
//! collector has given up.

/// Format of the metrics of one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricsFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus.
    Text,
}

impl MetricsFormat {
    /// Returns the format that an `Accept` header asks for: the older one only for who names it and not the newer one.
    pub(crate) fn accepted(accept: &str) -> Self {
        let accepts = |media: &str| accept.split(',').any(|range| range.trim_start().starts_with(media));
        if accepts("text/plain") && !accepts("application/openmetrics-text") {
            Self::Text
        } else {
            Self::OpenMetrics
        }
    }

    /// Returns the `Content-Type` of the format.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Returns metrics, given as OpenMetrics, in this format.
    pub(crate) fn convert(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Text => text(&openmetrics),
        }
    }
}

/// Converts OpenMetrics to the older format: there a counter's name has its suffix in `# TYPE` and `# HELP`, too, an
/// unknown type such as info makes the whole scrape fail, and there is no `# UNIT` and no `# EOF`.
fn text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let lines: Vec<&str> = openmetrics.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), help) => {
                // Its type follows, with nothing but a unit between them.
                let next = lines[at + 1..].iter().find_map(|next| next.strip_prefix("# TYPE "));
                let kind = next.and_then(|next| next.strip_prefix(name)).map_or("", str::trim);
                push(
                    &mut text,
                    &["# HELP ", name, suffix(kind), " ", help.unwrap_or_default()],
                );
            }
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let shown = match kind {
                    "info" | "stateset" => "gauge",
                    "unknown" => "untyped",
                    other => other,
                };
                push(&mut text, &["# TYPE ", name, suffix(kind), " ", shown]);
            }
            (Some("#"), ..) => {}
            _ => push(&mut text, &[line]),
        }
    }
    text
}

/// Returns the suffix of the samples of a kind of metric.
fn suffix(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    }
}

fn push(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_format_is_for_who_asks_for_it_alone() {
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, format) in [
            ("", MetricsFormat::OpenMetrics),
            ("*/*", MetricsFormat::OpenMetrics),
            (prometheus, MetricsFormat::OpenMetrics),
            ("text/plain;version=0.0.4", MetricsFormat::Text),
            ("text/plain, */*;q=0.1", MetricsFormat::Text),
        ] {
            assert_eq!(MetricsFormat::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn text_format_has_suffixes_and_no_types_of_openmetrics() {
        let openmetrics = "# HELP stead_build What runs here.\n# TYPE stead_build info\nstead_build_info{node=\"a\"} 1\n\
                           # HELP stead_refused Refused.\n# TYPE stead_refused counter\n\
                           stead_refused_total{limit=\"a b\"} 2\n# HELP stead_age_seconds Age.\n\
                           # TYPE stead_age_seconds gauge\n# UNIT stead_age_seconds seconds\nstead_age_seconds 0.5\n# EOF\n";
        let text = "# HELP stead_build_info What runs here.\n# TYPE stead_build_info gauge\n\
                    stead_build_info{node=\"a\"} 1\n# HELP stead_refused_total Refused.\n\
                    # TYPE stead_refused_total counter\nstead_refused_total{limit=\"a b\"} 2\n\
                    # HELP stead_age_seconds Age.\n# TYPE stead_age_seconds gauge\nstead_age_seconds 0.5\n";
        assert_eq!(MetricsFormat::Text.convert(openmetrics.to_owned()), text);
        assert_eq!(MetricsFormat::OpenMetrics.convert(openmetrics.to_owned()), openmetrics);
    }
}
