//! NumPy's `.npy` files. `ndarray-npy` reads and writes the header, which is a Python literal; the elements are plain bytes.

use std::io::{ErrorKind, Read, Write};

use ndarray_npy::npy::header::{Header, Layout as Order, ReadHeaderError};

use crate::cpu::{Bytes, CpuBuffer};
use crate::device::Kind;
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::Fill;
use crate::platform::Wait;
use crate::tensor::{StorageData, dense};
use crate::{DType, Device, Tensor};

/// The longest header that NumPy reads without being told to; ours have about 118 bytes.
const HEADER_BYTES: usize = 10_000;
/// Brackets within brackets: an array of structures has 4, of numbers 2. Each more may double or triple the parser's time.
const HEADER_DEPTH: usize = 4;
/// The native byte order.
const NATIVE: char = if cfg!(target_endian = "little") { '<' } else { '>' };

const READ: &str = "Tensor::read_npy";
const WRITE: &str = "Tensor::write_npy";
const DAMAGED: &str = "it is damaged, or no .npy file: get it anew";

fn damaged(problem: impl Into<String>) -> Error {
    Error::Format { op: READ, problem: problem.into(), help: DAMAGED }
}

/// An I/O error; `early` says what the end of the input means.
fn failed(op: &'static str, error: &std::io::Error, early: impl Into<String>) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::Format { op, problem: early.into(), help: DAMAGED },
        kind => Error::Io { op, kind, problem: error.to_string() },
    }
}

/// The type that a header's `descr` stands for, and whether its bytes are in the other order.
fn element(descr: &str) -> Option<(DType, bool)> {
    let order = descr.chars().next()?;
    let dtype = match descr.get(order.len_utf8()..)? {
        "f4" => DType::F32,
        "f2" => DType::F16,
        "i4" => DType::I32,
        "u4" => DType::U32,
        "u1" => DType::U8,
        "b1" => DType::Bool,
        _ => return None,
    };
    match order {
        '|' => (dtype.block_bytes() == 1).then_some((dtype, false)),
        '<' | '>' => Some((dtype, order != NATIVE)),
        _ => None,
    }
}

/// The header's `descr` for a type that NumPy has.
fn descr(dtype: DType) -> Option<String> {
    Some(match dtype {
        DType::F32 => format!("'{NATIVE}f4'"),
        DType::F16 => format!("'{NATIVE}f2'"),
        DType::I32 => format!("'{NATIVE}i4'"),
        DType::U32 => format!("'{NATIVE}u4'"),
        DType::U8 => "'|u1'".into(),
        DType::Bool => "'|b1'".into(),
        DType::BF16 => return None,
    })
}

/// Reads as far as the header goes. Its length and its brackets are bounded before it is parsed.
fn read_header(reader: &mut impl Read) -> Result<Header> {
    let early = "it ends within the header";
    // Magic, version, and the length in 2 bytes (version 1) or 4.
    let mut text = vec![0; 10];
    reader.read_exact(&mut text).map_err(|e| failed(READ, &e, early))?;
    if !text.starts_with(b"\x93NUMPY") {
        return Err(damaged("it does not begin as .npy files do"));
    }
    if text[6] != 1 {
        text.resize(12, 0);
        reader.read_exact(&mut text[10..]).map_err(|e| failed(READ, &e, early))?;
    }
    let len = text[8..].iter().rev().fold(0, |len, &byte| len << 8 | usize::from(byte));
    if len > HEADER_BYTES {
        return Err(damaged(format!("its header would have {len} bytes, more than {HEADER_BYTES}")));
    }
    let start = text.len();
    text.resize(start + len, 0);
    reader.read_exact(&mut text[start..]).map_err(|e| failed(READ, &e, early))?;
    let (mut depth, mut braces) = (0usize, 0);
    for byte in &text[start..] {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        braces += usize::from(*byte == b'{');
        if depth > HEADER_DEPTH || braces > 1 {
            return Err(damaged("its header is not that of an array of numbers"));
        }
    }
    Header::from_reader(&mut &text[..]).map_err(|error| match error {
        ReadHeaderError::Io(error) => failed(READ, &error, early),
        ReadHeaderError::Parse(error) => damaged(format!("its header cannot be read: {}", short(&error.to_string()))),
    })
}

/// Text out of a file, no longer than a message bears.
fn short(text: &str) -> String {
    const SHOWN: usize = 120;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

impl Tensor {
    /// A tensor of one `.npy` array, read from anything: a file, a slice of bytes, a socket. It takes the array's bytes and none beyond, in
    /// large pieces, so that a plain `File` needs no `BufReader`, and arrays that were saved one behind another can be read so.
    ///
    /// NumPy's float32, float16, int32, uint32, uint8 and bool, in either byte order, in any format version. An array in Fortran order
    /// becomes a transposed view, without moving anything; [`contiguous`](Tensor::contiguous) makes it row-major.
    ///
    /// ```
    /// use gristmill::{Device, Tensor};
    ///
    /// let device = Device::cpu();
    /// let x = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    /// let mut file = Vec::new(); // or std::fs::File::create("x.npy")?
    /// x.write_npy(&mut file)?;
    ///
    /// let again = Tensor::read_npy(&device, &file[..])?; // or std::fs::File::open("x.npy")?
    /// assert_eq!(again.to_ndarray::<f32>()?, x.to_ndarray::<f32>()?);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] for another type of element, and where the file is damaged or ends early; [`Error::Io`] if the reader fails;
    /// [`Error::TooLarge`] for more than 6 axes or more than the device takes; [`Error::OutOfMemory`]. Memory is taken as data arrives,
    /// never because a header says so.
    pub fn read_npy(device: &Device, mut reader: impl Read) -> Result<Self> {
        let header = read_header(&mut reader)?;
        let named = header.type_descriptor.as_string().map(String::as_str);
        let (dtype, swapped) = named.and_then(element).ok_or_else(|| Error::Format {
            op: READ,
            problem: format!("there is no tensor of its type, {}", short(named.unwrap_or("a structure"))),
            help: "convert it in NumPy, as `x.astype(numpy.float32)` does; f4, f2, i4, u4, u1 and b1 can be read",
        })?;
        let fortran = header.layout == Order::Fortran;
        let mut dims = header.shape.clone();
        if fortran {
            dims.reverse();
        }
        let layout = dense(READ, &dims)?;
        let size = dtype.block_bytes();
        let len = layout.len() * size;
        let early = format!("it ends before the {len} bytes of {dtype}{:?}", header.shape);
        let mut bytes = Bytes::grow(READ, len, |piece| reader.read_exact(piece).map_err(|e| failed(READ, &e, early.as_str())))?;
        if swapped {
            bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        let data = match device.kind() {
            Kind::Cpu => StorageData::Cpu(CpuBuffer::new(bytes)),
            #[cfg(feature = "gpu")]
            Kind::Gpu(gpu) => StorageData::Gpu(gpu.buffer(READ, len as u64, Fill::Data(&bytes))?),
        };
        let tensor = Self::with_storage(device, data, layout, dtype);
        if fortran { tensor.permute(&(0..tensor.rank()).rev().collect::<Vec<_>>()) } else { Ok(tensor) }
    }

    /// The tensor as an `.npy` array: the async twin of `write_npy`.
    ///
    /// # Errors
    /// [`Error::DType`] for bf16, which NumPy does not have; [`Error::Io`] if the writer fails; and as `to_vec_async`.
    pub async fn write_npy_async(&self, writer: impl Write) -> Result<()> {
        self.saved(writer, Wait::Apart).await
    }

    pub(crate) async fn saved(&self, mut writer: impl Write, wait: Wait) -> Result<()> {
        let Some(descr) = descr(self.dtype()) else {
            let supported = "f32 (which holds every bf16), f16, i32, u32, u8 and bool";
            return Err(Error::DType { op: WRITE, operands: vec![self.operand("self")], supported });
        };
        let unheaded = |problem: String| Error::Format { op: WRITE, problem, help: "report this: it is a bug" };
        let type_descriptor = descr.parse().map_err(|_| unheaded(format!("no type {descr}")))?;
        let header = Header { type_descriptor, layout: Order::Standard, shape: self.shape().to_vec() };
        let header = header.to_bytes().map_err(|error| unheaded(error.to_string()))?;
        let bytes = self.exported(WRITE, wait).await?;
        let written = writer.write_all(&header).and_then(|()| writer.write_all(&bytes)).and_then(|()| writer.flush());
        written.map_err(|error| Error::Io { op: WRITE, kind: error.kind(), problem: error.to_string() })
    }
}
