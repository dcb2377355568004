//! The table of architectures: what each does differently in the one decoder.

use downshift_kernels::rope::RopeKind;

use crate::error::Error;

/// One row: the differences that the weights and keys of a file do not show by themselves.
#[derive(Debug, PartialEq)]
pub struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// Which components of a head rotate together.
    pub rope: RopeKind,
    /// Whether queries and keys are normed per head before they rotate.
    pub qk_norm: bool,
}

static ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "llama", rope: RopeKind::Norm, qk_norm: false },
    Architecture { name: "qwen2", rope: RopeKind::Neox, qk_norm: false },
    Architecture { name: "qwen3", rope: RopeKind::Neox, qk_norm: true },
];

/// The row of an architecture.
///
/// # Errors
/// [`Error::UnsupportedArchitecture`], which lists the known ones.
pub fn find(name: &str) -> Result<&'static Architecture, Error> {
    ARCHITECTURES
        .iter()
        .find(|row| row.name == name)
        .ok_or_else(|| Error::UnsupportedArchitecture { found: name.to_owned(), known: known().collect::<Vec<_>>().join(", ") })
}

/// Names of all rows.
pub fn known() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().map(|row| row.name)
}
