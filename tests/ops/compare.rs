//! The compare family: every op, type, width and form, exact by IEEE 754's rules.

use gristmill::{DType, Device, Tensor, ops};
use half::{bf16, f16};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::devices::{Level, Subject};
use crate::support::input::{Host, Random};
use crate::support::reference::broadcast;
use crate::support::runner::{Case, Expected, check, same_on_any_threads, sample, trial, trials};
use DType::{BF16, Bool, F16, F32, I32, U8, U32};

/// An op, its forms, and what it is of numbers.
struct Function {
    name: &'static str,
    call: fn(&Tensor, &Tensor) -> gristmill::Result<Tensor>,
    into: fn(&mut Tensor, &Tensor, &Tensor) -> gristmill::Result<()>,
    exact: fn(&f64, &f64) -> bool,
}

static FUNCTIONS: &[Function] = &[
    Function { name: "eq", call: ops::eq, into: ops::eq_into, exact: f64::eq },
    Function { name: "ne", call: ops::ne, into: ops::ne_into, exact: f64::ne },
    Function { name: "lt", call: ops::lt, into: ops::lt_into, exact: f64::lt },
    Function { name: "le", call: ops::le, into: ops::le_into, exact: f64::le },
    Function { name: "gt", call: ops::gt, into: ops::gt_into, exact: f64::gt },
    Function { name: "ge", call: ops::ge, into: ops::ge_into, exact: f64::ge },
];

/// All that go together.
const PAIRS: [[DType; 2]; 11] = [
    [F32, F32],
    [F16, F16],
    [BF16, BF16],
    [F32, F16],
    [F32, BF16],
    [F16, F32],
    [BF16, F32],
    [I32, I32],
    [U32, U32],
    [U8, U8],
    [Bool, Bool],
];

pub fn all() -> Vec<Trial> {
    let mut all = trials("compare", "types", types);
    all.extend(trials("compare", "patterns", patterns));
    all.extend(trials("compare", "shapes", shapes));
    all.extend(trials("compare", "widths", widths));
    all.extend(trials("compare", "large_grid", large_grid));
    all.extend(trials("compare", "random", random));
    all.push(trial("compare::threads", || {
        let mut random = Random::new(9);
        let (lhs, rhs) = (values(&mut random, F16, &[3, 20_000]), values(&mut random, F32, &[20_000]));
        same_on_any_threads(|_| FUNCTIONS.iter().map(|f| case(f, lhs.clone(), rhs.clone())).collect())
    }));
    all
}

fn case(function: &'static Function, lhs: Host, rhs: Host) -> Case {
    let dims = gristmill::Layout::broadcast_dims(&[&lhs.dims, &rhs.dims]).expect("shapes that broadcast");
    let (a, b) = (broadcast(&lhs.f64s(), &lhs.dims, &dims), broadcast(&rhs.f64s(), &rhs.dims, &dims));
    let values = a.iter().zip(&b).map(|(a, b)| f64::from(u8::from((function.exact)(a, b)))).collect();
    let title = format!("{} {}{:?} {}{:?}", function.name, lhs.dtype, lhs.dims, rhs.dtype, rhs.dims);
    Case::new(
        title,
        vec![lhs, rhs],
        Expected::equal(&dims, Bool, values),
        |t: &[Tensor]| (function.call)(&t[0], &t[1]),
        |out, t| (function.into)(out, &t[0], &t[1]),
    )
}

/// Numbers that meet their equals and their neighbours often.
fn values(random: &mut Random, dtype: DType, dims: &[usize]) -> Host {
    let floats =
        [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-45, -1e-45, 6e-8, -6e-8, 1.0009765625, 65_504.0, 0.5];
    let whole = [0.0, 1.0, 2.0, 255.0, 256.0, -1.0, -2.0, 2_147_483_647.0, -2_147_483_648.0, 4_294_967_295.0, 2_147_483_648.0, 3.0];
    let edges: &[f64] = if dtype.is_float() { &floats } else { &whole };
    let count = dims.iter().product();
    let numbers: Vec<f64> = (0..count).map(|_| edges[random.below(edges.len())]).collect();
    fn of<T: gristmill::Element>(dims: &[usize], numbers: &[f64]) -> Host {
        Host::new(dims, &numbers.iter().map(|&v| T::from_f64(v)).collect::<Vec<_>>())
    }
    match dtype {
        F32 => of::<f32>(dims, &numbers),
        F16 => of::<f16>(dims, &numbers),
        BF16 => of::<bf16>(dims, &numbers),
        I32 => of::<i32>(dims, &numbers),
        U32 => of::<u32>(dims, &numbers),
        U8 => of::<u8>(dims, &numbers),
        _ => of::<bool>(dims, &numbers),
    }
}

/// Of bools there is only equality.
fn offered(function: &Function, types: &[DType; 2]) -> bool {
    types[0] != Bool || ["eq", "ne"].contains(&function.name)
}

fn types(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(21);
    for types in PAIRS {
        for function in FUNCTIONS.iter().filter(|f| offered(f, &types)) {
            for (left, right) in [(&[6, 40][..], &[40][..]), (&[5, 7], &[5, 1]), (&[4, 16], &[4, 16])] {
                let (lhs, rhs) = (values(&mut random, types[0], left), values(&mut random, types[1], right));
                check(function.name, &subject.name, device, &case(function, lhs, rhs), level == Level::Full)?;
            }
        }
    }
    Ok(())
}

/// Every 16-bit pattern against another, against itself, and against f32 next to it.
fn patterns(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let scattered = (0..=u16::MAX).map(|bits| bits.wrapping_mul(40_503));
    let pairs = [
        (
            Host::new(&[65_536], &(0..=u16::MAX).map(f16::from_bits).collect::<Vec<_>>()),
            Host::new(&[65_536], &scattered.clone().map(f16::from_bits).collect::<Vec<_>>()),
        ),
        (
            Host::new(&[65_536], &(0..=u16::MAX).map(bf16::from_bits).collect::<Vec<_>>()),
            Host::new(&[65_536], &scattered.map(bf16::from_bits).collect::<Vec<_>>()),
        ),
    ];
    for (straight, scattered) in &pairs {
        // A float of 32 bits that is the one of 16, or one of its neighbours.
        let nudged =
            straight.f64s().into_iter().enumerate().map(|(i, v)| f32::from_bits((v as f32).to_bits().saturating_add(i as u32 % 3)));
        let nudged = Host::new(&straight.dims, &nudged.collect::<Vec<_>>());
        let widened = straight.to(F32);
        for function in FUNCTIONS.iter().step_by(if level == Level::Smoke { 2 } else { 1 }) {
            for (lhs, rhs) in [(straight, scattered), (straight, straight), (straight, &nudged), (&nudged, straight), (&widened, &nudged)] {
                check(function.name, &subject.name, device, &case(function, lhs.clone(), rhs.clone()), false)?;
            }
        }
    }
    Ok(())
}

fn shapes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(22);
    let pairs: &[(&[usize], &[usize])] = &[
        (&[63], &[63]),
        (&[64], &[1]),
        (&[513], &[]),
        (&[2, 3, 129], &[3, 1]),
        (&[5, 1, 8], &[1, 4, 8]),
        (&[1, 2, 1, 3, 1, 4], &[2, 1, 3, 1, 5, 1]),
        (&[], &[]),
        (&[0, 3], &[3]),
        (&[2, 0], &[2, 1]),
    ];
    for (left, right) in pairs {
        for (function, types) in FUNCTIONS.iter().zip(PAIRS.iter().cycle().skip(random.below(5))) {
            let (lhs, rhs) = (values(&mut random, types[0], left), values(&mut random, types[1], right));
            check(function.name, &subject.name, device, &case(function, lhs, rhs), level > Level::Smoke)?;
        }
    }
    Ok(())
}

/// Windows round what the vector width needs.
fn widths(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let mut random = Random::new(23);
    let function = &FUNCTIONS[3];
    for dtype in [F32, F16, U32] {
        for (start, len, row) in [(0, 16, 32), (8, 16, 32), (1, 16, 32), (4, 16, 32), (8, 15, 32), (8, 17, 32), (8, 16, 33), (8, 16, 36)] {
            let (lhs, rhs) = (values(&mut random, dtype, &[5, row]), values(&mut random, dtype, &[5, row]));
            let window = |host: &Host| -> Vec<f64> { host.f64s().chunks(row).flat_map(|line| line[start..start + len].to_vec()).collect() };
            let holds = window(&lhs).iter().zip(&window(&rhs)).map(|(a, b)| f64::from(u8::from((function.exact)(a, b)))).collect();
            let view = move |t: &Tensor| t.narrow(1, start..start + len);
            let case = Case::new(
                format!("{dtype} columns {start}..{} of {row}", start + len),
                vec![lhs, rhs],
                Expected::equal(&[5, len], Bool, holds),
                move |t: &[Tensor]| (function.call)(&view(&t[0])?, &view(&t[1])?),
                move |out, t| (function.into)(out, &view(&t[0])?, &view(&t[1])?),
            );
            check(function.name, &subject.name, device, &case, true)?;
        }
    }
    Ok(())
}

/// More workgroups than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let row: Vec<u8> = (0..4113).map(|i| (i % 251) as u8).collect();
    let run = || {
        let x = Tensor::from_slice(device, &row, &[4113])?.broadcast_to(&[4113, 4113])?;
        ops::lt(&x, &Tensor::full(device, 100u8, &[1])?)?.to_vec::<bool>()
    };
    let out = run().map_err(|error| error.to_string())?;
    match out.iter().zip(row.iter().cycle()).position(|(got, x)| *got != (*x < 100)) {
        None => Ok(()),
        Some(at) => Err(format!("lt of 4113 x 4113 on {}: element {at} is {}", subject.name, out[at])),
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
        let mut some = |dims: &[usize]| -> Vec<usize> { dims.iter().map(|&d| if random.below(3) == 0 { 1 } else { d }).collect() };
        let (left, right) = (some(&dims), some(&dims));
        let types = &PAIRS[random.below(10)];
        let (lhs, rhs) = (values(&mut random, types[0], &left), values(&mut random, types[1], &right));
        let function = &FUNCTIONS[random.below(6)];
        check(function.name, &subject.name, device, &case(function, lhs, rhs), true)
    })
}
