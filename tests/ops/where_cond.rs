//! Choices: every type, width and form, bit for bit.

use gristmill::{DType, Device, Tensor, ops};
use half::{bf16, f16};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::devices::{Level, Subject};
use crate::support::input::{Form, Host, Random};
use crate::support::reference::broadcast;
use crate::support::runner::{Case, Expected, check, differs, same_on_any_threads, sample, trial, trials};

pub fn all() -> Vec<Trial> {
    let mut all = trials("where_cond", "types", types);
    all.extend(trials("where_cond", "bits", bits));
    all.extend(trials("where_cond", "shapes", shapes));
    all.extend(trials("where_cond", "widths", widths));
    #[cfg(feature = "npy")]
    all.extend(trials("where_cond", "odd_bools", odd_bools));
    all.extend(trials("where_cond", "large_grid", large_grid));
    all.extend(trials("where_cond", "random", random));
    all.push(trial("where_cond::threads", || {
        let mut random = Random::new(9);
        let operands =
            [random.bools(&[3, 20_000], 0.5), any_bits(&mut random, DType::F16, &[20_000]), any_bits(&mut random, DType::F16, &[3, 1])];
        same_on_any_threads(|_| vec![case(operands.clone())])
    }));
    all
}

/// Any bits of a type, NaNs of all kinds too.
fn any_bits(random: &mut Random, dtype: DType, dims: &[usize]) -> Host {
    let bytes = (0..dims.iter().product::<usize>() * dtype.block_bytes()).map(|_| random.next() as u8);
    let bytes = bytes.map(|byte| if dtype == DType::Bool { byte & 1 } else { byte }).collect();
    Host { dtype, dims: dims.to_vec(), bytes }
}

fn case([cond, on_true, on_false]: [Host; 3]) -> Case {
    let dims = gristmill::Layout::broadcast_dims(&[&cond.dims, &on_true.dims, &on_false.dims]).expect("shapes that broadcast");
    let all = [&cond, &on_true, &on_false].map(|host| broadcast(&host.f64s(), &host.dims, &dims));
    let values = (0..all[0].len()).map(|i| if all[0][i] != 0.0 { all[1][i] } else { all[2][i] }).collect();
    Case::new(
        format!("{:?} ? {}{:?} : {:?}", cond.dims, on_true.dtype, on_true.dims, on_false.dims),
        vec![cond, on_true.clone(), on_false],
        Expected::equal(&dims, on_true.dtype, values),
        |t: &[Tensor]| ops::where_cond(&t[0], &t[1], &t[2]),
        |out, t| ops::where_cond_into(out, &t[0], &t[1], &t[2]),
    )
}

fn operands(random: &mut Random, dtype: DType, [cond, on_true, on_false]: [&[usize]; 3]) -> [Host; 3] {
    [random.bools(cond, 0.5), any_bits(random, dtype, on_true), any_bits(random, dtype, on_false)]
}

/// Each operand repeated along the last axis in turn.
fn types(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(31);
    for dtype in DType::ALL {
        for len in [40, 7] {
            let (whole, column) = ([3, len], [3, 1]);
            for shapes in [[&whole[..], &whole, &whole], [&column, &whole, &whole], [&whole, &column, &whole[1..]], [&whole, &whole, &[]]] {
                check("where_cond", &subject.name, device, &case(operands(&mut random, dtype, shapes)), level > Level::Smoke)?;
            }
        }
    }
    Ok(())
}

/// The comparator leaves NaN out; here every bit counts.
fn bits(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let mut random = Random::new(32);
    let count = 65_536;
    let halves = Host::new(&[count], &(0..=u16::MAX).map(f16::from_bits).collect::<Vec<_>>());
    let brains = Host::new(&[count], &(0..=u16::MAX).map(bf16::from_bits).collect::<Vec<_>>());
    let words: Vec<f32> = (0..count as u32).map(|i| f32::from_bits((i << 16) | (i.wrapping_mul(40_503) & 0xffff))).collect();
    for x in [halves, brains, Host::new(&[count], &words)] {
        let size = x.dtype.block_bytes();
        for len in [count, count - 1] {
            let (cond, other) = (random.bools(&[len], 0.5), any_bits(&mut random, x.dtype, &[len]));
            let x = Host { dtype: x.dtype, dims: vec![len], bytes: x.bytes[..len * size].to_vec() };
            let tensors = [&cond, &x, &other].map(|host| host.place(device, Form::Dense));
            let [test, yes, no] = tensors;
            let out = ops::where_cond(&test?, &yes?, &no?).map_err(|e| e.to_string())?;
            let pairs = x.bytes.chunks(size).zip(other.bytes.chunks(size)).zip(&cond.bytes);
            let wanted = pairs.flat_map(|((yes, no), test)| if *test == 1 { yes.to_vec() } else { no.to_vec() }).collect();
            let wanted = Host { dtype: x.dtype, dims: vec![len], bytes: wanted };
            if let Some(at) = differs(&Host::of(&out)?, &wanted) {
                return Err(format!("{}[{len}] on {}: element {at} has other bits", x.dtype, subject.name));
            }
        }
    }
    Ok(())
}

fn shapes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(33);
    let triples: [[&[usize]; 3]; 8] = [
        [&[63], &[63], &[63]],
        [&[64], &[1], &[]],
        [&[], &[513], &[1]],
        [&[3, 1], &[2, 3, 129], &[129]],
        [&[5, 1, 8], &[1, 4, 8], &[8]],
        [&[1, 2, 1, 3, 1, 4], &[2, 1, 3, 1, 5, 1], &[1]],
        [&[], &[], &[]],
        [&[0, 3], &[3], &[1, 1]],
    ];
    for shapes in triples {
        for dtype in [DType::F32, DType::F16, DType::U8] {
            check("where_cond", &subject.name, device, &case(operands(&mut random, dtype, shapes)), level > Level::Smoke)?;
        }
    }
    Ok(())
}

/// Windows round what the vector width needs, in one operand at a time.
fn widths(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let mut random = Random::new(34);
    for dtype in [DType::F32, DType::BF16] {
        for (start, row) in [(8, 32), (1, 32), (4, 32), (8, 33), (8, 36)] {
            for windowed in 0..3 {
                let dims = |i| if i == windowed { [5, row] } else { [5, 16] };
                let all = operands(&mut random, dtype, [&dims(0), &dims(1), &dims(2)]);
                let window = |host: &Host, cut: bool| {
                    let size = host.dtype.block_bytes();
                    let (start, row) = if cut { (start, row) } else { (0, 16) };
                    let bytes = host.bytes.chunks(row * size).flat_map(|line| line[start * size..(start + 16) * size].to_vec()).collect();
                    Host { dtype: host.dtype, dims: vec![5, 16], bytes }
                };
                let expected = case([0, 1, 2].map(|i| window(&all[i], i == windowed))).expected;
                let views = move |t: &[Tensor]| -> gristmill::Result<Vec<Tensor>> {
                    let view = |(i, t): (usize, &Tensor)| if i == windowed { t.narrow(1, start..start + 16) } else { Ok(t.clone()) };
                    t.iter().enumerate().map(view).collect()
                };
                let case = Case {
                    name: format!("{dtype} operand {windowed} from column {start} of {row}"),
                    inputs: all.to_vec(),
                    call: Box::new(move |t| views(t).and_then(|t| ops::where_cond(&t[0], &t[1], &t[2]))),
                    call_into: Box::new(move |out, t| views(t).and_then(|t| ops::where_cond_into(out, &t[0], &t[1], &t[2]))),
                    call_in_place: None,
                    expected,
                };
                check("where_cond", &subject.name, device, &case, true)?;
            }
        }
    }
    Ok(())
}

/// A file may hold any byte for `true`; none may show through to its neighbours.
#[cfg(feature = "npy")]
fn odd_bools(subject: &Subject, device: &Device, _: Level) -> Result<(), String> {
    let bytes: Vec<u8> = (0..=255).flat_map(|byte| [byte, 0, 0]).collect();
    let whole = Host::bool_bytes(device, &bytes)?;
    // Eights, and one less.
    for len in [bytes.len(), bytes.len() - 1] {
        let run = || {
            let cond = whole.narrow(0, 0..len)?;
            let (yes, no) = (Tensor::full(device, 1.0f32, &[len])?, Tensor::full(device, 2.0f32, &[len])?);
            ops::where_cond(&cond, &yes, &no)?.to_vec::<f32>()
        };
        let got = run().map_err(|error| error.to_string())?;
        if let Some(at) = (0..len).find(|&at| got[at] != if bytes[at] != 0 { 1.0 } else { 2.0 }) {
            return Err(format!("a bool of byte {} of {len} on {}: {}", bytes[at], subject.name, got[at]));
        }
    }
    Ok(())
}

/// More workgroups than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let row: Vec<bool> = (0..2049).map(|i| i % 5 < 2).collect();
    let run = || {
        let cond = Tensor::from_slice(device, &row, &[2049])?.broadcast_to(&[2049, 2049])?;
        ops::where_cond(&cond, &Tensor::full(device, 1.0f32, &[1])?, &Tensor::full(device, 2.0f32, &[1])?)?.to_vec::<f32>()
    };
    let out = run().map_err(|error| error.to_string())?;
    match out.iter().zip(row.iter().cycle()).position(|(got, cond)| *got != if *cond { 1.0 } else { 2.0 }) {
        None => Ok(()),
        Some(at) => Err(format!("a choice of 2049 x 2049 on {}: element {at} is {}", subject.name, out[at])),
    }
}

fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let shapes = (prop::collection::vec(0usize..9, 0..6), any::<u64>());
    sample(level, &shapes, |(mut dims, seed)| {
        let mut random = Random::new(seed);
        // Every other time a last axis of eights.
        if let (Some(last), 0) = (dims.last_mut(), random.below(2)) {
            *last *= 8;
        }
        let mut some = || -> Vec<usize> { dims.iter().map(|&d| if random.below(3) == 0 { 1 } else { d }).collect() };
        let [a, b, c] = [some(), some(), some()];
        let dtype = DType::ALL[random.below(7)];
        check("where_cond", &subject.name, device, &case(operands(&mut random, dtype, [&a, &b, &c])), true)
    })
}
