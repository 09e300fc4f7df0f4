//! Kernels and dispatches are data: [`Kernel`], [`Spec`], [`Dispatch`] and the [`Sink`] that takes them.

use std::fmt;

use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::{DType, Layout};

/// How a kernel uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

/// One `@binding` of a kernel, in order from 0.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// The WGSL variable's name, and the argument's in Rust.
    pub name: &'static str,
    /// How it is used.
    pub access: Access,
    /// The WGSL `const` that takes the binding's dtype code, where the kernel serves several types.
    pub dtype_const: Option<&'static str>,
}

impl Binding {
    /// A binding of one dtype, or of several that the text need not know.
    pub const fn new(name: &'static str, access: Access) -> Self {
        Binding { name, access, dtype_const: None }
    }

    /// A binding whose dtype code is written into `dtype_const`.
    pub const fn typed(name: &'static str, access: Access, dtype_const: &'static str) -> Self {
        Binding { name, access, dtype_const: Some(dtype_const) }
    }
}

/// How a kernel reaches its storage bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Width {
    /// As its text says.
    Fixed,
    /// As `array<Word>` with a u32 for `Word`: any offsets, strides and lengths.
    Scalar,
    /// As `array<Word>` with 16 bytes for `Word`: where the host has proven that runs begin at multiples of 8 elements and hold whole
    /// eights ([`runs`]).
    Vector,
}

impl Width {
    /// `Vector` where it is proven.
    pub const fn of(proven: bool) -> Self {
        if proven { Width::Vector } else { Width::Scalar }
    }

    /// The WGSL file that declares `Word`.
    pub const fn lib(self) -> Option<&'static str> {
        match self {
            Width::Fixed => None,
            Width::Scalar => Some(include_str!("../../shaders/lib/word_scalar.wgsl")),
            Width::Vector => Some(include_str!("../../shaders/lib/word_vector.wgsl")),
        }
    }
}

/// What a kernel asks of a device beyond WebGPU's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Cooperative matrices ([`Caps::cooperative`]), of f16 into f32. The constant `COOP` of a tune, 8 or 16, is their side: the WGSL file that
    /// declares them (`Left`, `Right`, `Sum`) is appended by it, as WGSL's constants choose no types.
    Matrices,
    /// Subgroup operations ([`Caps::subgroups`]).
    Subgroups,
}

impl Needs {
    /// Whether a device has it.
    pub const fn met(self, caps: &Caps) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Matrices => caps.cooperative.is_some(),
            Needs::Subgroups => caps.subgroups.is_some(),
        }
    }

    /// What it is, and where a device says that it has it.
    const fn called(self) -> (&'static str, &'static str) {
        match self {
            Needs::Nothing => ("nothing", "look at `Caps`"),
            Needs::Matrices => ("cooperative matrices", "look at `Caps::cooperative`, and choose another kernel"),
            Needs::Subgroups => ("subgroup operations", "look at `Caps::subgroups`, and choose another kernel"),
        }
    }

    /// The extensions that WGSL is to enable, as naga 30 names them.
    pub const fn extensions(self) -> &'static [&'static str] {
        match self {
            // Of subgroups naga takes no such line.
            Needs::Nothing | Needs::Subgroups => &[],
            Needs::Matrices => &["f16", "wgpu_cooperative_matrix"],
        }
    }

    /// The WGSL files of which one is appended to such a kernel, by the tune.
    pub const fn libs(self) -> &'static [&'static str] {
        match self {
            Needs::Nothing | Needs::Subgroups => &[],
            Needs::Matrices => &[include_str!("../../shaders/lib/coop_8.wgsl"), include_str!("../../shaders/lib/coop_16.wgsl")],
        }
    }
}

/// Whether every run along `axis` begins at a multiple of `unit` elements and holds whole units, or is one element repeated where `splat`
/// says that the kernel takes those. Units of 8 are what a kernel of [`Width::Vector`] asks of its operands.
pub fn runs(layout: &Layout, axis: usize, unit: usize, splat: bool) -> bool {
    let whole = |n: usize| n.is_multiple_of(unit);
    let (dims, strides) = (layout.dims(), layout.strides());
    let Some(&len) = dims.get(axis) else { return false };
    if splat && strides[axis] == 0 && whole(len) {
        return true;
    }
    let others = (0..layout.rank()).all(|other| other == axis || dims[other] == 1 || whole(strides[other]));
    whole(len) && strides[axis] == 1 && whole(layout.offset()) && others
}

/// A named set of WGSL `const`s that the host writes before it compiles.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Constants {
    /// Part of the spec's name: lower case, without dots.
    pub name: &'static str,
    /// Each must be declared exactly once, as `const NAME: u32 = …;`.
    pub values: &'static [(&'static str, u32)],
}

impl fmt::Display for Constants {
    /// A line a constant.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values.iter().try_for_each(|(name, value)| writeln!(f, "  {name} = {value}"))
    }
}

impl Constants {
    /// No constants at all, for kernels that have nothing to choose.
    pub const NONE: Constants = Constants { name: "", values: &[] };

    /// The value of one constant; `None` if this set does not give it.
    pub fn get(&self, name: &str) -> Option<u32> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }
}

/// One member of a kernel's `Params`, as Rust lays it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The member's name, the same in WGSL.
    pub name: &'static str,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// The Rust half of a shader's `Params`. Made by [`params!`](crate::params), never by hand.
pub trait Params: bytemuck::Pod {
    /// Every member, in order.
    const FIELDS: &'static [Field];
}

/// Declares a kernel's `Params` (`#[repr(C)]`, plain data) together with the list of its members, so that the two cannot drift apart.
#[macro_export]
macro_rules! params {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, ::bytemuck::Pod, ::bytemuck::Zeroable)]
        $vis struct $name { $($(#[$doc])* pub $field: $type,)* }
        impl $crate::gpu::Params for $name {
            const FIELDS: &'static [$crate::gpu::Field] = &[$($crate::gpu::Field {
                name: stringify!($field),
                offset: ::core::mem::offset_of!($name, $field),
                size: ::core::mem::size_of::<$type>(),
            },)*];
        }
    };
}

/// One WGSL kernel and what the host must agree with it about. Entry point `main`; storage bindings `@group(0) @binding(0..)` in the
/// order of `bindings`, then a uniform `Params`.
#[derive(Debug)]
pub struct Kernel {
    /// The file in `shaders/`, the label, the bench id.
    pub name: &'static str,
    /// The WGSL text.
    pub source: &'static str,
    /// Whole WGSL files of helpers, appended so that line numbers stay the kernel's own (but for the `enable` lines that `needs` puts before).
    pub libs: &'static [&'static str],
    /// The storage bindings.
    pub bindings: &'static [Binding],
    /// The members of `Params`.
    pub params: &'static [Field],
    /// Whether it writes every element of workgroup memory before it reads it. Only then is wgpu's zero-initialisation switched off, or a
    /// kernel could see what another process left there (CVE-2023-4969). Through GL it is a statement an element: llvmpipe of Mesa 25
    /// compiles attention for 86 s with it and for 5 s without.
    pub fills_workgroup_memory: bool,
    /// What it can be built to compute (one file serves a family); `[Constants::NONE]` if it is one thing.
    pub variants: &'static [Constants],
    /// How it can be built to compute it: tile sizes and the like.
    pub tunes: &'static [Constants],
    /// The element types it serves, one a binding.
    pub dtypes: &'static [&'static [DType]],
    /// The widths of `Word` it is built with; `[Width::Fixed]` if it has none.
    pub widths: &'static [Width],
    /// What a device must have for it; most need nothing.
    pub needs: Needs,
}

/// What a kernel is compiled for: together with the kernel, the pipeline cache's key. Problem sizes are never in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// One a binding.
    pub dtypes: &'static [DType],
    /// What it computes.
    pub variant: &'static Constants,
    /// How.
    pub tune: &'static Constants,
    /// How it reaches storage.
    pub width: Width,
}

impl fmt::Display for Spec {
    /// `f32.add.group256.vector`: the dtypes, once if they all agree, then the variant, the tune, and `vector` for that width.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.dtypes.first().map_or("none", |d| d.name());
        if self.dtypes.iter().all(|d| d.name() == first) {
            write!(f, "{first}")?;
        } else {
            let names: Vec<_> = self.dtypes.iter().map(|d| d.name()).collect();
            write!(f, "{}", names.join("-"))?;
        }
        let width = if self.width == Width::Vector { "vector" } else { "" };
        for part in [self.variant.name, self.tune.name, width] {
            if !part.is_empty() {
                write!(f, ".{part}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spec({self})")
    }
}

impl Spec {
    /// A constant of the tune or the variant; 0 if neither names it, which no tile size is.
    pub fn get(&self, name: &str) -> u32 {
        self.tune.get(name).or_else(|| self.variant.get(name)).unwrap_or(0)
    }
}

impl Kernel {
    /// Every spec that the kernel can ever be compiled for.
    pub fn specs(&'static self) -> impl Iterator<Item = Spec> {
        self.dtypes.iter().flat_map(move |&dtypes| {
            let widths = self.widths.iter().filter(move |&&width| self.offers(dtypes, width));
            widths.flat_map(move |&width| {
                let tunes = move |variant| self.tunes.iter().map(move |tune| Spec { dtypes, variant, tune, width });
                self.variants.iter().flat_map(tunes)
            })
        })
    }

    /// Whether it is built for these types in that width: types of a byte have no 16-byte form where the text depends on them.
    pub fn offers(&self, dtypes: &[DType], width: Width) -> bool {
        let bytes = |(binding, dtype): (&Binding, &DType)| binding.dtype_const.is_some() && dtype.block_bytes() == 1;
        self.widths.contains(&width) && !(width == Width::Vector && self.bindings.iter().zip(dtypes).any(bytes))
    }

    /// Its own list of these types. `None` if it is not built for them.
    pub fn types(&self, dtypes: &[DType]) -> Option<&'static [DType]> {
        self.dtypes.iter().copied().find(|own| *own == dtypes)
    }

    /// The tune of that name.
    pub fn tune(&'static self, name: &str) -> Option<&'static Constants> {
        self.tunes.iter().find(|tune| tune.name == name)
    }

    /// The final WGSL text for a spec: what the driver gets, and what the shader dump writes.
    pub fn compose(&self, spec: &Spec) -> Result<String> {
        let mut text: String = self.needs.extensions().iter().map(|extension| format!("enable {extension};\n")).collect();
        text.push_str(self.source);
        // Two there are: of matrices of 8 and of 16.
        let lib = self.needs.libs().get(usize::from(spec.get("COOP") == 16)).copied();
        for lib in self.libs.iter().copied().chain(lib).chain(spec.width.lib()) {
            text.push('\n');
            text.push_str(lib);
        }
        #[cfg(gristmill_mutation)]
        let mut text = mutate(text);
        let dtypes = self.bindings.iter().zip(spec.dtypes).filter_map(|(binding, dtype)| Some((binding.dtype_const?, dtype.code())));
        let chosen = spec.variant.values.iter().chain(spec.tune.values).copied();
        for (name, value) in dtypes.chain(chosen) {
            text = rewrite(&text, name, value).ok_or_else(|| Error::Rejected {
                op: self.name,
                device: "the host".into(),
                kernel: format!("{}.{spec}", self.name),
                message: format!("`const {name}: u32` is not declared exactly once"),
            })?;
        }
        Ok(text)
    }
}

/// For tests/mutation.sh: the text with one shader file's replaced by a mutant of it.
#[cfg(gristmill_mutation)]
fn mutate(text: String) -> String {
    let Some(folder) = std::env::var_os("GRISTMILL_MUTATION").map(std::path::PathBuf::from) else { return text };
    let read = |name| std::fs::read_to_string(folder.join(name)).expect("a folder with original.wgsl and mutant.wgsl");
    text.replacen(&read("original.wgsl"), &read("mutant.wgsl"), 1)
}

/// Gives `const name: u32` a new value. `None` unless it is declared exactly once, on a line of its own.
fn rewrite(text: &str, name: &str, value: u32) -> Option<String> {
    let head = format!("const {name}: u32 = ");
    let mut found = 0;
    let mut result = String::with_capacity(text.len());
    for line in text.lines() {
        match line.strip_prefix(&head).and_then(|rest| rest.split_once(';')) {
            Some((_, comment)) => {
                found += 1;
                result.push_str(&format!("{head}{value}u;{comment}"));
            }
            None => result.push_str(line),
        }
        result.push('\n');
    }
    (found == 1).then_some(result)
}

/// A choice made by the caller instead of by `select`: a kernel, and one of its tunes or any.
#[derive(Debug, Clone, Copy)]
pub struct Pin {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// The tune; `None` leaves it to `select`.
    pub tune: Option<&'static Constants>,
}

impl From<&'static Kernel> for Pin {
    fn from(kernel: &'static Kernel) -> Self {
        Pin { kernel, tune: None }
    }
}

impl From<(&'static Kernel, &'static Constants)> for Pin {
    fn from((kernel, tune): (&'static Kernel, &'static Constants)) -> Self {
        Pin { kernel, tune: Some(tune) }
    }
}

impl Pin {
    /// The pinned tune if the pin is for `kernel`. A pin for another op's kernel does not concern this one.
    ///
    /// # Errors
    /// [`Error::Argument`] if the tune is not one of the kernel's.
    pub fn tune_of(op: &'static str, pin: Option<Pin>, kernel: &'static Kernel) -> Result<Option<&'static Constants>> {
        let tune = pin.filter(|pin| std::ptr::eq(pin.kernel, kernel)).and_then(|pin| pin.tune);
        match tune {
            Some(tune) if !kernel.tunes.contains(tune) => Err(Error::Argument {
                op,
                argument: "the device's pin",
                problem: format!("has the tune {:?}, which {} does not", tune.name, kernel.name),
                help: "pin one of the kernel's own `tunes`",
            }),
            tune => Ok(tune),
        }
    }
}

/// Where a dispatch finds a buffer: in the list of arguments that its op was called with (`out` is 0), or in the plan's scratch list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arg {
    /// The n-th tensor of the call.
    Tensor(usize),
    /// The n-th scratch buffer of the plan.
    Scratch(usize),
}

/// One launch, complete but for the buffers: plain data that any [`Sink`] can take.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Which kernel.
    pub kernel: &'static Kernel,
    /// Compiled how.
    pub spec: Spec,
    /// One a binding.
    pub args: Vec<Arg>,
    /// The bytes of `Params`.
    pub params: Vec<u8>,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Bytes of tensors read and written at least once.
    pub bytes: u64,
    /// Floating point operations, a fused multiply-add counted as two.
    pub flops: u64,
}

impl Dispatch {
    /// What it takes at the most, by the throughput that the device is sure to have.
    pub fn milliseconds(&self, caps: &Caps) -> u64 {
        let of = |work: u64, rate: u64| u128::from(work) * 1000 / u128::from(rate.max(1));
        let total = of(self.flops, caps.throughput.flops) + of(self.bytes, caps.throughput.bytes);
        u64::try_from(total).unwrap_or(u64::MAX)
    }
}

/// What an op is on a GPU: dispatches in order, and the scratch buffers that they share.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In order; each sees what the ones before it wrote.
    pub dispatches: Vec<Dispatch>,
    /// Sizes in bytes.
    pub scratch: Vec<u64>,
}

impl Plan {
    /// The longest of its dispatches.
    pub fn milliseconds(&self, caps: &Caps) -> u64 {
        self.dispatches.iter().map(|dispatch| dispatch.milliseconds(caps)).max().unwrap_or(0)
    }

    /// This and then another of the same tensors. They share scratch buffers: each writes its own before it reads them.
    pub fn then(mut self, other: Plan) -> Plan {
        let shared = self.scratch.len().min(other.scratch.len());
        for (own, &size) in self.scratch.iter_mut().zip(&other.scratch) {
            *own = size.max(*own);
        }
        self.scratch.extend_from_slice(&other.scratch[shared..]);
        self.dispatches.extend(other.dispatches);
        self
    }
}

impl fmt::Display for Plan {
    /// A line a dispatch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for d in &self.dispatches {
            let [x, y, z] = d.grid;
            writeln!(f, "  {}.{}: {x} x {y} x {z} workgroups, {} bytes, {} FLOP", d.kernel.name, d.spec, d.bytes, d.flops)?;
        }
        Ok(())
    }
}

impl From<Dispatch> for Plan {
    fn from(dispatch: Dispatch) -> Self {
        Plan { dispatches: vec![dispatch], scratch: Vec::new() }
    }
}

/// Takes dispatches: the device's own stream, or a list for a dry run.
pub trait Sink {
    /// Takes one dispatch for `op`, with the buffer of each of its bindings.
    fn take(&mut self, op: &'static str, dispatch: &Dispatch, buffers: &[&wgpu::Buffer]) -> Result<()>;
}

impl Sink for Vec<Dispatch> {
    /// A dry run: remembers the dispatch, touches no device.
    fn take(&mut self, _op: &'static str, dispatch: &Dispatch, _buffers: &[&wgpu::Buffer]) -> Result<()> {
        self.push(dispatch.clone());
        Ok(())
    }
}

/// Workgroups as a grid: folded into y where x alone would pass the device's limit: at WebGPU's 65,535 that holds all but 2^17 of the u32 numbers. The
/// kernel rebuilds the number as `x + grid.x * y` and returns if it is past the end.
pub fn fold(op: &'static str, caps: &Caps, groups: u64) -> Result<[u32; 3]> {
    let limit = u64::from(caps.grid_dimension);
    // Even rows: fewer than y groups overshoot.
    let y = groups.div_ceil(limit.max(1)).max(1);
    let x = groups.div_ceil(y);
    // The kernel's own number of the workgroup must not wrap.
    if y > limit || x * y > u64::from(u32::MAX) {
        return Err(Error::TooLarge {
            op,
            what: "the grid of workgroups".into(),
            requested: groups.into(),
            limit: (limit * limit).min(u32::MAX.into()).into(),
            limit_name: "workgroups a dispatch",
        });
    }
    Ok([x as u32, y as u32, 1])
}

/// A shape arithmetic result as the u32 that kernels count in.
pub fn word(op: &'static str, what: &str, value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::TooLarge {
        op,
        what: what.into(),
        requested: value as u128,
        limit: u32::MAX.into(),
        limit_name: "elements that a kernel can index (u32)",
    })
}

/// A count that a kernel steps over: half the range of u32, so that the last step does not wrap.
pub fn loop_end(op: &'static str, what: &str, value: usize) -> Result<u32> {
    let limit = 1 << 31;
    if value > limit {
        return Err(Error::TooLarge {
            op,
            what: what.into(),
            requested: value as u128,
            limit: limit as u128,
            limit_name: "elements that a kernel can step over (2^31)",
        });
    }
    word(op, what, value)
}

/// Checks that a kernel can index all that a layout reaches, and that its buffer can be bound.
pub fn check_binding(op: &'static str, caps: &Caps, name: &str, layout: &Layout, dtype: DType) -> Result<()> {
    let elements = layout.span().end;
    word(op, name, elements)?;
    let bytes = elements as u128 * dtype.block_bytes() as u128;
    if bytes > u128::from(caps.binding_bytes) {
        return Err(Error::TooLarge {
            op,
            what: name.into(),
            requested: bytes,
            limit: caps.binding_bytes.into(),
            limit_name: "bytes a storage binding",
        });
    }
    Ok(())
}

/// Checks a chosen kernel against the device: what it needs, storage buffers a kernel.
pub fn check_kernel(op: &'static str, caps: &Caps, kernel: &Kernel) -> Result<()> {
    if !kernel.needs.met(caps) {
        let (what, help) = kernel.needs.called();
        return Err(Error::Argument { op, argument: "the device", problem: format!("has no {what}, which {} needs", kernel.name), help });
    }
    let needed = kernel.bindings.len() as u32;
    if needed > caps.storage_buffers {
        return Err(Error::TooLarge {
            op,
            what: format!("kernel {}", kernel.name),
            requested: needed.into(),
            limit: caps.storage_buffers.into(),
            limit_name: "storage buffers a kernel",
        });
    }
    Ok(())
}

/// Dims or strides as kernels take them: six u32 in two vec4s, the axes at the right end, `fill` before them.
pub fn axes(op: &'static str, values: &[usize], fill: u32) -> Result<[[u32; 4]; 2]> {
    let mut flat = [fill; 8];
    let start = 8 - values.len();
    for (to, &from) in flat[start..].iter_mut().zip(values) {
        *to = word(op, "a stride", from)?;
    }
    Ok([[flat[0], flat[1], flat[2], flat[3]], [flat[4], flat[5], flat[6], flat[7]]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrite_wants_exactly_one_declaration() {
        let text = "const A: u32 = 1u; // a\nconst AB: u32 = 2u;\n";
        assert_eq!(rewrite(text, "A", 7).unwrap(), "const A: u32 = 7u; // a\nconst AB: u32 = 2u;\n");
        assert!(rewrite(text, "B", 1).is_none());
        assert!(rewrite(&text.repeat(2), "A", 1).is_none());
    }

    #[test]
    fn grids_fold_and_cover() {
        let caps = Caps::webgpu_defaults();
        for groups in [0u64, 1, 65_535, 65_536, 70_000, 65_535 * 65_535, 4_294_000_000] {
            let grid = fold("test", &caps, groups).unwrap();
            let covered: u64 = grid.iter().map(|&g| u64::from(g)).product();
            assert!(covered >= groups && covered <= u64::from(u32::MAX), "{groups}: {grid:?}");
            assert!(grid.iter().all(|&g| g <= caps.grid_dimension));
        }
        assert!(fold("test", &caps, 1 << 32).is_err());
    }
}
