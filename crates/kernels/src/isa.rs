//! Which instruction sets this machine has. Detected once; a table of kernels is reached only through a detected [`Isa`].

use std::sync::OnceLock;

/// An instruction set with a table of kernels, from the one that runs everywhere to the fastest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Isa(pub(crate) Tier);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) enum Tier {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Isa {
    /// Plain Rust; the specification of all others.
    pub const SCALAR: Self = Self(Tier::Scalar);

    /// The instruction sets of this machine, slowest first. Never empty.
    pub fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<Vec<Isa>> = OnceLock::new();
        AVAILABLE.get_or_init(|| TIERS.iter().copied().filter(detected).map(Self).collect())
    }

    /// What `DOWNSHIFT_ISA` names, if this machine has it; otherwise the fastest of this machine.
    pub fn from_env() -> Self {
        std::env::var("DOWNSHIFT_ISA")
            .ok()
            .and_then(|name| Self::named(&name))
            .or_else(|| Self::available().last().copied())
            .unwrap_or(Self::SCALAR)
    }

    /// The instruction set of this name, if this machine has it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().iter().copied().find(|isa| isa.name() == name)
    }

    /// As `DOWNSHIFT_ISA` spells it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Tier::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Tier::Amx => "amx",
        }
    }
}

const TIERS: &[Tier] = &[
    Tier::Scalar,
    #[cfg(target_arch = "x86_64")]
    Tier::Avx2,
    #[cfg(target_arch = "x86_64")]
    Tier::Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Tier::Amx,
];

fn detected(tier: &Tier) -> bool {
    match tier {
        Tier::Scalar => true,
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512Vnni => {
            detected(&Tier::Avx2)
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        }
        #[cfg(target_arch = "x86_64")]
        Tier::Amx => detected(&Tier::Avx512Vnni) && crate::arch::amx::detected(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_is_always_available_and_names_find_their_isa() {
        assert_eq!(Isa::available()[0], Isa::SCALAR);
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Some(*isa));
        }
        assert_eq!(Isa::named("no such thing"), None);
    }
}
