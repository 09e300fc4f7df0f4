//! WGSL as wgpu 30 gives it to a Vulkan driver: the SPIR-V of a kernel that [`gristmill::gpu`] compiles without runtime checks.

use std::collections::BTreeMap;

use naga::back::spv::{self, BindingInfo, BindingMap, Capability, WriterFlags, ZeroInitializeWorkgroupMemoryMode};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ShaderStage, TypeInner};

/// What the device has of what naga asks for.
#[derive(Debug, Clone, Copy)]
pub struct Offers {
    pub f16: bool,
    pub int8: bool,
    pub integer_dot: bool,
    pub storage_input_output_16: bool,
    pub cooperative_matrix: bool,
}

/// A shader as a driver takes it.
pub struct Spirv {
    pub words: Vec<u32>,
    /// Whether each binding of group 0 is a uniform, by its number.
    pub bindings: BTreeMap<u32, bool>,
    pub entry: String,
}

/// As wgpu-core's `Device::create_shader_module` and wgpu-hal's `Device::compile_stage` do it between them.
pub fn of(text: &str, fills_workgroup_memory: bool, offers: Offers) -> Result<Spirv, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator.validate(&module).map_err(|error| error.emit_to_string(text))?;
    let [entry] = module.entry_points.as_slice() else {
        return Err(format!("{} entry points, not one", module.entry_points.len()));
    };
    if entry.stage != ShaderStage::Compute {
        return Err(format!("`{}` is no compute shader", entry.name));
    }
    if !module.overrides.is_empty() {
        return Err("overrides: give them as constants".into());
    }
    let cooperative = module.types.iter().any(|(_, ty)| matches!(ty.inner, TypeInner::CooperativeMatrix { .. }));
    if cooperative && !offers.cooperative_matrix {
        return Err("no cooperative matrices on this device".into());
    }

    let mut bindings = BTreeMap::new();
    for (_, variable) in module.global_variables.iter() {
        if let Some(binding) = variable.binding {
            let name = variable.name.as_deref().unwrap_or_default();
            let uniform = match variable.space {
                AddressSpace::Uniform => true,
                AddressSpace::Storage { .. } => false,
                _ => return Err(format!("`{name}` is no buffer")),
            };
            if binding.group != 0 {
                return Err(format!("`{name}` is in group {}, not 0", binding.group));
            }
            bindings.insert(binding.binding, uniform);
        }
    }
    // `Device::create_bind_group_layout` (vulkan/device.rs) numbers the bindings anew, without gaps.
    let binding_map: BindingMap = (0..)
        .zip(bindings.keys())
        .map(|(number, &binding)| {
            (naga::ResourceBinding { group: 0, binding }, BindingInfo { descriptor_set: 0, binding: number, binding_array_size: None })
        })
        .collect();

    let pipeline = spv::PipelineOptions { entry_point: entry.name.clone(), shader_stage: ShaderStage::Compute };
    let options = options(binding_map, fills_workgroup_memory, offers);
    let words = spv::write_vec(&module, &info, &options, Some(&pipeline)).map_err(|error| error.to_string())?;
    Ok(Spirv { words, bindings, entry: entry.name.clone() })
}

/// Each line with its place in wgpu-hal 30.0.1: `open` is `Adapter::device_from_raw` in `src/vulkan/adapter.rs`, `compile` is
/// `Device::compile_stage` in `src/vulkan/device.rs`.
fn options(binding_map: BindingMap, fills_workgroup_memory: bool, offers: Offers) -> spv::Options<'static> {
    // open: what every device has, then what a compute shader can need of gristmill's own (`Gpu::request`: f16 and subgroups).
    let mut capabilities = vec![
        Capability::Shader,
        Capability::Matrix,
        Capability::Sampled1D,
        Capability::Image1D,
        Capability::ImageQuery,
        Capability::DerivativeControl,
        Capability::StorageImageExtendedFormats,
        Capability::SampledCubeArray,
        Capability::SampleRateShading,
        Capability::GroupNonUniform,
        Capability::GroupNonUniformVote,
        Capability::GroupNonUniformArithmetic,
        Capability::GroupNonUniformBallot,
        Capability::GroupNonUniformShuffle,
        Capability::GroupNonUniformShuffleRelative,
        Capability::GroupNonUniformQuad,
    ];
    if offers.f16 {
        capabilities.push(Capability::Float16);
    }
    // `Gpu::request` asks for them where they are. naga takes the other memory model in shaders that use them, and in no other.
    if offers.cooperative_matrix {
        capabilities.extend([Capability::CooperativeMatrixKHR, Capability::VulkanMemoryModel]);
    }
    if offers.integer_dot {
        capabilities.extend([
            Capability::DotProductInputAllKHR,
            Capability::DotProductInput4x8BitKHR,
            Capability::DotProductInput4x8BitPackedKHR,
            Capability::DotProductKHR,
        ]);
    }
    if offers.int8 {
        capabilities.push(Capability::Int8);
    }
    spv::Options {
        // open: Vulkan 1.3 and newer.
        lang_version: (1, 6),
        // open: DEBUG and what goes with it are for builds with debug assertions alone, and change no code.
        flags: WriterFlags::LABEL_VARYINGS | WriterFlags::FORCE_POINT_SIZE,
        fake_missing_bindings: false,
        binding_map,
        capabilities: Some(capabilities.into_iter().collect()),
        // compile: `ShaderRuntimeChecks::bounds_checks` is off, as in src/gpu/pipelines.rs.
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Unchecked,
            buffer: BoundsCheckPolicy::Unchecked,
            image_load: BoundsCheckPolicy::Unchecked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        // compile: none where the pipeline does not ask for it, else open's: native since Vulkan 1.3.
        zero_initialize_workgroup_memory: if fills_workgroup_memory {
            ZeroInitializeWorkgroupMemoryMode::None
        } else {
            ZeroInitializeWorkgroupMemoryMode::Native
        },
        // compile: `ShaderRuntimeChecks::force_loop_bounding` is off.
        force_loop_bounding: false,
        // open and compile: the other checks stay on.
        ray_query_initialization_tracking: true,
        trace_ray_argument_validation: true,
        mesh_shader_primitive_indices_clamp: true,
        emit_int_div_checks: true,
        // open: for `SHADER_F16`.
        use_storage_input_output_16: offers.f16 && offers.storage_input_output_16,
        debug_info: None,
        // No compute shader has one.
        task_dispatch_limits: None,
    }
}
