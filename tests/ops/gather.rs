//! Gather and concat: every width, axis and form, bit for bit, between sentinels; indices out of range.

use gristmill::{DType, Device, Error, Tensor, ops};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::devices::{Level, Subject};
use crate::support::input::{Form, Host, Random};
use crate::support::runner::{Case, Expected, check, differs, same_on_any_threads, sample, trial, trials};

pub fn all() -> Vec<Trial> {
    let mut all = trials("gather", "rows", rows);
    all.extend(trials("gather", "bits", bits));
    all.extend(trials("gather", "out_of_range", out_of_range));
    all.extend(trials("gather", "large_grid", large_grid));
    all.extend(trials("gather", "random", random));
    all.extend(trials("concat", "parts", parts));
    all.push(trial("gather::threads", || {
        same_on_any_threads(|_| vec![case(&mut Random::new(9), DType::BF16, &[50, 333], &[200], 0, true)])
    }));
    all
}

/// Whole numbers that every type holds.
fn numbers(random: &mut Random, dtype: DType, dims: &[usize]) -> Host {
    let most = if dtype == DType::Bool { 1 } else { 200 };
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| (1 + random.below(most)) as f32).collect();
    Host::new(dims, &values).to(dtype)
}

fn case(random: &mut Random, dtype: DType, dims: &[usize], indices: &[usize], axis: usize, signed: bool) -> Case {
    let x = numbers(random, dtype, dims);
    let rows = dims[axis];
    let count = indices.iter().product();
    let chosen: Vec<i64> =
        (0..count).map(|_| random.below(rows * if signed { 2 } else { 1 }) as i64 - if signed { rows as i64 } else { 0 }).collect();
    let (outer, inner) = (dims[..axis].iter().product::<usize>(), dims[axis + 1..].iter().product::<usize>());
    let from = x.f64s();
    let mut values = Vec::new();
    for o in 0..outer {
        for &row in &chosen {
            let row = if row < 0 { row + rows as i64 } else { row } as usize;
            values.extend_from_slice(&from[(o * rows + row) * inner..][..inner]);
        }
    }
    let out = [&dims[..axis], indices, &dims[axis + 1..]].concat();
    let places = if signed {
        Host::new(indices, &chosen.iter().map(|&i| i as i32).collect::<Vec<_>>())
    } else {
        Host::new(indices, &chosen.iter().map(|&i| i as u32).collect::<Vec<_>>())
    };
    Case::new(
        format!("{dtype}{dims:?} axis {axis} by {}{indices:?}", places.dtype),
        vec![x, places],
        Expected::equal(&out, dtype, values),
        move |t: &[Tensor]| ops::gather(&t[0], &t[1], axis as isize),
        move |out, t| ops::gather_into(out, &t[0], &t[1], axis as isize - t[0].rank() as isize),
    )
}

/// Rows of whole 16-byte words, of 4-byte ones, and of neither; every axis.
fn rows(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(41);
    for dtype in DType::ALL {
        for (dims, indices, axis) in [
            (&[7, 32][..], &[5][..], 0),
            (&[7, 6], &[2, 3], 0),
            (&[7, 5], &[9], 0),
            (&[5, 7], &[4], 1),
            (&[3, 7, 16], &[2, 2], 1),
            (&[2, 3, 4, 5], &[3], 2),
            (&[9], &[4, 3], 0),
            (&[4, 5], &[], 0),
            (&[4, 5], &[0], 1),
            (&[2, 3, 2, 3, 16], &[2, 2], 3),
        ] {
            for signed in [false, true] {
                check("gather", &subject.name, device, &case(&mut random, dtype, dims, indices, axis, signed), level > Level::Smoke)?;
            }
        }
    }
    Ok(())
}

/// NaN payloads, subnormals and zeros of both signs stay what they are.
fn bits(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let halves: Vec<half::f16> = (0..=u16::MAX).map(half::f16::from_bits).collect();
    for width in [256, 2] {
        let x = Host::new(&[65_536 / width, width], &halves);
        let places: Vec<u32> = (0..x.dims[0] as u32).rev().collect();
        let indices = Host::new(&[x.dims[0]], &places);
        let mut want = x.clone();
        want.bytes = x.bytes.chunks(2 * width).rev().flatten().copied().collect();
        let run = || -> Result<Host, String> {
            let (x, indices) = (x.place(device, Form::Dense)?, indices.place(device, Form::Guarded)?);
            Host::of(&ops::gather(&x, &indices, 0).map_err(|e| e.to_string())?)
        };
        if let Some(at) = differs(&run()?, &want) {
            return Err(format!("rows of {width} on {}: element {at} changed", subject.name));
        }
    }
    Ok(())
}

/// An error on the CPU, with nothing written; zeros on a GPU, and the check finds the first.
fn out_of_range(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let fail = |text: String| format!("{}: {text}", subject.name);
    for (dtype, width) in [(DType::F32, 8), (DType::F16, 6), (DType::U8, 3)] {
        // A row lies past its end.
        let five = Host::new(&[5, width], &vec![7.0f32; 5 * width]).to(dtype).upload(device);
        let x = five.and_then(|x| x.narrow(0, 0..4)).map_err(|e| fail(e.to_string()))?;
        let unsigned = Host::new(&[2, 3], &[0u32, 3, 4, u32::MAX, 1, 1 << 31]);
        let signed = Host::new(&[2, 3], &[-4i32, 3, 4, -5, 1, i32::MIN]);
        for (indices, first) in [(unsigned, "4 at [0, 2]"), (signed, "4 at [0, 2]")] {
            let indices = indices.upload(device).map_err(|e| fail(e.to_string()))?;
            let found = ops::check_indices(&indices, 4);
            if !matches!(&found, Err(Error::Argument { .. }) if found.as_ref().is_err_and(|e| e.to_string().contains(first))) {
                return Err(fail(format!("check_indices: {found:?}")));
            }
            ops::check_indices(&indices.narrow(1, 0..2).and_then(|t| t.narrow(0, 0..1)).map_err(|e| fail(e.to_string()))?, 4)
                .map_err(|e| fail(e.to_string()))?;
            let mut out = Host::new(&[2, 3, width], &vec![1.0f32; 6 * width]).to(dtype).upload(device).map_err(|e| fail(e.to_string()))?;
            let done = ops::gather_into(&mut out, &x, &indices, 0);
            let got = Host::of(&out).map_err(fail)?.f64s();
            if device.is_cpu() {
                if !matches!(done, Err(Error::Argument { .. })) || got.iter().any(|&v| v != 1.0) {
                    return Err(fail(format!("{done:?}, and {got:?}")));
                }
                continue;
            }
            done.map_err(|e| fail(e.to_string()))?;
            let want = [7.0, 7.0, 0.0, 0.0, 7.0, 0.0];
            if !got.iter().enumerate().all(|(i, &v)| v == want[i / width]) {
                return Err(fail(format!("{dtype} rows of {width}: {got:?}")));
            }
        }
    }
    let none = Tensor::zeros(device, DType::F32, &[0, 3]).and_then(|x| {
        let indices = Tensor::zeros(device, DType::U32, &[2])?;
        ops::gather(&x, &indices, 0)
    });
    match none {
        Err(Error::Argument { .. }) if device.is_cpu() => Ok(()),
        Ok(zeros) if !device.is_cpu() && Host::of(&zeros).map_err(fail)?.f64s() == [0.0; 6] => Ok(()),
        other => Err(fail(format!("of no rows: {other:?}"))),
    }
}

/// More workgroups than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let rows: Vec<f32> = (0..2 * 2049).map(|i| i as f32).collect();
    let indices: Vec<u32> = (0..2049).map(|i| u32::from(i % 3 == 0)).collect();
    let run = || {
        let x = Tensor::from_slice(device, &rows, &[2, 2049])?;
        ops::gather(&x, &Tensor::from_slice(device, &indices, &[2049])?, 0)?.to_vec::<f32>()
    };
    let out = run().map_err(|error| error.to_string())?;
    match (0..out.len()).find(|&at| out[at] != rows[indices[at / 2049] as usize * 2049 + at % 2049]) {
        None => Ok(()),
        Some(at) => Err(format!("2049 rows of 2049 on {}: element {at} is {}", subject.name, out[at])),
    }
}

fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let shapes = (prop::collection::vec(1usize..9, 1..5), prop::collection::vec(0usize..5, 0..3), 0usize..7, any::<u64>());
    sample(level, &shapes, |(mut dims, indices, dtype, seed)| {
        let mut random = Random::new(seed);
        if let (Some(last), 0) = (dims.last_mut(), random.below(2)) {
            *last *= 16;
        }
        let axis = random.below(dims.len());
        let signed = random.below(2) == 0;
        check("gather", &subject.name, device, &case(&mut random, DType::ALL[dtype], &dims, &indices, axis, signed), true)
    })
}

/// Two and three parts along each axis, some of them empty.
fn parts(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(42);
    for dtype in DType::ALL {
        for (dims, axis, sizes) in
            [(&[3, 5][..], 0, &[1, 2][..]), (&[3, 5], 1, &[5, 0, 3]), (&[2, 8, 3], 1, &[8, 4]), (&[4], 0, &[4]), (&[2, 0, 3], 2, &[3, 1])]
        {
            let shapes: Vec<Vec<usize>> = sizes.iter().map(|&size| [&dims[..axis], &[size], &dims[axis + 1..]].concat()).collect();
            let inputs: Vec<Host> = shapes.iter().map(|shape| numbers(&mut random, dtype, shape)).collect();
            let (outer, inner) = (dims[..axis].iter().product::<usize>(), dims[axis + 1..].iter().product::<usize>());
            let values = (0..outer).flat_map(|o| {
                let part = |(host, &size): (&Host, &usize)| host.f64s()[o * size * inner..(o + 1) * size * inner].to_vec();
                inputs.iter().zip(sizes).flat_map(part).collect::<Vec<_>>()
            });
            let out = [&dims[..axis], &[sizes.iter().sum()], &dims[axis + 1..]].concat();
            let expected = Expected::equal(&out, dtype, values.collect());
            let case = Case::new(
                format!("{dtype}{dims:?} axis {axis} {sizes:?}"),
                inputs,
                expected,
                move |t: &[Tensor]| ops::concat(&t.iter().collect::<Vec<_>>(), axis as isize),
                move |out, t: &[Tensor]| ops::concat_into(out, &t.iter().collect::<Vec<_>>(), axis as isize),
            );
            check("concat", &subject.name, device, &case, level > Level::Smoke)?;
        }
    }
    let (a, b) = (Tensor::zeros(device, DType::F32, &[2, 3]), Tensor::zeros(device, DType::F32, &[3, 3]));
    let (a, b) = (a.map_err(|e| e.to_string())?, b.map_err(|e| e.to_string())?);
    let refused = [
        matches!(ops::concat(&[], 0), Err(Error::Argument { .. })),
        matches!(ops::concat(&[&a, &b], 1), Err(Error::Shape { .. })),
        matches!(ops::concat(&[&a, &b], 2), Err(Error::Argument { .. })),
        matches!(ops::concat_into(&mut a.clone(), &[&a], 0), Err(Error::Overlap { .. })),
    ];
    if refused == [true; 4] { Ok(()) } else { Err(format!("{}: not refused: {refused:?}", subject.name)) }
}
