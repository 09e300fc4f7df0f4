//! Shaders without a GPU: every kernel × spec as composed parses, validates, agrees with its Rust side, keeps WebGPU's default limits, and
//! can be written for Vulkan, Metal and Direct3D; Tint, the browsers' compiler, takes it too where it is on the PATH. Each check is a
//! function of the text, and the negative tests feed it texts that it must refuse.
#![cfg(feature = "gpu")]

#[path = "shaders/reflect.rs"]
mod reflect;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use gristmill::gpu::{Access, Binding, Caps, Constants, Field, Kernel, Needs, Params as _, Spec, Width};
use gristmill::{DType, ops};
use naga::{AddressSpace, Handle, Module, ResourceBinding, ScalarKind, StorageAccess, TypeInner, back};

/// Every kernel × spec, by name.
fn all() -> Vec<(String, &'static Kernel, Spec)> {
    ops::kernels().iter().flat_map(|kernel| kernel.specs().map(move |spec| (format!("{}.{spec}", kernel.name), *kernel, spec))).collect()
}

fn compose(kernel: &Kernel, spec: &Spec) -> String {
    kernel.compose(spec).expect("every listed spec composes")
}

/// Runs a check over all of them; shows every failure at once.
fn each(check: impl Fn(&Kernel, &Spec, &str) -> Result<(), String>) {
    let failures: Vec<String> = all()
        .iter()
        .filter_map(|(name, kernel, spec)| Some(format!("{name}: {}", check(kernel, spec, &compose(kernel, spec)).err()?)))
        .collect();
    assert!(failures.is_empty(), "{} shaders fail:\n{}", failures.len(), failures.join("\n"));
}

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}

/// Text without comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The identifiers and numbers of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The text against what the host believes: entry point, bindings, `Params`, constants, WebGPU's default limits, and no features but those that it says it needs.
fn agrees(kernel: &Kernel, spec: &Spec, text: &str) -> Result<(), String> {
    let (module, _, features) = reflect::parse(text)?;
    let said: &[&str] = match kernel.needs {
        Needs::Subgroups => &["subgroups"],
        Needs::Matrices => &["f16", "subgroups", "wgpu_cooperative_matrix"],
        _ => &[],
    };
    ensure(features == said, || format!("needs {features:?}, and the kernel says {said:?}"))?;
    ensure(module.overrides.is_empty(), || "has overrides that no constant was written for".into())?;
    agrees_on_bindings(kernel, &module)?;
    agrees_on_params(kernel, &module)?;
    agrees_on_constants(kernel, spec, text)?;
    keeps_limits(kernel, spec, &module)
}

fn agrees_on_bindings(kernel: &Kernel, module: &Module) -> Result<(), String> {
    let mut found = BTreeMap::new();
    for (_, variable) in module.global_variables.iter() {
        if let Some(binding) = variable.binding {
            let name = variable.name.clone().unwrap_or_default();
            ensure(binding.group == 0, || format!("`{name}` is in group {}", binding.group))?;
            found.insert(binding.binding, (name, variable.space));
        }
    }
    let mut wanted: BTreeMap<u32, (String, AddressSpace)> = BTreeMap::new();
    for (number, binding) in (0..).zip(kernel.bindings) {
        let access = match binding.access {
            Access::Read => StorageAccess::LOAD,
            Access::Write => StorageAccess::LOAD | StorageAccess::STORE,
        };
        wanted.insert(number, (binding.name.into(), AddressSpace::Storage { access }));
    }
    wanted.insert(kernel.bindings.len() as u32, ("params".into(), AddressSpace::Uniform));
    ensure(found == wanted, || format!("bindings are {found:?}, the kernel says {wanted:?}"))?;
    ensure(module.entry_points[0].name == "main", || format!("entry point `{}`", module.entry_points[0].name))
}

fn agrees_on_params(kernel: &Kernel, module: &Module) -> Result<(), String> {
    let layouts = reflect::layouts(module)?;
    let params = module.global_variables.iter().find(|(_, variable)| variable.space == AddressSpace::Uniform);
    let (_, params) = params.ok_or("no uniform")?;
    let TypeInner::Struct { members, span } = &module.types[params.ty].inner else {
        return Err("`params` is no struct".into());
    };
    let name = module.types[params.ty].name.as_deref();
    ensure(name == Some("Params"), || format!("`params` is a {name:?}"))?;
    let found: Vec<(&str, usize, usize)> = members
        .iter()
        .map(|member| (member.name.as_deref().unwrap_or_default(), member.offset as usize, layouts[member.ty].size as usize))
        .collect();
    let wanted: Vec<_> = kernel.params.iter().map(|Field { name, offset, size }| (*name, *offset, *size)).collect();
    if let Some((in_wgsl, in_rust)) = found.iter().zip(&wanted).find(|(a, b)| a != b) {
        return Err(format!("Params: (name, offset, size) is {in_wgsl:?} in WGSL, {in_rust:?} in Rust"));
    }
    ensure(found.len() == wanted.len(), || format!("Params: {} members in WGSL, {} in Rust", found.len(), wanted.len()))?;
    // The device takes exactly the bytes of the Rust struct: it must end where the WGSL one does.
    let end = kernel.params.last().map_or(0, |field| field.offset + field.size);
    ensure(end == *span as usize && end.is_multiple_of(16), || format!("Params: {end} bytes in Rust, {span} in WGSL: pad both to 16"))
}

/// The number that stands for a dtype in the shaders.
fn code_of(dtype: &DType) -> u32 {
    DType::ALL.iter().position(|other| other == dtype).expect("it is listed") as u32
}

fn agrees_on_constants(kernel: &Kernel, spec: &Spec, text: &str) -> Result<(), String> {
    let codes = kernel.bindings.iter().zip(spec.dtypes).filter_map(|(binding, dtype)| Some((binding.dtype_const?, code_of(dtype))));
    ensure(kernel.bindings.len() == spec.dtypes.len(), || "not one dtype a binding".into())?;
    let code = code(text);
    for (name, value) in codes.chain(spec.variant.values.iter().chain(spec.tune.values).copied()) {
        let line = format!("const {name}: u32 = {value}u;");
        ensure(code.lines().any(|l| l.trim_end() == line), || format!("`{line}` is not there"))?;
        ensure(words(&code).filter(|word| *word == name).count() > 1, || format!("nothing uses {name}"))?;
    }
    Ok(())
}

fn keeps_limits(kernel: &Kernel, spec: &Spec, module: &Module) -> Result<(), String> {
    let caps = Caps::webgpu_defaults();
    let [x, y, z] = module.entry_points[0].workgroup_size;
    let bytes = reflect::workgroup_bytes(module)?;
    ensure(x * y * z <= caps.workgroup_invocations, || format!("{} invocations a workgroup", x * y * z))?;
    ensure(x <= 256 && y <= 256 && z <= 64, || format!("workgroup {x} x {y} x {z}"))?;
    // A device with cooperative matrices has 32 KiB or more; `matmul::gpu::cooperates` looks, and `attention::gpu::fits` for the tunes of 64 queries.
    let large = kernel.needs == Needs::Matrices || spec.get("BLOCK_Q") == 64;
    let most = if large { 32 << 10 } else { caps.workgroup_bytes };
    ensure(bytes <= most, || format!("{bytes} bytes of workgroup memory"))?;
    ensure(kernel.bindings.len() <= caps.storage_buffers as usize, || format!("{} storage buffers", kernel.bindings.len()))
}

/// The text as the three APIs take it, with the slots that wgpu would give. Of cooperative matrices naga 30 writes no HLSL, and wgpu shows none
/// on Direct3D 12; Metal has them from 2.3.
fn written(module: &Module, info: &naga::valid::ModuleInfo, needs: Needs) -> Result<(Vec<u32>, String, Option<String>), String> {
    let bound = |(_, variable): (Handle<_>, &naga::GlobalVariable)| variable.binding.map(|binding| (binding, variable.space));
    let bindings: Vec<(ResourceBinding, AddressSpace)> = module.global_variables.iter().filter_map(bound).collect();

    let spirv = back::spv::write_vec(module, info, &back::spv::Options::default(), None).map_err(|e| format!("SPIR-V: {e}"))?;

    let writes = |space| matches!(space, AddressSpace::Storage { access } if access.contains(StorageAccess::STORE));
    let slot = |(binding, space): &(ResourceBinding, AddressSpace)| {
        (*binding, back::msl::BindTarget { buffer: Some(binding.binding as u8), mutable: writes(*space), ..Default::default() })
    };
    let resources = back::msl::EntryPointResources {
        resources: bindings.iter().map(slot).collect(),
        sizes_buffer: Some(bindings.len() as u8),
        immediates_buffer: None,
    };
    let options = back::msl::Options {
        lang_version: if needs == Needs::Matrices { (2, 3) } else { (2, 0) },
        per_entry_point_map: BTreeMap::from([("main".to_string(), resources)]),
        fake_missing_bindings: false,
        ..Default::default()
    };
    let (msl, translated) = back::msl::write_string(module, info, &options, &Default::default()).map_err(|e| format!("MSL: {e}"))?;
    translated.entry_point_names[0].as_ref().map_err(|e| format!("MSL: {e}"))?;
    if needs == Needs::Matrices {
        return Ok((spirv, msl, None));
    }

    let register = |(binding, _): &(ResourceBinding, AddressSpace)| {
        (*binding, back::hlsl::BindTarget { register: binding.binding, restrict_indexing: true, ..Default::default() })
    };
    let options =
        back::hlsl::Options { binding_map: bindings.iter().map(register).collect(), fake_missing_bindings: false, ..Default::default() };
    let mut hlsl = String::new();
    let pipeline = back::hlsl::PipelineOptions::default();
    let reflected = back::hlsl::Writer::new(&mut hlsl, &options, &pipeline).write(module, info, None).map_err(|e| format!("HLSL: {e}"))?;
    reflected.entry_point_names[0].as_ref().map_err(|e| format!("HLSL: {e}"))?;
    Ok((spirv, msl, Some(hlsl)))
}

/// The house's rules for one file of `shaders/`, or for a whole composed text.
fn lint(text: &str) -> Result<(), String> {
    let header = text.lines().take_while(|line| line.starts_with("//")).count();
    ensure((1..=8).contains(&header), || format!("begins with {header} lines of comment, not 1 to 8"))?;
    let code = code(text);
    for line in code.lines() {
        ensure(!["enable", "requires", "diagnostic"].iter().any(|d| words(line).next() == Some(d)), || {
            format!("the host writes `{line}`")
        })?;
    }
    let dense: String = code.split_whitespace().collect();
    ensure(!dense.contains("atomic<f"), || "float atomics: their order is not fixed (N7)".into())
}

/// The same rule by type, through any alias.
fn no_float_atomics(module: &Module) -> Result<(), String> {
    let float = |inner: &TypeInner| matches!(inner, TypeInner::Atomic(scalar) if scalar.kind == ScalarKind::Float);
    ensure(!module.types.iter().any(|(_, ty)| float(&ty.inner)), || "float atomics: their order is not fixed (N7)".into())
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The `.wgsl` files of a folder: name without its ending, and text.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(directory).expect("a folder of shaders").map(|entry| entry.expect("an entry").path());
    let shaders = entries.filter(|path| path.extension().is_some_and(|ending| ending == "wgsl"));
    shaders
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("UTF-8"))
        })
        .collect()
}

#[test]
fn every_shader_agrees_with_the_host() {
    each(agrees);
    println!("{} shaders agree with their Rust side", all().len());
}

#[test]
fn every_shader_can_be_written_for_every_api() {
    each(|kernel, _, text| {
        let (module, info, _) = reflect::parse(text)?;
        let (spirv, msl, hlsl) = written(&module, &info, kernel.needs)?;
        ensure(spirv.len() > 100 && spirv[0] == 0x0723_0203, || "no SPIR-V".into())?;
        ensure(msl.contains("kernel void main_"), || "no kernel in the MSL".into())?;
        ensure(hlsl.is_none_or(|hlsl| hlsl.contains("[numthreads(")), || "no entry point in the HLSL".into())
    });
}

#[test]
fn specs_differ_in_name_and_in_code() {
    let mut names = BTreeSet::new();
    let mut texts: HashMap<Vec<u32>, String> = HashMap::new();
    for (name, kernel, spec) in all() {
        let safe = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c));
        assert!(safe && name.len() <= 100 && !name.starts_with('.'), "{name} is no name for a file");
        assert!(names.insert(name.clone()), "two specs are called {name}");
        // Compiled, so that a constant that nothing depends on does not pass for a difference.
        let (module, info, _) = reflect::parse(&compose(kernel, &spec)).expect("it validates");
        let spirv = written(&module, &info, kernel.needs).expect("it can be written").0;
        if let Some(twin) = texts.insert(spirv, name.clone()) {
            panic!("{twin} and {name} are the same code");
        }
    }
}

#[test]
fn shader_files_are_the_kernels() {
    let kernels = files(&folder("shaders"));
    let named: BTreeMap<String, String> = ops::kernels().iter().map(|k| (k.name.into(), k.source.into())).collect();
    assert_eq!(kernels.keys().collect::<Vec<_>>(), named.keys().collect::<Vec<_>>(), "shaders/*.wgsl, and the kernels' names");
    assert!(kernels == named, "a kernel is built from another file than its own");

    let libs: BTreeSet<String> = files(&folder("shaders/lib")).into_values().collect();
    let words = ops::kernels().iter().flat_map(|k| k.widths).filter_map(|width| width.lib());
    let matrices = ops::kernels().iter().flat_map(|k| k.needs.libs()).copied();
    let own = ops::kernels().iter().flat_map(|k| k.libs.iter().copied());
    let used: BTreeSet<String> = own.chain(words).chain(matrices).map(str::to_string).collect();
    assert!(libs == used, "a file in shaders/lib/ that no kernel uses, or a lib from elsewhere");
    for text in named.values().chain(&libs) {
        lint(text).unwrap_or_else(|problem| panic!("{problem}:\n{text}"));
    }
    // A lib is value → value: no bindings, no workgroup memory, no barrier. What the kernels of one op share (`attention`, `product`, `rope`) has their bindings;
    // `attention_tiles` is all of two kernels but for a step.
    for (name, text) in files(&folder("shaders/lib")).into_iter().filter(|(name, _)| name != "attention_tiles") {
        let text = &text;
        let bindings =
            if ["attention", "product", "rope"].contains(&name.as_str()) { &[][..] } else { &["var<storage", "var<uniform", "@group"][..] };
        let never = ["var<workgroup", "var<private", "workgroupBarrier", "storageBarrier"];
        let impure = never.iter().chain(bindings).find(|token| code(text).contains(**token));
        assert!(impure.is_none(), "`{}` in a lib:\n{text}", impure.unwrap_or(&""));
    }
}

#[test]
fn dtypes_have_one_code_in_rust_and_wgsl() {
    let text = &files(&folder("shaders/lib"))["float"];
    for dtype in DType::ALL {
        let line = format!("const {}: u32 = {}u;", dtype.name().to_uppercase(), code_of(&dtype));
        assert!(text.lines().any(|l| l == line), "`{line}` is not in float.wgsl");
    }
}

#[test]
fn no_shader_has_float_atomics() {
    each(|kernel, _, text| {
        // What the host has put before it.
        let own: Vec<&str> = text.lines().skip(kernel.needs.extensions().len()).collect();
        lint(&own.join("\n")).and(no_float_atomics(&reflect::parse(text)?.0))
    });
}

/// Runs Tint over texts; the first that it refuses, with what it says.
fn tint(texts: &[(String, String)]) -> Result<(), String> {
    // One folder a run: tests share a process.
    let directory = std::env::temp_dir().join(format!("gristmill-tint-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let (input, output) = (directory.join("in.wgsl"), directory.join("out.wgsl"));
    let result = texts.iter().try_for_each(|(name, text)| {
        std::fs::write(&input, text).map_err(|error| error.to_string())?;
        let run = Command::new("tint").arg(&input).args(["--format", "wgsl", "-o"]).arg(&output).output().map_err(|e| e.to_string())?;
        ensure(run.status.success(), || format!("{name}: {}", String::from_utf8_lossy(&run.stderr)))
    });
    let _ = std::fs::remove_dir_all(&directory);
    result
}

#[test]
fn tint_takes_every_shader() {
    if Command::new("tint").arg("--help").output().is_err() {
        let required = std::env::var("GRISTMILL_REQUIRE_TINT").is_ok_and(|value| value == "1");
        assert!(!required, "GRISTMILL_REQUIRE_TINT=1, and `tint` is not on the PATH");
        println!("skipped: `tint` is not on the PATH");
        return;
    }
    // Tint has no cooperative matrices by that name, nor has the web, where no such kernel is chosen. Subgroups it wants enabled.
    let able = all().into_iter().filter(|(_, kernel, _)| kernel.needs != Needs::Matrices);
    let enabled = |kernel: &Kernel| if kernel.needs == Needs::Subgroups { "enable subgroups;\n" } else { "" };
    let texts: Vec<_> = able.map(|(name, kernel, spec)| (name, enabled(kernel).to_string() + &compose(kernel, &spec))).collect();
    tint(&texts).unwrap_or_else(|message| panic!("tint refuses {message}"));
    println!("tint takes {} shaders", texts.len());

    // And it bites, where naga may not: a barrier that only some lanes reach.
    let divergent = edit(&toy().1, "    workgroupBarrier();", "    if lane > 3u { workgroupBarrier(); }");
    assert!(tint(&[("divergent".into(), divergent)]).is_err(), "tint took a barrier in divergent control flow");
}

/// A kernel that is right, for planting faults.
static TOY: Kernel = Kernel {
    name: "toy",
    source: "// out = scale * x, through workgroup memory.
const SIDE: u32 = 8u;
const X_DTYPE: u32 = 3u;
struct Params {
    strides: vec4<u32>,
    len: u32,
    first: u32,
    scale: f32,
    pad: u32,
}
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;
var<workgroup> tile: array<f32, SIDE * SIDE>;
@compute @workgroup_size(SIDE * SIDE)
fn main(@builtin(local_invocation_index) lane: u32) {
    tile[lane] = params.scale * x[lane * params.strides.x + X_DTYPE];
    workgroupBarrier();
    out[lane] = tile[SIDE * SIDE - 1u - lane];
}
",
    libs: &[],
    bindings: &[Binding::new("out", Access::Write), Binding::typed("x", Access::Read, "X_DTYPE")],
    params: ToyParams::FIELDS,
    fills_workgroup_memory: false,
    variants: &[Constants::NONE],
    tunes: &[Constants { name: "side8", values: &[("SIDE", 8)] }, Constants { name: "side4", values: &[("SIDE", 4)] }],
    dtypes: &[&[DType::F32, DType::F32]],
    widths: &[Width::Fixed],
    needs: Needs::Nothing,
};

gristmill::params! {
    struct ToyParams {
        strides: [u32; 4],
        len: u32,
        first: u32,
        scale: f32,
        pad: u32,
    }
}

fn toy() -> (Spec, String) {
    let spec = TOY.specs().next().expect("it has one");
    (spec, compose(&TOY, &spec))
}

/// The text with something replaced that must occur in it.
fn edit(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the shader has no `{from}` to mutate");
    text.replacen(from, to, 1)
}

/// The check must refuse this, and say so in these words.
fn refuses(kernel: &Kernel, spec: &Spec, text: &str, message: &str) {
    match agrees(kernel, spec, text) {
        Ok(()) => panic!("a planted fault passed, not refused for `{message}`:\n{text}"),
        Err(problem) => assert!(problem.contains(message), "expected `{message}`, got: {problem}"),
    }
}

#[test]
fn faults_in_the_text_are_refused() {
    let (spec, text) = toy();
    assert_eq!(agrees(&TOY, &spec, &text), Ok(()));
    let faults = [
        ("    len: u32,\n    first: u32,", "    first: u32,\n    len: u32,", "is (\"first\", 16, 4) in WGSL, (\"len\", 16, 4) in Rust"),
        ("    strides: vec4<u32>,", "    strides: vec2<u32>,", "(\"strides\", 0, 8) in WGSL"),
        ("    pad: u32,\n", "", "4 members in WGSL, 5 in Rust"),
        ("    pad: u32,\n", "    pad: u32,\n    more: u32,\n", "6 members in WGSL, 5 in Rust"),
        ("    first: u32,", "    @align(16) first: u32,", "(\"first\", 32, 4) in WGSL"),
        ("    pad: u32,", "    pad: vec2<u32>,", "Params"),
        ("struct Params {\n", "struct Params {\n    zero: u32,\n", "(\"zero\", 0, 4) in WGSL"),
        ("var<storage, read> x", "var<storage, read_write> x", "bindings are"),
        ("var<storage, read> x: array<f32>;", "var<storage, read> y: array<f32>;\nvar<private> x: array<f32, 64>;", "bindings are"),
        ("@binding(1)", "@binding(3)", "bindings are"),
        ("@group(0) @binding(1)", "@group(1) @binding(1)", "group 1"),
        ("var<uniform> params", "var<storage, read> params", "bindings are"),
        ("fn main(", "fn start(", "entry point `start`"),
        ("@compute @workgroup_size(SIDE * SIDE)\n", "", "PipelineInput"),
        ("const SIDE: u32 = 8u;", "const SIDE: u32 = 4u;", "`const SIDE: u32 = 8u;` is not there"),
        ("const X_DTYPE: u32 = 0u;", "const X_DTYPE: u32 = 1u;", "`const X_DTYPE: u32 = 0u;` is not there"),
        ("+ X_DTYPE", "", "nothing uses X_DTYPE"),
        ("@compute", "override more: u32 = 1u;\n@compute", "overrides"),
        ("@workgroup_size(SIDE * SIDE)", "@workgroup_size(SIDE * SIDE * SIDE)", "512 invocations"),
        ("@workgroup_size(SIDE * SIDE)", "@workgroup_size(1, 1, 128)", "workgroup 1 x 1 x 128"),
        ("array<f32, SIDE * SIDE>", "array<f32, 4097>", "16400 bytes of workgroup memory"),
        ("const SIDE", "enable f16;\nalias Half = f16;\nconst SIDE", "needs [\"f16\"]"),
        ("= tile[", "= subgroupAdd(params.scale) + tile[", "needs [\"subgroups\"]"),
        ("tile[lane] =", "let bad: u32 =", "error"),
    ];
    for (from, to, message) in faults {
        refuses(&TOY, &spec, &edit(&text, from, to), message);
    }
}

#[test]
fn faults_in_the_kernel_are_refused() {
    let (spec, text) = toy();
    // Two fields of the Rust struct swapped, as by an edit of one side only.
    let mut fields = TOY.params.to_vec();
    (fields[1].name, fields[2].name) = (fields[2].name, fields[1].name);
    refuses(&Kernel { params: fields.leak(), ..TOY }, &spec, &text, "(\"len\", 16, 4) in WGSL, (\"first\", 16, 4) in Rust");
    refuses(&Kernel { params: &TOY.params[..4], ..TOY }, &spec, &text, "5 members in WGSL, 4 in Rust");

    let mut bindings = TOY.bindings.to_vec();
    bindings.swap(0, 1);
    refuses(&Kernel { bindings: bindings.leak(), ..TOY }, &spec, &text, "bindings are");
    refuses(&Kernel { bindings: &TOY.bindings[..1], ..TOY }, &spec, &text, "bindings are");
    refuses(&TOY, &Spec { tune: &TOY.tunes[1], ..spec }, &text, "`const SIDE: u32 = 4u;` is not there");
    refuses(&TOY, &Spec { dtypes: &[DType::F32, DType::U8], ..spec }, &text, "`const X_DTYPE: u32 = 5u;` is not there");
}

#[test]
fn the_lint_bites() {
    let (_, text) = toy();
    assert_eq!(lint(&text), Ok(()));
    let atomic = edit(&text, "var<workgroup>", "var<workgroup> sum: atomic< f32 >;\nvar<workgroup>");
    let alias = edit(&text, "var<workgroup>", "alias F = f32;\nvar<workgroup> sum: atomic<F>;\nvar<workgroup>");
    assert!(no_float_atomics(&naga::front::wgsl::parse_str(&alias).expect("it parses")).is_err());
    let headless = edit(&text, "// out", "const ONE: u32 = 1u; // out");
    for bad in [atomic, headless, format!("enable f16;\n{text}"), format!("// f16\n  enable f16;\n{text}"), "// more\n".repeat(8) + &text] {
        assert!(lint(&bad).is_err(), "the lint passed:\n{bad}");
    }
}
