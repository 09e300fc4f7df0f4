//! Tensors in and out of ndarray, safetensors and `.npy`, on the CPU and on every GPU adapter that is there: bit for bit.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use gristmill::{DType, Device, Element, Error, Tensor, ops};
use half::{bf16, f16};
use ndarray::{Array, ArrayD, ArrayViewD, Axis, IxDyn, Slice};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};

#[expect(dead_code, reason = "the ops' tests use more of it")]
#[path = "ops/support/devices.rs"]
mod support;

/// The CPU and every GPU adapter that is there, and those that must be.
fn devices() -> impl Iterator<Item = &'static Device> {
    support::subjects().iter().filter_map(|subject| {
        assert!(subject.device.is_ok() || !support::is_required(subject), "{}: {:?}", subject.name, subject.device);
        subject.device.as_ref().ok()
    })
}

/// An element type with values that show every bit: NaNs of several payloads and both signs, -0, subnormals, extremes.
trait Sample: Element + Copy {
    fn sample(i: usize) -> Self;
    fn bits(self) -> u32;
}

macro_rules! sample {
    ($type:ty, [$($special:expr),*], $i:ident => $plain:expr, $value:ident => $bits:expr) => {
        impl Sample for $type {
            fn sample($i: usize) -> Self {
                const SPECIAL: &[$type] = &[$($special),*];
                SPECIAL.get($i % 24).copied().unwrap_or($plain)
            }
            fn bits(self) -> u32 {
                let $value = self;
                $bits
            }
        }
    };
}

sample!(f32, [
    f32::from_bits(0x7fc0_1234), f32::from_bits(0xffab_cdef), f32::from_bits(0x7f80_0001), -0.0, f32::from_bits(1),
    f32::from_bits(0x807f_ffff), f32::INFINITY, f32::NEG_INFINITY, f32::MIN, f32::MIN_POSITIVE
], i => i as f32 * 0.37 - 5.0, v => v.to_bits());
sample!(f16, [
    f16::from_bits(0x7e12), f16::from_bits(0xfdab), f16::from_bits(0x7c01), f16::NEG_ZERO, f16::from_bits(1),
    f16::from_bits(0x83ff), f16::INFINITY, f16::NEG_INFINITY, f16::MIN, f16::MIN_POSITIVE
], i => f16::from_f32(i as f32 * 0.37 - 5.0), v => v.to_bits().into());
sample!(bf16, [
    bf16::from_bits(0x7fc1), bf16::from_bits(0xffab), bf16::from_bits(0x7f81), bf16::NEG_ZERO, bf16::from_bits(1),
    bf16::from_bits(0x807f), bf16::INFINITY, bf16::NEG_INFINITY, bf16::MIN, bf16::MIN_POSITIVE
], i => bf16::from_f32(i as f32 * 0.37 - 5.0), v => v.to_bits().into());
sample!(i32, [i32::MIN, i32::MAX, -1, 0x0102_0304], i => i as i32 - 7, v => v as u32);
sample!(u32, [u32::MAX, 0, 0x0102_0304, 0x8000_0000], i => i as u32 * 3, v => v);
sample!(u8, [0, 255, 127, 128], i => i as u8, v => v.into());
sample!(bool, [], i => i % 3 == 1, v => v.into());

/// Runs a generic test for every dtype on every device.
macro_rules! every {
    ($test:ident) => {
        for device in devices() {
            $test::<f32>(device);
            $test::<f16>(device);
            $test::<bf16>(device);
            $test::<i32>(device);
            $test::<u32>(device);
            $test::<u8>(device);
            $test::<bool>(device);
        }
    };
}

fn values<T: Sample>(count: usize) -> Vec<T> {
    (0..count).map(T::sample).collect()
}

fn bits<T: Sample>(values: &[T]) -> Vec<u32> {
    values.iter().map(|v| v.bits()).collect()
}

/// A tensor's shape and the bits of its elements.
fn held<T: Sample>(tensor: &Tensor) -> (Vec<usize>, Vec<u32>) {
    (tensor.shape().to_vec(), bits(&tensor.to_vec::<T>().expect("elements")))
}

fn bytes_of<T: Sample>(values: &[T]) -> Vec<u8> {
    values.iter().flat_map(|v| v.bits().to_le_bytes()[..size_of::<T>()].to_vec()).collect()
}

fn text(error: &Error) -> String {
    error.to_string()
}

// ---- ndarray ----

/// In, against ndarray's own iteration; and out again.
fn array_keeps<T: Sample>(device: &Device, view: &ArrayViewD<T>, what: &str) {
    let tensor = Tensor::from_ndarray(device, view).expect(what);
    assert_eq!(tensor.dtype(), T::DTYPE);
    let wanted: Vec<u32> = view.iter().map(|v| v.bits()).collect();
    assert_eq!(held::<T>(&tensor), (view.shape().to_vec(), wanted.clone()), "{what} on {device}");
    let array = tensor.to_ndarray::<T>().expect(what);
    assert!(array.is_standard_layout());
    let out: Vec<u32> = array.iter().map(|v| v.bits()).collect();
    assert_eq!((array.shape(), out), (view.shape(), wanted), "{what} out of {device}");
}

fn arrays<T: Sample>(device: &Device) {
    let dims = [3, 4, 5];
    let c = Array::from_shape_vec(dims, values::<T>(60)).expect("60 elements").into_dyn();
    array_keeps(device, &c.view(), "C order");
    // The same elements in the other order in memory.
    let mut fortran = ArrayD::<T>::from_elem(IxDyn(&[5, 4, 3]), T::sample(0)).reversed_axes();
    fortran.assign(&c);
    assert!(!fortran.is_standard_layout() && fortran.strides() == [1, 3, 12]);
    array_keeps(device, &fortran.view(), "Fortran order");
    assert_eq!(
        held::<T>(&Tensor::from_ndarray(device, &fortran).expect("Fortran")),
        held::<T>(&Tensor::from_ndarray(device, &c).expect("C"))
    );
    array_keeps(device, &c.view().permuted_axes(IxDyn(&[1, 2, 0])), "permuted");
    array_keeps(device, &c.slice_each_axis(|axis| Slice::from(usize::from(axis.axis == Axis(1))..)), "offset");
    array_keeps(device, &c.slice_each_axis(|_| Slice::new(0, None, 2)), "every second");
    array_keeps(device, &c.slice_each_axis(|_| Slice::new(0, None, -1)), "backwards");
    array_keeps(device, &fortran.slice_each_axis(|_| Slice::new(1, None, -2)), "backwards by two");
    let mut inverted = c.view();
    inverted.invert_axis(Axis(1));
    array_keeps(device, &inverted, "one axis backwards");
    // Dense in memory, and backwards: the one view that a careless test for density takes for the other order.
    let line = c.to_shape(60).expect("a line").into_owned();
    array_keeps(device, &line.slice(ndarray::s![..;-1]).into_dyn(), "a line backwards");
    let row = c.slice(ndarray::s![1..2, .., 2..3]);
    array_keeps(device, &row.broadcast([2, 3, 4, 6]).expect("a broadcast").into_dyn(), "broadcast");
    array_keeps(device, &line.slice(ndarray::s![7..8]).broadcast(9).expect("a broadcast").into_dyn(), "one element broadcast");
    for i in 0..12 {
        array_keeps(device, &ndarray::arr0(T::sample(i)).into_dyn().view(), "0-d");
    }
    for shape in [&[0][..], &[3, 0, 2], &[0, 4]] {
        array_keeps(device, &ArrayD::<T>::from_elem(IxDyn(shape), T::sample(0)).view(), "empty");
    }
    array_keeps(device, &c.slice(ndarray::s![.., 4..;-1, ..]).into_dyn(), "an empty slice");

    // Our views out.
    let x = Tensor::from_ndarray(device, &c).expect("in");
    let view = x.permute(&[2, 0, 1]).and_then(|x| x.narrow(0, 1..4)).expect("a view");
    let wanted = c.view().permuted_axes(IxDyn(&[2, 0, 1])).slice(ndarray::s![1..4, .., ..]).iter().map(|v| v.bits()).collect::<Vec<_>>();
    assert_eq!(view.to_ndarray::<T>().expect("out").iter().map(|v| v.bits()).collect::<Vec<_>>(), wanted);
    let view = x.narrow(1, 2..3).and_then(|x| x.broadcast_to(&[2, 3, 7, 5])).expect("a broadcast");
    let wanted = c.slice(ndarray::s![.., 2..3, ..]);
    let wanted = wanted.broadcast([2, 3, 7, 5]).expect("a broadcast").iter().map(|v| v.bits()).collect::<Vec<_>>();
    assert_eq!(view.to_ndarray::<T>().expect("out").iter().map(|v| v.bits()).collect::<Vec<_>>(), wanted);
}

#[test]
fn ndarray_in_every_order() {
    every!(arrays);
}

/// More elements than any memory holds, of one that repeats; and more axes than a tensor has.
#[test]
fn ndarray_too_large() {
    let one = ndarray::arr0(1.0f32);
    let huge = one.broadcast(1 << 48).expect("a broadcast");
    assert!(matches!(Tensor::from_ndarray(&Device::cpu(), &huge), Err(Error::OutOfMemory { .. })));
    let deep = one.broadcast(IxDyn(&[1; 7])).expect("a broadcast");
    assert!(matches!(Tensor::from_ndarray(&Device::cpu(), &deep), Err(Error::TooLarge { .. })));
}

// ---- safetensors ----

fn dtype_of(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
        _ => unreachable!("{dtype}"),
    }
}

fn safetensors_keep<T: Sample>(device: &Device) {
    for shape in [&[][..], &[1], &[7], &[2, 3, 5], &[2, 1, 2, 1, 2, 3], &[0], &[4, 0, 2]] {
        let list = values::<T>(shape.iter().product());
        let bytes = bytes_of(&list);
        let view = TensorView::new(dtype_of(T::DTYPE), shape.to_vec(), &bytes).expect("a view");
        let tensor = Tensor::from_safetensors(device, &view).expect("in");
        assert_eq!(tensor.dtype(), T::DTYPE);
        assert_eq!(held::<T>(&tensor), (shape.to_vec(), bits(&list)), "in, {shape:?} on {device}");
        let host = tensor.to_safetensors().expect("out");
        assert_eq!((host.dtype(), host.shape(), host.bytes()), (T::DTYPE, shape, &bytes[..]), "out of {device}");
        assert_eq!(View::dtype(&host), dtype_of(T::DTYPE));
        assert_eq!((View::shape(&host), View::data_len(&host)), (shape, bytes.len()));
        let twin = pollster::block_on(tensor.to_safetensors_async()).expect("the twin");
        assert_eq!(twin.bytes(), host.bytes());
    }
    // Views: dense within a larger storage, with gaps, repeating.
    let x = Tensor::from_slice(device, &values::<T>(60), &[3, 4, 5]).expect("a tensor");
    let views = [x.narrow(0, 1..3), x.narrow(2, 1..4), x.permute(&[2, 0, 1]), x.narrow(1, 3..4).and_then(|x| x.broadcast_to(&[3, 2, 5]))];
    for view in views {
        let view = view.expect("a view");
        let host = view.to_safetensors().expect("out");
        assert_eq!(host.bytes(), bytes_of(&view.to_vec::<T>().expect("elements")), "{view:?}");
        assert_eq!(host.shape(), view.shape());
    }
}

#[test]
fn safetensors_in_and_out() {
    every!(safetensors_keep);
}

/// A whole file: every dtype from every device, parsed by the crate that others use.
#[test]
fn safetensors_file() {
    for device in devices() {
        let path = std::env::temp_dir().join(format!("gristmill-interop-{}.safetensors", std::process::id()));
        let all = [
            ("a", Tensor::from_slice(device, &values::<f32>(30), &[5, 6])),
            ("b", Tensor::from_slice(device, &values::<f16>(9), &[9])),
            ("c", Tensor::from_slice(device, &values::<bf16>(3), &[3, 1])),
            ("d", Tensor::from_slice(device, &values::<i32>(2), &[2])),
            ("e", Tensor::from_slice(device, &values::<u32>(5), &[5])),
            ("f", Tensor::from_slice(device, &values::<u8>(7), &[7])),
            ("g", Tensor::from_slice(device, &values::<bool>(7), &[7])),
            ("h", Tensor::zeros(device, DType::F16, &[0, 3])),
        ];
        let hosts: Vec<_> = all.into_iter().map(|(name, x)| (name, x.and_then(|x| x.to_safetensors()).expect("a host tensor"))).collect();
        // Borrowed views, and owned ones.
        let in_memory = safetensors::serialize(hosts.iter().map(|(name, host)| (*name, host)), None).expect("serialised");
        let wanted: Vec<_> = hosts.iter().map(|(_, host)| (host.shape().to_vec(), host.bytes().to_vec(), View::dtype(host))).collect();
        safetensors::serialize_to_file(hosts, None, &path).expect("written");
        let file = std::fs::read(&path).expect("read");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(file, in_memory);
        let parsed = SafeTensors::deserialize(&file).expect("parsed");
        assert_eq!(parsed.len(), 8);
        for (name, (shape, bytes, dtype)) in ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().zip(wanted) {
            let view = parsed.tensor(name).expect("there");
            assert_eq!((view.dtype(), view.shape(), view.data()), (dtype, &shape[..], &bytes[..]), "{name}");
            let again = Tensor::from_safetensors(device, &view).and_then(|x| x.to_safetensors()).expect("round");
            assert_eq!(again.bytes(), bytes, "{name}");
        }
    }
}

/// Two that are alive at once lie at one address: both are the storage. (`host_copies.rs` counts what is allocated.)
#[test]
fn safetensors_borrow_the_storage() {
    let x = Tensor::from_slice(&Device::cpu(), &values::<f32>(60), &[5, 12]).expect("a tensor");
    let (one, two) = (x.to_safetensors().expect("out"), x.reshape(&[60]).and_then(|x| x.to_safetensors()).expect("out"));
    let Cow::Borrowed(data) = View::data(&one) else { panic!("a copy") };
    assert_eq!(data.as_ptr(), two.bytes().as_ptr());
    let part = x.narrow(0, 2..4).and_then(|x| x.to_safetensors()).expect("out");
    assert_eq!(part.bytes().as_ptr(), data[2 * 12 * 4..].as_ptr());
    assert_eq!(part.bytes().len(), 2 * 12 * 4);
}

/// What was asked for stays as it was, whatever is written after; the storage goes on without it.
fn snapshot_stays<T: Sample>(device: &Device) {
    let list = values::<T>(24);
    let x = Tensor::from_slice(device, &list, &[4, 6]).expect("a tensor");
    let host = x.to_safetensors().expect("out");
    let other: Vec<T> = list.iter().rev().copied().collect();
    ops::copy_into(&mut x.clone(), &Tensor::from_slice(device, &other, &[4, 6]).expect("a tensor")).expect("a copy");
    assert_eq!(host.bytes(), bytes_of(&list), "on {device}");
    assert_eq!(held::<T>(&x).1, bits(&other), "on {device}");
    drop(x);
    assert_eq!(host.bytes(), bytes_of(&list), "on {device}");
}

#[test]
fn safetensors_are_snapshots() {
    every!(snapshot_stays);
}

/// Any byte but 0 is true; only 1 goes out.
#[test]
fn odd_bools() {
    let bytes = [0u8, 1, 2, 255, 0, 128];
    for device in devices() {
        let view = TensorView::new(Dtype::BOOL, vec![6], &bytes).expect("a view");
        let x = Tensor::from_safetensors(device, &view).expect("in");
        assert_eq!(x.to_vec::<bool>().expect("elements"), [false, true, true, true, false, true], "{device}");
        assert_eq!(ops::cast(&x, DType::U8).and_then(|x| x.to_vec::<u8>()).expect("a cast"), [0, 1, 1, 1, 0, 1], "{device}");
        // Every true is the same true, whatever its byte.
        let ones = Tensor::full(device, true, &[6]).expect("a tensor");
        let same = |t: gristmill::Result<Tensor>| t.and_then(|t| t.to_vec::<bool>()).expect("an op");
        assert_eq!(same(ops::eq(&x, &ones)), [false, true, true, true, false, true], "{device}");
        assert_eq!(same(ops::ne(&x, &ones)), [true, false, false, false, true, false], "{device}");
        assert_eq!(ops::sum(&x, &[0], false).and_then(|t| t.to_vec::<u32>()).expect("a sum"), [4], "{device}");
        assert_eq!(same(ops::amin(&x.narrow(0, 1..4).expect("a view"), &[0], false)), [true], "{device}");
        assert_eq!(ops::argmax(&x, 0, false).and_then(|t| t.to_vec::<u32>()).expect("a place"), [1], "{device}");
        let (yes, no) = (Tensor::full(device, 1.0f32, &[6]), Tensor::full(device, 0.0f32, &[6]));
        let chosen = ops::where_cond(&x, &yes.expect("a tensor"), &no.expect("a tensor")).and_then(|t| t.to_vec::<f32>());
        assert_eq!(chosen.expect("a choice"), [0.0, 1.0, 1.0, 1.0, 0.0, 1.0], "{device}");
        assert_eq!(x.to_safetensors().expect("out").bytes(), [0, 1, 1, 1, 0, 1], "{device}");
        let file = npy_of(&x);
        assert!(file.ends_with(&[0, 1, 1, 1, 0, 1]), "{device}");
        let end = file.len() - 1;
        let mut odd = file;
        odd[end] = 77;
        let again = Tensor::read_npy(device, &odd[..]).expect("in");
        assert_eq!(again.to_vec::<bool>().expect("elements"), [false, true, true, true, false, true], "{device}");
        assert_eq!(ops::cast(&again, DType::U8).and_then(|x| x.to_vec::<u8>()).expect("a cast"), [0, 1, 1, 1, 0, 1], "{device}");
    }
}

#[test]
fn safetensors_refused() {
    for device in devices() {
        let others = [
            (Dtype::F64, 8),
            (Dtype::I64, 8),
            (Dtype::U64, 8),
            (Dtype::C64, 8),
            (Dtype::I16, 2),
            (Dtype::U16, 2),
            (Dtype::I8, 1),
            (Dtype::F8_E4M3, 1),
            (Dtype::F8_E5M2, 1),
            (Dtype::F8_E8M0, 1),
        ];
        for (dtype, size) in others {
            let bytes = vec![0; 6 * size];
            let view = TensorView::new(dtype, vec![2, 3], &bytes).expect("a view");
            let error = Tensor::from_safetensors(device, &view).expect_err("refused");
            assert!(matches!(error, Error::Format { .. }), "{error}");
            let shown = text(&error);
            assert!(shown.starts_with("Tensor::from_safetensors") && shown.contains(&format!("dtype {dtype}")), "{shown}");
            assert!(shown.contains("convert it") && shown.contains("BF16"), "{shown}");
        }
        let packed = TensorView::new(Dtype::F4, vec![2, 3], &[0; 3]).expect("a view");
        assert!(matches!(Tensor::from_safetensors(device, &packed), Err(Error::Format { .. })));
        let deep = TensorView::new(Dtype::F32, vec![1; 7], &[0; 4]).expect("a view");
        assert!(matches!(Tensor::from_safetensors(device, &deep), Err(Error::TooLarge { limit_name: "axes", .. })));
        // Nothing in it, and yet too large. (What overflows, `TensorView::new` panics on here; the unit tests have that.)
        for shape in [vec![0, usize::MAX], vec![usize::MAX, 0], vec![0, 1 << 32, 1 << 32]] {
            let huge = TensorView::new(Dtype::U8, shape, &[]).expect("a view");
            assert!(matches!(Tensor::from_safetensors(device, &huge), Err(Error::TooLarge { .. })));
        }
    }
}

// ---- .npy ----

fn npy_of(tensor: &Tensor) -> Vec<u8> {
    let mut file = Vec::new();
    tensor.write_npy(&mut file).expect("written");
    file
}

/// A file as NumPy writes it.
fn npy(version: u8, dict: &str, data: &[u8]) -> Vec<u8> {
    let mut file = vec![0x93];
    file.extend(b"NUMPY");
    file.extend([version, 0]);
    let width = if version == 1 { 2 } else { 4 };
    let bare = file.len() + width + dict.len() + 1;
    let header = format!("{dict}{}\n", " ".repeat(bare.next_multiple_of(64) - bare));
    file.extend(&(header.len() as u32).to_le_bytes()[..width]);
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn dict(descr: &str, fortran: bool, shape: &str) -> String {
    let fortran = if fortran { "True" } else { "False" };
    format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}")
}

fn code(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f4",
        DType::F16 => "f2",
        DType::I32 => "i4",
        DType::U32 => "u4",
        DType::U8 => "u1",
        DType::Bool => "b1",
        _ => unreachable!("{dtype}"),
    }
}

fn npy_keeps<T: Sample>(device: &Device) {
    if T::DTYPE == DType::BF16 {
        return;
    }
    for (shape, tuple) in [
        (&[][..], "()"),
        (&[7], "(7,)"),
        (&[2, 3, 5], "(2, 3, 5)"),
        (&[2, 1, 2, 1, 2, 3], "(2, 1, 2, 1, 2, 3)"),
        (&[0], "(0,)"),
        (&[4, 0, 2], "(4, 0, 2)"),
    ] {
        let list = values::<T>(shape.iter().product());
        let wanted = (shape.to_vec(), bits(&list));
        let x = Tensor::from_slice(device, &list, shape).expect("a tensor");
        // Out and in.
        let file = npy_of(&x);
        assert_eq!(file.len() % 64, bytes_of(&list).len() % 64, "the data must begin at a multiple of 64");
        assert!(file.starts_with(b"\x93NUMPY\x01\x00") && file.ends_with(&bytes_of(&list)));
        let again = Tensor::read_npy(device, &file[..]).expect("in");
        assert_eq!((again.dtype(), held::<T>(&again)), (T::DTYPE, wanted.clone()), "{shape:?} on {device}");
        let mut twin = Vec::new();
        pollster::block_on(x.write_npy_async(&mut twin)).expect("the twin");
        assert_eq!(twin, file);

        // What others write: both byte orders, both orders of axes, each version.
        let little = bytes_of(&list);
        let size = size_of::<T>();
        let big: Vec<u8> = little.chunks(size).flat_map(|element| element.iter().rev().copied()).collect();
        let orders = if size == 1 { vec![("|", &little), ("<", &little), (">", &little)] } else { vec![("<", &little), (">", &big)] };
        for (order, data) in orders {
            let descr = format!("{order}{}", code(T::DTYPE));
            for version in [1, 2, 3] {
                let tensor = Tensor::read_npy(device, &npy(version, &dict(&descr, false, tuple), data)[..]).expect("in");
                assert_eq!(held::<T>(&tensor), wanted, "{descr} {shape:?} version {version} on {device}");
            }
            // In Fortran order the same bytes are the elements of the reversed shape.
            let tensor = Tensor::read_npy(device, &npy(1, &dict(&descr, true, tuple), data)[..]).expect("in");
            let reversed: Vec<usize> = shape.iter().rev().copied().collect();
            let turned = ArrayD::from_shape_vec(IxDyn(&reversed), list.clone()).expect("an array").reversed_axes();
            assert_eq!(held::<T>(&tensor), (shape.to_vec(), turned.iter().map(|v| v.bits()).collect()), "Fortran {shape:?} on {device}");
        }
    }
    // Views go out row-major.
    let x = Tensor::from_slice(device, &values::<T>(60), &[3, 4, 5]).expect("a tensor");
    for view in [x.narrow(0, 1..3), x.narrow(2, 1..4), x.permute(&[2, 0, 1]), x.narrow(0, 1..2).and_then(|x| x.broadcast_to(&[2, 4, 5]))] {
        let view = view.expect("a view");
        let again = Tensor::read_npy(device, &npy_of(&view)[..]).expect("in");
        assert_eq!(held::<T>(&again), held::<T>(&view), "{view:?}");
    }
}

#[test]
fn npy_in_and_out() {
    every!(npy_keeps);
}

/// Byte for byte what `numpy.save` (2.4) writes of `numpy.array([[1.5, -2.0], [0.1, 65504.0]], numpy.float16)`.
#[test]
fn npy_as_numpy_writes_it() {
    let mut file = b"\x93NUMPY\x01\x00v\x00{'descr': '<f2', 'fortran_order': False, 'shape': (2, 2), }".to_vec();
    file.resize(127, b' ');
    file.extend(b"\n\x00\x3e\x00\xc0\x66\x2e\xff\x7b");
    let x = Tensor::read_npy(&Device::cpu(), &file[..]).expect("in");
    assert_eq!(x.to_vec::<f16>().expect("elements"), [1.5f32, -2.0, 0.1, 65504.0].map(f16::from_f32));
    let again = npy_of(&x);
    assert_eq!((again.len(), &again[128..]), (file.len(), &file[128..]));
    // Another's independent reader.
    let other: ndarray::Array2<i32> = {
        let x = Tensor::from_slice(&Device::cpu(), &[1i32, -2, 3, i32::MIN], &[2, 2]).expect("a tensor");
        ndarray_npy::ReadNpyExt::read_npy(&npy_of(&x)[..]).expect("read")
    };
    assert_eq!(other, ndarray::array![[1, -2], [3, i32::MIN]]);
}

/// One array behind another, from a reader that gives a byte at a time; nothing beyond is taken.
#[test]
fn npy_streams() {
    struct Drip<'a>(&'a [u8]);
    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }
    let device = Device::cpu();
    let (a, b) = (values::<f32>(1000), values::<u8>(3));
    let mut file = npy_of(&Tensor::from_slice(&device, &a, &[1000]).expect("a tensor"));
    Tensor::from_slice(&device, &b, &[3]).expect("a tensor").write_npy(&mut file).expect("written");
    file.extend(b"more");
    let mut drip = Drip(&file);
    assert_eq!(held::<f32>(&Tensor::read_npy(&device, &mut drip).expect("the first")).1, bits(&a));
    assert_eq!(held::<u8>(&Tensor::read_npy(&device, &mut drip).expect("the second")).1, bits(&b));
    assert_eq!(drip.0, b"more");
    // More than one piece of memory: 9 MiB and a bit.
    let long = values::<u32>(2_400_001);
    let x = Tensor::from_slice(&device, &long, &[2_400_001]).expect("a tensor");
    for device in devices() {
        assert!(held::<u32>(&Tensor::read_npy(device, &npy_of(&x)[..]).expect("in")).1 == bits(&long), "{device}");
    }
}

#[test]
fn npy_refused() {
    let device = Device::cpu();
    let refused = |file: &[u8]| Tensor::read_npy(&device, file).expect_err("it must be refused");
    let is_format = |error: &Error, says: &str| {
        let shown = text(error);
        assert!(matches!(error, Error::Format { .. }), "{shown}");
        assert!(shown.starts_with("Tensor::read_npy: ") && shown.contains(says), "{shown:?} must say {says:?}");
    };

    // Cut short anywhere.
    let whole = npy(1, &dict("<f4", false, "(2, 3)"), &[7; 24]);
    for cut in 0..whole.len() {
        is_format(&refused(&whole[..cut]), if cut < 128 { "within the header" } else { "before the 24 bytes of f32[2, 3]" });
    }
    // Types that are not here, by name.
    for descr in ["<f8", "<i8", "<u8", "<i2", ">u2", "|i1", "<c8", "<V2", "|O", "<U3", "|S7", "<M8[ns]", "|f4", "=f4", "f4", "", "é4"] {
        let version = if descr.is_ascii() { 1 } else { 3 };
        let error = refused(&npy(version, &dict(descr, false, "(2,)"), &[0; 64]));
        is_format(&error, &format!("there is no tensor of its type, {descr}"));
        assert!(text(&error).contains("astype(numpy.float32)"));
    }
    let structure = "{'descr': [('a', '<f4', (2,)), ('b', '<i4')], 'fortran_order': False, 'shape': (2,), }";
    is_format(&refused(&npy(1, structure, &[0; 64])), "a structure");
    // No .npy at all.
    is_format(&refused(b"PK\x03\x04 this is an npz archive"), "does not begin as .npy files do");
    for dict in [
        "",
        "{}",
        "[]",
        "{'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
        "{'descr': 4, 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} and more",
        "\\x00\x01",
    ] {
        is_format(&refused(&npy(1, dict, &[0; 64])), "");
    }
    is_format(&refused(&npy(4, &dict("<f4", false, "(1,)"), &[0; 4])), "version");
    // A header that would take 4 GiB, and ones that take a naive parser years.
    is_format(&refused(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'"), "4294967295 bytes");
    for bracket in ["{", "[", "("] {
        is_format(&refused(&npy(1, &bracket.repeat(5000), &[])), "not that of an array of numbers");
    }

    // Shapes that lie: no memory is taken for what does not come.
    is_format(&refused(&npy(1, &dict("<f4", false, "(1099511627776,)"), &[1; 100])), "before the 4398046511104 bytes");
    for shape in ["(4294967296, 4294967296)", "(18446744073709551615,)", "(0, 18446744073709551615)", "(4294967296, 4294967296, 0)"] {
        let error = refused(&npy(1, &dict("|u1", false, shape), &[1; 100]));
        assert!(matches!(error, Error::TooLarge { .. }), "{shape}: {error}");
    }
    let error = refused(&npy(1, &dict("|u1", false, "(1, 1, 1, 1, 1, 1, 1)"), &[1]));
    assert!(matches!(error, Error::TooLarge { limit_name: "axes", .. }), "{error}");
}

/// NumPy has no bf16; f32 holds each.
#[test]
fn npy_without_bf16() {
    for device in devices() {
        let list = values::<bf16>(30);
        let x = Tensor::from_slice(device, &list, &[30]).expect("a tensor");
        let mut file = Vec::new();
        let error = x.write_npy(&mut file).expect_err("refused");
        assert!(matches!(error, Error::DType { op: "Tensor::write_npy", .. }), "{error}");
        assert!(text(&error).contains("bf16[30]") && text(&error).contains("f32 (which holds every bf16)"), "{error}");
        assert!(text(&error).ends_with("use `cast`") && file.is_empty());
        let wide = ops::cast(&x, DType::F32).expect("a cast");
        let again = Tensor::read_npy(device, &npy_of(&wide)[..]).and_then(|x| ops::cast(&x, DType::BF16)).expect("round");
        let numbers: Vec<_> = list.iter().zip(again.to_vec::<bf16>().expect("elements")).filter(|(v, _)| !v.is_nan()).collect();
        assert!(numbers.len() > 20 && numbers.iter().all(|(v, w)| v.to_bits() == w.to_bits()), "{device}");
    }
}

/// Readers and writers that fail: their own kind of error comes through.
#[test]
fn npy_io_errors() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let file = npy(1, &dict("<f4", false, "(1000,)"), &[0; 4000]);
            let count = buffer.len().min(self.0);
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the line went dead"));
            }
            let start = 1000 - self.0;
            buffer[..count].copy_from_slice(&file[start..start + count]);
            self.0 -= count;
            Ok(count)
        }
    }
    impl Write for Broken {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.0);
            self.0 -= count;
            if count == 0 { Err(io::Error::new(io::ErrorKind::StorageFull, "no room")) } else { Ok(count) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    /// Takes everything; fails when flushed, as a `BufWriter` over a full disk does.
    struct Late;
    impl Write for Late {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::Error::new(io::ErrorKind::StorageFull, "no room"))
        }
    }
    let device = Device::cpu();
    let error = Tensor::read_npy(&device, Broken(1000)).expect_err("broken");
    assert!(matches!(error, Error::Io { op: "Tensor::read_npy", kind: io::ErrorKind::ConnectionReset, .. }), "{error}");
    assert!(text(&error).contains("the line went dead"));
    let x = Tensor::zeros(&device, DType::F32, &[300]).expect("a tensor");
    for room in [0, 60, 128, 500, 1327] {
        let error = x.write_npy(Broken(room)).expect_err("broken");
        assert!(matches!(error, Error::Io { op: "Tensor::write_npy", kind: io::ErrorKind::StorageFull, .. }), "{error}");
    }
    x.write_npy(Broken(1328)).expect("just enough room");
    assert!(matches!(x.write_npy(Late), Err(Error::Io { kind: io::ErrorKind::StorageFull, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Whatever the bytes: a tensor or an error, never a panic, and soon.
    #[test]
    fn npy_of_noise(
        noise in proptest::collection::vec((0usize..140, any::<u8>()), 0..6),
        pieces in proptest::collection::vec(proptest::sample::select(
            vec!["{", "}", "(", ")", "[", "]", "'", "descr", "shape", "fortran_order", ":", ",", "<f4", "True", "-", "1", "9e999", "2j", "\\", "\\x", "None", "b'", "\"\"\"", " "],
        ), 0..60),
        version in 0u8..5,
    ) {
        let mut damaged = npy(1, &dict("<f4", true, "(2, 1)"), &[1; 8]);
        let end = damaged.len();
        for (at, byte) in noise {
            damaged[at.min(end - 1)] = byte;
        }
        let _ = Tensor::read_npy(&Device::cpu(), &damaged[..]);
        let _ = Tensor::read_npy(&Device::cpu(), &npy(version, &pieces.concat(), &[0; 8])[..]);
    }
}
