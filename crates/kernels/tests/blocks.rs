//! What blocks mean, against values computed by another implementation (the gguf Python package).

use downshift_kernels::{Cpu, DType, Isa, Matrix};

#[test]
fn blocks_mean_what_they_mean_elsewhere() {
    let cpu = Cpu::new(Isa::SCALAR, 1);
    let mut seen = 0;
    for line in include_str!("blocks.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let dtype = DType::ALL.into_iter().find(|dtype| dtype.name() == fields[0]).unwrap();
        let bytes = unhex(fields[1]);
        let expected: Vec<f32> = unhex(fields[2]).as_chunks::<4>().0.iter().map(|b| f32::from_be_bytes(*b)).collect();
        let matrix = Matrix::new(dtype, 1, expected.len(), &bytes).unwrap();
        let mut actual = vec![f32::NAN; expected.len()];
        cpu.dequantize_row(&matrix, 0, &mut actual);
        for (i, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            let close = (actual - expected).abs() <= 1e-5 * expected.abs().max(1e-30);
            assert!(close, "{} weight {i}: {actual}, expected {expected}", fields[0]);
        }
        seen += 1;
    }
    assert_eq!(seen, DType::ALL.len() - 1, "all but f32");
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().as_chunks::<2>().0.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
