//! [`Tensor`]: shared storage seen through a [`Layout`].

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::{ArrayBase, ArrayD, Data, Dimension, IxDyn};
use rayon::prelude::*;

use crate::cpu::{Bytes, CHUNK, CpuBuffer};
use crate::device::Kind;
use crate::error::{Error, Operand, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{Fill, GpuBuffer};
use crate::platform::Wait;
use crate::{DType, Device, Element, Layout, philox};

/// The memory that tensors share.
#[derive(Debug)]
pub(crate) struct Storage {
    data: StorageData,
    /// In-place writes so far.
    writes: AtomicU64,
    /// See [`Tensor::keep_host_copy`].
    #[cfg(feature = "gpu")]
    host: std::sync::Mutex<Option<HostCopy>>,
}

/// A part of a storage as it was after so many writes.
#[cfg(feature = "gpu")]
#[derive(Debug, Clone)]
struct HostCopy {
    bytes: Arc<Vec<u8>>,
    /// The part's first byte in the storage.
    start: u64,
    writes: u64,
}

#[derive(Debug)]
pub(crate) enum StorageData {
    Cpu(CpuBuffer),
    #[cfg(feature = "gpu")]
    Gpu(GpuBuffer),
}

/// An n-dimensional array on a [`Device`]: up to 6 axes of one [`DType`].
///
/// Cloning and viewing are free: they share the storage. What writes into a tensor (`_into` ops) is seen by all that share it.
/// What brings elements to the host (`to_vec`, `to_ndarray`, …) and `Device::sync` wait for the device; nothing else does. Axes may be
/// counted from the end: -1 is the last.
///
/// ```
/// use gristmill::{Device, Tensor};
///
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
/// let y = x.transpose(0, 1)?.narrow(0, 1..3)?;
/// assert_eq!(y.shape(), [2, 2]);
/// assert_eq!(y.to_vec::<f32>()?, [2.0, 5.0, 3.0, 6.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    device: Device,
    storage: Arc<Storage>,
    layout: Layout,
    dtype: DType,
}

/// The bytes of a tensor's elements on the host, row-major.
#[derive(Debug)]
pub(crate) enum HostBytes {
    /// A snapshot of the CPU's storage, and where in it they lie.
    Lent(Arc<Bytes>, Range<usize>),
    /// Read from a GPU, or gathered from a view with gaps.
    Own(Vec<u8>),
}

impl Deref for HostBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            HostBytes::Lent(bytes, range) => &bytes[range.clone()],
            HostBytes::Own(bytes) => bytes,
        }
    }
}

fn too_large(op: &'static str, shape: &[usize]) -> Error {
    let product = shape.iter().try_fold(1u128, |p, &d| p.checked_mul(d as u128));
    if shape.len() > crate::MAX_RANK {
        Error::TooLarge {
            op,
            what: format!("shape {shape:?}"),
            requested: shape.len() as u128,
            limit: crate::MAX_RANK as u128,
            limit_name: "axes",
        }
    } else {
        Error::TooLarge {
            op,
            what: format!("shape {shape:?}"),
            requested: product.unwrap_or(u128::MAX),
            limit: isize::MAX as u128 / 16,
            limit_name: "elements",
        }
    }
}

/// A dense layout, or the error that says what is too large.
pub(crate) fn dense(op: &'static str, shape: &[usize]) -> Result<Layout> {
    Layout::contiguous(shape).ok_or_else(|| too_large(op, shape))
}

/// An axis counted from either end.
pub(crate) fn axis_of(op: &'static str, axis: isize, rank: usize) -> Result<usize> {
    let from_start = if axis < 0 { axis.checked_add_unsigned(rank) } else { Some(axis) };
    from_start.and_then(|a| usize::try_from(a).ok()).filter(|&a| a < rank).ok_or_else(|| Error::Argument {
        op,
        argument: "axis",
        problem: format!("is {axis}, of a tensor with {rank} axes"),
        help: "count from 0, or from -1 backwards",
    })
}

impl Tensor {
    /// A tensor of `data`, row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of elements is not the shape's, [`Error::TooLarge`], [`Error::OutOfMemory`].
    pub fn from_slice<T: Element>(device: &Device, data: &[T], shape: &[usize]) -> Result<Self> {
        let op = "Tensor::from_slice";
        let layout = dense(op, shape)?;
        if layout.len() != data.len() {
            return Err(Error::Argument {
                op,
                argument: "data",
                problem: format!("has {} elements, the shape {shape:?} {}", data.len(), layout.len()),
                help: "give as many elements as the shape holds",
            });
        }
        Self::from_bytes(op, device, bytemuck::cast_slice(data), layout, T::DTYPE)
    }

    pub(crate) fn from_bytes(op: &'static str, device: &Device, bytes: &[u8], layout: Layout, dtype: DType) -> Result<Self> {
        let data = match device.kind() {
            Kind::Cpu => StorageData::Cpu(CpuBuffer::from_slice(op, bytes)?),
            #[cfg(feature = "gpu")]
            Kind::Gpu(gpu) => StorageData::Gpu(gpu.buffer(op, bytes.len() as u64, Fill::Data(bytes))?),
        };
        Ok(Self::with_storage(device, data, layout, dtype))
    }

    pub(crate) fn with_storage(device: &Device, data: StorageData, layout: Layout, dtype: DType) -> Self {
        let storage = Storage {
            data,
            writes: AtomicU64::new(0),
            #[cfg(feature = "gpu")]
            host: std::sync::Mutex::default(),
        };
        Tensor { device: device.clone(), storage: Arc::new(storage), layout, dtype }
    }

    /// A tensor of an ndarray array or view, of any memory order and any [`Element`]: [`half::f16`] and [`half::bf16`] too.
    ///
    /// ```
    /// use gristmill::{DType, Device, Tensor};
    /// use half::bf16;
    /// use ndarray::{array, s};
    ///
    /// let a = array![[1.0f32, 2.0], [3.0, 4.0]];
    /// let x = Tensor::from_ndarray(&Device::cpu(), &a.t())?;
    /// assert_eq!(x.to_ndarray::<f32>()?, a.t().into_dyn());
    ///
    /// let halves = a.mapv(bf16::from_f32);
    /// let upside_down = halves.slice(s![..;-1, ..]);
    /// let x = Tensor::from_ndarray(&Device::cpu(), &upside_down)?;
    /// assert_eq!(x.dtype(), DType::BF16);
    /// assert_eq!(x.to_ndarray::<bf16>()?, upside_down.into_dyn());
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than 6 axes, [`Error::OutOfMemory`].
    pub fn from_ndarray<T, S, D>(device: &Device, array: &ArrayBase<S, D>) -> Result<Self>
    where
        T: Element,
        S: Data<Elem = T>,
        D: Dimension,
    {
        match array.as_slice() {
            Some(data) => Self::from_slice(device, data, array.shape()),
            None => {
                // A broadcast view can be far larger than what it shows.
                let op = "Tensor::from_ndarray";
                let mut data = Vec::new();
                reserve(&mut data, op, dense(op, array.shape())?.len())?;
                data.extend(array.iter().copied());
                Self::from_slice(device, &data, array.shape())
            }
        }
    }

    /// Zeros (`false` for bool).
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`].
    pub fn zeros(device: &Device, dtype: DType, shape: &[usize]) -> Result<Self> {
        Self::zeros_for("Tensor::zeros", device, dtype, shape)
    }

    /// Zeros, on behalf of an op.
    pub(crate) fn zeros_for(op: &'static str, device: &Device, dtype: DType, shape: &[usize]) -> Result<Self> {
        Self::made(op, device, dtype, shape, true)
    }

    /// A tensor whose every element the op is about to write. On a GPU it holds anything until then.
    pub(crate) fn unwritten(op: &'static str, device: &Device, dtype: DType, shape: &[usize]) -> Result<Self> {
        Self::made(op, device, dtype, shape, false)
    }

    fn made(op: &'static str, device: &Device, dtype: DType, shape: &[usize], zeros: bool) -> Result<Self> {
        let layout = dense(op, shape)?;
        let bytes = layout.len() * dtype.block_bytes();
        let data = match device.kind() {
            Kind::Cpu => {
                let _ = zeros;
                StorageData::Cpu(CpuBuffer::new(Bytes::new(op, bytes)?))
            }
            #[cfg(feature = "gpu")]
            Kind::Gpu(gpu) => StorageData::Gpu(gpu.buffer(op, bytes as u64, if zeros { Fill::Zeros } else { Fill::Unwritten })?),
        };
        Ok(Self::with_storage(device, data, layout, dtype))
    }

    /// Every element the same.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`].
    pub fn full<T: Element>(device: &Device, value: T, shape: &[usize]) -> Result<Self> {
        let op = "Tensor::full";
        let data = filled(op, value, dense(op, shape)?.len())?;
        Self::from_slice(device, &data, shape)
    }

    /// `len` elements: `start`, `start + step`, `start + 2 * step`, … computed in f64 and rounded once.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`].
    pub fn arange<T: Element>(device: &Device, start: f64, step: f64, len: usize) -> Result<Self> {
        let op = "Tensor::arange";
        let mut data = filled(op, T::from_f64(start), dense(op, &[len])?.len())?;
        for (i, element) in data.iter_mut().enumerate() {
            *element = T::from_f64(start + step * i as f64);
        }
        Self::from_slice(device, &data, &[len])
    }

    /// f32, uniform in [0, 1): a 24-bit integer times 2^-24 from Philox4x32-10, so the same on every device for a seed.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`].
    pub fn rand_uniform(device: &Device, shape: &[usize], seed: u64) -> Result<Self> {
        Self::random("Tensor::rand_uniform", device, shape, seed, |words| words.map(philox::uniform))
    }

    /// f32, normal with the given mean and standard deviation: Box and Muller in f64 on the host from Philox4x32-10, rounded once. The
    /// same on every device of one host; hosts may differ in the last place.
    ///
    /// # Errors
    /// [`Error::Argument`] if `std` is negative or not finite, [`Error::TooLarge`], [`Error::OutOfMemory`].
    pub fn rand_normal(device: &Device, shape: &[usize], mean: f64, std: f64, seed: u64) -> Result<Self> {
        let op = "Tensor::rand_normal";
        if !(std >= 0.0 && std.is_finite() && mean.is_finite()) {
            return Err(Error::Argument {
                op,
                argument: "mean or std",
                problem: format!("is out of its domain (mean {mean}, std {std})"),
                help: "give a finite mean and a finite std of at least 0",
            });
        }
        Self::random(op, device, shape, seed, |[a, b, c, d]| {
            let ([w, x], [y, z]) = (philox::normals(a, b), philox::normals(c, d));
            [w, x, y, z].map(|n| (mean + std * n) as f32)
        })
    }

    fn random(op: &'static str, device: &Device, shape: &[usize], seed: u64, draw: impl Fn([u32; 4]) -> [f32; 4] + Sync) -> Result<Self> {
        let mut data = filled(op, 0f32, dense(op, shape)?.len())?;
        data.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
            for (i, four) in values.chunks_mut(4).enumerate() {
                let n = chunk * (CHUNK / 4) + i;
                let drawn = draw(philox::block(seed, n as u64));
                four.copy_from_slice(&drawn[..four.len()]);
            }
        });
        Self::from_slice(device, &data, shape)
    }

    /// A tensor of the elements in a buffer of the caller's, dense and from the buffer's start. The buffer is shared, not copied: what is
    /// written to it, by ops or by the caller, both see, in the order of submission to the queue ([`Tensor::buffer`] submits). Do not destroy or
    /// map it while ops use it: wgpu then refuses the submission, and with it the device is lost.
    ///
    /// ```
    /// use gristmill::{DType, Device, Tensor, gpu::{GpuOptions, wgpu}, ops};
    /// use wgpu::util::DeviceExt;
    ///
    /// # let options = GpuOptions { software: true, ..GpuOptions::default() };
    /// # let Ok(device) = Device::gpu(&options) else { return Ok(()) };
    /// # let Some((wgpu_device, queue)) = device.wgpu() else { return Ok(()) };
    /// let buffer = wgpu_device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
    ///     label: None,
    ///     contents: bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 0.0]), // of whole 16 bytes
    ///     usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
    /// });
    /// let x = Tensor::from_buffer(&device, buffer, DType::F32, &[3])?;
    /// assert_eq!(ops::add(&x, &x)?.to_vec::<f32>()?, [2.0, 4.0, 6.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if the device is the CPU, or the buffer is too small, of a size that is no multiple of 16 (kernels read 16 bytes at
    /// once) or without the usages `STORAGE` and `COPY_SRC`; [`Error::Rejected`] if it is of another device or destroyed (of another `wgpu::Instance`'s device wgpu cannot tell: do not);
    /// [`Error::TooLarge`], [`Error::Lost`].
    #[cfg(feature = "gpu")]
    pub fn from_buffer(device: &Device, buffer: crate::gpu::wgpu::Buffer, dtype: DType, shape: &[usize]) -> Result<Self> {
        use crate::gpu::wgpu::BufferUsages;

        let op = "Tensor::from_buffer";
        let refused = |argument, problem: String, help| Err(Error::Argument { op, argument, problem, help });
        let layout = dense(op, shape)?;
        let Kind::Gpu(gpu) = device.kind() else {
            return refused("device", "is the CPU".into(), "give the handle of the GPU that the buffer is of");
        };
        let (has, needs) = (buffer.size(), (layout.len() * dtype.block_bytes()) as u64);
        if has < needs || has == 0 || !has.is_multiple_of(16) {
            let problem = format!("has {has} bytes, {dtype}{shape:?} needs {needs} in whole words of 16");
            return refused("buffer", problem, "make it large enough, and its size a multiple of 16");
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
        if !buffer.usage().contains(usage) {
            let problem = format!("has the usages {:?}", buffer.usage());
            return refused("buffer", problem, "make it with STORAGE and COPY_SRC");
        }
        let buffer = gpu.wrap(op, buffer)?;
        Ok(Self::with_storage(device, StorageData::Gpu(buffer), layout, dtype))
    }

    /// The buffer that a dense tensor lies in, and the bytes of it that are the tensor's, for the caller's own work on the queue. Submits what
    /// is recorded, so that work submitted after this sees the tensor as it is now. The buffer is shared: it lives as long as the longer of
    /// the two holds it, and gristmill does not use it again for other tensors.
    ///
    /// # Errors
    /// [`Error::Argument`] on the CPU and inside [`Device::record`]; [`Error::Shape`] for a view with gaps; [`Error::Lost`].
    #[cfg(feature = "gpu")]
    pub fn buffer(&self) -> Result<(crate::gpu::wgpu::Buffer, Range<u64>)> {
        let op = "Tensor::buffer";
        let (StorageData::Gpu(buffer), Kind::Gpu(gpu)) = (&self.storage.data, self.device.kind()) else {
            let problem = "is on the CPU".into();
            return Err(Error::Argument { op, argument: "the tensor", problem, help: "move it to a GPU with `to_device`" });
        };
        if !self.layout.is_contiguous() {
            let problem = "a view with gaps is no range of bytes".into();
            return Err(Error::Shape { op, operands: vec![self.operand("self")], problem, help: "take `contiguous()` first" });
        }
        let size = self.dtype.block_bytes();
        let start = (self.layout.offset() * size) as u64;
        Ok((gpu.share(op, buffer)?, start..start + (self.len() * size) as u64))
    }

    /// The size of each axis.
    pub fn shape(&self) -> &[usize] {
        self.layout.dims()
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.layout.rank()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.layout.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.layout.is_empty()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The handle of the device that the tensor was made with.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How the elements lie in storage.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether both lie in one storage, so that a write to one may show in the other.
    pub fn shares_storage(&self, other: &Tensor) -> bool {
        #[cfg(feature = "gpu")]
        if let (StorageData::Gpu(own), StorageData::Gpu(others)) = (&self.storage.data, &other.storage.data) {
            // Two tensors may be of one buffer of the caller's.
            return own.buffer == others.buffer;
        }
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// In-place writes to the storage so far, by any tensor that shares it.
    pub fn writes(&self) -> u64 {
        self.storage.writes.load(Ordering::Relaxed)
    }

    pub(crate) fn count_write(&self) {
        self.storage.writes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn data(&self) -> &StorageData {
        &self.storage.data
    }

    /// Whether no other tensor shares the storage.
    pub(crate) fn owns_storage(&self) -> bool {
        Arc::strong_count(&self.storage) == 1
    }

    /// The storage, if it is the CPU's.
    pub(crate) fn cpu_buffer(&self) -> Option<&CpuBuffer> {
        match &self.storage.data {
            StorageData::Cpu(buffer) => Some(buffer),
            #[cfg(feature = "gpu")]
            StorageData::Gpu(_) => None,
        }
    }

    /// The storage, if it is a GPU's.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpu_buffer(&self) -> Option<&GpuBuffer> {
        match &self.storage.data {
            StorageData::Cpu(_) => None,
            StorageData::Gpu(buffer) => Some(buffer),
        }
    }

    /// The tensor as an error shows it.
    pub(crate) fn operand(&self, name: &'static str) -> Operand {
        Operand { name, dtype: self.dtype, shape: self.shape().to_vec(), device: self.device.label().to_string() }
    }

    fn view(&self, op: &'static str, layout: Option<Layout>, help: &'static str, asked: fmt::Arguments) -> Result<Self> {
        let layout = layout.ok_or_else(|| Error::Shape {
            op,
            operands: vec![self.operand("self")],
            problem: format!("no such view: {asked}"),
            help,
        })?;
        Ok(Tensor { layout, ..self.clone() })
    }

    /// The indices `range` of an axis.
    ///
    /// # Errors
    /// [`Error::Shape`] if the range leaves the axis, [`Error::Argument`] if there is no such axis.
    pub fn narrow(&self, axis: isize, range: Range<usize>) -> Result<Self> {
        let at = axis_of("narrow", axis, self.rank())?;
        let len = range.end.checked_sub(range.start);
        let layout = len.and_then(|len| self.layout.narrow(at, range.start, len));
        let help = "give a range within the axis, start before end";
        self.view("narrow", layout, help, format_args!("{range:?} of axis {axis}"))
    }

    /// Every `step`-th index of an axis, from the first: after [`narrow`](Self::narrow) a slice with a step. (Backwards is
    /// [`ops::gather`](crate::ops::gather()).)
    ///
    /// ```
    /// use gristmill::{Device, Tensor};
    ///
    /// let x = Tensor::arange::<f32>(&Device::cpu(), 0.0, 1.0, 10)?;
    /// assert_eq!(x.narrow(0, 1..8)?.step(0, 3)?.to_vec::<f32>()?, [1.0, 4.0, 7.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis, [`Error::Shape`] if the step is 0.
    pub fn step(&self, axis: isize, step: usize) -> Result<Self> {
        let at = axis_of("step", axis, self.rank())?;
        self.view("step", self.layout.step(at, step), "give a step of at least 1", format_args!("every {step}th of axis {axis}"))
    }

    /// Axis `i` of the result is axis `axes[i]` of this.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `axes` names each axis once.
    pub fn permute(&self, axes: &[usize]) -> Result<Self> {
        let help = "name each axis exactly once";
        self.view("permute", self.layout.permute(axes), help, format_args!("axes {axes:?}"))
    }

    /// Swaps two axes.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis.
    pub fn transpose(&self, a: isize, b: isize) -> Result<Self> {
        let (from, to) = (axis_of("transpose", a, self.rank())?, axis_of("transpose", b, self.rank())?);
        self.view("transpose", self.layout.transpose(from, to), "", format_args!("axes {a} and {b}"))
    }

    /// The same elements in the same order under another shape, without moving any.
    ///
    /// # Errors
    /// [`Error::Shape`] if the counts differ, or if the strides of a view forbid it: `contiguous()` first.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let help = "keep the number of elements; of a transposed or narrowed view take `contiguous()` first";
        self.view("reshape", self.layout.reshape(shape), help, format_args!("shape {shape:?}"))
    }

    /// NumPy's broadcasting: axes align at the right, those of size 1 repeat. Nothing is copied; such a view cannot be written to.
    ///
    /// # Errors
    /// [`Error::Shape`] if an axis is neither 1 nor the size asked for.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Self> {
        let help = "align the axes at the right; each must be 1 or the size asked for";
        self.view("broadcast_to", self.layout.broadcast_to(shape), help, format_args!("shape {shape:?}"))
    }

    /// Drops an axis of size 1.
    ///
    /// # Errors
    /// [`Error::Shape`] if its size is not 1, [`Error::Argument`] if there is no such axis.
    pub fn squeeze(&self, axis: isize) -> Result<Self> {
        let at = axis_of("squeeze", axis, self.rank())?;
        let help = "choose an axis of size 1";
        self.view("squeeze", self.layout.squeeze(at), help, format_args!("without axis {axis}"))
    }

    /// Inserts an axis of size 1, before `axis`; -1 appends it.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such place, [`Error::Shape`] if there are 6 axes already.
    pub fn unsqueeze(&self, axis: isize) -> Result<Self> {
        let at = axis_of("unsqueeze", axis, self.rank() + 1)?;
        let help = "a tensor has at most 6 axes; `reshape` to fewer first";
        self.view("unsqueeze", self.layout.unsqueeze(at), help, format_args!("a new axis {axis}"))
    }

    /// The tensor on another device: a view if it is a handle of the same device, else a dense copy (through the host).
    ///
    /// # Errors
    /// As `to_vec_async` and `from_slice`.
    pub async fn to_device_async(&self, device: &Device) -> Result<Self> {
        self.moved(device, Wait::Apart).await
    }

    pub(crate) async fn moved(&self, device: &Device, wait: Wait) -> Result<Self> {
        if device.same_as(&self.device) {
            return Ok(Tensor { device: device.clone(), ..self.clone() });
        }
        let op = "Tensor::to_device";
        let bytes = self.read(op, wait).await?;
        Self::from_bytes(op, device, &bytes, dense(op, self.shape())?, self.dtype)
    }

    /// All elements, row-major: the async twin of `to_vec`.
    ///
    /// # Errors
    /// [`Error::DType`] if `T` is not the tensor's type, and what the work that it waits for failed with.
    pub async fn to_vec_async<T: Element>(&self) -> Result<Vec<T>> {
        self.elements(Wait::Apart).await
    }

    /// All elements as an ndarray array in row-major order: the async twin of `to_ndarray`.
    ///
    /// # Errors
    /// As `to_vec_async`.
    pub async fn to_ndarray_async<T: Element>(&self) -> Result<ArrayD<T>> {
        self.shaped(self.to_vec_async().await?)
    }

    pub(crate) async fn elements<T: Element>(&self, wait: Wait) -> Result<Vec<T>> {
        let op = "Tensor::to_vec";
        if T::DTYPE != self.dtype {
            let operands = vec![self.operand("self")];
            return Err(Error::DType { op, operands, supported: T::DTYPE.name() });
        }
        Ok(T::from_bytes(&self.read(op, wait).await?))
    }

    pub(crate) fn shaped<T: Element>(&self, data: Vec<T>) -> Result<ArrayD<T>> {
        ArrayD::from_shape_vec(IxDyn(self.shape()), data).map_err(|_| too_large("Tensor::to_ndarray", self.shape()))
    }

    /// The bytes of all elements, row-major.
    pub(crate) async fn read(&self, op: &'static str, wait: Wait) -> Result<HostBytes> {
        if self.is_empty() {
            return Ok(HostBytes::Own(Vec::new()));
        }
        match &self.storage.data {
            StorageData::Cpu(buffer) => {
                let _ = wait;
                let bytes = buffer.snapshot();
                if self.layout.is_contiguous() {
                    let size = self.dtype.block_bytes();
                    let start = self.layout.offset() * size;
                    return Ok(HostBytes::Lent(bytes, start..start + self.len() * size));
                }
                self.gather(op, &bytes, 0).map(HostBytes::Own)
            }
            #[cfg(feature = "gpu")]
            StorageData::Gpu(buffer) => {
                let (start, len) = self.reach();
                let Kind::Gpu(gpu) = self.device.kind() else { return Ok(HostBytes::Own(Vec::new())) };
                let bytes = match gpu.read(op, buffer, start, len, wait).await {
                    Err(loss) if loss.is_loss() => self.kept(op, start, len)?.ok_or(loss)?,
                    bytes => bytes?,
                };
                // What is read begins and ends where the tensor does.
                if self.layout.is_contiguous() { Ok(HostBytes::Own(bytes)) } else { self.gather(op, &bytes, start).map(HostBytes::Own) }
            }
        }
    }

    /// The copy on the host, and where in it those bytes of the storage are, if it has them and nothing was written since.
    #[cfg(feature = "gpu")]
    fn copied(&self, start: u64, len: u64) -> Option<(Arc<Vec<u8>>, Range<usize>)> {
        let host = self.storage.host.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        // The caller's writes are not counted.
        let shared = self.gpu_buffer().is_some_and(GpuBuffer::is_retired);
        let copy = host.filter(|copy| copy.writes == self.writes() && !shared)?;
        let first = start.checked_sub(copy.start)? as usize;
        let range = first..first + len as usize;
        (range.end <= copy.bytes.len()).then_some((copy.bytes, range))
    }

    /// Those bytes of the storage from the copy on the host, if it has them.
    #[cfg(feature = "gpu")]
    fn kept(&self, op: &'static str, start: u64, len: u64) -> Result<Option<Vec<u8>>> {
        let Some((copy, range)) = self.copied(start, len) else { return Ok(None) };
        let mut bytes = Vec::new();
        reserve(&mut bytes, op, range.len())?;
        bytes.extend_from_slice(&copy[range]);
        Ok(Some(bytes))
    }

    pub(crate) async fn keep(&self, wait: Wait) -> Result<()> {
        #[cfg(feature = "gpu")]
        if let (StorageData::Gpu(buffer), Kind::Gpu(gpu), false) = (&self.storage.data, self.device.kind(), self.is_empty()) {
            let op = "Tensor::keep_host_copy";
            if buffer.is_retired() {
                let problem = "shares its buffer with work of the caller's, whose writes are not seen".into();
                return Err(Error::Argument { op, argument: "the tensor", problem, help: "keep a copy of it: `ops::copy` first" });
            }
            let (start, len) = self.reach();
            if self.copied(start, len).is_some() {
                return Ok(());
            }
            // What is written while this reads makes the copy stale, not wrong.
            let writes = self.writes();
            let bytes = Arc::new(gpu.read(op, buffer, start, len, wait).await?);
            *self.storage.host.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(HostCopy { bytes, start, writes });
        }
        let _ = wait;
        Ok(())
    }

    /// Keeps a copy of the elements on the host as well: the async twin of `keep_host_copy`.
    ///
    /// # Errors
    /// As `to_vec_async`.
    pub async fn keep_host_copy_async(&self) -> Result<()> {
        self.keep(Wait::Apart).await
    }

    /// The first byte that the tensor reaches, and how many from there.
    #[cfg(feature = "gpu")]
    fn reach(&self) -> (u64, u64) {
        let size = self.dtype.block_bytes();
        let span = self.layout.span();
        ((span.start * size) as u64, (span.len() * size) as u64)
    }

    /// The elements of a view with gaps, in row-major order, out of storage bytes that begin at byte `base`.
    fn gather(&self, op: &'static str, bytes: &[u8], base: u64) -> Result<Vec<u8>> {
        let size = self.dtype.block_bytes();
        let base = base as usize;
        let mut result = Vec::new();
        // A broadcast view can be far larger than its storage.
        reserve(&mut result, op, self.len() * size)?;
        for index in self.layout.indices() {
            let start = index * size - base;
            result.extend_from_slice(&bytes[start..start + size]);
        }
        Ok(result)
    }
}

/// Room for `len` elements; an error rather than an abort where there is no memory.
pub(crate) fn reserve<T>(data: &mut Vec<T>, op: &'static str, len: usize) -> Result<()> {
    let bytes = len.saturating_mul(size_of::<T>()) as u64;
    data.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { op, bytes, device: "the host".into() })
}

/// `len` copies of a value.
fn filled<T: Copy>(op: &'static str, value: T, len: usize) -> Result<Vec<T>> {
    let mut data = Vec::new();
    reserve(&mut data, op, len)?;
    data.resize(len, value);
    Ok(data)
}

impl fmt::Debug for Tensor {
    /// Type, shape and device; the strides of a view; on the CPU the first elements (a GPU is not waited for).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "Tensor {}{:?} on {}", self.dtype, self.shape(), self.device)?;
        if !self.layout.is_contiguous() || self.layout.offset() != 0 {
            write!(f, ", strides {:?} offset {}", self.layout.strides(), self.layout.offset())?;
        }
        let Some(buffer) = self.cpu_buffer() else { return Ok(()) };
        let size = self.dtype.block_bytes();
        let bytes = buffer.snapshot();
        let first = self.layout.indices().take(SHOWN);
        let shown: Vec<u8> = first.flat_map(|i| &bytes[i * size..(i + 1) * size]).copied().collect();
        let list = match self.dtype {
            DType::F32 => show(&f32::from_bytes(&shown)),
            DType::F16 => show(&half::f16::from_bytes(&shown)),
            DType::BF16 => show(&half::bf16::from_bytes(&shown)),
            DType::I32 => show(&i32::from_bytes(&shown)),
            DType::U32 => show(&u32::from_bytes(&shown)),
            DType::U8 => show(&u8::from_bytes(&shown)),
            DType::Bool => show(&bool::from_bytes(&shown)),
        };
        let more = if self.len() > SHOWN { ", …" } else { "" };
        write!(f, " [{list}{more}]")
    }
}

fn show<T: fmt::Debug>(values: &[T]) -> String {
    let shown: Vec<_> = values.iter().map(|v| format!("{v:?}")).collect();
    shown.join(", ")
}
