//! Which tests a run makes.

/// What is measured, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Prompt lengths; 0 is no test.
    pub n_prompt: Vec<usize>,
    /// Lengths of generation; 0 is no test.
    pub n_gen: Vec<usize>,
    /// Positions filled before each test.
    pub n_depth: Vec<usize>,
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
}

impl Test {
    /// llama-bench's short name: `pp512`, `tg128 @ d4096`.
    pub fn name(&self) -> String {
        let kind = if self.n_prompt > 0 { format!("pp{}", self.n_prompt) } else { format!("tg{}", self.n_gen) };
        if self.n_depth > 0 { format!("{kind} @ d{}", self.n_depth) } else { kind }
    }
}

impl Plan {
    /// The tests: at each depth every prompt length, then every length of generation.
    pub fn tests(&self) -> Vec<Test> {
        let mut tests = Vec::new();
        for &n_depth in &self.n_depth {
            tests.extend(self.n_prompt.iter().filter(|&&n| n > 0).map(|&n_prompt| Test { n_prompt, n_gen: 0, n_depth }));
            tests.extend(self.n_gen.iter().filter(|&&n| n > 0).map(|&n_gen| Test { n_prompt: 0, n_gen, n_depth }));
        }
        tests
    }

    /// Positions of context that the longest test fills.
    pub fn context(&self) -> usize {
        self.tests().iter().map(|test| test.n_depth + test.n_prompt + test.n_gen).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_tested_at_every_depth_and_the_context_holds_the_longest() {
        let plan = Plan { n_prompt: vec![512, 0], n_gen: vec![16, 64], n_depth: vec![0, 4096], repetitions: 1 };
        let names: Vec<_> = plan.tests().iter().map(Test::name).collect();
        assert_eq!(names, ["pp512", "tg16", "tg64", "pp512 @ d4096", "tg16 @ d4096", "tg64 @ d4096"]);
        assert_eq!(plan.context(), 4608);
    }
}
