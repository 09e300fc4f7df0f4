//! What RoPE turns by: frequencies, and tables of their cosines and sines. In f64 on the host, whatever the device.

use rayon::prelude::*;

use super::OP;
use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::{dense, reserve};
use crate::{DType, Device, Tensor};

/// A model's frequencies, as its config has them: `theta^(-2i / rotary_dim)` (Su et al. 2021, "RoFormer", arXiv 2104.09864), scaled.
///
/// ```
/// use gristmill::ops::{RopeFrequencies, RopeScaling};
///
/// // Llama 3.1's.
/// let scaling =
///     RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position: 8192 };
/// let frequencies = RopeFrequencies { theta: 500_000.0, rotary_dim: 128, scaling };
/// let inv_freq = frequencies.inv_freq()?;
/// assert_eq!((inv_freq.len(), inv_freq[0]), (64, 1.0));
/// assert_eq!(inv_freq[63], 500_000f64.powf(-126.0 / 128.0) / 8.0);
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeFrequencies {
    /// The base: `rope_theta`.
    pub theta: f64,
    /// How many elements of a head turn, in pairs: the head's size, or less of it (`partial_rotary_factor`). Even.
    pub rotary_dim: usize,
    /// For positions past those that the model was first trained on: `rope_scaling`.
    pub scaling: RopeScaling,
}

/// How frequencies are scaled for longer contexts; fields are named as in Hugging Face's configs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// All by `1 / factor`: position interpolation (Chen et al. 2023, arXiv 2306.15595).
    Linear {
        /// How much longer the context is.
        factor: f64,
    },
    /// Llama 3.1's ("The Llama 3 Herd of Models", arXiv 2407.21783, and Meta's published code): by `1 / factor` where the original context
    /// holds fewer turns than `low_freq_factor`, not at all from `high_freq_factor` on, and linearly between.
    Llama3 {
        /// How much longer the context is.
        factor: f64,
        /// Turns.
        low_freq_factor: f64,
        /// Turns, more of them.
        high_freq_factor: f64,
        /// `original_max_position_embeddings`: positions of the original context.
        original_max_position: usize,
    },
    /// By parts, and the table by a factor.
    Yarn(RopeYarn),
}

/// YaRN (Peng et al. 2023, arXiv 2309.00071): frequencies that turn more than `beta_fast` times in the original context stay, those that
/// turn less than `beta_slow` times are divided by `factor`, and between them the frequencies' numbers blend the two linearly.
///
/// ```
/// use gristmill::ops::RopeYarn;
///
/// let yarn = RopeYarn { beta_fast: 64.0, ..RopeYarn::new(4.0, 32768) };
/// assert_eq!(yarn.attention_factor(), 1.0 + 0.1 * 4f64.ln());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeYarn {
    /// How much longer the context is.
    pub factor: f64,
    /// `original_max_position_embeddings`: positions of the original context.
    pub original_max_position: usize,
    /// Turns; 32 by default.
    pub beta_fast: f64,
    /// Turns; 1 by default.
    pub beta_slow: f64,
    /// What the table is multiplied by; by default what [`attention_factor`](RopeYarn::attention_factor) says.
    pub attention_factor: Option<f64>,
    /// DeepSeek's: with both, the default is `(1 + 0.1 · mscale · ln factor) / (1 + 0.1 · mscale_all_dim · ln factor)`.
    pub mscale: Option<f64>,
    /// DeepSeek's.
    pub mscale_all_dim: Option<f64>,
    /// Whether the ends of the blend are rounded outward to whole frequencies, as the paper's code does; `true` by default.
    pub truncate: bool,
}

impl RopeYarn {
    /// The paper's defaults.
    pub const fn new(factor: f64, original_max_position: usize) -> Self {
        RopeYarn {
            factor,
            original_max_position,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: None,
            mscale: None,
            mscale_all_dim: None,
            truncate: true,
        }
    }

    /// What the table is multiplied by, so that logits are by its square: `1 + 0.1 · ln factor` by default (the paper's equation 22), and 1
    /// up to a factor of 1.
    pub fn attention_factor(&self) -> f64 {
        let of = |mscale: f64| if self.factor <= 1.0 { 1.0 } else { 1.0 + 0.1 * mscale * self.factor.ln() };
        // As in configs, 0 is as good as nothing.
        let given = |mscale: Option<f64>| mscale.filter(|&m| m != 0.0);
        match (self.attention_factor, given(self.mscale), given(self.mscale_all_dim)) {
            (Some(factor), ..) => factor,
            (None, Some(mscale), Some(all)) => of(mscale) / of(all),
            _ => of(1.0),
        }
    }

    /// The share of the frequency itself that is left at each of them: 1 where it stays, 0 where it is divided.
    fn kept(&self, theta: f64, rotary_dim: usize) -> impl Fn(usize) -> f64 + use<> {
        let dim = rotary_dim as f64;
        // The (broken) number of the frequency that turns so often in the original context.
        let number = |turns: f64| dim * (self.original_max_position as f64 / (turns * std::f64::consts::TAU)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (number(self.beta_fast), number(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(dim - 1.0));
        // A step where there is no room for a ramp.
        let width = if high <= low { 0.001 } else { high - low };
        move |i| 1.0 - ((i as f64 - low) / width).clamp(0.0, 1.0)
    }
}

/// A number of a config that is not positive and finite.
fn positive(argument: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(refused(argument, format!("is {value}"), "give a positive number, as the model's config has it"))
}

fn refused(argument: &'static str, problem: String, help: &'static str) -> Error {
    Error::Argument { op: OP, argument, problem, help }
}

fn context(positions: usize) -> Result<()> {
    if positions > 0 {
        return Ok(());
    }
    Err(refused("original_max_position", "is 0".into(), "give the positions of the original context, as the model's config has them"))
}

impl RopeFrequencies {
    /// Without scaling.
    pub const fn new(theta: f64, rotary_dim: usize) -> Self {
        RopeFrequencies { theta, rotary_dim, scaling: RopeScaling::None }
    }

    /// The frequencies: by how much each pair turns from position to position.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is out of its range.
    pub fn inv_freq(&self) -> Result<Vec<f64>> {
        positive("theta", self.theta)?;
        if self.rotary_dim == 0 || !self.rotary_dim.is_multiple_of(2) {
            return Err(refused("rotary_dim", format!("is {}", self.rotary_dim), "give an even number: elements turn in pairs"));
        }
        let dim = self.rotary_dim as f64;
        let mut all = Vec::new();
        reserve(&mut all, OP, self.rotary_dim / 2)?;
        all.extend((0..self.rotary_dim / 2).map(|i| self.theta.powf(-2.0 * i as f64 / dim)));
        match self.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => {
                positive("factor", factor)?;
                all.iter_mut().for_each(|frequency| *frequency /= factor);
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                context(original_max_position)?;
                if !(high_freq_factor > low_freq_factor && high_freq_factor.is_finite()) {
                    let problem = format!("is {high_freq_factor}, with a low_freq_factor of {low_freq_factor}");
                    return Err(refused("high_freq_factor", problem, "give a higher one than low_freq_factor"));
                }
                for frequency in &mut all {
                    let turns = original_max_position as f64 * *frequency / std::f64::consts::TAU;
                    let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                    *frequency = blend(*frequency, factor, kept);
                }
            }
            RopeScaling::Yarn(yarn) => {
                positive("factor", yarn.factor)?;
                positive("beta_slow", yarn.beta_slow)?;
                context(yarn.original_max_position)?;
                if !(yarn.beta_fast >= yarn.beta_slow && yarn.beta_fast.is_finite()) {
                    let problem = format!("is {}, with a beta_slow of {}", yarn.beta_fast, yarn.beta_slow);
                    return Err(refused("beta_fast", problem, "give one that is not below beta_slow"));
                }
                if self.theta <= 1.0 {
                    return Err(refused("theta", format!("is {}, with YaRN", self.theta), "give a base above 1"));
                }
                let kept = yarn.kept(self.theta, self.rotary_dim);
                all.iter_mut().enumerate().for_each(|(i, frequency)| *frequency = blend(*frequency, yarn.factor, kept(i)));
            }
        }
        Ok(all)
    }

    /// What the table is multiplied by: 1 but with YaRN.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn(yarn) => yarn.attention_factor(),
            _ => 1.0,
        }
    }
}

/// A frequency of which a share is kept, and the rest divided.
fn blend(frequency: f64, factor: f64, kept: f64) -> f64 {
    // Both ends exactly.
    match kept {
        0.0 => frequency / factor,
        1.0 => frequency,
        _ => kept * frequency + (1.0 - kept) * (frequency / factor),
    }
}

/// The cosines and sines that [`rope`](super::rope()) turns by: two f32 tensors [positions, rotary_dim / 2] on a device.
///
/// A table is made once and serves queries and keys, all layers and all steps. The angles are computed in f64 on the host, and each number is
/// rounded once: an angle in f32 is off by 0.02 at position 10^6.
///
/// ```
/// use gristmill::{Device, ops::{RopeFrequencies, RopeTable}};
///
/// let device = Device::cpu();
/// let frequencies = RopeFrequencies::new(10_000.0, 64);
/// let table = RopeTable::new(&device, &frequencies, 0..4096)?;
/// assert_eq!((table.cos().shape(), table.positions(), table.rotary_dim()), (&[4096, 32][..], 4096, 64));
///
/// // A row for each position that is needed: for a few that are far away.
/// let far = RopeTable::new(&device, &frequencies, [1_000_003, 1_000_004].into_iter())?;
/// assert_eq!(far.cos().to_vec::<f32>()?[0], 1_000_003f64.cos() as f32);
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RopeTable {
    cos: Tensor,
    sin: Tensor,
}

impl RopeTable {
    /// Of a model's frequencies: row i is of the i-th of `positions`.
    ///
    /// # Errors
    /// As [`RopeFrequencies::inv_freq`]; [`Error::Argument`] if the attention factor is not positive; [`Error::TooLarge`],
    /// [`Error::OutOfMemory`], or the GPU failed.
    pub fn new(device: &Device, frequencies: &RopeFrequencies, positions: impl ExactSizeIterator<Item = u32>) -> Result<Self> {
        Self::from_inv_freq(device, &frequencies.inv_freq()?, frequencies.attention_factor(), positions)
    }

    /// Of any frequencies, and what the table is multiplied by (1 for most models).
    ///
    /// # Errors
    /// As [`new`](RopeTable::new), and [`Error::Argument`] if there are no frequencies or one is not finite.
    pub fn from_inv_freq(
        device: &Device,
        inv_freq: &[f64],
        attention_factor: f64,
        positions: impl ExactSizeIterator<Item = u32>,
    ) -> Result<Self> {
        positive("attention_factor", attention_factor)?;
        if let Some((i, value)) = inv_freq.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(refused("inv_freq", format!("holds {value} at {i}"), "give finite numbers"));
        }
        if inv_freq.is_empty() {
            return Err(refused("inv_freq", "is empty".into(), "give a number for each pair that turns"));
        }
        let shape = [positions.len(), inv_freq.len()];
        let len = dense(OP, &shape)?.len();
        let mut rows = Vec::new();
        reserve(&mut rows, OP, shape[0])?;
        rows.extend(positions.take(shape[0]));
        // What the iterator promised, whatever it gave.
        rows.resize(shape[0], 0);
        let of = |number: fn(f64) -> f64| -> Result<Tensor> {
            let mut values = Vec::new();
            reserve(&mut values, OP, len)?;
            values.resize(len, 0f32);
            values.par_chunks_mut(inv_freq.len()).zip(&rows).for_each(|(row, &position)| {
                for (value, frequency) in row.iter_mut().zip(inv_freq) {
                    *value = (attention_factor * number(f64::from(position) * frequency)) as f32;
                }
            });
            Tensor::from_slice(device, &values, &shape)
        };
        Ok(RopeTable { cos: of(f64::cos)?, sin: of(f64::sin)? })
    }

    /// Of cosines and sines that are there, such as ONNX's caches: f32 [positions, rotary_dim / 2], views of any strides. Nothing is copied.
    ///
    /// # Errors
    /// [`Error::DType`] unless both are f32, [`Error::Shape`] unless both are matrices of one shape with a column at least,
    /// [`Error::Device`].
    pub fn from_tensors(cos: &Tensor, sin: &Tensor) -> Result<Self> {
        let named = [("cos", cos), ("sin", sin)];
        ops::check_devices(OP, &named)?;
        ops::check_dtype(OP, &named, DType::F32, "f32 for `cos` and `sin`; `cast` others")?;
        if cos.shape() != sin.shape() || cos.rank() != 2 || cos.shape()[1] == 0 {
            let help = "give both as [positions, rotary_dim / 2]; drop the half that repeats the other";
            return Err(ops::misfit(OP, &named, "`cos` and `sin` must be matrices of one shape", help));
        }
        Ok(RopeTable { cos: cos.clone(), sin: sin.clone() })
    }

    /// The cosines.
    pub fn cos(&self) -> &Tensor {
        &self.cos
    }

    /// The sines.
    pub fn sin(&self) -> &Tensor {
        &self.sin
    }

    /// How many positions there are.
    pub fn positions(&self) -> usize {
        self.cos.shape()[0]
    }

    /// How many elements of a head turn.
    pub fn rotary_dim(&self) -> usize {
        2 * self.cos.shape()[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(theta: f64, rotary_dim: usize, scaling: RopeScaling) -> Vec<f64> {
        RopeFrequencies { theta, rotary_dim, scaling }.inv_freq().unwrap()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * b.abs()
    }

    #[test]
    fn plain_and_linear() {
        let plain = scaled(10_000.0, 8, RopeScaling::None);
        assert!([1.0, 0.1, 0.01, 0.001].iter().zip(&plain).all(|(&want, &got)| near(got, want)), "{plain:?}");
        let linear = scaled(10_000.0, 8, RopeScaling::Linear { factor: 4.0 });
        assert!(plain.iter().zip(&linear).all(|(a, b)| a / 4.0 == *b));
    }

    /// By Meta's own way to write it: wavelengths, and their limits.
    #[test]
    fn llama3_is_metas() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position: 8192 };
        let (plain, got) = (scaled(500_000.0, 128, RopeScaling::None), scaled(500_000.0, 128, scaling));
        let mut kinds = [0; 3];
        for (&frequency, &got) in plain.iter().zip(&got) {
            let wavelength = std::f64::consts::TAU / frequency;
            let (kind, want) = if wavelength < 8192.0 / 4.0 {
                (0, frequency)
            } else if wavelength > 8192.0 / 1.0 {
                (1, frequency / 8.0)
            } else {
                let smooth = (8192.0 / wavelength - 1.0) / (4.0 - 1.0);
                (2, (1.0 - smooth) * frequency / 8.0 + smooth * frequency)
            };
            kinds[kind] += 1;
            assert!(near(got, want), "{got} {want}");
        }
        assert_eq!(kinds, [29, 29, 6]);
        assert!(got.windows(2).all(|pair| pair[0] > pair[1]), "they fall");
    }

    /// Three frequencies of a golden that PyTorch computed (tests/data/torch, rope_llama3_scaled): kept, blended, divided.
    #[test]
    fn llama3_is_the_goldens() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position: 8192 };
        let got = scaled(500_000.0, 64, scaling);
        let want = [(14, 0.003_211_445_994_752_591_3), (16, 0.000_524_846_160_992_954_7), (31, 3.767_322_690_173_964_5e-7)];
        assert!(want.iter().all(|&(i, want)| near(got[i], want)), "{got:?}");
    }

    /// A context of 4096 at theta 10,000 and 32 elements: the blend goes from frequency floor(5.24) = 5 to ceil(11.26) = 12.
    #[test]
    fn yarn_blends_between_its_ends() {
        let (plain, yarn) = (scaled(10_000.0, 32, RopeScaling::None), RopeYarn::new(16.0, 4096));
        let got = scaled(10_000.0, 32, RopeScaling::Yarn(yarn));
        for (i, (&plain, &got)) in plain.iter().zip(&got).enumerate() {
            let ramp = ((i as f64 - 5.0) / 7.0).clamp(0.0, 1.0);
            assert!(near(got, plain * (1.0 - ramp) + plain / 16.0 * ramp), "{i}: {got}");
        }
        assert!(got[5] == plain[5] && got[6] < plain[6] && got[11] > plain[11] / 16.0 && got[12] == plain[12] / 16.0);
        // As they are, the ends are where frequencies turn 32 times and once.
        let exact = scaled(10_000.0, 32, RopeScaling::Yarn(RopeYarn { truncate: false, ..yarn }));
        let end = |turns: f64| 16.0 * (4096.0 / (turns * std::f64::consts::TAU)).ln() / 10_000f64.ln();
        assert!((end(32.0) - 5.2362).abs() < 1e-3 && (end(1.0) - 11.2568).abs() < 1e-3);
        let ramp = (8.0 - end(32.0)) / (end(1.0) - end(32.0));
        assert!(near(exact[8], plain[8] * (1.0 - ramp) + plain[8] / 16.0 * ramp));
    }

    #[test]
    fn yarns_ends_are_kept_inside() {
        // Every frequency turns too fast, or too slowly.
        let plain = scaled(10_000.0, 16, RopeScaling::None);
        let long = scaled(10_000.0, 16, RopeScaling::Yarn(RopeYarn::new(4.0, 1 << 40)));
        assert_eq!(long, plain);
        let short = scaled(10_000.0, 16, RopeScaling::Yarn(RopeYarn::new(4.0, 1)));
        assert!(short[1..].iter().zip(&plain[1..]).all(|(a, b)| *a == b / 4.0), "{short:?}");
        assert_eq!(scaled(10_000.0, 16, RopeScaling::Yarn(RopeYarn::new(1.0, 4096))), plain);
    }

    #[test]
    fn attention_factors() {
        let yarn = RopeYarn::new(40.0, 4096);
        assert!(near(yarn.attention_factor(), 1.368_887_945_411_393_6));
        assert_eq!(RopeYarn { attention_factor: Some(1.25), mscale: Some(2.0), ..yarn }.attention_factor(), 1.25);
        assert_eq!(RopeYarn { mscale: Some(0.707), mscale_all_dim: Some(0.707), ..yarn }.attention_factor(), 1.0);
        let deepseek = RopeYarn { mscale: Some(1.0), mscale_all_dim: Some(0.5), ..yarn };
        assert!(near(deepseek.attention_factor(), 1.368_887_945_411_393_6 / 1.184_443_972_705_696_8));
        assert_eq!(RopeYarn { mscale: Some(0.5), mscale_all_dim: Some(0.0), ..yarn }.attention_factor(), yarn.attention_factor());
        assert_eq!(RopeYarn::new(0.5, 4096).attention_factor(), 1.0);
        assert_eq!(RopeFrequencies::new(10_000.0, 8).attention_factor(), 1.0);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let bad = |theta, rotary_dim, scaling, argument: &str| {
            let error = RopeFrequencies { theta, rotary_dim, scaling }.inv_freq().unwrap_err();
            assert!(matches!(&error, Error::Argument { argument: named, .. } if *named == argument), "{error}");
        };
        let plain = RopeScaling::None;
        bad(0.0, 8, plain, "theta");
        bad(f64::NAN, 8, plain, "theta");
        bad(1e4, 0, plain, "rotary_dim");
        bad(1e4, 7, plain, "rotary_dim");
        bad(1e4, 8, RopeScaling::Linear { factor: -1.0 }, "factor");
        let llama = |low_freq_factor, high_freq_factor, original_max_position| RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor,
            high_freq_factor,
            original_max_position,
        };
        bad(1e4, 8, llama(0.0, 4.0, 8192), "low_freq_factor");
        bad(1e4, 8, llama(4.0, 4.0, 8192), "high_freq_factor");
        bad(1e4, 8, llama(1.0, 4.0, 0), "original_max_position");
        let yarn = RopeYarn::new(4.0, 4096);
        bad(1e4, 8, RopeScaling::Yarn(RopeYarn { factor: f64::INFINITY, ..yarn }), "factor");
        bad(1e4, 8, RopeScaling::Yarn(RopeYarn { beta_slow: 0.0, ..yarn }), "beta_slow");
        bad(1e4, 8, RopeScaling::Yarn(RopeYarn { beta_fast: 0.5, ..yarn }), "beta_fast");
        bad(1e4, 8, RopeScaling::Yarn(RopeYarn { original_max_position: 0, ..yarn }), "original_max_position");
        bad(1.0, 8, RopeScaling::Yarn(yarn), "theta");
    }

    #[test]
    fn tables_round_once() {
        let device = Device::cpu();
        let inv_freq = [1.0, 0.3];
        let table = RopeTable::from_inv_freq(&device, &inv_freq, 1.5, [0, 7, 1_000_003].into_iter()).unwrap();
        let want = |of: fn(f64) -> f64| -> Vec<f32> {
            [0.0, 7.0, 1_000_003.0].iter().flat_map(|p| inv_freq.map(|f| (1.5 * of(p * f)) as f32)).collect()
        };
        assert_eq!(table.cos().to_vec::<f32>().unwrap(), want(f64::cos));
        assert_eq!(table.sin().to_vec::<f32>().unwrap(), want(f64::sin));
        assert!(RopeTable::from_inv_freq(&device, &[], 1.0, 0..4).is_err());
        assert!(RopeTable::from_inv_freq(&device, &[f64::NAN], 1.0, 0..4).is_err());
        assert!(RopeTable::from_inv_freq(&device, &[1.0], 0.0, 0..4).is_err());
    }
}
