//! [`Error`]: grouped by what the caller does next.

use std::fmt;

use crate::DType;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One operand as an error shows it: `lhs f32[2, 3] on cpu`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operand {
    /// The argument's name in the op's signature.
    pub name: &'static str,
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The device it lives on.
    pub device: String,
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{:?}", self.name, self.dtype, self.shape)
    }
}

/// Shows `lhs f32[2, 3], rhs f32[4, 5]`.
fn list(operands: &[Operand]) -> String {
    let shown: Vec<_> = operands.iter().map(ToString::to_string).collect();
    shown.join(", ")
}

/// Shows `lhs on cpu, rhs on vulkan:llvmpipe`.
fn places(operands: &[Operand]) -> String {
    let shown: Vec<_> = operands.iter().map(|o| format!("{} on {}", o.name, o.device)).collect();
    shown.join(", ")
}

/// Shows `1024 bytes`.
fn size(bytes: u64) -> String {
    if bytes == 0 { "what the driver needs itself".into() } else { format!("{bytes} bytes") }
}

/// Everything that can go wrong, one variant for each thing that a caller can do about it.
///
/// Each message names the op and its operands and ends with the next step. A call that returns an error has changed nothing,
/// unless the error is one of the last four (the GPU failed), after which the contents of an `_into` call's output are unspecified.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operands' shapes do not fit together or not this op: fix the call.
    #[error("{op}: {problem} ({}); {help}", list(.operands))]
    Shape {
        /// The op or view that was asked for.
        op: &'static str,
        /// What it was asked of.
        operands: Vec<Operand>,
        /// What does not fit.
        problem: String,
        /// What to do.
        help: &'static str,
    },
    /// An argument that is not a tensor (an axis, a scale, a range) is out of its domain: fix the call.
    #[error("{op}: {argument} {problem}; {help}")]
    Argument {
        /// The op that was asked for.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What is wrong with its value.
        problem: String,
        /// What to do.
        help: &'static str,
    },
    /// The op does not take these element types: use another dtype, or `cast` first.
    #[error("{op}: takes {supported}, not these dtypes ({}); use `cast`", list(.operands))]
    DType {
        /// The op that was asked for.
        op: &'static str,
        /// What it was asked of.
        operands: Vec<Operand>,
        /// The element types that it takes.
        supported: &'static str,
    },
    /// The operands live on different devices: move one with `Tensor::to_device`.
    #[error("{op}: operands on different devices ({}); move them to one with `to_device`", places(.operands))]
    Device {
        /// The op that was asked for.
        op: &'static str,
        /// The operands and where they are.
        operands: Vec<Operand>,
    },
    /// The output shares storage with an input, or overlaps itself: write to a tensor of its own.
    #[error("{op}: `out` shares memory with {with}; write to a fresh tensor, or copy that operand first")]
    Overlap {
        /// The op that was asked for.
        op: &'static str,
        /// The operand that it overlaps (`out` itself for a broadcast view).
        with: &'static str,
    },
    /// More than a limit of the device or of the format allows: split the work, or use a device with a higher limit.
    #[error("{op}: {what} needs {requested}, over the limit {limit_name} = {limit}; split the call, or use another device")]
    TooLarge {
        /// The op that was asked for.
        op: &'static str,
        /// What is too large.
        what: String,
        /// What the call needs.
        requested: u128,
        /// What there is.
        limit: u128,
        /// The limit's name.
        limit_name: &'static str,
    },
    /// A file, or a view into one, does not hold what a tensor can take: convert it, or get it anew.
    #[error("{op}: {problem}; {help}")]
    Format {
        /// The call that read it.
        op: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        help: &'static str,
    },
    /// A reader or a writer failed: see to the file, the disk or the connection, and call again from the start. It keeps what it has taken.
    #[error("{op}: {problem} ({kind}); see to the file or the connection, and call again from the start")]
    Io {
        /// The call that read or wrote.
        op: &'static str,
        /// The kind that the reader or writer gave.
        kind: std::io::ErrorKind,
        /// What it said.
        problem: String,
    },
    /// No GPU adapter fits what was asked: install a driver, or ask for something else.
    #[error("no GPU adapter for {wanted} (found: {}); {help}", if .found.is_empty() { "none".to_string() } else { .found.join(", ") })]
    NoGpu {
        /// What was asked for.
        wanted: String,
        /// The adapters that are there.
        found: Vec<String>,
        /// What to do.
        help: &'static str,
    },
    /// The device or the host has no memory left: drop tensors, or split the work.
    #[error("{op}: out of memory while allocating {} on {device}; drop tensors or split the work", size(*.bytes))]
    OutOfMemory {
        /// The op that was asked for.
        op: &'static str,
        /// The size of the allocation that failed; 0 if it was the driver's own (of a pipeline, say).
        bytes: u64,
        /// Where.
        device: String,
    },
    /// The GPU is lost. Every later call on this device says so; make a new `Device`.
    #[error("{op}: the device {device} is lost ({reason}); make a new Device and upload again")]
    Lost {
        /// The op that was asked for.
        op: &'static str,
        /// Which device.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// The GPU did not finish within the deadline. The device counts as lost from then on.
    #[error("{op}: {device} did not finish within {seconds} s; raise `GpuOptions::deadline` or split the work, on a new Device")]
    TimedOut {
        /// The op that was asked for.
        op: &'static str,
        /// Which device.
        device: String,
        /// The deadline that passed.
        seconds: u64,
    },
    /// The driver refused a kernel or a command: a bug of ours or of the driver. Another kernel (`Device::pinned`) or the CPU may do.
    #[error("{op}: {device} rejected {kernel}: {message}; try another kernel with `Device::pinned` or the CPU, and report this")]
    Rejected {
        /// The op that was asked for.
        op: &'static str,
        /// Which device.
        device: String,
        /// The kernel and its spec, or the command.
        kernel: String,
        /// What the driver said.
        message: String,
    },
}

impl Error {
    /// Whether the device is gone, so that only a new [`Device`](crate::Device) helps: [`Error::Lost`] and [`Error::TimedOut`].
    pub fn is_loss(&self) -> bool {
        matches!(self, Error::Lost { .. } | Error::TimedOut { .. })
    }
}
