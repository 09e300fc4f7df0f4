//! The oracle: runs an op's cases on every device, in every memory form, and counts what it compared.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gristmill::{DType, Device, Tensor};
use libtest_mimic::{Completion, Failed, Trial};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::compare::compare;
use super::devices::{Level, Subject, calls, fail_fast, is_required, only, subjects};
use super::input::{Form, Host, rounded, smallest_normal, unit_in_the_last_place};

/// What a case must give.
pub struct Expected {
    pub dims: Vec<usize>,
    pub dtype: DType,
    /// NaN where the value is unspecified.
    pub values: Vec<f64>,
    /// Absolute, an element each; 0 asks for equality.
    pub bounds: Vec<f64>,
}

impl Expected {
    /// Values that must be met exactly (contract N1). Refuses a case that is mostly zeros: it would test nothing.
    pub fn exact(dims: &[usize], values: Vec<f64>) -> Self {
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        assert!(zeros * 10 <= values.len() * 3, "over 30 % of the expected values are zeros: choose other inputs");
        Self::equal(dims, DType::F32, values)
    }

    /// The same without asking what they are.
    pub fn equal(dims: &[usize], dtype: DType, values: Vec<f64>) -> Self {
        Expected { dims: dims.to_vec(), dtype, bounds: vec![0.0; values.len()], values }
    }

    /// Floats of any type within absolute bounds of their f32 computation, then stored (contract N11): within the bound and one unit in the
    /// last place of the reference rounded to the type. Where bound or range leave it open whether the result overflows, it may be either.
    pub fn stored(dims: &[usize], dtype: DType, mut values: Vec<f64>, mut bounds: Vec<f64>) -> Self {
        for (value, bound) in values.iter_mut().zip(&mut bounds) {
            let (low, high) = (rounded(dtype, *value - *bound), rounded(dtype, *value + *bound));
            let open = value.is_finite() && (low.is_infinite() || high.is_infinite()) && low != high;
            *bound += smallest_normal(dtype) + if dtype == DType::F32 { 0.0 } else { unit_in_the_last_place(dtype, *value) };
            *value = if open { f64::NAN } else { rounded(dtype, *value) };
        }
        Expected { dims: dims.to_vec(), dtype, values, bounds }
    }
}

type Call = Box<dyn Fn(&[Tensor]) -> gristmill::Result<Tensor> + Send + Sync>;
type CallInto = Box<dyn Fn(&mut Tensor, &[Tensor]) -> gristmill::Result<()> + Send + Sync>;
type ExpectedOn = Box<dyn Fn(&Device) -> Result<Expected, String> + Send + Sync>;

/// One call of an op: inputs, both ways to call it, and what it must give. All that an op's tests write.
pub struct Case {
    pub name: String,
    pub inputs: Vec<Host>,
    pub call: Call,
    pub call_into: CallInto,
    /// The form that writes into its first operand, of the others; called where that has the result's type and shape.
    pub call_in_place: Option<CallInto>,
    /// A function of the device, for contracts that compare with another computation there (N3).
    pub expected: ExpectedOn,
}

impl Case {
    pub fn new(
        name: impl Into<String>,
        inputs: Vec<Host>,
        expected: Expected,
        call: impl Fn(&[Tensor]) -> gristmill::Result<Tensor> + Send + Sync + 'static,
        call_into: impl Fn(&mut Tensor, &[Tensor]) -> gristmill::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let Expected { dims, dtype, values, bounds } = expected;
        Case {
            name: name.into(),
            inputs,
            call: Box::new(call),
            call_into: Box::new(call_into),
            call_in_place: None,
            expected: Box::new(move |_| Ok(Expected { dims: dims.clone(), dtype, values: values.clone(), bounds: bounds.clone() })),
        }
    }
}

impl Case {
    /// With the form that writes into its first operand.
    pub fn in_place(mut self, call: impl Fn(&mut Tensor, &[Tensor]) -> gristmill::Result<()> + Send + Sync + 'static) -> Self {
        self.call_in_place = Some(Box::new(call));
        self
    }
}

/// Compared elements, by op, dtype and device.
static COUNTS: Mutex<BTreeMap<(String, String, String), usize>> = Mutex::new(BTreeMap::new());

/// How long each trial took.
static SLOW: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

fn count(op: &str, dtype: DType, device: &str, compared: usize) {
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    *counts.entry((op.into(), dtype.to_string(), device.into())).or_default() += compared;
}

/// Prints the counts; fails if an op with a floor stayed below it on a device that was tested.
pub fn report(floors: &[(&str, usize, usize)]) -> Result<(), String> {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut sums: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    println!("\n{:<14} {:<6} {:>12}  device", "op", "dtype", "comparisons");
    for ((op, dtype, device), compared) in counts.iter() {
        println!("{op:<14} {dtype:<6} {compared:>12}  {device}");
        *sums.entry((op, device)).or_default() += compared;
    }
    let mut slow = SLOW.lock().unwrap_or_else(PoisonError::into_inner);
    slow.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    println!();
    for (time, name) in slow.iter().take(5) {
        println!("{:>8.1} s  {name}", time.as_secs_f64());
    }
    let subjects = || subjects().iter().filter(|subject| subject.device.is_ok());
    let low: Vec<String> = floors
        .iter()
        .flat_map(|floor| subjects().map(move |subject| (floor, subject)))
        .filter(|((op, ..), subject)| !(LONG_OPS.contains(op) && is_spared(subject)))
        .filter_map(|(&(op, smoke, full), subject)| {
            // None at all is fewer too.
            let sum = sums.get(&(op, subject.name.as_str())).copied().unwrap_or(0);
            let floor = if subject.level == Level::Smoke { smoke } else { full };
            (sum < floor).then(|| format!("{op} on {}: {sum} comparisons, fewer than {floor}", subject.name))
        })
        .collect();
    if low.is_empty() { Ok(()) } else { Err(low.join("\n")) }
}

/// Ok if it holds, else what does not.
pub fn expect(holds: bool, what: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// Runs one case on one device, its inputs in each form: compares the result, then calls again into a guarded or strided output between
/// sentinels, which must stay (N9) while the bits repeat (N4).
pub fn check(op: &str, label: &str, device: &Device, case: &Case, all_forms: bool) -> Result<(), String> {
    if calls().is_some_and(|calls| !calls.split(',').any(|name| name == op)) {
        return Ok(());
    }
    let expected = (case.expected)(device)?;
    let forms: &[Form] = if all_forms { &Form::ALL } else { &[Form::Dense, Form::Eights] };
    // At last each input in a form of its own, so that no stride can pass for another operand's.
    let mixed = all_forms && case.inputs.len() > 1;
    for turn in 0..forms.len() + usize::from(mixed) {
        let form_of = |input: usize| forms.get(turn).copied().unwrap_or(Form::ALL[(input + 2) % Form::ALL.len()]);
        let form = forms.get(turn).map_or("Mixed".into(), |form| format!("{form:?}"));
        if fail_fast() {
            println!("{op} {} {form}", case.name);
        }
        let fail = |text: String| format!("{op} {} on {label}, inputs {form}: {text}", case.name);
        let placed = case.inputs.iter().enumerate().map(|(i, host)| host.place(device, form_of(i)));
        let inputs = placed.collect::<Result<Vec<_>, _>>().map_err(fail)?;
        let out = (case.call)(&inputs).map_err(|e| fail(e.to_string()))?;
        let got = Host::of(&out).map_err(fail)?;
        if got.dims != expected.dims || got.dtype != expected.dtype {
            return Err(fail(format!("{}{:?}, not {}{:?}", got.dtype, got.dims, expected.dtype, expected.dims)));
        }
        let seen = compare(&got.f64s(), &expected.values, &expected.bounds, &expected.dims).map_err(fail)?;
        count(op, expected.dtype, label, seen.compared);

        // N9: the same into a place between sentinels, none of which may change. Another form each turn, but whole eights into whole eights:
        // 16-byte writes need both.
        let place = match forms.get(turn) {
            Some(Form::Guarded) => Form::Gaps,
            Some(Form::Gaps) => Form::Reversed,
            Some(Form::Reversed) => Form::Dense,
            Some(Form::Eights) => Form::Eights,
            Some(Form::Dense) | None => Form::Guarded,
        };
        let fail = |text: String| format!("{op} {} on {label}, inputs {form}, out {place:?}: {text}", case.name);
        let (storage, mut view) = Host::stage(device, expected.dtype, &expected.dims, place).map_err(fail)?;
        let mut before = Host::of(&storage).map_err(fail)?;
        (case.call_into)(&mut view, &inputs).map_err(|e| fail(e.to_string()))?;
        let written = Host::of(&view).map_err(fail)?;
        if let Some(at) = differs(&written, &got) {
            return Err(fail(format!("element {at} is not what the call gave that returns it (N4)")));
        }
        let after = Host::of(&storage).map_err(fail)?;
        overlay(&mut before, &written, view.layout());
        if let Some(at) = differs(&after, &before) {
            return Err(fail(format!("storage element {at}, outside the output, was written (N9)")));
        }
        check_in_place(op, label, device, case, &expected, &inputs, place)?;
    }
    Ok(())
}

/// The form that writes into its first operand, which lies in `place` among poison that must stay.
fn check_in_place(
    op: &str,
    label: &str,
    device: &Device,
    case: &Case,
    expected: &Expected,
    inputs: &[Tensor],
    place: Form,
) -> Result<(), String> {
    let (Some(call), Some(first)) = (&case.call_in_place, case.inputs.first()) else { return Ok(()) };
    if first.dtype != expected.dtype || first.dims != expected.dims {
        return Ok(());
    }
    let fail = |text: String| format!("{op} in place {} on {label}, {place:?}: {text}", case.name);
    let (storage, mut view) = first.place_within(device, place).map_err(fail)?;
    let mut before = Host::of(&storage).map_err(fail)?;
    call(&mut view, &inputs[1..]).map_err(|e| fail(e.to_string()))?;
    let written = Host::of(&view).map_err(fail)?;
    let seen = compare(&written.f64s(), &expected.values, &expected.bounds, &expected.dims).map_err(fail)?;
    count(op, expected.dtype, label, seen.compared);
    overlay(&mut before, &written, view.layout());
    match differs(&Host::of(&storage).map_err(fail)?, &before) {
        Some(at) => Err(fail(format!("storage element {at}, outside the output, was written (N9)"))),
        None => Ok(()),
    }
}

/// The first element that differs in any bit.
pub fn differs(a: &Host, b: &Host) -> Option<usize> {
    let size = a.dtype.block_bytes();
    a.bytes.chunks(size).zip(b.bytes.chunks(size)).position(|(a, b)| a != b)
}

/// Puts the view's elements where they lie in storage.
fn overlay(storage: &mut Host, view: &Host, layout: &gristmill::Layout) {
    let size = view.dtype.block_bytes();
    for (element, index) in view.bytes.chunks_exact(size).zip(layout.indices()) {
        storage.bytes[index * size..][..size].copy_from_slice(element);
    }
}

/// Trials of many shaders. Where only smoke is asked, drivers compile each for seconds, and with and without checks it is two texts: these take
/// the one without.
const LONG: &[&str] = &[
    "attention::blocks",
    "attention::edges",
    "attention::layouts",
    "attention::lse",
    "attention::pairs",
    "attention::random",
    "attention::twice_plain",
    "attention::types",
    "matmul::batched_epilogues",
    "matmul::epilogues",
    "matmul::tiles",
    "matmul::types",
    "reduce::axes",
    "reduce::types",
    "reduce::whole",
    "rope::exact",
    "softmax::options",
    "softmax::rows",
    "softmax::types",
];

/// The ops that they count for.
const LONG_OPS: &[&str] = &["attention", "matmul", "rope", "softmax", "log_softmax", "sum", "mean", "amax", "amin", "argmax", "argmin"];

/// Whether a subject has no trials that are `LONG`: its twin without checks has them.
fn is_spared(subject: &Subject) -> bool {
    let twin = format!("{}@webgpu-defaults", subject.name);
    subject.level == Level::Smoke && only().is_none() && subjects().iter().any(|other| other.name == twin && other.device.is_ok())
}

/// A trial of `suite` for every device: the cases are made by `cases(device, level)`, so that it can pin kernels. Trials of one device take
/// turns (an OpenGL context serves one thread). An absent device is a skip that says why, or a failure where it was promised.
pub fn trials(op: &'static str, suite: &'static str, run: fn(&Subject, &Device, Level) -> Result<(), String>) -> Vec<Trial> {
    subjects()
        .iter()
        .map(|subject| {
            Trial::ignorable_test(format!("{op}::{suite}::{}", subject.name), move || match &subject.device {
                Ok(device) => {
                    if is_spared(subject) && LONG.contains(&format!("{op}::{suite}").as_str()) {
                        return Ok(Completion::ignored_with("its twin without checks has it, where drivers compile for seconds"));
                    }
                    let _turn = subject.turn.lock().unwrap_or_else(PoisonError::into_inner);
                    let clock = std::time::Instant::now();
                    // What it left to the driver is its own time, and its own failure.
                    let outcome = run(subject, device, subject.level).and_then(|()| device.sync().map_err(|error| error.to_string()));
                    SLOW.lock().unwrap_or_else(PoisonError::into_inner).push((clock.elapsed(), format!("{op}::{suite}::{}", subject.name)));
                    outcome.map_err(|text| if fail_fast() { fail(&text) } else { Failed::from(text) })?;
                    Ok(Completion::Completed)
                }
                Err(why) if is_required(subject) => Err(Failed::from(format!("required by GRISTMILL_REQUIRE_GPU: {why}"))),
                Err(why) => Ok(Completion::ignored_with(why)),
            })
        })
        .collect()
}

/// The end of a run that stops at the first failure.
fn fail(text: &str) -> ! {
    println!("\nfailed: {text}");
    std::process::exit(101);
}

/// The same for what panics.
pub fn fail_at_panics() {
    std::panic::set_hook(Box::new(|panic| fail(&panic.to_string())));
}

/// A trial that needs no device.
pub fn trial(name: &str, run: fn() -> Result<(), String>) -> Trial {
    Trial::test(name, move || run().map_err(Failed::from))
}

/// Every handle that the op's kernels are tested through: on a GPU one for each tune of the kernel of that name, pinned; on the CPU the
/// device itself.
pub fn pinned(device: &Device, name: &str, level: Level) -> Vec<(String, Device)> {
    #[cfg(feature = "gpu")]
    if !device.is_cpu() {
        let mut kernels = gristmill::ops::kernels().iter();
        let kernel = kernels.find(|k| k.name == name).expect("a kernel of that name");
        let tunes = kernel.tunes.iter().take(if level == Level::Smoke { 1 } else { usize::MAX });
        return tunes.map(|tune| (format!("{name}.{}", tune.name), device.pinned((*kernel, tune)))).collect();
    }
    let _ = (name, level);
    vec![("cpu".into(), device.clone())]
}

/// N6: the CPU gives the same bits on 1, 2, 3 and 8 threads.
pub fn same_on_any_threads(cases: impl Fn(&Device) -> Vec<Case> + Sync) -> Result<(), String> {
    let device = Device::cpu();
    for case in cases(&device) {
        let inputs = case.inputs.iter().map(|host| host.place(&device, Form::Dense)).collect::<Result<Vec<_>, _>>()?;
        let mut first: Option<Host> = None;
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| e.to_string())?;
            let got = Host::of(&pool.install(|| (case.call)(&inputs)).map_err(|e| e.to_string())?)?;
            if let Some(at) = first.as_ref().and_then(|first| differs(&got, first)) {
                return Err(format!("{}: element {at} on {threads} threads is not what it is on 1 (N6)", case.name));
            }
            first.get_or_insert(got);
        }
    }
    Ok(())
}

/// Runs a property on random inputs of a strategy: 24 quick, 200 full; the seed is the environment's `GRISTMILL_TEST_SEED` (0 by default),
/// so that a failure can be had again. The failing input is shrunk and shown.
pub fn sample<S: Strategy>(level: Level, strategy: &S, property: impl Fn(S::Value) -> Result<(), String>) -> Result<(), String> {
    let seed: u64 = std::env::var("GRISTMILL_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let cases = match level {
        Level::Smoke => 2,
        Level::Quick => 24,
        Level::Full => 200,
    };
    let max_shrink_iters = if fail_fast() { 0 } else { 64 };
    let config = Config { cases, failure_persistence: None, max_shrink_iters, ..Config::default() };
    let bytes: Vec<u8> = (0..4u64).flat_map(|i| (seed ^ (i << 56)).to_le_bytes()).collect();
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    runner
        .run(strategy, |value| property(value).map_err(TestCaseError::fail))
        .map_err(|error| format!("{error}\n(GRISTMILL_TEST_SEED={seed})"))
}
