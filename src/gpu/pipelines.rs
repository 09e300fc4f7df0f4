//! The pipeline cache: each kernel × spec compiled once, outside the lock, in parallel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use super::{Access, Gpu, Kernel, Spec, lock};
use crate::error::Result;

/// A compiled kernel and the layout of its bindings.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// Kernels are statics: their address is who they are, also where a user's kernel shares a name with ours. Then whether it is
/// trusted.
type Key = (usize, Spec, bool);
type Slot = Arc<OnceLock<Result<Arc<Pipeline>>>>;

#[derive(Default)]
pub(super) struct Pipelines(Mutex<HashMap<Key, Slot>>);

impl Pipelines {
    pub(super) fn get(&self, gpu: &Gpu, op: &'static str, kernel: &'static Kernel, spec: Spec, own: bool) -> Result<Arc<Pipeline>> {
        let key = (std::ptr::from_ref(kernel) as usize, spec, own);
        let slot = lock(&self.0).entry(key).or_default().clone();
        let compiled = slot.get_or_init(|| compile(gpu, op, kernel, &spec, own).map(Arc::new)).clone();
        // A failure may pass (memory, an earlier command's error): the next call tries again.
        if compiled.is_err() {
            lock(&self.0).remove(&key);
        }
        compiled
    }
}

fn compile(gpu: &Gpu, op: &'static str, kernel: &'static Kernel, spec: &Spec, own: bool) -> Result<Pipeline> {
    let text = kernel.compose(spec)?;
    let label = format!("{}.{spec}", kernel.name);
    tracing::debug!(kernel = label, device = gpu.label, "compiling");
    let params = kernel.params.iter().map(|field| field.offset + field.size).max().unwrap_or(0) as u64;
    let storage = kernel.bindings.iter().map(|binding| wgpu::BufferBindingType::Storage { read_only: binding.access == Access::Read });
    let entries: Vec<_> = storage
        .chain([wgpu::BufferBindingType::Uniform])
        .zip(0..)
        .map(|(ty, binding)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: match ty {
                // A shader that declares more is refused when it is compiled.
                wgpu::BufferBindingType::Uniform => {
                    wgpu::BindingType::Buffer { ty, has_dynamic_offset: true, min_binding_size: std::num::NonZeroU64::new(params) }
                }
                _ => wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            },
            count: None,
        })
        .collect();
    let options = wgpu::PipelineCompilationOptions {
        zero_initialize_workgroup_memory: !(own && kernel.fills_workgroup_memory),
        ..Default::default()
    };
    gpu.guarded(op, &label, 0, || {
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(&label), source: wgpu::ShaderSource::Wgsl(text.into()) };
        let module = if !own || gpu.checks.are_on() {
            gpu.device.create_shader_module(descriptor)
        } else {
            let checks =
                wgpu::ShaderRuntimeChecks { bounds_checks: false, force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
            // SAFETY: `Gpu::run` is told that this is a kernel of ours in a plan for a checked call. Its indices stay within the layouts that
            // were checked against the buffers: tests/bounds.rs watches every index of every kernel. Its loops end: each counts up to a
            // number from params or a constant, by a step that cannot wrap (`loop_end`).
            unsafe { gpu.device.create_shader_module_trusted(descriptor, checks) }
        };
        let layout = gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries: &entries });
        let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: options.clone(),
            cache: None,
        });
        Pipeline { pipeline, layout }
    })
}
