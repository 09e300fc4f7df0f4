//! A folder of cases: `manifest.json`, and a safetensors file for each case. Nothing in them is trusted.

use std::path::{Component, Path, PathBuf};

use gristmill::{DType, Device, Element, MAX_RANK, Tensor};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Map, Value};

use crate::compare::rounded;

/// Why a case did not pass.
#[derive(Debug)]
pub enum Stop {
    /// The crate does not offer what the case needs. The reason names no sizes or values, so that equal ones can be counted.
    Unsupported(String),
    /// The result is wrong, or the case is not what its manifest says.
    Fail(String),
}

/// The result, or why there is none.
pub type Outcome<T> = Result<T, Stop>;

/// What is not offered, as a [`Stop`].
pub fn unsupported(reason: impl Into<String>) -> Stop {
    Stop::Unsupported(reason.into())
}

/// What is wrong, as a [`Stop`].
pub fn fail(problem: impl Into<String>) -> Stop {
    Stop::Fail(problem.into())
}

impl From<gristmill::Error> for Stop {
    fn from(error: gristmill::Error) -> Self {
        match error {
            gristmill::Error::TooLarge { .. } => unsupported("a limit of the device is exceeded"),
            error => fail(error.to_string()),
        }
    }
}

/// One entry of a manifest.
pub struct Case {
    name: String,
    folder: PathBuf,
    entry: Value,
}

impl Case {
    /// The cases of a folder.
    pub fn all(folder: &Path) -> Result<Vec<Case>, String> {
        let path = folder.join("manifest.json");
        let problem = |what: String| format!("{}: {what}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|e| problem(e.to_string()))?;
        let mut manifest: Value = serde_json::from_str(&text).map_err(|e| problem(e.to_string()))?;
        let Some(Value::Array(tests)) = manifest.get_mut("tests").map(Value::take) else {
            return Err(problem("has no list `tests`".into()));
        };
        let case = |(i, entry): (usize, Value)| {
            let name = entry.get("name").and_then(Value::as_str).map_or(format!("case {i}"), |n| n.replace(char::is_control, " "));
            Case { name, folder: folder.to_path_buf(), entry }
        };
        Ok(tests.into_iter().enumerate().map(case).collect())
    }

    /// The case's name, or its place in the manifest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A field of the entry.
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.entry.get(key)
    }

    /// A field that must be there and be text.
    pub fn text(&self, key: &str) -> Outcome<&str> {
        self.field(key).and_then(Value::as_str).ok_or_else(|| fail(format!("manifest: no text `{key}`")))
    }

    /// Whether the results must be equal to the golden ones.
    pub fn exact(&self) -> bool {
        self.field("exact") == Some(&Value::Bool(true))
    }

    /// The operation's attributes, whose names must be among `known`; others that are null or false say nothing and may be there.
    pub fn attributes(&self, known: &[&str]) -> Outcome<Attributes<'_>> {
        let op = self.text("op")?;
        let values = self.field("attributes").and_then(Value::as_object);
        let values = values.ok_or_else(|| fail("manifest: no `attributes`"))?;
        let silent = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        match values.iter().find(|(name, value)| !known.contains(&name.as_str()) && !silent(value)) {
            Some((name, _)) => Err(unsupported(format!("{op}: attribute {name} is not offered"))),
            None => Ok(Attributes { op, values }),
        }
    }

    /// The tensors listed under `inputs` or `outputs`; `None` stands for an omitted one.
    pub fn tensors(&self, key: &str) -> Outcome<Vec<Option<Arg>>> {
        let list = self.field(key).and_then(Value::as_array).ok_or_else(|| fail(format!("manifest: no list `{key}`")))?;
        list.iter().map(Arg::parse).collect()
    }

    /// The bytes of the case's file.
    pub fn read(&self) -> Outcome<Vec<u8>> {
        let file = Path::new(self.text("file")?);
        if !file.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(fail(format!("manifest: {} leads out of the folder", file.display())));
        }
        std::fs::read(self.folder.join(file)).map_err(|e| fail(format!("{}: {e}", file.display())))
    }
}

/// The attributes of a case.
pub struct Attributes<'a> {
    op: &'a str,
    values: &'a Map<String, Value>,
}

impl<'a> Attributes<'a> {
    /// The operation's name, for messages.
    pub fn op(&self) -> &'a str {
        self.op
    }

    fn get<T>(&self, name: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Outcome<Option<T>> {
        match self.values.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| fail(format!("manifest: attribute {name} is not {kind}"))),
        }
    }

    /// An integer; true counts as 1.
    pub fn int(&self, name: &str) -> Outcome<Option<i64>> {
        self.get(name, "an integer", |v| v.as_i64().or_else(|| v.as_bool().map(i64::from)))
    }

    /// An integer that counts something: not negative.
    pub fn count(&self, name: &str) -> Outcome<Option<usize>> {
        self.get(name, "a count", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// Whether an attribute is 1 or true.
    pub fn flag(&self, name: &str) -> Outcome<bool> {
        Ok(self.int(name)?.is_some_and(|n| n != 0))
    }

    /// A number; those that are not finite are text.
    pub fn number(&self, name: &str) -> Outcome<Option<f64>> {
        self.get(name, "a number", number)
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Outcome<Option<Vec<i64>>> {
        self.get(name, "a list of integers", |v| v.as_array()?.iter().map(Value::as_i64).collect())
    }

    /// A text.
    pub fn text(&self, name: &str) -> Outcome<Option<&'a str>> {
        self.get(name, "text", Value::as_str)
    }
}

/// A JSON number, or the text of one that is not finite.
pub fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// A tensor as the manifest describes it.
#[derive(Debug)]
pub struct Arg {
    /// The argument's name.
    pub name: String,
    /// The key in the file.
    key: String,
    /// The logical element type.
    pub dtype: String,
    /// The stored element type.
    storage: String,
    /// The size of each axis.
    pub shape: Vec<usize>,
}

impl Arg {
    fn parse(value: &Value) -> Outcome<Option<Arg>> {
        if value.is_null() {
            return Ok(None);
        }
        let text = |key: &str| {
            let text = value.get(key).and_then(Value::as_str);
            text.map(str::to_string).ok_or_else(|| fail(format!("manifest: a tensor without text `{key}`")))
        };
        let axes = value.get("shape").and_then(Value::as_array);
        let shape = axes.and_then(|axes| axes.iter().map(|n| usize::try_from(n.as_u64()?).ok()).collect());
        let key = text("tensor")?;
        let named = text("name").or_else(|_| text("formal"));
        let shape: Vec<usize> = shape.ok_or_else(|| fail(format!("manifest: {key} without a shape")))?;
        let (dtype, storage) = (text("dtype")?, text("storage")?);
        if shape.len() > MAX_RANK {
            return Err(unsupported("more axes than a tensor has"));
        }
        Ok(Some(Arg { name: named.unwrap_or_else(|_| key.clone()), key, dtype, storage, shape }))
    }

    /// The key in the file, without its prefix: for outputs whose name the op gives to several.
    pub fn label(&self) -> &str {
        self.key.strip_prefix("out.").unwrap_or(&self.key)
    }

    /// The crate's type for the logical type.
    pub fn offered(&self) -> Outcome<DType> {
        let dtype = match self.dtype.as_str() {
            "float32" => DType::F32,
            "float16" => DType::F16,
            "bfloat16" => DType::BF16,
            "int32" => DType::I32,
            "uint32" => DType::U32,
            "uint8" => DType::U8,
            "bool" => DType::Bool,
            other => return Err(unsupported(format!("dtype {other} is not offered"))),
        };
        Ok(dtype)
    }

    /// The crate's type that holds the values: its own, or a wider integer for one that the crate lacks. Whoever takes it says so.
    pub fn carrier(&self) -> Outcome<DType> {
        match self.dtype.as_str() {
            "int8" | "int16" | "int64" | "uint16" => Ok(DType::I32),
            "uint64" => Ok(DType::U32),
            _ => self.offered(),
        }
    }

    /// A number as an integer type that the crate lacks would wrap it.
    pub fn wrapped(&self, number: f64) -> f64 {
        let range = match self.dtype.as_str() {
            "int8" => (-128.0, 256.0),
            "int16" => (-32_768.0, 65_536.0),
            "uint16" => (0.0, 65_536.0),
            _ => return number,
        };
        (number - range.0).rem_euclid(range.1) + range.0
    }
}

/// The tensors of a case's file.
pub struct Stored<'a> {
    file: SafeTensors<'a>,
}

impl<'a> Stored<'a> {
    /// Reads the header, which says where each tensor lies.
    pub fn open(bytes: &'a [u8]) -> Outcome<Self> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| fail(format!("the case's file: {e}")))?;
        Ok(Stored { file })
    }

    /// A tensor that is in the file as the manifest says.
    fn view(&self, arg: &Arg) -> Outcome<TensorView<'_>> {
        let view = self.file.tensor(&arg.key).map_err(|e| fail(format!("the case's file: {}: {e}", arg.key)))?;
        let storage = format!("{:?}", view.dtype());
        if storage != arg.storage || view.shape() != arg.shape {
            let (key, shape) = (&arg.key, view.shape());
            return Err(fail(format!("{key}: the manifest says {}{:?}, the file {storage}{shape:?}", arg.storage, arg.shape)));
        }
        Ok(view)
    }

    /// The elements as numbers; exact.
    pub fn numbers(&self, arg: &Arg) -> Outcome<Vec<f64>> {
        let view = self.view(arg)?;
        let data = view.data();
        Ok(match view.dtype() {
            Dtype::F64 => read(data, f64::from_le_bytes),
            Dtype::F32 => read(data, |b| f32::from_le_bytes(b).into()),
            Dtype::F16 => read(data, |b| f16::from_le_bytes(b).into()),
            Dtype::BF16 => read(data, |b| bf16::from_le_bytes(b).into()),
            Dtype::I32 => read(data, |b| i32::from_le_bytes(b).into()),
            Dtype::U32 => read(data, |b| u32::from_le_bytes(b).into()),
            Dtype::U16 => read(data, |b| u16::from_le_bytes(b).into()),
            Dtype::I8 if arg.dtype == "int8" => read(data, |b| i8::from_le_bytes(b).into()),
            Dtype::I16 => read(data, |b| i16::from_le_bytes(b).into()),
            // Up to 2^53, and more is refused where it is carried.
            Dtype::I64 => read(data, |b| i64::from_le_bytes(b) as f64),
            Dtype::U64 => read(data, |b| u64::from_le_bytes(b) as f64),
            Dtype::U8 => read(data, |[b]| b.into()),
            Dtype::BOOL => read(data, |[b]| f64::from(b != 0)),
            _ => return Err(unsupported(format!("dtype {} is not offered", arg.dtype))),
        })
    }

    /// The elements of a tensor of indices or sizes.
    pub fn integers(&self, arg: &Arg) -> Outcome<Vec<i64>> {
        let view = self.view(arg)?;
        match view.dtype() {
            Dtype::I64 => Ok(read(view.data(), i64::from_le_bytes)),
            Dtype::I32 => Ok(read(view.data(), |b| i32::from_le_bytes(b).into())),
            _ => Err(fail(format!("{}: not int32 or int64", arg.key))),
        }
    }

    /// The tensor on a device, in its own type.
    pub fn tensor(&self, arg: &Arg, device: &Device) -> Outcome<Tensor> {
        let dtype = arg.offered()?;
        let view = self.view(arg)?;
        let data = view.data();
        let shape = &arg.shape;
        let tensor = match (dtype, view.dtype()) {
            (DType::F32, Dtype::F32) => Tensor::from_slice(device, &read(data, f32::from_le_bytes), shape),
            (DType::F16, Dtype::F16) => Tensor::from_slice(device, &read(data, f16::from_le_bytes), shape),
            (DType::BF16, Dtype::BF16) => Tensor::from_slice(device, &read(data, bf16::from_le_bytes), shape),
            (DType::I32, Dtype::I32) => Tensor::from_slice(device, &read(data, i32::from_le_bytes), shape),
            (DType::U32, Dtype::U32) => Tensor::from_slice(device, &read(data, u32::from_le_bytes), shape),
            (DType::U8, Dtype::U8) => Tensor::from_slice(device, data, shape),
            (DType::Bool, Dtype::BOOL) => Tensor::from_slice(device, &read(data, |[b]| b != 0), shape),
            _ => return Err(fail(format!("{}: {} cannot be stored as {}", arg.key, arg.dtype, arg.storage))),
        };
        Ok(tensor?)
    }

    /// The tensor on a device in its carrier, if that holds every value.
    pub fn carried(&self, arg: &Arg, device: &Device) -> Outcome<Tensor> {
        if arg.offered().is_ok() {
            return self.tensor(arg, device);
        }
        let (dtype, numbers) = (arg.carrier()?, self.numbers(arg)?);
        let unheld = || unsupported(format!("{} values past 32 bits are not offered", arg.dtype));
        if dtype == DType::U32 {
            let values: Option<Vec<u32>> = numbers.iter().map(|&n| (n <= f64::from(u32::MAX)).then_some(n as u32)).collect();
            return Ok(Tensor::from_slice(device, &values.ok_or_else(unheld)?, &arg.shape)?);
        }
        let fits = |n: f64| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&n);
        let values: Option<Vec<i32>> = numbers.iter().map(|&n| fits(n).then_some(n as i32)).collect();
        Ok(Tensor::from_slice(device, &values.ok_or_else(unheld)?, &arg.shape)?)
    }

    /// Whether every element is exact in a type.
    pub fn exact_in(&self, arg: &Arg, dtype: DType) -> Outcome<bool> {
        Ok(self.numbers(arg)?.iter().all(|&n| n.is_nan() || rounded(dtype, n) == n))
    }

    /// The tensor on a device as a float type that it is exact in.
    pub fn float(&self, arg: &Arg, device: &Device, dtype: DType) -> Outcome<Tensor> {
        let numbers = self.numbers(arg)?;
        match dtype {
            DType::F32 => floats::<f32>(&numbers, arg, device),
            DType::F16 => floats::<f16>(&numbers, arg, device),
            DType::BF16 => floats::<bf16>(&numbers, arg, device),
            other => Err(unsupported(format!("arithmetic in {other} is not offered"))),
        }
    }
}

fn floats<T: Element>(numbers: &[f64], arg: &Arg, device: &Device) -> Outcome<Tensor> {
    let values: Vec<T> = numbers.iter().map(|&n| T::from_f64(n)).collect();
    Ok(Tensor::from_slice(device, &values, &arg.shape)?)
}

/// Little-endian elements of `N` bytes.
fn read<const N: usize, T>(bytes: &[u8], element: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| element(chunk)).collect()
}
