//! Pauses for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::failover::{Pause, Pauses};

/// The head of the Markdown table.
pub const HEAD: &str = "| case | from | to | runs | p50 ms | p99 ms | noticed | inspect | count | load | prefill |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
";

impl Pauses {
    /// Milliseconds below which this share of the samples are, by nearest rank; of what `part` takes from each.
    pub fn percentile_ms(&self, share: f64, part: impl Fn(&Pause) -> Duration) -> f64 {
        let mut ms: Vec<f64> = self.samples.iter().map(|pause| part(pause).as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let rank = (share * ms.len() as f64).ceil() as usize;
        ms.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }

    /// One row of the Markdown table: p50 and p99 of the pause, then p50 of its parts.
    pub fn row(&self) -> String {
        let median = |part: fn(&Pause) -> Duration| self.percentile_ms(0.5, part);
        let [p50, p99] = [0.5, 0.99].map(|share| self.percentile_ms(share, |pause| pause.total));
        let parts = [median(|p| p.noticed), median(|p| p.inspect), median(|p| p.count), median(|p| p.load), median(|p| p.prefill)];
        let parts: String = parts.iter().map(|ms| format!(" {ms:.1} |")).collect();
        format!("| {} | {} | {} | {} | {p50:.1} | {p99:.1} |{parts}\n", self.case.name(), self.from, self.to, self.samples.len())
    }

    /// The same for programs, with every sample.
    pub fn json(&self) -> Value {
        let median = |part: fn(&Pause) -> Duration| self.percentile_ms(0.5, part);
        let samples: Vec<f64> = self.samples.iter().map(|pause| pause.total.as_secs_f64() * 1e3).collect();
        json!({
            "case": self.case.name(),
            "from": self.from,
            "to": self.to,
            "runs": self.samples.len(),
            "p50_ms": self.percentile_ms(0.5, |pause| pause.total),
            "p99_ms": self.percentile_ms(0.99, |pause| pause.total),
            "noticed_ms": median(|pause| pause.noticed),
            "inspect_ms": median(|pause| pause.inspect),
            "count_ms": median(|pause| pause.count),
            "load_ms": median(|pause| pause.load),
            "prefill_ms": median(|pause| pause.prefill),
            "samples_ms": samples,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::Case;

    #[test]
    fn percentiles_are_by_nearest_rank_and_parts_have_medians_of_their_own() {
        let pause = |ms: u64| Pause { total: Duration::from_millis(ms), load: Duration::from_millis(ms / 2), ..Pause::default() };
        let samples = (1..=200).rev().map(|ms| pause(ms * 2)).collect();
        let pauses = Pauses { case: Case::SameModel, from: "a".into(), to: "a".into(), samples };
        let total = |share| pauses.percentile_ms(share, |pause| pause.total);
        assert_eq!((total(0.5), total(0.99), total(1.0)), (200.0, 396.0, 400.0));
        assert_eq!(pauses.row(), "| killed, same model | a | a | 200 | 200.0 | 396.0 | 0.0 | 0.0 | 0.0 | 100.0 | 0.0 |\n");
        assert_eq!((&pauses.json()["p99_ms"], pauses.json()["samples_ms"].as_array().map(Vec::len)), (&json!(396.0), Some(200)));
        assert_eq!(HEAD.lines().map(|line| line.matches('|').count()).collect::<Vec<_>>(), [12, 12]);
    }
}
