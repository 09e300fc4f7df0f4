//! RoPE: every style, type, width and form, out of place and in it; positions of every kind, three of them too; tables; past their end.

use gristmill::ops::{self, Rope, RopeFrequencies, RopeScaling, RopeSections, RopeStyle, RopeTable, RopeYarn};
use gristmill::{DType, Device, Error, Tensor};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::bounds::rotation;
use crate::support::devices::{Level, Subject};
use crate::support::input::{Host, Random};
use crate::support::runner::{Case, Expected, check, expect, same_on_any_threads, sample, trial, trials};
use DType::{BF16, F16, F32};

pub fn all() -> Vec<Trial> {
    let mut all = trials("rope", "exact", exact);
    all.extend(trials("rope", "types", types));
    all.extend(trials("rope", "shapes", shapes));
    all.extend(trials("rope", "by_position", by_position));
    all.extend(trials("rope", "sections", sections));
    all.extend(trials("rope", "frequencies", frequencies));
    all.extend(trials("rope", "past_the_end", past_the_end));
    all.extend(trials("rope", "extremes", extremes));
    all.extend(trials("rope", "there_and_back", there_and_back));
    all.extend(trials("rope", "large_grid", large_grid));
    all.extend(trials("rope", "random", random));
    #[cfg(feature = "gpu")]
    all.push(trial("rope::plans", plans));
    all.push(trial("rope::threads", || {
        same_on_any_threads(|_| {
            let mut random = Random::new(8);
            let call = Call { sections: Some(RopeSections::Chunked([10, 9, 13])), ..Call::new([2, 5, 77, 72], 32) };
            vec![call.case(&mut random, F16, BF16), Call::new([1, 3, 700, 16], 8).case(&mut random, F32, F32)]
        })
    }));
    all
}

/// What a case is made of.
#[derive(Debug, Clone, Copy)]
struct Call {
    style: RopeStyle,
    inverse: bool,
    /// [batch, heads, seq, head_dim]
    dims: [usize; 4],
    /// Pairs.
    half: usize,
    /// Rows of the table.
    rows: usize,
    offset: usize,
    /// The shape of the positions; none for those of `sections`.
    positions: Option<&'static [usize]>,
    signed: bool,
    sections: Option<RopeSections>,
}

impl Call {
    const fn new(dims: [usize; 4], half: usize) -> Self {
        Call {
            style: RopeStyle::Half,
            inverse: false,
            dims,
            half,
            rows: dims[2] + 7,
            offset: 3,
            positions: None,
            signed: false,
            sections: None,
        }
    }

    /// Of random numbers, in these types.
    fn case(self, random: &mut Random, out: DType, dtype: DType) -> Case {
        let x = random.floats(&self.dims).to(dtype);
        let table = [self.rows, self.half];
        let angles: Vec<f64> = (0..self.rows * self.half).map(|_| random.unit() * std::f64::consts::TAU).collect();
        // No circle's: a factor, as YaRN's tables have.
        let of = |number: fn(f64) -> f64| Host::new(&table, &angles.iter().map(|&a| (1.25 * number(a)) as f32).collect::<Vec<_>>());
        let (cos, sin) = (of(f64::cos), of(f64::sin));
        self.of(random, out, x, cos, sin)
    }

    /// Of the shape of the positions, for three streams if there are sections.
    fn positions_shape(&self) -> Option<Vec<usize>> {
        let three = || self.sections.map(|_| vec![3, self.dims[0], self.dims[2]]);
        self.positions.map(<[usize]>::to_vec).or_else(three)
    }

    fn of(self, random: &mut Random, out: DType, x: Host, cos: Host, sin: Host) -> Case {
        let [batch, heads, seq, head_dim] = self.dims;
        let mut inputs = vec![x, cos, sin];
        let shape = self.positions_shape();
        if let Some(shape) = &shape {
            let numbers: Vec<u32> = (0..shape.iter().product()).map(|_| random.below(self.rows) as u32).collect();
            let signed: Vec<i32> = numbers.iter().map(|&n| n as i32).collect();
            inputs.push(if self.signed { Host::new(shape, &signed) } else { Host::new(shape, &numbers) });
        }
        let host: Vec<Vec<f64>> = inputs.iter().map(Host::f64s).collect();
        let (mut values, mut bounds) = (host[0].clone(), vec![0.0; host[0].len()]);
        for row in 0..batch * heads * seq {
            let (b, s) = (row / seq / heads, row % seq);
            for i in 0..self.half {
                let stream = match self.sections {
                    None => 0,
                    Some(RopeSections::Chunked([t, h, _])) => usize::from(i >= t) + usize::from(i >= t + h),
                    Some(RopeSections::Interleaved(lengths)) => {
                        [1, 2].into_iter().find(|&stream| i % 3 == stream && i / 3 < lengths[stream]).unwrap_or(0)
                    }
                };
                let position = match &shape {
                    None => self.offset + s,
                    Some(shape) => {
                        // Along each axis of the three, if it is there and not of 1.
                        let place = [stream, b, s];
                        let mut shape = shape.clone();
                        if self.sections.is_some() && shape.len() == 2 {
                            shape.insert(1, 1);
                        }
                        let lead = 3 - shape.len();
                        let index =
                            shape.iter().enumerate().fold(0, |index, (axis, &n)| index * n + if n == 1 { 0 } else { place[lead + axis] });
                        host[3][index] as usize
                    }
                };
                let (first, second) = match self.style {
                    RopeStyle::Half => (i, i + self.half),
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                };
                let (first, second) = (row * head_dim + first, row * head_dim + second);
                let at = position * self.half + i;
                let (cos, sin) = (host[1][at], host[2][at] * if self.inverse { -1.0 } else { 1.0 });
                let (a, b) = (host[0][first], host[0][second]);
                (values[first], values[second]) = (a * cos - b * sin, b * cos + a * sin);
                bounds[first] = rotation((a * cos).abs() + (b * sin).abs());
                bounds[second] = rotation((b * cos).abs() + (a * sin).abs());
            }
        }
        let mut expected = Expected::stored(&self.dims, out, values, bounds);
        // What does not turn is rounded to the type, if at all.
        for (at, bound) in expected.bounds.iter_mut().enumerate().filter(|(at, _)| at % head_dim >= 2 * self.half) {
            *bound = if expected.values[at].is_nan() { *bound } else { 0.0 };
        }
        self.expecting(inputs, expected)
    }

    fn expecting(self, inputs: Vec<Host>, expected: Expected) -> Case {
        let Call { style, inverse, sections, half, .. } = self;
        let offset = if inputs.len() > 3 { 0 } else { self.offset };
        let title = format!(
            "{} {} {style:?} {half} pairs{} of {:?}, by {:?} {sections:?}",
            expected.dtype,
            inputs[0].dtype,
            if inverse { " back" } else { "" },
            self.dims,
            inputs.get(3).map(|host| (host.dtype, host.dims.clone())),
        );
        let options = move |t: &[Tensor]| -> gristmill::Result<RopeTable> { RopeTable::from_tensors(&t[0], &t[1]) };
        let own = expected.dtype;
        Case::new(
            title,
            inputs,
            expected,
            move |t: &[Tensor]| {
                let rope = Rope { style, inverse, sections, offset, positions: t.get(3) };
                let table = options(&t[1..])?;
                if t[0].dtype() == own {
                    return ops::rope(&t[0], &table, &rope);
                }
                let mut out = Tensor::zeros(t[0].device(), own, t[0].shape())?;
                ops::rope_into(&mut out, &t[0], &table, &rope)?;
                Ok(out)
            },
            move |out, t: &[Tensor]| {
                ops::rope_into(out, &t[0], &options(&t[1..])?, &Rope { style, inverse, sections, offset, positions: t.get(3) })
            },
        )
        .in_place(move |x, t: &[Tensor]| {
            ops::rope_in_place(x, &options(t)?, &Rope { style, inverse, sections, offset, positions: t.get(2) })
        })
    }
}

const STYLES: [RopeStyle; 2] = [RopeStyle::Half, RopeStyle::Interleaved];

/// N1: whole numbers, and cosines and sines of 0 and of 1 of both signs.
fn exact(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(1);
    for style in STYLES {
        for dtype in [F32, F16, BF16] {
            for (dims, half) in [([2, 3, 5, 32], 16), ([1, 2, 4, 22], 10), ([2, 1, 3, 9], 3), ([1, 2, 3, 2], 1)] {
                for inverse in [false, true] {
                    let call = Call { style, inverse, ..Call::new(dims, half) };
                    let x = random.integers(&dims, 60).to(dtype);
                    let table = [call.rows, half];
                    // At most one of the two is 0, so that few results are.
                    let numbers: Vec<[f32; 2]> = (0..call.rows * half)
                        .map(|_| [[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0], [-1.0, -1.0]][random.below(5)])
                        .collect();
                    let [cos, sin] = [0, 1].map(|i| Host::new(&table, &numbers.iter().map(|pair| pair[i]).collect::<Vec<_>>()));
                    let mut case = call.of(&mut random, dtype, x, cos, sin);
                    let Expected { dims, values, .. } = (case.expected)(device)?;
                    let values = Expected::exact(&dims, values).values;
                    case.expected = Box::new(move |_| Ok(Expected::equal(&dims, dtype, values.clone())));
                    check("rope", &subject.name, device, &case, level > Level::Smoke)?;
                }
            }
        }
    }
    Ok(())
}

/// From and to every type, by eights and by elements.
fn types(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(2);
    for style in STYLES {
        for out in [F32, F16, BF16] {
            for dtype in [F32, F16, BF16] {
                for (dims, half) in [([2, 2, 5, 64], 24), ([1, 3, 4, 18], 6), ([1, 2, 3, 13], 5)] {
                    let case = Call { style, ..Call::new(dims, half) }.case(&mut random, out, dtype);
                    check("rope", &subject.name, device, &case, level > Level::Smoke)?;
                }
            }
        }
    }
    Ok(())
}

/// Heads of every make: all of it turns or a part, halves of whole eights, of whole words and of neither.
fn shapes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(3);
    for style in STYLES {
        for (dims, half) in [
            ([1, 1, 1, 2], 1),
            ([1, 2, 9, 8], 4),
            ([1, 2, 3, 16], 8),
            ([3, 2, 5, 24], 4),
            ([2, 3, 4, 24], 12),
            ([1, 2, 7, 40], 16),
            ([2, 2, 3, 7], 2),
            ([2, 2, 3, 7], 3),
            ([1, 4, 3, 80], 40),
            ([2, 1, 9, 96], 48),
            ([1, 2, 65, 128], 64),
            ([2, 1, 3, 256], 128),
            ([0, 2, 3, 8], 4),
            ([2, 0, 3, 8], 4),
            ([2, 3, 0, 8], 4),
        ] {
            for dtype in [F32, BF16] {
                let case = Call { style, ..Call::new(dims, half) }.case(&mut random, dtype, dtype);
                check("rope", &subject.name, device, &case, level > Level::Smoke)?;
            }
        }
    }
    Ok(())
}

/// An offset, and tensors of positions that broadcast, of both types.
fn by_position(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(4);
    let positions: [Option<&'static [usize]>; 7] = [None, Some(&[3, 5]), Some(&[1, 5]), Some(&[5]), Some(&[3, 1]), Some(&[1]), Some(&[])];
    for positions in positions {
        for (at, (dims, half)) in [([3, 2, 5, 32], 16), ([3, 2, 5, 14], 6)].into_iter().enumerate() {
            for style in STYLES {
                let call = Call { style, positions, signed: at == 1, inverse: at == 0, ..Call::new(dims, half) };
                check("rope", &subject.name, device, &call.case(&mut random, F32, F32), level > Level::Smoke)?;
                check("rope", &subject.name, device, &call.case(&mut random, F16, F16), level > Level::Smoke)?;
            }
        }
    }
    // The whole table, from its first row to its last.
    for offset in [0, 2] {
        let call = Call { offset, rows: offset + 5, ..Call::new([1, 2, 5, 16], 8) };
        check("rope", &subject.name, device, &call.case(&mut random, F32, F32), true)?;
    }
    Ok(())
}

/// Three positions a row: sections one after the other and in turn, some of them empty, cut anywhere.
fn sections(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    use RopeSections::{Chunked, Interleaved};
    let mut random = Random::new(5);
    for (sections, half) in [
        (Chunked([4, 6, 6]), 16),
        (Chunked([16, 24, 24]), 64),
        (Chunked([0, 9, 7]), 16),
        (Chunked([3, 0, 4]), 7),
        (Chunked([16, 0, 0]), 16),
        (Interleaved([6, 5, 5]), 16),
        (Interleaved([24, 20, 20]), 64),
        (Interleaved([3, 2, 2]), 7),
        (Interleaved([12, 3, 1]), 16),
        (Interleaved([8, 0, 0]), 8),
    ] {
        let positions: [Option<&'static [usize]>; 4] = [None, Some(&[3, 5]), Some(&[3, 1, 5]), Some(&[3, 2, 1])];
        for (at, positions) in positions.into_iter().enumerate() {
            let style = STYLES[at % 2];
            let dims = [2, 2, 5, 2 * half + [0, 8, 3][half % 3]];
            let call = Call { style, sections: Some(sections), positions, signed: at == 1, ..Call::new(dims, half) };
            check("rope", &subject.name, device, &call.case(&mut random, F32, F32), level > Level::Smoke)?;
            check("rope", &subject.name, device, &call.case(&mut random, BF16, BF16), level > Level::Smoke)?;
        }
    }
    // Three batches: [3, 5] are three streams all the same.
    let call = Call { sections: Some(Chunked([2, 3, 3])), positions: Some(&[3, 5]), ..Call::new([3, 1, 5, 16], 8) };
    check("rope", &subject.name, device, &call.case(&mut random, F32, F32), true)
}

/// Tables of scaled frequencies on the device are what f64 says, and turn what they should.
fn frequencies(subject: &Subject, device: &Device, _: Level) -> Result<(), String> {
    let llama3 = RopeScaling::Llama3 { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position: 8192 };
    for (theta, rotary_dim, scaling) in [
        (10_000.0, 64, RopeScaling::None),
        (1e6, 32, RopeScaling::Linear { factor: 4.0 }),
        (500_000.0, 64, llama3),
        (10_000.0, 64, RopeScaling::Yarn(RopeYarn::new(40.0, 4096))),
    ] {
        let config = RopeFrequencies { theta, rotary_dim, scaling };
        let fail = |e: Error| format!("{config:?} on {}: {e}", subject.name);
        let positions = [0u32, 1, 2, 4095, 131_071, 1_000_003];
        let (inv_freq, factor) = (config.inv_freq().map_err(fail)?, config.attention_factor());
        let table = RopeTable::new(device, &config, positions.into_iter()).map_err(fail)?;
        expect((table.positions(), table.rotary_dim()) == (6, rotary_dim), "the table's shape")?;
        let (cos, sin) = (Host::of(table.cos())?, Host::of(table.sin())?);
        let values = positions.iter().flat_map(|&p| inv_freq.iter().map(move |f| f64::from(p) * f));
        for (at, angle) in values.enumerate() {
            let near = |got: f64, want: f64| (got - want).abs() <= 2f64.powi(-24) * factor * want.abs().max(1.0);
            let right = near(cos.f64s()[at], factor * angle.cos()) && near(sin.f64s()[at], factor * angle.sin());
            expect(right, format!("{config:?} on {}: angle {at}", subject.name))?;
        }
        let call = Call { rows: 6, offset: 0, ..Call::new([1, 2, 6, rotary_dim], rotary_dim / 2) };
        let mut random = Random::new(6);
        let x = random.floats(&call.dims);
        check("rope", &subject.name, device, &call.of(&mut random, F32, x, cos, sin), true)?;
    }
    Ok(())
}

/// Positions that are not there: an error on the CPU, with nothing written; zeros on a GPU where they turn something, and the check finds them.
fn past_the_end(subject: &Subject, device: &Device, _: Level) -> Result<(), String> {
    let fail = |text: String| format!("{}: {text}", subject.name);
    let run = |style, head_dim: usize, half: usize, dtype, signed: bool, sections: bool| -> gristmill::Result<Result<(), String>> {
        // Rows behind the table that must not be found.
        let wide = Tensor::full(device, 1.0f32, &[9, half])?;
        let table = RopeTable::from_tensors(&wide.narrow(0, 2..6)?, &Tensor::zeros(device, F32, &[9, half])?.narrow(0, 2..6)?)?;
        let numbers = if sections { [0u32, 3, 2, 1, 9, 0, 1, 1, 4] } else { [0, 3, 4, u32::MAX, 1 << 31, 1, 2, 5, 1] };
        let shape: &[usize] = if sections { &[3, 3] } else { &[9] };
        let positions = Tensor::from_slice(device, &numbers, shape)?;
        let positions = if signed { Tensor::from_slice(device, &numbers.map(|n| n as i32), shape)? } else { positions };
        let found = ops::check_indices(&positions, 4);
        let seq = if sections { 3 } else { 9 };
        // A stream of two pairs each, if there are three.
        let sections = sections.then_some(RopeSections::Chunked([half - 4, 2, 2]));
        let options = Rope { style, positions: Some(&positions), sections, ..Default::default() };
        let x = ops::cast(&Tensor::full(device, 3.0f32, &[1, 2, seq, head_dim])?, dtype)?;
        let mut in_place = ops::copy(&x)?;
        let mut out = ops::cast(&Tensor::full(device, 7.0f32, x.shape())?, dtype)?;
        let done = (ops::rope_into(&mut out, &x, &table, &options), ops::rope_in_place(&mut in_place, &table, &options));
        let (got, other) = (Host::of(&out).map_err(fail), Host::of(&in_place).map_err(fail));
        Ok((|| {
            let (got, other) = (got?.f64s(), other?.f64s());
            if device.is_cpu() {
                let refused = |done: &gristmill::Result<()>| matches!(done, Err(Error::Argument { argument: "positions", .. }));
                let kept = got.iter().all(|&v| v == 7.0) && other.iter().all(|&v| v == 3.0);
                return expect(refused(&done.0) && refused(&done.1) && kept, fail(format!("{done:?}")));
            }
            done.0.and(done.1).map_err(|e| fail(e.to_string()))?;
            expect(found.is_err(), fail("check_indices found nothing".into()))?;
            for (at, (&got, &other)) in got.iter().zip(&other).enumerate() {
                let (row, element) = (at / head_dim % seq, at % head_dim);
                let pair = if style == RopeStyle::Half { element % half } else { element / 2 };
                let stream = sections.map_or(0, |s| s.stream_of(pair));
                let inside = numbers[stream * seq + row] < 4 && (sections.is_some() || stream == 0);
                let want = if element >= 2 * half || inside { 3.0 } else { 0.0 };
                expect(got == want && other == want, fail(format!("{dtype} {style:?}: element {at} is {got} and {other}, not {want}")))?;
            }
            Ok(())
        })())
    };
    for style in STYLES {
        for (head_dim, half) in [(32, 8), (15, 7)] {
            for dtype in [F32, F16] {
                for (signed, sections) in [(false, false), (true, false), (false, true)] {
                    run(style, head_dim, half, dtype, signed, sections).map_err(|e| fail(e.to_string()))??;
                }
            }
        }
    }
    Ok(())
}

/// N8: huge numbers, subnormals, zeros of both signs; what does not turn stays, infinities too, and NaN stays in its pair.
fn extremes(subject: &Subject, device: &Device, _: Level) -> Result<(), String> {
    let mut random = Random::new(7);
    for style in STYLES {
        for (dtype, most) in [(F32, f32::MAX), (F16, 65_504.0), (BF16, f32::from_bits(0x7f7f_0000))] {
            let strange = [most, -most, 1e-40, -1e-45, 0.0, -0.0, 65_504.0, 6e-8, f32::MIN_POSITIVE, 1.0];
            for (head_dim, half) in [(32, 8), (22, 6)] {
                let dims = [1, 2, 3, head_dim];
                let mut values: Vec<f32> = (0..6 * head_dim).map(|_| strange[random.below(strange.len())]).collect();
                // Where nothing turns.
                for row in values.chunks_mut(head_dim) {
                    (row[2 * half], row[2 * half + 1], row[head_dim - 1]) = (f32::INFINITY, f32::NEG_INFINITY, 5e-8);
                }
                let x = Host::new(&dims, &values).to(dtype);
                // Nothing overflows: the sum of two that are turned is at most twice as large.
                let call = Call { style, ..Call::new(dims, half) };
                let table = [call.rows, half];
                let cos = Host::new(&table, &vec![0.375f32; call.rows * half]);
                let sin = Host::new(&table, &vec![-0.5f32; call.rows * half]);
                check("rope", &subject.name, device, &call.of(&mut random, dtype, x, cos, sin), true)?;
            }
        }
        // Neither the row's other pairs nor the table's other rows.
        let run = |second: f32| -> gristmill::Result<Vec<f32>> {
            let mut values = vec![1.0f32; 4 * 16];
            values[16 + 2] = second;
            let x = Tensor::from_slice(device, &values, &[1, 1, 4, 16])?;
            let table = RopeTable::new(device, &RopeFrequencies::new(10_000.0, 16), 0..4)?;
            ops::rope(&x, &table, &Rope { style, ..Default::default() })?.to_vec::<f32>()
        };
        let [out, clean] = [run(f32::NAN), run(1.0)];
        let (out, clean) = (out.map_err(|e| e.to_string())?, clean.map_err(|e| e.to_string())?);
        let pair = if style == RopeStyle::Half { [16 + 2, 16 + 10] } else { [16 + 2, 16 + 3] };
        let stray = (0..64).find(|at| !pair.contains(at) && out[*at].to_bits() != clean[*at].to_bits());
        expect(stray.is_none(), format!("NaN left its pair on {}, for {stray:?}", subject.name))?;
    }
    Ok(())
}

/// The inverse turns back.
fn there_and_back(subject: &Subject, device: &Device, _: Level) -> Result<(), String> {
    let dims = [2, 3, 70, 64];
    let x = Random::new(9).floats(&dims);
    let values = x.f64s();
    let run = |style| -> gristmill::Result<Vec<f32>> {
        let table = RopeTable::new(device, &RopeFrequencies::new(10_000.0, 48), 0..600)?;
        let there = Rope { style, offset: 500, ..Default::default() };
        let mut y = ops::rope(&x.upload(device)?, &table, &there)?;
        ops::rope_in_place(&mut y, &table, &Rope { inverse: true, ..there })?;
        y.to_vec::<f32>()
    };
    for style in STYLES {
        let out = run(style).map_err(|e| e.to_string())?;
        let wrong = (0..out.len()).find(|&at| {
            let (row, element) = (at - at % 64, at % 64);
            let other = if style == RopeStyle::Half { (element + 24) % 48 } else { element ^ 1 };
            let magnitude = values[at].abs() + values[row + other].abs();
            // Each way has a rotation's error; that of both of a pair on the way there goes through the way back. And the squares of a cosine
            // and a sine that are rounded add up to 1 within a unit.
            let bound = if element < 48 { rotation(2.0 * magnitude) + rotation(2.0 * magnitude) + rotation(magnitude) } else { 0.0 };
            let error = (f64::from(out[at]) - values[at]).abs();
            error.is_nan() || error > bound
        });
        expect(wrong.is_none(), format!("{style:?} on {}: element {wrong:?}", subject.name))?;
    }
    Ok(())
}

/// More workgroups than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let (rows, width) = (70_001, 121);
    let run = || -> gristmill::Result<Vec<f32>> {
        let mut x = Tensor::full(device, 2.0f32, &[1, 1, rows, width])?;
        let numbers: Vec<f32> = (0..rows).map(|i| (i % 97) as f32).collect();
        let cos = Tensor::from_slice(device, &numbers, &[rows, 1])?.broadcast_to(&[rows, 60])?;
        let table = RopeTable::from_tensors(&cos, &Tensor::zeros(device, F32, &[rows, 60])?)?;
        ops::rope_in_place(&mut x, &table, &Rope::default())?;
        let y = ops::rope(&x, &table, &Rope { style: RopeStyle::Interleaved, ..Default::default() })?;
        y.to_vec::<f32>()
    };
    let out = run().map_err(|e| e.to_string())?;
    let want = |at: usize| if at % width < 120 { 2.0 * ((at / width % 97) as f32).powi(2) } else { 2.0 };
    match (0..out.len()).find(|&at| out[at] != want(at)) {
        None => Ok(()),
        Some(at) => Err(format!("{rows} rows of {width} on {}: element {at} is {}", subject.name, out[at])),
    }
}

/// By 16 bytes wherever layouts and halves are made of whole eights, in one dispatch unless 16-bit elements would share words.
#[cfg(feature = "gpu")]
fn plans() -> Result<(), String> {
    use gristmill::Layout;
    use gristmill::gpu::Caps;
    use gristmill::ops::rope::{Problem, gpu};

    let dense = |dims: &[usize]| Layout::contiguous(dims).expect("a small shape");
    let narrow = |layout: Layout, start, len| layout.narrow(3, start, len).expect("a window");
    let plain = |dims: [usize; 4], half: usize| Problem {
        in_place: false,
        dtypes: [BF16; 2],
        style: RopeStyle::Half,
        inverse: false,
        offset: 0,
        sections: None,
        out: dense(&dims),
        x: dense(&dims),
        cos: dense(&[9, half]),
        sin: dense(&[9, half]),
        positions: None,
    };
    let wide = plain([2, 3, 9, 72], 32);
    let window = narrow(dense(&[2, 3, 9, 80]), 8, 72);
    let gaps = narrow(dense(&[2, 3, 9, 75]), 0, 72);
    let turned = dense(&[2, 9, 3, 72]).transpose(1, 2).expect("two axes");
    let far = dense(&[9, 33]).narrow(1, 0, 32).expect("a window");
    for (what, problem, dispatches, vector) in [
        ("whole eights", wide.clone(), 1, true),
        ("heads behind rows", Problem { x: turned, out: turned, ..wide.clone() }, 1, true),
        ("a window of eights", Problem { x: window, ..wide.clone() }, 1, true),
        ("a window that breaks them", Problem { x: gaps, ..wide.clone() }, 1, false),
        ("a table that breaks them", Problem { sin: far, ..wide.clone() }, 1, false),
        ("halves of four", plain([1, 1, 9, 72], 4), 1, false),
        ("halves of five", plain([1, 1, 9, 72], 5), 2, false),
        ("odd rows", plain([1, 1, 9, 71], 32), 2, false),
        ("odd rows of f32", Problem { dtypes: [F32, BF16], ..plain([1, 1, 9, 71], 32) }, 1, false),
        ("from another type", Problem { dtypes: [BF16, F32], ..wide.clone() }, 2, true),
    ] {
        for style in STYLES {
            for in_place in [false, true] {
                if in_place && (problem.x != problem.out || problem.dtypes[0] != problem.dtypes[1]) {
                    continue;
                }
                let problem = Problem { style, in_place, ..problem.clone() };
                let plan = gpu::plan(&Caps::webgpu_defaults(), None, &problem).map_err(|e| e.to_string())?;
                let first = &plan.dispatches[0];
                // Through a scratch it is out of place.
                let name = if in_place && dispatches == 1 { "rope_in_place" } else { "rope" };
                let got = (plan.dispatches.len(), first.spec.to_string().ends_with(".vector"), first.kernel.name);
                expect(got == (dispatches, vector, name), format!("{what}, {style:?}: {got:?}"))?;
            }
        }
    }
    Ok(())
}

/// Calls that nobody chose.
fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    sample(level, &any::<u64>(), |seed| {
        let mut random = Random::new(seed);
        let eights = random.below(2) == 0;
        let half = if eights { 8 * (1 + random.below(5)) } else { 1 + random.below(20) };
        let rest = if eights { 8 * random.below(3) } else { random.below(9) };
        let dims = [1 + random.below(3), 1 + random.below(4), 1 + random.below(20), 2 * half + rest];
        let height = random.below(half / 3 + 1);
        let width = random.below(half / 3 + 1);
        let lengths = [half - height - width, height, width];
        let sections = match random.below(4) {
            0 => Some(RopeSections::Chunked(lengths)),
            1 => Some(RopeSections::Interleaved(lengths)),
            _ => None,
        };
        let call = Call {
            style: STYLES[random.below(2)],
            inverse: random.below(2) == 0,
            offset: random.below(8),
            signed: random.below(2) == 0,
            sections,
            ..Call::new(dims, half)
        };
        let types = [F32, F16, BF16];
        let (out, dtype) = (types[random.below(3)], types[random.below(3)]);
        check("rope", &subject.name, device, &call.case(&mut random, out, dtype), true)
    })
}
