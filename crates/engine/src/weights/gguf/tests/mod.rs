//! What files are read as, and how wrong ones are refused.

mod fuzz;
mod hostile;
mod paths;
mod reading;

use super::{Gguf, GgufError, GgufErrorClass};
use crate::testing::{GgufWriter, Stored};
use crate::weights::Bytes;

/// A file of about a kilobyte with a key of every kind and three tensors.
fn small() -> GgufWriter {
    let values: Vec<f32> = (0..64).map(|i| i as f32 - 31.5).collect();
    GgufWriter::new("llama")
        .raw("u8", 0, &[200])
        .raw("i8", 1, &[0xff])
        .raw("u16", 2, &[1, 2])
        .raw("i16", 3, &[0xfe, 0xff])
        .u32("u32", 70_000)
        .raw("i32", 5, &(-7i32).to_le_bytes())
        .f32("f32", 1.5)
        .boolean("bool", true)
        .string("string", "text")
        .raw("u64", 10, &u64::MAX.to_le_bytes())
        .raw("i64", 11, &i64::MIN.to_le_bytes())
        .raw("f64", 12, &0.25f64.to_le_bytes())
        .strings("strings", &["a", "", "longer than eight bytes"])
        .i32s("i32s", &[1, -2, 3])
        .f32s("f32s", &[0.5, -0.5])
        .raw("bools", 9, &[7, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0])
        .tensor("norm", &[4], Stored::F32, &values[..4])
        .tensor("matrix", &[32, 2], Stored::Q8_0, &values)
        .tensor("half", &[2, 3], Stored::F16, &values[..6])
}

fn parse(file: Vec<u8>) -> Result<Gguf, GgufError> {
    Gguf::parse(Bytes::from(file), "test.gguf")
}

/// That `file` is refused as `class`, in a sentence that names the file and contains `part`.
#[track_caller]
fn refused(file: Vec<u8>, class: GgufErrorClass, part: &str) {
    match parse(file) {
        Ok(_) => panic!("accepted, expected {class:?} with {part:?}"),
        Err(error) => says(&error, class, part),
    }
}

#[track_caller]
fn says(error: &GgufError, class: GgufErrorClass, part: &str) {
    assert_eq!(error.class(), class, "{error}");
    assert!(error.to_string().contains(part), "{error} does not say {part:?}");
}
