//! Joining on a GPU: both parts go into a scratch, which [`ATTENTION_REDUCE`](crate::ops::attention::gpu::ATTENTION_REDUCE) joins, as attention's own.

use super::Problem;
use crate::error::Result;
use crate::gpu::{Arg, Caps, Plan, check_binding, runs};
use crate::ops::attention::gpu::reduce;
use crate::ops::{cast, cut, through_scratch};
use crate::tensor::dense;
use crate::{DType, Layout};
use DType::F32;

/// The dispatches of a call. Its arguments are out, both parts with their logarithms, and lse.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) where the device's limits forbid it.
pub fn plan(caps: &Caps, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| uncut(caps, problem))
}

fn uncut(caps: &Caps, problem: &Problem) -> Result<Plan> {
    let op = super::OP;
    let [out_dtype, ..] = problem.dtypes;
    if out_dtype != F32 && !runs(&problem.out, 3, 8, false) && !runs(&problem.out, 3, 2, false) {
        return through_scratch(op, caps, (&problem.out, out_dtype), F32, |out| {
            let [_, one, other] = problem.dtypes;
            uncut(caps, &Problem { dtypes: [F32, one, other], out, ..problem.clone() })
        });
    }
    check_binding(op, caps, "out", &problem.out, out_dtype)?;
    check_binding(op, caps, "lse", &problem.lse, F32)?;
    let [batch, heads, seq_q, v_dim] = [0, 1, 2, 3].map(|axis| problem.out.dims()[axis]);
    let (all, sums) = (dense(op, &[2, batch, heads, seq_q, v_dim.next_multiple_of(8)])?, dense(op, &[2, batch, heads, seq_q])?);
    check_binding(op, caps, "both parts", &all, F32)?;
    let (parts, part_lses) = (Arg::Scratch(0), Arg::Scratch(1));
    let mut plan = Plan { dispatches: Vec::new(), scratch: vec![4 * all.len() as u64, 4 * sums.len() as u64] };
    for i in 0..2 {
        let place = |layout: &Layout, columns: Option<usize>| {
            let own = layout.narrow(0, i, 1)?.squeeze(0)?;
            columns.map_or(Some(own), |columns| own.narrow(3, 0, columns))
        };
        let moves = [
            (place(&all, Some(v_dim)), problem.parts[i], problem.dtypes[1 + i], parts, 1 + 2 * i),
            (place(&sums, None), problem.part_lses[i], F32, part_lses, 2 + 2 * i),
        ];
        for (out, x, x_dtype, to, input) in moves {
            let Some(out) = out else { continue };
            cast::gpu::append(&mut plan, op, caps, &cast::Problem { out_dtype: F32, x_dtype, out, x }, to, Arg::Tensor(input))?;
        }
    }
    plan.dispatches.push(reduce(
        op,
        caps,
        (&problem.out, out_dtype),
        Some(problem.lse),
        2,
        [Arg::Tensor(0), Arg::Tensor(5), parts, part_lses],
    )?);
    Ok(plan)
}
