//! What naga says about a shader's text, for the shader tests and the shader dump.

use naga::proc::Layouter;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module};

/// What every WebGPU device can do.
const BASELINE: Capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;

/// What some can, by the name of its WGSL extension.
const FEATURES: [(&str, Capabilities); 3] = [
    ("f16", Capabilities::SHADER_FLOAT16),
    ("subgroups", Capabilities::SUBGROUP.union(Capabilities::SUBGROUP_BARRIER)),
    ("wgpu_cooperative_matrix", Capabilities::COOPERATIVE_MATRIX),
];

fn validate(module: &Module, capabilities: Capabilities) -> Result<ModuleInfo, String> {
    Validator::new(ValidationFlags::all(), capabilities).validate(module).map_err(|error| format!("{:?}", error.into_inner()))
}

/// A valid module with one compute entry point, its analysis, and the features that it needs beyond WebGPU's baseline.
pub fn parse(text: &str) -> Result<(Module, ModuleInfo, Vec<&'static str>), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let all = FEATURES.iter().fold(BASELINE, |sum, (_, capability)| sum | *capability);
    let info = validate(&module, all)?;
    match module.entry_points.as_slice() {
        [entry] if entry.stage == naga::ShaderStage::Compute => {}
        others => return Err(format!("{} entry points, not one for compute", others.len())),
    }
    // A feature is needed if the module is invalid without it.
    let needed = FEATURES.iter().filter(|(_, capability)| validate(&module, all - *capability).is_err());
    let features = needed.map(|(name, _)| *name).collect();
    Ok((module, info, features))
}

/// Sizes of all types of a module.
pub fn layouts(module: &Module) -> Result<Layouter, String> {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).map_err(|error| error.to_string())?;
    Ok(layouter)
}

/// Bytes of workgroup memory as WebGPU counts them: each variable rounded up to 16.
pub fn workgroup_bytes(module: &Module) -> Result<u32, String> {
    let layouts = layouts(module)?;
    let variables = module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    Ok(variables.map(|(_, variable)| layouts[variable.ty].size.next_multiple_of(16)).sum())
}
