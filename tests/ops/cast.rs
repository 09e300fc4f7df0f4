//! Cast: all pairs of types, every 16-bit pattern, the edges of every range; bit-equal to an independent statement of the rules.

use gristmill::{DType, Device, Tensor, ops};
use half::{bf16, f16};
use libtest_mimic::Trial;

use crate::support::devices::{Level, Subject};
use crate::support::input::{Form, Host, Random};
use crate::support::runner::{Case, Expected, check, trials};

pub fn all() -> Vec<Trial> {
    let mut all = trials("cast", "pairs", pairs);
    all.extend(trials("cast", "shapes", shapes));
    all.extend(trials("cast", "large_grid", large_grid));
    #[cfg(feature = "npy")]
    all.extend(trials("cast", "odd_bools", odd_bools));
    all
}

/// Values of a type that show its edges and others'.
fn values(dtype: DType) -> Host {
    let mut edges: Vec<f64> = vec![0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.5, -2.5, 254.5, 255.0, 255.5, 256.0, 257.0];
    edges.extend([
        2048.0, 2049.0, 2051.0, 65_503.0, 65_519.0, 65_520.0, 65_536.0, 1e10, -1e10, 1e30, -1e30, 3.4e38, 1e-40, 6e-8, 2.9e-8, 1e-30,
    ]);
    for bit in 0..33 {
        for near in [-1.0, 0.0, 1.0] {
            edges.extend([2f64.powi(bit) + near, -(2f64.powi(bit) + near)]);
            // Ties of every 16-bit and 24-bit mantissa, and one to either side.
            edges.extend([8, 9, 11, 24].map(|m| 2f64.powi(bit) * (1.0 + 2f64.powi(-m)) + near));
        }
    }
    edges.extend([f64::INFINITY, f64::NEG_INFINITY, f64::NAN]);
    let mut random = Random::new(15);
    match dtype {
        DType::F32 => {
            let mut all: Vec<f32> = edges.iter().map(|&v| v as f32).collect();
            all.extend((0..20_000).map(|_| f32::from_bits(random.next() as u32)));
            // At the ends and wherever f16 has exponents: each bit above and below a power of two, and one to either side of it.
            for exponent in (100..=145).chain([0, 1, 254, 255]) {
                for bit in 0..23 {
                    for place in [(exponent << 23) + (1 << bit), ((exponent + 1) << 23) - (1 << bit)] {
                        all.extend([place - 1, place, place + 1].map(|bits| f32::from_bits(bits | (bit & 1) << 31)));
                    }
                }
            }
            Host::new(&[all.len()], &all)
        }
        DType::F16 => Host::new(&[1 << 16], &(0..=u16::MAX).map(f16::from_bits).collect::<Vec<_>>()),
        DType::BF16 => Host::new(&[1 << 16], &(0..=u16::MAX).map(bf16::from_bits).collect::<Vec<_>>()),
        DType::I32 => {
            let mut all: Vec<i32> = edges.iter().map(|&v| v as i32).collect();
            all.extend((0..5000).map(|_| random.next() as i32 >> random.below(31)));
            Host::new(&[all.len()], &all)
        }
        DType::U32 => {
            let mut all: Vec<u32> = edges.iter().map(|&v| v as u32).collect();
            all.extend((0..5000).map(|_| random.next() as u32 >> random.below(31)));
            Host::new(&[all.len()], &all)
        }
        DType::U8 => Host::new(&[256], &(0..=255).collect::<Vec<u8>>()),
        _ => Host::new(&[5], &[true, false, false, true, true]),
    }
}

/// The rules of `ops::cast` by exact arithmetic in f64: nearest is found by trying the neighbours.
fn expected(x: &Host, to: DType) -> Expected {
    let saturate = |v: f64, low: f64, high: f64| if v.is_nan() { 0.0 } else { v.trunc().clamp(low, high) };
    let convert = |v: f64| match to {
        // The hardware's own rounding from f64; no double rounding since it is the first.
        DType::F32 => f64::from(v as f32),
        DType::F16 => nearest(v, 11, -14, 65_504.0),
        DType::BF16 => nearest(v, 8, -126, f64::from(bf16::MAX)),
        DType::I32 => saturate(v, -2_147_483_648.0, 2_147_483_647.0),
        DType::U32 => saturate(v, 0.0, 4_294_967_295.0),
        DType::U8 => saturate(v, 0.0, 255.0),
        _ => f64::from(u8::from(v != 0.0)),
    };
    Expected::equal(&x.dims, to, x.f64s().into_iter().map(convert).collect())
}

/// The nearest value with `digits` binary digits and exponents from `lowest`, ties to even: scale to units in the last place, round there.
fn nearest(v: f64, digits: i32, lowest: i32, largest: f64) -> f64 {
    if !v.is_finite() || v == 0.0 {
        return v;
    }
    let exponent = (v.abs().log2().floor() as i32 - 1..).find(|&e| v.abs() < 2f64.powi(e + 1)).unwrap_or(0).max(lowest);
    let unit = 2f64.powi(exponent - digits + 1);
    let rounded = (v / unit).round_ties_even() * unit;
    if rounded.abs() > largest { f64::INFINITY.copysign(v) } else { rounded }
}

fn case(x: Host, to: DType) -> Case {
    let title = format!("{}{:?} to {to}", x.dtype, x.dims);
    let expected = expected(&x, to);
    Case::new(title, vec![x], expected, move |t: &[Tensor]| ops::cast(&t[0], to), |out, t| ops::cast_into(out, &t[0]))
}

fn pairs(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    for from in DType::ALL {
        let x = values(from);
        for to in DType::ALL {
            check("cast", &subject.name, device, &case(x.clone(), to), level > Level::Smoke)?;
            nan_stays(subject, device, &x, to)?;
        }
    }
    Ok(())
}

/// The comparator leaves NaN out; here it must be one.
fn nan_stays(subject: &Subject, device: &Device, x: &Host, to: DType) -> Result<(), String> {
    let out = ops::cast(&x.place(device, Form::Dense)?, to).map_err(|e| e.to_string())?;
    let (from, got) = (x.f64s(), Host::of(&out)?.f64s());
    let float = matches!(to, DType::F32 | DType::F16 | DType::BF16);
    match from.iter().zip(&got).position(|(x, y)| x.is_nan() && y.is_nan() != float) {
        None => Ok(()),
        Some(at) => Err(format!("{} to {to} on {}: element {at} of NaN became {}", x.dtype, subject.name, got[at])),
    }
}

fn shapes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(16);
    for dims in [&[1][..], &[3, 5], &[2, 3, 4, 5], &[2, 1, 3, 1, 2, 5], &[0, 2], &[]] {
        for to in DType::ALL {
            let x = random.floats(dims);
            check("cast", &subject.name, device, &case(x, to), level > Level::Smoke)?;
            let bytes: Vec<u8> = (0..dims.iter().product()).map(|_| random.next() as u8).collect();
            check("cast", &subject.name, device, &case(Host::new(dims, &bytes), to), level > Level::Smoke)?;
        }
    }
    Ok(())
}

/// A file may hold any byte for `true`.
#[cfg(feature = "npy")]
fn odd_bools(subject: &Subject, device: &Device, _: Level) -> Result<(), String> {
    // Beside zeros, which no bit of theirs may reach.
    let bytes: Vec<u8> = (0..=255).flat_map(|byte| [byte, 0, 0, byte]).collect();
    let x = Host::bool_bytes(device, &bytes)?;
    let want: Vec<f64> = bytes.iter().map(|&byte| f64::from(u8::from(byte != 0))).collect();
    for to in DType::ALL {
        let got = Host::of(&ops::cast(&x, to).map_err(|e| e.to_string())?)?.f64s();
        if let Some(at) = (0..want.len()).find(|&at| got[at] != want[at]) {
            return Err(format!("a bool of byte {} at {at} to {to} on {}: {}", bytes[at], subject.name, got[at]));
        }
    }
    Ok(())
}

/// More workgroups than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let row: Vec<u8> = (0..4112).map(|i| (i % 251 + 1) as u8).collect();
    let run = || {
        let x = Tensor::from_slice(device, &row, &[4112])?;
        ops::cast(&x.broadcast_to(&[4112, 4112])?, DType::U32)?.to_vec::<u32>()
    };
    let out = run().map_err(|error| error.to_string())?;
    match out.iter().zip(row.iter().cycle()).position(|(got, want)| *got != u32::from(*want)) {
        None => Ok(()),
        Some(at) => Err(format!("a cast of 4112 x 4112 on {}: element {at} is {}", subject.name, out[at])),
    }
}
