//! [`DType`] and the Rust types that hold one element of each.

use std::fmt;

use half::{bf16, f16};

/// The type of a tensor's elements in storage.
///
/// Arithmetic is in f32 whatever the storage; `ops::cast` states how values move between types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// Two's complement, 32 bits.
    I32,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 8 bits.
    U8,
    /// A byte each; 0 is false, all else true; we write 1.
    Bool,
}

impl DType {
    /// Every type, in declaration order. A type's place here is its code in the shaders.
    pub const ALL: [DType; 7] = [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::U8, DType::Bool];

    /// Elements a block. 1 for all plain types; quantised types will have more.
    pub const fn block_len(self) -> usize {
        1
    }

    /// Bytes a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 | DType::Bool => 1,
        }
    }

    /// Whether it holds floats: f32, f16, bf16.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// The name as Rust writes it: `f32`, `bf16`, `bool`, …
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::U8 => "u8",
            DType::Bool => "bool",
        }
    }

    /// The number that stands for the type in the shaders.
    #[cfg(feature = "gpu")]
    pub(crate) const fn code(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that is one element of a tensor: `f32`, [`half::f16`], [`half::bf16`], `i32`, `u32`, `u8`, `bool`.
pub trait Element: sealed::Sealed + bytemuck::NoUninit + PartialEq + fmt::Debug + Send + Sync {
    /// The storage type that this is an element of.
    const DTYPE: DType;
    /// The nearest value, by the rules of [`ops::cast`](crate::ops::cast()).
    fn from_f64(value: f64) -> Self;
    /// Reads elements from storage bytes; a trailing partial element is ignored.
    #[doc(hidden)]
    fn from_bytes(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! element {
    ($type:ty, $dtype:expr, $value:ident => $from_f64:expr) => {
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = $dtype;
            fn from_f64($value: f64) -> Self {
                $from_f64
            }
            fn from_bytes(bytes: &[u8]) -> Vec<Self> {
                bytes.chunks_exact(size_of::<Self>()).map(bytemuck::pod_read_unaligned).collect()
            }
        }
    };
}

element!(f32, DType::F32, v => v as f32);
element!(f16, DType::F16, v => f16::from_f32(to_odd(v)));
element!(bf16, DType::BF16, v => bf16::from_f32(to_odd(v)));
element!(i32, DType::I32, v => v as i32);
element!(u32, DType::U32, v => v as u32);
element!(u8, DType::U8, v => v as u8);

/// Rounds to odd, so that a second rounding to 16 bits gives what a single one would (`half`'s own `from_f64` drops 32 bits).
fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    let wide = f64::from(near);
    let bits = near.to_bits();
    if wide == value || value.is_nan() || bits & 1 == 1 {
        near
    } else if wide.abs() < value.abs() {
        f32::from_bits(bits + 1)
    } else {
        f32::from_bits(bits - 1)
    }
}

impl sealed::Sealed for bool {}
impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn from_f64(value: f64) -> Self {
        value != 0.0
    }
    fn from_bytes(bytes: &[u8]) -> Vec<Self> {
        bytes.iter().map(|&b| b != 0).collect()
    }
}
