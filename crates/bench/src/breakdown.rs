//! Where the time of a test goes, and how near it comes to what the machine can do. Pure.

use downshift_engine::{Ceilings, Part, Traffic};
use serde::Serialize;

use crate::measure::Measurement;

/// One test beside the machine's ceilings, which were measured in the same run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Breakdown {
    /// Bytes of weights, keys and values that were read, in 10^9 a second.
    pub read_gbs: f64,
    /// The same as the machine can at most.
    pub read_ceiling_gbs: f64,
    /// Multiplications and additions of the linear layers, in 10^9 a second.
    pub linear_gops: f64,
    /// The same in eight bits as the machine can at most.
    pub int8_ceiling_gops: f64,
    /// What each part of the forward passes took.
    pub parts: Vec<PartShare>,
}

/// One part of the forward passes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartShare {
    /// Its name.
    pub part: &'static str,
    /// Milliseconds a pass, all layers together.
    pub ms: f64,
    /// Share of all parts.
    pub share: f64,
}

impl Breakdown {
    /// Of `measurement`, whose passes took at most `max_rows` rows each.
    pub fn new(measurement: &Measurement, traffic: &Traffic, max_rows: usize, ceilings: Ceilings) -> Self {
        let Measurement { test, seconds, times } = measurement;
        let sequences = test.n_parallel as f64;
        let prompt_passes = test.n_prompt.div_ceil(max_rows.max(1)) as f64 * sequences;
        let passes = prompt_passes + test.n_gen as f64;
        // A prompt asks for the logits of its last token only.
        let (head_reads, head_rows) = match test.n_prompt {
            0 => (test.n_gen as f64, test.n_gen as f64 * sequences),
            _ => (sequences, sequences),
        };
        let rows = (test.n_prompt + test.n_gen) as f64 * sequences;
        let positions_read = test.n_gen as f64 * sequences * (test.n_depth as f64 + (test.n_gen as f64 + 1.0) / 2.0);
        let bytes = passes * traffic.layer_bytes as f64
            + head_reads * traffic.head_bytes as f64
            + positions_read * traffic.kv_bytes_per_position as f64;
        let ops = 2.0 * (rows * traffic.layer_weights as f64 + head_rows * traffic.head_weights as f64);
        let repetitions = seconds.len() as f64;
        let mean = seconds.iter().sum::<f64>() / repetitions;
        let total = times.total().as_secs_f64();
        let parts = Part::ALL.map(|part| {
            let time = times.of(part).as_secs_f64();
            PartShare { part: part.name(), ms: time * 1e3 / (repetitions * passes), share: time / total }
        });
        Self {
            read_gbs: bytes / mean / 1e9,
            read_ceiling_gbs: ceilings.read_bytes_per_second / 1e9,
            linear_gops: ops / mean / 1e9,
            int8_ceiling_gops: ceilings.int8_ops_per_second / 1e9,
            parts: parts.to_vec(),
        }
    }

    /// As a Markdown table with a sentence before it.
    pub fn markdown(&self) -> String {
        let Self { read_gbs, read_ceiling_gbs, linear_gops, int8_ceiling_gops, .. } = self;
        let mut text = format!(
            "\nReads {read_gbs:.1} of {read_ceiling_gbs:.1} GB/s ({:.0}%); multiplies {linear_gops:.0} of {int8_ceiling_gops:.0} GOPS ({:.0}%).\n\n\
             | part | ms a pass | share |\n| --- | ---: | ---: |\n",
            100.0 * read_gbs / read_ceiling_gbs,
            100.0 * linear_gops / int8_ceiling_gops
        );
        for PartShare { part, ms, share } in &self.parts {
            text += &format!("| {part} | {ms:.3} | {:.1}% |\n", 100.0 * share);
        }
        text + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Test;
    use downshift_engine::Times;

    const TRAFFIC: Traffic =
        Traffic { layer_weights: 2000, layer_bytes: 1000, head_weights: 400, head_bytes: 300, kv_bytes_per_position: 10 };
    const CEILINGS: Ceilings = Ceilings { read_bytes_per_second: 1e4, int8_ops_per_second: 1e6 };

    fn of(test: Test) -> Breakdown {
        Breakdown::new(&Measurement { test, seconds: vec![1.0, 3.0], times: Times::default() }, &TRAFFIC, 256, CEILINGS)
    }

    #[test]
    fn decode_reads_all_weights_once_a_pass_and_every_position_of_every_sequence() {
        let found = of(Test { n_prompt: 0, n_gen: 3, n_depth: 100, n_parallel: 2 });
        // Three passes of 1300 bytes; 101, 102 and 103 positions of two sequences; in two seconds.
        assert!((found.read_gbs - (3.0 * 1300.0 + 2.0 * 306.0 * 10.0) / 2.0 / 1e9).abs() < 1e-15, "{found:?}");
        assert!((found.linear_gops - 2.0 * 6.0 * 2400.0 / 2.0 / 1e9).abs() < 1e-15, "{found:?}");
    }

    #[test]
    fn a_prompt_reads_the_layers_once_a_step_and_the_head_once() {
        let found = of(Test { n_prompt: 512, n_gen: 0, n_depth: 0, n_parallel: 1 });
        assert!((found.read_gbs - (2.0 * 1000.0 + 300.0) / 2.0 / 1e9).abs() < 1e-15, "{found:?}");
        assert!((found.linear_gops - 2.0 * (512.0 * 2000.0 + 400.0) / 2.0 / 1e9).abs() < 1e-15, "{found:?}");
    }
}
