//! Which tests a run makes.

use downshift_engine::KV_BLOCK;

/// What is measured, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Prompt lengths; 0 is no test.
    pub n_prompt: Vec<usize>,
    /// Lengths of generation; 0 is no test.
    pub n_gen: Vec<usize>,
    /// Positions filled before each test.
    pub n_depth: Vec<usize>,
    /// Sequences that run each test side by side.
    pub n_parallel: Vec<usize>,
    /// Repetitions of each test, the one that warms up not counted.
    pub repetitions: usize,
}

/// One test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// Tokens of the prompt, or 0.
    pub n_prompt: usize,
    /// Tokens generated one at a time, or 0.
    pub n_gen: usize,
    /// Positions filled before.
    pub n_depth: usize,
    /// Sequences side by side, each with these numbers of tokens.
    pub n_parallel: usize,
}

impl Test {
    /// llama-bench's short name, with the number of sequences if more than one: `pp512`, `tg128 @ d4096`, `tg128 x 4`.
    pub fn name(&self) -> String {
        let mut name = if self.n_prompt > 0 { format!("pp{}", self.n_prompt) } else { format!("tg{}", self.n_gen) };
        if self.n_parallel > 1 {
            name += &format!(" x {}", self.n_parallel);
        }
        if self.n_depth > 0 {
            name += &format!(" @ d{}", self.n_depth);
        }
        name
    }
}

impl Plan {
    /// The tests: at each depth, for each number of sequences, every prompt length, then every length of generation.
    pub fn tests(&self) -> Vec<Test> {
        let mut tests = Vec::new();
        for &n_depth in &self.n_depth {
            for &n_parallel in self.n_parallel.iter().filter(|&&n| n > 0) {
                let test = Test { n_prompt: 0, n_gen: 0, n_depth, n_parallel };
                tests.extend(self.n_prompt.iter().filter(|&&n| n > 0).map(|&n_prompt| Test { n_prompt, ..test }));
                tests.extend(self.n_gen.iter().filter(|&&n| n > 0).map(|&n_gen| Test { n_gen, ..test }));
            }
        }
        tests
    }

    /// Positions of context that the largest test fills; a sequence holds whole blocks of them.
    pub fn context(&self) -> usize {
        let positions = |test: &Test| match test.n_depth + test.n_prompt + test.n_gen {
            alone if test.n_parallel == 1 => alone,
            each => each.next_multiple_of(KV_BLOCK) * test.n_parallel,
        };
        self.tests().iter().map(positions).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_tested_at_every_depth_and_the_context_holds_the_longest() {
        let plan = Plan { n_prompt: vec![512, 0], n_gen: vec![16, 64], n_depth: vec![0, 4096], n_parallel: vec![1], repetitions: 1 };
        let names: Vec<_> = plan.tests().iter().map(Test::name).collect();
        assert_eq!(names, ["pp512", "tg16", "tg64", "pp512 @ d4096", "tg16 @ d4096", "tg64 @ d4096"]);
        assert_eq!(plan.context(), 4608);
    }

    #[test]
    fn sequences_side_by_side_each_have_their_own_blocks() {
        let plan = Plan { n_prompt: vec![], n_gen: vec![65], n_depth: vec![0], n_parallel: vec![1, 4, 0], repetitions: 1 };
        let names: Vec<_> = plan.tests().iter().map(Test::name).collect();
        assert_eq!(names, ["tg65", "tg65 x 4"]);
        assert_eq!(plan.context(), 4 * 128);
    }
}
