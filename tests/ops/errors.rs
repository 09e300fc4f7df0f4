//! Bad input of every kind is an error of the right variant that names the op and says what to do; nothing panics, nothing is written.

use gristmill::ops::{self, Attention, Softmax};
use gristmill::{DType, Device, Error, Result, Tensor};
use libtest_mimic::Trial;

use crate::support::devices::{Level, Subject};
use crate::support::runner::trials;

pub fn all() -> Vec<Trial> {
    #[allow(unused_mut, reason = "only the feature `gpu` adds to it")]
    let mut all = trials("errors", "calls", calls);
    #[cfg(feature = "gpu")]
    all.extend(gpu::all());
    all
}

/// What a call must fail with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Shape,
    Argument,
    DType,
    Overlap,
    TooLarge,
}

fn kind(error: &Error) -> Option<Kind> {
    Some(match error {
        Error::Shape { .. } => Kind::Shape,
        Error::Argument { .. } => Kind::Argument,
        Error::DType { .. } => Kind::DType,
        Error::Overlap { .. } => Kind::Overlap,
        Error::TooLarge { .. } => Kind::TooLarge,
        _ => return None,
    })
}

fn calls(subject: &Subject, device: &Device, _: Level) -> std::result::Result<(), String> {
    let f = |shape: &[usize]| Tensor::rand_uniform(device, shape, 1);
    let of = |dtype, shape: &[usize]| Tensor::zeros(device, dtype, shape);
    let plain = Softmax::default();
    let causal = Softmax { causal: Some(ops::Align::TopLeft), ..plain };
    let none = Attention::default();
    let x = f(&[2, 3]).map_err(|e| e.to_string())?;
    let attend = |q: &[usize], k: &[usize], v: &[usize]| ops::attention(&f(q)?, &f(k)?, &f(v)?, &Attention::default());
    let attend_with = |options: &Attention| {
        let q = f(&[1, 2, 3, 4])?;
        ops::attention(&q, &q, &q, options)
    };
    let certain = ops::Dropout { probability: 1.0, seed: 0, offset: 0 };
    let into = |shape: &[usize]| of(DType::F32, shape);
    let unit = |t: Result<Tensor>| t.map(|_| ());
    let unit_table = |t: Result<ops::RopeTable>| t.map(|_| ());

    let (two, four) = (f(&[2]).map_err(|e| e.to_string())?, f(&[4]).map_err(|e| e.to_string())?);
    let whole = of(DType::I32, &[2]).map_err(|e| e.to_string())?;
    // [2, 3] by [3, 4].
    let options = |options: ops::Matmul| ops::matmul(&x, &f(&[3, 4])?, &options).map(|_| ());

    // A table of 6 positions for heads of 4 and more.
    let table = ops::RopeTable::new(device, &ops::RopeFrequencies::new(10_000.0, 4), 0..6).map_err(|e| e.to_string())?;
    let rope = |shape: &[usize], options: ops::Rope| unit(ops::rope(&f(shape)?, &table, &options));
    let turned = ops::Rope::default();
    let far = Some(ops::AttentionRope { table: &table, q: Some(turned), k: Some(ops::Rope { offset: 4, ..turned }) });
    let eight = ops::RopeTable::new(device, &ops::RopeFrequencies::new(10_000.0, 8), 0..6).map_err(|e| e.to_string())?;
    let wide = Some(ops::AttentionRope { table: &eight, q: Some(turned), k: None });

    type Call<'a> = (&'a str, Kind, Box<dyn Fn() -> Result<()> + 'a>);
    let calls: Vec<Call> = vec![
        ("matmul", Kind::Shape, Box::new(|| unit(ops::matmul(&x, &x, &Default::default())))),
        ("matmul", Kind::Shape, Box::new(|| unit(ops::matmul(&f(&[])?, &x, &Default::default())))),
        ("matmul", Kind::Shape, Box::new(|| unit(ops::matmul(&f(&[2, 4, 3])?, &f(&[3, 3, 2])?, &Default::default())))),
        ("matmul", Kind::Shape, Box::new(|| unit(ops::matmul(&f(&[2])?, &f(&[3])?, &Default::default())))),
        ("matmul", Kind::DType, Box::new(|| unit(ops::matmul(&of(DType::BF16, &[2, 3])?, &of(DType::F16, &[3, 2])?, &Default::default())))),
        ("matmul", Kind::DType, Box::new(|| unit(ops::matmul(&of(DType::I32, &[2, 3])?, &of(DType::I32, &[3, 2])?, &Default::default())))),
        ("matmul", Kind::Shape, Box::new(|| ops::matmul_into(&mut into(&[3, 3])?, &x, &f(&[3, 2])?, &Default::default()))),
        ("matmul", Kind::DType, Box::new(|| ops::matmul_into(&mut of(DType::I32, &[2, 2])?, &x, &f(&[3, 2])?, &Default::default()))),
        ("matmul", Kind::Overlap, Box::new(|| ops::matmul_into(&mut x.narrow(1, 0..2)?, &x, &f(&[3, 2])?, &Default::default()))),
        (
            "matmul",
            Kind::Overlap,
            Box::new(|| ops::matmul_into(&mut into(&[1, 2])?.broadcast_to(&[2, 2])?, &x, &f(&[3, 2])?, &Default::default())),
        ),
        ("matmul", Kind::Shape, Box::new(|| options(ops::Matmul { bias: Some(ops::Bias::Columns(&x)), ..Default::default() }))),
        ("matmul", Kind::Shape, Box::new(|| options(ops::Matmul { bias: Some(ops::Bias::Columns(&two)), ..Default::default() }))),
        ("matmul", Kind::Shape, Box::new(|| options(ops::Matmul { bias: Some(ops::Bias::Rows(&four)), ..Default::default() }))),
        ("matmul", Kind::DType, Box::new(|| options(ops::Matmul { bias: Some(ops::Bias::Rows(&whole)), ..Default::default() }))),
        ("matmul", Kind::Shape, Box::new(|| options(ops::Matmul { gate: Some(&x), ..Default::default() }))),
        ("matmul", Kind::Shape, Box::new(|| options(ops::Matmul { c: Some(&x), ..Default::default() }))),
        ("matmul", Kind::Shape, Box::new(|| options(ops::Matmul { residual: Some(&two), ..Default::default() }))),
        ("matmul", Kind::DType, Box::new(|| options(ops::Matmul { residual: Some(&whole), ..Default::default() }))),
        ("matmul", Kind::Argument, Box::new(|| options(ops::Matmul { alpha: f32::NAN, ..Default::default() }))),
        ("matmul", Kind::Argument, Box::new(|| options(ops::Matmul { beta: f32::INFINITY, ..Default::default() }))),
        ("matmul", Kind::Argument, Box::new(|| options(ops::Matmul { accumulate: true, ..Default::default() }))),
        ("matmul", Kind::Argument, Box::new(|| options(ops::Matmul { dtype: Some(DType::I32), ..Default::default() }))),
        (
            "matmul",
            Kind::DType,
            Box::new(|| {
                let asked = ops::Matmul { dtype: Some(DType::F16), ..Default::default() };
                ops::matmul_into(&mut into(&[2, 4])?, &x, &f(&[3, 4])?, &asked)
            }),
        ),
        (
            "matmul",
            Kind::Overlap,
            Box::new(|| {
                let mut out = into(&[2, 4])?;
                let residual = out.clone();
                ops::matmul_into(&mut out, &x, &f(&[3, 4])?, &ops::Matmul { residual: Some(&residual), ..Default::default() })
            }),
        ),
        ("add", Kind::Shape, Box::new(|| unit(ops::add(&x, &f(&[2])?)))),
        ("add", Kind::DType, Box::new(|| unit(ops::add(&x, &of(DType::U8, &[3])?)))),
        ("mul", Kind::Overlap, Box::new(|| ops::mul_into(&mut x.clone(), &x, &f(&[3])?))),
        ("mul", Kind::Shape, Box::new(|| ops::mul_into(&mut into(&[3])?, &x, &f(&[3])?))),
        ("add", Kind::DType, Box::new(|| unit(ops::add(&of(DType::F16, &[3])?, &of(DType::BF16, &[3])?)))),
        ("sub", Kind::DType, Box::new(|| ops::sub_into(&mut into(&[3])?, &of(DType::U32, &[3])?, &of(DType::U32, &[3])?))),
        ("div", Kind::Shape, Box::new(|| ops::div_in_place(&mut f(&[3])?, &x))),
        ("max", Kind::Overlap, Box::new(|| ops::max_in_place(&mut x.clone(), &x))),
        ("sum", Kind::Argument, Box::new(|| unit(ops::sum(&x, &[2], false)))),
        ("amin", Kind::Argument, Box::new(|| unit(ops::amin(&x, &[0, -2], false)))),
        ("mean", Kind::DType, Box::new(|| unit(ops::mean(&of(DType::U8, &[3])?, &[0], false)))),
        ("argmax", Kind::DType, Box::new(|| ops::argmax_into(&mut into(&[2])?, &x, 1, false))),
        ("gather", Kind::DType, Box::new(|| unit(ops::gather(&x, &x, 0)))),
        ("gather", Kind::TooLarge, Box::new(|| unit(ops::gather(&x, &of(DType::U32, &[1; 6])?, 0)))),
        ("eq", Kind::Shape, Box::new(|| unit(ops::eq(&x, &f(&[2])?)))),
        ("lt", Kind::DType, Box::new(|| unit(ops::lt(&of(DType::Bool, &[3])?, &of(DType::Bool, &[3])?)))),
        ("ge", Kind::DType, Box::new(|| unit(ops::ge(&x, &of(DType::I32, &[3])?)))),
        ("ne", Kind::DType, Box::new(|| ops::ne_into(&mut into(&[2, 3])?, &x, &f(&[3])?))),
        ("where_cond", Kind::DType, Box::new(|| unit(ops::where_cond(&x, &x, &x)))),
        ("where_cond", Kind::DType, Box::new(|| unit(ops::where_cond(&of(DType::Bool, &[3])?, &x, &of(DType::F16, &[3])?)))),
        ("where_cond", Kind::Shape, Box::new(|| unit(ops::where_cond(&of(DType::Bool, &[2])?, &x, &x)))),
        ("where_cond", Kind::Overlap, Box::new(|| ops::where_cond_into(&mut x.clone(), &of(DType::Bool, &[3])?, &f(&[3])?, &x))),
        ("clamp", Kind::Argument, Box::new(|| unit(ops::clamp(&x, f32::NAN, 1.0)))),
        ("clamp", Kind::DType, Box::new(|| unit(ops::clamp(&of(DType::I32, &[3])?, 0.0, 1.0)))),
        ("exp", Kind::DType, Box::new(|| unit(ops::exp(&of(DType::I32, &[3])?)))),
        ("neg", Kind::DType, Box::new(|| ops::neg_into(&mut into(&[3])?, &of(DType::I32, &[3])?))),
        ("gelu", Kind::Overlap, Box::new(|| ops::gelu_into(&mut x.clone(), &x))),
        ("relu", Kind::Overlap, Box::new(|| ops::relu_in_place(&mut into(&[1, 2])?.broadcast_to(&[2, 2])?))),
        ("rope", Kind::Shape, Box::new(|| rope(&[2, 3, 4], turned))),
        ("rope", Kind::Shape, Box::new(|| rope(&[1, 2, 3, 3], turned))),
        ("rope", Kind::DType, Box::new(|| unit(ops::rope(&of(DType::I32, &[1, 2, 3, 4])?, &table, &turned)))),
        ("rope", Kind::Argument, Box::new(|| rope(&[1, 2, 7, 4], turned))),
        ("rope", Kind::Argument, Box::new(|| rope(&[1, 2, 3, 4], ops::Rope { offset: 4, ..turned }))),
        ("rope", Kind::Argument, Box::new(|| rope(&[1, 2, 3, 4], ops::Rope { offset: usize::MAX, ..turned }))),
        (
            "rope",
            Kind::Argument,
            Box::new(|| rope(&[1, 2, 3, 4], ops::Rope { offset: 1, positions: Some(&of(DType::U32, &[3])?), ..turned })),
        ),
        ("rope", Kind::DType, Box::new(|| rope(&[1, 2, 3, 4], ops::Rope { positions: Some(&f(&[3])?), ..turned }))),
        ("rope", Kind::Shape, Box::new(|| rope(&[1, 2, 3, 4], ops::Rope { positions: Some(&of(DType::U32, &[2])?), ..turned }))),
        ("rope", Kind::Shape, Box::new(|| rope(&[1, 2, 3, 4], ops::Rope { positions: Some(&of(DType::U32, &[3, 1, 3])?), ..turned }))),
        (
            "rope",
            Kind::Argument,
            Box::new(|| rope(&[1, 2, 3, 4], ops::Rope { sections: Some(ops::RopeSections::Chunked([1, 1, 0])), ..turned })),
        ),
        (
            "rope",
            Kind::Argument,
            Box::new(|| {
                let sections = Some(ops::RopeSections::Chunked([1, usize::MAX, 2]));
                rope(&[1, 2, 3, 4], ops::Rope { positions: Some(&of(DType::U32, &[3, 3])?), sections, ..turned })
            }),
        ),
        (
            "rope",
            Kind::Argument,
            // The third in turn would be the fourth pair of two.
            Box::new(|| {
                let sections = Some(ops::RopeSections::Interleaved([0, 2, 0]));
                rope(&[1, 2, 3, 4], ops::Rope { positions: Some(&of(DType::U32, &[3, 3])?), sections, ..turned })
            }),
        ),
        (
            "rope",
            Kind::Shape,
            Box::new(|| {
                let sections = Some(ops::RopeSections::Interleaved([1, 1, 0]));
                rope(&[1, 2, 3, 4], ops::Rope { positions: Some(&of(DType::U32, &[2, 3])?), sections, ..turned })
            }),
        ),
        ("rope", Kind::Shape, Box::new(|| ops::rope_into(&mut into(&[1, 2, 3, 5])?, &f(&[1, 2, 3, 4])?, &table, &turned))),
        ("rope", Kind::DType, Box::new(|| ops::rope_into(&mut of(DType::I32, &[1, 2, 3, 4])?, &f(&[1, 2, 3, 4])?, &table, &turned))),
        (
            "rope",
            Kind::Overlap,
            Box::new(|| {
                let x = f(&[1, 2, 3, 4])?;
                ops::rope_into(&mut x.clone(), &x, &table, &turned)
            }),
        ),
        (
            "rope",
            Kind::Overlap,
            Box::new(|| {
                let wide = f(&[6, 6])?;
                let own = ops::RopeTable::from_tensors(&wide.narrow(1, 0..2)?, table.sin())?;
                ops::rope_in_place(&mut wide.narrow(1, 2..6)?.reshape(&[1, 1, 6, 4])?, &own, &turned)
            }),
        ),
        ("rope", Kind::Overlap, Box::new(|| ops::rope_in_place(&mut f(&[1, 1, 3, 4])?.broadcast_to(&[1, 2, 3, 4])?, &table, &turned))),
        ("rope", Kind::Shape, Box::new(|| unit_table(ops::RopeTable::from_tensors(&x, &f(&[2, 4])?)))),
        ("rope", Kind::Shape, Box::new(|| unit_table(ops::RopeTable::from_tensors(&f(&[3])?, &f(&[3])?)))),
        ("rope", Kind::DType, Box::new(|| unit_table(ops::RopeTable::from_tensors(&x, &of(DType::F16, &[2, 3])?)))),
        (
            "rope",
            Kind::TooLarge,
            Box::new(|| unit_table(ops::RopeTable::from_inv_freq(device, &vec![1.0; 1 << 20], 1.0, (0..usize::MAX >> 8).map(|_| 0u32)))),
        ),
        ("softmax", Kind::Argument, Box::new(|| unit(ops::softmax(&x, 2, &plain)))),
        ("softmax", Kind::Argument, Box::new(|| unit(ops::softmax(&x, -3, &plain)))),
        ("softmax", Kind::Argument, Box::new(|| unit(ops::softmax(&x, isize::MIN, &plain)))),
        ("softmax", Kind::Argument, Box::new(|| unit(ops::softmax(&f(&[])?, 0, &plain)))),
        ("softmax", Kind::Argument, Box::new(|| unit(ops::softmax(&x, 1, &Softmax { scale: f32::NAN, ..plain })))),
        ("softmax", Kind::Shape, Box::new(|| unit(ops::softmax(&x, 1, &Softmax { mask: Some(&f(&[2])?), ..plain })))),
        ("softmax", Kind::DType, Box::new(|| unit(ops::softmax(&x, 1, &Softmax { mask: Some(&of(DType::Bool, &[3])?), ..plain })))),
        ("softmax", Kind::Argument, Box::new(|| unit(ops::softmax(&x, 0, &causal)))),
        ("log_softmax", Kind::Argument, Box::new(|| unit(ops::log_softmax(&f(&[3])?, 0, &causal)))),
        ("softmax", Kind::Shape, Box::new(|| unit(ops::softmax(&x, 1, &Softmax { sinks: Some(&f(&[3])?), ..plain })))),
        ("softmax", Kind::DType, Box::new(|| unit(ops::softmax(&x, 1, &Softmax { sinks: Some(&of(DType::I32, &[1])?), ..plain })))),
        ("softmax", Kind::Overlap, Box::new(|| ops::softmax_in_place(&mut x.clone(), 1, &Softmax { mask: Some(&x), ..plain }))),
        ("log_softmax", Kind::Overlap, Box::new(|| ops::log_softmax_in_place(&mut into(&[1, 3])?.broadcast_to(&[2, 3])?, 1, &plain))),
        ("log_softmax", Kind::DType, Box::new(|| unit(ops::log_softmax(&of(DType::I32, &[3])?, 0, &plain)))),
        ("log_softmax", Kind::Overlap, Box::new(|| ops::log_softmax_into(&mut x.clone(), &x, 1, &plain))),
        ("attention", Kind::Shape, Box::new(|| unit(attend(&[2, 3], &[2, 3], &[2, 3])))),
        ("attention", Kind::Shape, Box::new(|| unit(attend(&[2, 1, 3, 4], &[1, 1, 3, 4], &[1, 1, 3, 4])))),
        ("attention", Kind::Shape, Box::new(|| unit(attend(&[1, 3, 3, 4], &[1, 2, 3, 4], &[1, 2, 3, 4])))),
        ("attention", Kind::Shape, Box::new(|| unit(attend(&[1, 2, 3, 4], &[1, 0, 3, 4], &[1, 0, 3, 4])))),
        ("attention", Kind::Shape, Box::new(|| unit(attend(&[1, 1, 3, 4], &[1, 1, 3, 5], &[1, 1, 3, 5])))),
        ("attention", Kind::Shape, Box::new(|| unit(attend(&[1, 1, 3, 4], &[1, 1, 3, 4], &[1, 1, 2, 4])))),
        ("attention", Kind::Shape, Box::new(|| unit(attend(&[1, 1, 3, 513], &[1, 1, 3, 513], &[1, 1, 3, 4])))),
        ("attention", Kind::Shape, Box::new(|| unit(attend(&[1, 1, 3, 0], &[1, 1, 3, 0], &[1, 1, 3, 4])))),
        ("attention", Kind::Shape, Box::new(|| unit(attend(&[1, 1, 3, 4], &[1, 1, 3, 4], &[1, 1, 3, 600])))),
        ("attention", Kind::Shape, Box::new(|| unit(attend_with(&Attention { sinks: Some(&f(&[1, 1])?), ..none })))),
        ("attention", Kind::Shape, Box::new(|| unit(attend_with(&Attention { alibi: Some(&f(&[3])?), ..none })))),
        ("attention", Kind::DType, Box::new(|| unit(attend_with(&Attention { alibi: Some(&of(DType::I32, &[1])?), ..none })))),
        ("attention", Kind::DType, Box::new(|| unit(attend_with(&Attention { kv_lens: Some(&f(&[1])?), ..none })))),
        ("attention", Kind::Shape, Box::new(|| unit(attend_with(&Attention { kv_lens: Some(&of(DType::U32, &[2])?), ..none })))),
        ("attention", Kind::Shape, Box::new(|| unit(attend_with(&Attention { bias: Some(&f(&[3, 5])?), ..none })))),
        ("attention", Kind::Argument, Box::new(|| unit(attend_with(&Attention { rope: far, ..none })))),
        ("attention", Kind::Shape, Box::new(|| unit(attend_with(&Attention { rope: wide, ..none })))),
        ("attention", Kind::Argument, Box::new(|| unit(attend_with(&Attention { softcap: Some(0.0), ..none })))),
        ("attention", Kind::Argument, Box::new(|| unit(attend_with(&Attention { align: ops::Align::Offset(i64::MIN), ..none })))),
        ("attention", Kind::Argument, Box::new(|| unit(attend_with(&Attention { dropout: Some(certain), ..none })))),
        (
            "attention",
            Kind::Argument,
            Box::new(|| {
                let (q, dropout) = (f(&[1, 2, 3, 4])?, ops::Dropout { probability: 0.5, ..certain });
                let options = Attention { dropout: Some(dropout), ..none };
                ops::attention_with_scores(&q, &q, &q, &options, ops::Scores::Weights).map(drop)
            }),
        ),
        (
            "merge_attention",
            Kind::Shape,
            Box::new(|| ops::merge_attention(&f(&[1, 1, 3, 4])?, &f(&[1, 1, 4])?, &f(&[1, 1, 3, 4])?, &f(&[1, 1, 3])?).map(drop)),
        ),
        (
            "merge_attention",
            Kind::DType,
            Box::new(|| {
                ops::merge_attention(&f(&[1, 1, 3, 4])?, &of(DType::F16, &[1, 1, 3])?, &f(&[1, 1, 3, 4])?, &f(&[1, 1, 3])?).map(drop)
            }),
        ),
        (
            "attention",
            Kind::Argument,
            Box::new(|| {
                let q = f(&[1, 1, 3, 4])?;
                unit(ops::attention(&q, &q, &q, &Attention { scale: Some(f32::INFINITY), ..none }))
            }),
        ),
        (
            "attention",
            Kind::Shape,
            Box::new(|| {
                let q = f(&[1, 1, 3, 4])?;
                unit(ops::attention(&q, &q, &q, &Attention { mask: Some(&of(DType::Bool, &[2, 3])?), ..none }))
            }),
        ),
        (
            "attention",
            Kind::DType,
            Box::new(|| {
                let q = f(&[1, 1, 3, 4])?;
                unit(ops::attention(&q, &q, &q, &Attention { mask: Some(&f(&[3, 3])?), ..none }))
            }),
        ),
        (
            "attention",
            Kind::DType,
            Box::new(|| {
                let q = f(&[1, 1, 3, 4])?;
                unit(ops::attention(&q, &q, &q, &Attention { bias: Some(&of(DType::Bool, &[3, 3])?), ..none }))
            }),
        ),
        (
            "attention",
            Kind::Overlap,
            Box::new(|| {
                let q = f(&[1, 1, 3, 4])?;
                ops::attention_into(&mut q.clone(), &f(&[1, 1, 3, 4])?, &q, &f(&[1, 1, 3, 4])?, &none)
            }),
        ),
        ("copy", Kind::DType, Box::new(|| ops::copy_into(&mut of(DType::F16, &[2, 3])?, &x))),
        ("copy", Kind::Shape, Box::new(|| ops::copy_into(&mut into(&[2, 4])?, &x))),
        ("copy", Kind::Overlap, Box::new(|| ops::copy_into(&mut x.narrow(0, 0..1)?, &x.narrow(0, 1..2)?))),
        ("cast", Kind::Shape, Box::new(|| ops::cast_into(&mut of(DType::U8, &[3])?, &x))),
        ("Tensor::from_slice", Kind::Argument, Box::new(|| unit(Tensor::from_slice(device, &[1.0f32], &[2])))),
        ("Tensor::zeros", Kind::TooLarge, Box::new(|| unit(of(DType::F32, &[usize::MAX, 2])))),
        ("Tensor::zeros", Kind::TooLarge, Box::new(|| unit(of(DType::F32, &[1; 7])))),
        ("Tensor::to_vec", Kind::DType, Box::new(|| x.to_vec::<u8>().map(|_| ()))),
        ("narrow", Kind::Shape, Box::new(|| unit(x.narrow(1, 2..4)))),
        ("narrow", Kind::Shape, Box::new(|| unit(of(DType::F32, &[0, 3])?.narrow(1, usize::MAX..usize::MAX)))),
        #[expect(clippy::reversed_empty_ranges, reason = "that is the bad input")]
        ("narrow", Kind::Shape, Box::new(|| unit(x.narrow(1, 2..1)))),
        ("permute", Kind::Shape, Box::new(|| unit(x.permute(&[0, 0])))),
        ("reshape", Kind::Shape, Box::new(|| unit(x.reshape(&[5])))),
        ("reshape", Kind::Shape, Box::new(|| unit(x.transpose(0, 1)?.reshape(&[6])))),
        ("broadcast_to", Kind::Shape, Box::new(|| unit(x.broadcast_to(&[4, 3])))),
        ("squeeze", Kind::Shape, Box::new(|| unit(x.squeeze(0)))),
        ("transpose", Kind::Argument, Box::new(|| unit(x.transpose(0, 5)))),
        ("unsqueeze", Kind::Argument, Box::new(|| unit(x.unsqueeze(4)))),
        ("unsqueeze", Kind::Shape, Box::new(|| unit(f(&[1; 6])?.unsqueeze(0)))),
    ];
    // Far larger than its storage: no memory for its elements anywhere.
    let broad = f(&[1]).and_then(|t| t.broadcast_to(&[1 << 45])).map_err(|e| e.to_string())?;
    if !matches!(broad.to_vec::<f32>(), Err(Error::OutOfMemory { .. })) {
        return Err("2^45 elements must be out of memory".into());
    }
    let before = x.to_vec::<f32>().map_err(|e| e.to_string())?;
    for (i, (op, wanted, call)) in calls.iter().enumerate() {
        let name = format!("call {i} ({op}) on {}", subject.name);
        match call() {
            Ok(()) => return Err(format!("{name} must fail")),
            Err(error) => {
                let message = error.to_string();
                if kind(&error) != Some(*wanted) || !message.starts_with(op) || message.len() < 40 {
                    return Err(format!("{name} must be {wanted:?} and say what to do, not: {message}"));
                }
            }
        }
    }
    if x.to_vec::<f32>().map_err(|e| e.to_string())? == before { Ok(()) } else { Err("a failed call wrote".into()) }
}

/// What only GPUs have: limits, pins, adapters that are not there; and plans for devices that nobody here owns.
#[cfg(feature = "gpu")]
mod gpu {
    use gristmill::gpu::{Backend, Caps, GpuOptions, Plan, Throughput};
    use gristmill::ops::{attention, binary, cast, copy, kernels, matmul, softmax};
    use gristmill::{DType, Device, Error, Layout, Tensor, ops};
    use libtest_mimic::Trial;

    use crate::support::devices::{Level, Subject, level};
    use crate::support::runner::{expect, trial, trials};

    pub fn all() -> Vec<Trial> {
        let mut all = trials("errors", "limits", limits);
        all.extend(trials("errors", "pins", pins));
        all.push(trial("errors::no_gpu", no_gpu));
        all.push(trial("errors::deadlines", deadlines));
        all.push(trial("plan::folds_and_refuses", plans));
        all.push(trial("plan::limits", limits_of_plans));
        all.push(trial("plan::short_dispatches", short_dispatches));
        all.extend(trials("errors", "cut", cut));
        all.extend(trials("errors", "long_work", long_work));
        all
    }

    /// Past the device's limits: named before wgpu sees it.
    fn limits(_: &Subject, device: &Device, _: Level) -> Result<(), String> {
        let Some(caps) = device.caps() else { return Ok(()) };
        let past = (caps.buffer_bytes / 4 + 1) as usize;
        let error = Tensor::zeros(device, DType::F32, &[past]).err();
        expect(matches!(error, Some(Error::TooLarge { limit_name: "bytes a buffer", .. })), "a buffer past the limit")?;
        // Bindable in parts only.
        let past = (caps.binding_bytes / 4 + 4) as usize;
        if past as u64 * 4 < caps.buffer_bytes {
            let x = Tensor::zeros(device, DType::F32, &[past]).map_err(|e| e.to_string())?;
            let error = ops::add(&x, &x).err();
            expect(matches!(error, Some(Error::TooLarge { limit_name: "bytes a storage binding", .. })), "a binding past the limit")?;
            let head = x.narrow(0, 0..5).and_then(|h| ops::add(&h, &h)).and_then(|t| t.to_vec::<f32>()).map_err(|e| e.to_string())?;
            expect(head == [0.0; 5], "the head of a tensor past the binding limit is within it")?;
        }
        Ok(())
    }

    /// A pin holds for its op alone; a tune that cannot serve says so.
    fn pins(_: &Subject, device: &Device, _: Level) -> Result<(), String> {
        if device.is_cpu() {
            return Ok(());
        }
        // One that other trials have compiled.
        let kernel = kernels().iter().find(|k| k.name == "attention_direct").ok_or("no attention_direct")?;
        let pinned = device.pinned((*kernel, kernel.tune("q2d64").ok_or("no q2d64")?));
        let q = Tensor::rand_uniform(device, &[1, 1, 4, 8], 1).and_then(|q| q.to_device(&pinned)).map_err(|e| e.to_string())?;
        let wide = Tensor::rand_uniform(device, &[1, 1, 4, 65], 1).map_err(|e| e.to_string())?;
        let error = ops::attention(&q, &q, &wide, &Default::default()).err();
        expect(matches!(error, Some(Error::Argument { .. })), "a pinned tune that is too small")?;
        let matmul = kernels().iter().find(|k| k.name == "matmul").ok_or("no matmul")?;
        let foreign = device.pinned((*matmul, kernel.tune("q2d64").ok_or("no q2d64")?));
        let x = Tensor::rand_uniform(&foreign, &[4, 4], 1).map_err(|e| e.to_string())?;
        expect(matches!(ops::matmul(&x, &x, &Default::default()), Err(Error::Argument { .. })), "a tune of another kernel")?;
        expect(ops::add(&q, &q).is_ok() && ops::attention(&q, &q, &q, &Default::default()).is_ok(), "other calls on a pinned handle")
    }

    fn no_gpu() -> Result<(), String> {
        let options = GpuOptions { name: Some("no such adapter".into()), software: true, ..GpuOptions::default() };
        match Device::gpu(&options) {
            Err(error @ Error::NoGpu { .. }) => expect(error.to_string().contains("install"), "it must say what to do"),
            other => Err(format!("{other:?}")),
        }
    }

    fn dense(dims: &[usize]) -> Layout {
        Layout::contiguous(dims).expect("a layout")
    }

    fn rows_of(dims: &[usize]) -> softmax::Problem {
        softmax::Problem {
            dtypes: [DType::F32; 4],
            log: false,
            in_place: false,
            axis: 1,
            scale: 1.0,
            out: dense(dims),
            x: dense(dims),
            mask: None,
            causal_limit: dims[1] as i64,
            sinks: None,
        }
    }

    fn only(plan: gristmill::Result<Plan>) -> Result<[u32; 3], String> {
        let plan = plan.map_err(|e| e.to_string())?;
        expect(plan.dispatches.len() == 1, "one dispatch")?;
        Ok(plan.dispatches[0].grid)
    }

    /// A deadline that passes is an error once, and the device is lost from then on; another of the same adapter works.
    fn deadlines() -> Result<(), String> {
        let options = GpuOptions { software: true, backend: Some(Backend::Vulkan), ..GpuOptions::default() };
        let Ok(fine) = Device::gpu(&options) else { return Ok(()) };
        let hurried = Device::gpu(&GpuOptions { deadline: Some(std::time::Duration::ZERO), ..options }).map_err(|e| e.to_string())?;
        let x = Tensor::rand_uniform(&hurried, &[512, 512], 1).map_err(|e| e.to_string())?;
        let mut y = x.clone();
        for _ in 0..8 {
            y = ops::matmul(&x, &y, &Default::default()).map_err(|e| e.to_string())?;
        }
        match hurried.sync() {
            Err(Error::TimedOut { .. }) => {
                let later = ops::add(&x, &x).and_then(|t| t.to_vec::<f32>());
                expect(matches!(later, Err(Error::Lost { .. })), "after a missed deadline the device is lost")?;
            }
            other => return Err(format!("a deadline of zero: {other:?}")),
        }
        let z = Tensor::full(&fine, 1.0f32, &[3]).and_then(|z| ops::add(&z, &z)).and_then(|z| z.to_vec::<f32>());
        expect(z.is_ok_and(|z| z == [2.0; 3]), "another device of the same adapter")
    }

    /// No dispatch is planned for longer than 250 ms where it can be cut, and reductions never are: for a slow device and every op that cuts.
    fn short_dispatches() -> Result<(), String> {
        let mut slow = Caps::webgpu_defaults();
        slow.throughput = Throughput { flops: 40_000_000, bytes: 1_000_000 };
        let pieces = |what: &str, plan: gristmill::Result<Plan>, expected: usize| {
            let plan = plan.map_err(|e| e.to_string())?;
            let longest = plan.milliseconds(&slow);
            expect(longest <= 250 && plan.dispatches.len() == expected, format!("{what}: {} of up to {longest} ms", plan.dispatches.len()))
        };
        let f32s = [DType::F32; 3];
        // 8 * 2 * 128^3 FLOP at 40 million a second: 0.84 s, and 1.6 MB: 1.6 s.
        let (out, matrix) = (dense(&[8, 128, 128]), dense(&[8, 128, 128]));
        let problem =
            matmul::Problem { dtypes: f32s, batch_invariant: false, out, lhs: matrix, rhs: matrix, epilogue: matmul::Epilogue::NONE };
        pieces("matmul", matmul::gpu::plan(&slow, None, &problem), 16)?;
        let (out, x) = (dense(&[1_000_000]), dense(&[1_000_000]));
        let problem = binary::Problem { function: binary::Function::Add, in_place: false, dtypes: f32s, out, lhs: x, rhs: x };
        pieces("add", binary::gpu::plan(&slow, None, &problem), 64)?;
        let problem = rows_of(&[64, 999]);
        pieces("softmax", softmax::gpu::plan(&slow, None, &problem), 4)?;
        // One row is one reduction, however long.
        let problem = rows_of(&[1, 200_000]);
        let row = softmax::gpu::plan(&slow, None, &problem).map_err(|e| e.to_string())?;
        expect(row.dispatches.len() == 1 && row.milliseconds(&slow) > 250, "a row is not cut")?;
        let problem = attention::Problem {
            window: [1 << 30, 0],
            scale: 1.0,
            ..attention::Problem::new(
                [DType::F32; 4],
                dense(&[1, 8, 256, 64]),
                dense(&[1, 8, 256, 64]),
                dense(&[1, 2, 256, 64]),
                dense(&[1, 2, 256, 64]),
            )
        };
        // Groups of four heads at first, then queries, of which the later ones see more keys.
        let mut faster = slow.clone();
        faster.throughput = Throughput { flops: 100_000_000, bytes: 10_000_000 };
        let plan = attention::gpu::plan(&faster, None, &problem).map_err(|e| e.to_string())?;
        expect(plan.milliseconds(&faster) <= 250 && plan.dispatches.len() == 6, format!("attention: {}", plan.dispatches.len()))?;
        // Blocks of queries are not cut: less of one is no less work.
        let plan = attention::gpu::plan(&slow, None, &problem).map_err(|e| e.to_string())?;
        expect((8..=16).contains(&plan.dispatches.len()), format!("attention in blocks: {}", plan.dispatches.len()))
    }

    /// What is cut gives what is whole, bit for bit, in every op: on a device that is told to be slow.
    fn cut(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
        let Some(caps) = device.caps() else { return Ok(()) };
        if level == Level::Smoke {
            return Ok(());
        }
        let adapter = Device::adapters().into_iter().find(|a| a.name == caps.name && a.backend == caps.backend);
        let throughput = Some(Throughput { flops: 4_000_000, bytes: 100_000 });
        let options = GpuOptions { adapter, software: true, throughput, ..GpuOptions::default() };
        let slow = Device::gpu(&options).map_err(|e| e.to_string())?;
        let run = |device: &Device| -> gristmill::Result<Vec<Vec<f32>>> {
            let normal = |dims: &[usize], seed| Tensor::rand_normal(device, dims, 0.0, 1.0, seed);
            let (a, b) = (normal(&[3, 70, 90], 1)?, normal(&[3, 90, 40], 2)?);
            let product = ops::matmul(&a, &b, &Default::default())?;
            let row = ops::matmul(&normal(&[1, 90], 7)?, &normal(&[90, 3000], 8)?, &Default::default())?;
            let (q, k, v) = (normal(&[2, 4, 70, 32], 3)?, normal(&[2, 2, 80, 32], 4)?, normal(&[2, 2, 80, 32], 5)?);
            let bias = normal(&[70, 80], 6)?;
            let options = ops::Attention { causal: true, bias: Some(&bias), ..Default::default() };
            let attended = ops::attention(&q, &k, &v, &options)?;
            let odd = normal(&[70_001], 9)?;
            let halves = ops::cast(&odd, DType::F16)?;
            let positive = ops::gt(&odd, &Tensor::full(device, 0.5f32, &[1])?)?;
            let mut in_place = ops::copy(&odd)?;
            ops::tanh_in_place(&mut in_place)?;
            ops::mul_in_place(&mut in_place, &odd)?;
            let table = normal(&[50, 300], 10)?;
            let ids: Vec<u32> = (0..200).map(|i| i * 7 % 50).collect();
            let rows = ops::gather(&table, &Tensor::from_slice(device, &ids, &[20, 10])?, 0)?;
            let columns = ops::gather(&table.transpose(0, 1)?, &Tensor::from_slice(device, &ids, &[200])?, 1)?;
            let heads = normal(&[2, 3, 40, 20], 13)?;
            let table = ops::RopeTable::new(device, &ops::RopeFrequencies::new(10_000.0, 16), 0..90)?;
            let places: Vec<u32> = (0..80).map(|i| i * 13 % 90).collect();
            let places = Tensor::from_slice(device, &places, &[2, 40])?;
            let by_place = ops::Rope { style: ops::RopeStyle::Interleaved, positions: Some(&places), ..Default::default() };
            let mut turned = ops::rope(&heads, &table, &ops::Rope { offset: 50, ..Default::default() })?;
            ops::rope_in_place(&mut turned, &table, &by_place)?;
            let sinks = normal(&[3, 1, 1], 13)?;
            let causal = ops::Softmax { causal: Some(ops::Align::BottomRight), sinks: Some(&sinks), ..Default::default() };
            let mut softmaxed = ops::copy(&product)?;
            ops::softmax_in_place(&mut softmaxed, 2, &causal)?;
            // Along queries, and along heads.
            let first = ops::Softmax { causal: Some(ops::Align::TopLeft), ..Default::default() };
            let diagonal = ops::softmax(&normal(&[210, 40], 14)?, 1, &first)?;
            let (long, many) = (normal(&[1, 1, 400, 20], 15)?, normal(&[1, 6, 80, 20], 16)?);
            let long_table = ops::RopeTable::new(device, &ops::RopeFrequencies::new(10_000.0, 16), 0..450)?;
            let long_places: Vec<u32> = (0..400).map(|i| i * 13 % 450).collect();
            let long_places = Tensor::from_slice(device, &long_places, &[400])?;
            let all = [
                diagonal,
                ops::rope(&long, &long_table, &ops::Rope { offset: 50, ..Default::default() })?,
                ops::rope(&long, &long_table, &ops::Rope { positions: Some(&long_places), ..Default::default() })?,
                ops::rope(&many, &table, &ops::Rope::default())?,
                product.clone(),
                turned,
                ops::cast(
                    &ops::rope(&ops::cast(&heads.transpose(1, 3)?.contiguous()?.transpose(1, 3)?, DType::F16)?, &table, &by_place)?,
                    DType::F32,
                )?,
                row,
                softmaxed,
                ops::softmax(&product, 2, &causal)?,
                attended,
                ops::softmax(&product, -1, &ops::Softmax::default())?,
                ops::log_softmax(&product, 0, &ops::Softmax { mask: Some(&normal(&[40], 11)?), ..Default::default() })?,
                ops::sum(&product.transpose(0, 2)?, &[1], true)?,
                ops::sum(&odd, &[0], false)?,
                ops::cast(&ops::argmax(&product, 1, false)?, DType::F32)?,
                ops::cast(&halves, DType::F32)?,
                ops::cast(&ops::relu(&halves)?, DType::F32)?,
                ops::where_cond(&positive, &odd, &in_place)?,
                in_place,
                rows,
                columns,
                ops::add(&product, &normal(&[70, 1], 12)?)?,
            ];
            all.iter().map(|t| t.to_vec::<f32>()).collect()
        };
        let square = dense(&[70, 90]);
        let add = binary::Problem {
            function: binary::Function::Add,
            in_place: false,
            dtypes: [DType::F32; 3],
            out: square,
            lhs: square,
            rhs: square,
        };
        let pieces = binary::gpu::plan(slow.caps().ok_or("a GPU")?, None, &add).map_err(|e| e.to_string())?.dispatches.len();
        expect(pieces > 1, "the slow device cuts")?;
        let (whole, cut) = (run(device).map_err(|e| e.to_string())?, run(&slow).map_err(|e| e.to_string())?);
        for (i, (whole, cut)) in whole.iter().zip(&cut).enumerate() {
            let same = whole.iter().zip(cut).all(|(a, b)| a.to_bits() == b.to_bits()) && whole.len() == cut.len();
            expect(same, format!("result {i} differs on {} where it is cut", subject.name))?;
        }
        Ok(())
    }

    /// Every op names the limit that a call is past: bytes a binding, and elements that a kernel can index where bindings are large enough.
    fn limits_of_plans() -> Result<(), String> {
        use gristmill::ops::{compare, gather, reduce, rope, unary, where_cond};

        let plans = |caps: &Caps, side: usize| {
            let (square, f32s) = (dense(&[side, side]), [DType::F32; 3]);
            let four = dense(&[1, 1, side, side]);
            let of_attention = attention::Problem::new([DType::F32; 4], four, four, four, four);
            let of_softmax = softmax::Problem { out: square, x: square, ..rows_of(square.dims()) };
            let function = binary::Function::Add;
            let of_binary = binary::Problem { function, in_place: false, dtypes: f32s, out: square, lhs: square, rhs: square };
            let in_place = binary::Problem { in_place: true, ..of_binary.clone() };
            let less = compare::Problem { function: compare::Function::Lt, dtypes: [DType::F32; 2], out: square, lhs: square, rhs: square };
            let of_unary = unary::Problem {
                function: unary::Function::Exp,
                bounds: [0.0; 2],
                in_place: false,
                dtypes: [DType::F32; 2],
                out: square,
                x: square,
            };
            let of_where = where_cond::Problem { dtype: DType::F32, out: square, cond: square, on_true: square, on_false: square };
            let of_gather =
                gather::Problem { dtype: DType::F32, indices_dtype: DType::U32, axis: 0, out: square, x: square, indices: dense(&[side]) };
            let of_rope = rope::Problem {
                in_place: false,
                dtypes: [DType::F32; 2],
                style: Default::default(),
                inverse: false,
                offset: 0,
                sections: None,
                out: four,
                x: four,
                cos: dense(&[side, side / 2]),
                sin: dense(&[side, side / 2]),
                positions: None,
            };
            let mut reduced = [false; gristmill::MAX_RANK];
            reduced[1] = true;
            let of_reduce =
                reduce::Problem { function: reduce::Function::Sum, dtypes: [DType::F32; 2], reduced, out: dense(&[side, 1]), x: square };
            let product = matmul::Problem {
                dtypes: f32s,
                batch_invariant: false,
                out: square,
                lhs: square,
                rhs: square,
                epilogue: matmul::Epilogue::NONE,
            };
            [
                ("attention", attention::gpu::plan(caps, None, &of_attention)),
                ("softmax", softmax::gpu::plan(caps, None, &of_softmax)),
                ("add", binary::gpu::plan(caps, None, &of_binary)),
                ("add in place", binary::gpu::plan(caps, None, &in_place)),
                ("lt", compare::gpu::plan(caps, None, &less)),
                ("exp", unary::gpu::plan(caps, None, &of_unary)),
                ("exp in place", unary::gpu::plan(caps, None, &unary::Problem { in_place: true, ..of_unary.clone() })),
                ("where_cond", where_cond::gpu::plan(caps, None, &of_where)),
                ("gather", gather::gpu::plan(caps, None, &of_gather)),
                ("rope", rope::gpu::plan(caps, None, &of_rope)),
                ("rope in place", rope::gpu::plan(caps, None, &rope::Problem { in_place: true, ..of_rope.clone() })),
                ("sum", reduce::gpu::plan(caps, None, &of_reduce)),
                ("argmax", {
                    let dtypes = [DType::U32, DType::F32];
                    reduce::gpu::plan(caps, None, &reduce::Problem { function: reduce::Function::ArgMax, dtypes, ..of_reduce.clone() })
                }),
                ("matmul", matmul::gpu::plan(caps, None, &product)),
                ("cast", cast::gpu::plan(caps, &cast::Problem { out_dtype: DType::F32, x_dtype: DType::I32, out: square, x: square })),
                ("copy", copy::gpu::plan(caps, &copy::Problem { dtype: DType::F32, out: square, x: square })),
            ]
        };
        let caps = Caps::webgpu_defaults();
        let mut huge = caps.clone();
        huge.binding_bytes = u64::MAX;
        for (caps, side, name) in [(&caps, 6000, "bytes a storage binding"), (&huge, 70_000, "elements that a kernel can index (u32)")] {
            for (what, plan) in plans(caps, side) {
                match plan {
                    Err(Error::TooLarge { limit_name, requested, limit, .. }) => {
                        expect(limit_name == name && requested > limit, format!("{what} of {side}: {limit_name}, {requested} of {limit}"))?;
                    }
                    other => return Err(format!("{what} of {side}: {:?}", other.map(|plan| plan.dispatches.len()))),
                }
            }
        }
        Ok(())
    }

    /// On GL one wait ends after 2.1 s at the latest and says that it timed out: more work than that is waited for all the same, to the deadline
    /// of ours.
    fn long_work(_: &Subject, device: &Device, _: Level) -> Result<(), String> {
        // Of OpenGL's own: once is enough, by the other driver.
        if level() == Level::Smoke || device.caps().is_none_or(|caps| caps.backend != Backend::Gl) {
            return Ok(());
        }
        let run = || -> gristmill::Result<(f64, bool)> {
            let (ones, weight) = (Tensor::full(device, 1.0f32, &[512, 512])?, Tensor::full(device, 1.0f32 / 512.0, &[512, 512])?);
            device.sync()?;
            let clock = std::time::Instant::now();
            let mut y = ones;
            // 17 GFLOP: 4 s on two cores of llvmpipe.
            for _ in 0..64 {
                y = ops::matmul(&y, &weight, &Default::default())?;
            }
            device.sync()?;
            Ok((clock.elapsed().as_secs_f64(), y.to_vec::<f32>()?.iter().all(|&v| v == 1.0)))
        };
        let (seconds, right) = run().map_err(|e| e.to_string())?;
        println!("waited for {seconds:.1} s of work on {device}");
        expect(right, "products of ones")
    }

    /// Plans are pure: a device with a small grid, and WebGPU's defaults, without either.
    fn plans() -> Result<(), String> {
        let caps = Caps::webgpu_defaults();
        let mut small = caps.clone();
        small.grid_dimension = 10;
        let big = matmul::Problem {
            dtypes: [DType::F32; 3],
            batch_invariant: false,
            out: dense(&[100, 64, 64]),
            lhs: dense(&[100, 64, 8]),
            rhs: dense(&[100, 8, 64]),
            epilogue: matmul::Epilogue::NONE,
        };
        expect(only(matmul::gpu::plan(&caps, None, &big))? == [100, 1, 1], "a grid within the limit")?;
        expect(only(matmul::gpu::plan(&small, None, &big))? == [10, 10, 1], "a grid folded to the full")?;
        // Eight rows a workgroup.
        let rows = rows_of(&[397, 3]);
        expect(only(softmax::gpu::plan(&small, None, &rows))? == [10, 5, 1], "rows folded")?;
        let binary = binary::Problem {
            function: binary::Function::Mul,
            in_place: false,
            dtypes: [DType::F32; 3],
            out: dense(&[9000]),
            lhs: dense(&[9000]),
            rhs: dense(&[9000]),
        };
        expect(only(binary::gpu::plan(&small, None, &binary))? == [9, 2, 1], "elements folded evenly")?;

        // Limits, each by name.
        let refused = |plan: gristmill::Result<Plan>, name: &str| match plan {
            Err(Error::TooLarge { limit_name, .. }) => expect(limit_name == name, format!("{limit_name}, not {name}")),
            other => Err(format!("{name}: {:?}", other.map(|p| p.dispatches.len()))),
        };
        small.grid_dimension = 9;
        refused(matmul::gpu::plan(&small, None, &big), "workgroups a dispatch")?;
        let past = copy::Problem { dtype: DType::U8, out: dense(&[1 << 28]), x: dense(&[1 << 28]) };
        refused(copy::gpu::plan(&caps, &past), "bytes a storage binding")?;
        let mut huge = caps.clone();
        huge.binding_bytes = u64::MAX;
        let past = copy::Problem { dtype: DType::U8, out: dense(&[1 << 33]), x: dense(&[1 << 33]) };
        refused(copy::gpu::plan(&huge, &past), "elements that a kernel can index (u32)")?;
        let narrow = cast::Problem { out_dtype: DType::U8, x_dtype: DType::F32, out: dense(&[1 << 20]), x: dense(&[1 << 20]) };
        let mut tiny = caps.clone();
        tiny.binding_bytes = 1 << 20;
        refused(cast::gpu::plan(&tiny, &narrow), "bytes a storage binding")?;
        let mut few = caps;
        few.storage_buffers = 4;
        few.backend = Backend::Gl;
        let q = dense(&[1, 1, 2, 2]);
        let problem = attention::Problem::new([DType::F32; 4], q, q, q, q);
        refused(attention::gpu::plan(&few, None, &problem), "storage buffers a kernel")
    }
}
