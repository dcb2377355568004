//! BERT once more, in f64 and one text at a time, as the paper has it (Devlin et al. 2018, arXiv:1810.04805).

use downshift_engine::testing::{HIDDEN_SIZE, N_HEADS, N_LAYERS, NORM_EPS, TinyEmbedder};

type Rows = Vec<Vec<f64>>;

/// The vectors of the tokens `ids`, whose positions begin at `first_position`.
pub fn tokens(model: &TinyEmbedder, ids: &[u32], first_position: usize) -> Rows {
    let row = |name: &str, at: usize| -> Vec<f64> {
        let values = &model.tensors[name].values[at * HIDDEN_SIZE..(at + 1) * HIDDEN_SIZE];
        values.iter().map(|&x| f64::from(x)).collect()
    };
    let embed = |(at, &id): (usize, &u32)| {
        let word = row("embeddings.word_embeddings.weight", id as usize);
        let position = row("embeddings.position_embeddings.weight", first_position + at);
        add(&add(&word, &position), &row("embeddings.token_type_embeddings.weight", 0))
    };
    let embedded: Rows = ids.iter().enumerate().map(embed).collect();
    let mut hidden = norm(model, "embeddings.LayerNorm", &embedded);
    for layer in 0..N_LAYERS {
        let layer = format!("encoder.layer.{layer}");
        let attended = dense(model, &format!("{layer}.attention.output.dense"), &attention(model, &layer, &hidden));
        hidden = norm(model, &format!("{layer}.attention.output.LayerNorm"), &sum(&attended, &hidden));
        let inner = dense(model, &format!("{layer}.intermediate.dense"), &hidden);
        let inner: Rows = inner.iter().map(|row| row.iter().map(|&x| gelu(x)).collect()).collect();
        let outer = dense(model, &format!("{layer}.output.dense"), &inner);
        hidden = norm(model, &format!("{layer}.output.LayerNorm"), &sum(&outer, &hidden));
    }
    hidden
}

/// The mean of the rows, scaled to length 1.
pub fn mean_normalized(rows: &Rows) -> Vec<f32> {
    let mean: Vec<f64> = (0..HIDDEN_SIZE).map(|at| rows.iter().map(|row| row[at]).sum::<f64>() / rows.len() as f64).collect();
    let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
    mean.iter().map(|x| (x / length) as f32).collect()
}

fn attention(model: &TinyEmbedder, layer: &str, hidden: &Rows) -> Rows {
    let [q, k, v] = ["query", "key", "value"].map(|part| dense(model, &format!("{layer}.attention.self.{part}"), hidden));
    let head_dim = HIDDEN_SIZE / N_HEADS;
    let mut out = vec![vec![0.0; HIDDEN_SIZE]; hidden.len()];
    for head in 0..N_HEADS {
        let part = head * head_dim..(head + 1) * head_dim;
        for (at, q) in q.iter().enumerate() {
            let dot = |k: &Vec<f64>| part.clone().map(|i| q[i] * k[i]).sum::<f64>() / (head_dim as f64).sqrt();
            let weights: Vec<f64> = k.iter().map(|k| dot(k).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in part.clone() {
                out[at][i] = weights.iter().zip(&v).map(|(weight, v)| weight / total * v[i]).sum();
            }
        }
    }
    out
}

fn dense(model: &TinyEmbedder, name: &str, rows: &Rows) -> Rows {
    let (weight, bias) = (&model.tensors[&format!("{name}.weight")], &model.tensors[&format!("{name}.bias")]);
    let width = weight.shape[1];
    let of_row = |row: &Vec<f64>| {
        let dot = |weights: &[f32]| weights.iter().zip(row).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
        weight.values.chunks(width).zip(&bias.values).map(|(weights, b)| dot(weights) + f64::from(*b)).collect()
    };
    rows.iter().map(of_row).collect()
}

fn norm(model: &TinyEmbedder, name: &str, rows: &Rows) -> Rows {
    let (weight, bias) = (&model.tensors[&format!("{name}.weight")].values, &model.tensors[&format!("{name}.bias")].values);
    let of_row = |row: &Vec<f64>| {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let scale = |(x, (w, b)): (&f64, (&f32, &f32))| (x - mean) / (variance + NORM_EPS).sqrt() * f64::from(*w) + f64::from(*b);
        row.iter().zip(weight.iter().zip(bias)).map(scale).collect()
    };
    rows.iter().map(of_row).collect()
}

/// `x` times the normal distribution's probability up to it, integrated by Simpson's rule.
fn gelu(x: f64) -> f64 {
    const STEPS: usize = 2000;
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let step = x / STEPS as f64;
    let inner: f64 = (1..STEPS).map(|at| if at % 2 == 1 { 4.0 } else { 2.0 } * density(step * at as f64)).sum();
    x * (0.5 + step / 3.0 * (density(0.0) + inner + density(x)))
}

fn add(one: &[f64], other: &[f64]) -> Vec<f64> {
    one.iter().zip(other).map(|(x, y)| x + y).collect()
}

fn sum(one: &Rows, other: &Rows) -> Rows {
    one.iter().zip(other).map(|(x, y)| add(x, y)).collect()
}
