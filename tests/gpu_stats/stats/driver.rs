//! The driver's side: RADV without a card, in a process of its own, since the family is read when the instance is made.
//!
//! Jobs come on the standard input, a JSON object a line; each gets a line back. `wgpu` cannot open this device, so `ash` does, with the
//! features that wgpu-hal 30 would enable.

use std::ffi::{CStr, CString, c_char};
use std::io::{BufRead, Write};

use ash::vk;
use serde_json::{Map, Value, json};

use super::spirv::{self, Offers};

/// Answers the jobs on the standard input. The first line says what the device is, or `refused` and why.
pub fn serve() -> Result<(), String> {
    let mut output = std::io::stdout().lock();
    let mut say = |value: &Value| writeln!(output, "{value}").and_then(|()| output.flush()).map_err(|error| error.to_string());
    let driver = match Driver::open() {
        Ok(driver) => driver,
        Err(reason) => return say(&json!({ "refused": reason })),
    };
    say(&driver.facts)?;
    for line in std::io::stdin().lock().lines() {
        let job: Value = serde_json::from_str(&line.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        let text = job["text"].as_str().unwrap_or_default();
        let fills = job["fills_workgroup_memory"].as_bool().unwrap_or(false);
        say(&driver.compile(text, fills).unwrap_or_else(|error| json!({ "error": error })))?;
    }
    Ok(())
}

struct Driver {
    device: ash::Device,
    executable: ash::khr::pipeline_executable_properties::Device,
    offers: Offers,
    facts: Value,
    // The library must outlive what came out of it.
    _instance: ash::Instance,
    _entry: ash::Entry,
}

fn text(chars: &[c_char]) -> String {
    let bytes = chars.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    String::from_utf8(bytes).unwrap_or_default()
}

impl Driver {
    fn open() -> Result<Driver, String> {
        // SAFETY: the Vulkan loader, as any Vulkan program loads it; what it gives is kept together.
        unsafe {
            let entry = ash::Entry::load().map_err(|error| format!("no Vulkan loader: {error}"))?;
            // As wgpu-hal asks for.
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let info = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&info, None).map_err(|error| format!("no Vulkan instance: {error}"))?;
            let physical = instance.enumerate_physical_devices().map_err(|error| format!("no device: {error}"))?;
            let physical = *physical.first().ok_or("the driver shows no device for a card that is not there")?;
            Driver::of(entry, instance, physical)
        }
    }

    /// # Safety
    /// The instance is the entry's, the device the instance's.
    unsafe fn of(entry: ash::Entry, instance: ash::Instance, physical: vk::PhysicalDevice) -> Result<Driver, String> {
        let mut about = vk::PhysicalDeviceDriverProperties::default();
        let mut sizes = vk::PhysicalDeviceSubgroupSizeControlProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut about).push_next(&mut sizes);
        // SAFETY: the caller's.
        unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
        let (name, version) = (text(&properties.properties.device_name), text(&about.driver_info));
        // A card that is there would answer for whatever family was asked for.
        if about.driver_id != vk::DriverId::MESA_RADV || !name.starts_with("Null hardware") {
            return Err(format!("the driver shows {name} ({version}) instead"));
        }
        // SAFETY: the caller's.
        let extensions = unsafe { instance.enumerate_device_extension_properties(physical) }.map_err(|error| error.to_string())?;
        let has = |name: &CStr| extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name));
        if !has(ash::khr::pipeline_executable_properties::NAME) {
            return Err(format!("{name} ({version}) tells nothing of its pipelines"));
        }

        let mut float16 = vk::PhysicalDeviceShaderFloat16Int8Features::default();
        let mut storage16 = vk::PhysicalDevice16BitStorageFeatures::default();
        let mut dot = vk::PhysicalDeviceShaderIntegerDotProductFeatures::default();
        let mut robust2 = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
        let mut matrix = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
        let mut found = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut float16)
            .push_next(&mut storage16)
            .push_next(&mut dot)
            .push_next(&mut robust2)
            .push_next(&mut matrix);
        // SAFETY: the caller's.
        unsafe { instance.get_physical_device_features2(physical, &mut found) };
        let core = found.features;
        // `to_wgpu` in wgpu-hal's vulkan/adapter.rs: SHADER_F16 wants both.
        let f16 = float16.shader_float16 == vk::TRUE
            && storage16.storage_buffer16_bit_access == vk::TRUE
            && storage16.uniform_and_storage_buffer16_bit_access == vk::TRUE;
        let offers = Offers {
            f16,
            int8: float16.shader_int8 == vk::TRUE,
            integer_dot: dot.shader_integer_dot_product == vk::TRUE,
            storage_input_output_16: storage16.storage_input_output16 == vk::TRUE,
            cooperative_matrix: has(ash::khr::cooperative_matrix::NAME) && matrix.cooperative_matrix == vk::TRUE,
        };

        // What `PhysicalDeviceFeatures::from_extensions_and_requested_features` (vulkan/adapter.rs) enables and a compute shader may feel:
        // robust access is on wherever there is any.
        let mut names = vec![ash::khr::pipeline_executable_properties::NAME.as_ptr()];
        let mut tells = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
        let mut image_robust = vk::PhysicalDeviceImageRobustnessFeatures::default().robust_image_access(true);
        let mut zero = vk::PhysicalDeviceZeroInitializeWorkgroupMemoryFeatures::default().shader_zero_initialize_workgroup_memory(true);
        let mut size_control = vk::PhysicalDeviceSubgroupSizeControlFeatures::default().subgroup_size_control(true);
        let mut model = vk::PhysicalDeviceVulkanMemoryModelFeatures::default()
            .vulkan_memory_model(offers.cooperative_matrix)
            .vulkan_memory_model_device_scope(offers.cooperative_matrix);
        float16 = vk::PhysicalDeviceShaderFloat16Int8Features::default().shader_float16(f16).shader_int8(offers.int8);
        storage16 = vk::PhysicalDevice16BitStorageFeatures::default()
            .storage_buffer16_bit_access(f16)
            .storage_input_output16(f16 && offers.storage_input_output_16)
            .uniform_and_storage_buffer16_bit_access(f16);
        dot = vk::PhysicalDeviceShaderIntegerDotProductFeatures::default().shader_integer_dot_product(offers.integer_dot);
        robust2 = vk::PhysicalDeviceRobustness2FeaturesEXT::default()
            .robust_buffer_access2(robust2.robust_buffer_access2 == vk::TRUE)
            .robust_image_access2(robust2.robust_image_access2 == vk::TRUE);
        matrix = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
        let mut features = vk::PhysicalDeviceFeatures2::default()
            .features(vk::PhysicalDeviceFeatures::default().robust_buffer_access(core.robust_buffer_access == vk::TRUE))
            .push_next(&mut tells)
            .push_next(&mut image_robust)
            .push_next(&mut zero)
            .push_next(&mut size_control)
            .push_next(&mut model)
            .push_next(&mut float16)
            .push_next(&mut storage16)
            .push_next(&mut dot);
        if has(ash::ext::robustness2::NAME) {
            names.push(ash::ext::robustness2::NAME.as_ptr());
            features = features.push_next(&mut robust2);
        }
        if offers.cooperative_matrix {
            names.push(ash::khr::cooperative_matrix::NAME.as_ptr());
            features = features.push_next(&mut matrix);
        }
        let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
        let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names).push_next(&mut features);
        // SAFETY: the caller's.
        let device = unsafe { instance.create_device(physical, &info, None) }.map_err(|error| format!("{name}: {error}"))?;
        let executable = ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
        // GCN knows waves of 64 alone; cooperative matrices came with RDNA3.
        let generation = match (sizes.min_subgroup_size, offers.cooperative_matrix) {
            (64, _) => "GCN",
            (_, false) => "RDNA",
            (_, true) => "RDNA3",
        };
        let facts = json!({ "device": name, "version": version, "generation": generation });
        Ok(Driver { device, executable, offers, facts, _instance: instance, _entry: entry })
    }

    /// The statistics, the wave's size and the ISA text of a shader.
    fn compile(&self, wgsl: &str, fills_workgroup_memory: bool) -> Result<Value, String> {
        let spirv = spirv::of(wgsl, fills_workgroup_memory, self.offers)?;
        let bindings: Vec<_> = (0..)
            .zip(spirv.bindings.values())
            .map(|(number, &uniform)| {
                // src/gpu/pipelines.rs: storage buffers, and params at a dynamic offset.
                let kind = if uniform { vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC } else { vk::DescriptorType::STORAGE_BUFFER };
                vk::DescriptorSetLayoutBinding::default()
                    .binding(number)
                    .descriptor_type(kind)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let entry = CString::new(spirv.entry).map_err(|error| error.to_string())?;
        let failed = |error: vk::Result| error.to_string();
        // SAFETY: naga's SPIR-V is valid for what the device enabled; the objects are this function's, and last as long as they are used.
        unsafe {
            let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let set = self.device.create_descriptor_set_layout(&set, None).map_err(failed)?;
            let sets = [set];
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = self.device.create_pipeline_layout(&layout, None).map_err(failed)?;
            let module = vk::ShaderModuleCreateInfo::default().code(&spirv.words);
            let module = self.device.create_shader_module(&module, None).map_err(failed)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                // `compile_stage` in wgpu-hal's vulkan/device.rs, for a device with subgroups.
                .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(&entry);
            let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            let info = [vk::ComputePipelineCreateInfo::default().flags(flags).layout(layout).stage(stage)];
            let compiled = self.device.create_compute_pipelines(vk::PipelineCache::null(), &info, None);
            let result = compiled.map_err(|(_, error)| error.to_string()).and_then(|pipelines| {
                let told = self.told(pipelines[0]);
                self.device.destroy_pipeline(pipelines[0], None);
                told
            });
            self.device.destroy_shader_module(module, None);
            self.device.destroy_pipeline_layout(layout, None);
            self.device.destroy_descriptor_set_layout(set, None);
            result
        }
    }

    /// # Safety
    /// The pipeline is the device's, made with both flags.
    unsafe fn told(&self, pipeline: vk::Pipeline) -> Result<Value, String> {
        let failed = |error: vk::Result| error.to_string();
        let pipeline_info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        // SAFETY: the caller's.
        let executables = unsafe { self.executable.get_pipeline_executable_properties(&pipeline_info) }.map_err(failed)?;
        let wave = executables.first().ok_or("the driver made no executable")?.subgroup_size;
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(0);
        let mut statistics = Map::new();
        // SAFETY: the caller's.
        for statistic in unsafe { self.executable.get_pipeline_executable_statistics(&info) }.map_err(failed)? {
            // SAFETY: the format says which member it is.
            let value = unsafe {
                match statistic.format {
                    vk::PipelineExecutableStatisticFormatKHR::UINT64 => json!(statistic.value.u64),
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => json!(statistic.value.i64),
                    vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => json!(statistic.value.f64),
                    _ => json!(statistic.value.b32 != 0),
                }
            };
            statistics.insert(text(&statistic.name), value);
        }

        // Asked twice: for the sizes, then for the texts.
        let get = self.executable.fp().get_pipeline_executable_internal_representations_khr;
        // SAFETY: the caller's.
        let mut parts = unsafe { self.executable.get_pipeline_executable_internal_representations(&info) }.map_err(failed)?;
        let mut buffers: Vec<Vec<u8>> = parts.iter().map(|part| vec![0; part.data_size]).collect();
        for (part, buffer) in parts.iter_mut().zip(&mut buffers) {
            part.p_data = buffer.as_mut_ptr().cast();
        }
        let mut count = parts.len() as u32;
        // SAFETY: each part points to as many bytes as it says, which live until they are read below.
        unsafe { get(self.device.handle(), &info, &mut count, parts.as_mut_ptr()) }.result().map_err(failed)?;
        let named = parts.iter().zip(&buffers).find(|(part, _)| text(&part.name) == "Assembly");
        let isa = named.map(|(_, bytes)| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string());
        Ok(json!({ "wave": wave, "statistics": statistics, "isa": isa.ok_or("no ISA text: this Mesa has no disassembler")? }))
    }
}
