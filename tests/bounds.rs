//! The proof behind `Checks::Off`: every kernel runs with every index watched. Each shader's final text gets a test round each index that is
//! not a constant, of buffers, arrays and vectors alike; the plans of the ops run on buffers that hold what their layouts reach and not 16 bytes
//! more, over sizes round every tile, views, types, tunes and widths. One index outside sets a flag, and the case fails.
#![cfg(feature = "gpu")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gristmill::gpu::{Access, AdapterKind, Arg, Backend, Caps, GpuOptions, Needs, Pin, Plan, wgpu};
use gristmill::ops::{Dropout, attention, binary, cast, compare, copy, gather, matmul, reduce, rope, softmax, unary, where_cond};
use gristmill::{DType, Device, Layout, ops};
use naga::proc::TypeResolution;
use naga::valid::{Capabilities, FunctionInfo, ValidationFlags, Validator};
use naga::{ArraySize, Expression, Function, Module, TypeInner};

use DType::{BF16, Bool, F16, F32, I32, U8, U32};

/// What an index into an expression must stay below, as WGSL.
fn bound(module: &Module, function: &Function, info: &FunctionInfo, base: naga::Handle<Expression>) -> Result<String, String> {
    let of = |inner: &TypeInner| match *inner {
        TypeInner::Vector { size, .. } => Ok(format!("{}u", size as u32)),
        TypeInner::Array { size: ArraySize::Constant(n), .. } => Ok(format!("{n}u")),
        TypeInner::Array { size: ArraySize::Dynamic, .. } => match function.expressions[base] {
            Expression::GlobalVariable(global) => {
                Ok(format!("arrayLength(&{})", module.global_variables[global].name.as_deref().unwrap_or_default()))
            }
            ref other => Err(format!("a runtime array that is no variable: {other:?}")),
        },
        ref other => Err(format!("an index into {other:?}")),
    };
    match info[base].ty {
        TypeResolution::Handle(ty) => match module.types[ty].inner {
            TypeInner::Pointer { base, .. } => of(&module.types[base].inner),
            ref inner => of(inner),
        },
        TypeResolution::Value(TypeInner::Pointer { base, .. }) => of(&module.types[base].inner),
        TypeResolution::Value(TypeInner::ValuePointer { size: Some(size), .. }) => Ok(format!("{}u", size as u32)),
        TypeResolution::Value(ref inner) => of(inner),
    }
}

/// The text with each index that is no constant in a call of `within`; and how many there are.
fn watched(text: &str, binding: usize) -> Result<(String, usize), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).map_err(|error| error.emit_to_string(text))?;
    let functions = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
    let entries = module.entry_points.iter().enumerate().map(|(i, entry)| (&entry.function, info.get_entry_point(i)));
    // Where brackets open and close, and what bounds what is between.
    let mut indices = BTreeSet::new();
    for (function, info) in functions.chain(entries) {
        for (handle, expression) in function.expressions.iter() {
            let Expression::Access { base, .. } = *expression else { continue };
            let range = function.expressions.get_span(handle).to_range().ok_or("an index from nowhere")?;
            let close = range.end - 1;
            if text.as_bytes().get(close) != Some(&b']') {
                return Err(format!("an index that does not end at a bracket: {}", &text[range]));
            }
            let mut depth = 0;
            let open = (0..=close).rev().find(|&at| {
                depth += match text.as_bytes()[at] {
                    b']' => 1,
                    b'[' => -1,
                    _ => 0,
                };
                depth == 0
            });
            indices.insert((open.ok_or("no bracket opens")?, close, bound(&module, function, info, base)?));
        }
    }
    let mut edits: Vec<(usize, String)> = Vec::new();
    for (open, close, bound) in &indices {
        edits.push((open + 1, "within(u32(".into()));
        edits.push((*close, format!("), {bound})")));
    }
    edits.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let mut text = text.to_string();
    for (at, insert) in edits {
        text.insert_str(at, &insert);
    }
    // One atomic an invocation, wherever main ends: one an index compiles for seconds.
    let start = text.find("fn main(").ok_or("no main")?;
    let end = text[start..].find("\n}").ok_or("main does not end")? + start;
    let body = text[start..end].replace("return;", "{ report(); return; }");
    text.replace_range(start..end, &format!("{body}\n    report();"));
    text += &format!(
        "\n@group(0) @binding({binding}) var<storage, read_write> outside: atomic<u32>;\n\
         var<private> strayed: bool;\n\
         fn within(index: u32, bound: u32) -> u32 {{\n    strayed |= index >= bound;\n    return index;\n}}\n\
         fn report() {{\n    if strayed {{\n        atomicMax(&outside, 1u);\n    }}\n}}\n"
    );
    Ok((text, indices.len()))
}

struct Watch {
    device: wgpu::Device,
    queue: wgpu::Queue,
    caps: Caps,
    outside: wgpu::Buffer,
    readback: wgpu::Buffer,
    pipelines: HashMap<String, wgpu::ComputePipeline>,
    /// Cases, by kernel and spec.
    seen: BTreeMap<String, usize>,
    failed: Vec<String>,
}

impl Watch {
    fn new(device: &Device) -> Self {
        let (raw, queue) = device.wgpu().expect("a GPU");
        let buffer = |usage| raw.create_buffer(&wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false });
        Watch {
            outside: buffer(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST),
            readback: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            caps: device.caps().expect("a GPU").clone(),
            device: raw,
            queue,
            pipelines: HashMap::new(),
            seen: BTreeMap::new(),
            failed: Vec::new(),
        }
    }

    /// Runs a plan; `tensors` are the layouts and types of the call, `out` first, and what some of them hold.
    fn run(&mut self, what: &str, plan: gristmill::Result<Plan>, tensors: &[(&Layout, DType)], hold: Option<(usize, &[u8])>) {
        let plan = plan.unwrap_or_else(|error| panic!("{what}: {error}"));
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let make = |bytes: u64| {
            let size = bytes.next_multiple_of(16).max(16);
            self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        let buffers: Vec<_> = tensors.iter().map(|(layout, dtype)| make((layout.span().end * dtype.block_bytes()) as u64)).collect();
        let scratch: Vec<_> = plan.scratch.iter().map(|&bytes| make(bytes)).collect();
        if let Some((tensor, bytes)) = hold {
            self.queue.write_buffer(&buffers[tensor], 0, bytes);
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.clear_buffer(&self.outside, 0, None);
        let mut names = Vec::new();
        for dispatch in &plan.dispatches {
            let name = format!("{}.{}", dispatch.kernel.name, dispatch.spec);
            let count = dispatch.kernel.bindings.len();
            if !self.pipelines.contains_key(&name) {
                let text = dispatch.kernel.compose(&dispatch.spec).expect("a kernel of ours");
                let (text, indices) = watched(&text, count + 1).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(indices > 0, "{name} has no index");
                let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                    label: Some(&name),
                    source: wgpu::ShaderSource::Wgsl(text.into()),
                });
                // Not the layout that wgpu derives, which leaves out what a spec does not read.
                let buffer = |read_only| wgpu::BufferBindingType::Storage { read_only };
                let storage = dispatch.kernel.bindings.iter().map(|binding| buffer(binding.access == Access::Read));
                let entries: Vec<_> = storage
                    .chain([wgpu::BufferBindingType::Uniform, buffer(false)])
                    .zip(0..)
                    .map(|(ty, binding)| wgpu::BindGroupLayoutEntry {
                        binding,
                        visibility: wgpu::ShaderStages::COMPUTE,
                        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                        count: None,
                    })
                    .collect();
                let layout = wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries };
                let layout = self.device.create_bind_group_layout(&layout);
                let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                    label: None,
                    bind_group_layouts: &[Some(&layout)],
                    immediate_size: 0,
                });
                let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some(&name),
                    layout: Some(&layout),
                    module: &module,
                    entry_point: Some("main"),
                    compilation_options: Default::default(),
                    cache: None,
                });
                self.pipelines.insert(name.clone(), pipeline);
            }
            let pipeline = &self.pipelines[&name];
            let params = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: dispatch.params.len() as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            self.queue.write_buffer(&params, 0, &dispatch.params);
            let of = |arg: &Arg| match *arg {
                Arg::Tensor(n) => &buffers[n],
                Arg::Scratch(n) => &scratch[n],
            };
            let entries: Vec<_> = dispatch
                .args
                .iter()
                .map(of)
                .chain([&params, &self.outside])
                .enumerate()
                .map(|(binding, buffer)| wgpu::BindGroupEntry { binding: binding as u32, resource: buffer.as_entire_binding() })
                .collect();
            let layout = pipeline.get_bind_group_layout(0);
            let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            let [x, y, z] = dispatch.grid;
            pass.dispatch_workgroups(x, y, z);
            names.push(name);
        }
        encoder.copy_buffer_to_buffer(&self.outside, 0, &self.readback, 0, 4);
        self.queue.submit([encoder.finish()]);
        // What wgpu refuses did not run.
        if let Some(error) = pollster::block_on(scope.pop()) {
            panic!("{what}: {error}");
        }
        self.readback.slice(..).map_async(wgpu::MapMode::Read, |result| result.expect("it can be mapped"));
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("a device that works");
        let outside = self.readback.slice(..).get_mapped_range().expect("it was mapped")[0] != 0;
        self.readback.unmap();
        if outside {
            self.failed.push(format!("{what}: {}", names.join(", ")));
        }
        for name in names {
            *self.seen.entry(name).or_insert(0) += 1;
        }
    }
}

fn dense(dims: &[usize]) -> Layout {
    Layout::contiguous(dims).expect("a small shape")
}

/// Where a tensor of some dims may lie: dense; dense at an odd offset; rows with a gap that keeps eights whole; a transpose; one element
/// for all.
fn places(dims: &[usize]) -> Vec<Layout> {
    let rank = dims.len();
    let last = rank - 1;
    let mut wide = dims.to_vec();
    wide[last] = dims[last].next_multiple_of(8) + 8;
    let mut tall = dims.to_vec();
    tall[0] += 3;
    let odd = dense(&tall).narrow(0, 3, dims[0]).expect("a window");
    let mut all = vec![dense(dims), odd, dense(&wide).narrow(last, 8, dims[last]).expect("a window")];
    if rank > 1 {
        let mut turned = dims.to_vec();
        turned.swap(last - 1, last);
        all.push(dense(&turned).transpose(last - 1, last).expect("two axes"));
    }
    all
}

/// The tunes of a kernel, as pins, and none. Of cooperative matrices those that the device can run.
fn pins(caps: &Caps, name: &str) -> Vec<Option<Pin>> {
    let kernel = *ops::kernels().iter().find(|kernel| kernel.name == name).expect("a kernel");
    let able = kernel.tunes.iter().filter(|tune| kernel.needs != Needs::Matrices || matmul::gpu::cooperates(caps, tune).is_ok());
    let tunes = able.map(|tune| Some(Pin { kernel, tune: Some(tune) }));
    tunes.chain([None]).collect()
}

const LENGTHS: [usize; 9] = [1, 5, 8, 9, 63, 65, 257, 2047, 2056];

fn elementwise(watch: &mut Watch) {
    let caps = watch.caps.clone();
    for len in LENGTHS {
        for dims in [vec![len], vec![3, len], vec![len, 3]] {
            let places = places(&dims);
            let row = dense(&[dims[dims.len() - 1]]).broadcast_to(&dims).expect("a row");
            let one = dense(&[1]).broadcast_to(&dims).expect("one element");
            for (i, &x) in places.iter().enumerate() {
                let (out, other) = (places[(i + 1) % places.len()], [places[(i + 2) % places.len()], row, one][i % 3]);
                for (at, out) in [dense(&dims), out].into_iter().enumerate() {
                    let what = format!("{dims:?} place {i} out {at}");
                    for dtypes in [[F32; 3], [F16; 3], [BF16; 3], [F32, F16, F16], [F32, F32, BF16], [I32; 3], [U8; 3], [F16, F32, BF16]] {
                        let function = if dtypes[0] == U8 { binary::Function::Max } else { binary::Function::Add };
                        let problem = binary::Problem { function, in_place: false, dtypes, out, lhs: x, rhs: other };
                        let plan = binary::gpu::plan(&caps, None, &problem);
                        watch.run(
                            &format!("binary {dtypes:?} {what}"),
                            plan,
                            &[(&out, dtypes[0]), (&x, dtypes[1]), (&other, dtypes[2])],
                            None,
                        );
                        if dtypes[0] == dtypes[1] {
                            let problem = binary::Problem { in_place: true, lhs: out, ..problem };
                            let plan = binary::gpu::plan(&caps, None, &problem);
                            watch.run(&format!("binary in place {dtypes:?} {what}"), plan, &[(&out, dtypes[0]), (&other, dtypes[2])], None);
                        }
                        if let [_, F32 | F16 | BF16, F32 | F16 | BF16] = dtypes {
                            let problem = compare::Problem {
                                function: compare::Function::Lt,
                                dtypes: [dtypes[1], dtypes[2]],
                                out,
                                lhs: x,
                                rhs: other,
                            };
                            let plan = compare::gpu::plan(&caps, None, &problem);
                            watch.run(
                                &format!("compare {dtypes:?} {what}"),
                                plan,
                                &[(&out, Bool), (&x, dtypes[1]), (&other, dtypes[2])],
                                None,
                            );
                        }
                    }
                    for [to, from] in [[F32, F32], [F16, F16], [BF16, F32], [F32, BF16], [F16, BF16], [I32, I32]] {
                        let function = if to == I32 { unary::Function::Abs } else { unary::Function::Relu };
                        let problem = unary::Problem { function, bounds: [0.0; 2], in_place: false, dtypes: [to, from], out, x };
                        watch.run(
                            &format!("unary {to} {from} {what}"),
                            unary::gpu::plan(&caps, None, &problem),
                            &[(&out, to), (&x, from)],
                            None,
                        );
                        if to == from {
                            let problem = unary::Problem { in_place: true, x: out, ..problem };
                            watch.run(&format!("unary in place {to} {what}"), unary::gpu::plan(&caps, None, &problem), &[(&out, to)], None);
                        }
                    }
                    for [to, from] in [[F32, F16], [F16, F32], [BF16, U8], [U8, F32], [Bool, I32], [U32, Bool], [I32, F32], [F16, BF16]] {
                        let problem = cast::Problem { out_dtype: to, x_dtype: from, out, x };
                        watch.run(&format!("cast {to} {from} {what}"), cast::gpu::plan(&caps, &problem), &[(&out, to), (&x, from)], None);
                    }
                    for dtype in [F32, F16, U8] {
                        let problem = copy::Problem { dtype, out, x };
                        watch.run(&format!("copy {dtype} {what}"), copy::gpu::plan(&caps, &problem), &[(&out, dtype), (&x, dtype)], None);
                        let problem = where_cond::Problem { dtype, out, cond: other, on_true: x, on_false: row };
                        let tensors = [(&out, dtype), (&other, Bool), (&x, dtype), (&row, dtype)];
                        watch.run(&format!("where_cond {dtype} {what}"), where_cond::gpu::plan(&caps, None, &problem), &tensors, None);
                    }
                }
            }
        }
    }
}

fn reductions(watch: &mut Watch) {
    let caps = watch.caps.clone();
    for (name, function, types) in [
        ("reduce", reduce::Function::Sum, [[F32, F32], [F16, F16], [F32, BF16], [BF16, BF16]]),
        ("reduce_arg", reduce::Function::ArgMax, [[U32, F32], [U32, F16], [U32, U8], [U32, I32]]),
    ] {
        for pin in pins(&caps, name) {
            for len in LENGTHS.into_iter().chain([511, 513, 16_385, 20_000, 70_001]) {
                for (dims, axis) in [(vec![3, len], 1), (vec![len, 3], 0), (vec![len], 0), (vec![2, len, 5], 1)] {
                    if len > 3000 && dims.len() == 3 {
                        continue;
                    }
                    for (i, &x) in places(&dims).iter().enumerate() {
                        let mut kept = dims.clone();
                        kept[axis] = 1;
                        let mut reduced = [false; gristmill::MAX_RANK];
                        reduced[axis] = true;
                        let out = places(&kept)[i % 2];
                        let dtypes = types[i % 4];
                        let problem = reduce::Problem { function, dtypes, reduced, out, x };
                        let plan = reduce::gpu::plan(&caps, pin, &problem);
                        watch.run(
                            &format!("{name} {dtypes:?} {dims:?} axis {axis} place {i} {pin:?}"),
                            plan,
                            &[(&out, dtypes[0]), (&x, dtypes[1])],
                            None,
                        );
                    }
                }
            }
        }
    }
}

fn rows(watch: &mut Watch) {
    let caps = watch.caps.clone();
    // Every tune, and what is chosen without a pin; here, and on a card.
    let mut card = caps.clone();
    (card.kind, card.throughput) = (AdapterKind::Discrete, AdapterKind::Discrete.throughput());
    let kernels = ["softmax", "softmax_in_place", "softmax_columns", "softmax_columns_in_place"];
    let pinned = kernels.into_iter().flat_map(|kernel| pins(&caps, kernel)).flatten().map(Some).chain([None, None]);
    let last = pinned.clone().count() - 1;
    for (at, pin) in pinned.enumerate() {
        let caps = if at == last { &card } else { &caps };
        let in_place = pin.map(|pin| pin.kernel.name.ends_with("in_place"));
        for len in LENGTHS.into_iter().chain([2049, 4100, 16_390]) {
            for (dims, axis) in [(vec![3, len], 1), (vec![len, 3], 0), (vec![len, 34], 0), (vec![2, 2, len], 2)] {
                // Long ones for what walks rows in rounds, few of them.
                if len > 3000 && (dims.len() == 3 || dims[1] == 34) {
                    continue;
                }
                let places = places(&dims);
                for (i, &x) in places.iter().enumerate() {
                    let within = in_place.unwrap_or(i % 2 == 0);
                    let out = if within { x } else { places[(i + 1) % places.len()] };
                    let mask = [None, Some(places[(i + 2) % places.len()]), dense(&[dims[dims.len() - 1]]).broadcast_to(&dims)][i % 3];
                    let mut one = dims.clone();
                    one[axis] = 1;
                    let sinks = [None, dense(&one).broadcast_to(&dims), dense(&[1]).broadcast_to(&dims)][(i + len) % 3];
                    let queries = dims[dims.len() - 2] as i64;
                    let causal = axis + 1 == dims.len() && i % 2 == 1;
                    let causal_limit = if causal { 1 + (len as i64 - queries) * (len as i64 % 2) } else { dims[axis] as i64 };
                    for dtypes in [[F32; 4], [F16, F16, F16, BF16], [BF16, F32, F32, F16]] {
                        if within && dtypes[0] != dtypes[1] {
                            continue;
                        }
                        let problem = softmax::Problem {
                            dtypes,
                            log: i % 2 == 1,
                            in_place: within,
                            axis,
                            scale: 1.0,
                            out,
                            x,
                            mask,
                            causal_limit,
                            sinks,
                        };
                        let mut tensors = vec![(&out, dtypes[0])];
                        tensors.extend((!within).then_some((&x, dtypes[1])));
                        tensors.extend(mask.as_ref().map(|mask| (mask, dtypes[2])));
                        tensors.extend(sinks.as_ref().map(|sinks| (sinks, dtypes[3])));
                        watch.run(
                            &format!("softmax {dtypes:?} {dims:?} axis {axis} place {i} in place {within} {pin:?}"),
                            softmax::gpu::plan(caps, pin, &problem),
                            &tensors,
                            None,
                        );
                    }
                }
            }
        }
    }
}

fn products(watch: &mut Watch) {
    let caps = watch.caps.clone();
    let kernels = ["matmul", "matmul_direct", "matmul_skinny", "matmul_splitk", "matmul_coop"];
    // Every tune, and what is chosen without a pin; here, and on a card: turned operands, parts of k.
    let mut card = caps.clone();
    (card.kind, card.throughput) = (AdapterKind::Discrete, AdapterKind::Discrete.throughput());
    let pinned = kernels.into_iter().flat_map(|kernel| pins(&caps, kernel)).flatten().map(Some).chain([None, None]);
    let last = pinned.clone().count() - 1;
    for (at, pin) in pinned.enumerate() {
        let caps = if at == last { &card } else { &caps };
        for (shape, [m, n, k]) in [
            [1, 1, 1],
            [1, 8, 8],
            [7, 9, 5],
            [8, 16, 8],
            [31, 33, 17],
            [32, 64, 32],
            [33, 65, 31],
            [64, 64, 64],
            [65, 72, 40],
            [1, 130, 129],
            [129, 1, 33],
            [70, 136, 72],
            [8, 40, 264],
            [3, 9, 8200],
        ]
        .into_iter()
        .enumerate()
        {
            // The last is for parts alone.
            if k > 8000 && at != last {
                continue;
            }
            // More rows than it has go to the kernel that is chosen, which has pins of its own.
            let rows = pin.filter(|pin| pin.kernel.name == "matmul_skinny").and_then(|pin| pin.tune?.get("ROWS"));
            if rows.is_some_and(|rows| m > rows as usize) {
                continue;
            }
            let (lhs, rhs, out) = (places(&[2, m, k]), places(&[2, k, n]), places(&[2, m, n]));
            for i in 0..4 {
                let (out, lhs, right) = ([out[0], out[i]][i % 2], lhs[i], rhs[(i + i / 2) % 4]);
                for (types, dtypes) in [[F32; 3], [F16; 3], [BF16; 3], [F32, F32, F16], [F32, BF16, BF16]].into_iter().enumerate() {
                    // A tune changes sizes alone: the first of each kernel meets all types, the others two.
                    let first = pin.is_some_and(|pin| pin.tune.is_some_and(|tune| std::ptr::eq(tune, &pin.kernel.tunes[0])));
                    // Matrices are of f16 alone: what they do not serve goes to another kernel.
                    let matrices = pin.is_some_and(|pin| pin.kernel.needs == Needs::Matrices);
                    if if matrices { dtypes != [F16; 3] } else { !first && types != 0 && types != 1 + at % 2 } {
                        continue;
                    }
                    // Nothing, everything but accumulation, everything but the gate, or everything, in turn.
                    let all = (at + shape + i + types) % 4;
                    let extra = |dtype, layout| Some(matmul::Extra { dtype, layout }).filter(|_| all > 0);
                    let row = Layout::contiguous(&[n]).and_then(|l| l.broadcast_to(&[2, m, n])).expect("a bias");
                    let epilogue = matmul::Epilogue {
                        gate: Some(rhs[(i + i / 2) % 4]).filter(|_| all % 2 == 1),
                        c: extra(BF16, places(&[2, m, n])[(i + 1) % 4]),
                        bias: extra(F16, row),
                        residual: extra(F32, places(&[2, m, n])[(i + 2) % 4]),
                        activation: if all > 0 { ops::Activation::Silu } else { ops::Activation::None },
                        accumulate: all > 1,
                        ..matmul::Epilogue::NONE
                    };
                    // Of a matrix load the first element is watched. The others lie in lines that are whole in workgroup memory, by constants.
                    let batch_invariant = i % 2 == 1 && !matrices;
                    let problem = matmul::Problem { dtypes, batch_invariant, out, lhs, rhs: right, epilogue };
                    let extras = [epilogue.c, epilogue.bias, epilogue.residual].into_iter().flatten();
                    let extras: Vec<_> = extras.map(|extra| (extra.layout, extra.dtype)).collect();
                    let mut tensors = vec![(&out, dtypes[0]), (&lhs, dtypes[1]), (&right, dtypes[2])];
                    tensors.extend(epilogue.gate.iter().map(|gate| (gate, dtypes[2])));
                    tensors.extend(extras.iter().map(|(layout, dtype)| (layout, *dtype)));
                    watch.run(
                        &format!("matmul {dtypes:?} {m} {n} {k} place {i} epilogue {all} {pin:?}"),
                        matmul::gpu::plan(caps, pin, &problem),
                        &tensors,
                        None,
                    );
                }
            }
        }
    }
}

fn attentions(watch: &mut Watch) {
    let caps = watch.caps.clone();
    let mut busy = caps.clone();
    busy.kind = AdapterKind::Discrete;
    for (v_dim, head_dim) in [(1, 1), (8, 16), (30, 24), (72, 40), (200, 33), (256, 128), (400, 300)] {
        for (seq_q, seq_k) in [(1, 1), (5, 7), (33, 65), (64, 40), (2, 600)] {
            let (q, k) = (places(&[2, 4, seq_q, head_dim]), places(&[2, 2, seq_k, head_dim]));
            let (v, out, scores) = (places(&[2, 2, seq_k, v_dim]), places(&[2, 4, seq_q, v_dim]), places(&[2, 4, seq_q, seq_k]));
            let (sums, heads, lens) = (places(&[2, 4, seq_q]), places(&[4]), places(&[2]));
            for i in 0..4 {
                let (out, q, k, v) = (out[(i + i / 2) % 4], q[i], k[i], v[i]);
                let over_heads = |there: bool, i: usize| there.then(|| heads[i % heads.len()].broadcast_to(&[2, 4])).flatten();
                for dtypes in [[F32; 4], [F16; 4], [F32, F32, BF16, BF16]] {
                    let plain = attention::Problem::new(dtypes, out, q, k, v);
                    let problem = attention::Problem {
                        dtypes: [dtypes[0], dtypes[1], dtypes[2], dtypes[3], dtypes[0], F32, dtypes[0]],
                        lse: (i % 2 == 0).then_some(sums[i % sums.len()]),
                        mask: (i % 2 == 0).then_some(scores[i]),
                        bias: (i > 1).then_some(scores[(i + 1) % 4]),
                        alibi: over_heads(i % 2 == 0, i),
                        sinks: over_heads(i > 1, i + 1),
                        kv_lens: (i > 1).then_some(lens[i % lens.len()]),
                        window: [[1 << 30, 1 << 30], [1 << 30, 0], [3, 2], [0, 1 << 30]][i],
                        dropout: (i == 2).then_some(Dropout { probability: 0.5, seed: 1, offset: 2 }),
                        softcap: (i == 3).then_some(20.0),
                        from_end: i > 1,
                        ..plain.clone()
                    };
                    for problem in [plain, problem] {
                        let mut tensors =
                            vec![(&problem.out, dtypes[0]), (&problem.q, dtypes[1]), (&problem.k, dtypes[2]), (&problem.v, dtypes[3])];
                        tensors.extend(problem.mask.as_ref().map(|mask| (mask, Bool)));
                        tensors.extend(problem.bias.as_ref().map(|bias| (bias, dtypes[0])));
                        tensors.extend(problem.alibi.as_ref().map(|slopes| (slopes, F32)));
                        tensors.extend(problem.sinks.as_ref().map(|sinks| (sinks, dtypes[0])));
                        let held = problem.kv_lens.as_ref().map(|lens| (tensors.len(), vec![0xff; 4 * lens.span().end]));
                        tensors.extend(problem.kv_lens.as_ref().map(|lens| (lens, U32)));
                        tensors.extend(problem.lse.as_ref().map(|lse| (lse, F32)));
                        let what = format!("attention {dtypes:?} {seq_q} {seq_k} {head_dim} {v_dim} place {i}");
                        use attention::gpu::{ATTENTION, ATTENTION_DECODE, ATTENTION_DIRECT, ATTENTION_SUBGROUPS};
                        let kernels = [&ATTENTION, &ATTENTION_SUBGROUPS, &ATTENTION_DIRECT, &ATTENTION_DECODE];
                        for (kernel, caps) in kernels.into_iter().flat_map(|kernel| [(kernel, &caps), (kernel, &busy)]) {
                            // What a large card would make of it: decoding in parts.
                            if (kernel.name == "attention_decode") != (caps.kind == AdapterKind::Discrete) {
                                continue;
                            }
                            let plan = attention::gpu::plan(caps, Some(kernel.into()), &problem);
                            // Of the others no tune holds the largest heads.
                            if plan.is_ok() || kernel.name == "attention" {
                                // Numbers of keys as large as they can be.
                                watch.run(&what, plan, &tensors, held.as_ref().map(|(tensor, bytes)| (*tensor, &bytes[..])));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Also of rows that are not there.
fn gathers(watch: &mut Watch) {
    let caps = watch.caps.clone();
    for (rows, width) in [(1, 1), (5, 7), (9, 8), (3, 64), (70, 33), (257, 3)] {
        for count in [1usize, 4, 65, 300] {
            for (axis, dims, made) in [(0, [rows, width], [count, width]), (1, [width, rows], [width, count])] {
                let indices = dense(&[count]);
                let ids: Vec<u32> = (0..count as u32).map(|i| if i % 5 == 4 { u32::MAX - i } else { i * 7 % (rows as u32 + 1) }).collect();
                for (i, &x) in places(&dims).iter().enumerate() {
                    let out = places(&made)[i % 3];
                    for dtype in [F32, F16, U8] {
                        let problem = gather::Problem { dtype, indices_dtype: U32, axis, out, x, indices };
                        let tensors = [(&out, dtype), (&x, dtype), (&indices, U32)];
                        let what = format!("gather {dtype} {dims:?} axis {axis} {count} place {i}");
                        watch.run(&what, gather::gpu::plan(&caps, None, &problem), &tensors, Some((2, bytemuck::cast_slice(&ids))));
                    }
                }
            }
        }
    }
}

/// Heads of whole eights, words and neither; tables that end where they are read last; positions that are not there.
fn ropes(watch: &mut Watch) {
    use rope::{RopeSections, RopeStyle};
    let caps = watch.caps.clone();
    for (at, (dims, half)) in [
        ([1, 1, 1, 2], 1),
        ([2, 3, 5, 16], 8),
        ([3, 2, 7, 24], 8),
        ([2, 2, 9, 40], 12),
        ([1, 3, 33, 22], 10),
        ([2, 2, 5, 13], 5),
        ([1, 4, 65, 64], 32),
        ([2, 1, 3, 256], 128),
    ]
    .into_iter()
    .enumerate()
    {
        let rows = dims[2];
        for (i, &x) in places(&dims).iter().enumerate() {
            let (out, [cos, sin]) = (places(&dims)[(i + at) % 4], [i, i + at].map(|i| places(&[rows, half])[i % 4]));
            for style in [RopeStyle::Half, RopeStyle::Interleaved] {
                for (kind, sections) in [
                    None,
                    None,
                    Some(RopeSections::Chunked([half - half / 2, half / 4, half / 2 - half / 4])),
                    Some(RopeSections::Interleaved([half - 2 * (half / 3), half / 3, half / 3])),
                ]
                .into_iter()
                .enumerate()
                {
                    let streams = if sections.is_some() { 3 } else { 1 };
                    let positions = (kind > 0).then(|| dense(&[streams, dims[0], dims[2]]));
                    let count = streams * dims[0] * dims[2];
                    let ids: Vec<u32> =
                        (0..count).map(|i| if i % 5 == 4 { u32::MAX - i as u32 } else { (i * 7 % (rows + 1)) as u32 }).collect();
                    for dtypes in [[F32, F32], [F16, F16], [BF16, BF16], [F32, BF16], [F16, F32]] {
                        let what = format!("rope {dtypes:?} {style:?} {dims:?} {half} {sections:?} place {i}");
                        let problem = rope::Problem {
                            in_place: false,
                            dtypes,
                            style,
                            inverse: at % 2 == 1,
                            offset: 0,
                            sections,
                            out,
                            x,
                            cos,
                            sin,
                            positions,
                        };
                        let mut tensors = vec![(&out, dtypes[0]), (&x, dtypes[1]), (&cos, F32), (&sin, F32)];
                        tensors.extend(positions.as_ref().map(|positions| (positions, U32)));
                        let hold = positions.is_some().then_some((4, bytemuck::cast_slice(&ids)));
                        watch.run(&what, rope::gpu::plan(&caps, None, &problem), &tensors, hold);
                        if dtypes[0] == dtypes[1] {
                            let problem = rope::Problem { in_place: true, x: out, ..problem };
                            tensors.remove(1);
                            let hold = hold.map(|(_, bytes)| (3, bytes));
                            watch.run(&format!("{what} in place"), rope::gpu::plan(&caps, None, &problem), &tensors, hold);
                        }
                    }
                }
            }
        }
    }
}

/// Every kernel whose name `is_ours`, by these families of cases.
fn every_index_stays_inside(families: &[fn(&mut Watch)], is_ours: fn(&str) -> bool) {
    let adapters = Device::adapters();
    let Some(adapter) = adapters.iter().find(|adapter| adapter.backend == Backend::Vulkan) else {
        assert!(std::env::var("GRISTMILL_REQUIRE_GPU").is_err(), "no Vulkan adapter on this machine");
        return;
    };
    let options = GpuOptions { adapter: Some(adapter.clone()), software: true, ..GpuOptions::default() };
    let mut watch = Watch::new(&Device::gpu(&options).expect("an adapter that is there"));
    for family in families {
        family(&mut watch);
    }
    let cases: usize = watch.seen.values().sum();
    println!("{cases} dispatches of {} kernels and specs", watch.seen.len());
    let kernels: BTreeSet<&str> = watch.seen.keys().filter_map(|name| name.split('.').next()).collect();
    let able = ops::kernels().iter().filter(|kernel| kernel.needs.met(&watch.caps) && is_ours(kernel.name));
    let missing: Vec<_> = able.filter(|kernel| !kernels.contains(kernel.name)).map(|kernel| kernel.name).collect();
    assert!(missing.is_empty(), "never run: {missing:?}");
    assert!(
        watch.failed.is_empty(),
        "{} of the cases leave their buffers:\n{}",
        watch.failed.len(),
        watch.failed[..watch.failed.len().min(40)].join("\n")
    );
}

// Two tests, so that they run side by side.
#[test]
fn every_index_of_matmul_stays_inside() {
    every_index_stays_inside(&[products], |name| name.starts_with("matmul"));
}

#[test]
fn every_other_index_stays_inside() {
    every_index_stays_inside(&[gathers, ropes, elementwise, reductions, rows, attentions], |name| !name.starts_with("matmul"));
}

/// An index past the end of each kind of thing is seen, one inside is not.
#[test]
fn the_watch_bites() {
    let kernel = |body: &str| {
        format!(
            "@group(0) @binding(0) var<storage, read_write> out: array<u32>;\nvar<workgroup> shared_words: array<u32, 4>;\n\
             @compute @workgroup_size(1) fn main(@builtin(num_workgroups) n: vec3<u32>) {{\n    var own: array<u32, 4>;\n    \
             var four = vec4<u32>(0u);\n    {body}\n}}\n"
        )
    };
    for (body, indices) in [
        ("out[n.x] = 1u;", 1),
        ("out[0] = own[n.x] + own[(n.y + 1u) * 2u - 1u];", 2),
        ("shared_words[n.x] = out[own[n.x]];", 3),
        ("four[n.x] = 2u; out[0] = four.y;", 1),
        ("out[1] = own[2];", 0),
    ] {
        let (text, found) = watched(&kernel(body), 1).expect("WGSL");
        assert_eq!(found, indices, "{body}");
        assert!(naga::front::wgsl::parse_str(&text).is_ok(), "{text}");
    }
}
