//! What attention takes on the host beside its operands and its result, counted by the allocator: it grows with the sequence, not with its square.
//! `tests/ops/memory.rs` has the same of GPUs, by the pool's counter.

mod counting;

use gristmill::{DType, Device, Tensor, ops};

/// The most that a causal call of 1 x 8 x seq x 64 had out at a time, beside its operands and its result.
fn extra(seq: usize) -> gristmill::Result<usize> {
    let device = Device::cpu();
    let x = |seed| Tensor::rand_normal(&device, &[1, 8, seq, 64], 0.0, 1.0, seed);
    let (q, k, v) = (x(1)?, x(2)?, x(3)?);
    let mut out = Tensor::zeros(&device, DType::F32, q.shape())?;
    let causal = ops::Attention { causal: true, ..Default::default() };
    // Threads and their stacks.
    ops::attention_into(&mut out, &q, &k, &v, &causal)?;
    let (result, extra) = counting::peak(|| ops::attention_into(&mut out, &q, &k, &v, &causal));
    result.map(|()| extra)
}

#[test]
fn attention_takes_memory_by_the_row() {
    // Two threads, so that their blocks of scores are as many on every machine.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
    let [short, long] = [1024, 16_384].map(|seq| pool.install(|| extra(seq)).expect("a CPU"));
    // The scores would be 8 GiB. A number a row, and each thread's blocks.
    assert!(long <= 8 * 16_384 * 4 + (2 << 20), "{long} bytes");
    assert!(long - short.min(long) <= 8 * (16_384 - 1024) * 8, "{short} bytes of 1024, {long} of 16384");
}
