//! From the vectors of tokens to the vector of a text, as sentence-transformers defines it.

/// One way of pooling; a folder may ask for several, whose results follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// The first token.
    Cls,
    /// The greatest value of each component.
    Max,
    /// The mean of all tokens.
    Mean,
    /// Their sum over the square root of their number.
    MeanSqrtLen,
    /// The mean weighted by position, from 1.
    WeightedMean,
    /// The last token.
    LastToken,
}

impl Pooling {
    /// All ways, in the order in which their results follow each other, with the words of `1_Pooling/config.json`: the switch of
    /// older folders, and the name of newer ones.
    pub const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Cls, "pooling_mode_cls_token", "cls"),
        (Self::Max, "pooling_mode_max_tokens", "max"),
        (Self::Mean, "pooling_mode_mean_tokens", "mean"),
        (Self::MeanSqrtLen, "pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        (Self::WeightedMean, "pooling_mode_weightedmean_tokens", "weightedmean"),
        (Self::LastToken, "pooling_mode_lasttoken", "lasttoken"),
    ];

    /// Adds `hidden_size` numbers to `out`, from the tokens `(t, hidden_size)` of one text, padding left out; `t` > 0.
    pub fn pool(self, tokens: &[f32], hidden_size: usize, out: &mut Vec<f32>) {
        let rows = || tokens.chunks_exact(hidden_size);
        let n_tokens = (tokens.len() / hidden_size) as f32;
        let sum = |weight: fn(usize) -> f32| {
            let mut sum = vec![0.0; hidden_size];
            for (at, row) in rows().enumerate() {
                let weight = weight(at);
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
            }
            sum
        };
        match self {
            Self::Cls => out.extend_from_slice(&tokens[..hidden_size]),
            Self::LastToken => out.extend_from_slice(&tokens[tokens.len() - hidden_size..]),
            Self::Max => {
                let mut most = tokens[..hidden_size].to_vec();
                for row in rows().skip(1) {
                    most.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(*x));
                }
                out.extend(most);
            }
            Self::Mean => out.extend(sum(|_| 1.0).into_iter().map(|sum| sum / n_tokens)),
            Self::MeanSqrtLen => out.extend(sum(|_| 1.0).into_iter().map(|sum| sum / n_tokens.sqrt())),
            Self::WeightedMean => {
                let weights = n_tokens * (n_tokens + 1.0) / 2.0;
                out.extend(sum(|at| at as f32 + 1.0).into_iter().map(|sum| sum / weights));
            }
        }
    }
}

/// Scales a vector to length 1; a vector of zeros stays one.
pub(crate) fn normalize(vector: &mut [f32]) {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|x| *x /= norm);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_pooling_gives_what_its_name_says() {
        let tokens = [1.0, -4.0, 2.0, 8.0, 6.0, -1.0, 7.0, 5.0];
        let check = |pooling: Pooling, expected: [f32; 2]| {
            let mut out = Vec::new();
            pooling.pool(&tokens, 2, &mut out);
            assert_eq!(out, expected, "{pooling:?}");
        };
        check(Pooling::Cls, [1.0, -4.0]);
        check(Pooling::LastToken, [7.0, 5.0]);
        check(Pooling::Max, [7.0, 8.0]);
        check(Pooling::Mean, [4.0, 2.0]);
        check(Pooling::MeanSqrtLen, [8.0, 4.0]);
        check(Pooling::WeightedMean, [(1.0 + 4.0 + 18.0 + 28.0) / 10.0, (-4.0 + 16.0 - 3.0 + 20.0) / 10.0]);
    }

    #[test]
    fn a_normalized_vector_has_length_one_and_zeros_stay() {
        let mut vector = [3.0, -4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, -0.8]);
        let mut zeros = [0.0, 0.0];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0, 0.0]);
    }
}
