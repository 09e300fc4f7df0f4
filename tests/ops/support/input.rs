//! Host arrays, seeded values, and the memory forms that they are uploaded in.

use gristmill::{DType, Device, Element, Tensor};
use half::{bf16, f16};

/// An array on the host: what a tensor must hold, whatever the form of its memory.
#[derive(Debug, Clone)]
pub struct Host {
    pub dtype: DType,
    pub dims: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Host {
    pub fn new<T: Element>(dims: &[usize], values: &[T]) -> Self {
        assert_eq!(dims.iter().product::<usize>(), values.len());
        Host { dtype: T::DTYPE, dims: dims.to_vec(), bytes: bytemuck::cast_slice(values).to_vec() }
    }

    pub fn f64s(&self) -> Vec<f64> {
        match self.dtype {
            DType::F32 => f32::from_bytes(&self.bytes).into_iter().map(f64::from).collect(),
            DType::F16 => f16::from_bytes(&self.bytes).into_iter().map(f64::from).collect(),
            DType::BF16 => bf16::from_bytes(&self.bytes).into_iter().map(f64::from).collect(),
            DType::I32 => i32::from_bytes(&self.bytes).into_iter().map(f64::from).collect(),
            DType::U32 => u32::from_bytes(&self.bytes).into_iter().map(f64::from).collect(),
            DType::U8 => u8::from_bytes(&self.bytes).into_iter().map(f64::from).collect(),
            DType::Bool => bool::from_bytes(&self.bytes).into_iter().map(|b| f64::from(u8::from(b))).collect(),
            other => panic!("{other} is new to the tests"),
        }
    }

    /// What a tensor holds, bit for bit.
    pub fn of(tensor: &Tensor) -> Result<Self, String> {
        fn bytes<T: Element>(tensor: &Tensor) -> gristmill::Result<Vec<u8>> {
            Ok(bytemuck::cast_slice(&tensor.to_vec::<T>()?).to_vec())
        }
        let bytes = match tensor.dtype() {
            DType::F32 => bytes::<f32>(tensor),
            DType::F16 => bytes::<f16>(tensor),
            DType::BF16 => bytes::<bf16>(tensor),
            DType::I32 => bytes::<i32>(tensor),
            DType::U32 => bytes::<u32>(tensor),
            DType::U8 => bytes::<u8>(tensor),
            DType::Bool => bytes::<bool>(tensor),
            other => panic!("{other} is new to the tests"),
        };
        let bytes = bytes.map_err(|error| error.to_string())?;
        Ok(Host { dtype: tensor.dtype(), dims: tensor.shape().to_vec(), bytes })
    }

    pub fn upload(&self, device: &Device) -> gristmill::Result<Tensor> {
        match self.dtype {
            DType::F32 => Tensor::from_slice(device, &f32::from_bytes(&self.bytes), &self.dims),
            DType::F16 => Tensor::from_slice(device, &f16::from_bytes(&self.bytes), &self.dims),
            DType::BF16 => Tensor::from_slice(device, &bf16::from_bytes(&self.bytes), &self.dims),
            DType::I32 => Tensor::from_slice(device, &i32::from_bytes(&self.bytes), &self.dims),
            DType::U32 => Tensor::from_slice(device, &u32::from_bytes(&self.bytes), &self.dims),
            DType::U8 => Tensor::from_slice(device, &u8::from_bytes(&self.bytes), &self.dims),
            DType::Bool => Tensor::from_slice(device, &bool::from_bytes(&self.bytes), &self.dims),
            other => panic!("{other} is new to the tests"),
        }
    }

    /// Bools of the given bytes, as only a file can bring them.
    #[cfg(feature = "npy")]
    pub fn bool_bytes(device: &Device, bytes: &[u8]) -> Result<Tensor, String> {
        let mut file = Vec::new();
        let plain = Tensor::from_slice(&Device::cpu(), &vec![true; bytes.len()], &[bytes.len()]).map_err(|e| e.to_string())?;
        plain.write_npy(&mut file).map_err(|e| e.to_string())?;
        let start = file.len() - bytes.len();
        file[start..].copy_from_slice(bytes);
        Tensor::read_npy(device, &file[..]).map_err(|e| e.to_string())
    }

    /// The same numbers in another type, rounded (or truncated and saturated) by `Element`'s rules.
    pub fn to(&self, dtype: DType) -> Host {
        fn of<T: Element>(host: &Host) -> Host {
            Host::new(&host.dims, &host.f64s().into_iter().map(T::from_f64).collect::<Vec<_>>())
        }
        match dtype {
            DType::F32 => of::<f32>(self),
            DType::F16 => of::<f16>(self),
            DType::BF16 => of::<bf16>(self),
            DType::I32 => of::<i32>(self),
            DType::U32 => of::<u32>(self),
            DType::U8 => of::<u8>(self),
            DType::Bool => of::<bool>(self),
            other => panic!("{other} is new to the tests"),
        }
    }

    /// A tensor that holds this, in the given form. What lies between and around its elements is poison (NaN in floats).
    pub fn place(&self, device: &Device, form: Form) -> Result<Tensor, String> {
        self.place_within(device, form).map(|(_, view)| view)
    }

    /// The same with the storage that it lies in.
    pub fn place_within(&self, device: &Device, form: Form) -> Result<(Tensor, Tensor), String> {
        let (storage, view) = self.embed(form, 0xFF);
        let storage = storage.upload(device).map_err(|e| e.to_string())?;
        let view = view(&storage).map_err(|e| e.to_string())?;
        Ok((storage, view))
    }

    /// The storage that surrounds an output in the given form, every element a sentinel, and the view of it that the output is.
    pub fn stage(device: &Device, dtype: DType, dims: &[usize], form: Form) -> Result<(Tensor, Tensor), String> {
        let sentinel = if dtype == DType::Bool { 1 } else { 0xA5 };
        let count: usize = dims.iter().product();
        let host = Host { dtype, dims: dims.to_vec(), bytes: vec![sentinel; count * dtype.block_bytes()] };
        let (storage, view) = host.embed(form, sentinel);
        let storage = storage.upload(device).map_err(|e| e.to_string())?;
        let view = view(&storage).map_err(|e| e.to_string())?;
        Ok((storage, view))
    }

    /// The storage that holds this in a form, and how to view it.
    fn embed(&self, form: Form, filler: u8) -> (Host, View) {
        let size = self.dtype.block_bytes();
        let filler = if self.dtype == DType::Bool { filler & 1 } else { filler };
        let dims = self.dims.clone();
        match form {
            Form::Dense => (self.clone(), Box::new(|t| Ok(t.clone()))),
            Form::Guarded => {
                // An odd offset: 16-bit and 8-bit elements begin inside a word.
                let (before, after) = (GUARD + 1, GUARD);
                let count = self.bytes.len() / size;
                let mut bytes = vec![filler; (before + count + after) * size];
                bytes[before * size..][..self.bytes.len()].copy_from_slice(&self.bytes);
                let storage = Host { dtype: self.dtype, dims: vec![before + count + after], bytes };
                (storage, Box::new(move |t| t.narrow(0, before..before + count)?.reshape(&dims)))
            }
            Form::Gaps | Form::Eights => {
                // One element more before and two after, along every axis; or eight and eight along the last.
                let last = dims.len().saturating_sub(1);
                let wide = |axis: usize| form == Form::Eights && axis == last;
                let lead: Vec<usize> = (0..dims.len()).map(|axis| if wide(axis) { 8 } else { 1 }).collect();
                let padded: Vec<usize> = (0..dims.len()).map(|axis| dims[axis] + if wide(axis) { 16 } else { 3 }).collect();
                let mut bytes = vec![filler; padded.iter().product::<usize>() * size];
                for (i, element) in self.bytes.chunks_exact(size).enumerate() {
                    let at = storage_index(i, &dims, &padded, &lead) * size;
                    bytes[at..at + size].copy_from_slice(element);
                }
                let storage = Host { dtype: self.dtype, dims: padded, bytes };
                let narrow = move |t: &Tensor| {
                    let mut axes = dims.iter().zip(&lead).enumerate();
                    axes.try_fold(t.clone(), |t, (axis, (&dim, &lead))| t.narrow(axis as isize, lead..lead + dim))
                };
                (storage, Box::new(narrow))
            }
            Form::Reversed => {
                // The axes in the opposite order in memory.
                let rank = dims.len();
                let reversed: Vec<usize> = dims.iter().rev().copied().collect();
                let mut strides = vec![0; rank];
                let mut stride = 1;
                for axis in 0..rank {
                    strides[axis] = stride;
                    stride *= dims[axis];
                }
                let mut bytes = vec![filler; self.bytes.len()];
                for (i, element) in self.bytes.chunks_exact(size).enumerate() {
                    let (mut rest, mut at) = (i, 0);
                    for axis in (0..rank).rev() {
                        at += rest % dims[axis] * strides[axis];
                        rest /= dims[axis];
                    }
                    bytes[at * size..][..size].copy_from_slice(element);
                }
                let storage = Host { dtype: self.dtype, dims: reversed, bytes };
                let axes: Vec<usize> = (0..rank).rev().collect();
                (storage, Box::new(move |t| t.permute(&axes)))
            }
        }
    }
}

/// The nearest value of a type.
pub fn rounded(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::F16 => f64::from(<f16 as Element>::from_f64(value)),
        DType::BF16 => f64::from(<bf16 as Element>::from_f64(value)),
        _ => value,
    }
}

/// The smallest positive normal number of a float type: below it, results may flush to 0.
pub fn smallest_normal(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => f64::from(f16::MIN_POSITIVE),
        _ => f64::from(f32::MIN_POSITIVE),
    }
}

/// The distance of the type's numbers at a value.
pub fn unit_in_the_last_place(dtype: DType, value: f64) -> f64 {
    let digits = match dtype {
        DType::F16 => 10,
        DType::BF16 => 7,
        _ => 23,
    };
    let size = value.abs().max(smallest_normal(dtype));
    if size.is_finite() { 2f64.powi(size.log2().floor() as i32 - digits) } else { 0.0 }
}

type View = Box<dyn Fn(&Tensor) -> gristmill::Result<Tensor>>;

/// Row-major element `i` of `dims`, shifted by `lead` along each axis, in a storage of `padded`.
fn storage_index(mut element: usize, dims: &[usize], padded: &[usize], lead: &[usize]) -> usize {
    let (mut at, mut stride) = (0, 1);
    for axis in (0..dims.len()).rev() {
        at += (element % dims[axis] + lead[axis]) * stride;
        element /= dims[axis];
        stride *= padded[axis];
    }
    at
}

/// Sentinels on either side of a guarded output (contract N9).
pub const GUARD: usize = 1024;

/// How an array lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A storage of its own.
    Dense,
    /// Dense, at an odd offset, between [`GUARD`] other elements.
    Guarded,
    /// A window: gaps along every axis.
    Gaps,
    /// The axes in the opposite order.
    Reversed,
    /// A window whose gaps keep eights of elements whole, so that kernels reach it by 16 bytes wherever its own sizes allow.
    Eights,
}

impl Form {
    pub const ALL: [Form; 5] = [Form::Dense, Form::Guarded, Form::Gaps, Form::Reversed, Form::Eights];
}

/// A small counter-based generator for test data, splitmix64 (Steele, Lea and Flood 2014): nothing here needs more.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 0 to `end - 1`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// f32 in [-1, 1), one in 16 of them an outlier up to 64: never constant, never all zero.
    pub fn floats(&mut self, dims: &[usize]) -> Host {
        let values: Vec<f32> = (0..dims.iter().product())
            .map(|_| {
                let value = self.unit() * 2.0 - 1.0;
                (if self.below(16) == 0 { value * 64.0 } else { value }) as f32
            })
            .collect();
        Host::new(dims, &values)
    }

    /// Whole f32 in -`limit`..=`limit` without 0 (contract N1).
    pub fn integers(&mut self, dims: &[usize], limit: i32) -> Host {
        let values: Vec<f32> = (0..dims.iter().product())
            .map(|_| {
                let value = 1 + self.below(limit as usize) as i32;
                (if self.below(2) == 0 { value } else { -value }) as f32
            })
            .collect();
        Host::new(dims, &values)
    }

    /// Bools, `true` with the given chance.
    pub fn bools(&mut self, dims: &[usize], chance: f64) -> Host {
        let values: Vec<bool> = (0..dims.iter().product()).map(|_| self.unit() < chance).collect();
        Host::new(dims, &values)
    }
}
