//! Measurements for people and for programs, with llama-bench's column names.

use std::str::FromStr;

use serde::Serialize;

use crate::breakdown::Breakdown;
use crate::host::Host;
use crate::measure::Measurement;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A Markdown table.
    Markdown,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON array.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// Statements that fill a table named `test`.
    Sql,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "md" => Ok(Self::Markdown),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::Jsonl),
            "sql" => Ok(Self::Sql),
            _ => Err(format!("unknown format `{name}`: expected md, csv, json, jsonl or sql")),
        }
    }
}

/// Everything a table of results says beside the figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The engine's name.
    pub engine: &'static str,
    /// The file.
    pub model_filename: String,
    /// Architecture and element type.
    pub model_type: String,
    /// Bytes of weights.
    pub model_size: u64,
    /// Number of weights.
    pub model_n_params: u64,
    /// Where it ran.
    pub device: String,
    /// On what.
    #[serde(flatten)]
    pub host: Host,
}

/// One line of results.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    report: &'a Report,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    n_parallel: usize,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    breakdown: Option<&'a Breakdown>,
}

impl Report {
    /// What is printed before the first result; empty for formats without a head.
    pub fn head(&self, format: Format) -> String {
        match format {
            Format::Markdown => "| model | size | params | device | isa | threads | test | t/s |\n\
                                 | --- | ---: | ---: | --- | --- | ---: | ---: | ---: |\n"
                .to_owned(),
            Format::Csv => format!("{}\n", COLUMNS.map(|(name, _)| name).join(",")),
            Format::Json => "[\n".to_owned(),
            Format::Sql => {
                let columns = COLUMNS.map(|(name, kind)| format!("  {name} {kind}")).join(",\n");
                format!("CREATE TABLE IF NOT EXISTS test (\n{columns}\n);\n")
            }
            Format::Jsonl => String::new(),
        }
    }

    /// One result; `idx` counts them from 0. Formats of columns leave the breakdown out.
    pub fn row(&self, format: Format, idx: usize, measurement: &Measurement, breakdown: Option<&Breakdown>) -> String {
        let row = Row { breakdown, ..self.figures(measurement) };
        match format {
            Format::Markdown => format!(
                "{}| {} | {:.2} MiB | {:.2} M | {} | {} | {} | {} | {:.2} ± {:.2} |\n{}",
                // A table that follows ends this one.
                if breakdown.is_some() && idx > 0 { self.head(format) } else { String::new() },
                self.model_type,
                self.model_size as f64 / f64::from(1 << 20),
                self.model_n_params as f64 / 1e6,
                self.device,
                self.host.isa,
                self.host.n_threads,
                measurement.test.name(),
                row.avg_ts,
                row.stddev_ts,
                breakdown.map_or_else(String::new, Breakdown::markdown)
            ),
            Format::Csv => format!("{}\n", self.values(&row, '"').join(",")),
            Format::Sql => format!("INSERT INTO test VALUES ({});\n", self.values(&row, '\'').join(", ")),
            Format::Json => format!("{}{}", if idx == 0 { "" } else { ",\n" }, json(&row)),
            Format::Jsonl => format!("{}\n", json(&row)),
        }
    }

    /// What is printed after the last result.
    pub fn tail(&self, format: Format) -> &'static str {
        if format == Format::Json { "\n]\n" } else { "" }
    }

    fn figures(&self, measurement: &Measurement) -> Row<'_> {
        let samples_ts = measurement.tokens_per_second();
        let samples_ns: Vec<u64> = measurement.seconds.iter().map(|seconds| (seconds * 1e9) as u64).collect();
        let nanoseconds: Vec<f64> = samples_ns.iter().map(|&ns| ns as f64).collect();
        Row {
            report: self,
            n_prompt: measurement.test.n_prompt,
            n_gen: measurement.test.n_gen,
            n_depth: measurement.test.n_depth,
            n_parallel: measurement.test.n_parallel,
            avg_ns: mean(&nanoseconds) as u64,
            stddev_ns: deviation(&nanoseconds) as u64,
            avg_ts: mean(&samples_ts),
            stddev_ts: deviation(&samples_ts),
            samples_ns,
            samples_ts,
            breakdown: None,
        }
    }

    fn values(&self, row: &Row<'_>, quote: char) -> Vec<String> {
        let text = |text: &str| {
            let mut quoted = String::from(quote);
            for c in text.chars() {
                quoted.extend((c == quote).then_some(quote));
                quoted.push(c);
            }
            quoted.push(quote);
            quoted
        };
        vec![
            text(self.engine),
            text(&self.model_filename),
            text(&self.model_type),
            self.model_size.to_string(),
            self.model_n_params.to_string(),
            text(&self.device),
            text(&self.host.cpu_info),
            text(&self.host.isa),
            self.host.n_threads.to_string(),
            row.n_prompt.to_string(),
            row.n_gen.to_string(),
            row.n_depth.to_string(),
            row.n_parallel.to_string(),
            row.avg_ns.to_string(),
            row.stddev_ns.to_string(),
            row.avg_ts.to_string(),
            row.stddev_ts.to_string(),
        ]
    }
}

const COLUMNS: [(&str, &str); 17] = [
    ("engine", "TEXT"),
    ("model_filename", "TEXT"),
    ("model_type", "TEXT"),
    ("model_size", "INTEGER"),
    ("model_n_params", "INTEGER"),
    ("device", "TEXT"),
    ("cpu_info", "TEXT"),
    ("isa", "TEXT"),
    ("n_threads", "INTEGER"),
    ("n_prompt", "INTEGER"),
    ("n_gen", "INTEGER"),
    ("n_depth", "INTEGER"),
    ("n_parallel", "INTEGER"),
    ("avg_ns", "INTEGER"),
    ("stddev_ns", "INTEGER"),
    ("avg_ts", "REAL"),
    ("stddev_ts", "REAL"),
];

fn json(row: &Row<'_>) -> String {
    serde_json::json!(row).to_string()
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}

/// Sample standard deviation; 0 for fewer than two.
fn deviation(samples: &[f64]) -> f64 {
    if samples.len() < 2 {
        return 0.0;
    }
    let mean = mean(samples);
    (samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (samples.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Test;
    use downshift_engine::Times;

    fn report() -> Report {
        Report {
            engine: "downshift",
            model_filename: "it's.gguf".into(),
            model_type: "llama q8_0".into(),
            model_size: 3 << 20,
            model_n_params: 2_500_000,
            device: "cpu".into(),
            host: Host { cpu_info: "cpu".into(), isa: "scalar".into(), n_threads: 2 },
        }
    }

    fn measurement() -> Measurement {
        Measurement {
            test: Test { n_prompt: 512, n_gen: 0, n_depth: 64, n_parallel: 1 },
            seconds: vec![1.0, 2.0, 4.0],
            times: Times::default(),
        }
    }

    #[test]
    fn a_json_line_has_llama_benchs_names_and_the_right_figures() {
        let row: serde_json::Value = serde_json::from_str(&report().row(Format::Jsonl, 0, &measurement(), None)).expect("JSON");
        assert_eq!(row["samples_ts"], serde_json::json!([512.0, 256.0, 128.0]));
        assert!((row["avg_ts"].as_f64().expect("a number") - 298.6667).abs() < 1e-3);
        assert!((row["stddev_ts"].as_f64().expect("a number") - 195.5232).abs() < 1e-3);
        assert_eq!((&row["n_prompt"], &row["n_gen"], &row["n_depth"]), (&512.into(), &0.into(), &64.into()));
    }

    #[test]
    fn text_formats_carry_every_column_and_quote_text() {
        let report = report();
        assert!(report.row(Format::Markdown, 0, &measurement(), None).contains("| pp512 @ d64 | 298.67 ± 195.52 |"));
        assert_eq!(report.row(Format::Csv, 0, &measurement(), None).split(',').count(), COLUMNS.len());
        assert!(report.row(Format::Sql, 0, &measurement(), None).contains("'it''s.gguf'"));
    }
}
