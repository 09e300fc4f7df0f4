//! Copy: every width, form and rank, bit for bit, between sentinels.

use gristmill::{DType, Device, Tensor, ops};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::devices::{Level, Subject};
use crate::support::input::{Form, Host, Random};
use crate::support::runner::{Case, Expected, check, differs, sample, trials};

pub fn all() -> Vec<Trial> {
    let mut all = trials("copy", "shapes", shapes);
    all.extend(trials("copy", "bits", bits));
    all.extend(trials("copy", "large_grid", large_grid));
    all.extend(trials("copy", "random", random));
    all
}

/// Whole numbers that every dtype holds, so that they can be compared as numbers too.
fn host(random: &mut Random, dtype: DType, dims: &[usize]) -> Host {
    let count = dims.iter().product();
    let values: Vec<f64> = (0..count).map(|_| (1 + random.below(if dtype == DType::Bool { 1 } else { 200 })) as f64).collect();
    fn of<T: gristmill::Element>(dims: &[usize], values: &[f64]) -> Host {
        Host::new(dims, &values.iter().map(|&v| T::from_f64(v)).collect::<Vec<_>>())
    }
    match dtype {
        DType::F32 => of::<f32>(dims, &values),
        DType::F16 => of::<half::f16>(dims, &values),
        DType::BF16 => of::<half::bf16>(dims, &values),
        DType::I32 => of::<i32>(dims, &values),
        DType::U32 => of::<u32>(dims, &values),
        DType::U8 => of::<u8>(dims, &values),
        _ => random.bools(dims, 0.5),
    }
}

fn case(x: Host) -> Case {
    let title = format!("{}{:?}", x.dtype, x.dims);
    let expected = Expected::equal(&x.dims, x.dtype, x.f64s());
    Case::new(title, vec![x], expected, |t: &[Tensor]| ops::copy(&t[0]), |out, t| ops::copy_into(out, &t[0]))
}

fn shapes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(14);
    for dtype in DType::ALL {
        for dims in [
            &[1][..],
            &[255],
            &[257],
            &[1029],
            &[5, 7],
            &[3, 4, 5],
            &[2, 3, 2, 3, 2, 3],
            &[5, 2, 2, 2, 3],
            &[5, 2, 2, 2, 3, 2],
            &[],
            &[0],
            &[3, 0, 2],
        ] {
            check("copy", &subject.name, device, &case(host(&mut random, dtype, dims)), level > Level::Smoke)?;
        }
    }
    Ok(())
}

/// Every 16-bit pattern and the odd 32-bit ones, NaN payloads and subnormals among them, survive.
fn bits(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let halves: Vec<half::f16> = (0..=u16::MAX).map(half::f16::from_bits).collect();
    let words = [0x7f80_0001, 0xffc0_1234, 1, 0x8000_0001, 0x8000_0000, 0x7f80_0000, 0xdead_beef, 0x007f_ffff];
    let floats: Vec<f32> = words.map(f32::from_bits).to_vec();
    for x in [Host::new(&[256, 256], &halves), Host::new(&[4, 2], &floats)] {
        for form in Form::ALL {
            let run = || Host::of(&ops::copy(&x.place(device, form)?).map_err(|e| e.to_string())?);
            if let Some(at) = differs(&run()?, &x) {
                return Err(format!("{} {form:?} on {}: element {at} changed", x.dtype, subject.name));
            }
        }
    }
    Ok(())
}

/// More workgroups than a dimension of the grid holds, into dense and into strided outputs.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let words: Vec<u32> = (1..=4112).collect();
    let bytes: Vec<u8> = words.iter().map(|i| (i % 251 + 1) as u8).collect();
    let run = || {
        let x = Tensor::from_slice(device, &words, &[4112])?;
        let dense = ops::copy(&x.broadcast_to(&[4112, 4112])?)?.to_vec::<u32>()?;
        let x = Tensor::from_slice(device, &bytes, &[4112])?;
        let out = Tensor::zeros(device, DType::U8, &[4112, 4113])?;
        ops::copy_into(&mut out.narrow(1, 0..4112)?, &x.broadcast_to(&[4112, 4112])?)?;
        Ok((dense, out.to_vec::<u8>()?))
    };
    let (dense, strided) = run().map_err(|error: gristmill::Error| error.to_string())?;
    let row =
        dense.chunks(4112).position(|row| row != words).or(strided.chunks(4113).position(|row| row[..4112] != bytes || row[4112] != 0));
    row.map_or(Ok(()), |row| Err(format!("a copy of 4112 x 4112 on {}: row {row} is wrong", subject.name)))
}

fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let shapes = (prop::collection::vec(0usize..7, 0..7), 0usize..7, any::<u64>());
    sample(level, &shapes, |(dims, dtype, seed)| {
        let x = host(&mut Random::new(seed), DType::ALL[dtype], &dims);
        check("copy", &subject.name, device, &case(x), true)
    })
}
