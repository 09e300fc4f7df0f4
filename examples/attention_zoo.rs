//! Every option of attention, in three lines each: `cargo run --release --example attention_zoo`.
//!
//! `-- --svg FILE` draws which keys each query sees, and how much it takes of them, where all scores are equal: as computed, not as meant.

use std::error::Error;
use std::path::PathBuf;

use gristmill::{Device, Tensor, ops};
use ops::{Align, Attention, AttentionRope, Axes, Dropout, Rope, RopeFrequencies, RopeTable, Scores, Window};
use ops::{attention, attention_with_lse, attention_with_scores, merge_attention};
use plotters::prelude::*;

const SEQ: usize = 12;

/// A pattern: its title, queries, keys, and the weights of head 0 of each batch, one below the other.
struct Pattern {
    title: &'static str,
    keys: usize,
    weights: Vec<f32>,
}

/// The options, and what they do to attention in which all scores are equal.
fn patterns(device: &Device) -> gristmill::Result<Vec<Pattern>> {
    let x = |seq: usize| Tensor::zeros(device, gristmill::DType::F32, &[1, 1, seq, 8]);
    let (whole, last, mut all) = (x(SEQ)?, x(4)?, Vec::new());
    let mut draw = |title, q: &Tensor, options: &Attention| -> gristmill::Result<()> {
        let (_, weights) = attention_with_scores(q, &whole, &whole, options, Scores::Weights)?;
        all.push(Pattern { title, keys: SEQ, weights: weights.to_vec()? });
        Ok(())
    };

    draw("nothing masked", &whole, &Attention::default())?;

    let causal = Attention { causal: true, ..Default::default() };
    draw("causal", &whole, &causal)?;
    draw("causal, 4 queries at the end of the keys", &last, &causal)?;

    let first = Attention { causal: true, align: Align::TopLeft, ..Default::default() };
    draw("causal, Align::TopLeft", &last, &first)?;

    let past = Attention { causal: true, align: Align::Offset(3), ..Default::default() };
    draw("causal, Align::Offset(3)", &last, &past)?;

    let sliding = Attention { causal: true, window: Window { left: Some(3), right: None }, ..Default::default() };
    draw("causal, window of 3", &whole, &sliding)?;

    let local = Attention { window: Window { left: Some(2), right: Some(1) }, ..Default::default() };
    draw("window of 2 and 1", &whole, &local)?;

    let blocks: Vec<bool> = (0..SEQ * SEQ).map(|i| i / SEQ / 4 == i % SEQ / 4).collect();
    let blocks = Tensor::from_slice(device, &blocks, &[SEQ, SEQ])?;
    draw("mask: three documents", &whole, &Attention { causal: true, mask: Some(&blocks), ..Default::default() })?;

    let bias: Vec<f32> = (0..SEQ).map(|key| if key % 3 == 0 { 1.0 } else { -1.0 }).collect();
    let bias = Tensor::from_slice(device, &bias, &[SEQ])?;
    draw("bias: every third key", &whole, &Attention { bias: Some(&bias), ..Default::default() })?;

    let slopes = Tensor::from_slice(device, &[0.4f32], &[1])?;
    draw("ALiBi, slope 0.4", &whole, &Attention { causal: true, alibi: Some(&slopes), ..Default::default() })?;

    let sinks = Tensor::from_slice(device, &[2.0f32], &[1])?;
    draw("a sink of 2: rows sum to less than 1", &whole, &Attention { causal: true, sinks: Some(&sinks), ..Default::default() })?;

    let lens = Tensor::from_slice(device, &[7u32], &[1])?;
    draw("kv_lens: 7 keys", &whole, &Attention { kv_lens: Some(&lens), ..Default::default() })?;
    Ok(all)
}

/// What has no pattern of its own.
fn others(device: &Device) -> gristmill::Result<()> {
    let normal = |dims: &[usize], seed| Tensor::rand_normal(device, dims, 0.0, 1.0, seed);
    let show = |what: &str, out: &Tensor| println!("{what:<34} {:?}", out.shape());

    let (q, k, v) = (normal(&[1, 8, SEQ, 64], 1)?, normal(&[1, 2, SEQ, 64], 2)?, normal(&[1, 2, SEQ, 32], 3)?);
    let out = attention(&q, &k, &v, &Attention::default())?;
    show("grouped heads, v_dim of its own", &out);

    let cross = normal(&[1, 2, 40, 64], 4)?;
    let out = attention(&q, &cross, &cross, &Attention::default())?;
    show("cross attention", &out);

    let packed = normal(&[1, SEQ, 3, 8, 64], 5)?; // batch, seq, which of q, k and v, heads, head_dim
    let [q3, k3, v3] = [0, 1, 2].map(|i| packed.narrow(2, i..i + 1).and_then(|part| part.squeeze(2)));
    let out = attention(&q3?, &k3?, &v3?, &Attention { axes: Axes::SeqFirst, ..Default::default() })?;
    show("a packed projection, not copied", &out.reshape(&[1, SEQ, 8 * 64])?);

    let soft = Attention { scale: Some(0.2), softcap: Some(30.0), ..Default::default() };
    let out = attention(&q, &k, &v, &soft)?;
    show("scale and softcap", &out);

    let table = RopeTable::new(device, &RopeFrequencies::new(10_000.0, 64), 0..SEQ as u32)?;
    let rope = AttentionRope { table: &table, q: Some(Rope::default()), k: Some(Rope::default()) };
    let out = attention(&q, &k, &v, &Attention { causal: true, rope: Some(rope), ..Default::default() })?;
    show("rotary positions of q and k", &out);

    let dropout = Dropout { probability: 0.1, seed: 7, offset: 0 };
    let out = attention(&q, &k, &v, &Attention { dropout: Some(dropout), ..Default::default() })?;
    show("dropout, the same on every device", &out);

    let part =
        |keys: std::ops::Range<usize>| attention_with_lse(&q, &k.narrow(2, keys.clone())?, &v.narrow(2, keys)?, &Attention::default());
    let ((out1, lse1), (out2, lse2)) = (part(0..5)?, part(5..SEQ)?);
    let (out, lse) = merge_attention(&out1, &lse1, &out2, &lse2)?;
    show("two parts of the keys, joined", &out);
    show("and the logarithms of the sums", &lse);
    Ok(())
}

/// A panel a pattern: queries from above, keys from the left, dark where the weight is large.
fn svg(path: &PathBuf, patterns: &[Pattern]) -> Result<(), Box<dyn Error>> {
    const CELL: i32 = 13;
    const PANEL: (i32, i32) = (SEQ as i32 * CELL + 84, SEQ as i32 * CELL + 48);
    const COLUMNS: usize = 4;
    let size = ((PANEL.0 * COLUMNS as i32) as u32, (PANEL.1 * patterns.len().div_ceil(COLUMNS) as i32) as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (i, pattern) in patterns.iter().enumerate() {
        let (left, top) = (12 + (i % COLUMNS) as i32 * PANEL.0, 30 + (i / COLUMNS) as i32 * PANEL.1);
        root.draw(&Text::new(pattern.title, (left, top - 18), ("sans-serif", 13)))?;
        for (cell, &weight) in pattern.weights.iter().enumerate() {
            let (x, y) = (left + (cell % pattern.keys) as i32 * CELL, top + (cell / pattern.keys) as i32 * CELL);
            let place = [(x, y), (x + CELL - 1, y + CELL - 1)];
            // Square roots, so that a twelfth is seen.
            let strength = f64::from(weight.max(0.0)).sqrt();
            root.draw(&Rectangle::new(place, RGBColor(235, 235, 235).filled()))?;
            root.draw(&Rectangle::new(place, RGBColor(190, 70, 0).mix(strength).filled()))?;
        }
    }
    root.present()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    use lexopt::prelude::*;
    let (mut arguments, mut path) = (lexopt::Parser::from_env(), None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("svg") => path = Some(PathBuf::from(arguments.value()?)),
            _ => return Err(argument.unexpected().into()),
        }
    }
    let device = Device::best()?;
    let patterns = patterns(&device)?;
    for pattern in &patterns {
        println!("{}", pattern.title);
        for row in pattern.weights.chunks(pattern.keys) {
            let line: String = row.iter().map(|&weight| if weight > 0.0 { '#' } else { '.' }).collect();
            println!("  {line}  sum {:.2}", row.iter().sum::<f32>());
        }
    }
    others(&device)?;
    match path {
        Some(path) => svg(&path, &patterns),
        None => Ok(()),
    }
}
