//! How many prompt tokens a step may take, so that it ends in time: for the streams that wait for it, for requests and
//! cancellations that arrive during it, and for whoever watches that steps go on. Pure: is told what steps took.

use std::time::Duration;

use downshift_kernels::kv::KV_BLOCK;

/// Fewest prompt tokens of a step: below, reading the weights costs more than what they are multiplied with.
const MIN_ROWS: usize = 32;

/// Steps with fewer rows say little about prefill.
const MIN_ROWS_MEASURED: usize = MIN_ROWS;

/// What the last measurement counts for against those before.
const WEIGHT: f64 = 0.3;

/// Prompt tokens a second, as measured.
#[derive(Debug)]
pub(super) struct Pace {
    rows_per_second: Option<f64>,
}

impl Pace {
    /// Rows of the first step, of which nothing is known: a second of a model of 7 thousand million weights on a good processor.
    const UNKNOWN_ROWS: usize = 256;

    pub fn new() -> Self {
        Self { rows_per_second: None }
    }

    /// A step of `n_rows` took this long.
    pub fn record(&mut self, n_rows: usize, took: Duration) {
        if n_rows >= MIN_ROWS_MEASURED && !took.is_zero() {
            let now = n_rows as f64 / took.as_secs_f64();
            self.rows_per_second = Some(self.rows_per_second.map_or(now, |before| before + WEIGHT * (now - before)));
        }
    }

    /// Rows of a step of about `time`, whole blocks where it is one or more; never fewer than a step is worth.
    pub fn rows(&self, time: Duration) -> usize {
        let rows = self.rows_per_second.map_or(Self::UNKNOWN_ROWS, |rate| (rate * time.as_secs_f64()) as usize);
        if rows < KV_BLOCK { MIN_ROWS } else { rows / KV_BLOCK * KV_BLOCK }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_take_the_time_that_is_given_whatever_the_model() {
        for (rate, rows) in [(10.0, 32), (300.0, 32), (640.0, 64), (1000.0, 64), (2000.0, 192), (1e6, 99_968)] {
            let mut pace = Pace::new();
            for _ in 0..20 {
                let rows = pace.rows(Duration::from_secs(1));
                pace.record(rows, Duration::from_secs_f64(rows as f64 / rate));
            }
            assert_eq!(pace.rows(Duration::from_millis(100)), rows, "{rate} rows a second");
        }
    }

    #[test]
    fn decode_says_nothing_about_prefill() {
        let mut pace = Pace::new();
        pace.record(4, Duration::from_secs(9));
        assert_eq!(pace.rows(Duration::from_secs(1)), Pace::UNKNOWN_ROWS);
    }
}
