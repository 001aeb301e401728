//! The pages for those who run the server say what the program does: every setting with its default, every metric.

use jointly_server::config::{Config, KeyConfig};
use jointly_server::metrics::{Kind, METRICS};
use toml::{Table, Value};

const SERVING: &str = include_str!("../../../docs/serving.md");
const METRICS_PAGE: &str = include_str!("../../../docs/metrics.md");

/// The rows of a page's tables, by their first cell.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells =
        |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_string()).collect();
    page.lines().filter(|line| line.starts_with("| `")).map(cells).collect()
}

fn leaves(prefix: &str, table: &Table, found: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(table) => leaves(&key, table, found),
            value => found.push((key, value.to_string())),
        }
    }
}

#[test]
fn every_setting_is_explained_with_its_default() {
    let mut settings = Vec::new();
    leaves("", &Table::try_from(Config::default()).unwrap(), &mut settings);
    settings.retain(|(key, _)| key != "keys");
    let key = KeyConfig {
        name: "a".into(),
        sha256: "0".into(),
        tokens_per_minute: 0,
        requests_per_minute: 0,
        admin: false,
    };
    let mut of_a_key = Vec::new();
    leaves("keys[]", &Table::try_from(key).unwrap(), &mut of_a_key);

    let rows = rows(SERVING);
    let row = |key: &str| {
        let wanted = format!("`{}`", key.replace("models.default.", "models.NAME."));
        rows.iter()
            .find(|row| row[0] == wanted)
            .unwrap_or_else(|| panic!("docs/serving.md has no row for {key}"))
    };
    assert!(settings.len() > 35, "{}", settings.len());
    for (key, default) in &settings {
        // Times are written as text in the file, and without quotes on the page.
        let shown = row(key)[1].trim_matches('`').to_string();
        assert!(shown == *default || format!("\"{shown}\"") == *default, "{key}: {shown} is not {default}");
    }
    of_a_key.iter().for_each(|(key, _)| assert!(!row(key).is_empty(), "{key}"));
    let known = settings.len() + of_a_key.len() + 2; // names.NAME, cascades.NAME
    let explained = rows.iter().filter(|row| row.len() == 3 && !row[0].starts_with("`/")).count();
    assert_eq!(explained, known, "docs/serving.md explains a setting that there is not");
}

#[test]
fn every_metric_is_explained_as_the_program_does() {
    let rows = rows(METRICS_PAGE);
    let rows: Vec<_> = rows.iter().filter(|row| row.len() == 4).collect();
    assert_eq!(rows.len(), METRICS.len());
    for ((name, kind, says), row) in METRICS.iter().zip(rows) {
        assert_eq!(row[0], format!("`{name}`"));
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!((row[1].as_str(), row[3].trim_end_matches(" |")), (kind, *says), "{name}");
    }
}
