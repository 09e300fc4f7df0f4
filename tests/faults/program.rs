//! Random programs of ops on whole numbers, each op also on the CPU: what the GPU gives must be equal, or an error.

use std::time::{Duration, Instant};

use gristmill::gpu::wgpu;
use gristmill::{DType, Device, Error, Result, Tensor, ops};

const SIDE: usize = 24;

/// What a call came to.
pub struct Outcome {
    pub what: &'static str,
    pub error: Option<Error>,
    /// Whether what it gave was right.
    pub right: bool,
    /// Whether it may do well on a lost device.
    pub kept: bool,
    pub took: Duration,
}

/// A tensor and its twin on the CPU.
#[derive(Clone)]
struct Pair(Tensor, Tensor, Kept);

/// Whether there is a copy on the host, which survives a loss.
type Kept = bool;

pub struct Program {
    state: u64,
    live: Vec<Pair>,
    /// Whether it may record into encoders of its own, whose submissions gristmill does not see.
    records: bool,
    pub outcomes: Vec<Outcome>,
}

impl Program {
    pub fn new(seed: u64, records: bool) -> Self {
        Program { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, live: Vec::new(), records, outcomes: Vec::new() }
    }

    /// Xorshift: the programs need variety, not randomness.
    fn below(&mut self, n: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 33) as usize % n
    }

    fn note<T>(&mut self, what: &'static str, clock: Instant, result: Result<T>) -> Option<T> {
        let (value, error) = match result {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        self.outcomes.push(Outcome { what, error, right: true, kept: false, took: clock.elapsed() });
        value
    }

    /// A call that gives a tensor, on the device and on the CPU.
    fn make(&mut self, what: &'static str, on: impl Fn(bool) -> Result<Tensor>) {
        let clock = Instant::now();
        let result = on(false);
        if let Some(tensor) = self.note(what, clock, result) {
            let twin = on(true).expect("the CPU does not fail");
            self.live.push(Pair(tensor, twin, false));
        }
    }

    fn some(&mut self) -> Pair {
        let at = self.below(self.live.len());
        self.live[at].clone()
    }

    fn read(&mut self, what: &'static str, read: impl FnOnce(&Tensor) -> Result<Vec<f32>>) {
        let Pair(tensor, twin, kept) = self.some();
        let clock = Instant::now();
        let result = read(&tensor);
        if let Some(values) = self.note(what, clock, result) {
            let right = values == twin.to_vec::<f32>().expect("the CPU does not fail");
            let outcome = self.outcomes.last_mut().expect("it was noted");
            (outcome.right, outcome.kept) = (right, kept);
        }
    }

    /// A few calls.
    pub fn run(&mut self, device: &Device, calls: usize) {
        let cpu = Device::cpu();
        for _ in 0..calls {
            if self.live.len() > 12 {
                let at = self.below(self.live.len());
                self.live.swap_remove(at);
            }
            let seed = self.below(1000) as u64;
            let choice = if self.live.is_empty() { self.below(3) } else { self.below(21) };
            let place = |host: bool| if host { &cpu } else { device };
            match choice {
                0 => self.make("from_slice", |host| Tensor::from_slice(place(host), &digits(seed, SIDE * SIDE), &[SIDE, SIDE])),
                1 => self.make("zeros", |host| Tensor::zeros(place(host), DType::F32, &[SIDE, SIDE])),
                // Past the blocks that wgpu's allocator shares out; nobody reads it.
                2 | 20 if seed < 250 => {
                    let clock = Instant::now();
                    let result = Tensor::zeros(device, DType::U8, &[(270 << 20) + (self.outcomes.len() << 21)]);
                    self.note("zeros, huge", clock, result);
                }
                // Past what goes with the params.
                2 | 20 => self.make("from_slice, large", |host| {
                    let large = Tensor::from_slice(place(host), &digits(seed, 40_000), &[200, 200])?;
                    large.narrow(0, 7..7 + SIDE)?.narrow(1, 5..5 + SIDE)
                }),
                3 | 4 => {
                    let (a, b) = (self.some(), self.some());
                    self.make("matmul", |host| {
                        let product = if host {
                            ops::matmul(&a.1, &b.1, &Default::default())?
                        } else {
                            ops::matmul(&a.0, &b.0, &Default::default())?
                        };
                        ops::clamp(&product, -2.0, 2.0)
                    });
                }
                5 => {
                    let (a, b) = (self.some(), self.some());
                    self.make("min", |host| if host { ops::min(&a.1, &b.1) } else { ops::min(&a.0, &b.0) });
                }
                6 => {
                    let a = self.some();
                    self.make("cast", |host| ops::cast(&ops::cast(if host { &a.1 } else { &a.0 }, DType::BF16)?, DType::F32));
                }
                7 => {
                    let a = self.some();
                    self.make("sum", |host| {
                        let sums = ops::sum(if host { &a.1 } else { &a.0 }, &[1], true)?;
                        ops::clamp(&sums, -2.0, 2.0)?.broadcast_to(&[SIDE, SIDE])
                    });
                }
                8 => {
                    let a = self.some();
                    self.make("gather", |host| {
                        let x = if host { &a.1 } else { &a.0 };
                        let ids: Vec<u32> = digits(seed, SIDE).iter().map(|d| (d + 2.0) as u32).collect();
                        ops::gather(x, &Tensor::from_slice(place(host), &ids, &[SIDE])?, 0)
                    });
                }
                9 => {
                    let Pair(tensor, twin, _) = self.some();
                    // A tensor of its own: an op in place that failed leaves anything.
                    let clock = Instant::now();
                    let result = ops::copy(&tensor).and_then(|mut own| ops::neg_in_place(&mut own).map(|()| own));
                    if let Some(own) = self.note("neg_in_place", clock, result) {
                        let mut own_twin = ops::copy(&twin).expect("the CPU does not fail");
                        ops::neg_in_place(&mut own_twin).expect("the CPU does not fail");
                        self.live.push(Pair(own, own_twin, false));
                    }
                }
                10 | 11 => self.read("to_vec", |t| t.to_vec()),
                12 => self.read("to_vec_async", |t| pollster::block_on(t.to_vec_async())),
                13 => self.read("to_device", |t| t.to_device(&cpu)?.to_vec()),
                14 => {
                    let clock = Instant::now();
                    let result = device.sync();
                    self.note("sync", clock, result);
                }
                15 => {
                    let clock = Instant::now();
                    let result = device.trim();
                    self.note("trim", clock, result);
                }
                16 if self.records => {
                    let a = self.some();
                    self.make("record", |host| if host { ops::add(&a.1, &a.1) } else { recorded(device, &a.0) });
                    self.make_small();
                }
                17 => {
                    // A tensor of its own: one that shares its buffer with an encoder is refused.
                    let Pair(tensor, twin, _) = self.some();
                    let clock = Instant::now();
                    let result = ops::copy(&tensor).and_then(|own| own.keep_host_copy().map(|()| own));
                    if let Some(own) = self.note("keep_host_copy", clock, result) {
                        self.live.push(Pair(own, twin, true));
                    }
                }
                18 => {
                    let clock = Instant::now();
                    let result = pollster::block_on(device.sync_async());
                    self.note("sync_async", clock, result);
                }
                _ => {
                    let at = self.below(self.live.len());
                    self.live.swap_remove(at);
                }
            }
        }
    }

    /// Keeps the last tensor's values in the range that stays exact.
    fn make_small(&mut self) {
        if let Some(Pair(tensor, twin, _)) = self.live.pop() {
            self.make("clamp", |host| ops::clamp(if host { &twin } else { &tensor }, -2.0, 2.0));
        }
    }

    /// The program's tensors, all of them.
    pub fn into_tensors(self) -> Vec<Tensor> {
        self.live.into_iter().map(|pair| pair.0).collect()
    }
}

/// Twice a tensor, through an encoder of the caller's.
fn recorded(device: &Device, x: &Tensor) -> Result<Tensor> {
    let (raw, queue) = device.wgpu().expect("a GPU");
    let mut encoder = raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let twice = device.record(&mut encoder, || ops::add(x, x))?;
    // On a lost device wgpu itself may panic here, and that is the caller's.
    if !device.is_lost() {
        queue.submit([encoder.finish()]);
    }
    Ok(twice)
}

/// Whole numbers from -2 to 2.
fn digits(seed: u64, len: usize) -> Vec<f32> {
    (0..len as u64).map(|i| ((i * 7919 + seed * 104_729) % 31 % 5) as f32 - 2.0).collect()
}
