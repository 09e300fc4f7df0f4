//! gristmill (docs written last)
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

mod cpu;
mod device;
mod dtype;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
mod layout;
pub mod ops;
mod philox;
mod platform;
mod tensor;

pub use device::{DEVICE_VAR, Device};
pub use dtype::{DType, Element};
pub use error::{Error, Operand, Result};
pub use layout::{Indices, Layout, MAX_RANK};
pub use tensor::Tensor;
