//! GPU compute kernels for people who write models: matmul, softmax and attention on whatever GPU is there.
//!
//! The kernels are WGSL shaders dispatched through [wgpu](https://docs.rs/wgpu) on Vulkan, Metal, DX12 and GL. A [rayon](https://docs.rs/rayon)
//! backend on the CPU is the fallback where there is no GPU, and the oracle that proves the kernels where there is one.
//!
//! ```
//! use gristmill::{Device, Tensor, ops};
//!
//! # fn main() -> gristmill::Result<()> {
//! let device = Device::best()?; // a hardware GPU if there is one, else the CPU
//! let x = Tensor::rand_normal(&device, &[1, 32, 256], 0.0, 1.0, 0)?; // batch, seq, width
//! let w = Tensor::rand_normal(&device, &[3 * 256, 256], 0.0, 0.06, 1)?;
//!
//! // One projection to q, k and v, seen as [3, batch, heads, seq, head_dim] without a copy.
//! let qkv = ops::matmul(&x, &w.transpose(0, 1)?, &ops::Matmul::default())?.reshape(&[1, 32, 3, 4, 64])?.permute(&[2, 0, 3, 1, 4])?;
//! let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(0, i..i + 1).and_then(|t| t.squeeze(0)));
//!
//! let causal = ops::Attention { causal: true, ..Default::default() };
//! let y = ops::attention(&q?, &k?, &v?, &causal)?;
//! assert_eq!(y.shape(), [1, 4, 32, 64]);
//! let values: Vec<f32> = y.to_vec()?; // the only line that waits for the device
//! # assert!(values.iter().all(|v| v.is_finite()));
//! # Ok(())
//! # }
//! ```
//!
//! # What to call
//!
//! | I have | I want | call |
//! |---|---|---|
//! | nothing | a device | [`Device::best`]; [`Device::cpu`], `Device::gpu` to be sure; `Device::adapters` to look |
//! | a slice, an `ndarray` array (of `half::f16` and `bf16` too) | a tensor | [`Tensor::from_slice`], [`Tensor::from_ndarray`] |
//! | a safetensors file | its tensors | `Tensor::from_safetensors` for each view (feature `safetensors`) |
//! | an `.npy` file | a tensor | `Tensor::read_npy` (feature `npy`) |
//! | a shape | a tensor | [`Tensor::zeros`], [`full`](Tensor::full), [`arange`](Tensor::arange), [`rand_uniform`](Tensor::rand_uniform), [`rand_normal`](Tensor::rand_normal) |
//! | a tensor | another shape of it | the views ([`narrow`](Tensor::narrow), [`permute`](Tensor::permute), [`reshape`](Tensor::reshape), …): free. [`Tensor::contiguous`] where `reshape` refuses |
//! | a tensor | its elements | [`Tensor::to_vec`], [`to_ndarray`](Tensor::to_ndarray), or their `_async` twins |
//! | a tensor | it elsewhere | [`Tensor::to_device`] |
//! | tensors | a file of them | `Tensor::to_safetensors`, then `safetensors::serialize_to_file`; `Tensor::write_npy` |
//! | x and a weight | x · wᵀ | [`ops::matmul`](ops::matmul()) with `w.transpose(-1, -2)`: the transpose costs nothing |
//! | scores | probabilities | [`ops::softmax`](ops::softmax()); [`ops::log_softmax`] for their logarithms; both take a scale, an additive mask, a causal diagonal and sinks, and have a form in place |
//! | q, k, v | attention | [`ops::attention`](ops::attention()): every option of [`ops::Attention`], fused; the scores are never stored, or [`ops::attention_with_scores`] shows them |
//! | queries and keys | them turned by their positions | [`ops::rope`](ops::rope()) with an [`ops::RopeTable`]: made once from [`ops::RopeFrequencies`], a model's config |
//! | 16-bit or integer weights | f32 | [`ops::cast`](ops::cast()), from and to every [`DType`] |
//! | two tensors | their sum, product, quotient, power, extremes | [`ops::add`], [`ops::mul`], [`ops::div`], …, with broadcasting |
//! | a tensor | sums, means, extremes of it, or where these lie | [`ops::sum`], [`ops::mean`], [`ops::amax`], [`ops::argmax`], over any axes |
//! | a table and indices | rows of it | [`ops::gather`](ops::gather()); [`ops::check_indices`] to be sure of the indices |
//! | parts | one tensor | [`ops::concat`](ops::concat()) |
//! | hidden values | an activation of them | [`ops::gelu`], [`ops::silu`], [`ops::relu`], …; [`ops::exp`], [`ops::rsqrt`], [`ops::clamp`] and their like |
//! | two tensors | which elements are equal, lower, … | [`ops::eq`], [`ops::lt`] and their like: bools, also masks for attention |
//! | a mask and two tensors | the one or the other, by element | [`ops::where_cond`](ops::where_cond()) |
//! | an output that exists | no allocation | the `_into` form of each op; its first argument may be a view of a larger tensor |
//! | an activation that is not needed any more | no allocation either | the `_in_place` form of softmax, of `rope` or of an elementwise op |
//! | users who share a batch | results that do not depend on it | [`Device::batch_invariant`] |
//! | a wgpu device of my own | gristmill on it | `Device::from_wgpu`; `Tensor::from_buffer`, `Tensor::buffer`, `Device::record` |
//! | a kernel of my own | it among the ops | `ops::dispatch` |
//! | weights on a GPU that may be lost | to go on without reading them again | [`Tensor::keep_host_copy`], then [`Tensor::to_device`] |
//! | a driver that miscompiles a kernel | another kernel | `Device::pinned` |
//!
//! # What is promised
//!
//! - **Right.** Each op's page states a bound on its error and the source of its algorithm. The tests hold every kernel, on every adapter that
//!   is there, to that bound against a naive f64 reference; whole numbers come out exact.
//! - **Reproducible.** The same device, driver, version, shapes and options give the same bits; on the CPU whatever the number of threads.
//! - **No surprises.** What cannot be done is an [`Error`] that names the op and its operands and says what to do. Nothing panics, nothing moves
//!   between devices by itself, and no software adapter is ever chosen silently.
//!
//! Arithmetic on floats is f32: f16 and bf16 are storage, read and written by every op on every device, and rounded once, to nearest even, when a
//! result is stored. So a 16-bit result differs from the exact one by the op's bound and a unit in its own last place.
//!
//! # Waiting
//!
//! On a GPU an op returns once its dispatches are recorded. Work is submitted when enough has gathered, and when something waits:
//! [`Device::sync`] and whatever brings elements to the host ([`Tensor::to_vec`], [`to_ndarray`](Tensor::to_ndarray), `to_safetensors`,
//! `write_npy`, [`to_device`](Tensor::to_device) to another device), nothing else. Their async twins need no executor of any kind:
//! on native a short-lived thread polls the device for each, in a browser the event loop does.
//!
//! # Features
//!
//! - `gpu` (default): everything that needs wgpu. Without it [`Device::cpu`] is the only device and the crate has no graphics dependencies.
//! - `safetensors`: `Tensor::from_safetensors`, `Tensor::to_safetensors` and `HostTensor`, without a second copy on the host. Brings the
//!   `safetensors` crate.
//! - `npy`: `Tensor::read_npy` and `Tensor::write_npy`. Brings the `ndarray-npy` crate.
//!
//! # Environment
//!
//! `GRISTMILL_DEVICE` tells [`Device::best`] what to take: `cpu`, or `backend:name` with a part of the adapter's name, such as
//! `vulkan:radeon` or `gl:`. The crate logs what was chosen and why through [tracing](https://docs.rs/tracing).
//!
//! # Under the floor
//!
//! Kernels and dispatches are data. `ops::kernels()` lists every kernel, `Kernel::specs` all that each can be compiled for, and each op's
//! `gpu::plan` gives the exact dispatches of a call from a device's `Caps` alone, without a GPU. ARCHITECTURE.md in the repository is the
//! tour of the house.

//!
//! # When a GPU fails
//!
//! Out of memory, a missed deadline, a lost or destroyed device, a rejected shader: each is an [`Error`] of the call that meets it. After a loss
//! ([`Error::is_loss`]) every call on that device fails at once, and a new [`Device`] works in the same process. Dropping what is left neither waits nor
//! panics; a device that hangs is leaked on purpose, as wgpu would wait for it for ever. Every wait has a deadline (`GpuOptions::deadline`); on
//! OpenGL submissions themselves may block longer.

#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks)]

#[cfg(not(target_arch = "wasm32"))]
mod blocking;
mod cpu;
mod device;
mod dtype;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(any(feature = "npy", feature = "safetensors"))]
mod interop;
mod layout;
pub mod ops;
mod philox;
mod platform;
mod tensor;

pub use device::{DEVICE_VAR, Device};
pub use dtype::{DType, Element};
pub use error::{Error, Operand, Result};
#[cfg(feature = "safetensors")]
pub use interop::safetensors::HostTensor;
pub use layout::{Indices, Layout, MAX_RANK};
pub use tensor::Tensor;
