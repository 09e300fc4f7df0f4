//! The ops: free functions over tensors, `verb(inputs…, options)` and `verb_into(&mut out, inputs…, options)`.
//!
//! | op | formula | shapes |
//! |---|---|---|
//! | [`matmul`](matmul()) | `act(alpha lhs · rhs + beta c + bias) ⊙ (alpha lhs · gate) + residual`, each but the product an option | [… m k] · [… k n] → [… m n], vectors too |
//! | [`softmax`](softmax()), [`log_softmax`] | `exp(l - max l) / Σ exp(l - max l)`, its logarithm | any, along an axis |
//! | [`attention`](attention()), [`attention_with_lse`] | `softmax(scale · q · kᵀ + bias, masked) · v`, and `ln Σ exp` | [batch heads seq_q head_dim], kv heads fewer |
//! | [`merge_attention`](merge_attention()) | two results over different keys as one | [batch heads seq_q v_dim], with their `ln Σ exp` |
//! | [`add`], [`sub`], [`mul`], [`div`], [`pow`], [`min`], [`max`] | of `lhs` and `rhs` | broadcast |
//! | [`neg`], [`abs`], [`exp`], [`log`], [`sqrt`], [`rsqrt`], [`erf`], [`clamp`] | of `x` | any |
//! | [`relu`], [`gelu`], [`gelu_tanh`], [`silu`], [`sigmoid`], [`tanh`], [`softplus`], [`hard_swish`] | activations of `x` | any |
//! | [`eq`], [`ne`], [`lt`], [`le`], [`gt`], [`ge`] | a comparison of `lhs` and `rhs`, as bools | broadcast |
//! | [`where_cond`](where_cond()) | `cond ? on_true : on_false` | broadcast |
//! | [`cast`](cast()) | the same number in another type | any |
//! | [`copy`](copy()) | the same bits elsewhere | any; [`Tensor::contiguous`] where needed |
//! | [`sum`], [`mean`], [`amax`], [`amin`], [`argmax`], [`argmin`] | over axes | any, over any of its axes |
//! | [`concat`](concat()) | parts one after the other | along an axis |
//! | [`gather`](gather()), [`check_indices`] | rows by index | any, along an axis |
//! | [`rope`](rope()) | pairs of a head's elements turned by their position's angles | [batch heads seq head_dim] |
//!
//! All take views of any strides. The `_into` forms write into a tensor that is there, or into a view of one, and touch nothing around it; the
//! output may not share storage with an input. A call that fails with an error about its arguments has written nothing.
//!
//! Each op has a module of its own, with its checked form (`Problem`) and its kernels and plan (`gpu`), for those who look under the floor:
//!
//! ```
//! # #[cfg(feature = "gpu")]
//! # fn main() -> gristmill::Result<()> {
//! use gristmill::{DType, Layout, gpu::Caps, ops::softmax};
//!
//! // What would 1,000 rows of 4,096 cost on a device with WebGPU's default limits? No GPU is needed to ask.
//! let rows = Layout::contiguous(&[1000, 4096]).expect("a small shape");
//! let problem = softmax::Problem {
//!     dtypes: [DType::F32; 4], log: false, in_place: false, axis: 1, scale: 1.0, out: rows, x: rows, mask: None, causal_limit: 4096, sinks: None,
//! };
//! let plan = softmax::gpu::plan(&Caps::webgpu_defaults(), None, &problem)?;
//! let dispatch = &plan.dispatches[0];
//! assert_eq!(format!("{}.{}", dispatch.kernel.name, dispatch.spec), "softmax.f32.row256.vector");
//! assert_eq!((dispatch.grid, dispatch.bytes), ([1000, 1, 1], 2 * 4 * 4096 * 1000));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "gpu"))]
//! # fn main() {}
//! ```

pub mod attention;
pub mod binary;
pub mod cast;
pub mod compare;
mod concat;
pub mod copy;
pub mod gather;
pub mod matmul;
pub mod merge_attention;
pub mod reduce;
pub mod rope;
pub mod softmax;
pub mod unary;
pub mod where_cond;

pub use attention::{
    Align, Attention, AttentionRope, Axes, Dropout, Scores, Window, attention, attention_into, attention_with_lse, attention_with_lse_into,
    attention_with_scores,
};
pub use binary::{
    add, add_in_place, add_into, div, div_in_place, div_into, max, max_in_place, max_into, min, min_in_place, min_into, mul, mul_in_place,
    mul_into, pow, pow_in_place, pow_into, sub, sub_in_place, sub_into,
};
pub use cast::{cast, cast_into};
pub use compare::{eq, eq_into, ge, ge_into, gt, gt_into, le, le_into, lt, lt_into, ne, ne_into};
pub use concat::{concat, concat_into};
pub use copy::{copy, copy_into};
#[cfg(not(target_arch = "wasm32"))]
pub use gather::check_indices;
pub use gather::{check_indices_async, gather, gather_into};
pub use matmul::{Activation, Bias, Matmul, matmul, matmul_into};
pub use merge_attention::{merge_attention, merge_attention_into};
pub use reduce::{amax, amax_into, amin, amin_into, argmax, argmax_into, argmin, argmin_into, mean, mean_into, sum, sum_into};
pub use rope::{Rope, RopeFrequencies, RopeScaling, RopeSections, RopeStyle, RopeTable, RopeYarn, rope, rope_in_place, rope_into};
pub use softmax::{Softmax, log_softmax, log_softmax_in_place, log_softmax_into, softmax, softmax_in_place, softmax_into};
pub use unary::{
    abs, abs_in_place, abs_into, clamp, clamp_in_place, clamp_into, erf, erf_in_place, erf_into, exp, exp_in_place, exp_into, gelu,
    gelu_in_place, gelu_into, gelu_tanh, gelu_tanh_in_place, gelu_tanh_into, hard_swish, hard_swish_in_place, hard_swish_into, log,
    log_in_place, log_into, neg, neg_in_place, neg_into, relu, relu_in_place, relu_into, rsqrt, rsqrt_in_place, rsqrt_into, sigmoid,
    sigmoid_in_place, sigmoid_into, silu, silu_in_place, silu_into, softplus, softplus_in_place, softplus_into, sqrt, sqrt_in_place,
    sqrt_into, tanh, tanh_in_place, tanh_into,
};
pub use where_cond::{where_cond, where_cond_into};

use crate::cpu::{Bytes, CpuBuffer};
#[cfg(feature = "gpu")]
use crate::device::Kind;
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{Caps, Kernel, Pin, Plan};
use crate::tensor::StorageData;
use crate::{DType, Device, Layout, Tensor};

/// Every kernel of the crate. With [`Kernel::specs`] this is the finite list of all that can ever be compiled.
#[cfg(feature = "gpu")]
pub fn kernels() -> &'static [&'static Kernel] {
    static KERNELS: &[&Kernel] = &[
        &attention::gpu::ATTENTION,
        &attention::gpu::ATTENTION_DECODE,
        &attention::gpu::ATTENTION_DIRECT,
        &attention::gpu::ATTENTION_MASK,
        &attention::gpu::ATTENTION_REDUCE,
        &attention::gpu::ATTENTION_SUBGROUPS,
        &binary::gpu::BINARY,
        &binary::gpu::BINARY_IN_PLACE,
        &cast::gpu::CAST,
        &compare::gpu::COMPARE,
        &copy::gpu::COPY,
        &copy::gpu::COPY_SCATTER,
        &gather::gpu::GATHER,
        &matmul::gpu::MATMUL,
        &matmul::gpu::MATMUL_COOP,
        &matmul::gpu::MATMUL_DIRECT,
        &matmul::gpu::MATMUL_SKINNY,
        &matmul::gpu::MATMUL_SPLITK,
        &reduce::gpu::REDUCE,
        &reduce::gpu::REDUCE_ARG,
        &rope::gpu::ROPE,
        &rope::gpu::ROPE_IN_PLACE,
        &softmax::gpu::SOFTMAX,
        &softmax::gpu::SOFTMAX_IN_PLACE,
        &softmax::gpu::SOFTMAX_COLUMNS,
        &softmax::gpu::SOFTMAX_COLUMNS_IN_PLACE,
        &unary::gpu::UNARY,
        &unary::gpu::UNARY_IN_PLACE,
        &where_cond::gpu::WHERE_COND,
    ];
    KERNELS
}

/// A checked call: facts about shapes and options, and how either backend computes it. Implemented by each op's `Problem`.
pub(crate) trait Op {
    /// The op's name, for errors.
    fn name(&self) -> &'static str;
    /// Whether `out` is read too. On the CPU it is then the first of `inputs`.
    fn in_place(&self) -> bool {
        false
    }
    /// Computes on the CPU into a dense `out`; `inputs` are whole storages, which the problem's layouts index.
    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]);
    /// The same with a second result, for ops that have one on request.
    fn cpu_both(&self, out: &mut [u8], _second: &mut [u8], inputs: &[&[u8]]) {
        self.cpu(out, inputs);
    }
    /// The dispatches that compute it on a GPU. Pure: the same facts give the same plan.
    #[cfg(feature = "gpu")]
    fn plan(&self, caps: &Caps, pin: Option<Pin>) -> Result<Plan>;
    /// Where `out` lies.
    #[cfg(feature = "gpu")]
    fn out(&self) -> &Layout;
    /// The part of the call that makes `len` indices of an axis of `out`. None where that axis is not to be cut, as it is reduced.
    #[cfg(feature = "gpu")]
    fn part(&self, axis: usize, start: usize, len: usize) -> Option<Self>
    where
        Self: Sized;
    /// What indices of that axis come in, for parts.
    #[cfg(feature = "gpu")]
    fn grain(&self, _axis: usize) -> usize {
        1
    }
}

/// A dispatch that runs longer may be killed by the system (after 2 s on Windows), and keeps others waiting.
#[cfg(feature = "gpu")]
const LONGEST_MILLISECONDS: u64 = 250;

/// A call's plan in as many parts as it takes for no dispatch to run too long. Reductions are never cut, nor what has one output.
#[cfg(feature = "gpu")]
pub(crate) fn cut<P: Op>(caps: &Caps, problem: &P, whole: &dyn Fn(&P) -> Result<Plan>) -> Result<Plan> {
    let plan = whole(problem)?;
    if plan.milliseconds(caps) <= LONGEST_MILLISECONDS {
        return Ok(plan);
    }
    let dims = problem.out().dims();
    // The outermost axis first: parts of what is dense are dense. In the middle, but where tiles and eights begin.
    for axis in (0..dims.len()).filter(|&axis| dims[axis] > 1) {
        let half = dims[axis] / 2;
        let half = if dims[axis] > 256 { half.next_multiple_of(128) } else { half };
        let half = half.next_multiple_of(problem.grain(axis));
        if half >= dims[axis] {
            continue;
        }
        let halves = problem.part(axis, 0, half).zip(problem.part(axis, half, dims[axis] - half));
        let Some((first, second)) = halves else { continue };
        // Within a kernel's tile less of an axis is hardly less work.
        if whole(&first)?.milliseconds(caps) < plan.milliseconds(caps) / 4 * 3 {
            return Ok(cut(caps, &first, whole)?.then(cut(caps, &second, whole)?));
        }
    }
    Ok(plan)
}

/// Runs a checked call on the device that its operands live on. `out` has elements.
pub(crate) fn run(problem: &impl Op, out: &Tensor, inputs: &[&Tensor]) -> Result<()> {
    run_both(problem, out, None, inputs)
}

/// [`run`] with a second result, which shares no storage with the first. In the plan it is the last argument.
pub(crate) fn run_both(problem: &impl Op, out: &Tensor, second: Option<&Tensor>, inputs: &[&Tensor]) -> Result<()> {
    let op = problem.name();
    match out.data() {
        StorageData::Cpu(buffer) => {
            let read = problem.in_place().then_some(out).into_iter().chain(inputs.iter().copied());
            let snapshots: Vec<_> = read.filter_map(|t| t.cpu_buffer()).map(CpuBuffer::snapshot).collect();
            let sources: Vec<&[u8]> = snapshots.iter().map(|bytes| &***bytes).collect();
            let size = out.dtype().block_bytes();
            let (start, len) = (out.layout().offset() * size, out.len() * size);
            let mut dense_second = second.map(|t| Bytes::new(op, t.len() * t.dtype().block_bytes())).transpose()?;
            let mut compute = |out: &mut [u8]| match &mut dense_second {
                None => problem.cpu(out, &sources),
                Some(second) => problem.cpu_both(out, second, &sources),
            };
            if out.layout().is_contiguous() && out.owns_storage() && !problem.in_place() {
                buffer.compute(|bytes| compute(&mut bytes[start..start + len]));
            } else {
                // Others may be reading it, or it has gaps: compute apart, then move.
                let mut dense = Bytes::new(op, len)?;
                compute(&mut dense);
                // A snapshot of `out` itself would make the write copy all of it.
                drop(snapshots);
                buffer.write(|bytes| copy::cpu::scatter(bytes, &dense, out.layout(), size));
            }
            if let (Some(second), Some(dense)) = (second, &dense_second)
                && let StorageData::Cpu(buffer) = second.data()
            {
                buffer.write(|bytes| copy::cpu::scatter(bytes, dense, second.layout(), second.dtype().block_bytes()));
            }
        }
        #[cfg(feature = "gpu")]
        StorageData::Gpu(_) => {
            // The first operand's handle decides.
            let device = if problem.in_place() { out.device() } else { inputs.first().map_or(out.device(), |t| t.device()) };
            if let Kind::Gpu(gpu) = device.kind() {
                let plan = problem.plan(&gpu.caps, device.pin())?;
                let tensors = std::iter::once(out).chain(inputs.iter().copied()).chain(second);
                let buffers: Vec<_> = tensors.filter_map(|t| t.gpu_buffer()).collect();
                // The problem's layouts are the tensors' own, and kernels stay within them.
                gpu.run(op, &plan, &buffers, true)?;
            }
        }
    }
    out.count_write();
    second.into_iter().for_each(Tensor::count_write);
    Ok(())
}

/// Records a plan of the caller's own, of kernels written like gristmill's ([`Kernel`] says how; `examples/custom_kernel.rs` does it), with
/// the stream, the pipeline cache and the error handling of the ops. Of the plan's arguments `Arg::Tensor(0)` is `out`, `Arg::Tensor(n)`
/// is `inputs[n - 1]`; `op` is the name that errors show.
///
/// A kernel gets each tensor's whole buffer; where in it the tensor lies is [`Tensor::layout`]'s to say, and the caller's to put into the
/// params. wgpu's bounds checks keep a kernel within its buffers. `out` holds anything before, if it is fresh from an op.
///
/// # Errors
/// [`Error::Argument`] if the plan, its kernels and the tensors do not agree, or on the CPU; [`Error::Device`]; [`Error::Overlap`] if `out` shares
/// storage with an input; [`Error::TooLarge`] past a limit; [`Error::Rejected`] if a kernel does not compile.
#[cfg(feature = "gpu")]
pub fn dispatch(op: &'static str, plan: &Plan, out: &mut Tensor, inputs: &[&Tensor]) -> Result<()> {
    use crate::gpu::{Access, Arg};

    let refused = |problem: String, help| Error::Argument { op, argument: "plan", problem, help };
    let Kind::Gpu(gpu) = out.device().kind() else {
        return Err(refused("is for a GPU, and `out` is on the CPU".into(), "compute on the host instead"));
    };
    let names: Vec<Named> = std::iter::once(("out", &*out)).chain(inputs.iter().map(|&t| ("an input", t))).collect();
    check_devices(op, &names)?;
    if inputs.iter().any(|t| t.shares_storage(out)) {
        return Err(Error::Overlap { op, with: "an input" });
    }
    let tensors: Vec<_> = names.iter().filter_map(|(_, t)| t.gpu_buffer()).collect();
    for dispatch in &plan.dispatches {
        let kernel = dispatch.kernel;
        crate::gpu::check_kernel(op, &gpu.caps, kernel)?;
        let bytes = kernel.params.iter().map(|field| field.offset + field.size).max().unwrap_or(0);
        if dispatch.args.len() != kernel.bindings.len() || dispatch.spec.dtypes.len() != kernel.bindings.len() {
            let (args, dtypes, bindings) = (dispatch.args.len(), dispatch.spec.dtypes.len(), kernel.bindings.len());
            let problem = format!("has {args} arguments and {dtypes} dtypes for the {bindings} bindings of {}", kernel.name);
            return Err(refused(problem, "give one of each a binding"));
        }
        if dispatch.params.len() != bytes || bytes == 0 || bytes > MOST_PARAMS {
            let problem = format!("has {} bytes of params for {}, which declares {bytes}", dispatch.params.len(), kernel.name);
            return Err(refused(problem, "give the bytes of the struct that `params!` declares: a member at least, 16 KiB at most"));
        }
        if let Some(over) = dispatch.grid.iter().find(|&&groups| groups > gpu.caps.grid_dimension) {
            return Err(Error::TooLarge {
                op,
                what: format!("the grid of {}", kernel.name),
                requested: (*over).into(),
                limit: gpu.caps.grid_dimension.into(),
                limit_name: "workgroups a dimension",
            });
        }
        for (i, (arg, binding)) in dispatch.args.iter().zip(kernel.bindings).enumerate() {
            let there = match *arg {
                Arg::Tensor(n) => n < tensors.len(),
                Arg::Scratch(n) => n < plan.scratch.len(),
            };
            if !there {
                let problem = format!("names {arg:?}, of {} tensors and {} scratch buffers", tensors.len(), plan.scratch.len());
                return Err(refused(problem, "number the tensors from `out` = 0, scratch buffers from 0"));
            }
            if binding.access == Access::Write && matches!(*arg, Arg::Tensor(n) if n > 0) {
                let problem = format!("lets {} write `{}`, an input", kernel.name, binding.name);
                return Err(refused(problem, "write to `out` or to a scratch buffer"));
            }
            if dispatch.args[..i].contains(arg) && (binding.access == Access::Write || writes(kernel, &dispatch.args[..i], arg)) {
                let problem = format!("binds {arg:?} twice in {}, once to write", kernel.name);
                return Err(refused(problem, "give what is written a binding of its own"));
            }
        }
    }
    gpu.run(op, plan, &tensors, false)?;
    out.count_write();
    Ok(())
}

/// Bytes of a caller's params: every device can bind so many.
#[cfg(feature = "gpu")]
const MOST_PARAMS: usize = 16 << 10;

/// Whether the kernel writes an argument through one of its first bindings.
#[cfg(feature = "gpu")]
fn writes(kernel: &Kernel, args: &[crate::gpu::Arg], arg: &crate::gpu::Arg) -> bool {
    args.iter().zip(kernel.bindings).any(|(other, binding)| other == arg && binding.access == crate::gpu::Access::Write)
}

/// A plan that computes into a dense scratch of a type of its own and moves the result to `out`: for outputs that a kernel can't write
/// itself. `compute` plans for the scratch as if it were `out`, which is the first argument of whatever writes it.
#[cfg(feature = "gpu")]
pub(crate) fn through_scratch(
    op: &'static str,
    caps: &Caps,
    (out, out_dtype): (&Layout, DType),
    scratch_dtype: DType,
    compute: impl FnOnce(Layout) -> Result<Plan>,
) -> Result<Plan> {
    use crate::gpu::Arg;

    let dense = crate::tensor::dense(op, out.dims())?;
    let mut plan = compute(dense)?;
    let scratch = Arg::Scratch(plan.scratch.len());
    plan.scratch.push((dense.len() * scratch_dtype.block_bytes()) as u64);
    for dispatch in &mut plan.dispatches {
        if dispatch.args[0] == Arg::Tensor(0) {
            dispatch.args[0] = scratch;
        }
    }
    let cast = cast::Problem { out_dtype, x_dtype: scratch_dtype, out: *out, x: dense };
    cast::gpu::append(&mut plan, op, caps, &cast, Arg::Tensor(0), scratch)?;
    Ok(plan)
}

/// Of work in an elementwise kernel: eights of elements, or the 32-bit words of a dense `out` (of a strided one each word is an element).
#[cfg(feature = "gpu")]
pub(crate) fn units(out: &Layout, dtype: DType, width: crate::gpu::Width) -> usize {
    match (width, dtype.block_bytes()) {
        (crate::gpu::Width::Vector, _) => out.len() / 8,
        (_, 4) => out.len(),
        _ => copy::gpu::words_of(out.offset(), out.len(), dtype),
    }
}

/// A fresh output on the device of the first input, with its handle.
pub(crate) fn fresh(op: &'static str, device: &Device, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    Tensor::unwritten(op, device, dtype, shape)
}

/// Named tensors, for checks and their errors.
pub(crate) type Named<'a> = (&'static str, &'a Tensor);

/// A shape error that shows all operands.
pub(crate) fn misfit(op: &'static str, tensors: &[Named], problem: impl Into<String>, help: &'static str) -> Error {
    Error::Shape { op, operands: tensors.iter().map(|(name, t)| t.operand(name)).collect(), problem: problem.into(), help }
}

/// All on one device.
pub(crate) fn check_devices(op: &'static str, tensors: &[Named]) -> Result<()> {
    let together = tensors.windows(2).all(|pair| pair[0].1.device().same_as(pair[1].1.device()));
    if together {
        return Ok(());
    }
    Err(Error::Device { op, operands: tensors.iter().map(|(name, t)| t.operand(name)).collect() })
}

/// All of one dtype.
pub(crate) fn check_dtype(op: &'static str, tensors: &[Named], wanted: DType, supported: &'static str) -> Result<()> {
    if tensors.iter().all(|(_, t)| t.dtype() == wanted) {
        return Ok(());
    }
    Err(Error::DType { op, operands: tensors.iter().map(|(name, t)| t.operand(name)).collect(), supported })
}

/// The type of the result of operands that are computed with together: theirs, or f32 where floats of 32 and of 16 bits meet.
pub(crate) fn promote(op: &'static str, tensors: &[Named]) -> Result<DType> {
    let first = tensors[0].1.dtype();
    let joined = tensors.iter().try_fold(first, |joined, (_, t)| match (joined, t.dtype()) {
        (a, b) if a == b && a != DType::Bool => Some(a),
        (DType::F32, b) if b.is_float() => Some(DType::F32),
        (a, DType::F32) if a.is_float() => Some(DType::F32),
        _ => None,
    });
    joined.filter(|&dtype| dtype != DType::Bool).ok_or_else(|| {
        let supported = "operands of one type, or f32 with f16 or bf16; `cast` the others";
        Error::DType { op, operands: tensors.iter().map(|(name, t)| t.operand(name)).collect(), supported }
    })
}

/// [`promote`] for ops of floats alone.
pub(crate) fn promote_floats(op: &'static str, tensors: &[Named]) -> Result<DType> {
    promote(op, tensors).ok().filter(|dtype| dtype.is_float()).ok_or_else(|| {
        let supported = "floats of one type, or f32 with f16 or bf16; `cast` the others";
        Error::DType { op, operands: tensors.iter().map(|(name, t)| t.operand(name)).collect(), supported }
    })
}

/// [`check_out`] where a float result may go into any float type.
pub(crate) fn check_out_like(op: &'static str, out: &Tensor, dims: &[usize], dtype: DType, inputs: &[Named]) -> Result<()> {
    let rounds = dtype.is_float() && out.dtype().is_float();
    check_out(op, out, dims, if rounds { out.dtype() } else { dtype }, inputs)
}

/// An output that the caller brought: its shape and type, its device, and that it shares no memory with an input or itself.
pub(crate) fn check_out(op: &'static str, out: &Tensor, dims: &[usize], dtype: DType, inputs: &[Named]) -> Result<()> {
    if out.shape() != dims {
        let problem = format!("`out` must have shape {dims:?}");
        return Err(misfit(op, &[("out", out)], problem, "make it with that shape, or call the form that returns it"));
    }
    if out.dtype() != dtype {
        return Err(Error::DType { op, operands: vec![out.operand("out")], supported: dtype.name() });
    }
    let mut all = vec![("out", out)];
    all.extend_from_slice(inputs);
    check_devices(op, &all)?;
    // wgpu refuses a buffer that a dispatch both reads and writes even where the ranges are apart; so do we, everywhere.
    if let Some((with, _)) = inputs.iter().find(|(_, t)| t.shares_storage(out)) {
        return Err(Error::Overlap { op, with });
    }
    if out.layout().overlaps_itself() {
        return Err(Error::Overlap { op, with: "itself" });
    }
    Ok(())
}

/// Broadcasts an operand to dims that were computed from it.
pub(crate) fn broadcast(op: &'static str, named: Named, dims: &[usize]) -> Result<Layout> {
    let (name, tensor) = named;
    tensor.layout().broadcast_to(dims).ok_or_else(|| {
        let problem = format!("`{name}` does not broadcast to {dims:?}");
        misfit(op, &[named], problem, "align the axes at the right; each must be 1 or that size")
    })
}

/// The scale must be a number.
pub(crate) fn check_scale(op: &'static str, scale: f32) -> Result<()> {
    if scale.is_finite() {
        return Ok(());
    }
    Err(Error::Argument { op, argument: "scale", problem: format!("is {scale}"), help: "give a finite number" })
}
